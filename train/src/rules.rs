//! Thresholds that people chose, as a model: the first rule that holds names the fault. The baseline that a
//! learned model has to beat.

use event::Fault;
use features::schema::{self, Feature};
use model::{Forest, ForestBuilder, Node, Tree};

/// When a rule holds.
#[derive(Clone, Copy)]
enum Holds {
    Above(f32),
    AtLeast(f32),
    Equal(f32),
}

/// In this order.
const RULES: [(Feature, Holds, Fault); 11] = [
    (Feature::CpuThrottleRatio, Holds::Above(0.1), Fault::CpuThrottling),
    (Feature::RetransmissionRate, Holds::Above(0.05), Fault::PacketLoss),
    (Feature::InterArrivalJitter, Holds::Above(0.5), Fault::LatencyJitter),
    (Feature::SynToSynackRatio, Holds::Above(10.0), Fault::SynFlood),
    (Feature::MemoryUsagePercent, Holds::Above(90.0), Fault::MemoryPressure),
    (Feature::DiskQueueDepth, Holds::Above(10.0), Fault::DiskSaturation),
    (Feature::TcpListenOverflows, Holds::Above(0.0), Fault::BacklogOverflow),
    (Feature::ZeroWindowCount, Holds::Above(5.0), Fault::ZeroWindow),
    (Feature::TcpResets, Holds::Above(50.0), Fault::ConnectionChurn),
    (Feature::DnsResponseCode, Holds::Equal(3.0), Fault::DnsFailures),
    (Feature::HttpStatusCode, Holds::AtLeast(500.0), Fault::HttpErrors),
];

/// The rules as one tree over the schema's inputs, with a leaf for every fault: class k is fault number k.
///
/// # Panics
/// Never: the rules look at inputs of the schema.
pub fn forest() -> Forest {
    let classes = Fault::ALL.len();
    let mut tree = Tree { nodes: vec![Node::leaf(0)], leaves: Vec::new() };
    for class in 0..classes {
        tree.leaves.extend((0..classes).map(|other| if other == class { u16::MAX } else { 0 }));
    }
    chain(&mut tree, 0, &RULES);
    let mut builder = ForestBuilder::new(classes);
    builder.push(&tree);
    builder.finish()
}

/// Makes the node at `at` decide by the first of these rules, and by the others where it does not hold.
fn chain(tree: &mut Tree, at: usize, rules: &[(Feature, Holds, Fault)]) {
    let Some(((feature, holds, fault), others)) = rules.split_first() else {
        tree.nodes[at] = Node::leaf(Fault::Normal as u32);
        return;
    };
    // A split sends what is above its threshold to the right; what was not measured breaks no rule.
    match *holds {
        Holds::Above(threshold) => {
            let (left, right) = split(tree, at, *feature, threshold);
            chain(tree, left, others);
            tree.nodes[right] = Node::leaf(*fault as u32);
        }
        Holds::AtLeast(threshold) => {
            let (left, right) = split(tree, at, *feature, threshold.next_down());
            chain(tree, left, others);
            tree.nodes[right] = Node::leaf(*fault as u32);
        }
        Holds::Equal(value) => {
            let (below, rest) = split(tree, at, *feature, value.next_down());
            chain(tree, below, others);
            let (equal, above) = split(tree, rest, *feature, value);
            tree.nodes[equal] = Node::leaf(*fault as u32);
            chain(tree, above, others);
        }
    }
}

#[allow(clippy::expect_used, reason = "a table of eleven rules, tested")]
fn split(tree: &mut Tree, at: usize, feature: Feature, threshold: f32) -> (usize, usize) {
    let left = tree.nodes.len();
    let input = schema::inputs().position(|column| column.name == feature.name()).expect("an input");
    tree.nodes[at] = Node::split(input, threshold, false, left - at).expect("a small tree");
    tree.nodes.extend([Node::leaf(0); 2]);
    (left, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(cells: &[(Feature, f32)]) -> usize {
        let mut row = vec![f32::NAN; schema::inputs().count()];
        for (feature, value) in cells {
            row[schema::inputs().position(|column| column.name == feature.name()).unwrap()] = *value;
        }
        let mut shares = vec![0.0; Fault::ALL.len()];
        forest().predict(&row, &mut shares);
        shares.iter().position(|share| *share == 1.0).unwrap()
    }

    #[test]
    fn every_rule_holds_where_it_should_and_nowhere_else() {
        assert_eq!(verdict(&[]), 0);
        for (feature, holds, fault) in RULES {
            let (yes, no) = match holds {
                Holds::Above(threshold) => (threshold.next_up(), threshold),
                Holds::AtLeast(threshold) => (threshold, threshold.next_down()),
                Holds::Equal(value) => (value, value.next_up()),
            };
            assert_eq!(verdict(&[(feature, yes)]), fault as usize, "{fault}");
            assert_eq!(verdict(&[(feature, no)]), 0, "{fault}");
        }
        assert_eq!(verdict(&[(Feature::DnsResponseCode, 2.0)]), 0);
        // Above the equal value the rules that follow still have their say.
        assert_eq!(verdict(&[(Feature::DnsResponseCode, 5.0), (Feature::HttpStatusCode, 503.0)]), 11);
        // The first rule that holds wins.
        assert_eq!(verdict(&[(Feature::RetransmissionRate, 0.5), (Feature::HttpStatusCode, 503.0)]), 2);
    }
}
