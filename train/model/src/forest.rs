//! Decision trees as packed 8-byte nodes, and their prediction, eight walks in lock step.

use std::collections::HashMap;

use crate::FormatError;
use crate::meta::{MAX_INPUTS, bound};

/// A row costs one walk per tree: more than this is a mistake.
pub const MAX_TREES: usize = 10_000;
/// A link reaches this far.
pub const MAX_TREE_NODES: usize = 1 << 21;
/// Deeper trees come from repeated values, not from knowledge.
pub const MAX_DEPTH: usize = 255;

/// A leaf's probabilities sum to this.
pub(crate) const ONE: u16 = u16::MAX;

/// Walks that go on at the same time: enough to hide the latency of the second-level cache.
const LANES: usize = 8;
/// Rows over which a tree passes before the next one does: the more of them, the less often its nodes are
/// fetched again; these still fit the second-level cache.
const BLOCK: usize = 256;

/// Rows are copied to one of these widths, a power of two, so that no look at an input needs a bound. Most models
/// have fewer inputs than the first.
const NARROW: usize = 128;
const WIDE: usize = MAX_INPUTS;

const FEATURE_BITS: u32 = 10;
const MISSING_RIGHT: u32 = 1 << FEATURE_BITS;
const STEP_SHIFT: u32 = FEATURE_BITS + 1;

/// A split or a leaf in 8 bytes.
///
/// A split holds its threshold, the input it looks at (10 bits), whether a missing value goes right (1 bit)
/// and how many nodes ahead its left child stands (21 bits); the right child is the next one. Left is
/// `value <= threshold`, compared in f32. A leaf steps 0 nodes and holds its index where a split has its
/// threshold: a walk that has arrived stays where it is, so that eight walks need no branch between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Bits of the threshold, or the leaf's index.
    value: u32,
    link: u32,
}

/// A tree would not fit the node's link.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tree has more than {MAX_TREE_NODES} nodes: raise the minimum of rows per leaf or limit the depth")]
pub struct TreeSizeError;

impl Node {
    pub fn leaf(index: u32) -> Self {
        Self { value: index, link: 0 }
    }

    /// # Errors
    /// Where the children stand further ahead than a link reaches.
    ///
    /// # Panics
    /// Where `feature` is not below [`MAX_INPUTS`] or the threshold is not finite.
    pub fn split(
        feature: usize,
        threshold: f32,
        missing_right: bool,
        ahead: usize,
    ) -> Result<Self, TreeSizeError> {
        assert!(feature < MAX_INPUTS && threshold.is_finite(), "a split of a checked input");
        assert!(ahead > 0, "children stand behind their parent");
        let ahead = u32::try_from(ahead).ok().filter(|ahead| *ahead < 1 << (32 - STEP_SHIFT));
        let ahead = ahead.ok_or(TreeSizeError)?;
        let missing = if missing_right { MISSING_RIGHT } else { 0 };
        #[allow(clippy::cast_possible_truncation)] // below MAX_INPUTS
        let feature = feature as u32;
        Ok(Self { value: threshold.to_bits(), link: ahead << STEP_SHIFT | missing | feature })
    }

    pub(crate) fn from_le_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { value: u32::from_le_bytes([a, b, c, d]), link: u32::from_le_bytes([e, f, g, h]) }
    }

    pub(crate) fn to_le_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.value.to_le_bytes());
        bytes[4..].copy_from_slice(&self.link.to_le_bytes());
        bytes
    }

    pub const fn is_leaf(self) -> bool {
        self.link >> STEP_SHIFT == 0
    }

    /// The leaf's index; of a split, the bits of its threshold.
    pub const fn leaf_index(self) -> u32 {
        self.value
    }

    pub const fn threshold(self) -> f32 {
        f32::from_bits(self.value)
    }

    pub const fn feature(self) -> usize {
        (self.link & (MISSING_RIGHT - 1)) as usize
    }

    pub const fn missing_right(self) -> bool {
        self.link & MISSING_RIGHT != 0
    }

    /// How many nodes ahead the left child stands; 0 for a leaf.
    pub const fn ahead(self) -> usize {
        (self.link >> STEP_SHIFT) as usize
    }

    /// Nodes from here to the child that a row goes to; 0 at a leaf. No branch.
    #[inline(always)]
    fn step<const WIDTH: usize>(self, row: &[f32; WIDTH]) -> usize {
        // The mask changes nothing: a row is as wide as every input that a split looks at.
        let value = row[self.feature() & (WIDTH - 1)];
        let right = (value > self.threshold()) | (value.is_nan() & self.missing_right());
        let ahead = self.link >> STEP_SHIFT;
        let split = u32::from(ahead != 0).wrapping_neg();
        ((ahead + u32::from(right)) & split) as usize
    }
}

