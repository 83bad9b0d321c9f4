//! Predictions for rows, equal to LightGBM's: the same comparisons, and sums in the same order.

use std::num::NonZeroUsize;
use std::ops::Range;

use crate::contributions;
use crate::error::PredictError;
use crate::model::Model;
use crate::parts::{in_parts, rows_of_a_block};
use crate::walk::walk_all;

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
        let job = Job {
            model: self,
            options,
            trees,
            width,
        };
        in_parts(rows, out, width, options.threads, walks, &|first, rows, out| {
            job.run(first, rows, out)
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
        let many = rows_of_a_block(len);
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
        let forest = &self.model.forest;
        let len = forest.row_len();
        match self.options.output {
            Output::Prediction | Output::RawScore => {
                let scores = self.width;
                out.fill(0.0);
                let row_of = |row: usize| &prepared[row * len..(row + 1) * len];
                walk_all(forest, self.trees.clone(), prepared, |row, tree, at| {
                    out[row * scores + tree % scores] += forest.value(tree, at, row_of(row));
                });
                if self.options.output == Output::Prediction {
                    self.finish(out);
                }
            }
            Output::LeafIndices => {
                let (width, first) = (self.width, self.trees.start);
                walk_all(forest, self.trees.clone(), prepared, |row, tree, at| {
                    out[row * width + tree - first] = f64::from(forest.leaf(at));
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
}
