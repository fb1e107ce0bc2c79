//! A map that forgets what was not used for longest, in bounded memory and constant time.

use std::hash::Hash;

use foldhash::HashMap;

/// Two generations: what is used moves to the young one; when that is full, the old one is forgotten. Holds at
/// least half of its limit, and never more than it. Which entries go depends on their use alone, not on hashes.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
    forgotten: Vec<V>,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub fn new(limit: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), limit, forgotten: Vec::new() }
    }

    pub fn contains(&self, key: &K) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) && self.young.len() >= self.limit / 2 {
            let returning = self.old.remove_entry(&key);
            let full = std::mem::take(&mut self.young);
            self.forgotten.extend(std::mem::replace(&mut self.old, full).into_values());
            self.young.extend(returning);
        }
        let old = &mut self.old;
        self.young.entry(key).or_insert_with_key(|key| old.remove(key).unwrap_or_else(make))
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// What was forgotten since the last call.
    pub fn take_forgotten(&mut self) -> Vec<V> {
        std::mem::take(&mut self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(8);
        for number in 0..100 {
            *recent.get_or_insert_with(number, || 0) += 1;
            // Used all the time.
            *recent.get_or_insert_with(1000, || 0) += 1;
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        assert_eq!(recent.remove(&1000), Some(100));
        assert!(recent.contains(&99) && !recent.contains(&50));
        let left = recent.young.len() + recent.old.len();
        assert_eq!(recent.take_forgotten().len() + left, 100);
    }
}
