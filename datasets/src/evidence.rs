//! What proves that a fault was there: counters of the system, and what they had to be.

use std::collections::BTreeMap;
use std::fmt;

/// Counters over the labelled stretch of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    pub counters: BTreeMap<String, u64>,
    /// Requirements that did not hold; a run that has any is discarded.
    contradictions: Vec<String>,
}

impl Evidence {
    /// A counter that is kept, and proves nothing by itself.
    pub fn note(&mut self, name: &str, value: u64) {
        self.counters.insert(name.to_owned(), value);
    }

    pub fn at_least(&mut self, name: &str, value: u64, least: u64) {
        self.note(name, value);
        if value < least {
            self.contradictions.push(format!("{name} is {value}, and has to be at least {least}"));
        }
    }

    pub fn at_most(&mut self, name: &str, value: u64, most: u64) {
        self.note(name, value);
        if value > most {
            self.contradictions.push(format!("{name} is {value}, and has to be at most {most}"));
        }
    }

    pub fn holds(&self) -> bool {
        self.contradictions.is_empty()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.holds() {
            return f.write_str(&self.contradictions.join("; "));
        }
        let counters: Vec<String> =
            self.counters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&counters.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_requirement_that_fails_is_enough() {
        let mut evidence = Evidence::default();
        evidence.at_least("nft_dropped", 12, 10);
        evidence.at_most("listen_drops", 0, 0);
        assert!(evidence.holds());
        evidence.at_least("retransmitted", 0, 1);
        assert!(!evidence.holds());
        assert_eq!(evidence.to_string(), "retransmitted is 0, and has to be at least 1");
    }
}
