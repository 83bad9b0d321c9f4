//! Predictions for rows, equal to LightGBM's: the same comparisons, and sums in the same order.

use std::num::NonZeroUsize;
use std::ops::Range;

use crate::contributions;
use crate::error::PredictError;
use crate::model::Model;
use crate::walk::{Kinds, LANES, walk};

/// What is wanted of a model for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// A prediction, or one for each class: probabilities, counts, scores, as the model was trained.
    #[default]
    Prediction,
    /// The sum of the trees, or one for each class.
    RawScore,
    /// For each tree the number of the leaf that the row ends in.
    LeafIndices,
    /// For each class: what each feature adds to the raw score (SHAP values), then the raw score that is expected without the row.
    Contributions,
}

/// How rows are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictOptions {
    /// What is wanted.
    pub output: Output,
    /// The first iteration that counts; as many trees as classes make one.
    pub start_iteration: usize,
    /// How many iterations count; all that are left, unless told.
    pub num_iteration: Option<NonZeroUsize>,
    /// Rows may have too few features, which are then 0, and too many, which are ignored.
    pub any_width: bool,
    /// So many threads share large batches. One, unless told: a pipeline runs bundles side by side.
    pub threads: usize,
}

impl Default for PredictOptions {
    fn default() -> Self {
        PredictOptions {
            output: Output::Prediction,
            start_iteration: 0,
            num_iteration: None,
            any_width: false,
            threads: 1,
        }
    }
}

/// A feature's value.
pub trait Value: purlin::Element + Copy + Sync + Into<f64> {}

impl Value for f64 {}
impl Value for f32 {}

/// Rows that are prepared together take so many bytes: tree after tree walks them, so they are many for each tree that is fetched, but
/// few enough to stay in the second cache.
const BLOCK_BYTES: usize = 256 << 10;

/// So many walks take longer than it takes to start a thread.
const WALKS_OF_A_THREAD: usize = 8_000;

impl Model {
    /// How many values a row gives.
    pub fn width(&self, options: &PredictOptions) -> usize {
        match options.output {
            Output::Prediction | Output::RawScore => self.num_scores(),
            Output::LeafIndices => self.used_trees(options).len(),
            Output::Contributions => self.num_scores() * (self.num_features() + 1),
        }
    }

    /// Predicts rows: [`Model::width`] values for each, one row after the other.
    ///
    /// # Errors
    /// A row with another number of features than the model's, unless any is taken; contributions of a model that cannot have them.
    pub fn predict<V: Value, R: AsRef<[V]> + Sync>(
        &self,
        rows: &[R],
        options: &PredictOptions,
    ) -> Result<Vec<f64>, PredictError> {
        let mut out = vec![0.0; rows.len() * self.width(options)];
        self.predict_into(rows, options, &mut out)?;
        Ok(out)
    }

    /// Predicts rows into a slice of the right length, for callers that keep it.
    ///
    /// # Errors
    /// As those of [`Model::predict`], and a slice of another length.
    pub fn predict_into<V: Value, R: AsRef<[V]> + Sync>(
        &self,
        rows: &[R],
        options: &PredictOptions,
        out: &mut [f64],
    ) -> Result<(), PredictError> {
        let width = self.width(options);
        if out.len() != rows.len() * width {
            return Err(PredictError::OutputSize {
                found: out.len(),
                expected: rows.len() * width,
            });
        }
        if options.output == Output::Contributions {
            contributions::check(self)?;
        }
        if width == 0 {
            return Ok(());
        }
        let trees = self.used_trees(options);
        let walks = rows.len().saturating_mul(trees.len());
        let threads = options.threads.min(walks / WALKS_OF_A_THREAD).max(1);
        let part = rows.len().div_ceil(threads).next_multiple_of(LANES).max(1);
        let run = |number: usize, rows: &[R], out: &mut [f64]| {
            Job {
                model: self,
                options,
                trees: trees.clone(),
                width,
            }
            .run(number * part, rows, out)
        };
        if rows.len() <= part {
            return run(0, rows, out);
        }
        std::thread::scope(|scope| {
            let parts = rows.chunks(part).zip(out.chunks_mut(part * width)).enumerate();
            let mut parts = parts.map(|(number, (rows, out))| (number, rows, out));
            // The first one is this thread's.
            let own = parts.next();
            let others: Vec<_> = parts
                .map(|(number, rows, out)| scope.spawn(move || run(number, rows, out)))
                .collect();
            let mut result = own.map_or(Ok(()), |(number, rows, out)| run(number, rows, out));
            for other in others {
                match other.join() {
                    Ok(other) => result = result.and(other),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })
    }

    /// The trees of the iterations that count.
    fn used_trees(&self, options: &PredictOptions) -> Range<usize> {
        let iterations = self.num_iterations();
        let start = options.start_iteration.min(iterations);
        let left = iterations - start;
        let count = options.num_iteration.map_or(left, |count| count.get().min(left));
        start * self.num_scores()..(start + count) * self.num_scores()
    }
}

/// The rows of one thread.
struct Job<'a> {
    model: &'a Model,
    options: &'a PredictOptions,
    trees: Range<usize>,
    width: usize,
}

impl Job<'_> {
    fn run<V: Value, R: AsRef<[V]>>(
        &self,
        first: usize,
        rows: &[R],
        out: &mut [f64],
    ) -> Result<(), PredictError> {
        let forest = &self.model.forest;
        let len = forest.row_len();
        let many = (BLOCK_BYTES / (len * size_of::<f64>())).clamp(4 * LANES, 4096);
        let mut prepared = vec![0.0; len * rows.len().min(many)];
        for (number, block) in rows.chunks(many).enumerate() {
            let prepared = &mut prepared[..len * block.len()];
            for ((number, row), prepared) in (number * many..).zip(block).zip(prepared.chunks_exact_mut(len))
            {
                self.prepare(first + number, row.as_ref(), prepared)?;
            }
            let from = number * many * self.width;
            self.block(prepared, &mut out[from..from + block.len() * self.width]);
        }
        Ok(())
    }

