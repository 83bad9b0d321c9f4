//! Rust types that know their coder.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coder::Chunks;
use crate::error::DecodeError;
use crate::spec::CoderSpec;
use crate::time::Timestamp;
use crate::{urns, wire};

type Result<T> = core::result::Result<T, DecodeError>;

/// A type whose values can be elements of a collection.
///
/// | type | coder |
/// |---|---|
/// | `()` | `bytes`, empty |
/// | `Vec<u8>`, `Bytes` | `bytes` |
/// | `String`, `Arc<str>` | `string_utf8` |
/// | `bool` | `bool` |
/// | `u8` to `u64`, `i8` to `i64`, `usize`, `isize` | `varint`; a `u64` from 2^63 on is a negative number to other SDKs |
/// | `f32`, `f64` | `double` |
/// | `Timestamp` | `varint` of its milliseconds |
/// | `(K, V)` | `kv` |
/// | `(A, B, C)` and longer | `kv` of `A` and the rest |
/// | `Option<T>` | `nullable` |
/// | `Vec<T>` | `iterable` |
/// | `Box<T>`, `Arc<T>` | that of `T` |
/// | [`Serde<T>`] | `length_prefix` of `purlin:coder:serde:v1` |
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a PCollection",
    label = "not an `Element`",
    note = "elements are whole numbers, floats, `bool`, `String`, `Bytes`, and pairs, tuples, `Option`s and `Vec`s of elements",
    note = "for a type of your own: `#[derive(Schema)]` (other SDKs read it) or `#[derive(purlin::Element)]` with serde's derives"
)]
pub trait Element: Sized + Clone + Send + 'static {
    /// The coder of the type.
    fn coder() -> CoderSpec;

    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>, nested: bool);

    /// Reads a value.
    ///
    /// # Errors
    /// When the bytes are not a value of this type's coder. [`DecodeError::StateBacked`] when it holds all values of an
    /// iterable, and some of them are not in the input.
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self>;

    /// The coder of a vector of the type.
    #[doc(hidden)]
    fn vec_coder() -> CoderSpec {
        CoderSpec::of(urns::ITERABLE, vec![Self::coder()])
    }

    /// Appends a slice of the type as a vector.
    #[doc(hidden)]
    #[inline]
    fn encode_vec(values: &[Self], out: &mut Vec<u8>, _nested: bool) {
        encode_iterable(values.iter(), out);
    }

    /// Reads a vector of the type.
    #[doc(hidden)]
    fn decode_vec(input: &mut &[u8], _nested: bool) -> Result<Vec<Self>> {
        let mut chunks = Chunks::start(input)?;
        let mut values = Vec::new();
        while let Some(count) = chunks.next(input, 1)? {
            // What an element needs at least is not known here, and the number may be a lie: most room is made as
            // elements come.
            values.reserve(count.min(ROOM / size_of::<Self>().max(1)));
            for _ in 0..count {
                values.push(Self::decode(input, true)?);
            }
        }
        if chunks.token.is_some() {
            return Err(DecodeError::StateBacked);
        }
        Ok(values)
    }

    /// The encoding on its own, in the outer context.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out, false);
        out
    }

    /// Reads a value that stands on its own, in the outer context.
    ///
    /// # Errors
    /// As [`Element::decode`], and when bytes are left over.
    fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let value = Self::decode(&mut bytes, false)?;
        wire::expect_end(bytes)?;
        Ok(value)
    }
}

/// So many bytes of memory the number of an iterable's elements is believed to need.
const ROOM: usize = 64 << 10;

/// Appends an iterable of known length, element by element.
///
/// # Panics
/// When there are more than `i32::MAX` elements, which the encoding cannot count.
#[inline]
pub fn encode_iterable<'a, T: Element>(values: impl ExactSizeIterator<Item = &'a T>, out: &mut Vec<u8>) {
    #[expect(clippy::expect_used, reason = "documented: such an iterable has no encoding")]
    let count =
        i32::try_from(values.len()).expect("an iterable of known length has at most i32::MAX elements");
    out.extend_from_slice(&count.to_be_bytes());
    for value in values {
        value.encode(out, true);
    }
}

