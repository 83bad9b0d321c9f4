//! Small graphs, and shorthands to drive an engine by hand.

#![allow(dead_code, reason = "each test file uses a part of it")]

mod graphs;

use bytes::Bytes;
use purlin_engine::*;
use purlin_model::windowed::encode_header;
use purlin_model::{Coder, PaneInfo, Timer, TimerFiring, Timestamp, Window, WindowCoder, Windows, wire};

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use graphs::*;

pub fn global_windowing() -> Windowing {
    Windowing {
        window_fn: WindowFn::Global,
        trigger: Trigger::Default,
        accumulation: Accumulation::Discarding,
        allowed_lateness_ms: 0,
        closing: PaneEmission::IfNonEmpty,
        on_time: PaneEmission::Always,
        timestamp_combiner: TimestampCombiner::EndOfWindow,
        environment: None,
    }
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

pub fn side(tag: &str, collection: u32, access: SideInputAccess) -> SideInput {
    let mapping = WindowMapping::Standard;
    SideInput {
        tag: tag.into(),
        collection: CollectionId(collection),
        access,
        mapping,
    }
}

pub fn stateful(timers: &[(&str, TimeDomain)]) -> UserTransform {
    let family = |(name, domain): &(&str, TimeDomain)| TimerFamily {
        name: (*name).into(),
        domain: *domain,
    };
    UserTransform {
        stateful: true,
        timers: timers.iter().map(family).collect(),
        ..user()
    }
}

pub fn splittable() -> UserTransform {
    UserTransform {
        splittable: true,
        ..user()
    }
}

pub fn pair() -> Coder {
    Coder::kv(Coder::Utf8, Coder::Utf8)
}

/// A key with its values.
pub fn group() -> Coder {
    Coder::kv(Coder::Utf8, Coder::iterable(Coder::Utf8))
}

/// A graph in the making: collections are numbered in order of their making, as are transforms.
pub struct Build {
    pub graph: Graph,
}

impl Build {
    pub fn new(slots: u32) -> Build {
        let environment = Environment {
            name: "sdk".into(),
            workers: 1,
            slots_per_worker: slots,
        };
        Build {
            graph: Graph {
                environments: vec![environment].into(),
                ..Graph::default()
            },
        }
    }

    pub fn collection(&mut self, coder: Coder) -> u32 {
        self.graph.collections.push(Collection {
            name: format!("c{}", self.graph.collections.len()),
            coder,
            window_coder: WindowCoder::Global,
            windowing: global_windowing(),
            bounded: true,
        });
        self.graph.collections.len() as u32 - 1
    }

    pub fn fixed(&mut self, coder: Coder, size_ms: i64) -> u32 {
        let id = self.collection(coder);
        let collection = &mut self.graph.collections[CollectionId(id)];
        collection.window_coder = WindowCoder::Interval;
        collection.windowing.window_fn = WindowFn::Fixed {
            size_ms,
            offset_ms: 0,
        };
        id
    }

    pub fn transform(
        &mut self,
        name: &str,
        inputs: &[u32],
        outputs: &[u32],
        kind: TransformKind,
    ) -> TransformId {
        let ids = |ids: &[u32]| ids.iter().map(|id| CollectionId(*id)).collect();
        self.graph.transforms.push(Transform {
            name: name.into(),
            inputs: ids(inputs),
            outputs: ids(outputs),
            kind,
        });
        TransformId(self.graph.transforms.len() as u32 - 1)
    }

    pub fn impulse(&mut self) -> u32 {
        let output = self.collection(Coder::Bytes);
        self.transform("Impulse", &[], &[output], TransformKind::Impulse);
        output
    }

    pub fn user(&mut self, name: &str, input: u32, coder: Coder, user: UserTransform) -> u32 {
        let output = self.collection(coder);
        self.transform(name, &[input], &[output], TransformKind::User(user));
        output
    }

    pub fn native(&mut self, name: &str, inputs: &[u32], coder: Coder, kind: TransformKind) -> u32 {
        let output = self.collection(coder);
        self.transform(name, inputs, &[output], kind);
        output
    }

    /// What a script emits.
    pub fn script(&mut self, coder: Coder, events: Vec<TestStreamEvent>) -> u32 {
        self.native("Stream", &[], coder, scripted(events))
    }

    /// The collection in fixed windows of 10 ms, which a test assigns by hand.
    pub fn by_tens(&mut self, input: u32) -> u32 {
        let coder = self.graph.collections[CollectionId(input)].coder.clone();
        let windowed = self.fixed(coder, 10);
        self.transform("Window", &[input], &[windowed], TransformKind::User(user()));
        windowed
    }

    /// Makes the collection leave its stage.
    pub fn sink(&mut self, input: u32, coder: Coder) {
        self.native("Sink", &[input], coder, TransformKind::Redistribute);
    }

    pub fn engine(self) -> Engine {
        let fused = FusedGraph::new(self.graph, EngineConfig::default());
        Engine::new(fused.unwrap_or_else(|problems| panic!("{problems:?}")))
    }
}

pub fn utf8(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::write_bytes(text.as_bytes(), &mut out, true);
    out
}

pub fn kv(key: &str, value: &str) -> Vec<u8> {
    [utf8(key), utf8(value)].concat()
}

pub fn at(timestamp: i64, window: Window, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_header(Timestamp(timestamp), &[window], PaneInfo::NO_FIRING, &mut out);
    out.extend_from_slice(value);
    out
}

pub fn interval(start: i64, end: i64) -> Window {
    Window::Interval {
        start: Timestamp(start),
        end: Timestamp(end),
    }
}

pub fn timer(key: &str, window: Window, tag: &str, firing: Option<(i64, i64)>) -> Vec<u8> {
    let mut out = Vec::new();
    let firing = firing.map(|(fire, hold)| TimerFiring {
        fire_timestamp: Timestamp(fire),
        hold_timestamp: Timestamp(hold),
        pane: PaneInfo::NO_FIRING,
    });
    let windows = Windows::One(window);
    Timer {
        user_key: utf8(key).into(),
        dynamic_tag: tag.into(),
        windows,
        firing,
    }
    .encode(&mut out);
    out
}

/// Drives an engine by hand.
pub struct Hand {
    pub engine: Engine,
    pub now: i64,
    pub started: Vec<Bundle>,
    /// Bundles that count, and whether they are to be finalized.
    pub committed: Vec<(BundleId, bool)>,
    pub other: Vec<Action>,
}

impl Hand {
    pub fn start(engine: Engine) -> Hand {
        let mut hand = Hand {
            engine,
            now: 1_000,
            started: Vec::new(),
            committed: Vec::new(),
            other: Vec::new(),
        };
        hand.tell(Event::Start);
        hand
    }

    pub fn tell(&mut self, event: Event) {
        for action in self.engine.handle(Timestamp(self.now), event) {
            match action {
                Action::StartBundle(bundle) => self.started.push(bundle),
                Action::Committed { bundle, finalize } => self.committed.push((bundle, finalize)),
                other => self.other.push(other),
            }
        }
    }

    /// The one bundle that started.
    pub fn one(&mut self) -> Bundle {
        assert_eq!(
            self.started.len(),
            1,
            "bundles: {:?}, actions: {:?}",
            self.started,
            self.other
        );
        self.started.remove(0)
    }

    pub fn finish(&mut self, bundle: &Bundle, outputs: &[(u32, Vec<u8>)]) {
        let result = BundleResult {
            outputs: self.outputs(outputs),
            ..BundleResult::default()
        };
        self.end(bundle, result);
    }

    pub fn end(&mut self, bundle: &Bundle, result: BundleResult) {
        self.tell(Event::BundleFinished {
            bundle: bundle.id,
            result,
        });
    }

    /// The bundle ends with work left over.
    pub fn leave(&mut self, bundle: &Bundle, residual: Residual) {
        let result = BundleResult {
            residuals: vec![residual],
            ..BundleResult::default()
        };
        self.end(bundle, result);
    }

    /// The bundle goes on, and has ended no element.
    pub fn progress(&mut self, bundle: &Bundle) {
        self.tell(Event::BundleProgress {
            bundle: bundle.id,
            elements_done: 0,
        });
    }

    pub fn split(&mut self, bundle: &Bundle, split: Split) {
        self.tell(Event::BundleSplit {
            bundle: bundle.id,
            split,
        });
    }

    pub fn outputs(&self, outputs: &[(u32, Vec<u8>)]) -> Vec<(CollectionId, Chunk)> {
        let scan = |(id, data): &(u32, Vec<u8>)| {
            let id = CollectionId(*id);
            let format = self.engine.format(id).unwrap();
            (id, Chunk::scan(Bytes::from(data.clone()), format).unwrap())
        };
        outputs.iter().map(scan).collect()
    }

    pub fn finish_with_timers(
        &mut self,
        bundle: &Bundle,
        transform: TransformId,
        timers: &[(&str, Vec<u8>)],
    ) {
        let timers = timers
            .iter()
            .map(|(family, data)| (transform, family.to_string(), data.clone().into()))
            .collect();
        let result = BundleResult {
            timers,
            ..BundleResult::default()
        };
        self.end(bundle, result);
    }

    pub fn fail(&mut self, bundle: &Bundle, error: &str) {
        self.tell(Event::BundleFailed {
            bundle: bundle.id,
            error: error.into(),
            worker_lost: false,
        });
    }

    pub fn finished(&self) -> Option<Outcome> {
        self.other.iter().find_map(|action| match action {
            Action::Finished(outcome) => Some(*outcome),
            _ => None,
        })
    }

    pub fn error(&self) -> &str {
        let error = self.other.iter().find_map(|action| match action {
            Action::Failed { error } => Some(error.as_str()),
            _ => None,
        });
        error.unwrap_or("")
    }
}

/// The main-input bytes of a bundle.
pub fn elements(bundle: &Bundle) -> Vec<u8> {
    let parts = bundle.input.iter().filter_map(|input| match input {
        BundleInput::Elements(data) => Some(&data[..]),
        BundleInput::Timers { .. } => None,
    });
    parts.collect::<Vec<_>>().concat()
}

/// Family and bytes of a bundle's timers.
pub fn timers(bundle: &Bundle) -> Vec<(String, Vec<u8>)> {
    let timers = bundle.input.iter().filter_map(|input| match input {
        BundleInput::Timers { family, data, .. } => Some((family.clone(), data.to_vec())),
        BundleInput::Elements(_) => None,
    });
    timers.collect()
}
