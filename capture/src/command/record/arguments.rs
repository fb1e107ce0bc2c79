//! Values of `capture record`'s flags: seconds, spans, sizes.

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        // Three hundred years, more than a time can hold.
        Ok(seconds) if (0.0..1e10).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, 0 or more".to_owned()),
    }
}

/// `500`, `10K`, `2M`, `1G`: bytes, in powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.find(|letter: char| !letter.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("a number of bytes, or one with K, M, G or T".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "a number of bytes above 0, or one with K, M, G or T".to_owned())
}

pub(super) fn span(text: &str) -> Result<event::Duration, String> {
    let span: Result<jiff::SignedDuration, _> = text.parse();
    match span.ok().and_then(|span| i64::try_from(span.as_nanos()).ok()) {
        Some(nanos) if nanos >= 1_000_000_000 => Ok(event::Duration::from_nanos(nanos)),
        _ => Err("a span of a second or more, such as 30s, 10m or 1h30m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        assert_eq!((size("500"), size("2M"), size("1GiB")), (Ok(500), Ok(2 << 20), Ok(1 << 30)));
        assert!(size("0").is_err() && size("2X").is_err() && size("99999999999T").is_err());
        assert_eq!(span("10m"), Ok(event::Duration::from_secs(600)));
        assert!(span("0s").is_err() && span("ten").is_err());
        assert!(seconds("-1").is_err() && seconds("nan").is_err() && seconds("0").is_ok());
    }
}
