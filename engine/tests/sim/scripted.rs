//! Generated pipelines that follow scripts: TestStreams with late elements, and a grouping that allows some of them.
//!
//! A script goes on when all is quiet, so what a grouping has seen at each of its steps does not depend on the schedule.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use purlin_engine::{Accumulation, CollectionId, TestStream, TestStreamEvent, TransformKind, Trigger};
use purlin_model::{Timestamp, wire};

use crate::oracle::{Element, fixed};
use crate::pipeline::{Builder, Op, Pipeline, pair, user};
use crate::rng::Rng;

/// A step of a script.
#[derive(Clone, Debug)]
enum Step {
    /// Timestamp, key, value of each element.
    Elements(Vec<(i64, i64, i64)>),
    Watermark(i64),
    ProcessingTime(i64),
}

/// What the oracle has to know.
pub struct Script {
    streams: Vec<Vec<Step>>,
    window: i64,
    /// Applied to each element before it is grouped.
    chain: Vec<Op>,
    lateness: i64,
    accumulating: bool,
    /// Fires for so many elements before the window's end.
    early: Option<u32>,
}

fn script(rng: &mut Rng) -> Vec<Step> {
    let (mut watermark, mut steps) = (0, Vec::new());
    for _ in 0..rng.below(14) {
        steps.push(match rng.below(4) {
            0 => {
                watermark += rng.range(0, 30);
                Step::Watermark(watermark)
            }
            1 => Step::ProcessingTime(rng.range(0, 20)),
            _ => {
                let count = 1 + rng.below(4);
                let element = |rng: &mut Rng| {
                    let at = (watermark + rng.range(-40, 40)).max(0);
                    (at, rng.range(0, 3), rng.range(1, 1_000))
                };
                Step::Elements((0..count).map(|_| element(rng)).collect())
            }
        });
    }
    steps
}

fn event(step: &Step) -> TestStreamEvent {
    match step {
        Step::Watermark(to) => TestStreamEvent::Watermark {
            output: None,
            to: Timestamp(*to),
        },
        Step::ProcessingTime(by) => TestStreamEvent::ProcessingTime(*by),
        Step::Elements(elements) => {
            let encode = |&(at, key, value): &(i64, i64, i64)| {
                let mut data = Vec::new();
                wire::write_varint(key as u64, &mut data);
                wire::write_varint(value as u64, &mut data);
                (Bytes::from(data), Timestamp(at))
            };
            TestStreamEvent::Elements {
                output: 0,
                elements: elements.iter().map(encode).collect(),
            }
        }
    }
}

pub fn generate(rng: &mut Rng) -> (Pipeline, Script) {
    let accumulating = rng.chance(40);
    let early = rng.chance(40).then(|| 1 + rng.below(3) as u32);
    let streams: Vec<_> = (0..1 + rng.below(3)).map(|_| script(rng)).collect();
    let window = [5, 20, 50][rng.below(3) as usize];
    let lateness = [0, 10, 1_000][rng.below(3) as usize];
    let mut builder = Builder::new(rng);
    let mut outputs: Vec<CollectionId> = Vec::new();
    for steps in &streams {
        let events = steps.iter().map(event).collect();
        let remote = false;
        let kind = TransformKind::TestStream(TestStream { events, remote });
        outputs.push(builder.native("TestStream", &[], kind, pair()));
    }
    let flat = builder.native("Flatten", &outputs, TransformKind::Flatten, pair());
    let mut current = builder.user(Op::Window(window), flat, user());
    let mut chain = Vec::new();
    for _ in 0..builder.rng.below(4) {
        let op = match builder.rng.below(3) {
            0 => Op::Add(builder.rng.range(1, 9)),
            1 => Op::Drop(7),
            _ => {
                current = builder.native("Redistribute", &[current], TransformKind::Redistribute, pair());
                continue;
            }
        };
        chain.push(op.clone());
        current = builder.user(op, current, user());
    }
    for collection in &mut builder.graph.collections {
        collection.bounded = false;
    }
    let windowing = &mut builder.graph.collections[current].windowing;
    windowing.allowed_lateness_ms = lateness;
    if accumulating {
        windowing.accumulation = Accumulation::Accumulating;
    }
    let count = |n| Some(Box::new(Trigger::ElementCount(n)));
    if let Some(n) = early {
        windowing.trigger = Trigger::AfterEndOfWindow {
            early: count(n),
            late: count(1),
        };
    }
    let sums = builder.group(current);
    let script = Script {
        streams,
        window,
        chain,
        lateness,
        accumulating,
        early,
    };
    (builder.end(sums), script)
}

