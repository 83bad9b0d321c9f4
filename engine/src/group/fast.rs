//! Windows that fire once, by the watermark: one table of keys per window and no work for triggers.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use purlin_model::{PaneInfo, Timestamp, Window, expiry};

use super::keyed::Keyed;
use super::pane::{CHUNK_BYTES, Emitter, encode_header};
use super::store::{Entry, KeyTable, Segments};
use super::{Clock, Element, GroupError, fires_first_by_watermark};
use crate::graph::{Accumulation, TimestampCombiner, Trigger, Windowing};

/// Where the values of an element go, for one of its windows.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Into this group of the fast store.
    Fast(u32),
    /// Into the keyed store.
    Keyed(Window),
    /// Nowhere: the window has expired.
    Expired,
}

/// The open windows.
#[derive(Debug)]
pub(super) struct Fast {
    /// Groups by number; numbers of fired ones are used again.
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    /// Numbers by the end of the window, which is the order of firing.
    order: BTreeMap<(Timestamp, Window), u32>,
    /// Whether panes bear the earliest timestamp of their elements, else the end of the window.
    earliest: bool,
    /// The smallest hold of all groups.
    hold: Timestamp,
    allowed_lateness_ms: i64,
    keep_values: bool,
    /// Whether the trigger is done when it has fired.
    finishes: bool,
}

/// The keys of one window.
#[derive(Debug)]
struct Group {
    window: Window,
    table: KeyTable,
    entries: Segments<Entry>,
    /// Per entry, the earliest timestamp that is not late, [`Timestamp::MAX`] if none. Empty where not needed.
    earliest: Segments<Timestamp>,
    hold: Timestamp,
}

impl Fast {
    /// A store, if this windowing can use it.
    pub(super) fn for_windowing(windowing: &Windowing) -> Option<Fast> {
        // The latest timestamp of each key would be a hold of its own, so that one goes the general way.
        if !fires_first_by_watermark(windowing) || windowing.timestamp_combiner == TimestampCombiner::Latest {
            return None;
        }
        let finishes = match &windowing.trigger {
            Trigger::AfterEndOfWindow { late, .. } => late.is_none(),
            Trigger::Never => true,
            _ => false,
        };
        Some(Fast {
            groups: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            earliest: windowing.timestamp_combiner == TimestampCombiner::Earliest,
            hold: Timestamp::MAX,
            allowed_lateness_ms: windowing.allowed_lateness_ms,
            keep_values: windowing.accumulation == Accumulation::Accumulating && !finishes,
            finishes,
        })
    }

    /// Whether a window is open here.
    pub(super) fn has(&self, window: &Window) -> bool {
        self.order.contains_key(&(window.max_timestamp(), window.clone()))
    }

