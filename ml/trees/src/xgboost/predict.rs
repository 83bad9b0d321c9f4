//! Predictions for rows, equal to XGBoost's: the same comparisons, and sums in the same order and precision.

use std::ops::Range;

use super::error::PredictError;
use super::model::{Booster, Model};
use crate::parts::{in_parts, rows_of_a_block};
use crate::walk::walk_all;

/// What is wanted of a model for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// What the objective makes of the margins: a value, or one for each class or target.
    #[default]
    Prediction,
    /// The sum of the trees, or one for each class or target.
    Margin,
    /// For each tree the number of the node that the row ends in.
    LeafIndices,
}

/// Which rounds of training count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Iterations {
    /// All, as of XGBoost's `Booster.predict`.
    #[default]
    All,
    /// Those up to the best one, if training stopped early, else all: as of XGBoost's interface for scikit-learn.
    Best,
    /// These, from 0: XGBoost's `iteration_range`.
    Of(Range<usize>),
}

/// How rows are predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictOptions {
    /// What is wanted.
    pub output: Output,
    /// Which rounds of training count.
    pub iterations: Iterations,
    /// This value is missing, as NaN is: XGBoost's `missing`.
    pub missing: f32,
    /// So many threads share large batches. One, unless told: a pipeline runs bundles side by side.
    pub threads: usize,
}

impl Default for PredictOptions {
    fn default() -> Self {
        PredictOptions {
            output: Output::Prediction,
            iterations: Iterations::All,
            missing: f32::NAN,
            threads: 1,
        }
    }
}

/// A feature's value.
pub trait Value: purlin::Element + Copy + Sync {
    /// In the precision in which XGBoost has features: rounded to the nearest.
    fn to_f32(self) -> f32;
}

impl Value for f32 {
    fn to_f32(self) -> f32 {
        self
    }
}

impl Value for f64 {
    fn to_f32(self) -> f32 {
        self as f32
    }
}

impl Model {
    /// How many values a row gives.
    ///
    /// # Errors
    /// When iterations are asked for that the model does not have, or trees of a linear model.
    pub fn width(&self, options: &PredictOptions) -> Result<usize, PredictError> {
        let trees = self.used_trees(options)?;
        Ok(match options.output {
            Output::Prediction => self.objective.width(self.num_margins()),
            Output::Margin => self.num_margins(),
            Output::LeafIndices => trees.len(),
        })
    }

    /// Predicts rows: [`Model::width`] values for each, one row after the other.
    ///
    /// # Errors
    /// As those of [`Model::width`], and a row with another number of features than the model's.
    pub fn predict<V: Value, R: AsRef<[V]> + Sync>(
        &self,
        rows: &[R],
        options: &PredictOptions,
    ) -> Result<Vec<f32>, PredictError> {
        let width = self.width(options)?;
        let trees = self.used_trees(options)?;
        let walks = rows.len().saturating_mul(trees.len());
        let mut out = vec![0.0; rows.len() * width];
        if width == 0 {
            return Ok(out);
        }
        let job = Job {
            model: self,
            options,
            trees,
            width,
        };
        in_parts(
            rows,
            &mut out,
            width,
            options.threads,
            walks,
            &|first, rows, out| job.run(first, rows, out),
        )?;
        Ok(out)
    }

    /// The trees of the iterations that count.
    fn used_trees(&self, options: &PredictOptions) -> Result<Range<usize>, PredictError> {
        let Booster::Trees(trees) = &self.booster else {
            let what = match (options.output, &options.iterations) {
                (Output::LeafIndices, _) => "indices of leaves",
                (_, Iterations::Of(_)) => "some of the iterations",
                _ => return Ok(0..0),
            };
            return Err(PredictError::Linear { what });
        };
        let all = self.num_iterations();
        let range = match &options.iterations {
            Iterations::All => 0..all,
            Iterations::Best => 0..self.best_iteration().map_or(all, |best| all.min(best + 1)),
            Iterations::Of(range) if range.start < range.end && range.end <= all => range.clone(),
            Iterations::Of(range) => {
                return Err(PredictError::Iterations {
                    from: range.start,
                    to: range.end,
                    iterations: all,
                });
            }
        };
        Ok(trees.iterations[range.start]..trees.iterations[range.end])
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
        out: &mut [f32],
    ) -> Result<(), PredictError> {
        let len = self.model.num_features();
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
        if row.len() != prepared.len() {
            return Err(PredictError::Features {
                row: number,
                found: row.len(),
                expected: prepared.len(),
            });
        }
        let missing = self.options.missing;
        for (prepared, value) in prepared.iter_mut().zip(row) {
            let value = value.to_f32();
            *prepared = match value == missing {
                true => f64::NAN,
                false => f64::from(value),
            };
        }
        Ok(())
    }

    /// Predicts prepared rows.
    fn block(&self, prepared: &[f64], out: &mut [f32]) {
        let (model, scores) = (self.model, self.model.num_margins());
        if self.options.output == Output::LeafIndices {
            let (width, first) = (self.width, self.trees.start);
            if let Booster::Trees(trees) = &model.booster {
                let forest = &trees.forest;
                walk_all(forest, self.trees.clone(), prepared, |row, tree, at| {
                    out[row * width + tree - first] = forest.leaf(at) as f32;
                });
            }
            return;
        }
        if self.options.output == Output::Margin {
            return self.margins(prepared, out);
        }
        let mut margins = vec![0.0; prepared.len() / model.num_features() * scores];
        self.margins(prepared, &mut margins);
        let rows = out.chunks_exact_mut(self.width).zip(margins.chunks_exact(scores));
        for (out, margins) in rows {
            model.objective.apply(margins, out);
        }
    }

    /// The margins of prepared rows.
    fn margins(&self, prepared: &[f64], out: &mut [f32]) {
        let model = self.model;
        let scores = model.num_margins();
        match &model.booster {
            Booster::Trees(trees) => {
                for out in out.chunks_exact_mut(scores) {
                    out.copy_from_slice(&model.base);
                }
                let forest = &trees.forest;
                walk_all(forest, self.trees.clone(), prepared, |row, tree, at| {
                    let value = forest.constant(at) as f32;
                    let value = trees
                        .weights
                        .as_ref()
                        .map_or(value, |weights| value * weights[tree]);
                    out[row * scores + trees.groups[tree] as usize] += value;
                });
            }
            Booster::Linear(weights) => {
                let rows = prepared.chunks_exact(model.num_features());
                for (row, out) in rows.zip(out.chunks_exact_mut(scores)) {
                    for (score, out) in out.iter_mut().enumerate() {
                        *out = linear(weights, row, score, model.base[0], scores);
                    }
                }
            }
        }
    }
}

/// One of the `scores` margins of a linear model, which begin all with the same base: XGBoost takes the first one for all.
fn linear(weights: &[f32], row: &[f64], score: usize, base: f32, scores: usize) -> f32 {
    let mut sum = weights[row.len() * scores + score] + base;
    for (feature, value) in row.iter().enumerate() {
        if !value.is_nan() {
            sum += *value as f32 * weights[feature * scores + score];
        }
    }
    sum
}
