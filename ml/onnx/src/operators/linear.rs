//! Linear models.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::scores::{Transform, largest, logistic};
use super::{Fact, Kernel, Labels, Matrix, rows_and_columns, tensor};

/// A row of coefficients for each score.
#[derive(Debug)]
struct Linear {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
}

impl Linear {
    fn read(node: &NodeProto, scores: usize) -> TractResult<Linear> {
        let coefficients: Vec<f32> = node.get_attr_vec("coefficients")?;
        let intercepts: Option<Vec<f32>> = node.get_attr_opt_vec("intercepts")?;
        let intercepts = intercepts.unwrap_or_else(|| vec![0.0; scores]);
        if scores == 0 || intercepts.len() != scores || !coefficients.len().is_multiple_of(scores) {
            bail!(
                "it has {} coefficients and {} intercepts for {scores} scores",
                coefficients.len(),
                intercepts.len()
            );
        }
        Ok(Linear {
            coefficients,
            intercepts,
        })
    }

    fn columns(&self) -> usize {
        self.coefficients.len() / self.intercepts.len()
    }

    fn check(&self, columns: &TDim) -> TractResult<()> {
        match columns.to_usize() {
            Ok(columns) if columns != self.columns() => {
                bail!(
                    "it has coefficients for {} columns, not for {columns}",
                    self.columns()
                )
            }
            _ => Ok(()),
        }
    }

    /// Adds the scores of a row.
    fn scores(&self, row: &[f32], scores: &mut Vec<f32>) {
        let each = self.coefficients.chunks_exact(self.columns().max(1));
        for (coefficients, intercept) in each.zip(&self.intercepts) {
            let sum: f32 = coefficients
                .iter()
                .zip(row)
                .map(|(factor, value)| factor * value)
                .sum();
            scores.push(sum + intercept);
        }
    }

    fn all(&self, inputs: &[TValue]) -> TractResult<(usize, Vec<f32>)> {
        let matrix = Matrix::of(inputs)?;
        self.check(&matrix.columns.to_dim())?;
        let mut scores = Vec::with_capacity(matrix.rows * self.intercepts.len());
        for row in matrix.rows()? {
            self.scores(row, &mut scores);
        }
        Ok((matrix.rows, scores))
    }
}

/// `LinearRegressor`.
#[derive(Debug)]
pub struct Regressor(Linear);

impl Regressor {
    pub fn read(node: &NodeProto) -> TractResult<Regressor> {
        if Transform::read(node)? != Transform::None {
            bail!("its post_transform is not NONE, which is not known here");
        }
        let targets: usize = node.get_attr_opt("targets")?.unwrap_or(1);
        Ok(Regressor(Linear::read(node, targets)?))
    }
}

impl Kernel for Regressor {
    fn name(&self) -> &'static str {
        "LinearRegressor"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, columns) = rows_and_columns(inputs)?;
        self.0.check(&columns)?;
        Ok(tvec!((
            f32::datum_type(),
            tvec!(rows, self.0.intercepts.len().to_dim())
        )))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, scores) = self.0.all(inputs)?;
        Ok(tvec!(tensor(&[rows, self.0.intercepts.len()], scores)?))
    }
}

/// `LinearClassifier`.
#[derive(Debug)]
pub struct Classifier {
    linear: Linear,
    labels: Labels,
    transform: Transform,
}

impl Classifier {
    pub fn read(node: &NodeProto) -> TractResult<Classifier> {
        let labels = Labels::read(node, "classlabels_ints")?;
        let intercepts = node.get_attr_opt_slice::<f32>("intercepts")?;
        let scores = intercepts.map_or(labels.len(), <[f32]>::len);
        if scores != labels.len() && (scores, labels.len()) != (1, 2) {
            bail!("it has {scores} scores for {} classes", labels.len());
        }
        Ok(Classifier {
            linear: Linear::read(node, scores)?,
            labels,
            transform: Transform::read(node)?,
        })
    }
}

impl Kernel for Classifier {
    fn name(&self) -> &'static str {
        "LinearClassifier"
    }

    fn outputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (rows, columns) = rows_and_columns(inputs)?;
        self.linear.check(&columns)?;
        Ok(tvec!(
            (self.labels.datatype(), tvec!(rows.clone())),
            (f32::datum_type(), tvec!(rows, self.labels.len().to_dim()))
        ))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, mut scores) = self.linear.all(inputs)?;
        let mut classes = Vec::with_capacity(rows);
        if self.linear.intercepts.len() == self.labels.len() {
            for scores in scores.chunks_exact_mut(self.labels.len()) {
                classes.push(largest(scores).unwrap_or(0));
                self.transform.apply(scores);
            }
        } else {
            // One score tells two classes apart.
            let one = std::mem::take(&mut scores);
            for score in one {
                classes.push(usize::from(score > 0.0));
                let probability = match self.transform {
                    Transform::Logistic => logistic(score),
                    _ => score,
                };
                scores.extend([1.0 - probability, probability]);
            }
        }
        let shape = [rows, self.labels.len()];
        Ok(tvec!(self.labels.of(&classes)?, tensor(&shape, scores)?))
    }
}
