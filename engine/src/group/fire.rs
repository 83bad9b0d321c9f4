//! Firing: which panes are due, what they tell, and what they wait for then.

use alloc::vec::Vec;

use purlin_model::{Timestamp, Timing, expiry};

use super::Clock;
use super::holds::PaneRef;
use super::keyed::{Keyed, Pane, Slot};
use super::pane::{CHUNK_BYTES, Emitter, encode_header, next_pane};
use crate::graph::{Accumulation, PaneEmission};

impl Keyed {
    /// Fires what is due: panes with news first, then those whose timers are due, by time.
    pub(super) fn fire(&mut self, clock: &Clock, emitter: &mut Emitter<'_>) {
        for pane in core::mem::take(&mut self.news) {
            if self.live(pane).is_some_and(|pane| pane.has_news) {
                self.look_at(pane.index, clock, emitter);
            }
        }
        // A window has ended, or expired, when the watermark is past its last timestamp.
        while let Some((time, panes)) = self.event_timers.pop_before(clock.input_watermark) {
            for pane in panes {
                if self.live(pane).is_some_and(|pane| pane.event_timer == time) {
                    self.look_at(pane.index, clock, emitter);
                }
            }
        }
        while let Some((time, panes)) = self.processing_timers.pop_before(clock.now.plus_millis(1)) {
            for pane in panes {
                if self.live(pane).is_some_and(|pane| pane.processing_timer == time) {
                    self.look_at(pane.index, clock, emitter);
                }
            }
        }
        let synchronized_limit = clock.synchronized_now.plus_millis(1);
        while let Some((time, panes)) = self.synchronized_timers.pop_before(synchronized_limit) {
            for pane in panes {
                if self
                    .live(pane)
                    .is_some_and(|pane| pane.synchronized_timer == time)
                {
                    self.look_at(pane.index, clock, emitter);
                }
            }
        }
        self.prune_timers();
    }

    fn prune_timers(&mut self) {
        let panes = &self.panes;
        let counts = |timer: fn(&Pane) -> Timestamp| {
            move |pane: PaneRef, time: Timestamp| {
                panes.get(pane.index as usize).is_some_and(|slot| {
                    slot.generation == pane.generation
                        && slot.pane.as_ref().is_some_and(|pane| timer(pane) == time)
                })
            }
        };
        self.event_timers.prune(counts(|pane| pane.event_timer));
        self.processing_timers.prune(counts(|pane| pane.processing_timer));
        self.synchronized_timers
            .prune(counts(|pane| pane.synchronized_timer));
    }

    /// Fires a pane if its trigger wants to, or its window has expired.
    fn look_at(&mut self, index: u32, clock: &Clock, emitter: &mut Emitter<'_>) {
        let lateness = self.windowing.allowed_lateness_ms;
        let Some(Slot { pane: Some(pane), .. }) = self.panes.get_mut(index as usize) else {
            return;
        };
        pane.has_news = false;
        // Windows of this key are about to merge: what becomes of them decides.
        if let Some(Some(state)) = self.keys.get_mut(pane.key as usize)
            && let Some(waiting) = &mut state.waiting
        {
            waiting.postponed.push(index);
            return;
        }
        let expired = expiry(&pane.window, lateness) < clock.input_watermark;
        if expired {
            if !pane.closed {
                self.emit(index, true, clock, emitter);
            }
            self.remove(index);
            return;
        }
        let trigger_clock = Self::trigger_clock(&pane.window, clock);
        if !pane.closed && self.machine.should_fire(&pane.trigger, &trigger_clock) {
            self.machine.on_fire(&mut pane.trigger, &trigger_clock);
            pane.closed = self.machine.is_closed(&pane.trigger);
            let closed = pane.closed;
            self.emit(index, closed, clock, emitter);
        }
        self.refresh(index, clock);
    }

    /// Emits a pane if there is something to tell.
    fn emit(&mut self, index: u32, is_last: bool, clock: &Clock, emitter: &mut Emitter<'_>) {
        let Some(Slot { pane: Some(pane), .. }) = self.panes.get_mut(index as usize) else {
            return;
        };
        let end = pane.window.max_timestamp();
        let info = next_pane(
            pane.last,
            is_last,
            end,
            clock.input_watermark,
            clock.output_watermark,
        );
        let on_time = info.timing == Timing::OnTime
            && self.windowing.on_time == PaneEmission::Always
            && self.machine.has_on_time_pane();
        let closing = is_last && self.windowing.closing == PaneEmission::Always;
        let timestamp = pane.element_hold.take().map_or(end, |hold| hold.min(end));
        let told = pane.fresh > 0 || on_time || closing;
        let empties = is_last || self.windowing.accumulation == Accumulation::Discarding;
        if told {
            pane.last = Some(info);
            if let Some(Some(state)) = self.keys.get(pane.key as usize) {
                let mut header = Vec::with_capacity(64);
                encode_header(timestamp, &pane.window, info, &mut header);
                if empties && pane.values.len() >= CHUNK_BYTES {
                    header.extend_from_slice(&state.key);
                    let values = core::mem::take(&mut pane.values);
                    emitter.large_element(timestamp, &header, 0, pane.count, values);
                } else {
                    emitter.element(timestamp, &header, &state.key, pane.count, &pane.values);
                }
            }
        }
        pane.fresh = 0;
        if empties {
            pane.values = Vec::new();
            pane.count = 0;
        }
    }

    /// Brings a pane's timers and hold up to date.
    pub(super) fn refresh(&mut self, index: u32, clock: &Clock) {
        let pane_ref = self.pane_ref(index);
        let Some(Slot { pane: Some(pane), .. }) = self.panes.get_mut(index as usize) else {
            return;
        };
        let end = pane.window.max_timestamp();
        let expiry = expiry(&pane.window, self.windowing.allowed_lateness_ms);
        let open = end >= clock.input_watermark;
        let event = if open && !pane.closed { end } else { expiry };
        self.event_timers.set(&mut pane.event_timer, event, pane_ref);
        let mut hold = Timestamp::MAX;
        let (mut processing, mut synchronized) = (Timestamp::MAX, Timestamp::MAX);
        if !pane.closed {
            if self.machine.looks_at_clocks() {
                // What is due already was looked at, or is among the news.
                processing = self.machine.processing_time(&pane.trigger, clock.now);
                synchronized = self
                    .machine
                    .synchronized_time(&pane.trigger, clock.synchronized_now);
            }
            hold = pane.element_hold.unwrap_or(hold);
            // Late values, and a promised empty pane, must not come too late for the next GroupByKey.
            let late_values = pane.fresh > 0 && pane.element_hold.is_none();
            if late_values || self.windowing.closing == PaneEmission::Always {
                hold = hold.min(expiry);
            }
            if open && self.windowing.on_time == PaneEmission::Always && self.machine.has_on_time_pane() {
                hold = hold.min(end);
            }
        }
        self.processing_timers
            .set(&mut pane.processing_timer, processing, pane_ref);
        self.synchronized_timers
            .set(&mut pane.synchronized_timer, synchronized, pane_ref);
        self.holds.replace(&mut pane.hold, hold);
    }
}
