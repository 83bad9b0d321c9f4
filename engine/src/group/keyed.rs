//! The general way: one pane, with its trigger, holds and timers, per key and window.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::hash::FxHashMap;
use purlin_model::{PaneInfo, Timestamp, Window};

use super::holds::{Holds, PaneRef, Timers};
use super::merge::{MergeQueue, Waiting};
use super::trigger::{TriggerClock, TriggerMachine, TriggerState};
use super::{Clock, Element, GroupError};
use crate::graph::{TimestampCombiner, WindowFn, Windowing};

/// The panes of all keys.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) machine: TriggerMachine,
    pub(super) windowing: Windowing,
    ids: FxHashMap<Arc<[u8]>, u32>,
    pub(super) keys: Vec<Option<KeyState>>,
    free_keys: Vec<u32>,
    pub(super) panes: Vec<Slot>,
    free_panes: Vec<u32>,
    /// Panes that got elements since their triggers were looked at, in the order in which they did.
    pub(super) news: Vec<PaneRef>,
    pub(super) event_timers: Timers,
    pub(super) processing_timers: Timers,
    pub(super) synchronized_timers: Timers,
    pub(super) holds: Holds,
    pub(super) merging: MergeQueue,
}

/// A key that has panes.
#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) key: Arc<[u8]>,
    /// Windows in order, with the index of their pane; those that are closed but not yet expired, too.
    pub(super) windows: Vec<(Window, u32)>,
    /// Values whose windows an SDK has to merge first.
    pub(super) waiting: Option<Box<Waiting>>,
}

/// A place for panes, one after the other.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) pane: Option<Pane>,
}

/// What is there for a key and window.
#[derive(Debug)]
pub(super) struct Pane {
    pub(super) key: u32,
    pub(super) window: Window,
    pub(super) values: Vec<u8>,
    pub(super) count: u64,
    /// Number of values that came since the last pane.
    pub(super) fresh: u64,
    pub(super) trigger: TriggerState,
    /// The last pane that was emitted.
    pub(super) last: Option<PaneInfo>,
    /// The combined timestamp of the fresh values that are not late: where the next pane is held, and its timestamp.
    pub(super) element_hold: Option<Timestamp>,
    /// The trigger has finished; only the memory of that is left.
    pub(super) closed: bool,
    pub(super) has_news: bool,
    pub(super) hold: Timestamp,
    pub(super) event_timer: Timestamp,
    pub(super) processing_timer: Timestamp,
    pub(super) synchronized_timer: Timestamp,
}

impl Keyed {
    pub(super) fn new(machine: TriggerMachine, windowing: Windowing) -> Keyed {
        Keyed {
            machine,
            windowing,
            ids: FxHashMap::default(),
            keys: Vec::new(),
            free_keys: Vec::new(),
            panes: Vec::new(),
            free_panes: Vec::new(),
            news: Vec::new(),
            event_timers: Timers::default(),
            processing_timers: Timers::default(),
            synchronized_timers: Timers::default(),
            holds: Holds::default(),
            merging: MergeQueue::default(),
        }
    }

    pub(super) fn trigger_clock(window: &Window, clock: &Clock) -> TriggerClock {
        TriggerClock {
            now: clock.now,
            synchronized_now: clock.synchronized_now,
            input_watermark: clock.input_watermark,
            window_end: window.max_timestamp(),
        }
    }

