//! User state: what is committed, and what a running bundle has changed of it.
//!
//! One bundle at a time works on a key, so a bundle's changes never meet another's: they lie in an [`Overlay`] until
//! the bundle is committed.

mod committed;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::hash::FxHashMap;
use bytes::Bytes;
use purlin_model::{DecodeError, wire};
use thiserror::Error;

use crate::event::{BundleId, StateKey, StatePart};
use crate::graph::TransformId;
pub use committed::{CommittedState, StateContent, StateTooLarge};

/// Why a state or side-input request cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// The bundle has ended or never was.
    #[error("bundle {0} is not running, so it has no state")]
    UnknownBundle(BundleId),
    /// A part of a state that cannot be written or read in this way.
    #[error("state \"{state}\" cannot {operation} {part}")]
    Unsupported {
        /// Local name.
        state: String,
        /// Append or clear.
        operation: &'static str,
        /// Which part.
        part: &'static str,
    },
    /// Data that the part of the state cannot hold.
    #[error("data of state \"{state}\" cannot be read: {source}")]
    Data {
        /// Local name.
        state: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// Used as a bag, a multimap and an ordered list at the same time.
    #[error("state \"{state}\" is used as {used} but was {was}")]
    Kind {
        /// Local name.
        state: String,
        /// How it is used now.
        used: &'static str,
        /// How it was used before.
        was: &'static str,
    },
    /// A side input that the transform does not have.
    #[error("transform #{transform} has no side input \"{side_input}\" in this bundle's stage")]
    UnknownSideInput {
        /// Index.
        transform: u32,
        /// Local name.
        side_input: String,
    },
    /// A part of a side input that its access pattern does not have.
    #[error("side input \"{side_input}\" is {access} and cannot be read by {part}")]
    SideInputAccess {
        /// Local name.
        side_input: String,
        /// How it is declared.
        access: &'static str,
        /// How it is read.
        part: &'static str,
    },
    /// A window that cannot be read.
    #[error("window of side input \"{side_input}\" cannot be read: {source}")]
    Window {
        /// Local name.
        side_input: String,
        /// What is wrong.
        source: DecodeError,
    },
}

/// Names a state without its part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CellId {
    pub transform: TransformId,
    pub state: String,
}

/// A key's state in a window.
type Cells = BTreeMap<CellId, Cell>;

#[derive(Clone, Debug)]
enum Cell {
    Bag(Vec<Bytes>),
    Multimap(BTreeMap<Bytes, Vec<Bytes>>),
    OrderedList(BTreeMap<i64, Vec<Bytes>>),
}

/// All committed user state of a stage.
#[derive(Debug, Default)]
pub(crate) struct StateTable {
    keys: FxHashMap<Bytes, BTreeMap<Bytes, Cells>>,
}

/// What a bundle changed: key and window, then the cell.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    changes: BTreeMap<(Bytes, Bytes), BTreeMap<CellId, Change>>,
}

#[derive(Debug)]
enum Change {
    Bag {
        cleared: bool,
        added: Vec<Bytes>,
    },
    Multimap {
        cleared: bool,
        cleared_keys: BTreeSet<Bytes>,
        added: BTreeMap<Bytes, Vec<Bytes>>,
    },
    OrderedList {
        cleared: Vec<(i64, i64)>,
        added: BTreeMap<i64, Vec<Bytes>>,
    },
}

impl Change {
    fn kind(&self) -> &'static str {
        match self {
            Change::Bag { .. } => "a bag",
            Change::Multimap { .. } => "a multimap",
            Change::OrderedList { .. } => "an ordered list",
        }
    }

    fn new(part: &StatePart) -> Change {
        match part {
            StatePart::Bag => Change::Bag {
                cleared: false,
                added: Vec::new(),
            },
            StatePart::OrderedList(..) => Change::OrderedList {
                cleared: Vec::new(),
                added: BTreeMap::new(),
            },
            _ => Change::Multimap {
                cleared: false,
                cleared_keys: BTreeSet::new(),
                added: BTreeMap::new(),
            },
        }
    }
}

