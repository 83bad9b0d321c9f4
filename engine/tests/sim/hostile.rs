//! A worker, or runner, that sends whatever it likes.

use bytes::Bytes;
use purlin_engine::{
    Action, BundleId, BundleResult, Chunk, CollectionId, Engine, EngineConfig, Event, FusedGraph, RequestId,
    Residual, SideInputKey, SideInputPart, Split, StageId, StateKey, StatePart, TestStreamEvent, TransformId,
};
use purlin_model::{Timestamp, Window, WindowCoder};

use crate::oracle::Element;
use crate::pipeline::{self, Pipeline};
use crate::rng::Rng;
use crate::worker::{Run, encode};

struct Attack<'a> {
    rng: Rng,
    pipeline: &'a Pipeline,
    live: Vec<BundleId>,
    stages: Vec<StageId>,
}

impl Attack<'_> {
    fn bytes(&mut self) -> Bytes {
        let length = self.rng.below(40);
        (0..length)
            .map(|_| self.rng.next() as u8)
            .collect::<Vec<_>>()
            .into()
    }

    fn timestamp(&mut self) -> Timestamp {
        match self.rng.below(5) {
            0 => Timestamp(i64::MIN),
            1 => Timestamp(i64::MAX),
            2 => Timestamp::MAX,
            3 => Timestamp::MIN,
            _ => Timestamp(self.rng.range(-100, 200)),
        }
    }

    fn element(&mut self, global: bool) -> Bytes {
        if self.rng.chance(2) {
            return self.bytes();
        }
        let timestamp = self.timestamp();
        let end = timestamp.plus_millis(10);
        let window = if global {
            Window::Global
        } else {
            Window::Interval {
                start: timestamp,
                end,
            }
        };
        let element = Element {
            timestamp,
            window,
            key: self.rng.range(-3, 9),
            value: self.rng.range(-9, 99),
        };
        encode(&element, &pipeline::pair())
    }

    fn chunk(&mut self, engine: &Engine, collection: CollectionId) -> Chunk {
        let format = engine.format(collection);
        let global = format.is_some_and(|format| format.window == WindowCoder::Global);
        let wrong = self.rng.chance(1);
        let data = self.element(global != wrong);
        // A runner scans what it passes on, or does not.
        match format.map(|format| Chunk::scan(data.clone(), format)) {
            Some(Ok(chunk)) if !self.rng.chance(2) => chunk,
            _ => Chunk {
                data,
                count: self.rng.below(9),
                min_timestamp: self.timestamp(),
            },
        }
    }

    fn residuals(&mut self) -> Vec<Residual> {
        let count = self.rng.below(3).saturating_sub(1);
        let mut residuals = Vec::new();
        for _ in 0..count {
            let watermark = self.rng.chance(50).then(|| self.timestamp());
            let delay_ms = [0, -5, 7, i64::MAX][self.rng.below(4) as usize];
            residuals.push(Residual {
                element: self.element(true),
                delay_ms,
                watermark,
            });
        }
        residuals
    }

    fn result(&mut self, engine: &Engine) -> BundleResult {
        let mut result = BundleResult {
            residuals: self.residuals(),
            ..BundleResult::default()
        };
        for _ in 0..self.rng.below(3) {
            // Mostly of some stage's outputs, so that much of it is taken.
            let stages = engine.stages();
            let stage = &stages[StageId(self.rng.below(stages.len() as u64) as u32)];
            let collection = match stage.outputs.first() {
                Some(output) if !self.rng.chance(5) => *output,
                _ => CollectionId(self.rng.below(30) as u32),
            };
            result.outputs.push((collection, self.chunk(engine, collection)));
        }
        if self.rng.chance(10) {
            let family = ["timer", "other"][self.rng.below(2) as usize].to_string();
            result
                .timers
                .push((TransformId(self.rng.below(20) as u32), family, self.bytes()));
        }
        result
    }

    fn bundle(&mut self) -> BundleId {
        if self.live.is_empty() || self.rng.chance(5) {
            return BundleId(self.rng.below(100));
        }
        self.live[self.rng.below(self.live.len() as u64) as usize]
    }

    fn event(&mut self, engine: &mut Engine) -> Event {
        let bundle = self.bundle();
        match self.rng.below(40) {
            0 => Event::Start,
            1 => Event::Tick,
            2 => Event::SplitUnusable {
                bundle,
                error: "no".into(),
            },
            3..=6 => Event::BundleFailed {
                bundle,
                error: "no".into(),
                worker_lost: self.rng.chance(50),
            },
            7..=11 => {
                let first_residual = self.rng.chance(70).then(|| self.rng.next() >> self.rng.below(64));
                let last_primary = (self.rng.next() as i64) >> self.rng.below(64);
                let primary_roots = (0..self.rng.below(2)).map(|_| self.element(true)).collect();
                let split = Split {
                    first_residual,
                    last_primary,
                    primary_roots,
                    residuals: self.residuals(),
                };
                Event::BundleSplit { bundle, split }
            }
            12..=16 => {
                let elements_done = self.rng.next() >> self.rng.below(64);
                Event::BundleProgress {
                    bundle,
                    elements_done,
                }
            }
            17 => Event::WindowsMapped {
                request: RequestId(self.rng.below(20)),
                windows: vec![Window::Global],
            },
            18 => Event::WindowsMerged {
                request: RequestId(self.rng.below(20)),
                merged: Vec::new(),
            },
            19 => Event::RequestFailed {
                request: RequestId(self.rng.below(20)),
                error: "no".into(),
            },
            20 => {
                let to = self.timestamp();
                let events = vec![TestStreamEvent::Watermark { output: Some(9), to }];
                Event::TestStreamEvents {
                    transform: TransformId(0),
                    events,
                    done: true,
                }
            }
            21 if self.rng.chance(10) => Event::Drain,
            22..=32 => Event::BundleFinished {
                bundle,
                result: self.result(engine),
            },
            _ => {
                // Sometimes it does as it should, so that the job goes on.
                let Some(place) = self.live.iter().position(|live| *live == bundle) else {
                    return Event::Tick;
                };
                let stage = engine.stages()[self.stages[place]].clone();
                let run = Run::new(engine, self.pipeline, stage, bundle, Timestamp(0));
                Event::BundleFinished {
                    bundle,
                    result: run.finish(),
                }
            }
        }
    }

    fn state(&mut self, engine: &mut Engine) {
        let bundle = self.bundle();
        let part = match self.rng.below(6) {
            0 => StatePart::MultimapValues(self.bytes()),
            1 => StatePart::MultimapKeys,
            2 => StatePart::MultimapEntries,
            3 => StatePart::OrderedList(self.rng.next() as i64, self.rng.next() as i64),
            _ => StatePart::Bag,
        };
        let (window, key) = (self.bytes(), self.bytes());
        let transform = TransformId(self.rng.below(20) as u32);
        let key = StateKey {
            transform,
            state: "s".into(),
            window: window.clone(),
            key,
            part,
        };
        // Errors are answers too.
        let _ = engine.state_append(bundle, key.clone(), self.bytes());
        let _ = engine.state_get(bundle, &key);
        if self.rng.chance(30) {
            let _ = engine.state_clear(bundle, &key);
        }
        let part = SideInputPart::MultimapValues(self.bytes());
        let _ = engine.side_input(
            bundle,
            &SideInputKey {
                transform,
                side_input: "side".into(),
                window,
                part,
            },
        );
    }
}

/// Returns how many bundles were started.
pub fn attack(seed: u64) -> usize {
    let mut rng = Rng::new(seed ^ 0xBAD);
    let pipeline = pipeline::generate(&mut rng);
    let config = EngineConfig {
        split_after_ms: 5,
        max_attempts: 1_000,
        max_worker_losses: 1_000,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(FusedGraph::new(pipeline.graph.clone(), config).unwrap());
    let mut attack = Attack {
        rng,
        pipeline: &pipeline,
        live: Vec::new(),
        stages: Vec::new(),
    };
    let mut now = Timestamp(0);
    let mut started = 0;
    let mut event = Event::Start;
    for _ in 0..300 {
        for action in engine.handle(now, event) {
            match action {
                Action::StartBundle(bundle) => {
                    started += 1;
                    attack.live.push(bundle.id);
                    attack.stages.push(bundle.stage);
                }
                Action::Finished(_) => return started,
                _ => {}
            }
        }
        attack.state(&mut engine);
        now = Timestamp(now.0.saturating_add(attack.rng.range(-3, 20)));
        event = attack.event(&mut engine);
    }
    started
}
