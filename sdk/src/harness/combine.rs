//! The parts that runners take a Combine apart into.

use std::hash::Hash;
use std::marker::PhantomData;

use parking_lot::Mutex;
use purlin_model::{Element, Header, PaneInfo, Timestamp, Window, Windows};
use purlin_proto::urns::transforms;
use rustc_hash::FxHashMap;

use crate::combine::CombineFn;
use crate::metrics::STEP;
use crate::stage::edge::{AnyReceiver, Edge, Receiver};
use crate::stage::element::{ElementType, any_receiver};
use crate::stage::failure::Failure;
use crate::stage::node::{Node, Signature, StepBuilder};
use crate::windowing::TimestampCombiner;

/// A CombineFn in the registry, for keys of type `K`.
pub(crate) struct CombineNode<K, F> {
    prototype: Mutex<F>,
    key: PhantomData<fn() -> K>,
}

impl<K, F> CombineNode<K, F> {
    pub fn new(prototype: F) -> Self {
        CombineNode {
            prototype: Mutex::new(prototype),
            key: PhantomData,
        }
    }
}

impl<K: Element + Eq + Hash, F: CombineFn> Node for CombineNode<K, F> {
    fn type_name(&self) -> &'static str {
        std::any::type_name::<F>()
    }

    fn signature(&self, urn: &str) -> Option<Signature> {
        let input = ElementType::of::<(K, F::In)>;
        let inputs = ElementType::of::<(K, Vec<F::In>)>;
        let accumulator = ElementType::of::<(K, F::Accumulator)>;
        let accumulators = ElementType::of::<(K, Vec<F::Accumulator>)>;
        let output = ElementType::of::<(K, F::Out)>;
        let (input, output) = match urn {
            transforms::COMBINE_PER_KEY_PRECOMBINE | transforms::COMBINE_PER_KEY_CONVERT_TO_ACCUMULATORS => {
                (input(), accumulator())
            }
            transforms::COMBINE_PER_KEY_MERGE_ACCUMULATORS => (accumulators(), accumulator()),
            transforms::COMBINE_PER_KEY_EXTRACT_OUTPUTS => (accumulator(), output()),
            // The second is what a runner executes that takes no composite of ours apart.
            transforms::COMBINE_GROUPED_VALUES | transforms::PAR_DO => (inputs(), output()),
            _ => return None,
        };
        Some(Signature {
            input,
            outputs: vec![(String::new(), output)],
        })
    }

    fn build(&self, urn: &str, step: &mut StepBuilder<'_>) -> Result<AnyReceiver, Failure> {
        let f = self.prototype.lock().clone();
        let step_index = step.step();
        Ok(match urn {
            transforms::COMBINE_PER_KEY_PRECOMBINE => any_receiver(Precombine::<K, F> {
                combine: f,
                next: step.output("")?,
                step: step_index,
                combiner: step.timestamp_combiner(),
                tables: Vec::new(),
                entries: 0,
            }),
            transforms::COMBINE_PER_KEY_CONVERT_TO_ACCUMULATORS => any_receiver(each(
                step.output("")?,
                step_index,
                move |(key, value): (K, F::In)| {
                    let mut accumulator = f.create_accumulator();
                    f.add_input(&mut accumulator, value);
                    (key, accumulator)
                },
            )),
            transforms::COMBINE_PER_KEY_MERGE_ACCUMULATORS => any_receiver(each(
                step.output("")?,
                step_index,
                move |(key, all): (K, Vec<F::Accumulator>)| {
                    let mut all = all.into_iter();
                    let mut merged = all.next().unwrap_or_else(|| f.create_accumulator());
                    all.for_each(|other| f.merge_accumulators(&mut merged, other));
                    (key, merged)
                },
            )),
            transforms::COMBINE_PER_KEY_EXTRACT_OUTPUTS => any_receiver(each(
                step.output("")?,
                step_index,
                move |(key, accumulator): (K, F::Accumulator)| (key, f.extract_output(accumulator)),
            )),
            transforms::COMBINE_GROUPED_VALUES | transforms::PAR_DO => any_receiver(each(
                step.output("")?,
                step_index,
                move |(key, values): (K, Vec<F::In>)| {
                    let mut accumulator = f.create_accumulator();
                    values
                        .into_iter()
                        .for_each(|value| f.add_input(&mut accumulator, value));
                    (key, f.extract_output(accumulator))
                },
            )),
            other => {
                return Err(Failure::message(
                    step.name(),
                    format!("a CombineFn cannot be \"{other}\""),
                ));
            }
        })
    }
}

/// A step of one output for each input.
struct Each<T, U, G> {
    next: Edge<U>,
    step: u32,
    f: G,
    /// Those of a batch.
    outputs: Vec<U>,
    input: PhantomData<fn(T)>,
}

