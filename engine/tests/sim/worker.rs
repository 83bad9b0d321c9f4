//! A fake worker: runs a bundle's user code on decoded elements.

use std::collections::BTreeMap;

use bytes::Bytes;
use purlin_engine::{
    BundleId, BundleResult, Chunk, CollectionFormat, CollectionId, Engine, Residual, SideInputKey,
    SideInputPart, Stage, StateKey, StatePart, TransformId,
};
use purlin_model::windowed::encode_header;
use purlin_model::{Coder, PaneInfo, Timer, TimerCoder, TimerFiring, Timestamp, Window, Windows, wire};

use crate::oracle::{Element, fixed, loops, session, side_window, sliding};
use crate::pipeline::{Op, Pipeline, UNIT, is_sized, range_key};

pub fn encode(element: &Element, coder: &Coder) -> Bytes {
    encode_in(
        element,
        std::slice::from_ref(&element.window),
        PaneInfo::NO_FIRING,
        coder,
    )
}

/// An element in several windows.
fn encode_in(element: &Element, windows: &[Window], pane: PaneInfo, coder: &Coder) -> Bytes {
    let mut out = Vec::new();
    encode_header(element.timestamp, windows, pane, &mut out);
    if is_sized(coder) {
        let (start, end) = (element.key, element.value);
        for part in [range_key(start), start - start % UNIT, start, end, end - start] {
            wire::write_varint(part as u64, &mut out);
        }
        return out.into();
    }
    wire::write_varint(element.key as u64, &mut out);
    wire::write_varint(element.value as u64, &mut out);
    out.into()
}

/// The elements of a collection of pairs, or of grouped pairs (the value is then the sum).
pub fn decode(data: &[u8], format: &CollectionFormat) -> Vec<Element> {
    let mut elements = Vec::new();
    for walked in format.walk(data) {
        let walked = walked.unwrap();
        let value = &data[walked.value()];
        if is_sized(&format.coder) {
            let mut rest = value;
            let parts: Vec<i64> = (0..5)
                .map(|_| wire::read_varint(&mut rest).unwrap() as i64)
                .collect();
            elements.extend(walked.windows.iter().map(|window| Element {
                timestamp: walked.timestamp,
                window: window.clone(),
                key: parts[2],
                value: parts[3],
            }));
            continue;
        }
        let (key, rest) = match format.coder.split_kv(value) {
            Ok((mut key, rest)) => (wire::read_varint(&mut key).unwrap() as i64, rest),
            Err(_) => (0, &[0u8][..]),
        };
        let value = match format.coder.as_kv().and_then(|(_, value)| value.as_iterable()) {
            Some(_) => {
                let (_, coder) = format.coder.as_kv().unwrap();
                let values = coder.iterable_elements(rest).unwrap();
                values
                    .map(|value| wire::read_varint(&mut &value.unwrap()[..]).unwrap() as i64)
                    .sum()
            }
            None => wire::read_varint(&mut &rest[..]).unwrap() as i64,
        };
        for window in walked.windows.iter() {
            elements.push(Element {
                timestamp: walked.timestamp,
                window: window.clone(),
                key,
                value,
            });
        }
    }
    elements
}

/// The panes of the elements that [`decode`] finds.
pub fn panes(data: &[u8], format: &CollectionFormat) -> Vec<PaneInfo> {
    let elements = format.walk(data).map(|walked| walked.unwrap());
    elements
        .flat_map(|element| vec![element.pane; element.windows.len()])
        .collect()
}

/// How the fake worker misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Residuals hold no watermark.
    DroppedHold,
    /// A residual is given twice.
    DoubledResidual,
    /// A timer that was set is not told.
    LostTimer,
    /// State is written behind the bundle's back, so that a failure does not undo it (told twice on retry).
    DoubledOutput,
}

/// A time after `now` at which many timers fire together.
fn next_tick(now: Timestamp, every: i64) -> Timestamp {
    Timestamp((now.0 / every + 1) * every)
}

pub struct Run<'a> {
    pub engine: &'a mut Engine,
    pub pipeline: &'a Pipeline,
    pub stage: Stage,
    pub bundle: BundleId,
    pub now: Timestamp,
    /// How many elements of a range are read before a checkpoint.
    pub checkpoint: i64,
    pub fault: Fault,
    /// The pane of the element that is processed; what comes of it bears it too.
    pane: PaneInfo,
    outputs: BTreeMap<CollectionId, Vec<u8>>,
    result: BundleResult,
}

