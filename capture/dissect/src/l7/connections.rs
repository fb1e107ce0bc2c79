//! The connections that are followed, by the numbers of their flows, in bounded memory.

use event::FiveTuple;

use super::connection::Connection;

/// Names a flow to [`super::L7`]: small numbers, each given to one flow after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowNumber {
    /// A table has a place for each.
    pub place: u32,
    /// Tells the flows that had one place apart.
    pub birth: u32,
}

/// Nothing is known of the flow.
const NONE: u32 = u32::MAX;
/// Nothing on the flow is of interest.
const IGNORED: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Slot {
    birth: u32,
    /// Place in the slab, or one of the two above.
    connection: u32,
}

/// A connection that is followed.
struct Entry {
    key: FiveTuple,
    flow: FlowNumber,
    /// The round of forgetting in which it was used last.
    round: u32,
    connection: Option<Connection>,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    Ignored,
    Followed(u32),
}

/// What had to be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub connections: u64,
    /// Bytes that they had kept.
    pub bytes: usize,
}

/// At most `limit` connections. When they are full, those that were not used since the time before are
/// forgotten: which ones depends on their use alone.
pub(super) struct Connections {
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    /// By the same places: whether segments of the connection wait for the ones before them. Of its own, so that
    /// most packets touch this alone.
    holds: Vec<bool>,
    free: Vec<u32>,
    limit: usize,
    /// Connections used in this round.
    used: usize,
    round: u32,
    forgotten: Forgotten,
}

impl Connections {
    pub fn new(limit: usize) -> Self {
        let (slots, entries, holds, free, forgotten) = Default::default();
        Self { slots, entries, holds, free, limit, used: 0, round: 0, forgotten }
    }

    #[inline]
    pub fn known(&self, flow: FlowNumber) -> Known {
        match self.slots.get(flow.place as usize) {
            Some(slot) if slot.birth == flow.birth => match slot.connection {
                NONE => Known::Nothing,
                IGNORED => Known::Ignored,
                place => Known::Followed(place),
            },
            _ => Known::Nothing,
        }
    }

