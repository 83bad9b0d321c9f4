//! The state of one key and window during a bundle: read once, written when the bundle ends.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use purlin_model::{DecodeError, wire};
use purlin_proto::fn_execution::{OrderedListRange, state_key};
use rustc_hash::FxHashMap;

use super::bundle::BundleCell;
use super::field::FieldKind;
use crate::error::BoxError;

/// An encoded key of a map, and its encoded values one after the other.
pub type MapEntry = (Vec<u8>, Vec<u8>);

/// Where a cell's state lies at the runner.
#[derive(Clone, Debug)]
pub(crate) struct CellAddress {
    pub transform_id: String,
    pub state: String,
    pub window: Bytes,
    pub key: Bytes,
}

impl CellAddress {
    fn bag(&self) -> state_key::Type {
        state_key::Type::BagUserState(state_key::BagUserState {
            transform_id: self.transform_id.clone(),
            user_state_id: self.state.clone(),
            window: self.window.clone(),
            key: self.key.clone(),
        })
    }

    fn map_keys(&self) -> state_key::Type {
        state_key::Type::MultimapKeysUserState(state_key::MultimapKeysUserState {
            transform_id: self.transform_id.clone(),
            user_state_id: self.state.clone(),
            window: self.window.clone(),
            key: self.key.clone(),
        })
    }

    fn map_entries(&self) -> state_key::Type {
        state_key::Type::MultimapEntriesUserState(state_key::MultimapEntriesUserState {
            transform_id: self.transform_id.clone(),
            user_state_id: self.state.clone(),
            window: self.window.clone(),
            key: self.key.clone(),
        })
    }

    fn map_values(&self, map_key: &[u8]) -> state_key::Type {
        state_key::Type::MultimapUserState(state_key::MultimapUserState {
            transform_id: self.transform_id.clone(),
            user_state_id: self.state.clone(),
            window: self.window.clone(),
            key: self.key.clone(),
            map_key: Bytes::copy_from_slice(map_key),
        })
    }

    /// A range of a list; added values belong to no range.
    fn list(&self, range: Option<(i64, i64)>) -> state_key::Type {
        state_key::Type::OrderedListUserState(state_key::OrderedListUserState {
            transform_id: self.transform_id.clone(),
            user_state_id: self.state.clone(),
            window: self.window.clone(),
            key: self.key.clone(),
            range: range.map(|(start, end)| OrderedListRange { start, end }),
        })
    }
}

/// What is stored under one state key, and what the bundle does to it.
#[derive(Debug, Default)]
struct Contents {
    /// What the runner has, once it was read.
    stored: Option<Bytes>,
    /// What the runner has is to be removed.
    cleared: bool,
    added: Vec<u8>,
}

impl Contents {
    fn read(
        &mut self,
        io: &BundleCell,
        key: impl FnOnce() -> state_key::Type,
        map: Option<&state_key::Type>,
    ) -> Result<(), BoxError> {
        if self.stored.is_none() && !self.cleared {
            self.stored = Some(io.read_cached(key(), map)?);
        }
        Ok(())
    }

    /// Begins what [`Contents::read`] ends.
    fn begin_read(
        &self,
        io: &BundleCell,
        key: impl FnOnce() -> state_key::Type,
        map: Option<&state_key::Type>,
    ) -> Result<(), BoxError> {
        if self.stored.is_none() && !self.cleared {
            io.begin_cached_read(key(), map)?;
        }
        Ok(())
    }

    fn pieces(&self) -> [&[u8]; 2] {
        let stored = self.stored.as_deref().filter(|_| !self.cleared);
        [stored.unwrap_or_default(), &self.added]
    }

    fn clear(&mut self) {
        self.cleared = true;
        self.added.clear();
    }

    /// Writes what changed. What is then stored, if it is known, is cached.
    fn flush(
        &mut self,
        io: &BundleCell,
        key: impl FnOnce() -> state_key::Type,
        map: Option<&state_key::Type>,
    ) -> Result<(), BoxError> {
        if !self.cleared && self.added.is_empty() {
            return Ok(());
        }
        let key = key();
        let added = Bytes::from(std::mem::take(&mut self.added));
        let was_empty = self.stored.as_ref().is_some_and(Bytes::is_empty);
        if self.cleared && !was_empty {
            io.clear(key.clone())?;
        }
        if !added.is_empty() {
            io.append(key.clone(), added.clone())?;
        }
        let now = match (&self.stored, self.cleared) {
            (_, true) => Some(added),
            (Some(stored), false) if stored.is_empty() => Some(added),
            (Some(stored), false) => Some([&stored[..], &added[..]].concat().into()),
            (None, false) => None,
        };
        io.written(&key, now, map);
        Ok(())
    }
}

