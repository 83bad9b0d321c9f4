//! Ensembles of trees.

use std::collections::HashMap;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::scores::{Transform, largest, logistic};
use super::{Fact, Kernel, Labels, Matrix, rows_and_columns, tensor};

#[derive(Debug, Clone, Copy)]
enum Branch {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Unequal,
}

#[derive(Debug)]
enum Node {
    Split {
        branch: Branch,
        feature: u32,
        threshold: f32,
        /// Whether a missing value goes the way of those that fit.
        missing_fits: bool,
        fits: u32,
        other: u32,
    },
    /// Where its weights begin and end.
    Leaf { first: u32, end: u32 },
}

/// Trees, each node once; leaves have weights for scores.
#[derive(Debug)]
struct Forest {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// The place of a score, and what a leaf adds.
    weights: Vec<(u32, f32)>,
    columns: usize,
}

/// A list of an attribute, of a certain length.
fn list<'a, T: tract_onnx::pb_helpers::AttrTVecType<'a>>(
    node: &'a NodeProto,
    name: &str,
    length: usize,
) -> TractResult<Vec<T>> {
    let found: Vec<T> = node.get_attr_vec(name)?;
    if found.len() != length {
        bail!(
            "its attribute {name} has {} values: expected {length}",
            found.len()
        );
    }
    Ok(found)
}

fn number(value: usize) -> TractResult<u32> {
    Ok(u32::try_from(value)?)
}

impl Forest {
    /// `leaves` is how the attributes of leaves begin.
    fn read(node: &NodeProto, leaves: &str, scores: usize) -> TractResult<Forest> {
        if let Some(other) = node
            .attribute
            .iter()
            .find(|attribute| attribute.name.ends_with("_as_tensor"))
        {
            bail!(
                "its attribute {} has numbers of double precision, which are not known here",
                other.name
            );
        }
        let modes: Vec<&str> = node.get_attr_vec("nodes_modes")?;
        let count = modes.len();
        let trees: Vec<i64> = list(node, "nodes_treeids", count)?;
        let ids: Vec<i64> = list(node, "nodes_nodeids", count)?;
        let places = places(&trees, &ids)?;
        let mut forest = Forest {
            weights: Vec::new(),
            nodes: Vec::with_capacity(count),
            roots: Vec::new(),
            columns: 0,
        };
        let mut leaf_weights = forest.read_weights(node, leaves, scores, &places)?;
        let features: Vec<usize> = list(node, "nodes_featureids", count)?;
        let thresholds: Vec<f32> = list(node, "nodes_values", count)?;
        let (fits, others): (Vec<i64>, Vec<i64>) = (
            list(node, "nodes_truenodeids", count)?,
            list(node, "nodes_falsenodeids", count)?,
        );
        let missing: Vec<i64> = node
            .get_attr_opt_vec("nodes_missing_value_tracks_true")?
            .unwrap_or_default();
        let mut has_parent: Vec<Option<u32>> = vec![None; count];
        for place in 0..count {
            let branch = match modes[place] {
                "LEAF" => {
                    let (first, end) = leaf_weights.remove(&place).unwrap_or((0, 0));
                    forest.nodes.push(Node::Leaf { first, end });
                    continue;
                }
                "BRANCH_LEQ" => Branch::AtMost,
                "BRANCH_LT" => Branch::Below,
                "BRANCH_GTE" => Branch::AtLeast,
                "BRANCH_GT" => Branch::Above,
                "BRANCH_EQ" => Branch::Equal,
                "BRANCH_NEQ" => Branch::Unequal,
                other => bail!(
                    "the mode {other} of node {} of tree {} is not known here",
                    ids[place],
                    trees[place]
                ),
            };
            let mut child = |id: i64| {
                let Some(child) = places.get(&(trees[place], id)).copied() else {
                    bail!(
                        "tree {} has no node {id}, to which node {} leads",
                        trees[place],
                        ids[place]
                    )
                };
                // So no way comes back to where it was.
                match has_parent[child as usize].replace(number(place)?) {
                    Some(parent) if parent as usize != place => {
                        bail!("two nodes of tree {} lead to its node {id}", trees[place])
                    }
                    _ => Ok(child),
                }
            };
            let (fits, other) = (child(fits[place])?, child(others[place])?);
            forest.columns = forest.columns.max(features[place].saturating_add(1));
            forest.nodes.push(Node::Split {
                branch,
                feature: number(features[place])?,
                threshold: thresholds[place],
                missing_fits: missing.get(place).is_some_and(|fits| *fits != 0),
                fits,
                other,
            });
        }
        for (place, parent) in has_parent.iter().enumerate() {
            if parent.is_none() {
                forest.roots.push(number(place)?);
            }
        }
        if forest.roots.is_empty() {
            bail!("its trees have no root");
        }
        Ok(forest)
    }

