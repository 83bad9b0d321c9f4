//! Operators that make values of other types of values.

use std::collections::HashMap;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::{Fact, Kernel, only, tensor};

/// Values of one of the types that keys and labels may have.
#[derive(Debug, Clone)]
enum List {
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
}

impl List {
    /// The attributes `PREFIX_strings`, `PREFIX_int64s` and `PREFIX_floats`, of which a node has one.
    fn read(node: &NodeProto, prefix: &str) -> TractResult<List> {
        let name = |kind: &str| format!("{prefix}_{kind}");
        if let Some(list) = node.get_attr_opt_vec::<String>(&name("strings"))? {
            return Ok(List::Texts(list));
        }
        if let Some(list) = node.get_attr_opt_vec::<i64>(&name("int64s"))? {
            return Ok(List::Integers(list));
        }
        if let Some(list) = node.get_attr_opt_vec::<f32>(&name("floats"))? {
            return Ok(List::Floats(list));
        }
        bail!("its attribute {prefix} has neither texts, integers nor floats, which alone are known here")
    }

    fn len(&self) -> usize {
        match self {
            List::Texts(list) => list.len(),
            List::Integers(list) => list.len(),
            List::Floats(list) => list.len(),
        }
    }

    fn datatype(&self) -> DatumType {
        match self {
            List::Texts(_) => String::datum_type(),
            List::Integers(_) => i64::datum_type(),
            List::Floats(_) => f32::datum_type(),
        }
    }
}

/// A key as it is looked up. Of floats, their bits: all zeros are one, and so are all NaNs.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Text(String),
    Integer(i64),
    Float(u32),
}

fn float_key(value: f32) -> Key {
    match value {
        _ if value.is_nan() => Key::Float(f32::NAN.to_bits()),
        _ if value == 0.0 => Key::Float(0),
        value => Key::Float(value.to_bits()),
    }
}

/// The place of each key.
fn places(keys: &List) -> HashMap<Key, usize> {
    let keys: Vec<Key> = match keys {
        List::Texts(list) => list.iter().cloned().map(Key::Text).collect(),
        List::Integers(list) => list.iter().copied().map(Key::Integer).collect(),
        List::Floats(list) => list.iter().copied().map(float_key).collect(),
    };
    let mut places = HashMap::with_capacity(keys.len());
    for (place, key) in keys.into_iter().enumerate() {
        places.entry(key).or_insert(place);
    }
    places
}

/// The keys in a tensor, which has the type of the operator's keys.
fn keys_of(input: &Tensor, keys: &List) -> TractResult<Vec<Key>> {
    Ok(match keys {
        List::Texts(_) => input
            .as_slice::<String>()?
            .iter()
            .cloned()
            .map(Key::Text)
            .collect(),
        List::Integers(_) => {
            let input = input.cast_to::<i64>()?;
            input
                .as_slice::<i64>()?
                .iter()
                .copied()
                .map(Key::Integer)
                .collect()
        }
        List::Floats(_) => {
            let input = input.cast_to::<f32>()?;
            input.as_slice::<f32>()?.iter().copied().map(float_key).collect()
        }
    })
}

/// `LabelEncoder`: another value for each key.
#[derive(Debug)]
pub struct LabelEncoder {
    keys: List,
    places: HashMap<Key, usize>,
    /// The last one is that of keys that are not known.
    values: List,
}

impl LabelEncoder {
    pub fn read(node: &NodeProto) -> TractResult<LabelEncoder> {
        // The first version of the operator: places of classes.
        let (keys, mut values) = match node.get_attr_opt_vec::<String>("classes_strings")? {
            Some(classes) => {
                let places = (0..).take(classes.len()).collect();
                (List::Texts(classes), List::Integers(places))
            }
            None => (List::read(node, "keys")?, List::read(node, "values")?),
        };
        if keys.len() != values.len() {
            bail!("it has {} keys and {} values", keys.len(), values.len());
        }
        match &mut values {
            List::Texts(list) => {
                let default: Option<String> = node.get_attr_opt("default_string")?;
                list.push(default.unwrap_or_else(|| "_Unused".to_owned()));
            }
            List::Integers(list) => list.push(node.get_attr_opt("default_int64")?.unwrap_or(-1)),
            List::Floats(list) => list.push(node.get_attr_opt("default_float")?.unwrap_or(-0.0)),
        }
        Ok(LabelEncoder {
            places: places(&keys),
            keys,
            values,
        })
    }
}

impl Kernel for LabelEncoder {
    fn name(&self) -> &'static str {
        "LabelEncoder"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        Ok(tvec!((self.values.datatype(), only(inputs)?.1.clone())))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let Some(input) = inputs.first() else {
            bail!("it has no input")
        };
        let keys = keys_of(input, &self.keys)?;
        let unknown = self.keys.len();
        let places = keys
            .iter()
            .map(|key| self.places.get(key).copied().unwrap_or(unknown));
        let shape = input.shape();
        Ok(tvec!(match &self.values {
            List::Texts(list) => tensor(shape, places.map(|place| list[place].clone()).collect())?,
            List::Integers(list) => tensor(shape, places.map(|place| list[place]).collect())?,
            List::Floats(list) => tensor(shape, places.map(|place| list[place]).collect())?,
        }))
    }
}

/// `OneHotEncoder`: for each value a list of zeros, and 1 at the place of its category.
#[derive(Debug)]
pub struct OneHotEncoder {
    keys: List,
    places: HashMap<Key, usize>,
    /// Whether a value of no category is all zeros, and not an error.
    allows_unknown: bool,
}

impl OneHotEncoder {
    pub fn read(node: &NodeProto) -> TractResult<OneHotEncoder> {
        let keys = List::read(node, "cats")?;
        Ok(OneHotEncoder {
            places: places(&keys),
            keys,
            allows_unknown: node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0,
        })
    }
}

impl Kernel for OneHotEncoder {
    fn name(&self) -> &'static str {
        "OneHotEncoder"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let mut shape = only(inputs)?.1.clone();
        shape.push(self.keys.len().to_dim());
        Ok(tvec!((f32::datum_type(), shape)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let Some(input) = inputs.first() else {
            bail!("it has no input")
        };
        let keys = keys_of(input, &self.keys)?;
        let width = self.keys.len();
        let mut values = vec![0f32; keys.len() * width];
        for (row, key) in keys.iter().enumerate() {
            match self.places.get(key) {
                Some(place) => values[row * width + place] = 1.0,
                None if self.allows_unknown => {}
                None => bail!("a value is of no category: {key:?}"),
            }
        }
        let mut shape = input.shape().to_vec();
        shape.push(width);
        Ok(tvec!(tensor(&shape, values)?))
    }
}