/// One tree as training grows it, with leaves of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// The root first; a child stands behind its parent, a right child right behind its left sibling.
    pub nodes: Vec<Node>,
    /// One row of `classes` probabilities per leaf index; each row sums to `u16::MAX`.
    pub leaves: Vec<u16>,
}

/// Trees that vote: the mean of their leaves' probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    classes: usize,
    /// Where each tree's root stands in `nodes`.
    roots: Vec<usize>,
    nodes: Vec<Node>,
    /// Distinct leaves, `classes` values each.
    leaves: Vec<u16>,
    /// Inputs that some split looks at.
    used: Vec<bool>,
    /// Values that a row has at least: one more than the last input that is looked at.
    least: usize,
}

/// Puts trees together, with each distinct leaf stored once.
#[derive(Debug)]
pub struct ForestBuilder {
    forest: Forest,
    seen: HashMap<Vec<u16>, u32>,
}

impl ForestBuilder {
    pub fn new(classes: usize) -> Self {
        let forest = Forest {
            classes,
            roots: Vec::new(),
            nodes: Vec::new(),
            leaves: Vec::new(),
            used: Vec::new(),
            least: 0,
        };
        Self { forest, seen: HashMap::new() }
    }

    /// Adds a tree; the order of the calls is the order in the file.
    pub fn push(&mut self, tree: &Tree) {
        let forest = &mut self.forest;
        forest.roots.push(forest.nodes.len());
        for node in &tree.nodes {
            let node = if node.is_leaf() {
                let start = node.leaf_index() as usize * forest.classes;
                let leaf = tree.leaves[start..start + forest.classes].to_vec();
                let next = forest.leaves.len() / forest.classes;
                #[allow(clippy::cast_possible_truncation)] // fewer leaves than nodes, and those have a bound
                let index = *self.seen.entry(leaf).or_insert_with_key(|leaf| {
                    forest.leaves.extend_from_slice(leaf);
                    next as u32
                });
                Node::leaf(index)
            } else {
                *node
            };
            forest.nodes.push(node);
        }
    }

    pub fn finish(mut self) -> Forest {
        self.forest.note_used();
        self.forest
    }
}

impl Forest {
    /// From the sections of a file, all of it checked.
    pub(crate) fn checked(
        classes: usize,
        inputs: usize,
        sizes: &[u32],
        nodes: Vec<Node>,
        leaves: Vec<u16>,
    ) -> Result<Self, FormatError> {
        if sizes.is_empty() {
            return Err(FormatError::Section { section: "trees", reason: "holds no tree".to_owned() });
        }
        bound("the number of trees", sizes.len(), MAX_TREES)?;
        let total: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
        if total != nodes.len() as u64 {
            let reason = format!("holds {} nodes, and the trees have {total}", nodes.len());
            return Err(FormatError::Section { section: "nodes", reason });
        }
        if !leaves.len().is_multiple_of(classes) {
            let reason = format!("{} values are not a multiple of {classes} classes", leaves.len());
            return Err(FormatError::Section { section: "leaves", reason });
        }
        for (leaf, values) in leaves.chunks_exact(classes).enumerate() {
            if values.iter().map(|value| u32::from(*value)).sum::<u32>() != u32::from(ONE) {
                return Err(FormatError::Leaf { leaf });
            }
        }
        let mut roots = Vec::with_capacity(sizes.len());
        let mut start = 0;
        for (tree, size) in sizes.iter().enumerate() {
            let end = start + *size as usize;
            check_tree(tree, &nodes[start..end], inputs, leaves.len() / classes)?;
            roots.push(start);
            start = end;
        }
        let mut forest = Self { classes, roots, nodes, leaves, used: Vec::new(), least: 0 };
        forest.note_used();
        Ok(forest)
    }

    fn note_used(&mut self) {
        self.used = vec![false; MAX_INPUTS];
        for node in self.nodes.iter().filter(|node| !node.is_leaf()) {
            self.used[node.feature()] = true;
        }
        self.least = self.used.iter().rposition(|used| *used).map_or(0, |last| last + 1);
    }

    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Whether any split looks at this input.
    pub fn uses(&self, input: usize) -> bool {
        self.used[input]
    }

