//! Addresses in texts: dotted and colon-separated, in names of hosts (ip-10-0-1-5), and reversed for DNS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The text with every address replaced; `None` where there is none.
pub fn replace(text: &str, new: &mut impl FnMut(IpAddr) -> IpAddr) -> Option<String> {
    // No address without one of these: most texts are left as they are.
    if !text.contains([':', '.', '-']) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_changed = false;
    while !rest.is_empty() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || ".:-_".contains(letter);
        let (word, after) = rest.split_at(rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()));
        match reversed(word, new) {
            Some(replaced) => {
                out += &replaced;
                is_changed = true;
            }
            None => is_changed |= replace_in_word(word, &mut out, new),
        }
        let (other, after) = after.split_at(after.find(is_word).unwrap_or(after.len()));
        out += other;
        rest = after;
    }
    is_changed.then_some(out)
}

/// Appends a word with the addresses in it replaced; whether there was one.
fn replace_in_word(word: &str, out: &mut String, new: &mut impl FnMut(IpAddr) -> IpAddr) -> bool {
    if let Some(replaced) = colons(word, new) {
        *out += &replaced;
        return true;
    }
    let mut is_changed = false;
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        if digits == 0 {
            let next = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
            out.push_str(&rest[..next]);
            rest = &rest[next..];
            continue;
        }
        match ['.', '-'].into_iter().find_map(|separator| quad(rest, separator)) {
            Some((address, length, separator)) => {
                *out += &new(address.into()).to_string().replace('.', separator);
                rest = &rest[length..];
                is_changed = true;
            }
            None => {
                out.push_str(&rest[..digits]);
                rest = &rest[digits..];
            }
        }
    }
    is_changed
}

/// Four numbers at the start of a text, how many bytes they take, and what stands between them.
fn quad(text: &str, separator: char) -> Option<(Ipv4Addr, usize, &'static str)> {
    let is_digit = |letter: char| letter.is_ascii_digit();
    let end = text.find(|letter| !is_digit(letter) && letter != separator).unwrap_or(text.len());
    let mut octets = [0; 4];
    let mut length = 0;
    let mut numbers = text[..end].split(separator);
    for (place, octet) in octets.iter_mut().enumerate() {
        let number = numbers.next()?;
        *octet = number.parse().ok().filter(|_| number.len() <= 3)?;
        length += number.len() + usize::from(place > 0);
    }
    Some((octets.into(), length, if separator == '.' { "." } else { "-" }))
}

/// A word that is an address of IPv6; what follows it in brackets, a port, is a word of its own.
fn colons(word: &str, new: &mut impl FnMut(IpAddr) -> IpAddr) -> Option<String> {
    let address: Ipv6Addr = word.parse().ok()?;
    Some(new(address.into()).to_string())
}

/// `5.1.0.10.in-addr.arpa`, or the name of a zone with fewer numbers; and the same of IPv6, in hexadecimal digits. A
/// prefix stands for a prefix, whatever follows it.
fn reversed(word: &str, new: &mut impl FnMut(IpAddr) -> IpAddr) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let (zone, is_ipv6) = match name.strip_suffix(".in-addr.arpa") {
        Some(zone) => (zone, false),
        None => (name.strip_suffix(".ip6.arpa")?, true),
    };
    let suffix = &word[zone.len()..];
    let labels = || zone.rsplit('.');
    let (count, most) = (labels().count(), if is_ipv6 { 32 } else { 4 });
    if count > most {
        return None;
    }
    let mut reversed: Vec<String> = if is_ipv6 {
        let mut bits = 0_u128;
        for (place, label) in (0..).zip(labels()) {
            let digit = u8::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
            bits |= u128::from(digit) << (124 - 4 * place);
        }
        let IpAddr::V6(address) = new(Ipv6Addr::from_bits(bits).into()) else { return None };
        format!("{:032x}", address.to_bits()).chars().map(String::from).collect()
    } else {
        let mut octets = [0; 4];
        for (octet, label) in octets.iter_mut().zip(labels()) {
            *octet = label.parse().ok()?;
        }
        let IpAddr::V4(address) = new(Ipv4Addr::from(octets).into()) else { return None };
        address.octets().iter().map(ToString::to_string).collect()
    };
    reversed.truncate(count);
    reversed.reverse();
    Some(reversed.join(".") + suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every bit turned over, which preserves prefixes.
    fn turn(address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(!address.to_bits()).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(!address.to_bits()).into(),
        }
    }

    fn replaced(text: &str) -> String {
        replace(text, &mut turn).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn addresses_are_found_in_every_shape() {
        for (text, expected) in [
            ("client 10.0.1.5 slow", "client 245.255.254.250 slow"),
            ("--to 10.0.1.5:4245,10.0.1.6", "--to 245.255.254.250:4245,245.255.254.249"),
            ("http://10.0.1.5/x?y=1", "http://245.255.254.250/x?y=1"),
            ("kube-proxy-ip-10-0-1-5.ec2.internal", "kube-proxy-ip-245-255-254-250.ec2.internal"),
            ("10-0-1-5.ns.pod.cluster.local", "245-255-254-250.ns.pod.cluster.local"),
            ("at fd00::1,", "at 2ff:ffff:ffff:ffff:ffff:ffff:ffff:fffe,"),
            ("[fd00::1]:443", "[2ff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:443"),
            ("5.1.0.10.in-addr.arpa", "250.254.255.245.in-addr.arpa"),
            ("1.0.10.in-addr.arpa.", "254.255.245.in-addr.arpa."),
            ("0.0.d.f.ip6.arpa", "f.f.2.0.ip6.arpa"),
        ] {
            assert_eq!(replaced(text), expected);
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in
            ["", "node7", "a.b.c.d", "Linux 6.18.0", "2026-11-21", "12:30:05", "300.1.2.3", "x_y.arpa", "é-1"]
        {
            assert_eq!(replace(text, &mut turn), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,80}", dense in "[0-9a-f.:\\-arp]{0,60}") {
            for text in [text, dense] {
                let _ = replaced(&text);
            }
        }

        #[test]
        fn an_address_is_replaced_wherever_it_stands(bits: u32, before in "[a-z /]{0,5}[a-z /]", after in "(:[0-9]{1,5})?[a-z /]{0,5}") {
            let address = Ipv4Addr::from_bits(bits);
            let text = replaced(&format!("{before}{address}{after}"));
            prop_assert_eq!(text, format!("{before}{}{after}", turn(address.into())));
        }
    }
}
