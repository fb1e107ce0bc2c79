//! The addresses of a batch, each once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;

use crate::column::Malformed;

/// Gives each address its number: twice its place among those of its family, odd for IPv6.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Only ever looked up: its order is no part of the output.
    numbers: HashMap<IpAddr, u32, RandomState>,
}

impl Numbers {
    pub fn clear(&mut self) {
        self.numbers.clear();
    }

    /// The number of an address, which is appended to its family's column where it is new.
    pub fn number(&mut self, address: IpAddr, ipv4: &mut Vec<u8>, ipv6: &mut Vec<u8>) -> u32 {
        *self.numbers.entry(address).or_insert_with(|| match address {
            IpAddr::V4(address) => {
                ipv4.extend(address.octets());
                (ipv4.len() / 4 - 1) as u32 * 2
            }
            IpAddr::V6(address) => {
                ipv6.extend(address.octets());
                (ipv6.len() / 16 - 1) as u32 * 2 + 1
            }
        })
    }
}

/// The addresses by their numbers.
#[derive(Default)]
pub(crate) struct Addresses([Vec<IpAddr>; 2]);

impl Addresses {
    /// Takes in the columns of both families, in place of those before.
    pub fn read(&mut self, ipv4: &[u8], ipv6: &[u8]) -> Result<(), Malformed> {
        let [v4, v6] = &mut self.0;
        v4.clear();
        v6.clear();
        let (quads, rest) = ipv4.as_chunks::<4>();
        v4.extend(quads.iter().map(|&octets| IpAddr::V4(Ipv4Addr::from(octets))));
        if !rest.is_empty() {
            return Err(Malformed::Length("ipv4"));
        }
        let (wide, rest) = ipv6.as_chunks::<16>();
        v6.extend(wide.iter().map(|&octets| IpAddr::V6(Ipv6Addr::from(octets))));
        if rest.is_empty() { Ok(()) } else { Err(Malformed::Length("ipv6")) }
    }

    pub fn get(&self, number: u64, column: &'static str) -> Result<IpAddr, Malformed> {
        let table = &self.0[(number & 1) as usize];
        usize::try_from(number / 2)
            .ok()
            .and_then(|place| table.get(place))
            .copied()
            .ok_or(Malformed::Value(column))
    }
}
