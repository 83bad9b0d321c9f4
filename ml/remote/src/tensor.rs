//! Tensors as the Open Inference Protocol has them.

use std::fmt;

use purlin::Element;
use serde::{Deserialize, Serialize};

use crate::half::F16;

/// The datatype of a tensor, by the protocol's names. `BF16` is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Datatype {
    /// `BOOL`
    Bool,
    /// `UINT8`
    U8,
    /// `UINT16`
    U16,
    /// `UINT32`
    U32,
    /// `UINT64`
    U64,
    /// `INT8`
    I8,
    /// `INT16`
    I16,
    /// `INT32`
    I32,
    /// `INT64`
    I64,
    /// `FP16`
    F16,
    /// `FP32`
    F32,
    /// `FP64`
    F64,
    /// `BYTES`: texts, or any bytes
    Bytes,
}

impl Datatype {
    const ALL: [(Datatype, &'static str); 13] = [
        (Datatype::Bool, "BOOL"),
        (Datatype::U8, "UINT8"),
        (Datatype::U16, "UINT16"),
        (Datatype::U32, "UINT32"),
        (Datatype::U64, "UINT64"),
        (Datatype::I8, "INT8"),
        (Datatype::I16, "INT16"),
        (Datatype::I32, "INT32"),
        (Datatype::I64, "INT64"),
        (Datatype::F16, "FP16"),
        (Datatype::F32, "FP32"),
        (Datatype::F64, "FP64"),
        (Datatype::Bytes, "BYTES"),
    ];

    /// The protocol's name.
    pub fn name(self) -> &'static str {
        let found = Datatype::ALL.iter().find(|(datatype, _)| *datatype == self);
        found.map_or("", |(_, name)| name)
    }

    /// Whether values of the pipeline's may be of this datatype: `f32` also stands for `FP16`, which has no type of Rust's.
    pub(crate) fn carries(self, name: &str) -> bool {
        self.name() == name || self == Datatype::F32 && name == Datatype::F16.name()
    }

    /// Of the protocol's name, if it is known here.
    pub fn named(name: &str) -> Option<Datatype> {
        let found = Datatype::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(datatype, _)| *datatype)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The values of a tensor, the last dimension the fastest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are named as the types are that they hold")]
pub enum Values {
    Bool(Vec<bool>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F16(Vec<F16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Vec<Vec<u8>>),
}

/// The same code for the values of each datatype.
macro_rules! with_values {
    ($values:expr, $list:ident => $code:expr) => {
        match $values {
            Values::Bool($list) => $code,
            Values::U8($list) => $code,
            Values::U16($list) => $code,
            Values::U32($list) => $code,
            Values::U64($list) => $code,
            Values::I8($list) => $code,
            Values::I16($list) => $code,
            Values::I32($list) => $code,
            Values::I64($list) => $code,
            Values::F16($list) => $code,
            Values::F32($list) => $code,
            Values::F64($list) => $code,
            Values::Bytes($list) => $code,
        }
    };
}

impl Values {
    /// Their datatype.
    pub fn datatype(&self) -> Datatype {
        match self {
            Values::Bool(_) => Datatype::Bool,
            Values::U8(_) => Datatype::U8,
            Values::U16(_) => Datatype::U16,
            Values::U32(_) => Datatype::U32,
            Values::U64(_) => Datatype::U64,
            Values::I8(_) => Datatype::I8,
            Values::I16(_) => Datatype::I16,
            Values::I32(_) => Datatype::I32,
            Values::I64(_) => Datatype::I64,
            Values::F16(_) => Datatype::F16,
            Values::F32(_) => Datatype::F32,
            Values::F64(_) => Datatype::F64,
            Values::Bytes(_) => Datatype::Bytes,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        with_values!(self, list => list.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As this datatype, where it is another precision of the same numbers (`FP16` and `FP32`); else as they are.
    pub(crate) fn into_precision(self, wanted: Datatype) -> Values {
        match (self, wanted) {
            (Values::F16(list), Datatype::F32) => Values::F32(list.into_iter().map(F16::to_f32).collect()),
            (Values::F32(list), Datatype::F16) => Values::F16(list.into_iter().map(F16::from_f32).collect()),
            (values, _) => values,
        }
    }

    /// Adds values of the same datatype. Whether it was the same.
    pub(crate) fn append(&mut self, other: Values) -> bool {
        macro_rules! same {
            ($($kind:ident),*) => {
                match (self, other) {
                    $((Values::$kind(list), Values::$kind(more)) => { list.extend(more); true })*
                    _ => false,
                }
            };
        }
        same!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, Bytes)
    }

    /// Takes these values apart, each part of so many. Of lists that such parts do not fill the rest is lost.
    pub(crate) fn split(self, each: usize, parts: usize) -> Vec<Values> {
        macro_rules! split {
            ($($kind:ident),*) => {
                match self {
                    $(Values::$kind(list) => {
                        let mut rest = list.into_iter();
                        (0..parts).map(|_| Values::$kind(rest.by_ref().take(each).collect())).collect()
                    })*
                }
            };
        }
        split!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, Bytes)
    }
}

/// A tensor of one row: with its name, and without the dimension that counts rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Element)]
pub struct Tensor {
    /// The name of the model's input or output. Empty for an input: the model's only one.
    pub name: String,
    /// The length of each dimension, without that of the rows. Empty: one value.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Values,
}

/// What is a row for a server of tensors: a number, a list of numbers, a text, or [`Tensor`]s with names and shapes. Rows and inferences
/// of `f32` also fit models of `FP16`: what is sent is rounded to the nearest.
pub trait TensorRow: Element {
    /// The datatype, where all values have one.
    const DATATYPE: Option<Datatype>;
    /// Whether a row is one tensor without a name.
    const IS_ONE: bool;

