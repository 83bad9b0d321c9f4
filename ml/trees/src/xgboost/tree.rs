//! One tree, checked so far that no walk through it can go astray.

use std::collections::HashMap;

use purlin_json::{Fault, Reader};

use super::error::{ParseError, Part};
use crate::parse::{Child, ParsedTree, Rule, Split};

/// The lists of a tree, a value for each node, as the file has them.
#[derive(Debug, Default)]
struct Lists {
    left: Vec<i64>,
    right: Vec<i64>,
    features: Vec<i64>,
    /// Of a leaf, its value.
    conditions: Vec<f32>,
    default_left: Vec<i64>,
    split_type: Vec<i64>,
    categories: Vec<i64>,
    categories_nodes: Vec<i64>,
    categories_segments: Vec<i64>,
    categories_sizes: Vec<i64>,
    leaf_values: String,
}

/// A tree, and the largest feature of its splits.
#[derive(Debug)]
pub struct Read {
    pub tree: ParsedTree,
    pub largest_feature: Option<usize>,
}

/// XGBoost's categories are less than this: an `f32` counts so far.
const CATEGORIES: i64 = 1 << 24;

/// Reads the tree of this number.
pub fn read(number: usize, reader: &mut Reader<'_>) -> Result<Read, ParseError> {
    let part = Part::Tree(number);
    let lists = lists(reader).map_err(|fault| ParseError::Broken { part, fault })?;
    let values: usize = lists.leaf_values.parse().unwrap_or(0);
    if values > 1 {
        return Err(ParseError::VectorLeaves { tree: number, values });
    }
    Shape::of(number, &lists)?.tree()
}