    /// The number of a window's group, which is made if it is not there.
    pub(super) fn group(&mut self, window: &Window) -> u32 {
        let place = (window.max_timestamp(), window.clone());
        if let Some(&number) = self.order.get(&place) {
            return number;
        }
        let group = Group {
            window: window.clone(),
            table: KeyTable::default(),
            entries: Segments::default(),
            earliest: Segments::default(),
            hold: Timestamp::MAX,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = Some(group);
                number
            }
            None => {
                self.groups.push(Some(group));
                self.groups.len() as u32 - 1
            }
        };
        self.order.insert(place, number);
        number
    }

    /// Adds values to a group.
    pub(super) fn add(
        &mut self,
        number: u32,
        batch: &[(u32, Element<'_>)],
        clock: &Clock,
    ) -> Result<(), GroupError> {
        let Some(Some(group)) = self.groups.get_mut(number as usize) else {
            return Ok(());
        };
        if group.entries.len() > CACHED {
            group.fetch(batch);
        }
        for (hash, element) in batch {
            group.add(*hash, element, self.earliest, clock)?;
        }
        self.hold = self.hold.min(group.hold);
        Ok(())
    }

    /// Fires all windows that the input watermark has passed. What may get late data goes on in `keyed`.
    pub(super) fn fire(
        &mut self,
        clock: &Clock,
        keyed: &mut Keyed,
        emitter: &mut Emitter<'_>,
    ) -> Result<(), GroupError> {
        let mut fired = false;
        while let Some(first) = self.order.first_entry() {
            if first.key().0 >= clock.input_watermark {
                break;
            }
            let number = first.remove();
            self.free.push(number);
            fired = true;
            if let Some(group) = self.groups[number as usize].take() {
                self.fire_group(group, clock, keyed, emitter)?;
            }
        }
        if fired {
            let holds = self.groups.iter().flatten().map(|group| group.hold);
            self.hold = holds.min().unwrap_or(Timestamp::MAX);
        }
        Ok(())
    }

    fn fire_group(
        &mut self,
        group: Group,
        clock: &Clock,
        keyed: &mut Keyed,
        emitter: &mut Emitter<'_>,
    ) -> Result<(), GroupError> {
        let Group {
            window,
            table,
            entries,
            earliest,
            ..
        } = group;
        // Memory goes back while output grows.
        drop(table);
        let end = window.max_timestamp();
        let expired = expiry(&window, self.allowed_lateness_ms) < clock.input_watermark;
        let pane = PaneInfo {
            is_last: expired || self.finishes,
            ..PaneInfo::ON_TIME_AND_ONLY
        };
        let mut header = Vec::new();
        encode_header(end, &window, pane, &mut header);
        let mut earliest = earliest.into_items();
        for entry in entries.into_items() {
            let mut timestamp = end;
            if let Some(held) = earliest.next() {
                timestamp = held.min(end);
                header[..8].copy_from_slice(&timestamp.to_bytes());
            }
            let count = entry.count;
            if !expired {
                let (key, values) = entry.parts();
                let (count, values) = if self.keep_values {
                    (count, values)
                } else {
                    (0, &[][..])
                };
                keyed.go_on(key, &window, pane, count, values, clock)?;
            }
            match entry.into_large(CHUNK_BYTES) {
                Ok((data, key_len)) => emitter.large_element(timestamp, &header, key_len, count, data),
                Err(entry) => {
                    let (key, values) = entry.parts();
                    emitter.element(timestamp, &header, key, count, values);
                }
            }
        }
        Ok(())
    }

    pub(super) fn hold(&self) -> Timestamp {
        // The end of a window is held until it has fired, whatever its elements hold.
        self.next_event_time()
            .map_or(Timestamp::MAX, |end| end.min(self.hold))
    }

    pub(super) fn next_event_time(&self) -> Option<Timestamp> {
        self.order.first_key_value().map(|((end, _), _)| *end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Groups of so many keys are looked up without waiting for memory.
const CACHED: usize = 1 << 12;

impl Group {
    /// Touches what the elements will need, so that the waits for memory overlap.
    fn fetch(&self, batch: &[(u32, Element<'_>)]) {
        let mut found = [None; super::BATCH];
        for (found, (hash, _)) in found.iter_mut().zip(batch) {
            *found = self.table.guess(*hash);
        }
        let touched = found.into_iter().flatten();
        // Entries first, then the memory that they lead to: loads that do not depend on each other.
        core::hint::black_box(
            touched
                .clone()
                .fold(0, |sum, index| sum ^ self.entries.get(index).count),
        );
        core::hint::black_box(touched.fold(0, |sum, index| sum ^ self.entries.get(index).ends()));
    }

    #[inline]
    fn add(
        &mut self,
        hash: u32,
        element: &Element<'_>,
        earliest: bool,
        clock: &Clock,
    ) -> Result<(), GroupError> {
        let entries = &self.entries;
        let found = self
            .table
            .find(hash, |index| entries.get(index).key() == element.key);
        if let Some(index) = found {
            self.entries.get_mut(index).append(element.value);
        } else {
            let index = u32::try_from(self.entries.len())
                .ok()
                .filter(|&index| index < u32::MAX - 1);
            self.table.insert(hash, index.ok_or(GroupError::TooManyKeys)?);
            self.entries.push(Entry::new(element.key, element.value));
        }
        if earliest {
            // A timestamp that the output watermark has passed cannot be held.
            let late = element.timestamp < clock.output_watermark;
            let timestamp = if late { Timestamp::MAX } else { element.timestamp };
            match found {
                Some(index) => {
                    let held = self.earliest.get_mut(index);
                    *held = timestamp.min(*held);
                }
                None => self.earliest.push(timestamp),
            }
            self.hold = self.hold.min(timestamp);
        }
        Ok(())
    }
}
