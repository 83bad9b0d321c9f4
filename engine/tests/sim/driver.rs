//! Drives an engine with a virtual clock and workers that delay, fail, split and vanish.

use std::collections::{BTreeMap, BTreeSet};

use purlin_engine::{
    Action, Bundle, BundleId, BundleInput, Engine, EngineConfig, Event, FusedGraph, Outcome, Residual, Split,
    TransformKind,
};
use purlin_model::{PaneInfo, Timestamp, Window};

use crate::oracle::{Element, side_window};
use crate::pipeline::{Op, Pipeline, UNIT, range_key};
use crate::rng::Rng;
use crate::seeds;
use crate::turns::Turns;
use crate::worker::{Fault, Run, decode, encode, panes};

#[derive(Debug)]
enum Later {
    Done(BundleId),
    Progress(BundleId),
    Split(BundleId),
    Tick,
    Drain,
    /// An SDK answers a question about windows of its own.
    Answer(Event),
}

struct Live {
    bundle: Bundle,
    /// What the worker still is to process of it.
    elements: Vec<Element>,
    /// Their panes, in the same order.
    panes: Vec<PaneInfo>,
    /// A split that was decided and is not told yet.
    split: Option<Split>,
    finished: bool,
    /// Elements in several windows have been taken apart: where to split is not known any more.
    apart: bool,
    keys: BTreeSet<i64>,
}

pub struct Report {
    pub outcome: Option<Outcome>,
    pub committed: Vec<Element>,
    /// What a source without end made.
    pub endless: Vec<Element>,
    pub trace: String,
    pub error: Option<String>,
    pub splits: u64,
    pub failures: u64,
    /// Bundles whose timers would have fired otherwise one by one.
    pub undone: u64,
}

pub struct Driver<'a> {
    pipeline: &'a Pipeline,
    engine: Engine,
    rng: Rng,
    fault: Fault,
    clock: i64,
    sequence: u64,
    later: BTreeMap<(i64, u64), Later>,
    live: BTreeMap<BundleId, Live>,
    /// Bundles that have finished, and of which the engine has yet to say whether they count.
    undecided: BTreeSet<BundleId>,
    turns: Turns,
    report: Report,
    /// The trace is printed as it grows.
    shown: bool,
}

