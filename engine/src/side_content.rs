//! What a window of a side input holds, by key: elements of no firing, which add up, and those of firings, of which the
//! latest counts.

use alloc::vec;
use alloc::vec::Vec;

use crate::hash::FxHashMap;
use bytes::Bytes;

/// About so many bytes are read at a time.
const PAGE_BYTES: usize = 1 << 20;

/// Values by key. Of a collection that is no pairs all have the empty key.
#[derive(Debug, Default)]
pub(crate) struct ByKey {
    /// Keys in the order in which they came.
    order: Vec<Bytes>,
    /// What came of no firing.
    plain: FxHashMap<Bytes, Vec<Bytes>>,
    /// What came of firings.
    fired: FxHashMap<Bytes, Fired>,
    /// The pane index of the latest firing of any key.
    latest: i64,
}

/// What firings gave for a key.
#[derive(Debug, Default)]
struct Fired {
    /// The pane index of the latest one.
    index: i64,
    values: Vec<Bytes>,
}

impl ByKey {
    /// Adds a value that comes of no firing.
    pub fn add(&mut self, key: &[u8], value: Bytes) {
        match self.plain.get_mut(key) {
            Some(values) => values.push(value),
            None => {
                let key = self.remember(key);
                self.plain.insert(key, vec![value]);
            }
        }
    }

    /// Adds a value of a firing to those of others.
    pub fn add_fired(&mut self, key: &[u8], value: Bytes, index: i64) {
        self.latest = self.latest.max(index);
        match self.fired.get_mut(key) {
            Some(fired) => {
                fired.values.push(value);
                fired.index = fired.index.max(index);
            }
            None => {
                let values = vec![value];
                let key = self.remember(key);
                self.fired.insert(key, Fired { index, values });
            }
        }
    }

    /// Adds a value of a key's firing, which replaces those of the key's earlier firings. One of an earlier firing than
    /// the latest comes too late.
    pub fn replace(&mut self, key: &[u8], value: Bytes, index: i64) {
        if let Some(fired) = self.fired.get_mut(key) {
            if index < fired.index {
                return;
            }
            if index > fired.index {
                fired.values.clear();
            }
        }
        self.add_fired(key, value, index);
    }

    /// Adds a value of a firing, which replaces those of earlier firings, whatever keys they have. One of an earlier
    /// firing than the latest comes too late.
    pub fn replace_all(&mut self, key: &[u8], value: Bytes, index: i64) {
        if index < self.latest {
            return;
        }
        if index > self.latest {
            self.fired.clear();
            self.order.retain(|key| self.plain.contains_key(key));
        }
        self.add_fired(key, value, index);
    }

    fn remember(&mut self, key: &[u8]) -> Bytes {
        let plain = self.plain.get_key_value(key).map(|(key, _)| key);
        let known = plain
            .or_else(|| self.fired.get_key_value(key).map(|(key, _)| key))
            .cloned();
        known.unwrap_or_else(|| {
            let key = Bytes::copy_from_slice(key);
            self.order.push(key.clone());
            key
        })
    }

    pub fn keys(&self) -> &[Bytes] {
        &self.order
    }

    /// The values of a key.
    pub fn of(&self, key: &[u8]) -> impl Iterator<Item = &Bytes> + Clone {
        let plain = self.plain.get(key).into_iter().flatten();
        plain.chain(self.fired.get(key).into_iter().flat_map(|fired| &fired.values))
    }

    /// All values, one after another, in pages.
    pub fn all(&self) -> Vec<Bytes> {
        let mut pages = Pages::default();
        for value in self.order.iter().flat_map(|key| self.of(key)) {
            pages.out.extend_from_slice(value);
            pages.turn();
        }
        pages.finish()
    }

    /// Pairs of key and iterable of values, encoded, in pages.
    pub fn entries(&self) -> Vec<Bytes> {
        let mut pages = Pages::default();
        for key in &self.order {
            let values = self.of(key);
            pages.out.extend_from_slice(key);
            let count = values.clone().count() as u32;
            pages.out.extend_from_slice(&count.to_be_bytes());
            values.for_each(|value| pages.out.extend_from_slice(value));
            pages.turn();
        }
        pages.finish()
    }
}

#[derive(Default)]
struct Pages {
    out: Vec<u8>,
    full: Vec<Bytes>,
}

impl Pages {
    fn turn(&mut self) {
        if self.out.len() >= PAGE_BYTES {
            self.full.push(core::mem::take(&mut self.out).into());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.out.is_empty() {
            self.full.push(self.out.into());
        }
        self.full
    }
}
