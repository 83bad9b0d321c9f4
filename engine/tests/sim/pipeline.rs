//! Generated pipelines: a graph for the engine, and what the user code of each transform does.

use std::collections::BTreeMap;

use purlin_engine::{
    Accumulation, Collection, CollectionId, Environment, EnvironmentId, Graph, PaneEmission, SdkWindows,
    SideInput, SideInputAccess, TimeDomain, TimerFamily, TimestampCombiner, Transform, TransformId,
    TransformKind, Trigger, UserTransform, WindowFn, WindowMapping, Windowing,
};
use purlin_model::{Coder, WindowCoder};

use crate::rng::Rng;

/// User code. Elements are pairs of integers.
#[derive(Clone, Debug)]
pub enum Op {
    /// Timestamp, key, value of each element.
    Create(Vec<(i64, i64, i64)>),
    /// Ranges for `Read`; where it keeps state, they start at multiples of `UNIT`.
    Ranges(Vec<(i64, i64)>),
    /// Splittable: emits each number of its range at that timestamp. Where it keeps state it notes there what it has read.
    Read,
    /// As Read, of a range without end to speak of: a worker reads a part of it, and leaves the rest, to be read at once.
    ReadOn,
    /// Makes what is left of a range short, when the job drains.
    Truncate,
    /// Assigns fixed windows of this size.
    Window(i64),
    /// Assigns sliding windows of this size and period: elements are in several at once.
    Sliding(i64, i64),
    /// Assigns sessions of this gap.
    Sessions(i64),
    Add(i64),
    /// Drops values that are multiples.
    Drop(i64),
    /// After a GroupByKey.
    Sum,
    /// Makes the value, modulo this, the key.
    Rekey(i64),
    /// Sums values in a bag; a timer at the end of the window emits.
    StateSum,
    /// As StateSum, but emits when its window expires.
    ExpirySum,
    /// Each element has an event-time timer of its own, which sets itself again twice.
    TagTimers,
    /// Emits each element, holds the watermark at it, and emits another one 5 ms later when a timer fires, unless the window
    /// ends before.
    Echo,
    /// Follows Echo. A timer of each element fails if it fires before the other one has come.
    AfterEcho,
    /// Each element has a processing-time timer of its own.
    ProcessingTimers,
    /// As ProcessingTimers, but the timers set themselves again for ever. Only a drain ends them.
    LoopingTimers,
    /// Adds the sum of a side input.
    SideAdd,
    /// Adds the sum of a side input's values of the element's key.
    SideLookup,
    /// Fails unless elements of a key come in order of time.
    Sorted,
}

pub struct Pipeline {
    pub graph: Graph,
    pub ops: BTreeMap<TransformId, Op>,
    pub sink: CollectionId,
    /// What a source without end made: the oracle cannot know how much of it was read before the drain.
    pub endless: Option<CollectionId>,
    /// The endless source and what truncates its restrictions.
    pub truncates: Vec<(TransformId, TransformId)>,
}

/// Ranges of this length have a key of their own, or share it with the next one.
pub const UNIT: i64 = 1_000_000;

/// The key of a range whose reader keeps state.
pub fn range_key(start: i64) -> i64 {
    start / UNIT / 2
}

pub struct Builder<'a> {
    pub rng: &'a mut Rng,
    /// Whether a drain ends the job.
    endless: bool,
    pub graph: Graph,
    pub ops: BTreeMap<TransformId, Op>,
}

pub fn windowing(window_fn: WindowFn) -> Windowing {
    Windowing {
        window_fn,
        trigger: Trigger::Default,
        accumulation: Accumulation::Discarding,
        allowed_lateness_ms: 0,
        closing: PaneEmission::IfNonEmpty,
        on_time: PaneEmission::Always,
        timestamp_combiner: TimestampCombiner::EndOfWindow,
        environment: None,
    }
}

pub fn pair() -> Coder {
    Coder::kv(Coder::VarInt, Coder::VarInt)
}

