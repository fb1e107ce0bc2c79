//! Queries that wait for their answer, in bounded memory: Hubble tells no latency for DNS.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What waits at most; the oldest is forgotten.
const LIMIT: usize = 65_536;

/// Values by key, oldest first out.
pub(crate) struct Pairs<K, V> {
    values: HashMap<K, (u64, V)>,
    /// With the number each value came with: a key that was taken and came again stands here twice.
    order: VecDeque<(u64, K)>,
    next: u64,
}

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), next: 0 }
    }
}

impl<K: Hash + Eq + Clone, V> Pairs<K, V> {
    /// Keeps the first value of a key.
    pub fn insert(&mut self, key: K, value: V) {
        if self.values.contains_key(&key) {
            return;
        }
        while self.order.len() >= LIMIT {
            let Some((number, oldest)) = self.order.pop_front() else { break };
            if self.values.get(&oldest).is_some_and(|(current, _)| *current == number) {
                self.values.remove(&oldest);
            }
        }
        self.order.push_back((self.next, key.clone()));
        self.values.insert(key, (self.next, value));
        self.next += 1;
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.values.remove(key).map(|(_, value)| value)
    }
}