impl Cell {
    fn kind(&self) -> &'static str {
        match self {
            Cell::Bag(_) => "a bag",
            Cell::Multimap(_) => "a multimap",
            Cell::OrderedList(_) => "an ordered list",
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Cell::Bag(data) => data.is_empty(),
            Cell::Multimap(map) => map.is_empty(),
            Cell::OrderedList(list) => list.is_empty(),
        }
    }

    fn apply(&mut self, change: Change) {
        match (self, change) {
            (Cell::Bag(data), Change::Bag { cleared, added }) => {
                if cleared {
                    data.clear();
                }
                data.extend(added);
            }
            (
                Cell::Multimap(map),
                Change::Multimap {
                    cleared,
                    cleared_keys,
                    added,
                },
            ) => {
                if cleared {
                    map.clear();
                }
                cleared_keys.iter().for_each(|key| drop(map.remove(key)));
                for (key, data) in added {
                    map.entry(key).or_default().extend(data);
                }
            }
            (Cell::OrderedList(list), Change::OrderedList { cleared, added }) => {
                list.retain(|at, _| !in_ranges(&cleared, *at));
                for (at, data) in added {
                    list.entry(at).or_default().extend(data);
                }
            }
            // Checked when the change was made.
            (_, _) => debug_assert!(false, "a state changed its kind"),
        }
    }
}

fn in_ranges(ranges: &[(i64, i64)], at: i64) -> bool {
    ranges.iter().any(|&(start, end)| start <= at && at < end)
}

fn kind_of(part: &StatePart) -> &'static str {
    match part {
        StatePart::Bag => "a bag",
        StatePart::OrderedList(..) => "an ordered list",
        _ => "a multimap",
    }
}

impl StateTable {
    fn cell(&self, key: &StateKey) -> Option<&Cell> {
        let id = CellId {
            transform: key.transform,
            state: key.state.clone(),
        };
        self.keys.get(&key.key)?.get(&key.window)?.get(&id)
    }

    /// What a bundle sees.
    pub fn get(&self, overlay: &Overlay, key: &StateKey) -> Result<Vec<Bytes>, StateError> {
        let id = CellId {
            transform: key.transform,
            state: key.state.clone(),
        };
        let change = overlay
            .changes
            .get(&(key.key.clone(), key.window.clone()))
            .and_then(|cells| cells.get(&id));
        let cell = self.cell(key);
        self.check_kind(key, change)?;
        Ok(match &key.part {
            StatePart::Bag => {
                let (cleared, added) = match change {
                    Some(Change::Bag { cleared, added }) => (*cleared, added.as_slice()),
                    _ => (false, &[][..]),
                };
                let base = match cell {
                    Some(Cell::Bag(data)) if !cleared => data.as_slice(),
                    _ => &[],
                };
                base.iter().chain(added).cloned().collect()
            }
            StatePart::MultimapValues(map_key) => multimap_values(cell, change, map_key).cloned().collect(),
            StatePart::MultimapKeys => multimap_keys(cell, change).into_iter().cloned().collect(),
            StatePart::MultimapEntries => {
                let mut entries = Vec::new();
                for map_key in multimap_keys(cell, change) {
                    entries.push(map_key.clone());
                    entries.push(concat(multimap_values(cell, change, map_key)));
                }
                entries
            }
            StatePart::OrderedList(start, end) => {
                let (cleared, added) = match change {
                    Some(Change::OrderedList { cleared, added }) => (cleared.as_slice(), Some(added)),
                    _ => (&[][..], None),
                };
                let base = match cell {
                    Some(Cell::OrderedList(list)) => Some(list),
                    _ => None,
                };
                if start >= end {
                    return Ok(Vec::new());
                }
                let mut found: BTreeMap<i64, Vec<Bytes>> = BTreeMap::new();
                for (at, data) in base.into_iter().flat_map(|list| list.range(*start..*end)) {
                    if !in_ranges(cleared, *at) {
                        found.entry(*at).or_default().extend(data.iter().cloned());
                    }
                }
                for (at, data) in added.into_iter().flat_map(|list| list.range(*start..*end)) {
                    found.entry(*at).or_default().extend(data.iter().cloned());
                }
                found.into_values().flatten().collect()
            }
        })
    }

