//! All trees in one array, laid out to be walked.
//!
//! The two children of a split stand side by side, so that a step is `child + right`, without a jump. A leaf is a split whose
//! children are itself: rows of different depth are walked together until none of them moves.

use crate::parse::{Child, Missing, ParsedTree, Rule};

/// LightGBM takes what is no further from 0 than this for 0: the nearest `f32` to 1e-35.
pub const ZERO: f64 = 1e-35_f32 as f64;

/// A split or a leaf, in 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// More than this goes right; of a split by categories, the number of its set.
    threshold: f64,
    /// The left child; the right one is the next.
    child: u32,
    /// The feature, with what is said of missing values.
    split: u32,
}

const NAN_RIGHT: u32 = 1 << 31;
const CATEGORIES: u32 = 1 << 30;
/// A feature's place in a prepared row.
const FEATURE: u32 = CATEGORIES - 1;

/// So many features a model may have: a prepared row holds each twice at most.
pub const FEATURES: usize = (FEATURE as usize) / 2;

/// A tree in the forest.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    pub root: u32,
    pub depth: u32,
    /// Some splits are by categories.
    pub categories: bool,
}

/// The leaves' linear models of a tree.
#[derive(Debug, Clone)]
pub struct LinearTree {
    /// By leaf.
    leaves: Vec<Linear>,
    terms: Vec<(u32, f64)>,
}

#[derive(Debug, Clone, Copy)]
struct Linear {
    constant: f64,
    first: u32,
    end: u32,
}

/// A set of categories: bits in an array for all.
#[derive(Debug, Clone, Copy)]
struct Set {
    first: u32,
    words: u32,
}

/// The numbers of training rows, for contributions.
#[derive(Debug, Clone)]
pub struct Shares {
    /// By node.
    pub counts: Vec<f64>,
    /// By tree: what it gives on average.
    pub expected: Vec<f64>,
}

/// All trees of a model.
#[derive(Debug, Clone)]
pub struct Forest {
    nodes: Vec<Node>,
    /// By node: what a leaf gives.
    values: Vec<f64>,
    /// By node: the leaf's number in its tree.
    leaves: Vec<u32>,
    pub trees: Vec<Tree>,
    sets: Vec<Set>,
    set_words: Vec<u32>,
    /// By tree, empty when there are none.
    linear: Vec<Option<LinearTree>>,
    /// Or the first tree that does not tell.
    pub shares: Result<Shares, usize>,
    /// Some splits take zeros for missing: prepared rows hold the features twice.
    pub zeros: bool,
    pub features: usize,
    /// Values above this one name a category.
    below_categories: f64,
}

/// More nodes than can be counted.
#[derive(Debug, Clone, Copy)]
pub struct TooLarge {
    /// The first tree that is too much.
    pub tree: usize,
    pub limit: usize,
}

impl Forest {
    /// Lays out trees of a model with this many features.
    pub fn new(parsed: &[ParsedTree], features: usize) -> Result<Forest, TooLarge> {
        let mut forest = Forest {
            nodes: Vec::new(),
            values: Vec::new(),
            leaves: Vec::new(),
            trees: Vec::with_capacity(parsed.len()),
            sets: Vec::new(),
            set_words: Vec::new(),
            linear: Vec::new(),
            shares: Ok(Shares {
                counts: Vec::new(),
                expected: Vec::new(),
            }),
            zeros: false,
            features,
            // -0.5 is category 0 for LightGBM, as it cuts off what follows the point.
            below_categories: -1.0,
        };
        let linear = parsed.iter().any(|tree| tree.linear.is_some());
        for (number, tree) in parsed.iter().enumerate() {
            // A set has a split of its own, so sets are counted, too. Words of sets and terms are longer in the file than here.
            let words: usize = tree.sets.iter().map(Vec::len).sum();
            let size = forest.nodes.len() + 2 * tree.leaves.len();
            if size > LIMIT
                || forest.sets.len() + tree.sets.len() > LIMIT
                || forest.set_words.len() + words > LIMIT
            {
                return Err(TooLarge {
                    tree: number,
                    limit: LIMIT,
                });
            }
            forest.add(number, tree);
            if linear {
                forest
                    .linear
                    .push(tree.linear.as_ref().map(|leaves| LinearTree::new(leaves)));
            }
        }
        Ok(forest)
    }

