//! `beam:transform:reshuffle:v1`.

use purlin_model::{Element, Timestamp};
use purlin_proto::urns::transforms;

use super::{GroupByKey, ParDo};
use crate::dofn::{Context, DoFn};
use crate::error::DoFnResult;
use crate::pipeline::{PCollection, PTransform};
use crate::windowing::{TimestampCombiner, Trigger, Windowing};

/// Keeps the elements as they are, but lets other workers take them: what follows is not fused with what came before.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let numbers = p.apply(Impulse).flat_map("Numbers", |_| 0..1000i64).reshuffle("Spread");
/// # p.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reshuffle;

/// Pairs elements with their timestamps, under keys that go round.
struct Reify<T> {
    next: u32,
    element: std::marker::PhantomData<fn(T)>,
}

impl<T> Clone for Reify<T> {
    fn clone(&self) -> Self {
        Reify {
            next: self.next,
            element: std::marker::PhantomData,
        }
    }
}

impl<T: Element> DoFn for Reify<T> {
    type In = T;
    type Out = (u32, (Timestamp, T));
    const OBSERVES_WINDOW: bool = false;
    fn process(&mut self, element: T, ctx: &mut Context<'_, Self::Out>) -> DoFnResult {
        self.next = self.next.wrapping_add(1);
        let timestamp = ctx.timestamp();
        ctx.output((self.next % 1024, (timestamp, element)));
        Ok(())
    }
}

/// The windows stay, but each element fires at once.
struct AtOnce(Windowing);

impl<T: Element> PTransform<PCollection<T>> for AtOnce {
    type Output = PCollection<T>;
    fn name(&self) -> String {
        "AtOnce".into()
    }
    fn expand(self, input: PCollection<T>) -> PCollection<T> {
        let keep = ParDo::new("AtOnce", crate::dofn::MapFn::new(|element: T| element)).expand(input.clone());
        input.pipeline().lock().rewindow(keep.id(), self.0);
        keep
    }
}

impl<T: Element> PTransform<PCollection<T>> for Reshuffle {
    type Output = PCollection<T>;

    fn name(&self) -> String {
        "Reshuffle".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<T> {
        let pipeline = input.pipeline();
        pipeline.set_spec(transforms::RESHUFFLE, Vec::new());
        let windowing = input.windowing();
        let at_once = Windowing {
            trigger: Trigger::Always,
            timestamp_combiner: TimestampCombiner::Earliest,
            already_merged: windowing.window_fn.merges(),
            allowed_lateness_ms: i64::MAX / 2_000_000,
            ..windowing.clone()
        }
        .discarding();
        // For runners that do not know the composite.
        let reified = input.par_do(
            "Reify",
            Reify {
                next: 0,
                element: std::marker::PhantomData,
            },
        );
        let spread = reified.apply(AtOnce(at_once)).apply(GroupByKey).par_do_with(
            "Restore",
            |(_, values): (u32, Vec<(Timestamp, T)>), ctx: &mut Context<'_, T>| {
                for (timestamp, value) in values {
                    ctx.output_with_timestamp(value, timestamp);
                }
                Ok(())
            },
        );
        pipeline.lock().rewindow(spread.id(), windowing);
        spread
    }
}

impl<T: Element> PCollection<T> {
    /// Lets other workers take the elements; see [`Reshuffle`].
    pub fn reshuffle(&self, name: &str) -> PCollection<T> {
        self.apply_named(name, Reshuffle)
    }
}
