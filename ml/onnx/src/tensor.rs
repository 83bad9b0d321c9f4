//! Tensors by name, and what else is a row.

use std::borrow::Cow;

use purlin::Element;
use serde::{Deserialize, Serialize};

use crate::datatype::{Datatype, Values, for_each_type};
use crate::port::Port;

/// A tensor of one row: with its name, and without the dimension that counts rows.
///
/// ```
/// use purlin_onnx::Tensor;
///
/// let age = Tensor::one("age", 42.0f32);
/// let words = Tensor::list("words", vec![17i64, 3, 8]);
/// let image = Tensor::new("image", [3, 2, 2], vec![0.5f32; 12]);
/// assert_eq!((age.shape.len(), words.shape, image.shape), (0, vec![3], vec![3, 2, 2]));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Element)]
pub struct Tensor {
    /// The name of the model's input or output. Empty for an input: the one at this place among the row's tensors.
    pub name: String,
    /// The length of each dimension, without that of the rows. Empty: one value.
    pub shape: Vec<usize>,
    /// The values, the last dimension the fastest.
    pub values: Values,
}

impl Tensor {
    /// Values in a shape.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: impl Into<Values>) -> Tensor {
        Tensor {
            name: name.into(),
            shape: shape.into(),
            values: values.into(),
        }
    }

    /// A list of values.
    pub fn list(name: impl Into<String>, values: impl Into<Values>) -> Tensor {
        let values = values.into();
        Tensor::new(name, [values.len()], values)
    }

    /// One value.
    pub fn one(name: impl Into<String>, value: impl Into<Values>) -> Tensor {
        Tensor::new(name, [], value)
    }

    /// The values, if they are of this type.
    pub fn values_as<T: TensorValue>(&self) -> Option<&[T]> {
        T::of(&self.values)
    }
}

/// A type of Rust that is a type of tensors.
pub trait TensorValue: Sized {
    /// The values, if they are of this type.
    fn of(values: &Values) -> Option<&[Self]>;
}

/// What is a row for a model: a number, a text, a list of them, [`Tensor`]s with names and shapes, or a pair of rows.
///
/// Of inputs and outputs a list or one value is the only one; of a pair the first part is the first one, and the second part all others.
/// A list goes into an input of any fixed shape that has so many values.
pub trait TensorRow: Element {
    /// Whether these inputs or outputs of a model make such a row: what is wrong, if not.
    ///
    /// # Errors
    /// What such a row is, and why that does not fit.
    fn fits(ports: &[&Port]) -> Result<(), String>;

    /// The row's tensors.
    fn tensors(&self) -> Cow<'_, [Tensor]>;

    /// The row of these tensors.
    ///
    /// # Errors
    /// When there are more or others than such a row has: what is wrong.
    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String>;
}

fn only(mut tensors: Vec<Tensor>) -> Result<Tensor, String> {
    match (tensors.pop(), tensors.is_empty()) {
        (Some(tensor), true) => Ok(tensor),
        (last, _) => Err(format!(
            "there are {} tensors, not one",
            tensors.len() + usize::from(last.is_some())
        )),
    }
}

fn the_only(ports: &[&Port]) -> Result<(), String> {
    match ports {
        [_] => Ok(()),
        _ => Err(format!("that is one tensor, not {}", ports.len())),
    }
}

fn of_type(ports: &[&Port], datatype: Datatype) -> Result<(), String> {
    the_only(ports)?;
    match ports.first().and_then(|port| port.datatype) {
        Some(other) if other != datatype => Err(format!("that is {datatype}, not {other}")),
        _ => Ok(()),
    }
}

fn other_type(tensor: &Tensor, wanted: Datatype) -> String {
    format!(
        "the output {} is {}, not {wanted} as the pipeline's type",
        tensor.name,
        tensor.values.datatype()
    )
}

