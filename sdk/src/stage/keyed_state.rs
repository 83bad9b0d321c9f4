//! The states and timers of a step: those of the key at hand, and those that the bundle touched before.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use purlin_model::timer::{Timer as WireTimer, TimerFiring};
use purlin_model::{PaneInfo, Timestamp, Window};
use rustc_hash::FxHashMap;

use super::bundle::BundleCell;
use super::cells::{BagCell, Cell, CellAddress, ListCell, MapCell, SetCell};
use super::field::{FieldKind, FieldSpec, TimeDomain};
use crate::error::{BoxError, DoFnResult};

/// The states and timers of a step.
pub struct KeyedState {
    transform_id: String,
    bundle: Rc<BundleCell>,
    fields: Vec<FieldSpec>,
    /// Of the keys and windows that the bundle has touched.
    entries: Vec<Entry>,
    by_key: FxHashMap<(Bytes, Window), usize>,
    current: usize,
    /// The timestamp and pane of the element or timer at hand.
    timestamp: Timestamp,
    pane: PaneInfo,
    /// Timers that were set or cleared, encoded, by family.
    timers: Vec<(Arc<str>, Vec<u8>)>,
    /// What became of the timers that this bundle has touched: `None` is cleared.
    touched: FxHashMap<TimerName, Option<Timestamp>>,
    /// The runner wants the windows of timers without their largest timestamps.
    opaque_windows: bool,
}

struct Entry {
    key: Bytes,
    window: Window,
    cells: Vec<Option<Cell>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TimerName {
    family: u64,
    entry: usize,
    tag: String,
}

impl KeyedState {
    pub(crate) fn new(
        transform_id: String,
        bundle: Rc<BundleCell>,
        fields: Vec<FieldSpec>,
        opaque_windows: bool,
    ) -> KeyedState {
        let families = fields
            .iter()
            .filter(|field| matches!(field.kind, FieldKind::Timer(_)));
        KeyedState {
            transform_id,
            bundle,
            timers: families.map(|field| (field.name.clone(), Vec::new())).collect(),
            fields,
            entries: Vec::new(),
            by_key: FxHashMap::default(),
            current: 0,
            timestamp: Timestamp::MIN,
            pane: PaneInfo::NO_FIRING,
            touched: FxHashMap::default(),
            opaque_windows,
        }
    }

    pub(crate) fn fields(&self) -> &[FieldSpec] {
        &self.fields
    }

    pub(crate) fn start(&mut self) {
        self.entries.clear();
        self.by_key.clear();
        self.touched.clear();
        self.timers.iter_mut().for_each(|(_, data)| data.clear());
    }

    /// Turns to a key and window.
    pub(crate) fn enter(&mut self, key: &[u8], window: &Window, timestamp: Timestamp, pane: PaneInfo) {
        self.timestamp = timestamp;
        self.pane = pane;
        if self
            .entries
            .get(self.current)
            .is_some_and(|entry| entry.key == key && entry.window == *window)
        {
            return;
        }
        let name = (Bytes::copy_from_slice(key), window.clone());
        self.current = match self.by_key.get(&name) {
            Some(index) => *index,
            None => {
                let index = self.entries.len();
                let cells = self.fields.iter().map(|_| None).collect();
                self.entries.push(Entry {
                    key: name.0.clone(),
                    window: name.1.clone(),
                    cells,
                });
                self.by_key.insert(name, index);
                index
            }
        };
    }

    /// Writes all states that changed.
    pub(crate) fn flush(&mut self) -> Result<(), BoxError> {
        for entry in &mut self.entries {
            for (cell, field) in entry.cells.iter_mut().zip(&self.fields) {
                if let Some(cell) = cell {
                    cell.flush()
                        .map_err(|e| format!("state \"{}\" cannot be written: {e}", field.name))?;
                }
            }
        }
        self.entries.clear();
        self.by_key.clear();
        Ok(())
    }

    /// The timers that were set or cleared since they were taken last, by family.
    pub(crate) fn take_timers(&mut self) -> Vec<(String, Bytes)> {
        let waiting = self.timers.iter_mut().filter(|(_, data)| !data.is_empty());
        waiting
            .map(|(name, data)| (name.to_string(), std::mem::take(data).into()))
            .collect()
    }

