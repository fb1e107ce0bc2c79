//! Grows one tree: at each node the best split by Gini impurity among a few inputs drawn at random.

use model::{Node, Tree, TreeSizeError};

use super::bins::{Bins, MISSING};
use super::random::Random;
use super::{ClassWeight, FeaturesPerNode, Settings};

/// Nodes with at least so many distinct rows count classes per bin; smaller ones sort their rows, which
/// costs less than going through 256 bins of every class.
const HISTOGRAM_ROWS: usize = 1024;
/// From so many rows on, counting the bins sorts faster than comparing.
const COUNTING_ROWS: usize = 48;

const BINS: usize = 256;

/// What all trees of a forest grow on.
pub struct Sample<'a> {
    pub bins: &'a Bins,
    /// Class index of every training row.
    pub classes: &'a [u8],
    pub number: usize,
    /// Inputs that can split at all.
    pub varying: &'a [usize],
}

/// A row of the tree's sample.
#[derive(Clone, Copy)]
struct Drawn {
    row: u32,
    /// How often it was drawn.
    times: u16,
    class: u8,
}

/// A node whose rows are known and whose split is not.
struct Open {
    node: usize,
    start: usize,
    end: usize,
    depth: usize,
}

/// The best way to part a node's rows that was found so far.
#[derive(Clone, Copy, Debug)]
struct Split {
    input: usize,
    /// Bins up to this one go left.
    bin: u8,
    missing_right: bool,
    /// Sum over both sides of (squared class weights / weight): the higher, the purer.
    purity: f64,
}

struct Grower<'a> {
    sample: &'a Sample<'a>,
    settings: &'a Settings,
    random: Random,
    weights: Vec<f64>,
    rows: Vec<Drawn>,
    inputs: Vec<usize>,
    tree: Tree,
    // Kept between nodes, so that a node allocates nothing.
    histogram: Vec<u32>,
    sorted: Vec<u32>,
    unsorted: Vec<u32>,
    totals: Vec<u32>,
    present: Present,
    left: Vec<u32>,
    aside: Vec<Drawn>,
}

/// Grows a tree to the end.
pub fn grow(sample: &Sample<'_>, settings: &Settings, mut random: Random) -> Result<Tree, TreeSizeError> {
    let rows = draw(sample.classes, settings.bootstrap, &mut random);
    let weights = class_weights(sample, settings.class_weight, &rows);
    let mut grower = Grower {
        sample,
        settings,
        random,
        weights,
        rows,
        inputs: sample.varying.to_vec(),
        tree: Tree { nodes: vec![Node::leaf(0)], leaves: Vec::new() },
        histogram: vec![0; BINS * sample.number],
        sorted: Vec::with_capacity(HISTOGRAM_ROWS),
        unsorted: Vec::with_capacity(HISTOGRAM_ROWS),
        totals: vec![0; sample.number],
        present: Present::new(sample.number),
        left: vec![0; sample.number],
        aside: Vec::new(),
    };
    grower.grow()?;
    Ok(grower.tree)
}

/// The sample of a tree: as many rows as there are, drawn with replacement. The first numbers of the tree's
/// stream, so that they can be drawn again.
pub fn sample(rows: usize, random: &mut Random, mut draw: impl FnMut(usize)) {
    (0..rows).for_each(|_| draw(random.below(rows)));
}

/// The tree's rows in their order: all of them, or its sample.
#[allow(clippy::cast_possible_truncation)] // rows are counted in u32
fn draw(classes: &[u8], bootstrap: bool, random: &mut Random) -> Vec<Drawn> {
    let mut times = vec![u16::from(!bootstrap); classes.len()];
    if bootstrap {
        sample(classes.len(), random, |row| times[row] = times[row].saturating_add(1));
    }
    let rows = times.iter().zip(classes).enumerate();
    rows.filter(|(_, (times, _))| **times > 0)
        .map(|(row, (times, class))| Drawn { row: row as u32, times: *times, class: *class })
        .collect()
}

/// What a row of each class counts; scikit-learn's formula, rows / (classes x rows of the class).
fn class_weights(sample: &Sample<'_>, weight: ClassWeight, rows: &[Drawn]) -> Vec<f64> {
    let mut counts = vec![0u64; sample.number];
    match weight {
        ClassWeight::None => return vec![1.0; sample.number],
        ClassWeight::Balanced => sample.classes.iter().for_each(|class| counts[usize::from(*class)] += 1),
        ClassWeight::BalancedSubsample => {
            rows.iter().for_each(|row| counts[usize::from(row.class)] += u64::from(row.times));
        }
    }
    let present = counts.iter().filter(|count| **count > 0).count();
    let total: u64 = counts.iter().sum();
    let each = |count: &u64| if *count == 0 { 0.0 } else { total as f64 / (present as f64 * *count as f64) };
    counts.iter().map(each).collect()
}

