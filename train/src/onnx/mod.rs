//! A model as ONNX, for programs in other languages: TreeEnsembleClassifier of ai.onnx.ml 3, then the
//! calibration as plain operators, then the label of the likeliest class.

mod message;

use message::{
    Attribute, Dimension, Graph, Model as Onnx, Node, OperatorSet, Property, Shape, Tensor, TensorType,
    ValueInfo, ValueType,
};
use model::{Calibration, Forest, Model};
use prost::Message as _;

const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// The bytes of an ONNX file that gives the labels and probabilities of `model`.
pub fn encode(model: &Model) -> Vec<u8> {
    let mut graph = Graph { name: "faultline".to_owned(), ..Graph::default() };
    let shares = match model.meta().calibration {
        None => "probabilities",
        Some(_) => "shares",
    };
    graph.node.push(ensemble(model, shares));
    match model.meta().calibration {
        None => {}
        Some(Calibration::Temperature { temperature, floor }) => cool(&mut graph, temperature, floor),
        Some(Calibration::Threshold { threshold }) => stretch(&mut graph, threshold),
    }
    label(&mut graph, model);
    let (inputs, classes) = (model.inputs().len(), model.classes().len());
    graph.input.push(value("features", FLOAT, &[None, Some(inputs)]));
    graph.output.push(value("label", INT64, &[None]));
    graph.output.push(value("probabilities", FLOAT, &[None, Some(classes)]));
    let operators = |domain: &str, version| OperatorSet { domain: domain.to_owned(), version };
    let property = |key: &str, value: String| Property { key: key.to_owned(), value };
    let inputs: Vec<&str> = model.inputs().iter().map(|input| input.name.as_str()).collect();
    let classes: Vec<&str> = model.classes().iter().map(|class| class.name.as_str()).collect();
    Onnx {
        ir_version: 8,
        producer_name: "faultline train".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: "an input that was not measured is NaN".to_owned(),
        graph: Some(graph),
        opset_import: vec![operators("", 13), operators("ai.onnx.ml", 3)],
        metadata_props: vec![
            property("faultline.sha256", model.hash().to_string()),
            property("faultline.schema", model.schema_fingerprint().to_owned()),
            property("faultline.inputs", inputs.join(",")),
            property("faultline.classes", classes.join(",")),
        ],
    }
    .encode_to_vec()
}

/// The trees; the node's own label output is not used, because it does not know the calibration.
fn ensemble(model: &Model, shares: &str) -> Node {
    let mut columns = Columns::default();
    for tree in 0..model.forest().trees() {
        columns.add(model.forest(), tree);
    }
    let ints = |name: &str, ints: Vec<i64>| Attribute {
        name: name.to_owned(),
        ints,
        kind: 7,
        ..Attribute::default()
    };
    let floats = |name: &str, floats: Vec<f32>| Attribute {
        name: name.to_owned(),
        floats,
        kind: 6,
        ..Attribute::default()
    };
    let modes =
        columns.is_leaf.iter().map(|leaf| if *leaf { b"LEAF".to_vec() } else { b"BRANCH_LEQ".to_vec() });
    let labels = model.classes().iter().map(|class| i64::from(class.label)).collect();
    Node {
        input: vec!["features".to_owned()],
        output: vec!["uncalibrated_label".to_owned(), shares.to_owned()],
        name: "forest".to_owned(),
        op_type: "TreeEnsembleClassifier".to_owned(),
        domain: "ai.onnx.ml".to_owned(),
        attribute: vec![
            ints("nodes_treeids", columns.tree),
            ints("nodes_nodeids", columns.node),
            ints("nodes_featureids", columns.feature),
            Attribute {
                name: "nodes_modes".to_owned(),
                strings: modes.collect(),
                kind: 8,
                ..Attribute::default()
            },
            floats("nodes_values", columns.threshold),
            ints("nodes_truenodeids", columns.left),
            ints("nodes_falsenodeids", columns.right),
            ints("nodes_missing_value_tracks_true", columns.missing_left),
            ints("class_treeids", columns.class_tree),
            ints("class_nodeids", columns.class_node),
            ints("class_ids", columns.class),
            floats("class_weights", columns.weight),
            ints("classlabels_int64s", labels),
            Attribute {
                name: "post_transform".to_owned(),
                s: b"NONE".to_vec(),
                kind: 3,
                ..Attribute::default()
            },
        ],
    }
}

/// The attributes of an ensemble, a value per node or per share of a leaf.
#[derive(Default)]
struct Columns {
    tree: Vec<i64>,
    node: Vec<i64>,
    feature: Vec<i64>,
    is_leaf: Vec<bool>,
    threshold: Vec<f32>,
    left: Vec<i64>,
    right: Vec<i64>,
    missing_left: Vec<i64>,
    class_tree: Vec<i64>,
    class_node: Vec<i64>,
    class: Vec<i64>,
    weight: Vec<f32>,
}