/// A bag, value or accumulator.
pub struct BagCell {
    address: CellAddress,
    io: Rc<BundleCell>,
    contents: Contents,
}

impl BagCell {
    /// Encoded elements: those stored and those added.
    pub(crate) fn read(&mut self) -> Result<[&[u8]; 2], BoxError> {
        let BagCell {
            address,
            io,
            contents,
        } = self;
        contents.read(io, || address.bag(), None)?;
        Ok(contents.pieces())
    }

    pub(crate) fn begin_read(&mut self) -> Result<(), BoxError> {
        let BagCell {
            address,
            io,
            contents,
        } = self;
        contents.begin_read(io, || address.bag(), None)
    }

    /// Where added elements are encoded to.
    pub(crate) fn added(&mut self) -> &mut Vec<u8> {
        &mut self.contents.added
    }

    pub(crate) fn clear(&mut self) {
        self.contents.clear();
    }
}

/// Cuts concatenated elements apart.
type Cut = fn(&[u8], &mut BTreeSet<Vec<u8>>) -> Result<(), BoxError>;

/// A set: a bag on the wire, in which a value may come several times.
pub struct SetCell {
    bag: BagCell,
    /// All values, once they were read.
    elements: Option<BTreeSet<Vec<u8>>>,
    /// A value was removed: the bag is written anew.
    removed: bool,
}

impl SetCell {
    /// The encoded values.
    pub(crate) fn elements(&mut self, cut: Cut) -> Result<&BTreeSet<Vec<u8>>, BoxError> {
        self.load(cut).map(|elements| &*elements)
    }

    pub(crate) fn begin_read(&mut self) -> Result<(), BoxError> {
        match self.elements {
            Some(_) => Ok(()),
            None => self.bag.begin_read(),
        }
    }

    fn load(&mut self, cut: Cut) -> Result<&mut BTreeSet<Vec<u8>>, BoxError> {
        let elements = match self.elements.take() {
            Some(elements) => elements,
            None => {
                let mut elements = BTreeSet::new();
                for piece in self.bag.read()? {
                    cut(piece, &mut elements)?;
                }
                elements
            }
        };
        Ok(self.elements.insert(elements))
    }

    pub(crate) fn add(&mut self, element: Vec<u8>) {
        match &mut self.elements {
            Some(elements) => {
                if !elements.contains(&element) {
                    self.bag.contents.added.extend_from_slice(&element);
                    elements.insert(element);
                }
            }
            None => self.bag.contents.added.extend_from_slice(&element),
        }
    }

    pub(crate) fn remove(&mut self, element: &[u8], cut: Cut) -> Result<bool, BoxError> {
        let there = self.load(cut)?.remove(element);
        self.removed |= there;
        Ok(there)
    }

    pub(crate) fn clear(&mut self) {
        self.bag.clear();
        self.elements = Some(BTreeSet::new());
        self.removed = false;
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        if let Some(elements) = self.elements.as_ref().filter(|_| self.removed) {
            self.bag.clear();
            self.bag.contents.added = elements.iter().flatten().copied().collect();
        }
        let BagCell {
            address,
            io,
            contents,
        } = &mut self.bag;
        contents.flush(io, || address.bag(), None)
    }
}

/// A map or multimap.
pub struct MapCell {
    address: CellAddress,
    io: Rc<BundleCell>,
    /// All that the runner has is to be removed.
    cleared: bool,
    values: FxHashMap<Vec<u8>, Contents>,
    /// The keys that the runner has, once they were read.
    keys: Option<Vec<Vec<u8>>>,
}

impl MapCell {
    fn contents(&mut self, key: Vec<u8>) -> &mut Contents {
        let gone = self.cleared.then(Bytes::new);
        self.values.entry(key).or_insert_with(|| Contents {
            stored: gone,
            ..Contents::default()
        })
    }