impl Element for () {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::BYTES)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        wire::write_bytes(&[], out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        wire::expect_end(wire::read_bytes(input, nested)?)
    }
}

impl Element for Bytes {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::BYTES)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        wire::write_bytes(self, out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        wire::read_bytes(input, nested).map(Bytes::copy_from_slice)
    }
}

impl Element for String {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::STRING_UTF8)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        wire::write_bytes(self.as_bytes(), out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        wire::read_str(input, nested).map(str::to_owned)
    }
}

impl Element for Arc<str> {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::STRING_UTF8)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        wire::write_bytes(self.as_bytes(), out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        wire::read_str(input, nested).map(Arc::from)
    }
}

impl Element for bool {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::BOOL)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        out.push(u8::from(*self));
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        wire::read_bool(input, "a boolean")
    }
}

impl Element for f64 {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::DOUBLE)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        Ok(f64::from_be_bytes(wire::take_array(input, "a double")?))
    }
}

impl Element for f32 {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::DOUBLE)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        f64::from(*self).encode(out, nested);
    }
    /// The nearest `f32` of the double: exact for what an `f32` was written as.
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        Ok(f64::decode(input, nested)? as f32)
    }
}

impl Element for Timestamp {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::VARINT)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        wire::write_varint(self.0 as u64, out);
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        Ok(Timestamp(wire::read_varint(input)? as i64))
    }
}

impl Element for i64 {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::VARINT)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        wire::write_varint(*self as u64, out);
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        Ok(wire::read_varint(input)? as i64)
    }
}

impl Element for u64 {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::VARINT)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        wire::write_varint(*self, out);
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        wire::read_varint(input)
    }
}

/// Integers that pass through `i64` or `u64`.
macro_rules! integer {
    ($($ty:ty as $wide:ty),*) => {$(
        impl Element for $ty {
            fn coder() -> CoderSpec {
                CoderSpec::atom(urns::VARINT)
            }
            #[inline]
            fn encode(&self, out: &mut Vec<u8>, nested: bool) {
                (*self as $wide).encode(out, nested);
            }
            #[inline]
            fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
                let value = <$wide>::decode(input, nested)?;
                let what = concat!("an integer of type ", stringify!($ty));
                <$ty>::try_from(value).map_err(|_| DecodeError::OutOfRange { what, value: value as i64 })
            }
        }
    )*};
}

integer!(
    i8 as i64,
    i16 as i64,
    i32 as i64,
    isize as i64,
    u16 as u64,
    u32 as u64,
    usize as u64
);

impl Element for u8 {
    fn coder() -> CoderSpec {
        CoderSpec::atom(urns::VARINT)
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        wire::write_varint(u64::from(*self), out);
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        let value = wire::read_varint(input)?;
        let what = "an integer of type u8";
        u8::try_from(value).map_err(|_| DecodeError::OutOfRange {
            what,
            value: value as i64,
        })
    }
    // A vector of bytes is a byte string, not an iterable.
    fn vec_coder() -> CoderSpec {
        CoderSpec::atom(urns::BYTES)
    }
    #[inline]
    fn encode_vec(values: &[u8], out: &mut Vec<u8>, nested: bool) {
        wire::write_bytes(values, out, nested);
    }
    #[inline]
    fn decode_vec(input: &mut &[u8], nested: bool) -> Result<Vec<u8>> {
        wire::read_bytes(input, nested).map(<[u8]>::to_vec)
    }
}

impl<T: Element> Element for Vec<T> {
    fn coder() -> CoderSpec {
        T::vec_coder()
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        T::encode_vec(self, out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        T::decode_vec(input, nested)
    }
}

impl<T: Element> Element for Option<T> {
    fn coder() -> CoderSpec {
        CoderSpec::of(urns::NULLABLE, vec![T::coder()])
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.encode(out, nested);
            }
        }
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        match wire::read_bool(input, "the mark of a nullable value")? {
            false => Ok(None),
            true => T::decode(input, nested).map(Some),
        }
    }
}

