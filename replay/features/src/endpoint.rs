//! What all flows to one (address, port, protocol) did in a window.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::key::EndpointKey;

/// Sums over the connections to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointWindow {
    pub syn: u64,
    pub syn_ack: u64,
    /// Connections that saw an RST.
    pub resets: u64,
    /// Connections with an unfinished handshake at the window's end.
    pub half_open: u64,
}

/// The endpoints of one window. Sums of whole numbers: the order of adding cannot matter.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(HashMap<EndpointKey, EndpointWindow, FixedState>);

impl Endpoints {
    pub fn entry(&mut self, key: EndpointKey) -> &mut EndpointWindow {
        self.0.entry(key).or_default()
    }

    pub fn get(&self, key: &EndpointKey) -> EndpointWindow {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Adds the sums of another part of the flows.
    pub fn merge(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (key, part) in other.0 {
            let whole = self.entry(key);
            whole.syn += part.syn;
            whole.syn_ack += part.syn_ack;
            whole.resets += part.resets;
            whole.half_open += part.half_open;
        }
    }
}

impl EndpointWindow {
    /// SYNs per SYN-ACK; the plain number of SYNs where no SYN-ACK was seen.
    pub fn syn_to_syn_ack(&self) -> f64 {
        self.syn as f64 / self.syn_ack.max(1) as f64
    }
}
