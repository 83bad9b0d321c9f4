//! Rows are put together, and answers taken apart.

use super::spec::ServedModel;
use crate::tensor::{Tensor, TensorRow, Values};

/// A tensor with the rows along its first dimension.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batched {
    pub name: String,
    pub shape: Vec<i64>,
    pub values: Values,
}

/// Whether rows have tensors of the same names, datatypes and shapes, so that they fit into one request.
pub(crate) fn alike<E: TensorRow>(one: &E, other: &E) -> bool {
    let (one, other) = (one.tensors(), other.tensors());
    let same = |one: &Tensor, other: &Tensor| {
        one.name == other.name && one.shape == other.shape && one.values.datatype() == other.values.datatype()
    };
    one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| same(one, other))
}

/// The tensors of rows that are alike.
///
/// # Errors
/// When a row does not fit the model: what is wrong.
pub(crate) fn join<E: TensorRow>(model: &ServedModel, rows: &[&E]) -> Result<Vec<Batched>, String> {
    let mut batch: Vec<Batched> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut tensors = row.tensors();
        model.fit(&mut tensors)?;
        if number == 0 {
            batch = tensors
                .into_iter()
                .map(|tensor| begin(tensor, rows.len()))
                .collect();
            continue;
        }
        for (joined, tensor) in batch.iter_mut().zip(tensors) {
            if !joined.values.append(tensor.values) {
                return Err(format!(
                    "rows of one request differ in the datatype of {}",
                    joined.name
                ));
            }
        }
    }
    Ok(batch)
}

fn begin(tensor: Tensor, rows: usize) -> Batched {
    let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    Batched {
        name: tensor.name,
        shape: std::iter::once(rows).chain(tensor.shape).map(length).collect(),
        values: tensor.values,
    }
}

/// The answers of so many rows.
///
/// # Errors
/// When they are not of so many rows, or of another type: what is wrong.
pub(crate) fn split<I: TensorRow>(
    model: &ServedModel,
    outputs: Vec<Batched>,
    rows: usize,
) -> Result<Vec<I>, String> {
    let mut each: Vec<Vec<Tensor>> = (0..rows).map(|_| Vec::new()).collect();
    for output in outputs {
        if model.output.as_ref().is_some_and(|wanted| *wanted != output.name) {
            continue;
        }
        let shape: Option<Vec<usize>> = output
            .shape
            .iter()
            .map(|length| usize::try_from(*length).ok())
            .collect();
        let (first, shape) = match shape.as_deref() {
            Some([first, rest @ ..]) => (*first, rest.to_vec()),
            _ => {
                return Err(format!(
                    "the output {} has the shape {:?}",
                    output.name, output.shape
                ));
            }
        };
        if first != rows {
            return Err(format!(
                "the output {} has {first} rows (its shape is {:?}), but {rows} were sent",
                output.name, output.shape
            ));
        }
        let width = shape
            .iter()
            .try_fold(1usize, |product, length| product.checked_mul(*length));
        let values = width.and_then(|width| width.checked_mul(rows));
        let (Some(width), true) = (width, values == Some(output.values.len())) else {
            return Err(format!(
                "the output {} has {} values, which is not its shape {:?}",
                output.name,
                output.values.len(),
                output.shape
            ));
        };
        for (row, values) in each.iter_mut().zip(output.values.split(width, rows)) {
            row.push(Tensor {
                name: output.name.clone(),
                shape: shape.clone(),
                values,
            });
        }
    }
    each.into_iter().map(I::from_tensors).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, shape: &[i64], values: Values) -> Batched {
        Batched {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values,
        }
    }

    #[test]
    fn rows_are_joined_and_answers_split() {
        let model = ServedModel {
            input: "x".to_owned(),
            ..ServedModel::default()
        };
        let (one, other) = (vec![1.0f32, 2.0], vec![3.0f32, 4.0]);
        assert!(alike(&one, &other) && !alike(&one, &vec![1.0]));
        let joined = join(&model, &[&one, &other]).unwrap();
        let expected = output("x", &[2, 2], Values::F32(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(joined, std::slice::from_ref(&expected));
        let back: Vec<Vec<f32>> = split(&model, vec![expected], 2).unwrap();
        assert_eq!(back, [one, other]);
        let scalars: Vec<i64> =
            split(&model, vec![output("y", &[3, 1], Values::I64(vec![7, 8, 9]))], 3).unwrap();
        assert_eq!(scalars, [7, 8, 9]);
    }

    #[test]
    fn answers_of_another_size_are_told() {
        let model = ServedModel::default();
        let told = |shape: &[i64], values: usize| {
            let output = output("y", shape, Values::F32(vec![0.0; values]));
            split::<Vec<f32>>(&model, vec![output], 2).unwrap_err()
        };
        assert_eq!(
            told(&[3, 1], 3),
            "the output y has 3 rows (its shape is [3, 1]), but 2 were sent"
        );
        assert_eq!(
            told(&[2, 2], 3),
            "the output y has 3 values, which is not its shape [2, 2]"
        );
        assert_eq!(told(&[], 1), "the output y has the shape []");
        assert_eq!(told(&[2, -1], 2), "the output y has the shape [2, -1]");
        assert!(told(&[2, i64::MAX, 8], 2).contains("which is not its shape"));
        assert_eq!(
            split::<Vec<f32>>(&model, vec![], 1).unwrap_err(),
            "there is no output"
        );
    }
}