impl<'a> Run<'a> {
    pub fn new(
        engine: &'a mut Engine,
        pipeline: &'a Pipeline,
        stage: Stage,
        bundle: BundleId,
        now: Timestamp,
    ) -> Run<'a> {
        let (outputs, result) = (BTreeMap::new(), BundleResult::default());
        Run {
            engine,
            pipeline,
            stage,
            bundle,
            now,
            checkpoint: i64::MAX,
            fault: Fault::None,
            pane: PaneInfo::NO_FIRING,
            outputs,
            result,
        }
    }

    pub fn elements(&mut self, elements: &[Element], panes: &[PaneInfo]) {
        for (element, pane) in elements.iter().zip(panes) {
            self.pane = *pane;
            self.feed(self.stage.input, element);
        }
    }

    pub fn finish(mut self) -> BundleResult {
        for (collection, data) in self.outputs {
            let format = self.engine.format(collection).unwrap();
            self.result
                .outputs
                .push((collection, Chunk::scan(data.into(), format).unwrap()));
        }
        if self.fault == Fault::DoubledOutput
            && let Some(first) = self.result.outputs.first().cloned()
        {
            self.result.outputs.push(first);
        }
        if self.fault == Fault::LostTimer {
            self.result.timers.pop();
        }
        for residual in &mut self.result.residuals {
            if self.fault == Fault::DroppedHold {
                residual.watermark = Some(Timestamp::MAX);
            }
        }
        if self.fault == Fault::DoubledResidual
            && let Some(first) = self.result.residuals.first().cloned()
        {
            self.result.residuals.push(first);
        }
        self.result
    }

    /// Gives an element to the transforms of the stage that read the collection.
    fn feed(&mut self, collection: CollectionId, element: &Element) {
        for id in self.stage.transforms.clone() {
            if self.pipeline.graph.transforms[id].inputs.contains(&collection) {
                self.process(id, element);
            }
        }
    }

    fn emit(&mut self, id: TransformId, element: Element) {
        let windows = [element.window.clone()];
        self.emit_in(id, element, &windows);
    }

    /// Emits an element in several windows: as one to other stages, one by one in this stage.
    fn emit_in(&mut self, id: TransformId, element: Element, windows: &[Window]) {
        for output in self.pipeline.graph.transforms[id].outputs.clone() {
            if self.stage.outputs.contains(&output) {
                let out = self.outputs.entry(output).or_default();
                let coder = &self.pipeline.graph.collections[output].coder;
                out.extend_from_slice(&encode_in(&element, windows, self.pane, coder));
            }
            for window in windows {
                let window = window.clone();
                self.feed(
                    output,
                    &Element {
                        window,
                        ..element.clone()
                    },
                );
            }
        }
    }

    fn state(&self, id: TransformId, state: &str, element: &Element) -> StateKey {
        let mut key = Vec::new();
        wire::write_varint(element.key as u64, &mut key);
        let window = element.window.to_bytes();
        StateKey {
            transform: id,
            state: state.into(),
            window,
            key: key.into(),
            part: StatePart::Bag,
        }
    }

    fn append(&mut self, id: TransformId, state: &str, element: &Element, value: i64) {
        let key = self.state(id, state, element);
        let mut data = Vec::new();
        wire::write_varint(value as u64, &mut data);
        self.engine.state_append(self.bundle, key, data.into()).unwrap();
    }

    fn read(&self, id: TransformId, state: &str, element: &Element) -> Vec<i64> {
        let key = self.state(id, state, element);
        let parts = self.engine.state_get(self.bundle, &key).unwrap();
        parts
            .iter()
            .map(|part| wire::read_varint(&mut &part[..]).unwrap() as i64)
            .collect()
    }

    fn set_timer(&mut self, id: TransformId, element: &Element, tag: &str, fire: Timestamp, hold: Timestamp) {
        let mut key = Vec::new();
        wire::write_varint(element.key as u64, &mut key);
        let pane = PaneInfo::NO_FIRING;
        let timer = Timer {
            user_key: key.into(),
            dynamic_tag: tag.into(),
            windows: Windows::One(element.window.clone()),
            firing: Some(TimerFiring {
                fire_timestamp: fire,
                hold_timestamp: hold,
                pane,
            }),
        };
        let mut data = Vec::new();
        timer.encode(&mut data);
        self.result.timers.push((id, "timer".into(), data.into()));
    }

    /// A reader's state has what was read of a range, no more and no less: notes what follows.
    fn note(&mut self, id: TransformId, range: &Element, stop: i64) {
        let key = Element {
            key: range_key(range.key),
            ..range.clone()
        };
        let base = range.key - range.key % UNIT;
        let seen = self.read(id, "seen", &key);
        let seen = seen.iter().filter(|at| (base..base + UNIT).contains(at)).count();
        assert_eq!(
            seen as i64,
            range.key - base,
            "state does not go with its restriction"
        );
        for at in range.key..stop {
            self.append(id, "seen", &key, at);
        }
    }

    fn process(&mut self, id: TransformId, element: &Element) {
        let with = |value| Element {
            value,
            ..element.clone()
        };
        let end = element.window.max_timestamp();
        match self.pipeline.ops[&id].clone() {
            Op::Create(elements) => {
                for (at, key, value) in elements {
                    let timestamp = Timestamp(at);
                    self.emit(
                        id,
                        Element {
                            timestamp,
                            window: Window::Global,
                            key,
                            value,
                        },
                    );
                }
            }
            Op::Ranges(ranges) => {
                for (start, end) in ranges {
                    self.emit(
                        id,
                        Element {
                            key: start,
                            value: end,
                            ..element.clone()
                        },
                    );
                }
            }
            Op::Read | Op::ReadOn => {
                let stop = element.value.min(element.key.saturating_add(self.checkpoint));
                if self.stage.stateful.is_some() {
                    self.note(id, element, stop);
                }
                for at in element.key..stop {
                    let timestamp = Timestamp(at);
                    self.emit(
                        id,
                        Element {
                            timestamp,
                            window: Window::Global,
                            key: at % 5,
                            value: at,
                        },
                    );
                }
                if stop < element.value {
                    let rest = Element {
                        key: stop,
                        ..element.clone()
                    };
                    let watermark = Some(Timestamp(stop));
                    let coder = self.engine.format(self.stage.input).unwrap().coder.clone();
                    let endless = matches!(self.pipeline.ops[&id], Op::ReadOn);
                    let delay_ms = if endless { 0 } else { stop % 3 };
                    self.result.residuals.push(Residual {
                        element: encode(&rest, &coder),
                        delay_ms,
                        watermark,
                    });
                }
            }
            Op::Window(size) => self.emit(
                id,
                Element {
                    window: fixed(size, element.timestamp),
                    ..element.clone()
                },
            ),
            Op::Truncate => self.emit(
                id,
                Element {
                    value: element.value.min(element.key + 3),
                    ..element.clone()
                },
            ),
            Op::Sliding(size, period) => {
                let windows = sliding(size, period, element.timestamp);
                self.emit_in(id, element.clone(), &windows);
            }
            Op::Sessions(gap) => self.emit(
                id,
                Element {
                    window: session(gap, element.timestamp),
                    ..element.clone()
                },
            ),
            Op::Add(by) => self.emit(id, with(element.value + by)),
            Op::Rekey(modulus) => self.emit(
                id,
                Element {
                    key: element.value % modulus,
                    ..element.clone()
                },
            ),
            Op::Drop(modulus) => {
                if element.value % modulus != 0 {
                    self.emit(id, element.clone());
                }
            }
            // Decoding made the sum.
            Op::Sum => self.emit(id, element.clone()),
            Op::StateSum => {
                self.append(id, "bag", element, element.value);
                self.set_timer(id, element, "", end, end);
            }
            Op::ExpirySum => self.append(id, "bag", element, element.value),
            Op::TagTimers => {
                // Equal elements are told apart by the number of those before them.
                let count = self.read(id, "count", element).len();
                self.append(id, "count", element, 0);
                let fire = loops(element.timestamp, &element.window)[0];
                let tag = format!("{count}/{}/{}/0", element.timestamp.0, element.value);
                self.set_timer(id, element, &tag, fire, fire);
            }
            Op::Echo => {
                self.emit(id, with(element.value * 2));
                let later = element.timestamp.plus_millis(5);
                if later <= end {
                    let count = self.read(id, "count", element).len();
                    self.append(id, "count", element, 0);
                    let tag = format!("{count}/{}", element.value * 2 + 1);
                    self.set_timer(id, element, &tag, later, element.timestamp);
                }
            }
            Op::AfterEcho => {
                let first = element
                    .timestamp
                    .plus_millis(if element.value % 2 == 0 { 0 } else { -5 });
                let fired = format!("fired {}/{}", first.0, element.value / 2);
                if element.value % 2 == 0 {
                    let fire = element.timestamp.plus_millis(1).min(end);
                    let tag = format!("{}/{}", first.0, element.value / 2);
                    self.set_timer(id, element, &tag, fire, fire);
                } else {
                    assert!(
                        self.read(id, &fired, element).is_empty(),
                        "a timer overtook an element that came before the watermark moved"
                    );
                }
                self.emit(id, element.clone());
            }
            Op::ProcessingTimers => {
                let count = self.read(id, "count", element).len();
                self.append(id, "count", element, 0);
                let tag = format!("{count}/{}", element.value);
                let fire = self.now.plus_millis(3 + element.value % 20);
                self.set_timer(id, element, &tag, fire, element.timestamp);
            }
            Op::LoopingTimers => {
                let count = self.read(id, "count", element).len();
                self.append(id, "count", element, 0);
                let tag = format!("{count}/{}", element.value);
                let fire = next_tick(self.now, 10);
                self.set_timer(id, element, &tag, fire, element.timestamp);
            }
            Op::SideAdd | Op::SideLookup => {
                let side = self.engine.graph().transforms[id].clone();
                let purlin_engine::TransformKind::User(user) = side.kind else {
                    unreachable!()
                };
                let collection = user.side_inputs[0].collection;
                let window_fn = &self.pipeline.graph.collections[collection].windowing.window_fn;
                let window = side_window(window_fn, &element.window);
                let all = matches!(self.pipeline.ops[&id], Op::SideAdd);
                let part = if all {
                    SideInputPart::Iterable
                } else {
                    let mut key = Vec::new();
                    wire::write_varint(element.key as u64, &mut key);
                    SideInputPart::MultimapValues(key.into())
                };
                let key = SideInputKey {
                    transform: id,
                    side_input: "side".into(),
                    window: window.to_bytes(),
                    part,
                };
                let mut sum = 0;
                for chunk in self.engine.side_input(self.bundle, &key).unwrap() {
                    let mut rest = &chunk[..];
                    while !rest.is_empty() {
                        if all {
                            wire::read_varint(&mut rest).unwrap();
                        }
                        sum += wire::read_varint(&mut rest).unwrap() as i64;
                    }
                }
                self.emit(id, with(element.value + sum));
            }
            Op::Sorted => {
                let last = self.read(id, "last", element).last().copied().unwrap_or(i64::MIN);
                let at = element.timestamp.0;
                assert!(
                    last <= at,
                    "time-sorted input came out of order: {at} after {last}"
                );
                self.append(id, "last", element, at);
                self.emit(id, element.clone());
            }
        }
    }

    /// Fires timers.
    pub fn timers(&mut self, id: TransformId, data: &[u8]) {
        let format = self.engine.format(self.stage.input).unwrap().clone();
        let coder = TimerCoder {
            key: purlin_model::Coder::VarInt,
            window: format.window,
        };
        for timer in coder.decode_all(data) {
            let timer = timer.unwrap();
            let firing = timer.firing.unwrap();
            let key = wire::read_varint(&mut &timer.user_key[..]).unwrap() as i64;
            let window = timer.windows[0].clone();
            let mut element = Element {
                timestamp: firing.hold_timestamp,
                window,
                key,
                value: 0,
            };
            let mut tag = timer.dynamic_tag.split('/');
            let mut number = || tag.next().and_then(|part| part.parse::<i64>().ok()).unwrap_or(0);
            match self.pipeline.ops[&id].clone() {
                Op::StateSum | Op::ExpirySum => {
                    let values = self.read(id, "bag", &element);
                    assert!(!values.is_empty(), "a timer fired after its state was collected");
                    element.value = values.into_iter().sum();
                    let bag = self.state(id, "bag", &element);
                    self.engine.state_clear(self.bundle, &bag).unwrap();
                    self.emit(id, element);
                }
                Op::TagTimers => {
                    let (count, timestamp, value, turn) = (number(), number(), number(), number());
                    let at = loops(Timestamp(timestamp), &element.window);
                    element.value = value + 1 + turn;
                    assert_eq!(at[turn as usize], firing.fire_timestamp);
                    let fired = self.read(id, "fired", &element).last().copied();
                    assert!(
                        fired.is_none_or(|last| last <= firing.fire_timestamp.0),
                        "a timer fired after a later one"
                    );
                    self.append(id, "fired", &element, firing.fire_timestamp.0);
                    if let Some(next) = at.get(turn as usize + 1) {
                        let tag = format!("{count}/{timestamp}/{value}/{}", turn + 1);
                        self.set_timer(id, &element, &tag, *next, *next);
                    }
                    self.emit(id, element);
                }
                Op::Echo => {
                    number();
                    element.value = number();
                    element.timestamp = firing.fire_timestamp;
                    self.emit(id, element);
                }
                Op::AfterEcho => {
                    let fired = format!("fired {}", timer.dynamic_tag);
                    self.append(id, &fired, &element, 1);
                }
                op @ (Op::ProcessingTimers | Op::LoopingTimers) => {
                    let (count, value) = (number(), number());
                    // A drain does not wait for them.
                    assert!(
                        firing.fire_timestamp <= self.now || self.pipeline.endless.is_some(),
                        "a processing-time timer fired early"
                    );
                    element.value = value * 2;
                    if matches!(op, Op::LoopingTimers) {
                        let fire = next_tick(self.now, 1_000);
                        // Some go on for ever, the others fire once.
                        if count % 4 == 0 {
                            self.set_timer(
                                id,
                                &element,
                                &timer.dynamic_tag,
                                fire,
                                element.window.max_timestamp(),
                            );
                        }
                        if self.read(id, "fired", &element).contains(&count) {
                            continue;
                        }
                        self.append(id, "fired", &element, count);
                    }
                    self.emit(id, element);
                }
                other => panic!("{other:?} has no timers"),
            }
        }
    }
}
