//! Iterables of which a part stayed with the runner: the coders do not know of bundles, so the thread does.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use purlin_model::{Coder, DecodeError, backed, wire};

use super::bundle::BundleCell;
use super::pages::Pages;

thread_local! {
    static BUNDLE: RefCell<Option<Rc<BundleCell>>> = const { RefCell::new(None) };
}

/// Until this is dropped, the thread decodes elements of a bundle.
pub(crate) struct Decoding(());

impl Decoding {
    pub fn of(bundle: &Rc<BundleCell>) -> Decoding {
        backed::read_rests_by(|token| {
            let pages = pages(Bytes::new(), token).map_err(|e| e.to_string())?;
            pages.gather().map_err(|e| e.to_string())
        });
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

/// A key and its values, with those that stayed with the runner. `None`: all came.
pub(crate) fn whole(coder: &Coder, pair: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some((_, values)) = coder.as_kv() else {
        return Ok(None);
    };
    let (Some(value), Coder::StateBackedIterable(_)) = (values.as_iterable(), values) else {
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
