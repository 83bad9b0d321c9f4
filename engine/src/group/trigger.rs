//! Beam's trigger algebra as a state machine: one program per windowing strategy, a few words of state per pane.
//!
//! A trigger is ready or not, and when it fires it may finish; a finished root closes the window for its key. In
//! merging windows subtriggers that are finished, or not yet begun, run along, since merging may revive them.

use purlin_coders::Timestamp;

use crate::graph::{TimestampTransform, Trigger};

/// No time is set in this word.
const UNSET: i64 = i64::MIN;

/// What a trigger may look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct TriggerClock {
    pub(super) now: Timestamp,
    pub(super) synchronized_now: Timestamp,
    pub(super) input_watermark: Timestamp,
    /// The largest timestamp in the window.
    pub(super) window_end: Timestamp,
}

impl TriggerClock {
    fn past_end_of_window(&self) -> bool {
        self.input_watermark > self.window_end
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Default,
    EndOfWindow,
    /// Early firings until the end of the window, then late ones, each again and again.
    EarlyAndLate {
        early: usize,
        late: Option<usize>,
    },
    Count {
        count: i64,
        word: usize,
    },
    ProcessingTime {
        transforms: Vec<TimestampTransform>,
        word: usize,
    },
    SynchronizedTime {
        word: usize,
    },
    Each(Vec<usize>),
    All(Vec<usize>),
    Any(Vec<usize>),
    OrFinally {
        main: usize,
        until: usize,
    },
    Repeat(usize),
    Always,
    Never,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    /// The subtree is the nodes from this one to before `end`.
    end: usize,
}

/// A trigger, ready to run.
#[derive(Clone, Debug)]
pub(super) struct TriggerMachine {
    nodes: Vec<Node>,
    /// Words of state: first the finished bits, then counts and times.
    words: usize,
    initial: TriggerState,
    merging: bool,
    has_on_time_pane: bool,
    processing_words: Vec<usize>,
    synchronized_words: Vec<usize>,
}

/// The state of a trigger for one key and window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TriggerState(Box<[i64]>);

impl TriggerState {
    fn finished(&self, node: usize) -> bool {
        self.0[node / 64] >> (node % 64) & 1 != 0
    }

    fn set_finished(&mut self, node: usize, finished: bool) {
        let bit = 1 << (node % 64);
        if finished {
            self.0[node / 64] |= bit;
        } else {
            self.0[node / 64] &= !bit;
        }
    }
}

impl TriggerMachine {
    pub(super) fn new(trigger: &Trigger, merging: bool) -> TriggerMachine {
        let mut machine = TriggerMachine {
            nodes: Vec::new(),
            words: 0,
            initial: TriggerState(Box::default()),
            merging,
            has_on_time_pane: has_on_time_pane(trigger),
            processing_words: Vec::new(),
            synchronized_words: Vec::new(),
        };
        machine.words = count_nodes(trigger).div_ceil(64);
        match trigger {
            // As the whole trigger it is what Beam puts after a GroupByKey by processing time. Beam's SDKs count on
            // it not to lose data, so it does not finish there.
            Trigger::AfterSynchronizedProcessingTime => {
                machine.compile(&Trigger::Repeat(Box::new(trigger.clone())))
            }
            trigger => machine.compile(trigger),
        };
        let mut initial = vec![0; machine.words];
        for &word in machine.processing_words.iter().chain(&machine.synchronized_words) {
            initial[word] = UNSET;
        }
        machine.initial = TriggerState(initial.into());
        machine
    }

    fn word(&mut self) -> usize {
        self.words += 1;
        self.words - 1
    }

