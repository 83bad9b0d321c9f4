//! The types of values, and lists of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of a tensor's values. It prints by the names of the Open Inference Protocol, as in the store of models and in
/// `purlin-remote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// `FP32`
    F32,
    /// `FP64`
    F64,
    /// `BYTES`: texts
    Text,
}

impl Datatype {
    /// The protocol's name.
    pub fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::U8 => "UINT8",
            Datatype::U16 => "UINT16",
            Datatype::U32 => "UINT32",
            Datatype::U64 => "UINT64",
            Datatype::I8 => "INT8",
            Datatype::I16 => "INT16",
            Datatype::I32 => "INT32",
            Datatype::I64 => "INT64",
            Datatype::F32 => "FP32",
            Datatype::F64 => "FP64",
            Datatype::Text => "BYTES",
        }
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
    F32(Vec<f32>),
    F64(Vec<f64>),
    Text(Vec<String>),
}

/// The same code for the values of each type.
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
            Values::F32($list) => $code,
            Values::F64($list) => $code,
            Values::Text($list) => $code,
        }
    };
}

/// The same code for each type: of Rust, and by its name here.
macro_rules! for_each_type {
    ($code:ident) => {
        $code! { bool, Bool; u8, U8; u16, U16; u32, U32; u64, U64; i8, I8; i16, I16; i32, I32; i64, I64; f32, F32; f64, F64; String, Text }
    };
}
pub(crate) use for_each_type;

impl Values {
    /// Their type.
    pub fn datatype(&self) -> Datatype {
        macro_rules! datatype {
            ($($type:ty, $kind:ident);*) => {
                match self {
                    $(Values::$kind(_) => Datatype::$kind,)*
                }
            };
        }
        for_each_type!(datatype)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        with_values!(self, list => list.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A list with room for so many.
    pub(crate) fn with_capacity(datatype: Datatype, capacity: usize) -> Values {
        macro_rules! new {
            ($($type:ty, $kind:ident);*) => {
                match datatype {
                    $(Datatype::$kind => Values::$kind(Vec::with_capacity(capacity)),)*
                }
            };
        }
        for_each_type!(new)
    }

    /// Adds values, which must be of the same type: others add nothing.
    pub(crate) fn append(&mut self, other: &Values) {
        macro_rules! append {
            ($($type:ty, $kind:ident);*) => {
                match (self, other) {
                    $((Values::$kind(list), Values::$kind(more)) => list.extend_from_slice(more),)*
                    _ => {}
                }
            };
        }
        for_each_type!(append);
    }

    /// Takes these values apart, each part of so many. Of lists that such parts do not fill the rest is lost.
    pub(crate) fn split(self, each: usize, parts: usize) -> Vec<Values> {
        macro_rules! split {
            ($($type:ty, $kind:ident);*) => {
                match self {
                    $(Values::$kind(list) => {
                        let mut rest = list.into_iter();
                        (0..parts).map(|_| Values::$kind(rest.by_ref().take(each).collect())).collect()
                    })*
                }
            };
        }
        for_each_type!(split)
    }
}

macro_rules! from_lists {
    ($($type:ty, $kind:ident);*) => {$(
        impl From<Vec<$type>> for Values {
            fn from(list: Vec<$type>) -> Values {
                Values::$kind(list)
            }
        }

        impl From<$type> for Values {
            fn from(value: $type) -> Values {
                Values::$kind(vec![value])
            }
        }
    )*};
}
for_each_type!(from_lists);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_joined_and_taken_apart() {
        let mut values = Values::with_capacity(Datatype::I32, 4);
        assert!(values.is_empty());
        values.append(&vec![1i32, 2].into());
        values.append(&vec![3i32, 4].into());
        values.append(&vec![5f32].into());
        assert_eq!(values.datatype(), Datatype::I32);
        let parts = values.split(2, 2);
        assert_eq!(parts, [Values::I32(vec![1, 2]), Values::I32(vec![3, 4])]);
    }
}