impl Grower<'_> {
    fn grow(&mut self) -> Result<(), TreeSizeError> {
        let mut open = vec![Open { node: 0, start: 0, end: self.rows.len(), depth: 0 }];
        while let Some(at) = open.pop() {
            self.count(at.start, at.end);
            let split = if self.is_final(at.depth) { None } else { self.best_split(at.start, at.end) };
            let Some(split) = split else {
                self.tree.nodes[at.node] = self.leaf();
                continue;
            };
            let middle = self.part(at.start, at.end, split);
            let left = self.tree.nodes.len();
            let threshold = self.sample.bins.columns[split.input].threshold(split.bin);
            self.tree.nodes[at.node] =
                Node::split(split.input, threshold, split.missing_right, left - at.node)?;
            self.tree.nodes.extend([Node::leaf(0); 2]);
            let depth = at.depth + 1;
            open.push(Open { node: left + 1, start: middle, end: at.end, depth });
            open.push(Open { node: left, start: at.start, end: middle, depth });
        }
        Ok(())
    }

    fn count(&mut self, start: usize, end: usize) {
        self.totals.fill(0);
        for row in &self.rows[start..end] {
            self.totals[usize::from(row.class)] += u32::from(row.times);
        }
        self.present.note(&self.totals, &self.weights);
    }

    fn is_final(&self, depth: usize) -> bool {
        let rows: u32 = self.totals.iter().sum();
        let pure = self.present.totals.len() < 2;
        pure || depth >= self.settings.max_depth || (rows as usize) < 2 * self.settings.min_leaf
    }

    /// Looks at inputs in random order: at as many as the settings say, and on until one of them splits.
    fn best_split(&mut self, start: usize, end: usize) -> Option<Split> {
        let wanted = match self.settings.features {
            FeaturesPerNode::All => self.inputs.len(),
            FeaturesPerNode::Sqrt => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 33
                let root = (self.inputs.len() as f64).sqrt().round() as usize;
                root.max(1)
            }
        };
        let mut best: Option<Split> = None;
        for looked in 0..self.inputs.len() {
            if looked >= wanted && best.is_some() {
                break;
            }
            let pick = looked + self.random.below(self.inputs.len() - looked);
            self.inputs.swap(looked, pick);
            let input = self.inputs[looked];
            let found = if end - start >= HISTOGRAM_ROWS {
                self.split_by_histogram(input, start, end)
            } else {
                self.split_by_sorting(input, start, end)
            };
            if let Some(found) = found
                && best.is_none_or(|best| found.purity > best.purity)
            {
                best = Some(found);
            }
        }
        best
    }

    fn split_by_histogram(&mut self, input: usize, start: usize, end: usize) -> Option<Split> {
        let column = &self.sample.bins.columns[input];
        let classes = self.present.totals.len();
        let used = (column.edges.len() + 1) * classes;
        self.histogram[..used].fill(0);
        let missing = usize::from(MISSING) * classes;
        self.histogram[missing..missing + classes].fill(0);
        for row in &self.rows[start..end] {
            let bin = usize::from(column.bins[row.row as usize]);
            self.histogram[bin * classes + self.present.place(row.class)] += u32::from(row.times);
        }
        let missing = &self.histogram[missing..missing + classes];
        let bins = self.histogram[..used].chunks_exact(classes).enumerate();
        #[allow(clippy::cast_possible_truncation)] // at most 255 bins
        let bins = bins.filter(|(_, counts)| counts.iter().any(|count| *count > 0)).map(|(bin, counts)| {
            let classes = counts.iter().enumerate().filter(|(_, count)| **count > 0);
            (bin as u8, classes.map(|(class, count)| (class, *count)))
        });
        self.present.counts(self.settings.min_leaf).best(input, bins, missing, &mut self.left[..classes])
    }

    fn split_by_sorting(&mut self, input: usize, start: usize, end: usize) -> Option<Split> {
        let column = &self.sample.bins.columns[input];
        self.sorted.clear();
        let first = column.bins[self.rows[start].row as usize];
        let mut varies = false;
        for row in &self.rows[start..end] {
            let bin = column.bins[row.row as usize];
            varies |= bin != first;
            #[allow(clippy::cast_possible_truncation)] // below 256
            let class = self.present.place(row.class) as u32;
            self.sorted.push(u32::from(bin) << 24 | class << 16 | u32::from(row.times));
        }
        if !varies {
            return None;
        }
        self.sort_by_bin();
        let measured = self.sorted.partition_point(|packed| bin_of(*packed) != MISSING);
        let (measured, not) = self.sorted.split_at(measured);
        let mut missing = [0; model::MAX_CLASSES];
        let classes = self.present.totals.len();
        let missing = &mut missing[..classes];
        let class_and_times = |packed: &u32| ((*packed >> 16 & 0xff) as usize, *packed & 0xffff);
        for (class, times) in not.iter().map(class_and_times) {
            missing[class] += times;
        }
        let bins = measured.chunk_by(|a, b| bin_of(*a) == bin_of(*b));
        let bins = bins.map(|run| (bin_of(run[0]), run.iter().map(class_and_times)));
        self.present.counts(self.settings.min_leaf).best(input, bins, missing, &mut self.left[..classes])
    }

    /// Orders the packed rows by their bins.
    fn sort_by_bin(&mut self) {
        if self.sorted.len() < COUNTING_ROWS {
            self.sorted.sort_unstable();
            return;
        }
        let mut places = [0u32; BINS];
        self.sorted.iter().for_each(|packed| places[usize::from(bin_of(*packed))] += 1);
        let mut before = 0;
        for place in &mut places {
            before += std::mem::replace(place, before);
        }
        std::mem::swap(&mut self.sorted, &mut self.unsorted);
        self.sorted.resize(self.unsorted.len(), 0);
        for packed in &self.unsorted {
            let place = &mut places[usize::from(bin_of(*packed))];
            self.sorted[*place as usize] = *packed;
            *place += 1;
        }
    }

    /// Moves the rows that go left before those that go right, each side in its order; returns where the
    /// right side begins.
    fn part(&mut self, start: usize, end: usize, split: Split) -> usize {
        let bins = &self.sample.bins.columns[split.input].bins;
        self.aside.clear();
        let mut kept = start;
        for at in start..end {
            let row = self.rows[at];
            let bin = bins[row.row as usize];
            let right = if bin == MISSING { split.missing_right } else { bin > split.bin };
            if right {
                self.aside.push(row);
            } else {
                self.rows[kept] = row;
                kept += 1;
            }
        }
        self.rows[kept..end].copy_from_slice(&self.aside);
        kept
    }

    /// A leaf with the shares of the counted classes, in parts of 65535: rounded down, and what is left to
    /// the largest remainders.
    fn leaf(&mut self) -> Node {
        let classes = self.sample.number;
        let weighted: Vec<f64> =
            self.totals.iter().zip(&self.weights).map(|(count, weight)| f64::from(*count) * weight).collect();
        let total: f64 = weighted.iter().sum();
        let exact: Vec<f64> = weighted.iter().map(|weight| weight / total * f64::from(u16::MAX)).collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 65535
        let mut shares: Vec<u16> = exact.iter().map(|share| *share as u16).collect();
        let given: u32 = shares.iter().map(|share| u32::from(*share)).sum();
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then(a.cmp(b)));
        let left = u32::from(u16::MAX) - given;
        order.iter().take(left as usize).for_each(|class| shares[*class] += 1);
        #[allow(clippy::cast_possible_truncation)] // fewer leaves than nodes
        let index = (self.tree.leaves.len() / classes) as u32;
        self.tree.leaves.extend(shares);
        Node::leaf(index)
    }
}