    /// Whether the timer that the runner fires is still to fire: user code may have changed it in this very bundle.
    pub(crate) fn still_fires(&mut self, family: u64, tag: &str, at: Timestamp) -> bool {
        let name = TimerName {
            family,
            entry: self.current,
            tag: tag.to_owned(),
        };
        // A timer that was set anew comes again, with its new time.
        self.touched.get(&name).is_none_or(|now| *now == Some(at))
    }

    fn field(&self, id: u64, name: &str, what: &str) -> Result<usize, BoxError> {
        let found = self.fields.iter().position(|field| field.id == id);
        found.ok_or_else(|| {
            format!(
                "{what} \"{name}\" is not declared: name its field in purlin::fields!(..) of the StatefulDoFn"
            )
            .into()
        })
    }

    fn cell(&mut self, id: u64, name: &str) -> Result<&mut Cell, BoxError> {
        let index = self.field(id, name, "state")?;
        let KeyedState {
            entries,
            fields,
            transform_id,
            bundle,
            ..
        } = self;
        let outside = || "state belongs to a key: there is none at hand";
        let entry = entries.get_mut(self.current).ok_or_else(outside)?;
        let cell = &mut entry.cells[index];
        if cell.is_none() {
            let address = CellAddress {
                transform_id: transform_id.clone(),
                state: name.to_owned(),
                window: entry.window.to_bytes(),
                key: entry.key.clone(),
            };
            *cell = Cell::new(&fields[index].kind, address, bundle.clone());
        }
        cell.as_mut()
            .ok_or_else(|| format!("\"{name}\" is no state").into())
    }

    pub(crate) fn bag(&mut self, id: u64, name: &str) -> Result<&mut BagCell, BoxError> {
        match self.cell(id, name)? {
            Cell::Bag(bag) => Ok(bag),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn set(&mut self, id: u64, name: &str) -> Result<&mut SetCell, BoxError> {
        match self.cell(id, name)? {
            Cell::Set(set) => Ok(set),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn map(&mut self, id: u64, name: &str) -> Result<&mut MapCell, BoxError> {
        match self.cell(id, name)? {
            Cell::Map(map) => Ok(map),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn list(&mut self, id: u64, name: &str) -> Result<&mut ListCell, BoxError> {
        match self.cell(id, name)? {
            Cell::List(list) => Ok(list),
            _ => Err(other_kind(name)),
        }
    }

    pub(crate) fn set_timer(
        &mut self,
        id: u64,
        name: &str,
        tag: &str,
        at: Timestamp,
        output: Option<Timestamp>,
    ) -> DoFnResult {
        let index = self.field(id, name, "timer")?;
        let hold_timestamp = output.unwrap_or(match self.fields[index].kind {
            FieldKind::Timer(TimeDomain::EventTime) => at,
            _ => self.timestamp,
        });
        let firing = TimerFiring {
            fire_timestamp: at,
            hold_timestamp,
            pane: self.pane,
        };
        self.timer(id, name, tag, Some(firing))
    }

    pub(crate) fn clear_timer(&mut self, id: u64, name: &str, tag: &str) -> DoFnResult {
        self.field(id, name, "timer")?;
        self.timer(id, name, tag, None)
    }

    fn timer(&mut self, id: u64, name: &str, tag: &str, firing: Option<TimerFiring>) -> DoFnResult {
        let Some(entry) = self.entries.get(self.current) else {
            return Err("timers belong to a key: there is none at hand".into());
        };
        let window = match &entry.window {
            Window::Custom { encoded, .. } if self.opaque_windows => Window::Opaque {
                encoded: encoded.clone(),
            },
            window => window.clone(),
        };
        let timer = WireTimer {
            user_key: entry.key.clone(),
            dynamic_tag: tag.to_owned(),
            windows: window.into(),
            firing,
        };
        if let Some((_, data)) = self.timers.iter_mut().find(|(family, _)| **family == *name) {
            timer.encode(data);
        }
        let name = TimerName {
            family: id,
            entry: self.current,
            tag: timer.dynamic_tag,
        };
        self.touched
            .insert(name, timer.firing.map(|firing| firing.fire_timestamp));
        Ok(())
    }
}

fn other_kind(name: &str) -> BoxError {
    format!("state \"{name}\" is of another kind").into()
}
