//! What each feature adds to a row's score: SHAP values of trees, by the polynomial algorithm of Lundberg, Erion and Lee
//! (arXiv:1802.03888), with LightGBM's order of operations.

use std::ops::Range;

use crate::error::PredictError;
use crate::forest::{Forest, Shares};
use crate::model::Model;

/// Paths are kept for each depth, so memory grows by its square, and the recursion by itself.
const DEEPEST: u32 = 1000;

/// Whether the model can tell contributions.
pub fn check(model: &Model) -> Result<(), PredictError> {
    let forest = &model.forest;
    if let Some(tree) = forest.first_linear() {
        return Err(PredictError::LinearContributions { tree });
    }
    if let Err(tree) = forest.shares {
        return Err(PredictError::NoCounts { tree });
    }
    match forest.trees.iter().position(|tree| tree.depth > DEEPEST) {
        None => Ok(()),
        Some(tree) => Err(PredictError::TooDeep {
            tree,
            depth: forest.trees[tree].depth as usize,
            limit: DEEPEST as usize,
        }),
    }
}

/// Adds the contributions of trees to those of a row: for each class, one value for each feature and the expected score.
pub fn of_row(model: &Model, trees: Range<usize>, row: &[f64], out: &mut [f64]) {
    let forest = &model.forest;
    let Ok(shares) = &forest.shares else { return };
    let (scores, class_len) = (model.num_scores(), model.num_features() + 1);
    let deepest = trees.clone().map(|tree| forest.trees[tree].depth as usize).max();
    let deepest = deepest.unwrap_or(0);
    let mut paths = vec![Step::default(); (deepest + 1) * (deepest + 2) / 2];
    for tree in trees {
        let class = tree % scores;
        let out = &mut out[class * class_len..(class + 1) * class_len];
        out[class_len - 1] += shares.expected[tree];
        if forest.children(forest.trees[tree].root).is_some() {
            let step = Step {
                feature: usize::MAX,
                without: 1.0,
                with: 1.0,
                weight: 0.0,
            };
            let mut walk = Walk {
                forest,
                shares,
                row,
                out,
            };
            walk.visit(forest.trees[tree].root, &mut paths, 0, step);
        }
    }
}

/// A feature on the way to a node.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    feature: usize,
    /// The share of training rows that go this way when the feature is not known.
    without: f64,
    /// Whether this row goes this way, 0 or 1.
    with: f64,
    /// The weight of the subsets of as many features as steps before this one.
    weight: f64,
}

struct Walk<'a> {
    forest: &'a Forest,
    shares: &'a Shares,
    row: &'a [f64],
    out: &'a mut [f64],
}

impl Walk<'_> {
    /// Visits a node: `paths` begins with the parent's `known` steps, behind which its own path is made.
    fn visit(&mut self, at: u32, paths: &mut [Step], known: usize, step: Step) {
        let (parent, paths) = paths.split_at_mut(known);
        paths[..known].copy_from_slice(parent);
        extend(&mut paths[..=known], step);
        let Some((left, right)) = self.forest.children(at) else {
            return self.leaf(at, &paths[..=known]);
        };
        let taken = self.forest.step::<true, true>(at, self.row, 0);
        let other = if taken == left { right } else { left };
        let feature = self.forest.feature(at);
        let count = |at: u32| self.shares.counts[at as usize];
        let (here, taken_share, other_share) = (count(at), count(taken), count(other));
        // A feature that was split on before is taken out of the path, and comes in again with both splits' shares.
        let mut last = known;
        let (mut without, mut with) = (1.0, 1.0);
        if let Some(before) = paths[..=known].iter().position(|step| step.feature == feature) {
            Step { without, with, .. } = paths[before];
            unwind(&mut paths[..=known], before);
            last -= 1;
        }
        for (child, share, with) in [(taken, taken_share, with), (other, other_share, 0.0)] {
            let step = Step {
                feature,
                without: share / here * without,
                with,
                weight: 0.0,
            };
            self.visit(child, paths, last + 1, step);
        }
    }

    fn leaf(&mut self, at: u32, path: &[Step]) {
        for number in 1..path.len() {
            let Step {
                feature,
                without,
                with,
                ..
            } = path[number];
            self.out[feature] += unwound_sum(path, number) * (with - without) * self.forest.constant(at);
        }
    }
}

/// Puts a step to the end of a path, whose last place is free.
fn extend(path: &mut [Step], step: Step) {
    let last = path.len() - 1;
    path[last] = Step {
        weight: if last == 0 { 1.0 } else { 0.0 },
        ..step
    };
    let all = (last + 1) as f64;
    for number in (0..last).rev() {
        let weight = path[number].weight;
        path[number + 1].weight += step.with * weight * (number + 1) as f64 / all;
        path[number].weight = step.without * weight * (last - number) as f64 / all;
    }
}

/// Takes a step out of a path, whose last place becomes free.
fn unwind(path: &mut [Step], number: usize) {
    let last = path.len() - 1;
    let all = (last + 1) as f64;
    let Step { without, with, .. } = path[number];
    let mut next = path[last].weight;
    for number in (0..last).rev() {
        let weight = path[number].weight;
        if with != 0.0 {
            path[number].weight = next * all / ((number + 1) as f64 * with);
            next = weight - path[number].weight * without * (last - number) as f64 / all;
        } else {
            path[number].weight = weight * all / (without * (last - number) as f64);
        }
    }
    for number in number..last {
        path[number] = Step {
            weight: path[number].weight,
            ..path[number + 1]
        };
    }
}

/// The sum of the weights of a path without one of its steps.
fn unwound_sum(path: &[Step], number: usize) -> f64 {
    let last = path.len() - 1;
    let all = (last + 1) as f64;
    let Step { without, with, .. } = path[number];
    let mut next = path[last].weight;
    let mut sum = 0.0;
    for number in (0..last).rev() {
        let share = (last - number) as f64 / all;
        if with != 0.0 {
            let weight = next * all / ((number + 1) as f64 * with);
            sum += weight;
            next = path[number].weight - weight * without * share;
        } else {
            sum += path[number].weight / without / share;
        }
    }
    sum
}