impl<'a> Driver<'a> {
    pub fn new(pipeline: &'a Pipeline, config: EngineConfig, seed: u64, fault: Fault) -> Driver<'a> {
        let engine = Engine::new(FusedGraph::new(pipeline.graph.clone(), config).unwrap());
        Driver {
            pipeline,
            engine,
            rng: Rng::new(seed ^ 0xD1CE),
            fault,
            clock: 1_000,
            sequence: 0,
            later: BTreeMap::new(),
            live: BTreeMap::new(),
            undecided: BTreeSet::new(),
            turns: Turns::default(),
            report: Report {
                outcome: None,
                committed: Vec::new(),
                endless: Vec::new(),
                trace: String::new(),
                error: None,
                splits: 0,
                failures: 0,
                undone: 0,
            },
            shown: seeds::alone() == Some(seed),
        }
    }

    pub fn run(mut self) -> Report {
        if self.pipeline.endless.is_some() {
            let many = |op: &Op| matches!(op, Op::Ranges(ranges) if ranges.len() > 10);
            let last = if self.pipeline.ops.values().any(many) {
                150
            } else {
                600
            };
            let at = self.rng.range(0, last);
            self.after(at, Later::Drain);
        }
        self.tell(Event::Start);
        let mut steps = 0;
        while self.report.outcome.is_none() {
            let Some(((at, _), later)) = self.later.pop_first() else {
                self.report.error = Some("nothing more will happen, but the job has not ended".into());
                break;
            };
            self.clock = self.clock.max(at);
            match later {
                Later::Done(id) => self.done(id),
                Later::Progress(id) => self.progress(id),
                Later::Split(id) => self.answer(id),
                Later::Tick => self.tell(Event::Tick),
                Later::Drain => {
                    self.turns.ended = true;
                    self.tell(Event::Drain);
                }
                Later::Answer(event) => self.tell(event),
            }
            steps += 1;
            // A residual that is given twice each time makes more and more of them. Without a fault, what loops each second as
            // long as a slow stage before it works takes long, and ends.
            let times = if self.fault == Fault::None { 5 } else { 1 };
            if steps > times * 200_000 || self.report.trace.len() > times * 40_000_000 {
                let trace = &self.report.trace;
                let tail: Vec<&str> = trace.lines().rev().take(6).collect();
                let (length, tail) = (trace.len(), tail.join("\n"));
                let error = format!(
                    "the job does not end; {steps} steps, {length} bytes of trace, its last:\n{tail}"
                );
                self.report.error = Some(error);
                break;
            }
        }
        if self.report.error.is_none() {
            assert!(
                self.undecided.is_empty(),
                "undecided at the end: {:?}",
                self.undecided
            );
        }
        self.report.committed.sort();
        self.report
    }

    fn after(&mut self, delay: i64, later: Later) {
        self.sequence += 1;
        self.later.insert((self.clock + delay, self.sequence), later);
    }

    fn tell(&mut self, event: Event) {
        let actions = self.engine.handle(Timestamp(self.clock), event);
        for action in actions {
            let line = format!("{} {action:?}\n", self.clock);
            if self.shown {
                seeds::show(&line);
            }
            self.report.trace += &line;
            match action {
                Action::StartBundle(bundle) => self.start(bundle),
                Action::SplitBundle { bundle, .. } => self.split(bundle),
                Action::WakeAt(at) => {
                    let delay = (at.0 - self.clock).max(0);
                    self.after(delay, Later::Tick);
                }
                Action::Failed { error } => self.report.error = Some(error),
                Action::Finished(outcome) => {
                    assert!(self.report.outcome.is_none(), "finished twice");
                    self.report.outcome = Some(outcome);
                }
                Action::SplitsStopped { .. } => {}
                Action::Committed { bundle, .. } => {
                    assert!(
                        self.undecided.remove(&bundle),
                        "{bundle} is committed before it finished, or twice"
                    );
                }
                Action::Abandon(bundle) | Action::Refused { bundle, .. } => {
                    self.undecided.remove(&bundle);
                }
                Action::Undone(bundle) => {
                    assert!(
                        self.undecided.remove(&bundle),
                        "{bundle} is undone before it finished, or twice"
                    );
                    self.report.undone += 1;
                }
                Action::MergeWindows { request, windows, .. } => {
                    let merged = overlapping(windows);
                    let delay = self.rng.range(0, 30);
                    self.after(delay, Later::Answer(Event::WindowsMerged { request, merged }));
                }
                Action::MapWindows {
                    request,
                    transform,
                    side_input,
                    windows,
                } => {
                    let TransformKind::User(user) = &self.pipeline.graph.transforms[transform].kind else {
                        panic!("{transform:?} has no side inputs")
                    };
                    let collection = user.side_inputs[side_input].collection;
                    let side = &self.pipeline.graph.collections[collection];
                    let windows = windows
                        .iter()
                        .map(|main| side_window(&side.windowing.window_fn, main));
                    let windows = windows.collect();
                    let delay = self.rng.range(0, 30);
                    self.after(delay, Later::Answer(Event::WindowsMapped { request, windows }));
                }
            }
        }
    }

    fn start(&mut self, bundle: Bundle) {
        let stage = &self.engine.stages()[bundle.stage];
        let format = self.engine.format(stage.input).unwrap().clone();
        let (mut elements, mut panes_of) = (Vec::new(), Vec::new());
        let mut keys = BTreeSet::new();
        for input in &bundle.input {
            match input {
                BundleInput::Elements(data) => {
                    elements.extend(decode(data, &format));
                    panes_of.extend(panes(data, &format));
                }
                BundleInput::Timers { data, .. } => {
                    let coder = purlin_model::TimerCoder {
                        key: purlin_model::Coder::VarInt,
                        window: format.window.clone(),
                    };
                    for timer in coder.decode_all(data) {
                        let key = timer.unwrap().user_key;
                        keys.insert(purlin_model::wire::read_varint(&mut &key[..]).unwrap() as i64);
                    }
                }
            }
        }
        if stage.stateful.is_some() {
            let key = |element: &Element| match stage.splittable {
                Some(_) => range_key(element.key),
                None => element.key,
            };
            keys.extend(elements.iter().map(key));
            for other in self
                .live
                .values()
                .filter(|other| other.bundle.stage == bundle.stage)
            {
                assert!(other.keys.is_disjoint(&keys), "two bundles of one key at a time");
            }
        }
        if bundle.attempt == 1
            && stage
                .splittable
                .is_some_and(|id| matches!(self.pipeline.ops[&id], Op::ReadOn))
        {
            let range = |element: &Element| match stage.stateful {
                Some(_) => range_key(element.key),
                None => element.key / UNIT,
            };
            let same = self
                .live
                .values()
                .filter(|other| other.bundle.stage == bundle.stage);
            let busy = same.flat_map(|other| &other.elements).map(range).collect();
            if let Some(unfair) = self.turns.begin(elements.iter().map(range).collect(), &busy) {
                self.report.error.get_or_insert(unfair);
            }
        }
        let id = bundle.id;
        let duration = if self.rng.chance(20) {
            self.rng.range(50, 400)
        } else {
            self.rng.range(0, 20)
        };
        let apart = bundle.elements != elements.len() as u64;
        self.live.insert(
            id,
            Live {
                apart,
                bundle,
                elements,
                panes: panes_of,
                split: None,
                finished: false,
                keys,
            },
        );
        for part in 1..4 {
            self.after(duration * part / 4, Later::Progress(id));
        }
        self.after(duration, Later::Done(id));
    }

    fn progress(&mut self, bundle: BundleId) {
        if self.live.get(&bundle).is_some_and(|live| !live.finished) {
            self.tell(Event::BundleProgress {
                bundle,
                elements_done: 0,
            });
        }
    }

    /// The worker decides at once, its answer comes later: the end of the bundle may overtake it.
    fn split(&mut self, id: BundleId) {
        let delay = self.rng.range(0, 6);
        self.after(delay, Later::Split(id));
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let stage = &self.engine.stages()[live.bundle.stage];
        if live.finished || live.elements.is_empty() || live.apart || self.rng.chance(20) {
            return;
        }
        let count = live.elements.len() as u64;
        let begun = self.rng.below(count);
        let element = live.elements[begun as usize].clone();
        // Parts that earlier splits left are not given back: a drain would truncate them, and leave a gap.
        let part = |element: &Element| element.value - element.key < 100;
        if self.pipeline.endless.is_some() && live.elements[begun as usize + 1..].iter().any(part) {
            return;
        }
        let read = stage.splittable.map(|id| &self.pipeline.ops[&id]);
        let reads = matches!(read, Some(Op::Read | Op::ReadOn));
        // What is left of a range without end begins near, so that what was read has no gaps.
        let (near, least) = match read {
            Some(Op::ReadOn) => (10, 100),
            _ => (i64::MAX, 2),
        };
        let mut split = Split {
            first_residual: Some(begun + 1),
            last_primary: begun as i64,
            ..Split::default()
        };
        live.elements.truncate(begun as usize + 1);
        if reads && element.value - element.key >= least {
            let middle =
                element.key + 1 + self.rng.below((element.value - element.key - 1).min(near) as u64) as i64;
            let primary = Element {
                value: middle,
                ..element.clone()
            };
            let residual = Element {
                key: middle,
                ..element.clone()
            };
            split.last_primary = begun as i64 - 1;
            let coder = &self.engine.format(stage.input).unwrap().coder;
            split.primary_roots = vec![encode(&primary, coder)];
            let mut watermark = Some(Timestamp(middle));
            if self.fault == Fault::DroppedHold {
                watermark = Some(Timestamp::MAX);
            }
            split.residuals = vec![Residual {
                element: encode(&residual, coder),
                delay_ms: 0,
                watermark,
            }];
            live.elements[begun as usize] = primary;
        }
        if split.first_residual == Some(count) && split.residuals.is_empty() {
            return;
        }
        self.report.splits += 1;
        live.split = Some(split);
    }

    fn answer(&mut self, id: BundleId) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let split = live.split.take().unwrap_or_default();
        let finished = live.finished;
        if finished {
            self.live.remove(&id);
        }
        self.tell(Event::BundleSplit { bundle: id, split });
    }

