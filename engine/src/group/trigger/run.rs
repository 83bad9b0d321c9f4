//! The steps of each trigger.

use purlin_model::Timestamp;

use super::{Kind, TriggerClock, TriggerMachine, TriggerState, UNSET};
use crate::graph::TimestampTransform;

impl TriggerMachine {
    pub(super) fn element(&self, node: usize, state: &mut TriggerState, clock: &TriggerClock) {
        match &self.nodes[node].kind {
            Kind::Default | Kind::EndOfWindow | Kind::Always | Kind::Never => {}
            Kind::Count { word, .. } => state.0[*word] = state.0[*word].saturating_add(1),
            Kind::ProcessingTime { transforms, word } => {
                if state.0[*word] == UNSET {
                    state.0[*word] = target(clock.now, transforms).millis();
                }
            }
            Kind::SynchronizedTime { word } => {
                if state.0[*word] == UNSET {
                    state.0[*word] = clock.now.millis();
                }
            }
            Kind::EarlyAndLate { early, late } => {
                if self.merging || !state.finished(*early) {
                    self.element(*early, state, clock);
                }
                if let Some(late) = late
                    && (self.merging || state.finished(*early))
                {
                    self.element(*late, state, clock);
                }
            }
            Kind::Each(subs) => {
                for &sub in subs {
                    let finished = state.finished(sub);
                    if self.merging || !finished {
                        self.element(sub, state, clock);
                    }
                    if !self.merging && !finished {
                        break;
                    }
                }
            }
            Kind::All(subs) => {
                for &sub in subs {
                    if !state.finished(sub) {
                        self.element(sub, state, clock);
                    }
                }
            }
            Kind::Any(subs) => subs.iter().for_each(|&sub| self.element(sub, state, clock)),
            Kind::OrFinally { main, until } => {
                self.element(*main, state, clock);
                self.element(*until, state, clock);
            }
            Kind::Repeat(sub) => self.element(*sub, state, clock),
        }
    }

    pub(super) fn ready(&self, node: usize, state: &TriggerState, clock: &TriggerClock) -> bool {
        match &self.nodes[node].kind {
            Kind::Default | Kind::EndOfWindow => clock.past_end_of_window(),
            Kind::Always => true,
            Kind::Never => false,
            Kind::Count { count, word } => state.0[*word] >= *count,
            Kind::ProcessingTime { word, .. } => {
                state.0[*word] != UNSET && clock.now.millis() >= state.0[*word]
            }
            Kind::SynchronizedTime { word } => {
                state.0[*word] != UNSET && clock.synchronized_now.millis() >= state.0[*word]
            }
            Kind::EarlyAndLate { early, late } => {
                if state.finished(*early) {
                    late.is_some_and(|late| self.ready(late, state, clock))
                } else {
                    clock.past_end_of_window() || self.ready(*early, state, clock)
                }
            }
            Kind::Each(subs) => {
                let first = subs.iter().find(|&&sub| !state.finished(sub));
                first.is_some_and(|&sub| self.ready(sub, state, clock))
            }
            Kind::All(subs) => subs
                .iter()
                .all(|&sub| state.finished(sub) || self.ready(sub, state, clock)),
            Kind::Any(subs) => subs
                .iter()
                .any(|&sub| state.finished(sub) || self.ready(sub, state, clock)),
            Kind::OrFinally { main, until } => {
                self.ready(*main, state, clock) || self.ready(*until, state, clock)
            }
            Kind::Repeat(sub) => self.ready(*sub, state, clock),
        }
    }

    pub(super) fn fire(&self, node: usize, state: &mut TriggerState, clock: &TriggerClock) {
        match &self.nodes[node].kind {
            Kind::Default | Kind::Always | Kind::Never => {}
            Kind::EndOfWindow => state.set_finished(node, true),
            Kind::Count { .. } | Kind::ProcessingTime { .. } | Kind::SynchronizedTime { .. } => {
                self.clear(node, state);
                state.set_finished(node, true);
            }
            Kind::EarlyAndLate { early, late } => {
                self.fire_early_and_late(node, (*early, *late), state, clock)
            }
            Kind::Each(subs) => {
                if let Some(&sub) = subs.iter().find(|&&sub| !state.finished(sub)) {
                    self.fire(sub, state, clock);
                }
                if self.merging {
                    // All ran along, and what they saw is gone.
                    subs.iter().for_each(|&sub| self.clear(sub, state));
                }
                state.set_finished(node, subs.iter().all(|&sub| state.finished(sub)));
            }
            Kind::All(subs) => {
                subs.iter().for_each(|&sub| self.fire(sub, state, clock));
                state.set_finished(node, subs.iter().all(|&sub| state.finished(sub)));
            }
            Kind::Any(subs) => {
                for &sub in subs {
                    if self.ready(sub, state, clock) {
                        self.fire(sub, state, clock);
                    } else {
                        // The pane that it watched is gone.
                        self.clear(sub, state);
                    }
                }
                state.set_finished(node, subs.iter().any(|&sub| state.finished(sub)));
            }
            Kind::OrFinally { main, until } => {
                if self.ready(*until, state, clock) {
                    self.fire(*until, state, clock);
                    self.clear(*main, state);
                } else {
                    // The other one watches the window, not the pane: it keeps what it saw.
                    self.fire(*main, state, clock);
                }
                state.set_finished(node, state.finished(*main) || state.finished(*until));
            }
            Kind::Repeat(sub) => {
                self.fire(*sub, state, clock);
                if state.finished(*sub) {
                    self.reset(*sub, state);
                }
            }
        }
    }

