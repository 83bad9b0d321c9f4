//! How rows become what a model is given, and what it gives becomes results.

use crate::datatype::{Datatype, Values};
use crate::error::{RowError, RunError};
use crate::port::{Dim, Port, Shape};
use crate::tensor::Tensor;

/// How a model takes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rows {
    /// Many at a time: the first dimension of its inputs, of any length, counts rows.
    Stacked,
    /// One at a time: the first dimension of its inputs counts rows, and is 1.
    OneByOne,
    /// Without a dimension for them: a row is all that the model takes, and a result all that it gives.
    Whole,
}

impl Rows {
    /// What the shapes of a model say.
    pub fn of(inputs: &[Port], outputs: &[Port]) -> Rows {
        let first = |port: &Port| match port.shape.as_deref() {
            // Of a shape that is not told, the first dimension may be of any length.
            None => Some(Dim::Any),
            Some(shape) => shape.first().cloned(),
        };
        let firsts: Vec<Option<Dim>> = inputs.iter().map(first).collect();
        let is_free = |dim: &Option<Dim>| dim.as_ref().is_some_and(|dim| dim.fixed().is_none());
        let is_one = |dim: &Option<Dim>| *dim == Some(Dim::Fixed(1));
        let mut names: Vec<&str> = firsts.iter().flatten().filter_map(name).collect();
        names.dedup();
        // Exporters are known to say 1 of an output where they mean any length.
        let outputs_count_rows = outputs.iter().map(first).all(|dim| is_free(&dim) || is_one(&dim));
        if firsts.iter().all(is_free) && names.len() < 2 && outputs_count_rows {
            return Rows::Stacked;
        }
        if firsts.iter().any(is_one) && firsts.iter().all(|dim| is_free(dim) || is_one(dim)) {
            return Rows::OneByOne;
        }
        Rows::Whole
    }

    /// The dimensions of a row for an input of a model.
    pub fn dims(self, port: &Port) -> Option<&[Dim]> {
        let shape = port.shape.as_deref()?;
        match self {
            Rows::Whole => Some(shape),
            Rows::Stacked | Rows::OneByOne => Some(shape.get(1..).unwrap_or_default()),
        }
    }
}

fn name(dim: &Dim) -> Option<&str> {
    match dim {
        Dim::Named(name) => Some(name),
        _ => None,
    }
}

/// A tensor for an input or of an output, with the dimension of the rows.
#[derive(Debug, PartialEq)]
pub struct Stack {
    pub shape: Vec<usize>,
    pub values: Values,
}

/// The tensors of a row in the order of the inputs.
#[derive(Debug)]
pub struct Fitted {
    /// For each input, the place among the row's tensors.
    pub places: Vec<usize>,
    /// For each input, the shape of a row.
    pub shapes: Vec<Vec<usize>>,
}

/// Finds a row's tensors for all inputs, and checks them.
pub fn fit(tensors: &[Tensor], inputs: &[Port], rows: Rows) -> Result<Fitted, RowError> {
    let mut places = vec![None; inputs.len()];
    for (place, tensor) in tensors.iter().enumerate() {
        let found = match tensor.name.is_empty() {
            true => Some(place).filter(|place| *place < inputs.len()),
            false => inputs.iter().position(|input| input.name == tensor.name),
        };
        let found = found.ok_or_else(|| RowError::NoInput {
            name: match tensor.name.is_empty() {
                true => format!("{place} (counted from 0)"),
                false => tensor.name.clone(),
            },
            inputs: inputs.iter().map(Port::to_string).collect(),
        })?;
        if places[found].replace(place).is_some() {
            return Err(RowError::Twice {
                input: inputs[found].name.clone(),
            });
        }
    }
    let mut fitted = Fitted {
        places: Vec::with_capacity(inputs.len()),
        shapes: Vec::with_capacity(inputs.len()),
    };
    for (place, input) in places.into_iter().zip(inputs) {
        let place = place.ok_or_else(|| RowError::Missing {
            input: input.to_string(),
        })?;
        fitted.places.push(place);
        fitted.shapes.push(shape(&tensors[place], input, rows)?);
    }
    Ok(fitted)
}