impl<T: Element> Element for Box<T> {
    fn coder() -> CoderSpec {
        T::coder()
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        (**self).encode(out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        T::decode(input, nested).map(Box::new)
    }
}

impl<T: Element + Sync> Element for Arc<T> {
    fn coder() -> CoderSpec {
        T::coder()
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        (**self).encode(out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        T::decode(input, nested).map(Arc::new)
    }
}

impl<K: Element, V: Element> Element for (K, V) {
    fn coder() -> CoderSpec {
        CoderSpec::of(urns::KV, vec![K::coder(), V::coder()])
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, nested: bool) {
        self.0.encode(out, true);
        self.1.encode(out, nested);
    }
    #[inline]
    fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
        Ok((K::decode(input, true)?, V::decode(input, nested)?))
    }
}

/// Longer tuples: a pair of the first and the rest.
macro_rules! tuple {
    ($first:ident, $($rest:ident),+; $last:ident) => {
        impl<$first: Element, $($rest: Element,)+ $last: Element> Element for ($first, $($rest,)+ $last) {
            fn coder() -> CoderSpec {
                CoderSpec::of(urns::KV, vec![$first::coder(), <($($rest,)+ $last) as Element>::coder()])
            }
            #[inline]
            #[allow(non_snake_case)]
            fn encode(&self, out: &mut Vec<u8>, nested: bool) {
                let ($first, $($rest,)+ $last) = self;
                $first.encode(out, true);
                $($rest.encode(out, true);)+
                $last.encode(out, nested);
            }
            #[inline]
            fn decode(input: &mut &[u8], nested: bool) -> Result<Self> {
                Ok(($first::decode(input, true)?, $($rest::decode(input, true)?,)+ $last::decode(input, nested)?))
            }
        }
    };
}

tuple!(A, B; C);
tuple!(A, B, C; D);
tuple!(A, B, C, D; E);
tuple!(A, B, C, D, E; F);
tuple!(A, B, C, D, E, F; G);
tuple!(A, B, C, D, E, F, G; H);

/// Any serde type as an element, in the postcard format, which is compact and not self-describing: writer and reader
/// must be of the same build. Its coder is `length_prefix<purlin:coder:serde:v1>`: runners see length-prefixed bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serde<T>(pub T);

impl<T> Deref for Serde<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Serde<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Serde<T> {
    fn from(value: T) -> Self {
        Serde(value)
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Element for Serde<T> {
    fn coder() -> CoderSpec {
        serde_coder::<T>()
    }
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, _nested: bool) {
        serde_encode(&self.0, out);
    }
    #[inline]
    fn decode(input: &mut &[u8], _nested: bool) -> Result<Self> {
        serde_decode(input).map(Serde)
    }
}

/// The coder of a type that travels by serde: length-prefixed, so that no runner needs to know it or to wrap it. The
/// payload of the inner coder is the type's name, for messages only.
pub fn serde_coder<T>() -> CoderSpec {
    let inner = CoderSpec {
        urn: urns::SERDE.into(),
        payload: Bytes::from_static(core::any::type_name::<T>().as_bytes()),
        components: Vec::new(),
    };
    CoderSpec::of(urns::LENGTH_PREFIX, vec![inner])
}

/// Appends a serde value, length-prefixed in both contexts.
///
/// # Panics
/// When the type's own `Serialize` fails, or writes a sequence without its length.
#[inline]
#[expect(
    clippy::panic,
    reason = "documented: encoding cannot fail by its trait, and the fault is in the user's type"
)]
pub fn serde_encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    wire::write_length_prefixed(out, |out| {
        *out = postcard::to_extend(value, core::mem::take(out)).unwrap_or_else(|error| {
            panic!(
                "cannot serialize a value of {}: {error}",
                core::any::type_name::<T>()
            );
        });
    });
}

/// Reads a serde value.
///
/// # Errors
/// When the bytes are not what [`serde_encode`] wrote for the type.
#[inline]
pub fn serde_decode<T: DeserializeOwned>(input: &mut &[u8]) -> Result<T> {
    let bytes = wire::read_bytes(input, true)?;
    let failed = |reason: String| DecodeError::Serde {
        type_name: core::any::type_name::<T>(),
        reason: reason.into(),
    };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => Err(failed(format!("{} bytes are left over", left.len()))),
        Err(error) => Err(failed(error.to_string())),
    }
}
