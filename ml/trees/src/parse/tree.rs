//! One tree, checked so far that no walk through it can go astray.

use super::text::{Section, Value};
use crate::error::ParseError;

/// The bits of `decision_type`.
const CATEGORICAL: i64 = 1;
const DEFAULT_LEFT: i64 = 2;
const MISSING_SHIFT: u32 = 2;

/// Which values of a feature are missing ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// None; NaN is taken for 0.
    None,
    /// Zero and NaN.
    Zero,
    /// NaN.
    NaN,
}

/// How a split tells left from right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Left when the value is not more than the threshold.
    Threshold {
        threshold: f64,
        missing: Missing,
        default_left: bool,
    },
    /// Left when the value is less than the threshold.
    Below { threshold: f64, missing_left: bool },
    /// Left when the category is in the set of this number.
    Categories { set: usize, missing_left: bool },
}

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    Split(usize),
    Leaf(usize),
}

/// An inner node.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    pub feature: usize,
    pub rule: Rule,
    pub left: Child,
    pub right: Child,
}

/// The linear model of a leaf: a constant, and a coefficient for each of some features.
#[derive(Debug, Clone, Default)]
pub struct LinearLeaf {
    pub constant: f64,
    pub terms: Vec<(usize, f64)>,
}

/// How many training rows came by.
#[derive(Debug, Clone)]
pub struct Counts {
    pub leaves: Vec<f64>,
    pub splits: Vec<f64>,
}

/// A tree: its splits, the first of which is the root, make all leaves reachable, each on one way.
#[derive(Debug, Clone)]
pub struct ParsedTree {
    pub splits: Vec<Split>,
    pub leaves: Vec<f64>,
    /// What the leaves are called; by their order, unless told.
    pub leaf_numbers: Option<Vec<u32>>,
    /// Bitsets of categories.
    pub sets: Vec<Vec<u32>>,
    pub linear: Option<Vec<LinearLeaf>>,
    pub counts: Option<Counts>,
}

/// Reads a tree of a model with this many features.
pub fn parse_tree(tree: usize, section: &Section<'_>, features: usize) -> Result<ParsedTree, ParseError> {
    let leaves = section.get("num_leaves")?.within(1, LEAVES)?;
    let sets = section.get("num_cat")?.within(0, LEAVES)?;
    let values = section.get("leaf_value")?.numbers(leaves, "the tree's leaves")?;
    let linear = match section.find("is_linear") {
        Some(value) => value.within(0, 1)? == 1,
        None => false,
    };
    let linear = linear
        .then(|| linear_leaves(section, leaves, features))
        .transpose()?;
    let counts = counts(section, leaves)?;
    if leaves == 1 {
        return Ok(ParsedTree {
            splits: Vec::new(),
            leaves: values,
            leaf_numbers: None,
            sets: Vec::new(),
            linear,
            counts,
        });
    }
    let sets = category_sets(section, sets)?;
    let splits = splits(section, leaves, features, sets.len())?;
    check_shape(tree, section, &splits, leaves)?;
    Ok(ParsedTree {
        splits,
        leaves: values,
        leaf_numbers: None,
        sets,
        linear,
        counts,
    })
}

/// LightGBM counts leaves in 32 bits.
const LEAVES: usize = i32::MAX as usize;
const SPLITS: &str = "the tree's leaves less one";

fn splits(
    section: &Section<'_>,
    leaves: usize,
    features: usize,
    sets: usize,
) -> Result<Vec<Split>, ParseError> {
    let count = leaves - 1;
    let split_feature = section
        .get("split_feature")?
        .whole(count, SPLITS, 0, features as i64 - 1)?;
    let threshold_value = section.get("threshold")?;
    let thresholds = threshold_value.numbers(count, SPLITS)?;
    let left = children(section.get("left_child")?, leaves)?;
    let right = children(section.get("right_child")?, leaves)?;
    let decision_value = section.find("decision_type");
    let decisions = match decision_value {
        // The two low bits, and a kind of missing values of which there are three.
        Some(value) => value.whole(count, SPLITS, 0, 11)?,
        None => vec![0; count],
    };
    let mut splits = Vec::with_capacity(count);
    for node in 0..count {
        let (decision, threshold) = (decisions[node], thresholds[node]);
        let rule = if decision & CATEGORICAL != 0 {
            let set = threshold as usize;
            if set >= sets || set as f64 != threshold {
                let expected =
                    format!("the number of one of `num_cat` = {sets} sets of categories, counted from 0");
                return Err(threshold_value.error(&threshold.to_string(), expected));
            }
            Rule::Categories {
                set,
                missing_left: false,
            }
        } else if threshold.is_nan() {
            return Err(threshold_value.error("NaN", "a number"));
        } else {
            Rule::Threshold {
                threshold,
                missing: match decision >> MISSING_SHIFT {
                    0 => Missing::None,
                    1 => Missing::Zero,
                    _ => Missing::NaN,
                },
                default_left: decision & DEFAULT_LEFT != 0,
            }
        };
        splits.push(Split {
            feature: split_feature[node] as usize,
            rule,
            left: left[node],
            right: right[node],
        });
    }
    Ok(splits)
}

