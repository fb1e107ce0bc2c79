//! Names of addresses: as they are told while the node is watched, or from a file where nobody tells them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{NameOrigin, Timestamp, Workload};

/// From its time on, an address belongs to a workload: pods come and go, and their addresses are given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    pub time: Timestamp,
    pub arrival: Timestamp,
    pub address: IpAddr,
    /// Empty where from now on nobody holds the address, or more than one.
    pub workload: Workload,
}

/// The key of a recording's metadata that holds the map that it was made with, as text.
pub const NAMES_KEY: &str = "names";

/// Which namespace, pod and service addresses belong to. A line each, the most specific network counts, the first of
/// equals:
///
/// ```text
/// # ADDRESS[/BITS]  namespace=NAME pod=NAME service=NAME, each of which may be left out
/// 10.0.1.7          namespace=shop pod=cart-7d9f service=cart
/// 10.96.0.0/16      namespace=shop
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    /// Longest prefix first.
    networks: Vec<Network>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
    workload: Workload,
}

/// A line that is not as [`NameMap`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseNamesError {
    /// Counted from 1.
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for ParseNamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, reason } = self;
        write!(f, "line {line}: {reason}; `10.0.1.7 namespace=shop pod=cart-1 service=cart` is expected")
    }
}

impl std::error::Error for ParseNamesError {}

impl FromStr for NameMap {
    type Err = ParseNamesError;

    fn from_str(text: &str) -> Result<Self, ParseNamesError> {
        let mut networks = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let error = |reason| ParseNamesError { line: number, reason };
            networks.extend(network(line).map_err(error)?);
        }
        networks.sort_by_key(|network| std::cmp::Reverse(network.bits));
        Ok(Self { networks })
    }
}

/// A line's network; nothing on an empty line.
fn network(line: &str) -> Result<Option<Network>, String> {
    let mut words = line.split_whitespace();
    let Some(prefix) = words.next() else { return Ok(None) };
    let (address, bits) =
        prefix.split_once('/').map_or((prefix, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) => match bits.parse() {
            Ok(bits) if bits <= most => bits,
            _ => return Err(format!("`{bits}` is no prefix length up to {most}")),
        },
    };
    let mut workload = Workload::default();
    for word in words {
        let (key, name) = word.split_once('=').ok_or_else(|| format!("`{word}` has no `=`"))?;
        let known = match key {
            "namespace" => &mut workload.namespace,
            "pod" => &mut workload.pod,
            "service" => &mut workload.service,
            _ => return Err(format!("`{key}` is none of namespace, pod and service")),
        };
        name.clone_into(known);
    }
    let is_pod = !(workload.namespace.is_empty() && workload.pod.is_empty());
    workload.pod_origin = is_pod.then_some(NameOrigin::File);
    workload.service_origin = (!workload.service.is_empty()).then_some(NameOrigin::File);
    Ok(Some(Network { address, bits, workload }))
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let high = |value: u128, width: u32| value.checked_shr(width - u32::from(self.bits)).unwrap_or(0);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let bits = |address: std::net::Ipv4Addr| high(u32::from(address).into(), 32);
                bits(own) == bits(other)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => high(own.into(), 128) == high(other.into(), 128),
            _ => false,
        }
    }
}

impl NameMap {
    /// What an address belongs to.
    pub fn get(&self, address: IpAddr) -> Option<&Workload> {
        self.networks.iter().find(|network| network.holds(address)).map(|network| &network.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_network_counts() {
        let names: NameMap =
            "# comment\n\n10.0.0.0/8 namespace=all\n10.0.1.7 namespace=shop pod=cart-1 # one\n\
                              fd00::/16 service=six\n0.0.0.0/0 pod=any\n"
                .parse()
                .unwrap();
        let pod = |address: &str| {
            names
                .get(address.parse().unwrap())
                .map(|workload| format!("{}/{}", workload.namespace, workload.pod))
        };
        assert_eq!(pod("10.0.1.7").as_deref(), Some("shop/cart-1"));
        assert_eq!(pod("10.0.1.8").as_deref(), Some("all/"));
        assert_eq!(pod("192.0.2.1").as_deref(), Some("/any"));
        assert_eq!(pod("fe80::1"), None);
        let service = names.get("fd00::9".parse().unwrap()).unwrap();
        assert_eq!((service.service.as_str(), service.service_origin), ("six", Some(NameOrigin::File)));
        assert_eq!(service.pod_origin, None);
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line, part) in [
            ("\n10.0.0 pod=a", 2, "no IP address"),
            ("10.0.0.0/33 pod=a", 1, "prefix length up to 32"),
            ("10.0.0.1 pod", 1, "has no `=`"),
            ("10.0.0.1 node=a", 1, "none of namespace"),
        ] {
            let error = text.parse::<NameMap>().unwrap_err();
            assert_eq!(error.line, line);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
