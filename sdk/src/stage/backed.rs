//! Iterables of which a part stayed with the runner: the coders do not know of bundles, so the thread does.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use purlin_model::{Coder, CoderError, DecodeError, Element, wire};

use super::bundle::BundleCell;
use super::pages::Pages;
use crate::schema::parse_schema;

thread_local! {
    static BUNDLE: RefCell<Option<Rc<BundleCell>>> = const { RefCell::new(None) };
}

/// Until this is dropped, the thread decodes elements of a bundle.
pub(crate) struct Decoding(());

impl Decoding {
    pub fn of(bundle: &Rc<BundleCell>) -> Decoding {
        BUNDLE.set(Some(bundle.clone()));
        Decoding(())
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        BUNDLE.set(None);
    }
}

/// The values of an iterable that came, with those that stayed with the runner of the thread's bundle.
pub(crate) fn pages(values: Bytes, token: &[u8]) -> Result<Pages, DecodeError> {
    let bundle = BUNDLE.with_borrow(|bundle| bundle.clone());
    let bundle = bundle.ok_or(DecodeError::StateBacked)?;
    bundle.backed(values, token).map_err(|e| DecodeError::Rest {
        reason: e.to_string().into(),
    })
}

/// Reads an element. Where it is a key and its values, of which some stayed with the runner, it is read again with these: so
/// elements that came whole cost nothing.
#[inline]
pub(crate) fn decode<T: Element>(input: &mut &[u8], nested: bool) -> Result<T, DecodeError> {
    let mut pair = *input;
    match T::decode(input, nested) {
        Err(DecodeError::StateBacked) => {
            let value = decode_whole(&mut pair, nested)?;
            *input = pair;
            Ok(value)
        }
        decoded => decoded,
    }
}

/// Reads a key and its values, of which some stayed with the runner, as a type that holds all of them.
#[cold]
fn decode_whole<T: Element>(pair: &mut &[u8], nested: bool) -> Result<T, DecodeError> {
    let schemas = |payload: &Bytes| parse_schema(payload).map_err(CoderError::schema);
    let coder = Coder::from_spec(&T::coder(), &schemas).map_err(|e| DecodeError::Rest {
        reason: e.to_string().into(),
    })?;
    let whole = whole(&coder, coder.take(pair, nested)?)?.ok_or(DecodeError::StateBacked)?;
    let mut whole = &whole[..];
    let value = T::decode(&mut whole, nested)?;
    wire::expect_end(whole)?;
    Ok(value)
}

/// A key and its values, with those that stayed with the runner. `None`: all came, or this is no key with values.
pub(crate) fn whole(coder: &Coder, pair: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some((_, values)) = coder.as_kv() else {
        return Ok(None);
    };
    let Some(value) = values.as_iterable() else {
        return Ok(None);
    };
    let (key, encoded) = coder.split_kv(pair)?;
    let mut came = values.iterable_elements(encoded)?;
    let (mut count, mut all) = (0u64, Vec::new());
    for value in came.by_ref() {
        all.extend_from_slice(value?);
        count += 1;
    }
    let Some(token) = came.state_token() else {
        return Ok(None);
    };
    let pages = pages(Bytes::new(), token)?.gather();
    let rest = pages.map_err(|e| DecodeError::Rest {
        reason: e.to_string().into(),
    })?;
    let mut left = &rest[..];
    while !left.is_empty() {
        value.skip(&mut left, true)?;
        count += 1;
    }
    let mut out = key.to_vec();
    out.extend_from_slice(&(-1i32).to_be_bytes());
    if count > 0 {
        wire::write_varint(count, &mut out);
    }
    out.extend_from_slice(&all);
    out.extend_from_slice(&rest);
    wire::write_varint(0, &mut out);
    Ok(Some(out))
}