    /// Follows a flow of which nothing is known, from this place on.
    pub fn follow(&mut self, flow: FlowNumber, key: FiveTuple) -> u32 {
        self.forget_predecessor(flow);
        self.make_room();
        let entry = Entry { key, flow, round: self.round, connection: Some(Connection::default()) };
        self.used += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.holds.push(false);
                u32::try_from(self.entries.len() - 1).expect("the limit fits 32 bits")
            }
        };
        self.set(flow, place);
        place
    }

    /// The flow that had the place before has ended, and its connection with it.
    fn forget_predecessor(&mut self, flow: FlowNumber) {
        let Some(slot) = self.slots.get(flow.place as usize) else { return };
        if slot.birth != flow.birth && slot.connection < IGNORED {
            self.let_go(slot.connection);
        }
    }

    /// Where half of the limit was used, a new round begins; what was not used in the last one goes.
    fn make_room(&mut self) -> bool {
        if self.used < self.limit / 2 {
            return false;
        }
        for place in 0..u32::try_from(self.entries.len()).expect("the limit fits 32 bits") {
            let entry = &self.entries[place as usize];
            if entry.connection.is_some() && entry.round != self.round {
                self.let_go(place);
            }
        }
        self.round = self.round.wrapping_add(1);
        self.used = 0;
        true
    }

    pub fn holds(&self, place: u32) -> bool {
        self.holds[place as usize]
    }

    pub fn set_holds(&mut self, place: u32, holds: bool) {
        self.holds[place as usize] = holds;
    }

    /// Forgets a connection that might still have told something.
    fn let_go(&mut self, place: u32) {
        if let Some(connection) = &self.entries[place as usize].connection {
            self.forgotten.connections += 1;
            self.forgotten.bytes += connection.buffered();
        }
        self.remove(place);
    }

    fn remove(&mut self, place: u32) {
        self.holds[place as usize] = false;
        let entry = &mut self.entries[place as usize];
        let slot = &mut self.slots[entry.flow.place as usize];
        if slot.birth == entry.flow.birth {
            slot.connection = NONE;
        }
        self.used -= usize::from(entry.round == self.round);
        self.free.push(place);
        entry.connection = None;
    }

    fn set(&mut self, flow: FlowNumber, connection: u32) {
        let place = flow.place as usize;
        if self.slots.len() <= place {
            self.slots.resize(place + 1, Slot { birth: 0, connection: NONE });
        }
        self.slots[place] = Slot { birth: flow.birth, connection };
    }

    /// A connection that is followed, and the canonical form of its five-tuple.
    pub fn get(&mut self, place: u32) -> Option<(&mut Connection, FiveTuple)> {
        if self.entries.get(place as usize)?.round != self.round {
            self.entries[place as usize].round = self.round;
            self.used += 1;
            if self.make_room() {
                self.entries[place as usize].round = self.round;
                self.used = 1;
            }
        }
        let entry = &mut self.entries[place as usize];
        entry.connection.as_mut().map(|connection| (connection, entry.key))
    }

    /// Follows a connection no more: nothing on it is of interest.
    pub fn ignore(&mut self, place: u32) {
        let flow = self.entries[place as usize].flow;
        self.remove(place);
        self.set(flow, IGNORED);
    }

    /// Forgets what is known of a flow.
    pub fn forget(&mut self, flow: FlowNumber) {
        match self.known(flow) {
            Known::Followed(place) => self.let_go(place),
            Known::Ignored => self.set(flow, NONE),
            Known::Nothing => {}
        }
    }

    /// What had to be forgotten since the last call.
    pub fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }

    /// All that is left, in the order of their five-tuples.
    pub fn drain(&mut self) -> Vec<(FiveTuple, Connection)> {
        self.slots.clear();
        self.holds.clear();
        self.free.clear();
        let entries = std::mem::take(&mut self.entries).into_iter();
        let mut left: Vec<_> =
            entries.filter_map(|entry| entry.connection.map(|connection| (entry.key, connection))).collect();
        left.sort_by_key(|(key, _)| *key);
        left
    }
}

#[cfg(test)]
mod tests {
    use event::{Endpoint, Protocol};

    use super::*;

    fn flow(place: u32, birth: u32) -> FlowNumber {
        FlowNumber { place, birth }
    }

    fn key() -> FiveTuple {
        let end = Endpoint::new("198.18.0.1".parse().unwrap(), 1);
        FiveTuple::new(end, end, Protocol::TCP)
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut connections = Connections::new(8);
        let busy = connections.follow(flow(1000, 0), key());
        for number in 0..100 {
            connections.follow(flow(number, 0), key());
            assert!(connections.get(busy).is_some());
            assert!(connections.entries.len() <= 8);
        }
        assert_eq!(connections.known(flow(1000, 0)), Known::Followed(busy));
        assert_eq!(connections.known(flow(50, 0)), Known::Nothing);
        assert_eq!(connections.drain().len() as u64 + connections.take_forgotten().connections, 101);
    }

    #[test]
    fn however_many_are_in_use_the_limit_holds() {
        let mut connections = Connections::new(8);
        for number in 0..1000 {
            connections.follow(flow(number, 0), key());
            (0..=number).for_each(|old| {
                if let Known::Followed(place) = connections.known(flow(old, 0)) {
                    assert!(connections.get(place).is_some());
                }
            });
            assert!(connections.entries.len() <= 9);
        }
    }

    #[test]
    fn a_place_given_to_another_flow_is_a_new_connection() {
        let mut connections = Connections::new(8);
        let place = connections.follow(flow(3, 1), key());
        connections.ignore(place);
        assert_eq!(connections.known(flow(3, 1)), Known::Ignored);
        assert_eq!(connections.known(flow(3, 2)), Known::Nothing);
        connections.follow(flow(3, 2), key());
        assert_eq!(connections.take_forgotten().connections, 0);
        connections.follow(flow(3, 4), key());
        assert_eq!(connections.take_forgotten().connections, 1);
        assert_eq!(connections.known(flow(3, 2)), Known::Nothing);
    }
}