    /// The nodes of one tree, the root first.
    pub fn tree(&self, tree: usize) -> &[Node] {
        let end = self.roots.get(tree + 1).copied().unwrap_or(self.nodes.len());
        &self.nodes[self.roots[tree]..end]
    }

    /// The probabilities of a leaf; they sum to `u16::MAX`.
    pub fn leaf(&self, index: u32) -> &[u16] {
        let start = index as usize * self.classes;
        &self.leaves[start..start + self.classes]
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn leaves(&self) -> &[u16] {
        &self.leaves
    }

    /// Levels below the root of the deepest tree.
    pub fn depth(&self) -> usize {
        (0..self.trees()).map(|tree| depth_of(self.tree(tree))).max().unwrap_or(0)
    }

    /// The middle one of the thresholds that keep the row's value of an input apart from another value: of the splits
    /// on the row's ways through the trees, those that would send the other value elsewhere. Nothing where there is
    /// none, and where either value was not measured.
    pub fn threshold(&self, row: &[f32], input: usize, other: f32) -> Option<f32> {
        let value = row[input];
        if value.is_nan() || other.is_nan() {
            return None;
        }
        let mut apart = Vec::new();
        for root in &self.roots {
            let mut at = *root;
            while !self.nodes[at].is_leaf() {
                let node = self.nodes[at];
                let found = row[node.feature()];
                let right = found > node.threshold() || (found.is_nan() && node.missing_right());
                if node.feature() == input && (value > node.threshold()) != (other > node.threshold()) {
                    apart.push(node.threshold());
                }
                at += node.ahead() + usize::from(right);
            }
        }
        apart.sort_unstable_by(f32::total_cmp);
        apart.get(apart.len().saturating_sub(1) / 2).copied()
    }

    /// As [`crate::Model::predict`].
    ///
    /// # Panics
    /// Where `probabilities` has not one place per class, or `row` lacks an input.
    pub fn predict(&self, row: &[f32], probabilities: &mut [f32]) {
        assert_eq!(probabilities.len(), self.classes, "one place per class");
        let mut votes = [0; crate::MAX_CLASSES];
        let votes = &mut votes[..self.classes];
        self.add_votes(0..self.trees(), row, votes);
        self.share(votes, probabilities);
    }

    /// Adds the shares that some trees give a row to `votes`; those of a tree sum to `u16::MAX`.
    ///
    /// # Panics
    /// Where `votes` has not one place per class, `row` lacks an input, or there is no such tree.
    pub fn add_votes(&self, trees: impl Iterator<Item = usize>, row: &[f32], votes: &mut [u32]) {
        assert_eq!(votes.len(), self.classes, "one place per class");
        if row.len() <= NARROW {
            self.add_votes_of::<NARROW>(trees, row, votes);
        } else {
            self.add_votes_of::<WIDE>(trees, row, votes);
        }
    }

    fn add_votes_of<const WIDTH: usize>(
        &self,
        mut trees: impl Iterator<Item = usize>,
        row: &[f32],
        votes: &mut [u32],
    ) {
        let mut wide = [0.0; WIDTH];
        self.widen(row, &mut wide);
        while let Some(first) = trees.next() {
            // The first tree stands in where trees run out; its walk is not counted again.
            let mut at = [self.roots[first]; LANES];
            let mut taken = 1;
            for (place, tree) in at[1..].iter_mut().zip(trees.by_ref().take(LANES - 1)) {
                *place = self.roots[tree];
                taken += 1;
            }
            self.walk(&mut at, &[&wide; LANES]);
            at[..taken].iter().for_each(|node| self.vote(*node, votes));
        }
    }

    /// As [`crate::Model::predict_batch`].
    ///
    /// # Panics
    /// Where the lengths do not fit together.
    pub fn predict_batch(&self, rows: &[f32], inputs: usize, probabilities: &mut [f32]) {
        assert!(rows.len().is_multiple_of(inputs), "whole rows");
        assert_eq!(rows.len() / inputs * self.classes, probabilities.len(), "one place per row and class");
        if inputs <= NARROW {
            self.predict_blocks::<NARROW>(rows, inputs, probabilities);
        } else {
            self.predict_blocks::<WIDE>(rows, inputs, probabilities);
        }
    }

    fn predict_blocks<const WIDTH: usize>(&self, rows: &[f32], inputs: usize, probabilities: &mut [f32]) {
        let mut wide = vec![[0.0; WIDTH]; BLOCK.min(rows.len() / inputs)];
        let mut votes = vec![0; wide.len() * self.classes];
        let blocks = rows.chunks(BLOCK * inputs).zip(probabilities.chunks_mut(BLOCK * self.classes));
        for (rows, probabilities) in blocks {
            votes.fill(0);
            let count = rows.len() / inputs;
            rows.chunks_exact(inputs).zip(&mut wide).for_each(|(row, wide)| self.widen(row, wide));
            for root in &self.roots {
                for start in (0..count).step_by(LANES) {
                    // The last row stands in where the block ends early; its walk is not counted again.
                    let lanes: [&[f32; WIDTH]; LANES] =
                        std::array::from_fn(|lane| &wide[(start + lane).min(count - 1)]);
                    let mut at = [*root; LANES];
                    self.walk(&mut at, &lanes);
                    for (index, node) in (start..count).zip(at) {
                        self.vote(node, &mut votes[index * self.classes..(index + 1) * self.classes]);
                    }
                }
            }
            let each = votes.chunks_exact(self.classes).zip(probabilities.chunks_exact_mut(self.classes));
            each.for_each(|(votes, probabilities)| self.share(votes, probabilities));
        }
    }

    /// A row with room behind it.
    fn widen<const WIDTH: usize>(&self, row: &[f32], wide: &mut [f32; WIDTH]) {
        assert!(row.len() >= self.least, "a row has every input that the model looks at");
        wide[..row.len()].copy_from_slice(row);
    }

    /// Moves every walk to its leaf.
    #[inline(always)]
    fn walk<const WIDTH: usize>(&self, at: &mut [usize; LANES], rows: &[&[f32; WIDTH]; LANES]) {
        loop {
            let mut moved = 0;
            for (at, row) in at.iter_mut().zip(rows) {
                let step = self.nodes[*at].step(row);
                *at += step;
                moved |= step;
            }
            if moved == 0 {
                return;
            }
        }
    }

    fn vote(&self, node: usize, votes: &mut [u32]) {
        let leaf = self.leaf(self.nodes[node].leaf_index());
        votes.iter_mut().zip(leaf).for_each(|(vote, share)| *vote += u32::from(*share));
    }

    /// Votes are whole numbers: their order cannot change a sum.
    #[allow(clippy::cast_possible_truncation)] // the nearest f32 of a share
    fn share(&self, votes: &[u32], probabilities: &mut [f32]) {
        let whole = self.trees() as f64 * f64::from(ONE);
        for (probability, vote) in probabilities.iter_mut().zip(votes) {
            *probability = (f64::from(*vote) / whole) as f32;
        }
    }
}

/// Whether every walk in this tree ends at a leaf that is there.
fn check_tree(tree: usize, nodes: &[Node], inputs: usize, leaves: usize) -> Result<(), FormatError> {
    bound("the number of nodes of a tree", nodes.len(), MAX_TREE_NODES)?;
    let wrong = |node, reason| Err(FormatError::Node { tree, node, reason });
    if nodes.is_empty() {
        return wrong(0, "the tree is empty");
    }
    // Levels below the root; 0 marks a node that no parent has named yet.
    let mut depths = vec![0u8; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 && depths[index] == 0 {
            return wrong(index, "no split before it leads here");
        }
        if node.is_leaf() {
            if node.leaf_index() as usize >= leaves {
                return wrong(index, "its leaf is not in the file");
            }
            if node.link != 0 {
                return wrong(index, "a leaf that looks at an input");
            }
            continue;
        }
        if node.feature() >= inputs {
            return wrong(index, "it looks at an input that the model does not have");
        }
        if !node.threshold().is_finite() {
            return wrong(index, "its threshold is not a finite number");
        }
        let left = index + node.ahead();
        if left + 1 >= nodes.len() {
            return wrong(index, "its children lie outside the tree");
        }
        if depths[left] != 0 || depths[left + 1] != 0 {
            return wrong(index, "another split leads to its children");
        }
        let Some(depth) = depths[index].checked_add(1) else {
            return wrong(index, "it lies deeper than 255 levels");
        };
        depths[left..=left + 1].fill(depth);
    }
    Ok(())
}

fn depth_of(nodes: &[Node]) -> usize {
    let mut depths = vec![0; nodes.len()];
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| !node.is_leaf()) {
        let left = index + node.ahead();
        let below = depths[index] + 1;
        depths[left..=left + 1].fill(below);
    }
    depths.into_iter().max().unwrap_or(0)
}
