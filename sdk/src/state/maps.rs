//! States by a key of their own: maps and multimaps.

use purlin_model::{DecodeError, Element};

use super::{Field, FieldKind, FieldSpec, Keyed, handle};
use crate::error::{BoxError, DoFnResult};
use crate::stage::MapEntry;

handle!(
    /// A value by key. Keys are the same if they are encoded alike.
    ///
    /// A read of one key fetches that key's value alone.
    MapState<K, V>
);
handle!(
    /// Values by key. Keys are the same if they are encoded alike.
    MultimapState<K, V>
);

fn encoded<T: Element>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out, true);
    out
}

fn decode_all<T: Element>(pieces: [&[u8]; 2]) -> Result<Vec<T>, BoxError> {
    let mut all = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            all.push(T::decode(&mut piece, true)?);
        }
    }
    Ok(all)
}

/// A key in front of other bytes.
fn cut_key<K: Element>(data: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let before = *data;
    K::decode(data, true)?;
    Ok(before[..before.len() - data.len()].to_vec())
}

/// An entry of `KV<K, Iterable<V>>` in front of other bytes.
fn cut_entry<K: Element, V: Element>(data: &mut &[u8]) -> Result<MapEntry, DecodeError> {
    let key = cut_key::<K>(data)?;
    let values = Vec::<V>::decode(data, true)?;
    let mut bytes = Vec::new();
    values.iter().for_each(|value| value.encode(&mut bytes, true));
    Ok((key, bytes))
}

impl<K: Element, V: Element> Field for MapState<K, V> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::Map(K::coder(), V::coder()),
        }
    }
}

impl<K: Element, V: Element> Field for MultimapState<K, V> {
    fn spec(&self) -> FieldSpec {
        FieldSpec {
            id: self.id,
            name: self.name.clone(),
            queryable: self.queryable,
            kind: FieldKind::Multimap(K::coder(), V::coder()),
        }
    }
}

macro_rules! common {
    ($name:ident) => {
        impl<K: Element, V: Element> $name<K, V> {
            /// Whether there is something under a key.
            ///
            /// # Errors
            /// When the state is not declared, or cannot be read.
            pub fn contains_key(&self, ctx: &mut impl Keyed, key: &K) -> Result<bool, BoxError> {
                let [stored, added] = ctx.keyed().map(self.id, &self.name)?.get(encoded(key))?;
                Ok(!stored.is_empty() || !added.is_empty())
            }

            /// All keys, in no order.
            ///
            /// # Errors
            /// When the state is not declared, or the runner cannot tell a map's keys.
            pub fn keys(&self, ctx: &mut impl Keyed) -> Result<Vec<K>, BoxError> {
                let keys = ctx.keyed().map(self.id, &self.name)?.keys(cut_key::<K>)?;
                let decoded = keys.iter().map(|key| K::decode(&mut &key[..], true));
                decoded.collect::<Result<_, _>>().map_err(Into::into)
            }

            /// Whether there are no keys.
            ///
            /// # Errors
            /// When the state is not declared, or the runner cannot tell a map's keys.
            pub fn is_empty(&self, ctx: &mut impl Keyed) -> Result<bool, BoxError> {
                Ok(ctx
                    .keyed()
                    .map(self.id, &self.name)?
                    .keys(cut_key::<K>)?
                    .is_empty())
            }

            /// Asks for what is under a key, and does not wait for it: the ways of several states to the runner and
            /// back are then one. It only pays where all are asked before the first is read.
            ///
            /// # Errors
            /// When the state is not declared.
            pub fn get_later(&self, ctx: &mut impl Keyed, key: &K) -> DoFnResult {
                ctx.keyed()
                    .map(self.id, &self.name)?
                    .begin_get(encoded(key))
            }

            /// Asks for the keys, as [`Self::get_later`] does for a value.
            ///
            /// # Errors
            /// When the state is not declared.
            pub fn keys_later(&self, ctx: &mut impl Keyed) -> DoFnResult {
                ctx.keyed().map(self.id, &self.name)?.begin_keys()
            }

            /// Asks for the entries, as [`Self::get_later`] does for a value.
            ///
            /// # Errors
            /// When the state is not declared.
            pub fn entries_later(&self, ctx: &mut impl Keyed) -> DoFnResult {
                ctx.keyed().map(self.id, &self.name)?.begin_entries()
            }

            /// Removes what is under a key.
            ///
            /// # Errors
            /// When the state is not declared.
            pub fn remove(&self, ctx: &mut impl Keyed, key: &K) -> DoFnResult {
                ctx.keyed().map(self.id, &self.name)?.remove(encoded(key));
                Ok(())
            }

            /// Removes everything.
            ///
            /// # Errors
            /// When the state is not declared.
            pub fn clear(&self, ctx: &mut impl Keyed) -> DoFnResult {
                ctx.keyed().map(self.id, &self.name)?.clear();
                Ok(())
            }
        }
    };
}
common!(MapState);
common!(MultimapState);

impl<K: Element, V: Element> MapState<K, V> {
    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn get(&self, ctx: &mut impl Keyed, key: &K) -> Result<Option<V>, BoxError> {
        let pieces = ctx.keyed().map(self.id, &self.name)?.get(encoded(key))?;
        Ok(decode_all(pieces)?.pop())
    }

    /// Sets the value of a key. What is there is not read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn put(&self, ctx: &mut impl Keyed, key: &K, value: &V) -> DoFnResult {
        let map = ctx.keyed().map(self.id, &self.name)?;
        let key = encoded(key);
        map.remove(key.clone());
        value.encode(map.added(key), true);
        Ok(())
    }

    /// All keys with their values, in no order.
    ///
    /// # Errors
    /// When the state is not declared, or the runner cannot tell a map's keys.
    pub fn entries(&self, ctx: &mut impl Keyed) -> Result<Vec<(K, V)>, BoxError> {
        let entries = ctx.keyed().map(self.id, &self.name)?.entries(cut_entry::<K, V>)?;
        let mut all = Vec::with_capacity(entries.len());
        for (key, values) in entries {
            if let Some(value) = decode_all::<V>([&values, &[]])?.pop() {
                all.push((K::decode(&mut &key[..], true)?, value));
            }
        }
        Ok(all)
    }
}

impl<K: Element, V: Element> MultimapState<K, V> {
    /// The values of a key.
    ///
    /// # Errors
    /// When the state is not declared, or cannot be read.
    pub fn get(&self, ctx: &mut impl Keyed, key: &K) -> Result<Vec<V>, BoxError> {
        decode_all(ctx.keyed().map(self.id, &self.name)?.get(encoded(key))?)
    }

    /// Adds a value to a key. What is there is not read.
    ///
    /// # Errors
    /// When the state is not declared.
    pub fn add(&self, ctx: &mut impl Keyed, key: &K, value: &V) -> DoFnResult {
        value.encode(ctx.keyed().map(self.id, &self.name)?.added(encoded(key)), true);
        Ok(())
    }

    /// All keys with their values, in no order.
    ///
    /// # Errors
    /// When the state is not declared, or the runner cannot tell a map's keys.
    pub fn entries(&self, ctx: &mut impl Keyed) -> Result<Vec<(K, Vec<V>)>, BoxError> {
        let entries = ctx.keyed().map(self.id, &self.name)?.entries(cut_entry::<K, V>)?;
        let mut all = Vec::with_capacity(entries.len());
        for (key, values) in entries {
            all.push((K::decode(&mut &key[..], true)?, decode_all([&values, &[]])?));
        }
        Ok(all)
    }
}