    fn fire_early_and_late(
        &self,
        node: usize,
        (early, late): (usize, Option<usize>),
        state: &mut TriggerState,
        clock: &TriggerClock,
    ) {
        if !state.finished(early) && !clock.past_end_of_window() {
            self.fire(early, state, clock);
            self.reset(early, state);
        } else if !state.finished(early) {
            // The end of the window: from here on it is the late trigger's turn, which starts afresh.
            self.reset(early, state);
            state.set_finished(early, true);
            match late {
                Some(late) => self.reset(late, state),
                None => state.set_finished(node, true),
            }
        } else if let Some(late) = late {
            self.fire(late, state, clock);
            self.reset(late, state);
        } else {
            state.set_finished(node, true);
        }
    }

    /// Forgets what a subtree saw of the pane, but not what has finished.
    fn clear(&self, node: usize, state: &mut TriggerState) {
        for node in &self.nodes[node..self.nodes[node].end] {
            match &node.kind {
                Kind::Count { word, .. } => state.0[*word] = 0,
                Kind::ProcessingTime { word, .. } | Kind::SynchronizedTime { word } => state.0[*word] = UNSET,
                _ => {}
            }
        }
    }

    /// Puts a subtree back to its start.
    fn reset(&self, node: usize, state: &mut TriggerState) {
        self.clear(node, state);
        for node in node..self.nodes[node].end {
            state.set_finished(node, false);
        }
    }

    pub(super) fn merge(
        &self,
        node: usize,
        sources: &[&TriggerState],
        state: &mut TriggerState,
        clock: &TriggerClock,
    ) {
        let all_finished = |node: usize| sources.iter().all(|source| source.finished(node));
        match &self.nodes[node].kind {
            Kind::Default | Kind::Always | Kind::Never => {}
            Kind::EndOfWindow => {
                // A later end of the window brings it back to life, and so does a window that has yet to fire.
                state.set_finished(node, all_finished(node) && clock.past_end_of_window());
            }
            Kind::Count { word, .. } => {
                if sources.iter().any(|source| source.finished(node)) {
                    state.set_finished(node, true);
                } else {
                    state.0[*word] = sources
                        .iter()
                        .fold(0, |sum, source| sum.saturating_add(source.0[*word]));
                }
            }
            Kind::ProcessingTime { word, .. } | Kind::SynchronizedTime { word } => {
                if all_finished(node) {
                    state.set_finished(node, true);
                } else {
                    let times = sources
                        .iter()
                        .map(|source| source.0[*word])
                        .filter(|&time| time != UNSET);
                    state.0[*word] = times.min().unwrap_or(UNSET);
                }
            }
            Kind::EarlyAndLate { early, late } => {
                if all_finished(*early) && clock.past_end_of_window() {
                    state.set_finished(*early, true);
                    if let Some(late) = late {
                        self.merge(*late, sources, state, clock);
                    }
                } else {
                    self.merge(*early, sources, state, clock);
                    state.set_finished(*early, false);
                }
            }
            Kind::Each(subs) => {
                for &sub in subs {
                    self.merge(sub, sources, state, clock);
                    if !state.finished(sub) {
                        // Those that follow have not started.
                        break;
                    }
                }
                state.set_finished(node, subs.iter().all(|&sub| state.finished(sub)));
            }
            Kind::All(subs) => {
                subs.iter()
                    .for_each(|&sub| self.merge(sub, sources, state, clock));
                state.set_finished(node, subs.iter().all(|&sub| state.finished(sub)));
            }
            Kind::Any(subs) => {
                subs.iter()
                    .for_each(|&sub| self.merge(sub, sources, state, clock));
                state.set_finished(node, subs.iter().any(|&sub| state.finished(sub)));
            }
            Kind::OrFinally { main, until } => {
                self.merge(*main, sources, state, clock);
                self.merge(*until, sources, state, clock);
                state.set_finished(node, state.finished(*main) || state.finished(*until));
            }
            Kind::Repeat(sub) => self.merge(*sub, sources, state, clock),
        }
    }
}

/// When a processing-time trigger fires whose first element came at `now`.
fn target(now: Timestamp, transforms: &[TimestampTransform]) -> Timestamp {
    transforms.iter().fold(now, |time, transform| match *transform {
        TimestampTransform::Delay(millis) => time.plus_millis(millis),
        TimestampTransform::AlignTo { period_ms, offset_ms } if period_ms > 0 => {
            match time.millis().saturating_sub(offset_ms).rem_euclid(period_ms) {
                0 => time,
                since => time.plus_millis(period_ms - since),
            }
        }
        TimestampTransform::AlignTo { .. } => time,
    })
}