    fn check_kind(&self, key: &StateKey, change: Option<&Change>) -> Result<(), StateError> {
        let used = kind_of(&key.part);
        let was = change
            .map(Change::kind)
            .or_else(|| self.cell(key).map(Cell::kind))
            .unwrap_or(used);
        if was == used {
            Ok(())
        } else {
            Err(StateError::Kind {
                state: key.state.clone(),
                used,
                was,
            })
        }
    }

    fn change<'o>(&self, overlay: &'o mut Overlay, key: &StateKey) -> Result<&'o mut Change, StateError> {
        let id = CellId {
            transform: key.transform,
            state: key.state.clone(),
        };
        let cells = overlay
            .changes
            .entry((key.key.clone(), key.window.clone()))
            .or_default();
        self.check_kind(key, cells.get(&id))?;
        Ok(cells.entry(id).or_insert_with(|| Change::new(&key.part)))
    }

    /// Adds to a bundle's overlay.
    pub fn append(&self, overlay: &mut Overlay, key: &StateKey, data: Bytes) -> Result<(), StateError> {
        let unsupported = |part| StateError::Unsupported {
            state: key.state.clone(),
            operation: "append to",
            part,
        };
        match &key.part {
            StatePart::MultimapKeys => return Err(unsupported("the keys of a multimap")),
            StatePart::MultimapEntries => return Err(unsupported("the entries of a multimap")),
            _ => {}
        }
        let entries = match &key.part {
            StatePart::OrderedList(..) => ordered_entries(&data).map_err(|source| StateError::Data {
                state: key.state.clone(),
                source,
            })?,
            _ => Vec::new(),
        };
        match (self.change(overlay, key)?, &key.part) {
            (Change::Bag { added, .. }, _) => added.push(owned(data)),
            (Change::Multimap { added, .. }, StatePart::MultimapValues(map_key)) => {
                added.entry(owned(map_key.clone())).or_default().push(owned(data));
            }
            (Change::OrderedList { added, .. }, _) => {
                for (at, entry) in entries {
                    added.entry(at).or_default().push(entry);
                }
            }
            (Change::Multimap { .. }, _) => {}
        }
        Ok(())
    }

    /// Clears in a bundle's overlay.
    pub fn clear(&self, overlay: &mut Overlay, key: &StateKey) -> Result<(), StateError> {
        if key.part == StatePart::MultimapEntries {
            let (operation, part) = ("clear", "the entries of a multimap (clear its keys)");
            return Err(StateError::Unsupported {
                state: key.state.clone(),
                operation,
                part,
            });
        }
        match (self.change(overlay, key)?, &key.part) {
            (Change::Bag { cleared, added }, _) => {
                *cleared = true;
                added.clear();
            }
            (
                Change::Multimap {
                    cleared_keys, added, ..
                },
                StatePart::MultimapValues(map_key),
            ) => {
                added.remove(map_key);
                cleared_keys.insert(map_key.clone());
            }
            (
                Change::Multimap {
                    cleared,
                    cleared_keys,
                    added,
                },
                _,
            ) => {
                *cleared = true;
                cleared_keys.clear();
                added.clear();
            }
            (Change::OrderedList { cleared, added }, StatePart::OrderedList(start, end)) => {
                added.retain(|at, _| !(start <= at && at < end));
                cleared.push((*start, *end));
            }
            (Change::OrderedList { .. }, _) => {}
        }
        Ok(())
    }

    /// Makes a bundle's changes permanent. Returns key and window of each state that is there now.
    pub fn commit(&mut self, overlay: Overlay) -> Vec<(Bytes, Bytes)> {
        let mut touched = Vec::new();
        for ((key, window), changes) in overlay.changes {
            let key = Bytes::copy_from_slice(&key);
            let window = Bytes::copy_from_slice(&window);
            let windows = self.keys.entry(key.clone()).or_default();
            let cells = windows.entry(window.clone()).or_default();
            for (id, change) in changes {
                let empty = || match &change {
                    Change::Bag { .. } => Cell::Bag(Vec::new()),
                    Change::Multimap { .. } => Cell::Multimap(BTreeMap::new()),
                    Change::OrderedList { .. } => Cell::OrderedList(BTreeMap::new()),
                };
                let mut cell = cells.remove(&id).unwrap_or_else(empty);
                cell.apply(change);
                if !cell.is_empty() {
                    cells.insert(id, cell);
                }
            }
            if cells.is_empty() {
                windows.remove(&window);
            } else {
                touched.push((key.clone(), window));
            }
            if windows.is_empty() {
                self.keys.remove(&key);
            }
        }
        touched
    }

    /// Forgets the state of a key in a window that has expired.
    pub fn collect(&mut self, key: &Bytes, window: &Bytes) {
        if let Some(windows) = self.keys.get_mut(key) {
            windows.remove(window);
            if windows.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn multimap_values<'a>(
    cell: Option<&'a Cell>,
    change: Option<&'a Change>,
    map_key: &Bytes,
) -> impl Iterator<Item = &'a Bytes> {
    let (hidden, added) = match change {
        Some(Change::Multimap {
            cleared,
            cleared_keys,
            added,
        }) => (*cleared || cleared_keys.contains(map_key), added.get(map_key)),
        _ => (false, None),
    };
    let base = match cell {
        Some(Cell::Multimap(map)) if !hidden => map.get(map_key),
        _ => None,
    };
    base.into_iter().flatten().chain(added.into_iter().flatten())
}

