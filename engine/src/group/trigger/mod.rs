//! Beam's trigger algebra as a state machine: one program per windowing strategy, a few words of state per pane.
//!
//! A trigger is ready or not, and when it fires it may finish; a finished root closes the window for its key. In
//! merging windows subtriggers that are finished, or not yet begun, run along, since merging may revive them.

mod run;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use purlin_model::Timestamp;

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
}

fn earliest(state: &TriggerState, words: &[usize], after: Timestamp) -> Timestamp {
    let times = words.iter().map(|&word| state.0[word]);
    times
        .filter(|&time| time != UNSET && time > after.millis())
        .min()
        .map_or(Timestamp::MAX, Timestamp)
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
