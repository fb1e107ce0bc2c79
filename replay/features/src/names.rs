//! Whom an address belongs to at a time: as it was told while the node was watched, else as a file says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use event::{NameMap, Naming, Timestamp, Workload};

/// Names of addresses, from the time on from which they hold.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By time; of several with one time the last that was told counts.
    told: BTreeMap<IpAddr, Vec<(Timestamp, Workload)>>,
    file: NameMap,
    /// Whether some address has more than one entry, of which the older ones can be forgotten.
    has_past: bool,
}

impl Names {
    pub fn set_file(&mut self, names: NameMap) {
        self.file = names;
    }

    pub fn tell(&mut self, naming: &Naming) {
        let entries = self.told.entry(naming.address).or_default();
        let place = entries.partition_point(|(time, _)| *time <= naming.time);
        entries.insert(place, (naming.time, naming.workload.clone()));
        self.has_past |= entries.len() > 1;
    }

    /// Whom an address belonged to at the first of these times, else at the last: a name may be told a moment after
    /// a flow's first packet.
    pub fn get(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> Option<&Workload> {
        self.told_at(address, first)
            .or_else(|| self.told_at(address, last))
            .or_else(|| self.file.get(address))
    }

    fn told_at(&self, address: IpAddr, time: Timestamp) -> Option<&Workload> {
        let entries = self.told.get(&address)?;
        let before = entries.partition_point(|(from, _)| *from <= time);
        let (_, workload) = entries[..before].last()?;
        (*workload != Workload::default()).then_some(workload)
    }

    pub const fn has_past(&self) -> bool {
        self.has_past
    }

    /// Forgets what did not hold any more at a time.
    pub fn forget_before(&mut self, time: Timestamp) {
        self.told.retain(|_, entries| {
            let before = entries.partition_point(|(from, _)| *from <= time);
            entries.drain(..before.saturating_sub(1));
            // Nobody's since then: as if nothing had been told.
            if before > 0 && entries[0].1 == Workload::default() {
                entries.remove(0);
            }
            !entries.is_empty()
        });
        self.has_past = self.told.values().any(|entries| entries.len() > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::NameOrigin;

    fn tell(names: &mut Names, second: i64, pod: &str) {
        let pod_origin = (!pod.is_empty()).then_some(NameOrigin::Kubernetes);
        let workload = Workload { pod: pod.to_owned(), pod_origin, ..Workload::default() };
        let time = Timestamp::from_secs(second);
        names.tell(&Naming { time, arrival: time, address: [10, 0, 0, 1].into(), workload });
    }

    fn at(names: &Names, first: i64, last: i64) -> Option<&str> {
        let seconds = Timestamp::from_secs;
        let found = names.get([10, 0, 0, 1].into(), seconds(first), seconds(last));
        found.map(|workload| workload.pod.as_str())
    }

    #[test]
    fn a_name_holds_from_its_event_on() {
        let mut names = Names::default();
        names.set_file("10.0.0.0/8 pod=of-the-file".parse().unwrap());
        tell(&mut names, 10, "one");
        tell(&mut names, 20, "");
        tell(&mut names, 30, "two");
        // Told late, of the time before; of equal times the last counts.
        tell(&mut names, 30, "three");
        tell(&mut names, 25, "between");
        assert_eq!(at(&names, 5, 6), Some("of-the-file"));
        assert_eq!(at(&names, 5, 10), Some("one"));
        assert_eq!(at(&names, 19, 29), Some("one"));
        assert_eq!(at(&names, 20, 24), Some("of-the-file"));
        assert_eq!(at(&names, 27, 40), Some("between"));
        assert_eq!(at(&names, 30, 30), Some("three"));
        assert!(names.has_past());
        names.forget_before(Timestamp::from_secs(26));
        assert_eq!(at(&names, 27, 27), Some("between"));
        assert_eq!(at(&names, 19, 19), Some("of-the-file"));
        tell(&mut names, 50, "");
        names.forget_before(Timestamp::from_secs(60));
        assert!(names.told.is_empty() && !names.has_past());
    }
}