    /// The weights of leaves, by their places among the nodes.
    fn read_weights(
        &mut self,
        node: &NodeProto,
        leaves: &str,
        scores: usize,
        places: &HashMap<(i64, i64), u32>,
    ) -> TractResult<HashMap<usize, (u32, u32)>> {
        let name = |part: &str| format!("{leaves}_{part}");
        let targets: Vec<usize> = node.get_attr_vec(&name("ids"))?;
        let count = targets.len();
        let trees: Vec<i64> = list(node, &name("treeids"), count)?;
        let ids: Vec<i64> = list(node, &name("nodeids"), count)?;
        let weights: Vec<f32> = list(node, &name("weights"), count)?;
        let mut of_leaves: HashMap<usize, Vec<(u32, f32)>> = HashMap::new();
        for place in 0..count {
            let Some(leaf) = places.get(&(trees[place], ids[place])) else {
                bail!(
                    "a weight is of node {} of tree {}, which is not there",
                    ids[place],
                    trees[place]
                )
            };
            if targets[place] >= scores {
                bail!("a weight is for score {}: there are {scores}", targets[place]);
            }
            let weight = (number(targets[place])?, weights[place]);
            of_leaves.entry(*leaf as usize).or_default().push(weight);
        }
        let mut ranges = HashMap::with_capacity(of_leaves.len());
        for (leaf, weights) in of_leaves {
            let first = number(self.weights.len())?;
            self.weights.extend(weights);
            ranges.insert(leaf, (first, number(self.weights.len())?));
        }
        Ok(ranges)
    }

    fn check(&self, columns: &TDim) -> TractResult<()> {
        match columns.to_usize() {
            Ok(columns) if columns < self.columns => {
                bail!(
                    "its trees ask for {} columns, its input has {columns}",
                    self.columns
                )
            }
            _ => Ok(()),
        }
    }

    /// The weights of the leaf that a row comes to.
    fn leaf(&self, root: u32, row: &[f32]) -> &[(u32, f32)] {
        let mut place = root;
        loop {
            match &self.nodes[place as usize] {
                Node::Leaf { first, end } => return &self.weights[*first as usize..*end as usize],
                Node::Split {
                    branch,
                    feature,
                    threshold,
                    missing_fits,
                    fits,
                    other,
                } => {
                    let value = row[*feature as usize];
                    let is_fit = match branch {
                        Branch::AtMost => value <= *threshold,
                        Branch::Below => value < *threshold,
                        Branch::AtLeast => value >= *threshold,
                        Branch::Above => value > *threshold,
                        Branch::Equal => value == *threshold,
                        Branch::Unequal => value != *threshold,
                    };
                    place = if is_fit || (*missing_fits && value.is_nan()) {
                        *fits
                    } else {
                        *other
                    };
                }
            }
        }
    }
}

/// The node of each tree and id.
fn places(trees: &[i64], ids: &[i64]) -> TractResult<HashMap<(i64, i64), u32>> {
    let mut places = HashMap::with_capacity(trees.len());
    for (place, key) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
        if places.insert(key, number(place)?).is_some() {
            bail!("tree {} has two nodes {}", key.0, key.1);
        }
    }
    Ok(places)
}

#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Average,
    Least,
    Most,
}

/// `TreeEnsembleRegressor`.
#[derive(Debug)]
pub struct Regressor {
    forest: Forest,
    targets: usize,
    base: Vec<f32>,
    aggregate: Aggregate,
}

impl Regressor {
    pub fn read(node: &NodeProto) -> TractResult<Regressor> {
        if Transform::read(node)? != Transform::None {
            bail!("its post_transform is not NONE, which is not known here");
        }
        let targets: usize = node.get_attr_opt("n_targets")?.unwrap_or(1);
        let base: Vec<f32> = node.get_attr_opt_vec("base_values")?.unwrap_or_default();
        if !base.is_empty() && base.len() != targets {
            bail!("it has {} base values for {targets} targets", base.len());
        }
        let aggregate = match node.get_attr_opt::<&str>("aggregate_function")? {
            None | Some("SUM") => Aggregate::Sum,
            Some("AVERAGE") => Aggregate::Average,
            Some("MIN") => Aggregate::Least,
            Some("MAX") => Aggregate::Most,
            Some(other) => bail!("its aggregate_function is {other}, which is not known here"),
        };
        Ok(Regressor {
            forest: Forest::read(node, "target", targets)?,
            targets,
            base,
            aggregate,
        })
    }

