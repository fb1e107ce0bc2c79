//! The model file from outside: what is written is read, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use model::{
    ClassInfo, DataFile, Forest, ForestBuilder, FormatError, Input, InputKind, Kind, Meta, Model, Node,
    Profile, Training, Tree,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const INPUTS: usize = 5;

fn meta(classes: usize) -> Meta {
    let names = ["a", "b", "c", "d", "state"];
    let kind = |position| match position {
        4 => InputKind::Categorical(vec!["NEW".into(), "CLOSED".into()]),
        3 => InputKind::Bool,
        _ => InputKind::Numeric,
    };
    let inputs = names.iter().enumerate().map(|(k, name)| Input { name: (*name).into(), kind: kind(k) });
    let class = |label: u16| ClassInfo { label, name: format!("class {label}"), rows: 7, groups: 2 };
    Meta {
        kind: Kind::RandomForest,
        schema: "00ff".into(),
        window_ns: 5_000_000_000,
        inputs: inputs.collect(),
        classes: (0..u16::try_from(classes).unwrap()).map(class).collect(),
        training: Training {
            version: "0.1.0".into(),
            seed: 1,
            rng: "xoshiro256++".into(),
            settings: [("trees".to_owned(), "3".to_owned())].into(),
            data: vec![DataFile { name: "a.csv".into(), sha256: "00".into(), rows: 14 }],
        },
        calibration: None,
        evaluation: None,
    }
}

/// What a tree is grown from: at each node a split (input, threshold, missing direction), or a leaf.
type Script = Vec<(bool, usize, f32, bool, u16)>;

/// Grows the tree that a script describes; where the script ends, everything is a leaf.
fn grow(script: &Script, classes: usize) -> Tree {
    let mut tree = Tree { nodes: vec![Node::leaf(0)], leaves: Vec::new() };
    let mut open = vec![0];
    let mut steps = script.iter();
    while let Some(at) = open.pop() {
        match steps.next() {
            Some((true, feature, threshold, missing, _)) => {
                let left = tree.nodes.len();
                tree.nodes[at] = Node::split(*feature, *threshold, *missing, left - at).unwrap();
                tree.nodes.extend([Node::leaf(0); 2]);
                open.extend([left + 1, left]);
            }
            step => {
                let share = step.map_or(0, |step| step.4);
                tree.nodes[at] = Node::leaf(u32::try_from(tree.leaves.len() / classes).unwrap());
                tree.leaves.extend([share, u16::MAX - share]);
                tree.leaves.extend(vec![0; classes - 2]);
            }
        }
    }
    tree
}

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let step = (prop::bool::weighted(0.6), 0..INPUTS, -100.0f32..100.0, any::<bool>(), any::<u16>());
    prop::collection::vec(prop::collection::vec(step, 0..40), 1..20)
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -120.0f32..120.0, 1 => Just(f32::NAN), 1 => Just(0.0)]
}

fn model_of(scripts: &[Script], classes: usize) -> Model {
    let mut builder = ForestBuilder::new(classes);
    scripts.iter().for_each(|script| builder.push(&grow(script, classes)));
    let profile = vec![Profile::of(&[1.0, 2.0, f32::NAN], |_| true); INPUTS];
    Model::new(&meta(classes), &builder.finish(), &profile).unwrap()
}

/// The plain walk that the packed one must equal.
fn walk(forest: &Forest, tree: usize, row: &[f32]) -> Vec<u16> {
    let nodes = forest.tree(tree);
    let mut at = 0;
    while !nodes[at].is_leaf() {
        let value = row[nodes[at].feature()];
        let right = if value.is_nan() { nodes[at].missing_right() } else { value > nodes[at].threshold() };
        at += nodes[at].ahead() + usize::from(right);
    }
    forest.leaf(nodes[at].leaf_index()).to_vec()
}

/// The bytes with their hash made right again, so that what lies behind the checksum is reached.
fn reseal(bytes: &mut [u8]) {
    let mut hasher = Sha256::new();
    hasher.update(&bytes[..32]);
    hasher.update(&bytes[64..]);
    let hash = hasher.finalize();
    bytes[32..64].copy_from_slice(&hash);
}