/// Splits are numbered from 0, leaves from -1 downwards.
fn children(value: Value<'_>, leaves: usize) -> Result<Vec<Child>, ParseError> {
    let to = leaves as i64 - 2;
    let children = value.whole(leaves - 1, SPLITS, -(leaves as i64), to)?;
    let child = |number: i64| {
        if number < 0 {
            Child::Leaf(!number as usize)
        } else {
            Child::Split(number as usize)
        }
    };
    Ok(children.into_iter().map(child).collect())
}

/// Each split and each leaf is reached from the first split, on one way.
fn check_shape(
    tree: usize,
    section: &Section<'_>,
    splits: &[Split],
    leaves: usize,
) -> Result<(), ParseError> {
    let (first, second) = (section.get("left_child")?.line, section.get("right_child")?.line);
    let twice = |what: String| ParseError::Twice {
        tree,
        first,
        second,
        what,
    };
    let mut seen_splits = vec![false; splits.len()];
    let mut seen_leaves = vec![false; leaves];
    let mut reached = 0;
    let mut next = vec![0];
    seen_splits[0] = true;
    while let Some(node) = next.pop() {
        reached += 1;
        for child in [splits[node].left, splits[node].right] {
            match child {
                Child::Split(split) => {
                    if std::mem::replace(&mut seen_splits[split], true) {
                        return Err(twice(format!("split {split}")));
                    }
                    next.push(split);
                }
                Child::Leaf(leaf) => {
                    if std::mem::replace(&mut seen_leaves[leaf], true) {
                        return Err(twice(format!("leaf {leaf}")));
                    }
                }
            }
        }
    }
    // As many leaves as splits and one more: when all splits are reached, so are all leaves.
    if reached == splits.len() {
        Ok(())
    } else {
        Err(ParseError::Unreached {
            tree,
            first,
            second,
            reached,
            nodes: splits.len(),
        })
    }
}

fn category_sets(section: &Section<'_>, count: usize) -> Result<Vec<Vec<u32>>, ParseError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let bounds_value = section.get("cat_boundaries")?;
    let words_value = section.get("cat_threshold")?;
    let bounds = bounds_value.whole(count + 1, "`num_cat` and one more", 0, i64::from(i32::MAX))?;
    if bounds.first() != Some(&0) || bounds.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err(bounds_value.error(bounds_value.text, "numbers from 0 on that never fall"));
    }
    let words = bounds.last().map_or(0, |last| *last as usize);
    let words = words_value.whole(words, "the last of `cat_boundaries`", 0, i64::from(u32::MAX))?;
    Ok(bounds
        .windows(2)
        .map(|pair| {
            let words = &words[pair[0] as usize..pair[1] as usize];
            words.iter().map(|word| *word as u32).collect()
        })
        .collect())
}

fn linear_leaves(
    section: &Section<'_>,
    leaves: usize,
    features: usize,
) -> Result<Vec<LinearLeaf>, ParseError> {
    const WHY: &str = "the tree's leaves";
    const SUM: &str = "the sum of `num_features`";
    let constants = section.get("leaf_const")?.numbers(leaves, WHY)?;
    let counts = section
        .get("num_features")?
        .whole(leaves, WHY, 0, i64::from(i32::MAX))?;
    // As many numbers as there are leaves on a line, of 31 bits each.
    let sum = counts.iter().sum::<i64>() as usize;
    let used = section
        .get("leaf_features")?
        .whole(sum, SUM, 0, features as i64 - 1)?;
    let coefficients = section.get("leaf_coeff")?.numbers(sum, SUM)?;
    let mut terms = used.into_iter().map(|feature| feature as usize).zip(coefficients);
    let leaf = |(constant, count): (f64, i64)| LinearLeaf {
        constant,
        terms: terms.by_ref().take(count as usize).collect(),
    };
    Ok(constants.into_iter().zip(counts).map(leaf).collect())
}

fn counts(section: &Section<'_>, leaves: usize) -> Result<Option<Counts>, ParseError> {
    let (Some(leaf), Some(split)) = (section.find("leaf_count"), section.find("internal_count")) else {
        return Ok(None);
    };
    let read = |value: Value<'_>, count, why| {
        let counts = value.whole(count, why, 0, i64::from(i32::MAX))?;
        Ok(counts.into_iter().map(|count| count as f64).collect())
    };
    Ok(Some(Counts {
        leaves: read(leaf, leaves, "the tree's leaves")?,
        splits: read(split, leaves - 1, SPLITS)?,
    }))
}
