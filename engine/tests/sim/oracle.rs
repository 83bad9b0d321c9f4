//! What a pipeline computes, by the plainest means.

use std::collections::BTreeMap;

use purlin_engine::{CollectionId, TransformKind, WindowFn};
use purlin_model::{Timestamp, Window};

use crate::pipeline::{Op, Pipeline};

/// An element in one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub timestamp: Timestamp,
    pub window: Window,
    pub key: i64,
    pub value: i64,
}

pub fn fixed(size: i64, at: Timestamp) -> Window {
    let start = at.0 - at.0.rem_euclid(size);
    Window::Interval {
        start: Timestamp(start),
        end: Timestamp(start + size),
    }
}

pub fn sliding(size: i64, period: i64, at: Timestamp) -> Vec<Window> {
    let last = at.0 - at.0.rem_euclid(period);
    let starts = (0..)
        .map(|n| last - n * period)
        .take_while(|start| *start > at.0 - size);
    let window = |start: i64| Window::Interval {
        start: Timestamp(start),
        end: Timestamp(start + size),
    };
    starts.map(window).collect()
}

/// The side-input window of a window of the main input: of those that hold its last timestamp the earliest.
pub fn side_window(window_fn: &WindowFn, main: &Window) -> Window {
    match window_fn {
        WindowFn::Fixed { size_ms, .. } => fixed(*size_ms, main.max_timestamp()),
        WindowFn::Sliding {
            size_ms, period_ms, ..
        } => {
            let all = sliding(*size_ms, *period_ms, main.max_timestamp());
            all.into_iter().min().unwrap()
        }
        _ => Window::Global,
    }
}

pub fn session(gap: i64, at: Timestamp) -> Window {
    Window::Interval {
        start: at,
        end: at.plus_millis(gap),
    }
}

/// Where the timers of `TagTimers` fire: each once, and again two times, but not beyond the window.
pub fn loops(timestamp: Timestamp, window: &Window) -> Vec<Timestamp> {
    let end = window.max_timestamp();
    let mut at = Vec::new();
    let mut next = timestamp.plus_millis(5).min(end);
    loop {
        at.push(next);
        if at.len() == 3 || next == end {
            return at;
        }
        next = next.plus_millis(5).min(end);
    }
}

/// The sessions of each key: windows that overlap are one.
fn merge(mut input: Vec<Element>) -> Vec<Element> {
    let ends = |window: &Window| match window {
        Window::Interval { start, end } => (start.0, end.0),
        other => panic!("{other:?} is no session"),
    };
    input.sort_by_key(|element| (element.key, ends(&element.window)));
    let mut sessions: Vec<(i64, i64, i64)> = Vec::new();
    for element in &input {
        let (start, end) = ends(&element.window);
        match sessions.last_mut() {
            Some((key, _, last)) if *key == element.key && start < *last => *last = end.max(*last),
            _ => sessions.push((element.key, start, end)),
        }
    }
    for element in &mut input {
        let (start, _) = ends(&element.window);
        let found =
            |session: &&(i64, i64, i64)| session.0 == element.key && session.1 <= start && start < session.2;
        if let Some(&(_, start, end)) = sessions.iter().find(found) {
            element.window = Window::Interval {
                start: Timestamp(start),
                end: Timestamp(end),
            };
        }
    }
    input
}

/// What the sink gets; `endless`: what a source without end made.
pub fn evaluate(pipeline: &Pipeline, endless: &[Element]) -> Vec<Element> {
    let mut results = BTreeMap::new();
    if let Some(id) = pipeline.endless {
        results.insert(id, endless.to_vec());
    }
    let mut found = collection(pipeline, pipeline.sink, &mut results);
    found.sort();
    found
}

fn collection(
    pipeline: &Pipeline,
    id: CollectionId,
    results: &mut BTreeMap<CollectionId, Vec<Element>>,
) -> Vec<Element> {
    if let Some(done) = results.get(&id) {
        return done.clone();
    }
    let index = pipeline
        .graph
        .transforms
        .position(|transform| transform.outputs.contains(&id))
        .unwrap();
    let transform = &pipeline.graph.transforms[index];
    let mut input = Vec::new();
    for from in &transform.inputs {
        input.extend(collection(pipeline, *from, results));
    }
    let impulse = Element {
        timestamp: Timestamp::MIN,
        window: Window::Global,
        key: 0,
        value: 0,
    };
    let elements = match &transform.kind {
        TransformKind::Impulse => vec![impulse],
        TransformKind::User(user) => {
            let side = user.side_inputs.first().map(|side| {
                let window_fn = pipeline.graph.collections[side.collection]
                    .windowing
                    .window_fn
                    .clone();
                (window_fn, collection(pipeline, side.collection, results))
            });
            let op = &pipeline.ops[&index];
            apply(op, input, side)
        }
        // The sum is made after a GroupByKey.
        TransformKind::GroupByKey => {
            let windowing = &pipeline.graph.collections[transform.inputs[0]].windowing;
            match windowing.window_fn {
                WindowFn::Sessions { .. } | WindowFn::Custom(_) => merge(input),
                _ => input,
            }
        }
        _ => input,
    };
    results.insert(id, elements.clone());
    elements
}