/// The shape in which a tensor goes into an input.
fn shape(tensor: &Tensor, input: &Port, rows: Rows) -> Result<Vec<usize>, RowError> {
    let found = tensor.values.datatype();
    if let Some(expected) = input.datatype
        && expected != found
    {
        return Err(RowError::Datatype {
            input: input.name.clone(),
            expected,
            found,
        });
    }
    let values = tensor.values.len();
    let product = |dims: &[usize]| dims.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim));
    if product(&tensor.shape) != Some(values) {
        return Err(RowError::Count {
            input: input.name.clone(),
            found: values,
            shape: Shape(&tensor.shape).to_string(),
            expected: product(&tensor.shape).unwrap_or(usize::MAX),
        });
    }
    let Some(dims) = rows.dims(input) else {
        return Ok(tensor.shape.clone());
    };
    let fits = |(dim, length): (&Dim, &usize)| dim.fixed().is_none_or(|fixed| fixed == *length);
    if dims.len() == tensor.shape.len() && dims.iter().zip(&tensor.shape).all(fits) {
        return Ok(tensor.shape.clone());
    }
    // A list, or one value, may be what fills a shape that the model tells.
    let fixed: Option<Vec<usize>> = dims.iter().map(Dim::fixed).collect();
    match fixed {
        Some(fixed) if tensor.shape.len() < 2 && product(&fixed) == Some(values) => Ok(fixed),
        _ => Err(RowError::Shape {
            input: input.name.clone(),
            expected: Shape(dims).to_string(),
            found: Shape(&tensor.shape).to_string(),
        }),
    }
}

/// The inputs of rows of one shape.
pub fn stack(rows: &[(&[Tensor], &Fitted)], inputs: &[Port], how: Rows) -> Vec<Stack> {
    let Some((_, first)) = rows.first() else {
        return Vec::new();
    };
    let stacks = inputs
        .iter()
        .zip(&first.shapes)
        .enumerate()
        .map(|(input, (port, shape))| {
            let mut dims = match how {
                Rows::Whole => Vec::new(),
                Rows::Stacked | Rows::OneByOne => vec![rows.len()],
            };
            dims.extend(shape);
            let datatype = port.datatype.unwrap_or(Datatype::F32);
            let mut values = Values::with_capacity(datatype, dims.iter().product());
            for (tensors, fitted) in rows {
                if let Some(tensor) = fitted.places.get(input).and_then(|place| tensors.get(*place)) {
                    values.append(&tensor.values);
                }
            }
            Stack { shape: dims, values }
        });
    stacks.collect()
}

/// The tensors of each of so many rows, from a model's outputs.
pub fn split(
    stacks: Vec<Stack>,
    outputs: &[&Port],
    rows: usize,
    how: Rows,
) -> Result<Vec<Vec<Tensor>>, RunError> {
    let mut found: Vec<Vec<Tensor>> = (0..rows).map(|_| Vec::with_capacity(stacks.len())).collect();
    for (Stack { shape, values }, port) in stacks.into_iter().zip(outputs) {
        let shape = match (how, shape.split_first()) {
            (Rows::Stacked, Some((first, rest))) if *first == rows => rest.to_vec(),
            (Rows::Stacked, _) => {
                return Err(RunError::Rows {
                    output: port.name.clone(),
                    shape: Shape(&shape).to_string(),
                    rows,
                });
            }
            (Rows::OneByOne, Some((1, rest))) if counts_one(port) => rest.to_vec(),
            (Rows::OneByOne | Rows::Whole, _) => shape,
        };
        let parts = values.split(shape.iter().product(), rows);
        for (row, values) in found.iter_mut().zip(parts) {
            row.push(Tensor::new(&*port.name, &*shape, values));
        }
    }
    Ok(found)
}

