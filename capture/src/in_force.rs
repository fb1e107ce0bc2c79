//! The names that are in force: what a recording that begins in the middle is told again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use event::{Event, Naming, Timestamp, Workload};

/// The last word on each address.
#[derive(Clone, Debug, Default)]
pub struct NamesInForce(BTreeMap<IpAddr, Workload>);

impl NamesInForce {
    /// Takes note of an event that may be a name.
    pub fn note(&mut self, event: &Event) {
        let Event::Naming(naming) = event else { return };
        if naming.workload == Workload::default() {
            self.0.remove(&naming.address);
        } else {
            self.0.insert(naming.address, naming.workload.clone());
        }
    }

    /// The names, told anew at a time and by an arrival.
    pub fn told(&self, time: Timestamp, arrival: Timestamp) -> impl Iterator<Item = Event> {
        self.0.iter().map(move |(address, workload)| {
            Event::Naming(Box::new(Naming { time, arrival, address: *address, workload: workload.clone() }))
        })
    }
}