proptest! {
    #[test]
    fn what_is_written_is_read(scripts in scripts(), classes in 2usize..5) {
        let model = model_of(&scripts, classes);
        let bytes = model.to_bytes();
        let again = Model::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&again, &model);
        prop_assert_eq!(again.meta(), model.meta());
        prop_assert_eq!(again.forest(), model.forest());
        prop_assert_eq!(again.to_bytes(), bytes);
    }

    #[test]
    fn the_packed_walk_is_the_plain_one(
        scripts in scripts(),
        rows in prop::collection::vec(prop::collection::vec(value(), INPUTS), 1..30),
    ) {
        let model = model_of(&scripts, 3);
        let mut batch = vec![0.0; rows.len() * 3];
        model.predict_batch(&rows.concat(), &mut batch);
        for (row, batch) in rows.iter().zip(batch.chunks(3)) {
            let mut single = [0.0; 3];
            model.predict(row, &mut single);
            prop_assert_eq!(&single[..], batch);
            prop_assert!((single.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            let forest = model.forest();
            let mut votes = [0u32; 3];
            for tree in 0..forest.trees() {
                walk(forest, tree, row).iter().zip(&mut votes).for_each(|(s, v)| *v += u32::from(*s));
            }
            let whole = forest.trees() as f64 * f64::from(u16::MAX);
            for (probability, votes) in single.iter().zip(votes) {
                prop_assert!((f64::from(*probability) - f64::from(votes) / whole).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn a_changed_file_is_never_loaded(scripts in scripts(), place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = model_of(&scripts, 3).to_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1u8 << bit;
        // The minor version is hashed too: a file that claims another one was changed as well.
        prop_assert!(Model::from_bytes(&bytes).is_err());
        prop_assert!(Model::from_bytes(&bytes[..place]).is_err());
    }

    #[test]
    fn resealed_garbage_neither_panics_nor_predicts_nonsense(
        scripts in scripts(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        row in prop::collection::vec(value(), INPUTS),
    ) {
        let mut bytes = model_of(&scripts, 3).to_bytes();
        for (place, byte) in changes {
            let place = 64 + place.index(bytes.len() - 64);
            bytes[place] = byte;
        }
        reseal(&mut bytes);
        if let Ok(model) = Model::from_bytes(&bytes) {
            let mut probabilities = vec![0.0; model.meta().classes.len()];
            if model.meta().inputs.len() == row.len() {
                model.predict(&row, &mut probabilities);
                prop_assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    let good = model_of(&[vec![(true, 0, 1.0, false, 0)]], 2).to_bytes();
    assert!(matches!(Model::from_bytes(b"PK\x03\x04"), Err(FormatError::Magic)));
    assert!(matches!(Model::from_bytes(&[]), Err(FormatError::Magic)));
    assert!(matches!(Model::from_bytes(&good[..good.len() - 1]), Err(FormatError::Length { .. })));
    assert!(matches!(Model::from_bytes(&good[..20]), Err(FormatError::Length { .. })));
    let mut newer = good.clone();
    newer[8] = 2;
    let error = Model::from_bytes(&newer).unwrap_err();
    assert!(matches!(error, FormatError::Version { found: 2 }));
    assert!(error.to_string().contains("train the model again"), "{error}");
    let mut changed = good.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    assert!(matches!(Model::from_bytes(&changed), Err(FormatError::Checksum)));
}

#[test]
fn a_later_minor_version_is_read() {
    let mut bytes = model_of(&[vec![]], 2).to_bytes();
    bytes[10] = 9;
    // A header field and a section that this reader does not know.
    let old = usize::try_from(u32::from_le_bytes(bytes[12..16].try_into().unwrap())).unwrap();
    let json_end = 64 + bytes[64..64 + old].trim_ascii_end().len();
    let mut header = bytes[64..json_end - 2].to_vec();
    header.extend_from_slice(br#",{"name":"later","offset":0,"length":8}],"later":{"a":1}}"#);
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut later = bytes[..64].to_vec();
    later.extend_from_slice(&header);
    later.extend_from_slice(&bytes[64 + old..]);
    later[12..16].copy_from_slice(&u32::try_from(header.len()).unwrap().to_le_bytes());
    let length = later.len() as u64;
    later[16..24].copy_from_slice(&length.to_le_bytes());
    reseal(&mut later);
    assert!(Model::from_bytes(&later).is_ok(), "{:?}", Model::from_bytes(&later));
}

#[test]
fn trees_that_do_not_end_are_refused() {
    let profile = vec![Profile::of(&[1.0], |_| true); INPUTS];
    let tree = |nodes: Vec<Node>| {
        let mut builder = ForestBuilder::new(2);
        builder.push(&Tree { nodes, leaves: vec![0, u16::MAX] });
        Model::new(&meta(2), &builder.finish(), &profile)
    };
    let leaf = Node::leaf(0);
    let split = |ahead| Node::split(0, 0.0, false, ahead).unwrap();
    assert!(tree(vec![split(1), leaf, leaf]).is_ok());
    assert!(matches!(tree(vec![split(2), leaf, leaf]), Err(FormatError::Node { node: 0, .. })));
    assert!(matches!(tree(vec![leaf, leaf]), Err(FormatError::Node { node: 1, .. })));
    assert!(matches!(tree(vec![split(1), split(1), leaf, leaf]), Err(FormatError::Node { node: 1, .. })));
    let far = Node::split(INPUTS, 0.0, false, 1).unwrap();
    assert!(matches!(tree(vec![far, leaf, leaf]), Err(FormatError::Node { node: 0, .. })));
    assert!(Node::split(0, 0.0, false, 1 << 21).is_err());
}

#[test]
fn a_model_refuses_rows_of_another_schema() {
    let model = model_of(&[vec![(true, 0, 1.0, false, 0)]], 2);
    let names = ["a", "b", "c", "d", "state"];
    assert_eq!(model.check_schema("00ff", names), Ok(()));
    let error = model.check_schema("0100", names).unwrap_err();
    assert!(error.to_string().contains("train it again"), "{error}");
    assert!(model.check_schema("00ff", ["a", "b", "c", "state", "d"]).is_err());
    assert!(model.check_schema("00ff", ["a"]).is_err());
}

#[test]
fn evidence_names_the_input_that_decides() {
    // Input 2 above 10 is class 1; its usual value is 1.
    let tree = Tree {
        nodes: vec![Node::split(2, 10.0, false, 1).unwrap(), Node::leaf(0), Node::leaf(1)],
        leaves: vec![u16::MAX, 0, 0, u16::MAX],
    };
    let mut builder = ForestBuilder::new(2);
    builder.push(&tree);
    let profile = vec![Profile::of(&[1.0], |_| true); INPUTS];
    let model = Model::new(&meta(2), &builder.finish(), &profile).unwrap();
    let evidence = model.evidence(&[5.0, 5.0, 50.0, 5.0, 5.0], 1, 3);
    assert_eq!(evidence.len(), 1);
    assert_eq!((evidence[0].input, evidence[0].usual, evidence[0].weight), (2, 1.0, 1.0));
}
