//! Rust's own types as fields.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use bytes::Bytes;
use purlin_model::schema::FieldKind;
use purlin_model::{DecodeError, wire};

use super::{SchemaField, SchemaType};

type Result<T> = std::result::Result<T, DecodeError>;

macro_rules! field {
    ($type:ty, $kind:ident, |$value:ident, $out:ident| $write:expr, |$input:ident| $read:expr) => {
        impl SchemaType for $type {
            fn kind() -> FieldKind {
                FieldKind::$kind
            }
            #[inline]
            fn write(&self, $out: &mut Vec<u8>) {
                let $value = self;
                $write
            }
            #[inline]
            fn read($input: &mut &[u8]) -> Result<Self> {
                $read
            }
        }
    };
}

field!(i8, Byte, |v, out| out.push(*v as u8), |input| Ok(
    wire::read_u8(input, "a byte field")? as i8
));
field!(
    i16,
    Int16,
    |v, out| out.extend_from_slice(&v.to_be_bytes()),
    |input| wire::take_array(input, "an int16 field").map(i16::from_be_bytes)
);
// A varint of 32 bits; writers differ in whether a negative number is extended to 64 bits, so readers drop the rest.
field!(
    i32,
    Int32,
    |v, out| wire::write_varint(u64::from(*v as u32), out),
    |input| Ok(wire::read_varint(input)? as i32)
);
field!(i64, Int64, |v, out| wire::write_varint(*v as u64, out), |input| {
    Ok(wire::read_varint(input)? as i64)
});
field!(
    f32,
    Float,
    |v, out| out.extend_from_slice(&v.to_be_bytes()),
    |input| wire::take_array(input, "a float field").map(f32::from_be_bytes)
);
field!(
    f64,
    Double,
    |v, out| out.extend_from_slice(&v.to_be_bytes()),
    |input| wire::take_array(input, "a double field").map(f64::from_be_bytes)
);
field!(bool, Boolean, |v, out| out.push(u8::from(*v)), |input| {
    wire::read_bool(input, "a boolean field")
});
field!(
    String,
    String,
    |v, out| wire::write_bytes(v.as_bytes(), out, true),
    |input| wire::read_str(input, true).map(str::to_owned)
);
field!(Bytes, Bytes, |v, out| wire::write_bytes(v, out, true), |input| {
    wire::read_bytes(input, true).map(Bytes::copy_from_slice)
});

impl<T: SchemaType> SchemaType for Box<T> {
    fn kind() -> FieldKind {
        T::kind()
    }
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        T::read(input).map(Box::new)
    }
}

impl<T: SchemaItem> SchemaType for Vec<T> {
    fn kind() -> FieldKind {
        T::vec_kind()
    }
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        T::write_vec(self, out);
    }
    #[inline]
    fn read(input: &mut &[u8]) -> Result<Self> {
        T::read_vec(input)
    }
}

/// A type that a `Vec` in a field can hold: a [`SchemaField`], or `u8`, whose vectors are byte strings.
#[diagnostic::on_unimplemented(
    message = "`Vec<{Self}>` cannot be the type of a schema's field",
    label = "not a type of Beam's schemas",
    note = "a `Vec` holds what a field can be (`i32`, `String`, a type with `#[derive(Schema)]`, ..), or `u8` as a byte string"
)]
pub trait SchemaItem: Sized + Clone + Send + 'static {
    /// What a vector of these is.
    fn vec_kind() -> FieldKind;
    /// Appends a vector.
    fn write_vec(items: &[Self], out: &mut Vec<u8>);
    /// Reads a vector.
    ///
    /// # Errors
    /// When the bytes are not such a vector.
    fn read_vec(input: &mut &[u8]) -> Result<Vec<Self>>;
}

impl SchemaItem for u8 {
    fn vec_kind() -> FieldKind {
        FieldKind::Bytes
    }
    fn write_vec(items: &[u8], out: &mut Vec<u8>) {
        wire::write_bytes(items, out, true);
    }
    fn read_vec(input: &mut &[u8]) -> Result<Vec<u8>> {
        wire::read_bytes(input, true).map(<[u8]>::to_vec)
    }
}

impl<T: SchemaField> SchemaItem for T {
    fn vec_kind() -> FieldKind {
        FieldKind::Array(Box::new(T::field_type()))
    }

    fn write_vec(items: &[T], out: &mut Vec<u8>) {
        write_count(items.len(), out);
        for item in items {
            write_item(item, out);
        }
    }