    /// Encoded values of a key: those stored and those added.
    pub(crate) fn get(&mut self, key: Vec<u8>) -> Result<[&[u8]; 2], BoxError> {
        let (address, io) = (self.address.clone(), self.io.clone());
        let contents = self.contents(key.clone());
        contents.read(&io, || address.map_values(&key), Some(&address.map_keys()))?;
        Ok(contents.pieces())
    }

    pub(crate) fn begin_get(&mut self, key: Vec<u8>) -> Result<(), BoxError> {
        let (address, io) = (self.address.clone(), self.io.clone());
        let contents = self.contents(key.clone());
        contents.begin_read(&io, || address.map_values(&key), Some(&address.map_keys()))
    }

    pub(crate) fn begin_keys(&mut self) -> Result<(), BoxError> {
        match self.keys {
            Some(_) => Ok(()),
            None => self.io.begin_read(self.address.map_keys()),
        }
    }

    pub(crate) fn begin_entries(&mut self) -> Result<(), BoxError> {
        match self.cleared {
            true => Ok(()),
            false => self.io.begin_read(self.address.map_entries()),
        }
    }

    /// Where added values of a key are encoded to.
    pub(crate) fn added(&mut self, key: Vec<u8>) -> &mut Vec<u8> {
        &mut self.contents(key).added
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.contents(key).clear();
    }

    pub(crate) fn clear(&mut self) {
        self.cleared = true;
        self.values.clear();
        self.keys = Some(Vec::new());
    }