    fn add(&self, row: &[f32], sums: &mut [f32], seen: &mut [bool]) {
        for root in &self.forest.roots {
            for (target, weight) in self.forest.leaf(*root, row) {
                let target = *target as usize;
                let sum = sums[target];
                sums[target] = match self.aggregate {
                    Aggregate::Sum | Aggregate::Average => sum + weight,
                    Aggregate::Least if seen[target] => sum.min(*weight),
                    Aggregate::Most if seen[target] => sum.max(*weight),
                    Aggregate::Least | Aggregate::Most => *weight,
                };
                seen[target] = true;
            }
        }
        for (target, sum) in sums.iter_mut().enumerate() {
            if matches!(self.aggregate, Aggregate::Average) {
                *sum /= self.forest.roots.len() as f32;
            }
            *sum += self.base.get(target).copied().unwrap_or(0.0);
        }
    }
}

impl Kernel for Regressor {
    fn name(&self) -> &'static str {
        "TreeEnsembleRegressor"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, columns) = rows_and_columns(inputs)?;
        self.forest.check(&columns)?;
        Ok(tvec!((f32::datum_type(), tvec!(rows, self.targets.to_dim()))))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let matrix = Matrix::of(inputs)?;
        self.forest.check(&matrix.columns.to_dim())?;
        let mut sums = vec![0f32; matrix.rows * self.targets];
        let mut seen = vec![false; self.targets];
        for (row, sums) in matrix.rows()?.zip(sums.chunks_exact_mut(self.targets.max(1))) {
            seen.fill(false);
            self.add(row, sums, &mut seen);
        }
        Ok(tvec!(tensor(&[matrix.rows, self.targets], sums)?))
    }
}

/// `TreeEnsembleClassifier`.
#[derive(Debug)]
pub struct Classifier {
    forest: Forest,
    labels: Labels,
    base: Vec<f32>,
    transform: Transform,
    /// Of two classes, whether leaves have weights for one alone.
    is_one_score: bool,
    /// Whether their sum is the probability of the second class: none is below 0, and nothing is made of it.
    is_share: bool,
}

impl Classifier {
    pub fn read(node: &NodeProto) -> TractResult<Classifier> {
        let labels = Labels::read(node, "classlabels_int64s")?;
        let base: Vec<f32> = node.get_attr_opt_vec("base_values")?.unwrap_or_default();
        let forest = Forest::read(node, "class", labels.len())?;
        let first = forest.weights.first().map(|(class, _)| *class);
        let is_one_score = labels.len() == 2 && forest.weights.iter().all(|(class, _)| Some(*class) == first);
        let fits = match is_one_score {
            true => base.len() < 2,
            false => base.is_empty() || base.len() == labels.len(),
        };
        if !fits {
            bail!("it has {} base values for {} classes", base.len(), labels.len());
        }
        if labels.len() < 2 {
            bail!("it has one class");
        }
        let transform = Transform::read(node)?;
        let is_positive = forest.weights.iter().all(|(_, weight)| *weight >= 0.0);
        Ok(Classifier {
            is_share: is_positive && transform != Transform::Logistic,
            forest,
            labels,
            base,
            transform,
            is_one_score,
        })
    }

    /// The class of a row, whose scores are written.
    fn classify(&self, row: &[f32], scores: &mut [f32]) -> usize {
        let leaves = self.forest.roots.iter().map(|root| self.forest.leaf(*root, row));
        if self.is_one_score {
            let sum: f32 = leaves.flatten().map(|(_, weight)| *weight).sum();
            let score = sum + self.base.first().copied().unwrap_or(0.0);
            let is_second = score > if self.is_share { 0.5 } else { 0.0 };
            let both = match (self.is_share, self.transform) {
                (true, _) => [1.0 - score, score],
                (false, Transform::Logistic) => [logistic(-score), logistic(score)],
                (false, _) => [-score, score],
            };
            scores.copy_from_slice(&both);
            return usize::from(is_second);
        }
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score = *base;
        }
        for (class, weight) in leaves.flatten() {
            scores[*class as usize] += weight;
        }
        let class = largest(scores).unwrap_or(0);
        self.transform.apply(scores);
        class
    }
}

impl Kernel for Classifier {
    fn name(&self) -> &'static str {
        "TreeEnsembleClassifier"
    }

    fn outputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, columns) = rows_and_columns(inputs)?;
        self.forest.check(&columns)?;
        Ok(tvec!(
            (self.labels.datatype(), tvec!(rows.clone())),
            (f32::datum_type(), tvec!(rows, self.labels.len().to_dim()))
        ))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let matrix = Matrix::of(inputs)?;
        self.forest.check(&matrix.columns.to_dim())?;
        let width = self.labels.len();
        let mut scores = vec![0f32; matrix.rows * width];
        let rows = matrix.rows()?.zip(scores.chunks_exact_mut(width));
        let classes: Vec<usize> = rows.map(|(row, scores)| self.classify(row, scores)).collect();
        Ok(tvec!(
            self.labels.of(&classes)?,
            tensor(&[matrix.rows, width], scores)?
        ))
    }
}
