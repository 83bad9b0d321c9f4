//! Batches by key that fill across bundles.

use std::time::Duration;

use purlin_model::Element;

use super::{ElementSize, OneEach, SizeFn};
use crate::dofn::{KeyedContext, StatefulDoFn};
use crate::error::{BoxError, DoFnResult};
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::StatefulParDo;
use crate::state::{BagState, FiredTimer, Timer, ValueState};

/// Gathers the values of each key into batches of a fixed size, across bundles: what is not full yet is state. A batch goes out when
/// it is full, when [its time is over](GroupIntoBatches::max_buffering_duration), or when its window ends; it holds the values in the
/// order in which they came. [`BatchElements`](super::BatchElements) keeps no state, and makes batches within a bundle.
///
/// A batch that is full has the timestamp of its last value, one whose time is over that of its first, at which the watermark is held
/// until then, and one whose window ends that of the end. So the last batches of a bounded collection do not wait for their time.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let pairs = p.apply(Create::new((0i64..5).map(|n| ("a".to_string(), n))));
/// let batches = pairs.apply(GroupIntoBatches::of_size(2));
/// let sizes = batches.map("Size", |(_, batch): (String, Vec<i64>)| batch.len());
/// PAssert::that(&sizes).contains_in_any_order([2, 2, 1]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GroupIntoBatches<W = OneEach> {
    max: usize,
    max_weight: usize,
    weight: W,
    duration: Option<Duration>,
}

impl GroupIntoBatches {
    /// Batches of this many values.
    pub fn of_size(max: usize) -> GroupIntoBatches {
        GroupIntoBatches {
            max,
            max_weight: usize::MAX,
            weight: OneEach,
            duration: None,
        }
    }
}

impl<W> GroupIntoBatches<W> {
    /// Besides their number, the sum of what this closure gives for each value is limited. A value that is heavier alone is a batch
    /// of its own.
    #[must_use]
    pub fn max_weight<V, F>(self, max: usize, weight: F) -> GroupIntoBatches<SizeFn<F>>
    where
        F: Fn(&V) -> usize + Clone + Send + 'static,
    {
        GroupIntoBatches {
            max: self.max,
            max_weight: max,
            weight: SizeFn(weight),
            duration: self.duration,
        }
    }

    /// A batch goes out so long after its first value came, by the clock, whether another comes or not. With no time at all each
    /// value goes out at once, and no state is kept.
    #[must_use]
    pub fn max_buffering_duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }
}

impl<K, V, W> PTransform<PCollection<(K, V)>> for GroupIntoBatches<W>
where
    K: Element,
    V: Element,
    W: ElementSize<V>,
{
    type Output = PCollection<(K, Vec<V>)>;

    fn name(&self) -> String {
        "GroupIntoBatches".into()
    }

    fn expand(self, input: PCollection<(K, V)>) -> Self::Output {
        if self.max == 0 {
            input
                .pipeline()
                .problem("the size of its batches is 0: give it at least 1");
        }
        if self.max_weight == 0 {
            input
                .pipeline()
                .problem("the largest weight of its batches is 0: give it at least 1");
        }
        if self.max <= 1 || self.duration.is_some_and(|duration| duration.is_zero()) {
            return input.map("AtOnce", |(key, value): (K, V)| (key, vec![value]));
        }
        let gather = Gather {
            values: BagState::new("values"),
            filled: ValueState::new("filled"),
            due: Timer::processing_time("due"),
            end: Timer::event_time("end"),
            max: self.max as u64,
            max_weight: self.max_weight as u64,
            weight: self.weight,
            duration: self.duration,
            key: std::marker::PhantomData,
        };
        input.apply(StatefulParDo::new("Gather", gather))
    }
}

/// Keeps a batch of each key.
#[derive(Clone)]
struct Gather<K, V, W> {
    /// With their numbers, since a bag is in no order.
    values: BagState<(u64, V)>,
    /// How many they are, and their weight.
    filled: ValueState<(u64, u64)>,
    /// When the time of a batch is over.
    due: Timer,
    /// When its window ends: it then goes out, whatever its time.
    end: Timer,
    max: u64,
    max_weight: u64,
    weight: W,
    duration: Option<Duration>,
    key: std::marker::PhantomData<fn() -> K>,
}

type Batches<'a, K, V> = KeyedContext<'a, (K, Vec<V>)>;

impl<K: Element, V: Element, W> Gather<K, V, W> {
    /// Takes the batch out of the state.
    fn take(&self, ctx: &mut Batches<'_, K, V>) -> Result<Vec<V>, BoxError> {
        let mut values = self.values.read(ctx)?;
        self.values.clear(ctx)?;
        self.filled.clear(ctx)?;
        if self.duration.is_some() {
            self.due.clear(ctx)?;
        }
        values.sort_by_key(|(number, _)| *number);
        Ok(values.into_iter().map(|(_, value)| value).collect())
    }

    fn flush(&self, key: K, ctx: &mut Batches<'_, K, V>) -> DoFnResult {
        let batch = self.take(ctx)?;
        if !batch.is_empty() {
            ctx.output((key, batch));
        }
        Ok(())
    }
}

impl<K: Element, V: Element, W: ElementSize<V>> StatefulDoFn for Gather<K, V, W> {
    type Key = K;
    type Value = V;
    type Out = (K, Vec<V>);
    crate::fields!(values, filled, due, end);

    fn process(&mut self, key: K, value: V, ctx: &mut Batches<'_, K, V>) -> DoFnResult {
        let adds = self.weight.size(&value) as u64;
        let (mut count, mut weight) = self.filled.read(ctx)?.unwrap_or((0, 0));
        if count > 0 && weight.saturating_add(adds) > self.max_weight {
            self.flush(key.clone(), ctx)?;
            (count, weight) = (0, 0);
        }
        self.values.add(ctx, &(count, value))?;
        (count, weight) = (count + 1, weight.saturating_add(adds));
        if count >= self.max || weight >= self.max_weight {
            return self.flush(key, ctx);
        }
        self.filled.write(ctx, &(count, weight))?;
        if count > 1 {
            return Ok(());
        }
        let end = ctx.window().max_timestamp();
        self.end.set(ctx, end)?;
        match self.duration {
            Some(duration) => self.due.set_after(ctx, duration),
            None => Ok(()),
        }
    }

    fn on_timer(&mut self, key: K, _timer: &FiredTimer, ctx: &mut Batches<'_, K, V>) -> DoFnResult {
        self.flush(key, ctx)
    }
}