    fn done(&mut self, id: BundleId) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let worker = live.bundle.worker;
        let stage = self.engine.stages()[live.bundle.stage].clone();
        let environment = stage.environment;
        let mut run = Run::new(
            &mut self.engine,
            self.pipeline,
            stage.clone(),
            id,
            Timestamp(self.clock),
        );
        if self.pipeline.endless.is_some() {
            // More than a split leaves of a restriction: a part that is short is read whole, so that the drain, which
            // makes all parts shorter, leaves no gaps.
            run.checkpoint = self.rng.range(12, 30);
        } else if self.rng.chance(60) {
            run.checkpoint = self.rng.range(1, 12);
        }
        run.fault = self.fault;
        for input in &live.bundle.input {
            if let BundleInput::Timers { transform, data, .. } = input {
                run.timers(*transform, data);
            }
        }
        let elements = std::mem::take(&mut live.elements);
        run.elements(&elements, &live.panes);
        let result = run.finish();
        let roll = self.rng.below(100);
        if roll < 15 && live.bundle.attempt < 4 {
            self.report.failures += 1;
            self.live.remove(&id);
            self.tell(Event::BundleFailed {
                bundle: id,
                error: "user code failed".into(),
                worker_lost: false,
            });
            return;
        }
        if roll < 18 {
            // A worker vanishes with all that it has.
            self.report.failures += 1;
            let lost: Vec<BundleId> = self
                .live
                .iter()
                .filter(|(_, other)| {
                    let stage = &self.engine.stages()[other.bundle.stage];
                    !other.finished && other.bundle.worker == worker && stage.environment == environment
                })
                .map(|(id, _)| *id)
                .collect();
            for id in &lost {
                self.live.remove(id);
            }
            for bundle in lost {
                self.tell(Event::BundleFailed {
                    bundle,
                    error: "the worker is gone".into(),
                    worker_lost: true,
                });
            }
            return;
        }
        let outputs = result.outputs.clone();
        // The answer to a split may still be on its way.
        let waiting = self
            .later
            .values()
            .any(|later| matches!(later, Later::Split(other) if *other == id));
        live.finished = true;
        if !waiting {
            self.live.remove(&id);
        }
        let undone = self.report.undone;
        self.undecided.insert(id);
        self.tell(Event::BundleFinished { bundle: id, result });
        if self.report.undone > undone {
            return;
        }
        for (collection, chunk) in &outputs {
            let format = self.engine.format(*collection).unwrap();
            if *collection == self.pipeline.sink {
                self.report.committed.extend(decode(&chunk.data, format));
            } else if Some(*collection) == self.pipeline.endless {
                self.report.endless.extend(decode(&chunk.data, format));
            }
        }
    }
}

/// Windows that overlap, and the one that they become.
fn overlapping(mut windows: Vec<Window>) -> Vec<(Window, Vec<Window>)> {
    let ends = |window: &Window| match window {
        Window::Interval { start, end } => (*start, *end),
        other => panic!("{other:?} does not merge"),
    };
    windows.sort_by_key(ends);
    let mut merged: Vec<(Window, Vec<Window>)> = Vec::new();
    for window in windows {
        let (start, end) = ends(&window);
        match merged.last_mut() {
            Some((all, parts)) if start < ends(all).1 => {
                let (first, last) = ends(all);
                *all = Window::Interval {
                    start: first,
                    end: last.max(end),
                };
                parts.push(window);
            }
            _ => merged.push((window.clone(), vec![window])),
        }
    }
    merged.retain(|(_, parts)| parts.len() > 1);
    merged
}
