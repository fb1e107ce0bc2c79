//! Text from outside, bounded: names and paths as they are kept.

/// Bytes of a path or name that are kept.
const MAX_TEXT: usize = 256;

/// As UTF-8, foreign bytes replaced, cut at a character.
pub fn bounded_text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned();
    let end = text.floor_char_boundary(MAX_TEXT);
    text.truncate(end);
    text
}

/// The path of a request target: without scheme, authority, query string and fragment; of an authority alone
/// (CONNECT) host and port.
pub fn url_path(target: &[u8]) -> String {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let target = &target[..end];
    if target.starts_with(b"/") {
        return bounded_text(target);
    }
    match target.windows(3).take(16).position(|part| part == b"://") {
        Some(scheme) => {
            let rest = &target[scheme + 3..];
            bounded_text(rest.iter().position(|byte| *byte == b'/').map_or(b"/", |at| &rest[at..]))
        }
        // What may stand before an @ is a user's name and password.
        None => bounded_text(target.rsplit(|byte| *byte == b'@').next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_neither_query_nor_authority() {
        for (target, expected) in [
            ("/a/b?token=secret", "/a/b"),
            ("/a#part", "/a"),
            ("http://user:secret@host:80/a?b", "/a"),
            ("http://host", "/"),
            ("*", "*"),
            ("/redirect?to=http://other/x", "/redirect"),
            ("http://host?a/b=secret", "/"),
            ("/users/me@example.org", "/users/me@example.org"),
            ("user:secret@host:443", "host:443"),
            ("host:443", "host:443"),
        ] {
            assert_eq!(url_path(target.as_bytes()), expected);
        }
        // The 256th byte is the first half of a character.
        assert_eq!(url_path(format!("/{}", "ä".repeat(200)).as_bytes()).len(), 255);
    }
}