fn each<T, U, G: FnMut(T) -> U>(next: Edge<U>, step: u32, f: G) -> Each<T, U, G> {
    Each {
        next,
        step,
        f,
        outputs: Vec::new(),
        input: PhantomData,
    }
}

impl<T, U: Element, G: FnMut(T) -> U> Receiver<T> for Each<T, U, G> {
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        STEP.set(self.step);
        let output = (self.f)(value);
        self.next.send(output, at)
    }
    fn receive_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        STEP.set(self.step);
        self.outputs.extend(values.drain(..).map(&mut self.f));
        self.next.send_all(&mut self.outputs, at)
    }
    fn batches(&self) -> bool {
        self.next.batches()
    }
    fn start(&mut self) -> Result<(), Failure> {
        self.next.start()
    }
    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

/// So many keys are held before all of them are sent on.
const KEYS: usize = 1 << 18;

/// Combines what it can of a bundle before it is grouped.
struct Precombine<K, F: CombineFn> {
    combine: F,
    next: Edge<(K, F::Accumulator)>,
    step: u32,
    combiner: TimestampCombiner,
    /// One for each window, the window used last in front.
    tables: Vec<(Window, Table<K, F::Accumulator>)>,
    entries: usize,
}

type Table<K, A> = FxHashMap<K, (A, Timestamp)>;

impl<K: Element + Eq + Hash, F: CombineFn> Precombine<K, F> {
    #[inline(always)]
    fn add(&mut self, window: &Window, key: K, value: F::In, timestamp: Timestamp) {
        if self.tables.first().is_none_or(|(first, _)| first != window) {
            self.bring_to_front(window);
        }
        let Some((_, table)) = self.tables.first_mut() else {
            return;
        };
        if let Some((accumulator, held)) = table.get_mut(&key) {
            self.combine.add_input(accumulator, value);
            match self.combiner {
                TimestampCombiner::EndOfWindow => {}
                TimestampCombiner::Earliest => *held = timestamp.min(*held),
                TimestampCombiner::Latest => *held = timestamp.max(*held),
            }
        } else {
            let mut accumulator = self.combine.create_accumulator();
            self.combine.add_input(&mut accumulator, value);
            let timestamp = match self.combiner {
                TimestampCombiner::EndOfWindow => window.max_timestamp(),
                TimestampCombiner::Earliest | TimestampCombiner::Latest => timestamp,
            };
            table.insert(key, (accumulator, timestamp));
            self.entries += 1;
        }
    }

    #[cold]
    fn bring_to_front(&mut self, window: &Window) {
        let at = self
            .tables
            .iter()
            .position(|(w, _)| w == window)
            .unwrap_or_else(|| {
                self.tables.push((window.clone(), FxHashMap::default()));
                self.tables.len() - 1
            });
        self.tables.swap(0, at);
    }

    #[inline(always)]
    fn flush_if_full(&mut self) -> Result<(), Failure> {
        match self.entries >= KEYS {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.entries = 0;
        for (window, table) in &mut self.tables {
            let windows = Windows::One(window.clone());
            let mut at = Header {
                timestamp: Timestamp::MIN,
                windows,
                pane: PaneInfo::NO_FIRING,
            };
            for (key, (accumulator, timestamp)) in table.drain() {
                at.timestamp = timestamp;
                self.next.send((key, accumulator), &at)?;
            }
        }
        // Few windows are used again and again in batch; many come and go in streams.
        self.tables.truncate(1);
        Ok(())
    }
}

impl<K: Element + Eq + Hash, F: CombineFn> Receiver<(K, F::In)> for Precombine<K, F> {
    fn receive(&mut self, (key, value): (K, F::In), at: &Header) -> Result<(), Failure> {
        STEP.set(self.step);
        match &at.windows {
            Windows::One(window) => self.add(window, key, value, at.timestamp),
            Windows::Many(windows) => {
                for window in windows {
                    self.add(window, key.clone(), value.clone(), at.timestamp);
                }
            }
        }
        self.flush_if_full()
    }

    fn receive_all(&mut self, values: &mut Vec<(K, F::In)>, at: &Header) -> Result<(), Failure> {
        STEP.set(self.step);
        let Windows::One(window) = &at.windows else {
            let mut values = values.drain(..);
            return values.try_for_each(|value| self.receive(value, at));
        };
        for (key, value) in values.drain(..) {
            self.add(window, key, value, at.timestamp);
        }
        self.flush_if_full()
    }

    fn batches(&self) -> bool {
        true
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.tables.clear();
        self.entries = 0;
        self.next.start()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        STEP.set(self.step);
        self.flush()?;
        self.tables.clear();
        self.next.finish()
    }
}
