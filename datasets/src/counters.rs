//! The kernel's own counters of a node's network, as /proc/net/netstat and /proc/net/snmp print them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::node::Node;

/// Cumulative counters by `Group.Name`, such as `TcpExt.ListenDrops` or `Tcp.RetransSegs`.
pub struct Counters(BTreeMap<String, i64>);

impl Counters {
    pub fn read(node: &Node) -> Result<Self> {
        let mut counters = Self(BTreeMap::new());
        counters.parse(&node.proc_net("netstat")?)?;
        counters.parse(&node.proc_net("snmp")?)?;
        Ok(counters)
    }

    /// Pairs of lines: names, then values, both after the group's name.
    fn parse(&mut self, text: &str) -> Result<()> {
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let (group, names) = names.split_once(':').context("a line of counters has no group")?;
            let (_, values) = values.split_once(':').context("a line of counters has no group")?;
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                self.0.insert(format!("{group}.{name}"), value.parse().context("a counter is no number")?);
            }
        }
        Ok(())
    }

    /// How far that counter has moved since `earlier`; 0 for one that this kernel does not have.
    pub fn since(&self, earlier: &Self, name: &str) -> u64 {
        let of = |counters: &Self| counters.0.get(name).copied().unwrap_or_default();
        u64::try_from(of(self) - of(earlier)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_group_and_name() {
        let mut before = Counters(BTreeMap::new());
        before.parse("TcpExt: A ListenDrops\nTcpExt: 1 5\n").unwrap();
        let mut after = Counters(BTreeMap::new());
        after.parse("TcpExt: A ListenDrops\nTcpExt: 1 12\nTcp: MaxConn RetransSegs\nTcp: -1 3\n").unwrap();
        assert_eq!(after.since(&before, "TcpExt.ListenDrops"), 7);
        assert_eq!(after.since(&before, "Tcp.RetransSegs"), 3);
        assert_eq!(after.since(&before, "Tcp.Unknown"), 0);
    }
}