    /// With categories that are numbers from 0 on: nothing negative is one.
    #[must_use]
    pub fn with_categories_from_zero(mut self) -> Forest {
        self.below_categories = 0.0_f64.next_down();
        self
    }

    fn add(&mut self, number: usize, tree: &ParsedTree) {
        let first_set = self.sets.len();
        for words in &tree.sets {
            self.sets.push(Set {
                first: self.set_words.len() as u32,
                words: words.len() as u32,
            });
            self.set_words.extend(words);
        }
        if tree.counts.is_none() && self.shares.is_ok() {
            self.shares = Err(number);
        }
        let root = self.nodes.len();
        let start = match tree.splits.is_empty() {
            true => Child::Leaf(0),
            false => Child::Split(0),
        };
        self.place(tree, start);
        let mut depth = 0;
        // In order of depth: children come after their parents. What stands in the array so far is read again, and children are added.
        let mut order = vec![(start, 0_u32)];
        let mut at = 0;
        while let Some((child, level)) = order.get(at).copied() {
            depth = depth.max(level);
            let here = root + at;
            at += 1;
            let Child::Split(split) = child else { continue };
            let split = &tree.splits[split];
            let left = self.nodes.len() as u32;
            self.place(tree, split.left);
            self.place(tree, split.right);
            order.extend([(split.left, level + 1), (split.right, level + 1)]);
            self.nodes[here] = self.node(split.feature, split.rule, first_set, left);
        }
        self.trees.push(Tree {
            root: root as u32,
            depth,
            categories: !tree.sets.is_empty(),
        });
        if let (Ok(shares), Some(counts)) = (&mut self.shares, &tree.counts) {
            shares.expected.push(match counts.splits.first() {
                None => tree.leaves[0],
                Some(total) => {
                    let values = counts.leaves.iter().zip(&tree.leaves);
                    values.fold(0.0, |sum, (count, value)| sum + count / total * value)
                }
            });
        }
    }

    /// Adds a node: a leaf is ready, a split is not.
    fn place(&mut self, tree: &ParsedTree, child: Child) {
        self.nodes.push(Node {
            threshold: f64::INFINITY,
            child: self.nodes.len() as u32,
            split: 0,
        });
        let (value, leaf) = match child {
            Child::Leaf(leaf) => {
                let number = tree
                    .leaf_numbers
                    .as_ref()
                    .map_or(leaf as u32, |numbers| numbers[leaf]);
                (tree.leaves[leaf], number)
            }
            Child::Split(_) => (0.0, 0),
        };
        self.values.push(value);
        self.leaves.push(leaf);
        if let (Ok(shares), Some(counts)) = (&mut self.shares, &tree.counts) {
            shares.counts.push(match child {
                Child::Leaf(leaf) => counts.leaves[leaf],
                Child::Split(split) => counts.splits[split],
            });
        }
    }

    fn node(&mut self, feature: usize, rule: Rule, first_set: usize, child: u32) -> Node {
        let feature = feature as u32;
        match rule {
            Rule::Categories { set, missing_left } => Node {
                threshold: (first_set + set) as f64,
                child,
                split: feature | CATEGORIES | if missing_left { 0 } else { NAN_RIGHT },
            },
            Rule::Below {
                threshold,
                missing_left,
            } => Node {
                // What is more than the number before it is not below.
                threshold: threshold.next_down(),
                child,
                split: feature | if missing_left { 0 } else { NAN_RIGHT },
            },
            Rule::Threshold {
                threshold,
                missing,
                default_left,
            } => {
                let nan_left = match missing {
                    // NaN is taken for 0.
                    Missing::None => 0.0 <= threshold,
                    Missing::Zero | Missing::NaN => default_left,
                };
                let zeros = missing == Missing::Zero;
                self.zeros |= zeros;
                let place = if zeros {
                    feature + self.features as u32
                } else {
                    feature
                };
                Node {
                    threshold: beside_zero(threshold),
                    child,
                    split: place | if nan_left { 0 } else { NAN_RIGHT },
                }
            }
        }
    }

    /// How long a prepared row is.
    pub fn row_len(&self) -> usize {
        self.features * if self.zeros { 2 } else { 1 }
    }