    fn read_vec(input: &mut &[u8]) -> Result<Vec<T>> {
        const WHAT: &str = "the number of items of an array";
        let mut items = Vec::new();
        let mut read = |count: u64, input: &mut &[u8]| -> Result<()> {
            // Room is made as items come: the number may be a lie.
            for _ in 0..count {
                items.push(read_item(input)?);
            }
            Ok(())
        };
        match wire::read_i32_be(input, WHAT)? {
            // The number was not known when writing began: pieces, each with its number, up to an empty one.
            -1 => loop {
                match wire::read_varint(input)? {
                    0 => break,
                    count => match i64::try_from(count) {
                        Ok(_) => read(count, input)?,
                        Err(_) => return Err(DecodeError::StateBacked),
                    },
                }
            },
            count => match u64::try_from(count) {
                Ok(count) => read(count, input)?,
                Err(_) => {
                    return Err(DecodeError::OutOfRange {
                        what: WHAT,
                        value: i64::from(count),
                    });
                }
            },
        }
        Ok(items)
    }
}

/// # Panics
/// When there are more than `i32::MAX`, which the encoding cannot count.
#[expect(clippy::expect_used, reason = "documented: such an array has no encoding")]
fn write_count(count: usize, out: &mut Vec<u8>) {
    let count = i32::try_from(count).expect("an array or map of a row has at most i32::MAX items");
    out.extend_from_slice(&count.to_be_bytes());
}

/// An item of an array or map: null is marked by a byte before it.
fn write_item<T: SchemaField>(item: &T, out: &mut Vec<u8>) {
    if T::null().is_some() {
        out.push(u8::from(!item.is_null()));
    }
    item.write_present(out);
}

fn read_item<T: SchemaField>(input: &mut &[u8]) -> Result<T> {
    if let Some(null) = T::null()
        && !wire::read_bool(input, "the mark of a nullable value")?
    {
        return Ok(null);
    }
    T::read_present(input)
}

/// A type that the keys of a map in a field can have: whole numbers, booleans, strings and byte strings.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a map in a schema",
    note = "keys are i8 to i64, bool, String and Bytes"
)]
pub trait SchemaKey: SchemaType {}

impl SchemaKey for i8 {}
impl SchemaKey for i16 {}
impl SchemaKey for i32 {}
impl SchemaKey for i64 {}
impl SchemaKey for bool {}
impl SchemaKey for String {}
impl SchemaKey for Bytes {}

fn map_kind<K: SchemaKey, V: SchemaField>() -> FieldKind {
    FieldKind::Map(Box::new(K::field_type()), Box::new(V::field_type()))
}

fn read_map<K: SchemaKey, V: SchemaField>(input: &mut &[u8], mut insert: impl FnMut(K, V)) -> Result<()> {
    const WHAT: &str = "the number of entries of a map";
    let count = wire::read_i32_be(input, WHAT)?;
    let count = u32::try_from(count).map_err(|_| DecodeError::OutOfRange {
        what: WHAT,
        value: i64::from(count),
    })?;
    for _ in 0..count {
        let key = K::read(input)?;
        insert(key, read_item(input)?);
    }
    Ok(())
}

impl<K: SchemaKey + Ord, V: SchemaField> SchemaType for BTreeMap<K, V> {
    fn kind() -> FieldKind {
        map_kind::<K, V>()
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.len(), out);
        for (key, value) in self {
            key.write(out);
            write_item(value, out);
        }
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        let mut map = BTreeMap::new();
        read_map(input, |key, value| {
            map.insert(key, value);
        })?;
        Ok(map)
    }
}

impl<K, V, S> SchemaType for HashMap<K, V, S>
where
    K: SchemaKey + Eq + Hash,
    V: SchemaField,
    S: BuildHasher + Default + Clone + Send + 'static,
{
    fn kind() -> FieldKind {
        map_kind::<K, V>()
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.len(), out);
        // In an order of their own, so that equal maps have equal encodings: a row may be a key.
        let entry = |(key, value): (&K, &V)| {
            let mut bytes = Vec::new();
            key.write(&mut bytes);
            let length = bytes.len();
            write_item(value, &mut bytes);
            (bytes, length)
        };
        let mut entries: Vec<(Vec<u8>, usize)> = self.iter().map(entry).collect();
        entries.sort_unstable_by(|a, b| a.0[..a.1].cmp(&b.0[..b.1]));
        for (bytes, _) in entries {
            out.extend_from_slice(&bytes);
        }
    }
    fn read(input: &mut &[u8]) -> Result<Self> {
        let mut map = HashMap::default();
        read_map(input, |key, value| {
            map.insert(key, value);
        })?;
        Ok(map)
    }
}
