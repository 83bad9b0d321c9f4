//! Generated scripts for a side input that fires again and again, also late, and a main input that reads it.
//!
//! A script goes on when all is quiet, so what a main element reads does not depend on the schedule.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use purlin_engine::{
    Accumulation, SideInputAccess, TestStream, TestStreamEvent, Transform, TransformKind, Trigger, WindowFn,
};
use purlin_model::{Coder, Timestamp, Window, wire};

use crate::oracle::{Element, fixed, side_window, sliding};
use crate::pipeline::{Builder, Op, Pipeline, pair, user};
use crate::rng::Rng;
use crate::scripted::apart;

const MAIN: usize = 0;
const SIDE: usize = 1;

/// A step of the script: for the main input or the side input.
#[derive(Clone, Debug)]
enum Step {
    /// Timestamp, key, value of each element.
    Elements(usize, Vec<(i64, i64, i64)>),
    Watermark(usize, i64),
}

/// What the oracle has to know.
#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    main_window: i64,
    /// How the side input is windowed; `None`: one window for all.
    side_window: Option<Op>,
    lateness: i64,
    accumulating: bool,
    /// A key that stands for none fires, and what it gives has other keys: else each key fires by itself.
    lone: bool,
    /// Whether main elements read the values of their key, or all.
    lookup: bool,
}

fn script(rng: &mut Rng, lone: bool) -> Vec<Step> {
    let mut watermarks = [0, 0];
    let mut steps = Vec::new();
    for _ in 0..rng.below(20) {
        let of = rng.below(2) as usize;
        if rng.chance(30) {
            watermarks[of] += rng.range(0, 40);
            steps.push(Step::Watermark(of, watermarks[of]));
            continue;
        }
        let element = |rng: &mut Rng| {
            let at = (watermarks[of] + rng.range(-40, 40)).max(0);
            let key = if lone && of == SIDE { 0 } else { rng.range(0, 3) };
            (at, key, rng.range(1, 1_000))
        };
        let count = 1 + rng.below(3);
        steps.push(Step::Elements(of, (0..count).map(|_| element(rng)).collect()));
    }
    steps
}

fn event(step: &Step) -> TestStreamEvent {
    match step {
        Step::Watermark(of, to) => TestStreamEvent::Watermark {
            output: Some(*of),
            to: Timestamp(*to),
        },
        Step::Elements(of, elements) => {
            let encode = |&(at, key, value): &(i64, i64, i64)| {
                let mut data = Vec::new();
                wire::write_varint(key as u64, &mut data);
                wire::write_varint(value as u64, &mut data);
                (Bytes::from(data), Timestamp(at))
            };
            TestStreamEvent::Elements {
                output: *of,
                elements: elements.iter().map(encode).collect(),
            }
        }
    }
}

pub fn generate(rng: &mut Rng) -> (Pipeline, Script) {
    let lone = rng.chance(40);
    let script = Script {
        steps: script(rng, lone),
        main_window: [5, 20, 50][rng.below(3) as usize],
        side_window: match rng.below(4) {
            0 => None,
            1 => Some(Op::Sliding(30, 10)),
            _ => Some(Op::Window([5, 20, 50][rng.below(3) as usize])),
        },
        lateness: [0, 10, 1_000][rng.below(3) as usize],
        accumulating: rng.chance(50),
        lone,
        lookup: rng.chance(50),
    };
    let mut builder = Builder::new(rng);
    let outputs = vec![
        builder.collection(pair(), WindowFn::Global),
        builder.collection(pair(), WindowFn::Global),
    ];
    let events = script.steps.iter().map(event).collect();
    builder.graph.transforms.push(Transform {
        name: "TestStream".into(),
        inputs: Vec::new(),
        outputs: outputs.clone(),
        kind: TransformKind::TestStream(TestStream {
            events,
            remote: false,
        }),
    });
    let main = builder.user(Op::Window(script.main_window), outputs[MAIN], user());
    let mut side = builder.user(Op::Add(0), outputs[SIDE], user());
    let first = side;
    if let Some(op) = &script.side_window {
        side = builder.user(op.clone(), side, user());
    }
    side = builder.group(side);
    if builder.rng.chance(50) {
        side = builder.native("Redistribute", &[side], TransformKind::Redistribute, pair());
    }
    if lone {
        side = builder.user(Op::Rekey(3), side, user());
    }
    for collection in &mut builder.graph.collections {
        collection.bounded = false;
    }
    if lone {
        // Under a length prefix what was the number 0 is an empty key.
        for collection in &mut builder.graph.collections[first..side] {
            let (_, value) = collection.coder.as_kv().expect("it is of pairs");
            collection.coder = Coder::kv(Coder::length_prefix(Coder::Bytes), value.clone());
        }
    }
    for collection in &mut builder.graph.collections[first..=side] {
        let windowing = &mut collection.windowing;
        windowing.trigger = Trigger::Repeat(Box::new(Trigger::ElementCount(1)));
        windowing.allowed_lateness_ms = script.lateness;
        if script.accumulating {
            windowing.accumulation = Accumulation::Accumulating;
        }
    }
    let (op, access) = if script.lookup {
        (Op::SideLookup, SideInputAccess::Multimap)
    } else {
        (Op::SideAdd, SideInputAccess::Iterable)
    };
    let read = builder.side(op, main, &[side], access);
    (builder.end(read), script)
}

