//! Generated pipelines: a graph for the engine, and what the user code of each transform does.

use std::collections::BTreeMap;

use purlin_coders::{Coder, WindowCoder};
use purlin_engine::{
    Accumulation, Collection, CollectionId, Environment, EnvironmentId, Graph, PaneEmission, SideInput,
    SideInputAccess, TimeDomain, TimerFamily, TimestampCombiner, Transform, TransformId, TransformKind,
    Trigger, UserTransform, WindowFn, WindowMapping, Windowing,
};

use crate::rng::Rng;

/// User code. Elements are pairs of integers.
#[derive(Clone, Debug)]
pub enum Op {
    /// Timestamp, key, value of each element.
    Create(Vec<(i64, i64, i64)>),
    /// Ranges for `Read`.
    Ranges(Vec<(i64, i64)>),
    /// Splittable: emits each number of its range at that timestamp.
    Read,
    /// Assigns fixed windows of this size.
    Window(i64),
    Add(i64),
    /// Drops values that are multiples.
    Drop(i64),
    /// After a GroupByKey.
    Sum,
    /// Sums values in a bag; a timer at the end of the window emits.
    StateSum,
    /// As StateSum, but emits when its window expires.
    ExpirySum,
    /// Each element has an event-time timer of its own, which sets itself again twice.
    TagTimers,
    /// Each element has a processing-time timer of its own.
    ProcessingTimers,
    /// Adds the sum of a side input.
    SideAdd,
    /// Fails unless elements of a key come in order of time.
    Sorted,
}

pub struct Pipeline {
    pub graph: Graph,
    pub ops: BTreeMap<TransformId, Op>,
    pub sink: CollectionId,
}

struct Builder<'a> {
    rng: &'a mut Rng,
    graph: Graph,
    ops: BTreeMap<TransformId, Op>,
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

impl Builder<'_> {
    fn collection(&mut self, coder: Coder, window_fn: WindowFn) -> CollectionId {
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
        self.graph.collections[id.0 as usize].windowing.window_fn.clone()
    }

    fn transform(
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

    fn native(
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

    fn user(&mut self, op: Op, input: CollectionId, user: UserTransform) -> CollectionId {
        let window_fn = match &op {
            Op::Window(size) => WindowFn::Fixed {
                size_ms: *size,
                offset_ms: 0,
            },
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
        let count = 1 + self.rng.below(3);
        let mut ranges = Vec::new();
        for _ in 0..count {
            let start = self.rng.range(0, 80);
            ranges.push((start, start + self.rng.range(0, 30)));
        }
        let ranges = self.user(Op::Ranges(ranges), impulse, user());
        self.user(
            Op::Read,
            ranges,
            UserTransform {
                splittable: true,
                ..user()
            },
        )
    }

    fn group(&mut self, input: CollectionId) -> CollectionId {
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

    fn step(&mut self, input: CollectionId, sides: &[CollectionId]) -> CollectionId {
        match self.rng.below(12) {
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
            8 | 9 => {
                let collection = sides[self.rng.below(sides.len() as u64) as usize];
                let access = SideInputAccess::Iterable;
                let side = SideInput {
                    tag: "side".into(),
                    collection,
                    access,
                    mapping: WindowMapping::Standard,
                };
                self.user(
                    Op::SideAdd,
                    input,
                    UserTransform {
                        side_inputs: vec![side],
                        ..user()
                    },
                )
            }
            10 => self.stateful(Op::Sorted, input, TimeDomain::EventTime),
            _ => self.stateful(Op::ExpirySum, input, TimeDomain::EventTime),
        }
    }
}

/// A pipeline of its own for each seed.
pub fn generate(rng: &mut Rng) -> Pipeline {
    let environment = Environment {
        name: "fake".into(),
        workers: 1 + rng.below(3) as u32,
        slots_per_worker: 1 + rng.below(3) as u32,
    };
    let graph = Graph {
        environments: vec![environment],
        ..Graph::default()
    };
    let mut builder = Builder {
        rng,
        graph,
        ops: BTreeMap::new(),
    };
    let mut current = builder.source();
    let mut sides = vec![current];
    let window = [0, 10, 25, 50][builder.rng.below(4) as usize];
    if window > 0 {
        current = builder.user(Op::Window(window), current, user());
    }
    if builder.rng.chance(40) {
        let mut other = builder.source();
        sides.push(other);
        if window > 0 {
            other = builder.user(Op::Window(window), other, user());
        }
        current = builder.native("Flatten", &[current, other], TransformKind::Flatten, pair());
    }
    for _ in 0..1 + builder.rng.below(6) {
        let next = builder.step(current, &sides);
        sides.push(current);
        if builder.rng.chance(10) {
            // The same collection twice, one of them directly.
            current = builder.native("Flatten", &[current, next], TransformKind::Flatten, pair());
        } else {
            current = next;
        }
    }
    // What the sink reads is made by user code, so that the driver sees it.
    current = builder.user(Op::Add(0), current, user());
    builder.native("Sink", &[current], TransformKind::Redistribute, pair());
    Pipeline {
        graph: builder.graph,
        ops: builder.ops,
        sink: current,
    }
}