impl Columns {
    #[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)] // counts far below 2^63; f32 shares
    fn add(&mut self, forest: &Forest, tree: usize) {
        for (at, node) in forest.tree(tree).iter().enumerate() {
            self.tree.push(tree as i64);
            self.node.push(at as i64);
            self.is_leaf.push(node.is_leaf());
            let left = if node.is_leaf() { 0 } else { (at + node.ahead()) as i64 };
            self.feature.push(node.feature() as i64);
            self.threshold.push(if node.is_leaf() { 0.0 } else { node.threshold() });
            self.left.push(left);
            self.right.push(if node.is_leaf() { 0 } else { left + 1 });
            self.missing_left.push(i64::from(!node.is_leaf() && !node.missing_right()));
            if node.is_leaf() {
                for (class, share) in forest.leaf(node.leaf_index()).iter().enumerate() {
                    // A leaf that names no class is refused; one that names it all is safe.
                    self.class_tree.push(tree as i64);
                    self.class_node.push(at as i64);
                    self.class.push(class as i64);
                    self.weight.push((f64::from(*share) / (65535.0 * forest.trees() as f64)) as f32);
                }
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // ONNX computes in f32
fn cool(graph: &mut Graph, temperature: f64, floor: f64) {
    graph.initializer.push(float("floor", floor as f32));
    graph.initializer.push(float("inverse_temperature", (1.0 / temperature) as f32));
    graph.initializer.push(Tensor {
        dims: vec![1],
        data_type: INT64,
        int64_data: vec![1],
        name: "classes_axis".to_owned(),
        ..Tensor::default()
    });
    graph.node.push(operator("Add", &["shares", "floor"], "floored"));
    graph.node.push(operator("Pow", &["floored", "inverse_temperature"], "raised"));
    graph.node.push(operator("ReduceSum", &["raised", "classes_axis"], "total"));
    graph.node.push(operator("Div", &["raised", "total"], "probabilities"));
}

/// Below the threshold share / threshold / 2, above it 1/2 + (share - threshold) / (1 - threshold) / 2.
#[allow(clippy::cast_possible_truncation)] // ONNX computes in f32
fn stretch(graph: &mut Graph, threshold: f64) {
    let mut constant = |name: &str, value: f64| graph.initializer.push(float(name, value as f32));
    constant("threshold", threshold);
    constant("below_slope", 0.5 / threshold);
    constant("above_slope", 0.5 / (1.0 - threshold));
    constant("half", 0.5);
    constant("one", 1.0);
    graph.initializer.push(Tensor {
        dims: vec![1],
        data_type: INT64,
        int64_data: vec![1],
        name: "second".to_owned(),
        ..Tensor::default()
    });
    let mut gather = operator("Gather", &["shares", "second"], "share");
    gather.attribute.push(axis(1));
    let mut join = operator("Concat", &["normal", "anomaly"], "probabilities");
    join.attribute.push(axis(1));
    graph.node.extend([
        gather,
        operator("Mul", &["share", "below_slope"], "below"),
        operator("Sub", &["share", "threshold"], "excess"),
        operator("Mul", &["excess", "above_slope"], "stretched_excess"),
        operator("Add", &["stretched_excess", "half"], "above"),
        operator("LessOrEqual", &["share", "threshold"], "is_below"),
        operator("Where", &["is_below", "below", "above"], "anomaly"),
        operator("Sub", &["one", "anomaly"], "normal"),
        join,
    ]);
}

/// The label of the likeliest class, the first of equals.
fn label(graph: &mut Graph, model: &Model) {
    let labels: Vec<i64> = model.classes().iter().map(|class| i64::from(class.label)).collect();
    graph.initializer.push(Tensor {
        dims: vec![i64::try_from(labels.len()).unwrap_or(i64::MAX)],
        data_type: INT64,
        int64_data: labels,
        name: "labels".to_owned(),
        ..Tensor::default()
    });
    let mut winner = operator("ArgMax", &["probabilities"], "winner");
    winner
        .attribute
        .extend([axis(1), Attribute { name: "keepdims".to_owned(), i: 0, kind: 2, ..Attribute::default() }]);
    graph.node.push(winner);
    graph.node.push(operator("Gather", &["labels", "winner"], "label"));
}

fn operator(kind: &str, input: &[&str], output: &str) -> Node {
    Node {
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: output.to_owned(),
        op_type: kind.to_owned(),
        ..Node::default()
    }
}

fn axis(axis: i64) -> Attribute {
    Attribute { name: "axis".to_owned(), i: axis, kind: 2, ..Attribute::default() }
}

fn float(name: &str, value: f32) -> Tensor {
    Tensor {
        dims: vec![],
        data_type: FLOAT,
        float_data: vec![value],
        name: name.to_owned(),
        ..Tensor::default()
    }
}

/// A tensor's type; an unknown length is the number of rows.
fn value(name: &str, element: i32, lengths: &[Option<usize>]) -> ValueInfo {
    let dimension = |length: &Option<usize>| match length {
        Some(length) => Dimension { value: i64::try_from(*length).ok(), name: None },
        None => Dimension { value: None, name: Some("rows".to_owned()) },
    };
    let shape = Some(Shape { dim: lengths.iter().map(dimension).collect() });
    ValueInfo { name: name.to_owned(), kind: Some(ValueType { tensor: Some(TensorType { element, shape }) }) }
}