fn lists(reader: &mut Reader<'_>) -> Result<Lists, Fault> {
    let mut lists = Lists::default();
    reader.object(&mut |key, reader| {
        match key {
            "left_children" => lists.left = reader.numbers()?,
            "right_children" => lists.right = reader.numbers()?,
            "split_indices" => lists.features = reader.numbers()?,
            "split_conditions" => lists.conditions = reader.numbers()?,
            "default_left" => lists.default_left = reader.numbers()?,
            "split_type" => lists.split_type = reader.numbers()?,
            "categories" => lists.categories = reader.numbers()?,
            "categories_nodes" => lists.categories_nodes = reader.numbers()?,
            "categories_segments" => lists.categories_segments = reader.numbers()?,
            "categories_sizes" => lists.categories_sizes = reader.numbers()?,
            "tree_param" => reader.object::<Fault>(&mut |key, reader| {
                match key {
                    "size_leaf_vector" => lists.leaf_values = reader.text()?.into_owned(),
                    _ => reader.skip()?,
                }
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok::<(), Fault>(())
    })?;
    Ok(lists)
}

/// What a tree's lists say, looked at node by node.
struct Shape<'a> {
    number: usize,
    lists: &'a Lists,
    /// By node: its categories.
    categories: HashMap<usize, &'a [i64]>,
}

impl<'a> Shape<'a> {
    fn of(number: usize, lists: &'a Lists) -> Result<Shape<'a>, ParseError> {
        let mut shape = Shape {
            number,
            lists,
            categories: HashMap::new(),
        };
        const NODES: &str = "as `left_children` has";
        let nodes = lists.left.len();
        if nodes == 0 {
            return Err(ParseError::Missing {
                part: Part::Tree(number),
                key: "left_children",
            });
        }
        shape.count("right_children", lists.right.len(), nodes, NODES)?;
        shape.count("split_indices", lists.features.len(), nodes, NODES)?;
        shape.count("split_conditions", lists.conditions.len(), nodes, NODES)?;
        shape.count("default_left", lists.default_left.len(), nodes, NODES)?;
        // Models without categories may be without.
        if !lists.split_type.is_empty() {
            shape.count("split_type", lists.split_type.len(), nodes, NODES)?;
        }
        const SETS: &str = "as `categories_nodes` has";
        let sets = lists.categories_nodes.len();
        shape.count("categories_segments", lists.categories_segments.len(), sets, SETS)?;
        shape.count("categories_sizes", lists.categories_sizes.len(), sets, SETS)?;
        for set in 0..sets {
            let key = "categories_nodes";
            let node = shape.within(key, lists.categories_nodes[set], 0, nodes as i64 - 1)?;
            let all = lists.categories.len() as i64;
            let first = shape.within("categories_segments", lists.categories_segments[set], 0, all)?;
            let left = all - first as i64;
            let size = shape.within("categories_sizes", lists.categories_sizes[set], 0, left)?;
            let categories = &lists.categories[first..first + size];
            shape.categories.insert(node, categories);
        }
        Ok(shape)
    }

    fn count(
        &self,
        key: &'static str,
        found: usize,
        expected: usize,
        why: &'static str,
    ) -> Result<(), ParseError> {
        if found == expected {
            return Ok(());
        }
        Err(ParseError::Count {
            part: Part::Tree(self.number),
            key,
            found,
            expected,
            why,
        })
    }

    fn error(&self, key: &'static str, found: impl ToString, expected: impl Into<String>) -> ParseError {
        ParseError::Value {
            part: Part::Tree(self.number),
            key,
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    fn within(&self, key: &'static str, value: i64, from: i64, to: i64) -> Result<usize, ParseError> {
        match (from..=to).contains(&value) {
            true => Ok(value as usize),
            false => Err(self.error(key, value, format!("a whole number from {from} to {to}"))),
        }
    }

    /// The nodes that are reached from the first one: the file may have others, which were pruned.
    fn tree(&self) -> Result<Read, ParseError> {
        let lists = self.lists;
        let mut seen = vec![false; lists.left.len()];
        let mut tree = ParsedTree {
            splits: Vec::new(),
            leaves: Vec::new(),
            leaf_numbers: None,
            sets: Vec::new(),
            linear: None,
            counts: None,
        };
        let (mut numbers, mut largest_feature) = (Vec::new(), None);
        // A node, and the split that it is a child of, on its left or on its right.
        let mut next: Vec<(usize, Option<(usize, bool)>)> = vec![(0, None)];
        while let Some((node, parent)) = next.pop() {
            if std::mem::replace(&mut seen[node], true) {
                return Err(ParseError::Twice {
                    tree: self.number,
                    node,
                });
            }
            let child = if lists.left[node] == NONE {
                if lists.right[node] != NONE {
                    return Err(self.error("right_children", lists.right[node], "-1, as on the left"));
                }
                tree.leaves.push(f64::from(lists.conditions[node]));
                numbers.push(node as u32);
                Child::Leaf(tree.leaves.len() - 1)
            } else {
                let split = self.split(node, &mut tree.sets)?;
                largest_feature = largest_feature.max(Some(split.feature));
                tree.splits.push(split);
                let here = tree.splits.len() - 1;
                let to = lists.left.len() as i64 - 1;
                let left = self.within("left_children", lists.left[node], 0, to)?;
                let right = self.within("right_children", lists.right[node], 0, to)?;
                // By categories, those of the set go right in the file, and left here.
                let swapped = matches!(split.rule, Rule::Categories { .. });
                next.push((right, Some((here, swapped))));
                next.push((left, Some((here, !swapped))));
                Child::Split(here)
            };
            match parent {
                None => {}
                Some((split, true)) => tree.splits[split].left = child,
                Some((split, false)) => tree.splits[split].right = child,
            }
        }
        tree.leaf_numbers = Some(numbers);
        Ok(Read {
            tree,
            largest_feature,
        })
    }

    /// The split of a node, without its children.
    fn split(&self, node: usize, sets: &mut Vec<Vec<u32>>) -> Result<Split, ParseError> {
        let lists = self.lists;
        let feature = self.within("split_indices", lists.features[node], 0, i64::from(i32::MAX))?;
        let missing_left = self.within("default_left", lists.default_left[node], 0, 1)? == 1;
        let kind = lists.split_type.get(node).copied().unwrap_or(0);
        let rule = if self.within("split_type", kind, 0, 1)? == 1 {
            let categories = self.categories.get(&node).copied();
            let categories = categories.ok_or_else(|| {
                self.error(
                    "split_type",
                    1,
                    format!("0, as `categories_nodes` has no node {node}"),
                )
            })?;
            let mut words = Vec::new();
            for category in categories {
                let category = self.within("categories", *category, 0, CATEGORIES - 1)?;
                let word = category / 32;
                if words.len() <= word {
                    words.resize(word + 1, 0);
                }
                words[word] |= 1_u32 << (category % 32);
            }
            sets.push(words);
            Rule::Categories {
                set: sets.len() - 1,
                // On the right here is on the left in the file.
                missing_left: !missing_left,
            }
        } else {
            let threshold = lists.conditions[node];
            if !threshold.is_finite() {
                return Err(self.error("split_conditions", threshold, "a finite number"));
            }
            Rule::Below {
                threshold: f64::from(threshold),
                missing_left,
            }
        };
        Ok(Split {
            feature,
            rule,
            left: Child::Leaf(0),
            right: Child::Leaf(0),
        })
    }
}

/// No child.
const NONE: i64 = -1;
