//! Windows that merge: sessions here, custom ones by asking the SDK.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::hash::{FxHashMap, FxHashSet};
use purlin_model::{Timestamp, Window};

use super::keyed::{Keyed, merged_hold};
use super::{Clock, Element, GroupError, GroupMergeId};

/// Values of a key that wait until the SDK has merged their windows.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    values: VecDeque<WaitingValue>,
    bytes: VecDeque<Vec<u8>>,
    /// How many of them, from the front, the question that is under way covers.
    asked: usize,
    /// Panes of the key that would have been looked at in the meantime.
    pub(super) postponed: Vec<u32>,
}

#[derive(Debug)]
struct WaitingValue {
    window: Window,
    timestamp: Timestamp,
    now: Timestamp,
}

/// Keys whose windows are to be merged by an SDK.
#[derive(Debug, Default)]
pub(super) struct MergeQueue {
    /// Keys with a question to ask.
    to_ask: Vec<u32>,
    asked: FxHashMap<GroupMergeId, u32>,
    next_id: u64,
}

impl MergeQueue {
    pub(super) fn is_idle(&self) -> bool {
        self.to_ask.is_empty() && self.asked.is_empty()
    }
}

impl Keyed {
    /// The pane of the session that a new window belongs to; sessions that it joins become one.
    pub(super) fn session_pane(
        &mut self,
        key: u32,
        window: &Window,
        clock: &Clock,
    ) -> Result<u32, GroupError> {
        let Window::Interval { start, end } = *window else {
            return self.pane_for(key, window);
        };
        let (mut first, mut last) = (start, end);
        let mut joined = Vec::new();
        let windows = self.windows_of(key);
        let upper = windows.partition_point(|(other, _)| match other {
            Window::Interval { start, .. } => *start < end,
            _ => true,
        });
        for (other, pane) in windows[..upper].iter().rev() {
            let Window::Interval {
                start: other_start,
                end: other_end,
            } = *other
            else {
                continue;
            };
            if self.pane(*pane).is_none_or(|pane| pane.closed) {
                continue;
            }
            if other_end <= start {
                // Sessions that are open do not overlap, so those before end even earlier.
                break;
            }
            first = first.min(other_start);
            last = last.max(other_end);
            joined.push(*pane);
        }
        joined.reverse();
        let merged = Window::Interval {
            start: first,
            end: last,
        };
        match joined[..] {
            [] => self.pane_for(key, &merged),
            [only] if self.pane(only).is_some_and(|pane| pane.window == merged) => Ok(only),
            // A window of this extent may have been closed; then it takes the long way.
            [only] if self.find_pane(key, &merged).is_none() => {
                self.extend_pane(key, only, merged, clock);
                Ok(only)
            }
            _ => self.merge_panes(key, &joined, merged, clock),
        }
    }

    /// Gives a pane a larger window.
    fn extend_pane(&mut self, key: u32, index: u32, window: Window, clock: &Clock) {
        let combiner = self.windowing.timestamp_combiner;
        let Some(pane) = self
            .panes
            .get_mut(index as usize)
            .and_then(|slot| slot.pane.as_mut())
        else {
            return;
        };
        pane.trigger = self
            .machine
            .merged(&[&pane.trigger], &Self::trigger_clock(&window, clock));
        pane.element_hold = merged_hold(
            combiner,
            pane.element_hold.into_iter(),
            window.max_timestamp(),
            clock,
        );
        pane.last = None;
        let before = core::mem::replace(&mut pane.window, window.clone());
        self.remove_window(key, &before);
        self.insert_window(key, window, index);
        self.has_got_news(index);
        self.refresh(index, clock);
    }

    /// Makes one pane, of window `result`, of several that are open.
    fn merge_panes(
        &mut self,
        key: u32,
        sources: &[u32],
        result: Window,
        clock: &Clock,
    ) -> Result<u32, GroupError> {
        // Merging opens a window of this extent again, should one have been closed.
        if let Some(closed) = self.find_pane(key, &result)
            && !sources.contains(&closed)
        {
            self.take_pane(closed);
        }
        let trigger = {
            let states: Vec<_> = sources
                .iter()
                .filter_map(|&pane| self.pane(pane))
                .map(|pane| &pane.trigger)
                .collect();
            self.machine.merged(&states, &Self::trigger_clock(&result, clock))
        };
        let mut panes: Vec<_> = sources.iter().filter_map(|&pane| self.take_pane(pane)).collect();
        let holds = panes.iter().filter_map(|pane| pane.element_hold);
        let combiner = self.windowing.timestamp_combiner;
        let hold = merged_hold(combiner, holds, result.max_timestamp(), clock);
        let index = self.pane_for(key, &result)?;
        let Some(merged) = self.pane_mut(index) else {
            return Ok(index);
        };
        merged.trigger = trigger;
        merged.element_hold = hold;
        // A window keeps the number of its panes; one that merging made begins anew.
        merged.last = panes
            .iter()
            .find(|pane| pane.window == result)
            .and_then(|pane| pane.last);
        merged.count = panes.iter().map(|pane| pane.count).sum();
        merged.fresh = panes.iter().map(|pane| pane.fresh).sum();
        let mut rest = panes.iter_mut();
        if let Some(first) = rest.next() {
            merged.values = core::mem::take(&mut first.values);
        }
        for pane in rest {
            merged.values.append(&mut pane.values);
        }
        self.has_got_news(index);
        self.refresh(index, clock);
        Ok(index)
    }