    /// Copies a row to where the trees read it.
    fn prepare<V: Value>(&self, number: usize, row: &[V], prepared: &mut [f64]) -> Result<(), PredictError> {
        let features = self.model.num_features();
        if row.len() != features && !self.options.any_width {
            return Err(PredictError::Features {
                row: number,
                found: row.len(),
                expected: features,
            });
        }
        let (values, _) = prepared.split_at_mut(features);
        let there = row.len().min(features);
        for (prepared, value) in values.iter_mut().zip(row) {
            *prepared = (*value).into();
        }
        values[there..].fill(0.0);
        self.model.forest.mark_zeros(prepared);
        Ok(())
    }

    /// Predicts prepared rows.
    fn block(&self, prepared: &[f64], out: &mut [f64]) {
        let len = self.model.forest.row_len();
        match self.options.output {
            Output::Prediction | Output::RawScore => {
                let scores = self.width;
                out.fill(0.0);
                self.walk_all(prepared, |row, tree, value, _| {
                    out[row * scores + tree % scores] += value;
                });
                if self.options.output == Output::Prediction {
                    self.finish(out);
                }
            }
            Output::LeafIndices => {
                let (width, first) = (self.width, self.trees.start);
                self.walk_all(prepared, |row, tree, _, leaf| {
                    out[row * width + tree - first] = f64::from(leaf);
                });
            }
            Output::Contributions => {
                out.fill(0.0);
                for (row, out) in prepared.chunks_exact(len).zip(out.chunks_exact_mut(self.width)) {
                    contributions::of_row(self.model, self.trees.clone(), row, out);
                }
            }
        }
    }

    fn finish(&self, out: &mut [f64]) {
        let scores = self.width;
        if self.model.average {
            let iterations = (self.trees.len() / scores) as f64;
            for score in out.iter_mut() {
                *score /= iterations;
            }
        }
        for row in out.chunks_exact_mut(scores) {
            self.model.objective.apply(row);
        }
    }

    /// Walks all rows through all trees. For one row, `take` gets the trees in their order, so that sums are LightGBM's to the last
    /// bit.
    fn walk_all(&self, data: &[f64], mut take: impl FnMut(usize, usize, f64, u32)) {
        let forest = &self.model.forest;
        let len = forest.row_len();
        let rows = data.len() / len;
        let row = |number: usize| &data[number * len..(number + 1) * len];
        let nans = data.iter().fold(false, |nans, value| nans | value.is_nan());
        let whole = rows - rows % LANES;
        // Side by side, rows of one tree.
        for tree in self.trees.clone() {
            let shape = forest.trees[tree];
            let kinds = Kinds {
                categories: shape.categories,
                nans,
            };
            for first in (0..whole).step_by(LANES) {
                let bases = std::array::from_fn(|lane| (first + lane) * len);
                let mut at = [shape.root; LANES];
                walk(forest, data, bases, &mut at, kinds);
                for (number, at) in (first..).zip(at) {
                    take(number, tree, forest.value(tree, at, row(number)), forest.leaf(at));
                }
            }
        }
        // Of the few rows that are left, trees of one row.
        for number in whole..rows {
            let mut tree = self.trees.start;
            while tree < self.trees.end {
                let count = LANES.min(self.trees.end - tree);
                // Lanes to spare walk the last tree again.
                let shapes: [_; LANES] = std::array::from_fn(|lane| forest.trees[tree + lane.min(count - 1)]);
                let mut at = shapes.map(|shape| shape.root);
                let kinds = Kinds {
                    categories: shapes.iter().any(|shape| shape.categories),
                    nans,
                };
                walk(forest, data, [number * len; LANES], &mut at, kinds);
                for (tree, at) in (tree..).zip(at).take(count) {
                    take(number, tree, forest.value(tree, at, row(number)), forest.leaf(at));
                }
                tree += count;
            }
        }
    }
}