/// What main elements give, in the order of the script's steps.
pub fn evaluate(script: &Script) -> Vec<Element> {
    let mut watermarks = [i64::MIN; 2];
    // By window and key of the grouping: all that came so far, and what the latest firing gave.
    let mut panes: BTreeMap<(Window, i64), (i64, i64)> = BTreeMap::new();
    let mut waiting: Vec<Element> = Vec::new();
    let mut told = Vec::new();
    let window_fn = match script.side_window {
        None => WindowFn::Global,
        Some(Op::Window(size_ms)) => WindowFn::Fixed {
            size_ms,
            offset_ms: 0,
        },
        Some(Op::Sliding(size_ms, period_ms)) => WindowFn::Sliding {
            size_ms,
            period_ms,
            offset_ms: 0,
        },
        ref other => panic!("{other:?} is no window"),
    };
    let windows = |at: i64| match script.side_window {
        Some(Op::Window(size)) => vec![fixed(size, Timestamp(at))],
        Some(Op::Sliding(size, period)) => sliding(size, period, Timestamp(at)),
        _ => vec![Window::Global],
    };
    let end = [Step::Watermark(MAIN, i64::MAX), Step::Watermark(SIDE, i64::MAX)];
    for step in script.steps.iter().chain(&end) {
        let (mut of, mut together) = (MAIN, vec![Vec::new()]);
        match step {
            Step::Watermark(of, to) => watermarks[*of] = watermarks[*of].max(*to),
            Step::Elements(which, elements) => (of, together) = (*which, apart(elements, watermarks[*which])),
        }
        for elements in together {
            // Those whose windows have ended come last, and fire together.
            let is_late = |at: i64| {
                windows(at)
                    .iter()
                    .all(|window| window.max_timestamp().0 < watermarks[SIDE])
            };
            let (late, timely): (Vec<_>, Vec<_>) =
                elements.into_iter().partition(|element| is_late(element.0));
            let mut fired = BTreeSet::new();
            for (at, key, value) in timely.into_iter().chain(late) {
                if of == MAIN {
                    waiting.push(Element {
                        timestamp: Timestamp(at),
                        window: fixed(script.main_window, Timestamp(at)),
                        key,
                        value,
                    });
                    continue;
                }
                for window in windows(at) {
                    let expiry = window.max_timestamp().0.saturating_add(script.lateness);
                    if window != Window::Global && expiry < watermarks[SIDE] {
                        continue;
                    }
                    let pane = panes.entry((window.clone(), key)).or_default();
                    pane.0 += value;
                    // The trigger counts: it fires for each element that is not late.
                    let goes_on = is_late(at) && !fired.insert((window, key));
                    pane.1 = match (script.accumulating, goes_on) {
                        (true, _) => pane.0,
                        (false, true) => pane.1 + value,
                        (false, false) => value,
                    };
                }
            }
            waiting.retain(|element| {
                let window = side_window(&window_fn, &element.window);
                let given = panes.iter().filter(|((other, _), _)| *other == window);
                let given: Vec<(i64, i64)> = given.map(|((_, key), pane)| (*key, pane.1)).collect();
                let end = window.max_timestamp().0;
                let ready = match window {
                    Window::Global => !given.is_empty() || watermarks[SIDE] == i64::MAX,
                    _ => {
                        (!given.is_empty() && watermarks[SIDE] > end)
                            || watermarks[SIDE] > end.saturating_add(script.lateness)
                    }
                };
                if ready {
                    let key = |(key, value): &(i64, i64)| if script.lone { value % 3 } else { *key };
                    let read = given
                        .iter()
                        .filter(|one| !script.lookup || key(one) == element.key);
                    let sum: i64 = read.map(|(_, value)| value).sum();
                    told.push(Element {
                        value: element.value + sum,
                        ..element.clone()
                    });
                }
                !ready
            });
        }
    }
    told.sort();
    told
}