fn multimap_keys<'a>(cell: Option<&'a Cell>, change: Option<&'a Change>) -> BTreeSet<&'a Bytes> {
    let mut keys = BTreeSet::new();
    let (cleared, cleared_keys, added) = match change {
        Some(Change::Multimap {
            cleared,
            cleared_keys,
            added,
        }) => (*cleared, Some(cleared_keys), Some(added)),
        _ => (false, None, None),
    };
    if let (Some(Cell::Multimap(map)), false) = (cell, cleared) {
        keys.extend(
            map.keys()
                .filter(|key| cleared_keys.is_none_or(|cleared| !cleared.contains(*key))),
        );
    }
    keys.extend(added.into_iter().flat_map(|added| added.keys()));
    keys
}

pub(crate) fn concat<'a>(parts: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let parts: Vec<&Bytes> = parts.collect();
    match parts.as_slice() {
        [] => Bytes::new(),
        [one] => (*one).clone(),
        many => {
            let mut out = Vec::with_capacity(many.iter().map(|part| part.len()).sum());
            many.iter().for_each(|part| out.extend_from_slice(part));
            out.into()
        }
    }
}

/// A small piece keeps no large message in memory.
pub(crate) fn owned(data: Bytes) -> Bytes {
    if data.len() <= 64 << 10 {
        Bytes::copy_from_slice(&data)
    } else {
        data
    }
}

