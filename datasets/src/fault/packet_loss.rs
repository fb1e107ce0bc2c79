//! Packet loss in the middle: the router drops a share of what it forwards, in both directions.
//!
//! `random`: every packet has the same chance. `bursty`: runs of packets in a row. `netem`: the kernel's emulator of
//! networks drops them. Never in the sender's own output hook, where TCP is told of the drop.

use anyhow::{Context as _, Result};
use event::Fault;
use features::Feature;

use super::{Dose, Injection, Recipe, netem};
use crate::counters::Counters;
use crate::evidence::Evidence;
use crate::scene::Scene;

pub const RECIPE: Recipe = Recipe {
    fault: Fault::PacketLoss,
    mechanisms: &["random", "bursty"],
    optional: &["netem"],
    // Every flow has the same chance to lose packets; most lose none in most windows, and those are as good as any.
    affected: &["tcp/198.18.1.2:*?retransmission_count>=1", "tcp/198.18.1.2:*?out_of_order_count>=1"],
    shows: &[(Feature::RetransmissionCount, 1.0), (Feature::OutOfOrderCount, 1.0)],
    own_drops: &["NETFILTER_DROP"],
    inject,
};

/// Dropped packets of a thousand: around the loss at which web users complain, and far above.
const PER_MILLE: [(f64, f64); 3] = [(10.0, 25.0), (30.0, 60.0), (80.0, 150.0)];
/// Packets dropped in a row; a queue that overflows loses about as many.
const BURST: (u32, u32) = (4, 16);
/// A run with fewer drops shows nothing.
const LEAST_DROPS: u64 = 10;

struct PacketLoss {
    before: Counters,
}

fn inject(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (low, high) = dose.severity.of(PER_MILLE);
    let share = dose.draw.between(low, high) / 1000.0;
    if dose.mechanism == "netem" {
        let before = Counters::read(&scene.topology.server)?;
        netem::start(scene, &format!("loss {:.2}%", share * 100.0))?;
        return Ok(Box::new(EmulatedLoss { before }));
    }
    let choose = match dose.mechanism {
        "bursty" => {
            let burst = dose.draw.integer(BURST.0, BURST.1);
            format!("numgen inc mod {:.0} < {burst}", f64::from(burst) / share)
        }
        _ => format!("numgen random mod 10000 < {:.0}", share * 10_000.0),
    };
    let before = Counters::read(&scene.topology.server)?;
    scene.topology.router.nft(&format!(
        "table ip fault {{ chain forward {{ type filter hook forward priority 0; {choose} counter drop\n }}\n }}\n"
    ))?;
    Ok(Box::new(PacketLoss { before }))
}

struct EmulatedLoss {
    before: Counters,
}

impl Injection for EmulatedLoss {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = Counters::read(&scene.topology.server)?;
        let passed = netem::end(scene)?;
        let mut evidence = Evidence::default();
        evidence.at_least("netem_dropped", passed.drops, LEAST_DROPS);
        evidence.at_least("retransmitted", after.since(&self.before, "Tcp.RetransSegs"), 1);
        Ok(evidence)
    }
}

impl Injection for PacketLoss {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let after = Counters::read(&scene.topology.server)?;
        let router = &scene.topology.router;
        let dropped = counted(&router.run("nft -j list table ip fault")?)?;
        router.run("nft delete table ip fault")?;
        let mut evidence = Evidence::default();
        evidence.at_least("nft_dropped", dropped, LEAST_DROPS);
        evidence.at_least("retransmitted", after.since(&self.before, "Tcp.RetransSegs"), 1);
        evidence.note("segments_sent", after.since(&self.before, "Tcp.OutSegs"));
        Ok(evidence)
    }
}

/// Packets of the counters in nft's JSON.
fn counted(json: &str) -> Result<u64> {
    let ruleset: serde_json::Value =
        serde_json::from_str(json).context("cannot parse the output of nft -j")?;
    let rules = ruleset["nftables"].as_array().context("nft -j printed no ruleset")?;
    let expressions = rules.iter().filter_map(|entry| entry["rule"]["expr"].as_array()).flatten();
    let packets: Vec<u64> = expressions.filter_map(|e| e["counter"]["packets"].as_u64()).collect();
    anyhow::ensure!(!packets.is_empty(), "the rule that drops packets has no counter");
    Ok(packets.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_in_nfts_output() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"rule": {"expr": [{"match": {}},
            {"counter": {"packets": 859, "bytes": 1}}, {"drop": null}]}}]}"#;
        assert_eq!(counted(json).unwrap(), 859);
        assert!(counted(r#"{"nftables": []}"#).is_err());
    }
}