/// Of a packed row, which has its bin in front.
fn bin_of(packed: u32) -> u8 {
    (packed >> 24) as u8
}

/// The classes that a node has, most often few of all: a split weighs these alone.
struct Present {
    /// Of every class, its place among those that are present.
    places: Vec<u8>,
    /// By place.
    totals: Vec<u32>,
    weights: Vec<f64>,
}

impl Present {
    fn new(classes: usize) -> Self {
        Self { places: vec![0; classes], totals: Vec::new(), weights: Vec::new() }
    }

    fn note(&mut self, totals: &[u32], weights: &[f64]) {
        self.totals.clear();
        self.weights.clear();
        for ((place, total), weight) in self.places.iter_mut().zip(totals).zip(weights) {
            if *total > 0 {
                #[allow(clippy::cast_possible_truncation)] // at most 256 classes
                let next = self.totals.len() as u8;
                *place = next;
                self.totals.push(*total);
                self.weights.push(*weight);
            }
        }
    }

    fn place(&self, class: u8) -> usize {
        usize::from(self.places[usize::from(class)])
    }

    fn counts(&self, min: usize) -> NodeCounts<'_> {
        NodeCounts { totals: &self.totals, weights: &self.weights, min }
    }
}

/// A node's rows by class.
struct NodeCounts<'a> {
    totals: &'a [u32],
    weights: &'a [f64],
    min: usize,
}