/// Entries of an ordered list: sort key as a varint, length-prefixed value.
fn ordered_entries(data: &Bytes) -> Result<Vec<(i64, Bytes)>, DecodeError> {
    let mut rest = &data[..];
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let start = data.len() - rest.len();
        let at = wire::read_varint(&mut rest)? as i64;
        wire::read_bytes(&mut rest, true)?;
        entries.push((at, owned(data.slice(start..data.len() - rest.len()))));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use purlin_model::state_rules::{Part, RULES, Rule, Step};

    use super::*;

    fn key(part: StatePart) -> StateKey {
        let (window, key) = (Bytes::new(), Bytes::from_static(b"k"));
        StateKey {
            transform: TransformId(1),
            state: "s".into(),
            window,
            key,
            part,
        }
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn part(part: Part) -> StateKey {
        key(match part {
            Part::Bag => StatePart::Bag,
            Part::Values(map_key) => StatePart::MultimapValues(bytes(map_key)),
            Part::Keys => StatePart::MultimapKeys,
            Part::Entries => StatePart::MultimapEntries,
            Part::List(start, end) => StatePart::OrderedList(start, end),
        })
    }

    /// An entry of an ordered list.
    fn entry(at: i64, value: &str) -> Bytes {
        let mut out = Vec::new();
        wire::write_varint(at as u64, &mut out);
        wire::write_bytes(value.as_bytes(), &mut out, true);
        out.into()
    }

    /// What was read, as the table of rules has it.
    fn found(part: Part, pieces: &[Bytes]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let of_list = |piece: &Bytes| {
            let mut rest = &piece[..];
            let at = wire::read_varint(&mut rest).unwrap() as i64;
            format!("{at}={}", text(wire::read_bytes(&mut rest, true).unwrap()))
        };
        match part {
            Part::List(..) => pieces.iter().map(of_list).collect(),
            _ => pieces.iter().map(|piece| text(piece)).collect(),
        }
    }

    #[test]
    fn the_rules_of_state_hold() -> Result<(), StateError> {
        for Rule { says, bundles } in RULES {
            let mut table = StateTable::default();
            for steps in *bundles {
                let mut overlay = Overlay::default();
                for step in *steps {
                    match *step {
                        Step::Add(to @ Part::List(at, _), value) => {
                            table.append(&mut overlay, &part(to), entry(at, value))?;
                        }
                        Step::Add(to, value) => table.append(&mut overlay, &part(to), bytes(value))?,
                        Step::Clear(what) => table.clear(&mut overlay, &part(what))?,
                        Step::Finds(what, expected) => {
                            let pieces = table.get(&overlay, &part(what))?;
                            assert_eq!(found(what, &pieces), expected, "{says}: {step:?}");
                        }
                    }
                }
                table.commit(overlay);
            }
        }
        Ok(())
    }

    #[test]
    fn a_bundle_that_fails_leaves_nothing_and_what_is_empty_takes_no_room() -> Result<(), StateError> {
        let mut table = StateTable::default();
        let bag = key(StatePart::Bag);
        let mut overlay = Overlay::default();
        table.append(&mut overlay, &bag, bytes("a"))?;
        drop(overlay);
        assert!(table.get(&Overlay::default(), &bag)?.is_empty());
        let mut overlay = Overlay::default();
        table.append(&mut overlay, &bag, bytes("a"))?;
        assert_eq!(table.commit(overlay).len(), 1);
        let mut overlay = Overlay::default();
        table.clear(&mut overlay, &bag)?;
        assert!(table.commit(overlay).is_empty());
        assert!(table.is_empty());
        Ok(())
    }

    #[test]
    fn what_a_part_cannot_take_is_an_error() {
        let table = StateTable::default();
        let mut overlay = Overlay::default();
        let mut append = |part, data: &str| table.append(&mut overlay, &key(part), bytes(data)).is_err();
        assert!(append(StatePart::MultimapKeys, "q"));
        assert!(append(StatePart::MultimapEntries, "q"));
        assert!(append(StatePart::OrderedList(0, 0), "\u{1}"));
        assert!(
            table
                .clear(&mut overlay, &key(StatePart::MultimapEntries))
                .is_err()
        );
    }

    #[test]
    fn kinds_do_not_mix() -> Result<(), StateError> {
        let table = StateTable::default();
        let mut overlay = Overlay::default();
        table.append(&mut overlay, &key(StatePart::Bag), bytes("a"))?;
        let error = table.get(&overlay, &key(StatePart::MultimapKeys));
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err("state \"s\" is used as a multimap but was a bag".into())
        );
        Ok(())
    }
}