    /// Adds a value to one of its windows, which has not expired. False when its trigger has finished.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        window: &Window,
        element: &Element<'_>,
        clock: &Clock,
    ) -> Result<bool, GroupError> {
        let key = self.key_id(key)?;
        if self.windowing.merges_in_sdk() && self.must_wait(key, window) {
            self.wait(key, window, element, clock);
            return Ok(true);
        }
        let pane = match self.windowing.window_fn {
            WindowFn::Sessions { .. } => self.session_pane(key, window, clock)?,
            _ => self.pane_for(key, window)?,
        };
        Ok(self.add_value(pane, element.timestamp, element.value, clock))
    }

    /// The number of a key, which is made if it is not there.
    fn key_id(&mut self, key: &[u8]) -> Result<u32, GroupError> {
        if let Some(&id) = self.ids.get(key) {
            return Ok(id);
        }
        let key: Arc<[u8]> = key.into();
        let state = KeyState {
            key: key.clone(),
            windows: Vec::new(),
            waiting: None,
        };
        let id = put(&mut self.keys, &mut self.free_keys, Some(state)).ok_or(GroupError::TooManyKeys)?;
        self.ids.insert(key, id);
        Ok(id)
    }

    pub(super) fn windows_of(&self, key: u32) -> &[(Window, u32)] {
        match self.keys.get(key as usize) {
            Some(Some(state)) => &state.windows,
            _ => &[],
        }
    }

    /// The pane of exactly this window, closed or not.
    pub(super) fn find_pane(&self, key: u32, window: &Window) -> Option<u32> {
        let windows = self.windows_of(key);
        let at = windows.binary_search_by(|(other, _)| other.cmp(window)).ok()?;
        Some(windows[at].1)
    }

    /// The pane of this window, which is made if it is not there.
    pub(super) fn pane_for(&mut self, key: u32, window: &Window) -> Result<u32, GroupError> {
        if let Some(pane) = self.find_pane(key, window) {
            return Ok(pane);
        }
        let pane = Pane {
            key,
            window: window.clone(),
            values: Vec::new(),
            count: 0,
            fresh: 0,
            trigger: self.machine.initial(),
            last: None,
            element_hold: None,
            closed: false,
            has_news: false,
            hold: Timestamp::MAX,
            event_timer: Timestamp::MAX,
            processing_timer: Timestamp::MAX,
            synchronized_timer: Timestamp::MAX,
        };
        let index = match self.free_panes.pop() {
            Some(index) => {
                self.panes[index as usize].pane = Some(pane);
                index
            }
            None => {
                let index = u32::try_from(self.panes.len()).map_err(|_| GroupError::TooManyKeys)?;
                self.panes.push(Slot {
                    generation: 0,
                    pane: Some(pane),
                });
                index
            }
        };
        self.insert_window(key, window.clone(), index);
        Ok(index)
    }

    pub(super) fn insert_window(&mut self, key: u32, window: Window, pane: u32) {
        if let Some(Some(state)) = self.keys.get_mut(key as usize) {
            let at = state.windows.partition_point(|(other, _)| *other < window);
            state.windows.insert(at, (window, pane));
        }
    }

    pub(super) fn remove_window(&mut self, key: u32, window: &Window) {
        if let Some(Some(state)) = self.keys.get_mut(key as usize)
            && let Ok(at) = state.windows.binary_search_by(|(other, _)| other.cmp(window))
        {
            state.windows.remove(at);
        }
    }

    pub(super) fn pane(&self, index: u32) -> Option<&Pane> {
        self.panes.get(index as usize)?.pane.as_ref()
    }

    pub(super) fn pane_mut(&mut self, index: u32) -> Option<&mut Pane> {
        self.panes.get_mut(index as usize)?.pane.as_mut()
    }

    pub(super) fn pane_ref(&self, index: u32) -> PaneRef {
        PaneRef {
            index,
            generation: self.panes.get(index as usize).map_or(0, |slot| slot.generation),
        }
    }

    pub(super) fn live(&self, pane: PaneRef) -> Option<&Pane> {
        let slot = self.panes.get(pane.index as usize)?;
        slot.pane.as_ref().filter(|_| slot.generation == pane.generation)
    }

    /// Adds a value to a pane. False when the pane is closed.
    pub(super) fn add_value(
        &mut self,
        index: u32,
        timestamp: Timestamp,
        value: &[u8],
        clock: &Clock,
    ) -> bool {
        let combiner = self.windowing.timestamp_combiner;
        let Some(Slot { pane: Some(pane), .. }) = self.panes.get_mut(index as usize) else {
            return false;
        };
        if pane.closed {
            return false;
        }
        let end = pane.window.max_timestamp();
        let at = if combiner == TimestampCombiner::EndOfWindow {
            end
        } else {
            timestamp
        };
        let mut look_again = !pane.has_news || self.machine.looks_at_clocks();
        if at >= clock.output_watermark && end >= clock.input_watermark {
            let hold = combine(combiner, pane.element_hold, at);
            look_again |= pane.element_hold != Some(hold);
            pane.element_hold = Some(hold);
        }
        pane.values.extend_from_slice(value);
        pane.count += 1;
        pane.fresh += 1;
        self.machine
            .on_element(&mut pane.trigger, &Self::trigger_clock(&pane.window, clock));
        if look_again {
            self.has_got_news(index);
            self.refresh(index, clock);
        }
        true
    }

    /// Sees to it that a pane's trigger is looked at.
    pub(super) fn has_got_news(&mut self, index: u32) {
        let pane_ref = self.pane_ref(index);
        if let Some(pane) = self.pane_mut(index)
            && !pane.has_news
        {
            pane.has_news = true;
            self.news.push(pane_ref);
        }
    }

    /// Takes over a window that has fired on time in the fast store and may get late data.
    pub(super) fn go_on(
        &mut self,
        key: &[u8],
        window: &Window,
        last: PaneInfo,
        count: u64,
        values: &[u8],
        clock: &Clock,
    ) -> Result<(), GroupError> {
        let key = self.key_id(key)?;
        let index = self.pane_for(key, window)?;
        let Some(Slot { pane: Some(pane), .. }) = self.panes.get_mut(index as usize) else {
            return Ok(());
        };
        self.machine
            .on_fire(&mut pane.trigger, &Self::trigger_clock(window, clock));
        pane.closed = self.machine.is_closed(&pane.trigger);
        pane.last = Some(last);
        pane.values.extend_from_slice(values);
        pane.count += count;
        self.refresh(index, clock);
        Ok(())
    }

    /// Takes a pane out, with its timers and hold.
    pub(super) fn take_pane(&mut self, index: u32) -> Option<Pane> {
        let slot = self.panes.get_mut(index as usize)?;
        let mut pane = slot.pane.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free_panes.push(index);
        self.holds.replace(&mut pane.hold, Timestamp::MAX);
        self.remove_window(pane.key, &pane.window);
        Some(pane)
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Some(pane) = self.take_pane(index) {
            self.remove_key_if_idle(pane.key);
        }
    }

    pub(super) fn remove_key_if_idle(&mut self, key: u32) {
        if let Some(slot) = self.keys.get_mut(key as usize)
            && let Some(state) = slot.take_if(|state| state.windows.is_empty() && state.waiting.is_none())
        {
            self.ids.remove(&state.key);
            self.free_keys.push(key);
        }
    }

    /// The smallest hold. Values that wait for their windows keep the output watermark where it is.
    pub(super) fn hold(&self, output_watermark: Timestamp) -> Timestamp {
        let hold = self.holds.min();
        if self.merging.is_idle() {
            hold
        } else {
            hold.min(output_watermark)
        }
    }

    pub(super) fn next_event_time(&self) -> Option<Timestamp> {
        self.event_timers.next()
    }

    pub(super) fn next_processing_time(&self) -> Option<Timestamp> {
        self.processing_timers.next()
    }

    pub(super) fn next_synchronized_time(&self) -> Option<Timestamp> {
        self.synchronized_timers.next()
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Puts an item into a free place.
fn put<T>(items: &mut Vec<T>, free: &mut Vec<u32>, item: T) -> Option<u32> {
    match free.pop() {
        Some(index) => {
            items[index as usize] = item;
            Some(index)
        }
        None => {
            let index = u32::try_from(items.len()).ok()?;
            items.push(item);
            Some(index)
        }
    }
}

fn combine(combiner: TimestampCombiner, held: Option<Timestamp>, at: Timestamp) -> Timestamp {
    match (combiner, held) {
        (_, None) => at,
        (TimestampCombiner::Earliest, Some(held)) => held.min(at),
        (TimestampCombiner::EndOfWindow | TimestampCombiner::Latest, Some(held)) => held.max(at),
    }
}

/// The hold of a window that became of others.
pub(super) fn merged_hold(
    combiner: TimestampCombiner,
    holds: impl Iterator<Item = Timestamp>,
    end: Timestamp,
    clock: &Clock,
) -> Option<Timestamp> {
    if combiner == TimestampCombiner::EndOfWindow {
        return (end >= clock.output_watermark && end >= clock.input_watermark).then_some(end);
    }
    holds.fold(None, |held, at| Some(combine(combiner, held, at)))
}