    /// The encoded keys under which something is.
    pub(crate) fn keys(
        &mut self,
        cut: fn(&mut &[u8]) -> Result<Vec<u8>, DecodeError>,
    ) -> Result<BTreeSet<Vec<u8>>, BoxError> {
        if self.keys.is_none() {
            let data = self.io.read(self.address.map_keys())?;
            let mut rest = &data[..];
            let mut keys = Vec::new();
            while !rest.is_empty() {
                keys.push(cut(&mut rest)?);
            }
            self.keys = Some(keys);
        }
        let mut keys: BTreeSet<Vec<u8>> = self.keys.iter().flatten().cloned().collect();
        for (key, contents) in &self.values {
            let stored = !contents.cleared && keys.contains(key);
            if stored || !contents.added.is_empty() {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        Ok(keys)
    }

    /// All keys with their encoded values.
    pub(crate) fn entries(
        &mut self,
        cut: fn(&mut &[u8]) -> Result<MapEntry, DecodeError>,
    ) -> Result<Vec<MapEntry>, BoxError> {
        let mut stored: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        if !self.cleared {
            let data = self.io.read(self.address.map_entries())?;
            let mut rest = &data[..];
            while !rest.is_empty() {
                let (key, values) = cut(&mut rest)?;
                stored.insert(key, values);
            }
            self.keys = Some(stored.keys().cloned().collect());
        }
        for (key, contents) in &self.values {
            if contents.cleared {
                stored.remove(key);
            }
            if !contents.added.is_empty() {
                stored
                    .entry(key.clone())
                    .or_default()
                    .extend_from_slice(&contents.added);
            }
        }
        Ok(stored.into_iter().collect())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        let keys = self.address.map_keys();
        if self.cleared {
            self.io.clear(keys.clone())?;
            self.io.forget_map(&keys);
        }
        let (address, io) = (&self.address, &self.io);
        for (key, contents) in &mut self.values {
            contents.flush(io, || address.map_values(key), Some(&keys))?;
        }
        Ok(())
    }
}

/// An ordered list.
pub struct ListCell {
    address: CellAddress,
    io: Rc<BundleCell>,
    /// Ranges that need not be read (again), disjoint: start to end.
    known: BTreeMap<i64, i64>,
    stored: BTreeMap<i64, Vec<Vec<u8>>>,
    added: BTreeMap<i64, Vec<Vec<u8>>>,
    cleared: Vec<(i64, i64)>,
}

impl ListCell {
    /// The parts of a range that are not known.
    fn gaps(&self, start: i64, end: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut at = start;
        let before = self.known.range(..=start).next_back().map(|(s, e)| (*s, *e));
        let inside = self.known.range(start..end).map(|(s, e)| (*s, *e));
        for (known_start, known_end) in before.into_iter().chain(inside) {
            if known_start > at {
                gaps.push((at, known_start.min(end)));
            }
            at = at.max(known_end);
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }

    fn know(&mut self, start: i64, end: i64) {
        let (mut start, mut end) = (start, end);
        let touching: Vec<(i64, i64)> = self.known.range(..=end).map(|(s, e)| (*s, *e)).collect();
        for (known_start, known_end) in touching {
            if known_end >= start {
                self.known.remove(&known_start);
                start = start.min(known_start);
                end = end.max(known_end);
            }
        }
        self.known.insert(start, end);
    }

    pub(crate) fn begin_read(&mut self, start: i64, end: i64) -> Result<(), BoxError> {
        for gap in self.gaps(start, end) {
            self.io.begin_read(self.address.list(Some(gap)))?;
        }
        Ok(())
    }

    /// The values of a range, in order, each with its number.
    pub(crate) fn read(&mut self, start: i64, end: i64) -> Result<Vec<(i64, Vec<u8>)>, BoxError> {
        for (gap_start, gap_end) in self.gaps(start, end) {
            let data = self.io.read(self.address.list(Some((gap_start, gap_end))))?;
            let mut rest = &data[..];
            while !rest.is_empty() {
                let number = wire::read_varint(&mut rest)? as i64;
                let value = wire::read_bytes(&mut rest, true)?.to_vec();
                self.stored.entry(number).or_default().push(value);
            }
            self.know(gap_start, gap_end);
        }
        if start >= end {
            return Ok(Vec::new());
        }
        let mut numbers: BTreeSet<i64> = self.stored.range(start..end).map(|(n, _)| *n).collect();
        numbers.extend(self.added.range(start..end).map(|(n, _)| *n));
        let mut all = Vec::new();
        for number in numbers {
            let stored = self.stored.get(&number).into_iter().flatten();
            let values = stored.chain(self.added.get(&number).into_iter().flatten());
            all.extend(values.map(|value| (number, value.clone())));
        }
        Ok(all)
    }

    pub(crate) fn add(&mut self, number: i64, value: Vec<u8>) {
        self.added.entry(number).or_default().push(value);
    }

    pub(crate) fn clear(&mut self, start: i64, end: i64) {
        if start >= end {
            return;
        }
        for list in [&mut self.stored, &mut self.added] {
            let numbers: Vec<i64> = list.range(start..end).map(|(n, _)| *n).collect();
            for number in numbers {
                list.remove(&number);
            }
        }
        self.know(start, end);
        self.cleared.push((start, end));
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        for (start, end) in self.cleared.drain(..) {
            self.io.clear(self.address.list(Some((start, end))))?;
        }
        let mut data = Vec::new();
        for (number, values) in std::mem::take(&mut self.added) {
            for value in values {
                wire::write_varint(number as u64, &mut data);
                wire::write_bytes(&value, &mut data, true);
            }
        }
        if !data.is_empty() {
            self.io.append(self.address.list(None), data.into())?;
        }
        Ok(())
    }
}

/// One state of one key and window.
pub(crate) enum Cell {
    Bag(BagCell),
    Set(SetCell),
    Map(MapCell),
    List(ListCell),
}

impl Cell {
    /// A cell of which nothing was read. `None`: the field is no state.
    pub fn new(kind: &FieldKind, address: CellAddress, io: Rc<BundleCell>) -> Option<Cell> {
        let bag = |address, io| BagCell {
            address,
            io,
            contents: Contents::default(),
        };
        Some(match kind {
            FieldKind::Value(_) | FieldKind::Bag(_) | FieldKind::Combining(_) => Cell::Bag(bag(address, io)),
            FieldKind::Set(_) => Cell::Set(SetCell {
                bag: bag(address, io),
                elements: None,
                removed: false,
            }),
            FieldKind::Map(..) | FieldKind::Multimap(..) => Cell::Map(MapCell {
                address,
                io,
                cleared: false,
                values: FxHashMap::default(),
                keys: None,
            }),
            FieldKind::OrderedList(_) => Cell::List(ListCell {
                address,
                io,
                known: BTreeMap::new(),
                stored: BTreeMap::new(),
                added: BTreeMap::new(),
                cleared: Vec::new(),
            }),
            FieldKind::Timer(_) => return None,
        })
    }

    /// Writes what changed.
    pub fn flush(&mut self) -> Result<(), BoxError> {
        match self {
            Cell::Bag(BagCell {
                address,
                io,
                contents,
            }) => contents.flush(io, || address.bag(), None),
            Cell::Set(set) => set.flush(),
            Cell::Map(map) => map.flush(),
            Cell::List(list) => list.flush(),
        }
    }
}
