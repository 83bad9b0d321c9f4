//! Operators on the columns of rows.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::{Fact, Kernel, check_columns, of_column, only, per_column, tensor};

/// The shape of the only input, with values of single precision.
fn as_f32(inputs: &[Fact]) -> TractResult<TVec<Fact>> {
    Ok(tvec!((f32::datum_type(), only(inputs)?.1.clone())))
}

/// Each value of the first input, changed by its column.
fn each(inputs: &[TValue], change: impl Fn(usize, f32) -> Option<f32>) -> TractResult<TVec<Tensor>> {
    let Some(input) = inputs.first() else {
        bail!("it has no input")
    };
    let columns = input.shape().last().copied().unwrap_or(1).max(1);
    let values = input.cast_to::<f32>()?;
    let values = values.as_slice::<f32>()?.iter().enumerate();
    let changed: Option<Vec<f32>> = values
        .map(|(place, value)| change(place % columns, *value))
        .collect();
    let Some(changed) = changed else {
        bail!("its input has {columns} columns, more than it has values for")
    };
    Ok(tvec!(tensor(input.shape(), changed)?))
}

/// `Scaler`: less an offset, times a scale.
#[derive(Debug)]
pub struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    pub fn read(node: &NodeProto) -> TractResult<Scaler> {
        Ok(Scaler {
            offset: per_column(node, "offset")?,
            scale: per_column(node, "scale")?,
        })
    }
}

impl Kernel for Scaler {
    fn name(&self) -> &'static str {
        "Scaler"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        if let Some(columns) = only(inputs)?.1.last() {
            check_columns("offsets", self.offset.len(), columns)?;
            check_columns("scales", self.scale.len(), columns)?;
        }
        as_f32(inputs)
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        each(inputs, |column, value| {
            Some((value - of_column(&self.offset, column)?) * of_column(&self.scale, column)?)
        })
    }
}

/// `Binarizer`: 1 above a threshold, else 0.
#[derive(Debug)]
pub struct Binarizer(f32);

impl Binarizer {
    pub fn read(node: &NodeProto) -> TractResult<Binarizer> {
        Ok(Binarizer(node.get_attr_opt("threshold")?.unwrap_or(0.0)))
    }
}

impl Kernel for Binarizer {
    fn name(&self) -> &'static str {
        "Binarizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        as_f32(inputs)
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        each(inputs, |_, value| Some(if value > self.0 { 1.0 } else { 0.0 }))
    }
}

/// `Imputer`: another value in the place of a missing one.
#[derive(Debug)]
pub struct Imputer {
    missing: f32,
    imputed: Vec<f32>,
}

impl Imputer {
    pub fn read(node: &NodeProto) -> TractResult<Imputer> {
        let imputed = per_column(node, "imputed_value_floats")?;
        if imputed.is_empty() {
            bail!("it has no imputed_value_floats: whole numbers are not known here");
        }
        Ok(Imputer {
            missing: node.get_attr_opt("replaced_value_float")?.unwrap_or(0.0),
            imputed,
        })
    }
}

impl Kernel for Imputer {
    fn name(&self) -> &'static str {
        "Imputer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        if let Some(columns) = only(inputs)?.1.last() {
            check_columns("imputed values", self.imputed.len(), columns)?;
        }
        as_f32(inputs)
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let is_missing = |value: f32| value == self.missing || (value.is_nan() && self.missing.is_nan());
        each(inputs, |column, value| match is_missing(value) {
            true => of_column(&self.imputed, column),
            false => Some(value),
        })
    }
}

/// `Normalizer`: each row through its length.
#[derive(Debug)]
pub struct Normalizer(Norm);

#[derive(Debug)]
enum Norm {
    Max,
    L1,
    L2,
}

impl Normalizer {
    pub fn read(node: &NodeProto) -> TractResult<Normalizer> {
        Ok(Normalizer(match node.get_attr_opt::<&str>("norm")? {
            None | Some("MAX") => Norm::Max,
            Some("L1") => Norm::L1,
            Some("L2") => Norm::L2,
            Some(other) => bail!("its norm is {other}, which is not known here"),
        }))
    }
}

impl Kernel for Normalizer {
    fn name(&self) -> &'static str {
        "Normalizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        as_f32(inputs)
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let Some(input) = inputs.first() else {
            bail!("it has no input")
        };
        let columns = input.shape().last().copied().unwrap_or(1).max(1);
        let mut values = input.cast_to::<f32>()?.as_slice::<f32>()?.to_vec();
        for row in values.chunks_exact_mut(columns) {
            let length = match self.0 {
                Norm::Max => row.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                Norm::L1 => row.iter().map(|value| value.abs()).sum(),
                Norm::L2 => row.iter().map(|value| value * value).sum::<f32>().sqrt(),
            };
            if length != 0.0 {
                row.iter_mut().for_each(|value| *value /= length);
            }
        }
        Ok(tvec!(tensor(input.shape(), values)?))
    }
}

/// `FeatureVectorizer`: the columns of all inputs, side by side.
#[derive(Debug)]
pub struct FeatureVectorizer;

impl FeatureVectorizer {
    pub fn read(_: &NodeProto) -> TractResult<FeatureVectorizer> {
        Ok(FeatureVectorizer)
    }
}

impl Kernel for FeatureVectorizer {
    fn name(&self) -> &'static str {
        "FeatureVectorizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let mut columns = 0.to_dim();
        let mut rows = None;
        for (_, shape) in inputs {
            let [first, width] = &shape[..] else {
                bail!("an input has {} dimensions, not two", shape.len())
            };
            rows = Some(first.clone());
            columns += width;
        }
        let Some(rows) = rows else {
            bail!("it has no input")
        };
        Ok(tvec!((f32::datum_type(), tvec!(rows, columns))))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = inputs
            .first()
            .and_then(|input| input.shape().first().copied())
            .unwrap_or(0);
        let parts: TractResult<Vec<_>> = inputs.iter().map(|input| input.cast_to::<f32>()).collect();
        let parts = parts?;
        let mut values = Vec::new();
        for row in 0..rows {
            for part in &parts {
                let columns = part.shape().last().copied().unwrap_or(0);
                let Some(part) = part.as_slice::<f32>()?.get(row * columns..(row + 1) * columns) else {
                    bail!("its inputs have different numbers of rows")
                };
                values.extend_from_slice(part);
            }
        }
        let columns = values.len().checked_div(rows).unwrap_or(0);
        Ok(tvec!(tensor(&[rows, columns], values)?))
    }
}
