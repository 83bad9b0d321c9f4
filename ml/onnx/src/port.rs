//! What a model takes and gives.

use std::fmt;

use crate::datatype::Datatype;

/// An input or an output of a model, as its file tells. It prints as `x:FP32[batch,4]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The type of its values. `None`: one that has no type here, such as FP16, or not told.
    pub datatype: Option<Datatype>,
    /// Its dimensions, with that of the rows. `None`: not told.
    pub shape: Option<Vec<Dim>>,
    /// What the file calls its type, where it has none here.
    pub(crate) told: &'static str,
}

/// A dimension of an input or an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// So long.
    Fixed(usize),
    /// Of any length, which is the same wherever the name stands.
    Named(String),
    /// Of any length.
    Any,
}

impl Dim {
    /// Its length, if it is fixed.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(length) => Some(*length),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(length) => length.fmt(f),
            Dim::Named(name) => f.write_str(name),
            Dim::Any => f.write_str("-1"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let datatype = self.datatype.map_or(self.told, Datatype::name);
        write!(f, "{}:{datatype}", self.name)?;
        match &self.shape {
            Some(shape) => write!(f, "{}", Shape(shape)),
            None => f.write_str("[?]"),
        }
    }
}

/// A shape as it is shown.
pub struct Shape<'a, D>(pub &'a [D]);

impl<D: fmt::Display> fmt::Display for Shape<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (place, dim) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{dim}")?;
        }
        f.write_str("]")
    }
}

/// Names between commas.
pub fn listed<'a, T: fmt::Display + 'a>(all: impl IntoIterator<Item = &'a T>) -> String {
    let all: Vec<String> = all.into_iter().map(T::to_string).collect();
    all.join(", ")
}
