//! Bounds what a storm costs: what repeats in a flow in quick succession is told together, with its number.

use event::{Duration, FiveTuple, KernelEvent, KernelEventKind, Timestamp};
use foldhash::fast::RandomState;

/// Events of one kind and flow are told twice in each such stretch of time at most: the first, and then all others
/// together. It divides the whole seconds that windows begin at, so that no event is told in another window.
const SLOT: Duration = Duration::from_millis(100);

/// Most kinds and flows that are followed in a slot, in about 3 MB; what comes beyond them is told one by one.
const MOST: usize = 1 << 14;

type Key = (Option<FiveTuple>, KernelEventKind);

/// What has happened in the slot at hand.
#[derive(Default)]
pub struct Storm {
    slot: i64,
    /// Where in `repeated` the others of a kind and flow are counted.
    place_of: hashbrown::HashMap<Key, usize, RandomState>,
    /// Count 0 where there was only the first.
    repeated: Vec<KernelEvent>,
}

impl Storm {
    /// Takes an event in, and hands over what is to be told of it now.
    pub fn take(&mut self, event: KernelEvent, mut tell: impl FnMut(KernelEvent)) {
        if !can_repeat(&event.kind) {
            return tell(event);
        }
        let slot = slot_of(event.time);
        if slot > self.slot {
            self.end(event.arrival, &mut tell);
            self.slot = slot;
        }
        let key = (event.five_tuple, event.kind.clone());
        if let Some(place) = self.place_of.get(&key) {
            let repeated = &mut self.repeated[*place];
            repeated.count = repeated.count.saturating_add(event.count);
            repeated.time = repeated.time.max(event.time);
            return;
        }
        if self.repeated.len() < MOST {
            self.place_of.insert(key, self.repeated.len());
            self.repeated.push(KernelEvent { count: 0, ..event.clone() });
        }
        tell(event);
    }

    /// Hands over what was counted in a slot that is over by now.
    pub fn tick(&mut self, now: Timestamp, tell: impl FnMut(KernelEvent)) {
        if slot_of(now) > self.slot {
            self.end(now, tell);
        }
    }

    /// Hands over what was counted.
    pub fn end(&mut self, now: Timestamp, mut tell: impl FnMut(KernelEvent)) {
        self.place_of.clear();
        for mut event in self.repeated.drain(..).filter(|event| event.count > 0) {
            event.arrival = event.arrival.max(now);
            tell(event);
        }
    }
}

fn slot_of(time: Timestamp) -> i64 {
    time.window_start(SLOT).as_nanos() / SLOT.as_nanos()
}

/// The others have a bound of their own, or happen once.
const fn can_repeat(kind: &KernelEventKind) -> bool {
    match kind {
        KernelEventKind::Retransmit { .. }
        | KernelEventKind::ResetSent { .. }
        | KernelEventKind::ResetReceived
        | KernelEventKind::Drop { .. }
        | KernelEventKind::ListenOverflow => true,
        KernelEventKind::SocketState { .. }
        | KernelEventKind::OomKill { .. }
        | KernelEventKind::SmoothedRtt { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::{Endpoint, Protocol};

    fn drop_at(millis: i64, port: u16) -> KernelEvent {
        let end = |port| Endpoint::new([198, 18, 0, 1].into(), port);
        let time = Timestamp::UNIX_EPOCH + Duration::from_millis(millis);
        KernelEvent {
            time,
            arrival: time,
            five_tuple: Some(FiveTuple::new(end(port), end(80), Protocol::TCP)),
            kind: KernelEventKind::Drop { reason: "TCP_OLD_DATA".to_owned() },
            count: 1,
        }
    }

    #[test]
    fn every_event_of_a_storm_is_counted_and_few_are_told() {
        let mut told = Vec::new();
        let mut storm = Storm::default();
        for millis in 0..1000 {
            storm.take(drop_at(millis, 1), |event| told.push(event));
        }
        storm.take(drop_at(1000, 2), |event| told.push(event));
        storm.tick(Timestamp::from_secs(1), |_| panic!("the slot is not over"));
        storm.tick(Timestamp::from_secs(2), |event| told.push(event));
        let of = |port| told.iter().filter(move |event| event.five_tuple == drop_at(0, port).five_tuple);
        assert_eq!((of(1).count(), of(1).map(|event| event.count).sum::<u32>()), (20, 1000));
        assert_eq!((of(2).count(), told.len()), (1, 21));
        // Told at the time of the last, and not before it.
        assert!(of(1).all(|event| event.arrival >= event.time && event.count > 0));
        assert_eq!(of(1).next_back().unwrap().time, drop_at(999, 1).time);
    }

    #[test]
    fn memory_is_bounded_and_what_is_beyond_it_is_told() {
        let (mut told, mut storm) = (0, Storm::default());
        for _ in 0..2 {
            for port in 0..20_000 {
                storm.take(drop_at(0, port), |event| told += event.count);
            }
        }
        assert_eq!(storm.repeated.len(), MOST);
        storm.end(Timestamp::UNIX_EPOCH, |event| told += event.count);
        assert_eq!(told, 40_000);
    }
}