#[derive(Default)]
struct Pane {
    sum: i64,
    fresh: u32,
    fired: bool,
    on_time: bool,
}

/// The elements of an event that come as one bundle each, in order: those like the first one, and the others.
pub fn apart(elements: &[(i64, i64, i64)], watermark: i64) -> Vec<Vec<(i64, i64, i64)>> {
    let first = elements.first().is_some_and(|first| first.0 < watermark);
    let (same, others) = elements
        .iter()
        .partition(|element| (element.0 < watermark) == first);
    vec![same, others]
}

/// What the grouping tells, in the order of the scripts' steps.
pub fn evaluate(script: &Script) -> Vec<Element> {
    let mut places: Vec<(usize, i64, i64, bool)> = vec![(0, 0, i64::MIN, false); script.streams.len()];
    let mut panes: BTreeMap<(i64, i64), Pane> = BTreeMap::new();
    let mut told = Vec::new();
    let mut watermark = i64::MIN;
    let tell = |pane: &mut Pane, key: i64, start: i64, told: &mut Vec<Element>| {
        let window = fixed(script.window, Timestamp(start));
        told.push(Element {
            timestamp: window.max_timestamp(),
            window,
            key,
            value: pane.sum,
        });
        if !script.accumulating {
            pane.sum = 0;
        }
        (pane.fresh, pane.fired) = (0, true);
    };
    // The script that is furthest behind goes next, the first of those that are.
    while let Some(next) = (0..places.len())
        .filter(|&i| !places[i].3)
        .min_by_key(|&i| places[i].1)
    {
        let place = &mut places[next];
        // What comes together is one bundle, but for elements behind the stream's watermark and before it.
        let mut together = vec![Vec::new()];
        match script.streams[next].get(place.0) {
            None => (place.2, place.3) = (i64::MAX, true),
            Some(Step::Watermark(to)) => place.2 = place.2.max(*to),
            Some(Step::ProcessingTime(by)) => place.1 += by,
            Some(Step::Elements(elements)) => together = apart(elements, place.2),
        }
        place.0 += 1;
        for elements in together {
            // Who has fresh elements is asked after each of them by a trigger that counts, else when all are in. Late ones come
            // last, and together.
            let is_late = |at: i64| at - at.rem_euclid(script.window) + script.window - 1 < watermark;
            let (late, timely): (Vec<_>, Vec<_>) =
                elements.into_iter().partition(|element| is_late(element.0));
            let mut new = BTreeSet::new();
            let mut ask = |new: &mut BTreeSet<(i64, i64)>, panes: &mut BTreeMap<(i64, i64), Pane>| {
                for (start, key) in std::mem::take(new) {
                    let pane = panes.get_mut(&(start, key)).unwrap();
                    let late = start + script.window - 1 < watermark;
                    if late || script.early.is_some_and(|n| pane.fresh >= n) {
                        pane.on_time |= late;
                        tell(pane, key, start, &mut told);
                    }
                }
            };
            for (at, key, value) in timely.into_iter().chain(late) {
                let value = script.chain.iter().try_fold(value, |value, op| match op {
                    Op::Add(by) => Some(value + by),
                    Op::Drop(modulus) => (value % modulus != 0).then_some(value),
                    other => panic!("{other:?} is no part of a chain"),
                });
                let Some(value) = value else { continue };
                let start = at - at.rem_euclid(script.window);
                if (start + script.window - 1).saturating_add(script.lateness) < watermark {
                    continue;
                }
                let pane = panes.entry((start, key)).or_default();
                pane.sum += value;
                pane.fresh += 1;
                new.insert((start, key));
                if script.early.is_some() && !is_late(at) {
                    ask(&mut new, &mut panes);
                }
            }
            ask(&mut new, &mut panes);
        }
        watermark = places.iter().map(|place| place.2).min().unwrap_or(i64::MAX);
        for (&(start, key), pane) in &mut panes {
            if !pane.on_time && start + script.window - 1 < watermark {
                pane.on_time = true;
                // The pane on time is told even if it has nothing new, where it is one of several.
                if pane.fresh > 0 || pane.fired {
                    tell(pane, key, start, &mut told);
                }
            }
        }
    }
    told.sort();
    told
}

/// The window of a scripted element, for messages.
pub fn describe(script: &Script) -> String {
    let Script {
        streams,
        window,
        chain,
        lateness,
        accumulating,
        early,
    } = script;
    format!(
        "windows of {window}, lateness {lateness}, accumulating {accumulating}, early {early:?}, {chain:?}: {streams:?}"
    )
}