impl NodeCounts<'_> {
    /// The best split by one input: `bins` are those with rows, ascending, each with its classes and counts;
    /// `missing` counts the rows that did not measure it.
    fn best<B>(
        &self,
        input: usize,
        bins: impl Iterator<Item = (u8, B)> + Clone,
        missing: &[u32],
        left: &mut [u32],
    ) -> Option<Split>
    where
        B: Iterator<Item = (usize, u32)>,
    {
        let some_missing = missing.iter().any(|count| *count > 0);
        left.fill(0);
        let right = self.scan(bins.clone(), left, some_missing);
        let missing_left = if some_missing {
            left.copy_from_slice(missing);
            self.scan(bins, left, false)
        } else {
            None
        };
        let split = |(bin, purity, missing_right)| Split { input, bin, missing_right, purity };
        let right = right.map(|found| split((found.bin, found.purity, some_missing || found.right_heavier)));
        let missing_left = missing_left.map(|found| split((found.bin, found.purity, false)));
        match (right, missing_left) {
            (Some(right), Some(left)) if left.purity > right.purity => Some(left),
            (right, left) => right.or(left),
        }
    }

    /// Goes through the bins with rows on the left growing from `left`. `behind_last`: whether the place
    /// behind the last bin is a split too, because missing values stay on the right.
    fn scan<B>(
        &self,
        bins: impl Iterator<Item = (u8, B)>,
        left: &mut [u32],
        behind_last: bool,
    ) -> Option<Found>
    where
        B: Iterator<Item = (usize, u32)>,
    {
        let mut sides = Sides::new(self, left);
        let mut best: Option<(u8, bool)> = None;
        let mut best_purity = Purity { over: -1.0, under: 1.0 };
        let mut bins = bins.peekable();
        while let Some((bin, counts)) = bins.next() {
            for (class, count) in counts {
                sides.move_left(class, count);
            }
            if bins.peek().is_none() && !behind_last {
                break;
            }
            if sides.left_rows < self.min || sides.right_rows < self.min {
                continue;
            }
            let purity = sides.purity();
            if purity.above(best_purity) {
                best_purity = purity;
                best = Some((bin, sides.right_rows > sides.left_rows));
            }
        }
        best.map(|(bin, right_heavier)| Found { bin, purity: best_purity.value(), right_heavier })
    }
}

struct Found {
    bin: u8,
    purity: f64,
    /// Where no row was missing, a missing value will go where most rows went.
    right_heavier: bool,
}

/// Both sides of a split, kept up to date as rows move from right to left.
struct Sides<'a> {
    totals: &'a [u32],
    weights: &'a [f64],
    left: &'a mut [u32],
    left_rows: usize,
    right_rows: usize,
    left_weight: f64,
    right_weight: f64,
    /// Sums of squared class weights.
    left_squares: f64,
    right_squares: f64,
}

impl<'a> Sides<'a> {
    fn new(node: &NodeCounts<'a>, left: &'a mut [u32]) -> Self {
        let (totals, weights) = (node.totals, node.weights);
        let mut sides = Self {
            totals,
            weights,
            left,
            left_rows: 0,
            right_rows: 0,
            left_weight: 0.0,
            right_weight: 0.0,
            left_squares: 0.0,
            right_squares: 0.0,
        };
        for (class, (total, weight)) in totals.iter().zip(weights).enumerate() {
            let (l, r) = (sides.left[class], total - sides.left[class]);
            sides.left_rows += l as usize;
            sides.right_rows += r as usize;
            let (l, r) = (f64::from(l) * weight, f64::from(r) * weight);
            sides.left_weight += l;
            sides.right_weight += r;
            sides.left_squares += l * l;
            sides.right_squares += r * r;
        }
        sides
    }

    /// (l + d)^2 - l^2 = d (2 l + d), and likewise on the right.
    #[inline]
    fn move_left(&mut self, class: usize, count: u32) {
        let weight = self.weights[class];
        let moved = f64::from(count) * weight;
        let l = f64::from(self.left[class]) * weight;
        let r = f64::from(self.totals[class] - self.left[class]) * weight;
        self.left[class] += count;
        self.left_rows += count as usize;
        self.right_rows -= count as usize;
        self.left_weight += moved;
        self.right_weight -= moved;
        self.left_squares += moved * (2.0 * l + moved);
        self.right_squares -= moved * (2.0 * r - moved);
    }

    fn purity(&self) -> Purity {
        Purity {
            over: self.left_squares * self.right_weight + self.right_squares * self.left_weight,
            under: self.left_weight * self.right_weight,
        }
    }
}

/// Sum over both sides of (squared class weights / weight), as one fraction: comparing two costs no division.
#[derive(Clone, Copy)]
struct Purity {
    over: f64,
    under: f64,
}

impl Purity {
    fn above(self, other: Self) -> bool {
        self.over * other.under > other.over * self.under
    }

    fn value(self) -> f64 {
        self.over / self.under
    }
}