    /// Whether a value has to wait for its window: others of its key do, or the window is new.
    pub(super) fn must_wait(&self, key: u32, window: &Window) -> bool {
        let waiting = matches!(self.keys.get(key as usize), Some(Some(state)) if state.waiting.is_some());
        waiting
            || self
                .find_pane(key, window)
                .and_then(|pane| self.pane(pane))
                .is_none_or(|pane| pane.closed)
    }

    /// Lets a value wait.
    pub(super) fn wait(&mut self, key: u32, window: &Window, element: &Element<'_>, clock: &Clock) {
        let Some(Some(state)) = self.keys.get_mut(key as usize) else {
            return;
        };
        let waiting = state.waiting.get_or_insert_default();
        if waiting.values.is_empty() {
            self.merging.to_ask.push(key);
        }
        let timestamp = element.timestamp;
        waiting.values.push_back(WaitingValue {
            window: window.clone(),
            timestamp,
            now: clock.now,
        });
        waiting.bytes.push_back(element.value.to_vec());
    }

    /// The questions that have not been asked.
    pub(super) fn take_merge_requests(&mut self) -> Vec<(GroupMergeId, Vec<Window>)> {
        let mut requests = Vec::new();
        for key in core::mem::take(&mut self.merging.to_ask) {
            let open = self.windows_of(key).iter();
            let open = open.filter(|(_, pane)| self.pane(*pane).is_some_and(|pane| !pane.closed));
            let mut windows: Vec<Window> = open.map(|(window, _)| window.clone()).collect();
            let mut seen: FxHashSet<Window> = windows.iter().cloned().collect();
            let Some(Some(state)) = self.keys.get_mut(key as usize) else {
                continue;
            };
            let Some(waiting) = &mut state.waiting else {
                continue;
            };
            waiting.asked = waiting.values.len();
            for value in &waiting.values {
                if seen.insert(value.window.clone()) {
                    windows.push(value.window.clone());
                }
            }
            let id = GroupMergeId(self.merging.next_id);
            self.merging.next_id += 1;
            self.merging.asked.insert(id, key);
            requests.push((id, windows));
        }
        requests
    }

    /// Merges as the SDK said and adds the values that waited for it. Tells how many were dropped.
    pub(super) fn merged(
        &mut self,
        id: GroupMergeId,
        merged: Vec<(Window, Vec<Window>)>,
        clock: &Clock,
    ) -> Result<u64, GroupError> {
        let key = self
            .merging
            .asked
            .remove(&id)
            .ok_or(GroupError::UnknownMerge(id))?;
        let mut became = FxHashMap::default();
        for (result, sources) in merged {
            let mut panes = Vec::new();
            for window in sources.iter().chain([&result]) {
                let pane = self.find_pane(key, window);
                let open = pane.filter(|&pane| self.pane(pane).is_some_and(|pane| !pane.closed));
                panes.extend(open.filter(|pane| !panes.contains(pane)));
            }
            let unchanged =
                matches!(panes[..], [only] if self.pane(only).is_some_and(|pane| pane.window == result));
            if !panes.is_empty() && !unchanged {
                self.merge_panes(key, &panes, result.clone(), clock)?;
            }
            became.extend(sources.into_iter().map(|source| (source, result.clone())));
        }
        let mut waiting = match self.keys.get_mut(key as usize) {
            Some(Some(state)) => state.waiting.take().unwrap_or_default(),
            _ => Box::default(),
        };
        let mut dropped = 0;
        for _ in 0..core::mem::take(&mut waiting.asked) {
            let (Some(value), Some(bytes)) = (waiting.values.pop_front(), waiting.bytes.pop_front()) else {
                break;
            };
            let window = became.get(&value.window).unwrap_or(&value.window);
            let pane = self.pane_for(key, window)?;
            // Processing time is counted from the arrival of the value.
            let clock = Clock {
                now: value.now,
                ..*clock
            };
            dropped += u64::from(!self.add_value(pane, value.timestamp, &bytes, &clock));
        }
        for pane in core::mem::take(&mut waiting.postponed) {
            self.has_got_news(pane);
        }
        if !waiting.values.is_empty() {
            if let Some(Some(state)) = self.keys.get_mut(key as usize) {
                state.waiting = Some(waiting);
            }
            self.merging.to_ask.push(key);
        }
        self.remove_key_if_idle(key);
        Ok(dropped)
    }
}