    fn compile(&mut self, trigger: &Trigger) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node {
            kind: Kind::Never,
            end: node + 1,
        });
        let kind = match trigger {
            Trigger::Default => Kind::Default,
            Trigger::AfterEndOfWindow {
                early: None,
                late: None,
            } => Kind::EndOfWindow,
            Trigger::AfterEndOfWindow { early, late } => Kind::EarlyAndLate {
                early: self.compile(early.as_deref().unwrap_or(&Trigger::Never)),
                late: late.as_deref().map(|late| self.compile(late)),
            },
            Trigger::ElementCount(count) => Kind::Count {
                count: i64::from(*count),
                word: self.word(),
            },
            Trigger::AfterProcessingTime(transforms) => {
                let word = self.word();
                self.processing_words.push(word);
                Kind::ProcessingTime {
                    transforms: transforms.clone(),
                    word,
                }
            }
            Trigger::AfterSynchronizedProcessingTime => {
                let word = self.word();
                self.synchronized_words.push(word);
                Kind::SynchronizedTime { word }
            }
            Trigger::AfterEach(subs) => Kind::Each(self.compile_all(subs)),
            Trigger::AfterAll(subs) => Kind::All(self.compile_all(subs)),
            Trigger::AfterAny(subs) => Kind::Any(self.compile_all(subs)),
            Trigger::OrFinally(main, until) => Kind::OrFinally {
                main: self.compile(main),
                until: self.compile(until),
            },
            Trigger::Repeat(sub) => Kind::Repeat(self.compile(sub)),
            Trigger::Always => Kind::Always,
            Trigger::Never => Kind::Never,
        };
        self.nodes[node] = Node {
            kind,
            end: self.nodes.len(),
        };
        node
    }

    fn compile_all(&mut self, subs: &[Trigger]) -> Vec<usize> {
        subs.iter().map(|sub| self.compile(sub)).collect()
    }

    /// The state before the first element.
    pub(super) fn initial(&self) -> TriggerState {
        self.initial.clone()
    }

    /// Whether the trigger promises a pane when the watermark passes the end of the window.
    pub(super) fn has_on_time_pane(&self) -> bool {
        self.has_on_time_pane
    }

    /// Whether the trigger looks at clocks, so that elements may set timers.
    pub(super) fn looks_at_clocks(&self) -> bool {
        !self.processing_words.is_empty() || !self.synchronized_words.is_empty()
    }

    /// The earliest processing time after `after` that the trigger waits for, [`Timestamp::MAX`] if none.
    pub(super) fn processing_time(&self, state: &TriggerState, after: Timestamp) -> Timestamp {
        earliest(state, &self.processing_words, after)
    }

    /// The same for synchronized processing time.
    pub(super) fn synchronized_time(&self, state: &TriggerState, after: Timestamp) -> Timestamp {
        earliest(state, &self.synchronized_words, after)
    }

    /// Whether the window is closed: all that comes for it is dropped.
    pub(super) fn is_closed(&self, state: &TriggerState) -> bool {
        state.finished(0)
    }

    /// An element came.
    pub(super) fn on_element(&self, state: &mut TriggerState, clock: &TriggerClock) {
        self.element(0, state, clock);
    }

    /// Whether a pane is to fire now.
    pub(super) fn should_fire(&self, state: &TriggerState, clock: &TriggerClock) -> bool {
        self.ready(0, state, clock)
    }

    /// The pane fires.
    pub(super) fn on_fire(&self, state: &mut TriggerState, clock: &TriggerClock) {
        self.fire(0, state, clock);
    }

    /// The state of a window that became of others.
    pub(super) fn merged(&self, sources: &[&TriggerState], clock: &TriggerClock) -> TriggerState {
        let mut state = self.initial();
        self.merge(0, sources, &mut state, clock);
        state
    }

    fn element(&self, node: usize, state: &mut TriggerState, clock: &TriggerClock) {
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

    fn ready(&self, node: usize, state: &TriggerState, clock: &TriggerClock) -> bool {
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

    fn fire(&self, node: usize, state: &mut TriggerState, clock: &TriggerClock) {
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

    fn merge(&self, node: usize, sources: &[&TriggerState], state: &mut TriggerState, clock: &TriggerClock) {
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

fn earliest(state: &TriggerState, words: &[usize], after: Timestamp) -> Timestamp {
    let times = words.iter().map(|&word| state.0[word]);
    times
        .filter(|&time| time != UNSET && time > after.millis())
        .min()
        .map_or(Timestamp::MAX, Timestamp)
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

fn count_nodes(trigger: &Trigger) -> usize {
    1 + match trigger {
        Trigger::AfterEndOfWindow { early, late } => {
            early.as_deref().map_or(1, count_nodes) + late.as_deref().map_or(0, count_nodes)
        }
        Trigger::AfterEach(subs) | Trigger::AfterAll(subs) | Trigger::AfterAny(subs) => {
            subs.iter().map(count_nodes).sum()
        }
        Trigger::OrFinally(main, until) => count_nodes(main) + count_nodes(until),
        Trigger::Repeat(sub) => count_nodes(sub),
        Trigger::AfterSynchronizedProcessingTime => 1,
        _ => 0,
    }
}

fn has_on_time_pane(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::Default | Trigger::AfterEndOfWindow { .. } => true,
        Trigger::AfterEach(subs) | Trigger::AfterAll(subs) | Trigger::AfterAny(subs) => {
            subs.iter().any(has_on_time_pane)
        }
        Trigger::OrFinally(main, until) => has_on_time_pane(main) || has_on_time_pane(until),
        Trigger::Repeat(sub) => has_on_time_pane(sub),
        _ => false,
    }
}