fn sums(input: Vec<Element>) -> Vec<Element> {
    let mut sums: BTreeMap<(i64, Window), i64> = BTreeMap::new();
    for element in input {
        *sums.entry((element.key, element.window)).or_default() += element.value;
    }
    let sum = |((key, window), value): ((i64, Window), i64)| Element {
        timestamp: window.max_timestamp(),
        window,
        key,
        value,
    };
    sums.into_iter().map(sum).collect()
}

fn apply(op: &Op, input: Vec<Element>, side: Option<(WindowFn, Vec<Element>)>) -> Vec<Element> {
    let global = |timestamp, key, value| Element {
        timestamp: Timestamp(timestamp),
        window: Window::Global,
        key,
        value,
    };
    match op {
        Op::Create(elements) => elements
            .iter()
            .map(|&(at, key, value)| global(at, key, value))
            .collect(),
        Op::Ranges(ranges) => ranges
            .iter()
            .map(|&(start, end)| global(Timestamp::MIN.0, start, end))
            .collect(),
        Op::ReadOn | Op::Truncate => unreachable!("what an endless source made is given"),
        Op::Read => input
            .iter()
            .flat_map(|e| (e.key..e.value).map(|at| global(at, at % 5, at)))
            .collect(),
        Op::Window(size) => input
            .into_iter()
            .map(|e| Element {
                window: fixed(*size, e.timestamp),
                ..e
            })
            .collect(),
        Op::Sliding(size, period) => {
            let windows = |e: Element| {
                let windows = sliding(*size, *period, e.timestamp).into_iter();
                windows.map(move |window| Element { window, ..e.clone() })
            };
            input.into_iter().flat_map(windows).collect()
        }
        Op::Sessions(gap) => input
            .into_iter()
            .map(|e| Element {
                window: session(*gap, e.timestamp),
                ..e
            })
            .collect(),
        Op::Add(by) => input
            .into_iter()
            .map(|e| Element {
                value: e.value + by,
                ..e
            })
            .collect(),
        Op::Rekey(modulus) => input
            .into_iter()
            .map(|e| Element {
                key: e.value % modulus,
                ..e
            })
            .collect(),
        Op::Drop(modulus) => input.into_iter().filter(|e| e.value % modulus != 0).collect(),
        Op::Sum | Op::StateSum | Op::ExpirySum => sums(input),
        Op::TagTimers => {
            let fire = |e: Element| {
                let at = loops(e.timestamp, &e.window).into_iter().enumerate();
                at.map(move |(n, timestamp)| Element {
                    timestamp,
                    value: e.value + 1 + n as i64,
                    ..e.clone()
                })
                .collect::<Vec<_>>()
            };
            input.into_iter().flat_map(fire).collect()
        }
        Op::Echo => {
            let both = |e: Element| {
                let (value, later) = (e.value * 2, e.timestamp.plus_millis(5));
                let echo = (later <= e.window.max_timestamp()).then(|| Element {
                    timestamp: later,
                    value: value + 1,
                    ..e.clone()
                });
                std::iter::once(Element { value, ..e }).chain(echo)
            };
            input.into_iter().flat_map(both).collect()
        }
        Op::ProcessingTimers | Op::LoopingTimers => input
            .into_iter()
            .map(|e| Element {
                value: e.value * 2,
                ..e
            })
            .collect(),
        Op::SideAdd | Op::SideLookup => {
            let (window_fn, side) = side.unwrap();
            let all = matches!(op, Op::SideAdd);
            let add = |e: Element| {
                let window = side_window(&window_fn, &e.window);
                let sum: i64 = side
                    .iter()
                    .filter(|side| side.window == window && (all || side.key == e.key))
                    .map(|side| side.value)
                    .sum();
                Element {
                    value: e.value + sum,
                    ..e
                }
            };
            input.into_iter().map(add).collect()
        }
        Op::Sorted | Op::AfterEcho => input,
    }
}