/// Whether the first dimension of an output of a model that takes one row at a time counts rows.
fn counts_one(port: &Port) -> bool {
    let first = port.shape.as_ref().map(|shape| shape.first());
    matches!(first, None | Some(Some(Dim::Fixed(1) | Dim::Any)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: &[Dim]) -> Port {
        Port {
            name: name.to_owned(),
            datatype: Some(Datatype::F32),
            shape: Some(shape.to_vec()),
            told: "FLOAT",
        }
    }

    fn named(name: &str) -> Dim {
        Dim::Named(name.to_owned())
    }

    #[test]
    fn shapes_say_how_rows_are_taken() {
        use Dim::{Any, Fixed};
        let of = |inputs: &[&[Dim]], output: &[Dim]| {
            let inputs: Vec<Port> = inputs.iter().map(|shape| port("x", shape)).collect();
            Rows::of(&inputs, &[port("y", output)])
        };
        assert_eq!(of(&[&[Any, Fixed(4)]], &[Any, Fixed(2)]), Rows::Stacked);
        assert_eq!(
            of(&[&[named("n"), Fixed(4)], &[named("n")]], &[Fixed(1)]),
            Rows::Stacked
        );
        assert_eq!(
            of(&[&[Fixed(1), Fixed(4)]], &[Fixed(1), Fixed(2)]),
            Rows::OneByOne
        );
        assert_eq!(of(&[&[Fixed(1), Fixed(4)], &[Any]], &[Fixed(1)]), Rows::OneByOne);
        assert_eq!(of(&[&[Fixed(3), Fixed(4)]], &[Fixed(3)]), Rows::Whole);
        assert_eq!(of(&[&[]], &[]), Rows::Whole);
        assert_eq!(of(&[&[named("n")], &[named("m")]], &[named("n")]), Rows::Whole);
        assert_eq!(of(&[&[Any, Fixed(4)]], &[]), Rows::Whole);
        assert_eq!(of(&[&[Any, Fixed(4)]], &[Fixed(7)]), Rows::Whole);
    }

    #[test]
    fn tensors_are_found_by_name_and_by_place() {
        let inputs = [
            port("a", &[Dim::Any, Dim::Fixed(1)]),
            port("b", &[Dim::Any, Dim::Fixed(2), Dim::Fixed(2)]),
        ];
        let fit = |row: &[Tensor]| fit(row, &inputs, Rows::Stacked);
        let fitted = fit(&[Tensor::list("b", vec![0f32; 4]), Tensor::one("a", 1f32)]).unwrap();
        assert_eq!(fitted.places, [1, 0]);
        assert_eq!(fitted.shapes, [vec![1], vec![2, 2]]);
        let error = |row: &[Tensor]| fit(row).unwrap_err().to_string();
        let a = || Tensor::one("", 1f32);
        assert_eq!(error(&[a()]), "the input b:FP32[-1,2,2] has no tensor");
        assert_eq!(
            error(&[a(), Tensor::list("c", vec![0f32])]),
            "there is no input c: the model has a:FP32[-1,1], b:FP32[-1,2,2]"
        );
        assert_eq!(
            error(&[a(), a(), a()]),
            "there is no input 2 (counted from 0): the model has a:FP32[-1,1], b:FP32[-1,2,2]"
        );
        assert_eq!(
            error(&[a(), Tensor::one("a", 1f32)]),
            "the input a has two tensors"
        );
        assert_eq!(
            error(&[a(), Tensor::list("b", vec![0f32; 3])]),
            "the input b has the shape [2,2], the row has [3]"
        );
        assert_eq!(
            error(&[a(), Tensor::list("b", vec![0f64; 4])]),
            "the input b is FP32, the row has FP64"
        );
        assert_eq!(
            error(&[a(), Tensor::new("b", [2, 2], vec![0f32; 3])]),
            "the tensor for the input b has 3 values, its shape [2,2] has 4"
        );
    }

    #[test]
    fn outputs_are_parts_of_rows() {
        let output = port("y", &[Dim::Any, Dim::Fixed(2)]);
        let stack = || Stack {
            shape: vec![2, 2],
            values: vec![1f32, 2., 3., 4.].into(),
        };
        let rows = split(vec![stack()], &[&output], 2, Rows::Stacked).unwrap();
        assert_eq!(rows[1], [Tensor::list("y", vec![3f32, 4.])]);
        let error = split(vec![stack()], &[&output], 3, Rows::Stacked).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the output y has the shape [2,2] for 3 rows: expected 3 as its first dimension"
        );
        let whole = split(vec![stack()], &[&output], 1, Rows::Whole).unwrap();
        assert_eq!(whole[0][0].shape, [2, 2]);
    }
}