    /// Completes prepared rows, the second half of which is empty so far.
    pub fn mark_zeros(&self, row: &mut [f64]) {
        if self.zeros && row.len() == 2 * self.features {
            let (values, marked) = row.split_at_mut(self.features);
            for (marked, value) in marked.iter_mut().zip(values) {
                *marked = if value.abs() <= ZERO { f64::NAN } else { *value };
            }
        }
    }

    /// The next node from this one, for a row that begins at `base` in `data`; a leaf is its own next. Without `SETS` no split is by
    /// categories, without `NANS` no value is NaN.
    #[inline(always)]
    pub fn step<const SETS: bool, const NANS: bool>(&self, at: u32, data: &[f64], base: usize) -> u32 {
        let node = &self.nodes[at as usize];
        let value = data[base + (node.split & FEATURE) as usize];
        let right = if SETS && node.split & CATEGORIES != 0 {
            match value.is_nan() {
                true => node.split & NAN_RIGHT != 0,
                false => !self.contains(node.threshold as usize, value),
            }
        } else {
            (value > node.threshold) | (NANS && value.is_nan() & (node.split & NAN_RIGHT != 0))
        };
        node.child + u32::from(right)
    }

    /// Whether a category is in a set. What is below 0 or too large is in none.
    fn contains(&self, set: usize, value: f64) -> bool {
        if !(value > self.below_categories && value < 2_147_483_648.0) {
            return false;
        }
        let Set { first, words } = self.sets[set];
        let category = value as u32;
        let (word, bit) = (category / 32, category % 32);
        word < words && self.set_words[(first + word) as usize] >> bit & 1 == 1
    }

    /// Which leaf of its tree a node is.
    pub fn leaf(&self, at: u32) -> u32 {
        self.leaves[at as usize]
    }

    /// What a leaf of a tree gives for a row.
    #[inline]
    pub fn value(&self, tree: usize, at: u32, row: &[f64]) -> f64 {
        let value = self.values[at as usize];
        match self.linear.get(tree) {
            Some(Some(linear)) => linear.value(self.leaf(at), row).unwrap_or(value),
            _ => value,
        }
    }

    /// What a leaf gives that is not linear.
    #[inline]
    pub fn constant(&self, at: u32) -> f64 {
        self.values[at as usize]
    }

    /// The children of a split, left and right; none of a leaf.
    pub fn children(&self, at: u32) -> Option<(u32, u32)> {
        let child = self.nodes[at as usize].child;
        (child != at).then(|| (child, child + 1))
    }

    /// The feature of a split.
    pub fn feature(&self, at: u32) -> usize {
        (self.nodes[at as usize].split & FEATURE) as usize % self.features
    }

    /// The first tree with linear leaves.
    pub fn first_linear(&self) -> Option<usize> {
        self.linear.iter().position(Option::is_some)
    }
}

/// Nodes are counted in 32 bits.
const LIMIT: usize = u32::MAX as usize;

/// The threshold that tells values as this one does when all that counts as 0 is 0, which is how LightGBM reads rows.
fn beside_zero(threshold: f64) -> f64 {
    if threshold.abs() > ZERO {
        threshold
    } else if threshold < 0.0 {
        (-ZERO).next_down()
    } else {
        ZERO
    }
}

impl LinearTree {
    fn new(parsed: &[crate::parse::LinearLeaf]) -> LinearTree {
        let mut tree = LinearTree {
            leaves: Vec::with_capacity(parsed.len()),
            terms: Vec::new(),
        };
        for leaf in parsed {
            let first = tree.terms.len() as u32;
            let terms = leaf.terms.iter();
            tree.terms
                .extend(terms.map(|(feature, coefficient)| (*feature as u32, *coefficient)));
            tree.leaves.push(Linear {
                constant: leaf.constant,
                first,
                end: tree.terms.len() as u32,
            });
        }
        tree
    }

    /// None when a value is missing.
    fn value(&self, leaf: u32, row: &[f64]) -> Option<f64> {
        let Linear { constant, first, end } = self.leaves[leaf as usize];
        let mut sum = constant;
        for (feature, coefficient) in &self.terms[first as usize..end as usize] {
            let value = row[*feature as usize];
            if value.is_nan() {
                return None;
            }
            let value = if value.abs() <= ZERO { 0.0 } else { value };
            sum += coefficient * value;
        }
        Some(sum)
    }
}