    /// The row's tensors.
    fn tensors(&self) -> Vec<Tensor>;

    /// The row of these tensors.
    ///
    /// # Errors
    /// When there are more or others than such a row has: what is wrong.
    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String>;
}

fn only(mut tensors: Vec<Tensor>) -> Result<Tensor, String> {
    match (tensors.pop(), tensors.is_empty()) {
        (Some(tensor), true) => Ok(tensor),
        (None, _) => Err("there is no output".to_owned()),
        (Some(last), false) => {
            let mut names: Vec<String> = tensors.into_iter().map(|tensor| tensor.name).collect();
            names.push(last.name);
            Err(format!(
                "there are the outputs {}: choose one, or take all as Vec<Tensor>",
                names.join(", ")
            ))
        }
    }
}

fn in_precision(tensor: Tensor, wanted: Datatype) -> Tensor {
    Tensor {
        values: tensor.values.into_precision(wanted),
        ..tensor
    }
}

fn other_type(tensor: &Tensor, wanted: Datatype) -> String {
    let found = tensor.values.datatype();
    format!(
        "the output {} is {found}, not {wanted} as the pipeline's type",
        tensor.name
    )
}

macro_rules! number_rows {
    ($($type:ty, $kind:ident);*) => {$(
        impl TensorRow for Vec<$type> {
            const DATATYPE: Option<Datatype> = Some(Datatype::$kind);
            const IS_ONE: bool = true;

            fn tensors(&self) -> Vec<Tensor> {
                vec![Tensor { name: String::new(), shape: vec![self.len()], values: Values::$kind(self.clone()) }]
            }

            fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
                let tensor = in_precision(only(tensors)?, Datatype::$kind);
                match tensor.values {
                    Values::$kind(list) => Ok(list),
                    _ => Err(other_type(&tensor, Datatype::$kind)),
                }
            }
        }

        impl TensorRow for $type {
            const DATATYPE: Option<Datatype> = Some(Datatype::$kind);
            const IS_ONE: bool = true;

            fn tensors(&self) -> Vec<Tensor> {
                vec![Tensor { name: String::new(), shape: Vec::new(), values: Values::$kind(vec![*self]) }]
            }

            fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
                let tensor = in_precision(only(tensors)?, Datatype::$kind);
                match &tensor.values {
                    Values::$kind(list) if list.len() == 1 => Ok(list[0]),
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
number_rows!(u8, U8; u32, U32; u64, U64; i32, I32; i64, I64; f32, F32; f64, F64; bool, Bool);

fn texts(tensor: Tensor) -> Result<Vec<String>, String> {
    match tensor.values {
        Values::Bytes(list) => list
            .into_iter()
            .map(|bytes| {
                String::from_utf8(bytes).map_err(|_| format!("the output {} is not text", tensor.name))
            })
            .collect(),
        _ => Err(other_type(&tensor, Datatype::Bytes)),
    }
}

impl TensorRow for String {
    const DATATYPE: Option<Datatype> = Some(Datatype::Bytes);
    const IS_ONE: bool = true;

    fn tensors(&self) -> Vec<Tensor> {
        vec![Tensor {
            name: String::new(),
            shape: Vec::new(),
            values: Values::Bytes(vec![self.clone().into_bytes()]),
        }]
    }

    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
        let tensor = only(tensors)?;
        let name = tensor.name.clone();
        let mut list = texts(tensor)?;
        match (list.pop(), list.len()) {
            (Some(text), 0) => Ok(text),
            (_, more) => Err(format!(
                "the output {name} has {} texts for a row, not one: take them as Vec<String>",
                if more > 0 { more + 1 } else { 0 }
            )),
        }
    }
}

impl TensorRow for Vec<String> {
    const DATATYPE: Option<Datatype> = Some(Datatype::Bytes);
    const IS_ONE: bool = true;

    fn tensors(&self) -> Vec<Tensor> {
        let list = self.iter().map(|text| text.clone().into_bytes());
        vec![Tensor {
            name: String::new(),
            shape: vec![self.len()],
            values: Values::Bytes(list.collect()),
        }]
    }

    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
        texts(only(tensors)?)
    }
}

impl TensorRow for Tensor {
    const DATATYPE: Option<Datatype> = None;
    const IS_ONE: bool = false;

    fn tensors(&self) -> Vec<Tensor> {
        vec![self.clone()]
    }

    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
        only(tensors)
    }
}

impl TensorRow for Vec<Tensor> {
    const DATATYPE: Option<Datatype> = None;
    const IS_ONE: bool = false;

    fn tensors(&self) -> Vec<Tensor> {
        self.clone()
    }

    fn from_tensors(tensors: Vec<Tensor>) -> Result<Self, String> {
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, values: Values) -> Tensor {
        Tensor {
            name: name.to_owned(),
            shape: vec![values.len()],
            values,
        }
    }

    #[test]
    fn datatypes_have_the_protocols_names() {
        for (datatype, name) in Datatype::ALL {
            assert_eq!(datatype.name(), name);
            assert_eq!(Datatype::named(name), Some(datatype));
        }
        assert_eq!(Datatype::named("BF16"), None);
    }

    #[test]
    fn rows_are_tensors_and_back() {
        fn check<T: TensorRow + PartialEq + std::fmt::Debug>(row: T) {
            assert_eq!(T::from_tensors(row.tensors()), Ok(row));
        }
        check(1.5f32);
        check(vec![1.5f64, f64::MAX]);
        check(vec![7i64]);
        check(true);
        check("text".to_owned());
        check(vec!["a".to_owned(), String::new()]);
        check(vec![
            tensor("a", Values::U16(vec![1])),
            tensor("b", Values::I8(vec![])),
        ]);
    }

    #[test]
    fn halves_are_floats_of_the_pipeline() {
        let halves = || vec![tensor("y", Values::F16([1.5, -2.0].map(F16::from_f32).to_vec()))];
        assert_eq!(Vec::<f32>::from_tensors(halves()), Ok(vec![1.5, -2.0]));
        let error = Vec::<f64>::from_tensors(halves()).unwrap_err();
        assert_eq!(error, "the output y is FP16, not FP64 as the pipeline's type");
        assert!(Datatype::F32.carries("FP16") && Datatype::F32.carries("FP32"));
        assert!(!Datatype::F64.carries("FP16") && !Datatype::F32.carries("FP64"));
        let values = Values::F32(vec![0.1]).into_precision(Datatype::F16);
        assert_eq!(values, Values::F16(vec![F16::from_bits(0x2e66)]));
        assert_eq!(
            Values::I8(vec![1]).into_precision(Datatype::F16),
            Values::I8(vec![1])
        );
    }

    #[test]
    fn outputs_of_other_types_are_told() {
        let floats = || vec![tensor("y", Values::F32(vec![1.0, 2.0]))];
        let error = Vec::<f64>::from_tensors(floats()).unwrap_err();
        assert_eq!(error, "the output y is FP32, not FP64 as the pipeline's type");
        let error = f32::from_tensors(floats()).unwrap_err();
        assert!(
            error.contains("2 values for a row, not one: take them as Vec<f32>"),
            "{error}"
        );
        let two = [floats(), floats()].concat();
        assert!(
            Vec::<f32>::from_tensors(two)
                .unwrap_err()
                .contains("the outputs y, y")
        );
        let bytes = vec![tensor("t", Values::Bytes(vec![vec![0xff]]))];
        assert_eq!(
            String::from_tensors(bytes).unwrap_err(),
            "the output t is not text"
        );
    }

    #[test]
    fn values_are_joined_and_taken_apart() {
        let mut values = Values::I32(vec![1, 2]);
        assert!(values.append(Values::I32(vec![3, 4])));
        assert!(!values.append(Values::F32(vec![3.0])));
        let parts = values.split(2, 2);
        assert_eq!(parts, [Values::I32(vec![1, 2]), Values::I32(vec![3, 4])]);
    }
}