/// Sized elements and restrictions: ((keyed element, range), size).
pub fn sized() -> Coder {
    Coder::kv(Coder::kv(pair(), pair()), Coder::VarInt)
}

pub fn is_sized(coder: &Coder) -> bool {
    let first = coder.as_kv().and_then(|(first, _)| first.as_kv());
    first.is_some_and(|(element, _)| element.as_kv().is_some())
}

pub fn user() -> UserTransform {
    UserTransform {
        environment: Some(EnvironmentId(0)),
        side_inputs: Vec::new(),
        stateful: false,
        timers: Vec::new(),
        on_window_expiration: None,
        splittable: false,
        requires_time_sorted_input: false,
        requires_stable_input: false,
    }
}

impl<'a> Builder<'a> {
    pub fn new(rng: &'a mut Rng) -> Builder<'a> {
        let environment = Environment {
            name: "fake".into(),
            workers: 1 + rng.below(3) as u32,
            slots_per_worker: 1 + rng.below(3) as u32,
        };
        Builder {
            rng,
            endless: false,
            graph: Graph {
                environments: vec![environment].into(),
                ..Graph::default()
            },
            ops: BTreeMap::new(),
        }
    }

    pub fn collection(&mut self, coder: Coder, window_fn: WindowFn) -> CollectionId {
        let id = CollectionId(self.graph.collections.len() as u32);
        let window_coder = if window_fn == WindowFn::Global {
            WindowCoder::Global
        } else {
            WindowCoder::Interval
        };
        let name = format!("c{}", id.0);
        let windowing = windowing(window_fn);
        self.graph.collections.push(Collection {
            name,
            coder,
            window_coder,
            windowing,
            bounded: true,
        });
        id
    }

    fn window_fn(&self, id: CollectionId) -> WindowFn {
        self.graph.collections[id].windowing.window_fn.clone()
    }

    pub fn transform(
        &mut self,
        name: &str,
        inputs: &[CollectionId],
        output: CollectionId,
        kind: TransformKind,
    ) -> TransformId {
        let id = TransformId(self.graph.transforms.len() as u32);
        let name = format!("{name}{}", id.0);
        self.graph.transforms.push(Transform {
            name,
            inputs: inputs.to_vec(),
            outputs: vec![output],
            kind,
        });
        id
    }

    pub fn native(
        &mut self,
        name: &str,
        inputs: &[CollectionId],
        kind: TransformKind,
        coder: Coder,
    ) -> CollectionId {
        let window_fn = inputs.first().map_or(WindowFn::Global, |id| self.window_fn(*id));
        let output = self.collection(coder, window_fn);
        self.transform(name, inputs, output, kind);
        output
    }

    pub fn user(&mut self, op: Op, input: CollectionId, user: UserTransform) -> CollectionId {
        let window_fn = match &op {
            Op::Window(size) => WindowFn::Fixed {
                size_ms: *size,
                offset_ms: 0,
            },
            Op::Sliding(size_ms, period_ms) => WindowFn::Sliding {
                size_ms: *size_ms,
                period_ms: *period_ms,
                offset_ms: 0,
            },
            Op::Sessions(gap_ms) => WindowFn::Sessions { gap_ms: *gap_ms },
            _ => self.window_fn(input),
        };
        let output = self.collection(pair(), window_fn);
        let name = format!("{op:?}");
        let name = name.split(['(', ' ']).next().unwrap_or("Op").to_string();
        let id = self.transform(&name, &[input], output, TransformKind::User(user));
        self.ops.insert(id, op);
        output
    }

    fn source(&mut self) -> CollectionId {
        let impulse = self.native("Impulse", &[], TransformKind::Impulse, Coder::Bytes);
        if self.rng.chance(50) {
            let count = self.rng.below(40);
            let rng = &mut *self.rng;
            let elements = (0..count)
                .map(|_| (rng.range(0, 100), rng.range(0, 5), rng.range(0, 1000)))
                .collect();
            return self.user(Op::Create(elements), impulse, user());
        }
        let count = 1 + self.rng.below(3) as i64;
        let stateful = self.rng.chance(30);
        let mut ranges = Vec::new();
        for index in 0..count {
            let start = if stateful {
                index * UNIT
            } else {
                self.rng.range(0, 80)
            };
            ranges.push((start, start + self.rng.range(0, 30)));
        }
        self.read(Op::Read, ranges, impulse, stateful).1
    }

    /// The ranges, and what reads them.
    fn read(
        &mut self,
        op: Op,
        ranges: Vec<(i64, i64)>,
        impulse: CollectionId,
        stateful: bool,
    ) -> (CollectionId, CollectionId) {
        let ranges = self.user(Op::Ranges(ranges), impulse, user());
        if stateful {
            self.graph.collections[ranges].coder = sized();
        }
        let reader = UserTransform {
            splittable: true,
            stateful,
            ..user()
        };
        (ranges, self.user(op, ranges, reader))
    }

    pub fn group(&mut self, input: CollectionId) -> CollectionId {
        let coder = Coder::kv(Coder::VarInt, Coder::iterable(Coder::VarInt));
        let grouped = self.native("GroupByKey", &[input], TransformKind::GroupByKey, coder);
        self.user(Op::Sum, grouped, user())
    }

    fn stateful(&mut self, op: Op, input: CollectionId, domain: TimeDomain) -> CollectionId {
        let name = "timer".to_string();
        let expires = matches!(op, Op::ExpirySum);
        let timers = vec![TimerFamily {
            name: name.clone(),
            domain,
        }];
        let sorted = matches!(op, Op::Sorted);
        let on_window_expiration = expires.then_some(name);
        let user = UserTransform {
            stateful: true,
            timers,
            on_window_expiration,
            requires_time_sorted_input: sorted,
            ..user()
        };
        self.user(op, input, user)
    }

    fn sessions(&mut self, input: CollectionId) -> CollectionId {
        // A sum of the global window bears its last timestamp: a session from there would end after all windows.
        let WindowFn::Fixed { size_ms, .. } = self.window_fn(input) else {
            return self.group(input);
        };
        let gap = [2, 7, 30][self.rng.below(3) as usize];
        let windowed = self.user(Op::Sessions(gap), input, user());
        if self.rng.chance(40) {
            // The same, but only the SDK knows how they merge.
            let windowing = &mut self.graph.collections[windowed].windowing;
            windowing.window_fn = WindowFn::Custom(SdkWindows { merging: true });
            windowing.environment = Some(EnvironmentId(0));
        }
        let sums = self.group(windowed);
        // Nothing but a grouping takes windows that merge.
        self.user(Op::Window(size_ms), sums, user())
    }

    pub fn side(
        &mut self,
        op: Op,
        input: CollectionId,
        sides: &[CollectionId],
        access: SideInputAccess,
    ) -> CollectionId {
        let collection = sides[self.rng.below(sides.len() as u64) as usize];
        let side = SideInput {
            tag: "side".into(),
            collection,
            access,
            mapping: if self.rng.chance(30) {
                WindowMapping::Sdk
            } else {
                WindowMapping::Standard
            },
        };
        let user = UserTransform {
            side_inputs: vec![side],
            ..user()
        };
        self.user(op, input, user)
    }

    fn step(&mut self, input: CollectionId, sides: &[CollectionId]) -> CollectionId {
        match self.rng.below(16 + u64::from(self.endless)) {
            15 => {
                let echo = self.stateful(Op::Echo, input, TimeDomain::EventTime);
                self.stateful(Op::AfterEcho, echo, TimeDomain::EventTime)
            }
            16 => self.stateful(Op::LoopingTimers, input, TimeDomain::ProcessingTime),
            0 => {
                let by = self.rng.range(1, 9);
                self.user(Op::Add(by), input, user())
            }
            1 => self.user(Op::Drop(7), input, user()),
            2 => self.native("Redistribute", &[input], TransformKind::Redistribute, pair()),
            3 | 4 => self.group(input),
            5 => self.stateful(Op::StateSum, input, TimeDomain::EventTime),
            6 => self.stateful(Op::TagTimers, input, TimeDomain::EventTime),
            7 => self.stateful(Op::ProcessingTimers, input, TimeDomain::ProcessingTime),
            8 | 9 => self.side(Op::SideAdd, input, sides, SideInputAccess::Iterable),
            10 => self.stateful(Op::Sorted, input, TimeDomain::EventTime),
            11 => self.side(Op::SideLookup, input, sides, SideInputAccess::Multimap),
            12 | 13 => self.sessions(input),
            _ => self.stateful(Op::ExpirySum, input, TimeDomain::EventTime),
        }
    }
}

/// A pipeline of its own for each seed.
pub fn generate(rng: &mut Rng) -> Pipeline {
    let mut builder = Builder::new(rng);
    let current = builder.source();
    builder.rest(current, None, Vec::new())
}

/// As [`generate`], with a source that ends only when the job drains.
pub fn generate_endless(rng: &mut Rng) -> Pipeline {
    let mut builder = Builder::new(rng);
    builder.endless = true;
    let impulse = builder.native("Impulse", &[], TransformKind::Impulse, Coder::Bytes);
    // Sometimes more than there are slots, so that bundles take several.
    let more = if builder.rng.chance(10) { 12 } else { 0 };
    let count = 1 + more + builder.rng.below(3) as i64;
    let ranges = (0..count).map(|i| (i * UNIT, (i + 1) * UNIT)).collect();
    let stateful = builder.rng.chance(30);
    let (ranges, endless) = builder.read(Op::ReadOn, ranges, impulse, stateful);
    let mut truncates = Vec::new();
    let read = TransformId(builder.graph.transforms.len() as u32 - 1);
    builder.graph.collections[endless].bounded = false;
    if builder.rng.chance(60) {
        let truncate = TransformId(builder.graph.transforms.len() as u32);
        let truncated = builder.user(Op::Truncate, ranges, user());
        builder.graph.collections[truncated].coder = builder.graph.collections[ranges].coder.clone();
        truncates.push((read, truncate));
    }
    // It leaves its stage, so that the driver sees it.
    let current = builder.native("Redistribute", &[endless], TransformKind::Redistribute, pair());
    builder.rest(current, Some(endless), truncates)
}

impl Builder<'_> {
    fn rest(
        mut self,
        mut current: CollectionId,
        endless: Option<CollectionId>,
        truncates: Vec<(TransformId, TransformId)>,
    ) -> Pipeline {
        let mut sides = vec![current];
        let size = [10, 25, 50][self.rng.below(3) as usize];
        let window = match self.rng.below(8) {
            0 | 1 => None,
            2 | 3 => Some(Op::Sliding(size, size * 2 / 5)),
            _ => Some(Op::Window(size)),
        };
        if let Some(window) = &window {
            current = self.user(window.clone(), current, user());
        }
        if self.rng.chance(40) {
            let mut other = self.source();
            sides.push(other);
            if let Some(window) = window {
                other = self.user(window, other, user());
            }
            current = self.native("Flatten", &[current, other], TransformKind::Flatten, pair());
        }
        for _ in 0..1 + self.rng.below(6) {
            let next = self.step(current, &sides);
            sides.push(current);
            if self.rng.chance(10) {
                // The same collection twice, one of them directly.
                current = self.native("Flatten", &[current, next], TransformKind::Flatten, pair());
            } else {
                current = next;
            }
        }
        Pipeline {
            endless,
            truncates,
            ..self.end(current)
        }
    }

    /// What the sink reads is made by user code, so that the driver sees it.
    pub fn end(mut self, current: CollectionId) -> Pipeline {
        let sink = self.user(Op::Add(0), current, user());
        self.native("Sink", &[sink], TransformKind::Redistribute, pair());
        Pipeline {
            graph: self.graph,
            ops: self.ops,
            sink,
            endless: None,
            truncates: Vec::new(),
        }
    }
}