macro_rules! rows {
    ($($type:ty, $kind:ident);*) => {$(
        impl TensorValue for $type {
            fn of(values: &Values) -> Option<&[$type]> {
                match values {
                    Values::$kind(list) => Some(list),
                    _ => None,
                }
            }
        }

        impl TensorRow for Vec<$type> {
            fn fits(ports: &[&Port]) -> Result<(), String> {
                of_type(ports, Datatype::$kind)
            }

            fn tensors(&self) -> Cow<'_, [Tensor]> {
                Cow::Owned(vec![Tensor::list("", self.clone())])
            }

            fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
                let tensor = only(tensors)?;
                match tensor.values {
                    Values::$kind(list) => Ok(list),
                    _ => Err(other_type(&tensor, Datatype::$kind)),
                }
            }
        }

        impl TensorRow for $type {
            fn fits(ports: &[&Port]) -> Result<(), String> {
                of_type(ports, Datatype::$kind)
            }

            fn tensors(&self) -> Cow<'_, [Tensor]> {
                Cow::Owned(vec![Tensor::one("", self.clone())])
            }

            fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
                let tensor = only(tensors)?;
                match tensor.values {
                    Values::$kind(mut list) if list.len() == 1 => Ok(list.remove(0)),
                    Values::$kind(list) => Err(format!(
                        "the output {} has {} values for a row, not one: take them as Vec<{}>",
                        tensor.name, list.len(), stringify!($type)
                    )),
                    _ => Err(other_type(&tensor, Datatype::$kind)),
                }
            }
        }
    )*};
}
for_each_type!(rows);

impl TensorRow for Tensor {
    fn fits(ports: &[&Port]) -> Result<(), String> {
        the_only(ports)
    }

    fn tensors(&self) -> Cow<'_, [Tensor]> {
        Cow::Borrowed(std::slice::from_ref(self))
    }

    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
        only(tensors)
    }
}

impl TensorRow for Vec<Tensor> {
    fn fits(_: &[&Port]) -> Result<(), String> {
        Ok(())
    }

    fn tensors(&self) -> Cow<'_, [Tensor]> {
        Cow::Borrowed(self)
    }

    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
        Ok(tensors)
    }
}

impl<A: TensorRow, B: TensorRow> TensorRow for (A, B) {
    fn fits(ports: &[&Port]) -> Result<(), String> {
        let (first, rest) = ports.split_at(ports.len().min(1));
        A::fits(first)?;
        B::fits(rest)
    }

    fn tensors(&self) -> Cow<'_, [Tensor]> {
        let (first, rest) = (self.0.tensors(), self.1.tensors());
        Cow::Owned([first.into_owned(), rest.into_owned()].concat())
    }

    fn from_tensors(mut tensors: Vec<Tensor>) -> Result<Self, String> {
        let rest = tensors.split_off(tensors.len().min(1));
        Ok((A::from_tensors(tensors)?, B::from_tensors(rest)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_tensors_and_back() {
        fn check<T: TensorRow + PartialEq + std::fmt::Debug>(row: T) {
            assert_eq!(T::from_tensors(row.tensors().into_owned()), Ok(row));
        }
        check(1.5f32);
        check(vec![1.5f64, f64::MAX]);
        check(vec![7i64]);
        check(true);
        check("text".to_owned());
        check(vec!["a".to_owned(), String::new()]);
        check(vec![Tensor::one("a", 1u16), Tensor::list("b", Vec::<i8>::new())]);
        check((3i64, vec![0.5f32, 0.5]));
        check((3i64, ("a".to_owned(), vec![0.5f32])));
    }

    #[test]
    fn outputs_of_other_types_are_told() {
        let floats = || vec![Tensor::list("y", vec![1.0f32, 2.0])];
        let error = Vec::<f64>::from_tensors(floats()).unwrap_err();
        assert_eq!(error, "the output y is FP32, not FP64 as the pipeline's type");
        let error = f32::from_tensors(floats()).unwrap_err();
        assert_eq!(
            error,
            "the output y has 2 values for a row, not one: take them as Vec<f32>"
        );
        let two = [floats(), floats()].concat();
        assert_eq!(
            Vec::<f32>::from_tensors(two).unwrap_err(),
            "there are 2 tensors, not one"
        );
    }
}
