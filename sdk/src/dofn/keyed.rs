//! User code with state and timers by key.

use std::ops::{Deref, DerefMut};

use purlin_model::Element;

use super::{Context, FinishContext};
use crate::error::DoFnResult;
use crate::stage::KeyedState;
use crate::state::{Fields, FiredTimer, Keyed};

/// The timer family by which a runner tells that a window expires.
pub(crate) const EXPIRATION: &str = "purlin:on_window_expiration";

/// User code that is called for each value of a key, with state and timers that belong to the key and the window. See
/// [`crate::state`].
///
/// Values of one key are processed one after the other. As for a [`DoFn`](crate::DoFn), the value given to
/// [`StatefulParDo`](crate::primitives::StatefulParDo) is a prototype that is cloned: fields other than states and
/// timers belong to no key, and last no longer than the worker.
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// /// Emits, ten seconds of event time after a key's first value, how many values there were.
/// #[derive(Clone)]
/// struct CountFor10s {
///     count: CombiningState<Sum<u64>>,
///     done: Timer,
/// }
///
/// impl StatefulDoFn for CountFor10s {
///     type Key = String;
///     type Value = i64;
///     type Out = (String, u64);
///     purlin::fields!(count, done);
///
///     fn process(
///         &mut self,
///         _key: String,
///         _value: i64,
///         ctx: &mut KeyedContext<'_, (String, u64)>,
///     ) -> DoFnResult {
///         if self.count.read(ctx)? == 0 {
///             let at = ctx.timestamp().plus_millis(10_000);
///             self.done.set(ctx, at)?;
///         }
///         self.count.add(ctx, 1)
///     }
///
///     fn on_timer(
///         &mut self,
///         key: String,
///         _timer: &FiredTimer,
///         ctx: &mut KeyedContext<'_, (String, u64)>,
///     ) -> DoFnResult {
///         let count = self.count.read(ctx)?;
///         self.count.clear(ctx)?;
///         ctx.output((key, count));
///         Ok(())
///     }
/// }
///
/// let count = CombiningState::new("count", Sum::new());
/// let counting = CountFor10s { count, done: Timer::event_time("done") };
/// let p = Pipeline::new();
/// p.apply(Create::new([("a".to_string(), 1i64)])).stateful_par_do("Count", counting);
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub trait StatefulDoFn: Clone + Send + 'static {
    /// Keys.
    type Key: Element;
    /// Values.
    type Value: Element;
    /// What goes out.
    type Out: Element;

    /// Whether [`StatefulDoFn::on_window_expiration`] is to be called.
    const ON_WINDOW_EXPIRATION: bool = false;
    /// Whether values come in the order of their timestamps, per key.
    const REQUIRES_TIME_SORTED_INPUT: bool = false;
    /// Whether a retried bundle has the very elements of the failed one.
    const REQUIRES_STABLE_INPUT: bool = false;
    /// Whether [`Context::after_commit`] is called.
    const FINALIZES_BUNDLES: bool = false;

    /// Declares states and timers; write `purlin::fields!(..)` inside the `impl`.
    fn fields(&self, fields: &mut Fields);

    /// Called once, before all else: open connections, load models.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn setup(&mut self) -> DoFnResult {
        Ok(())
    }

    /// Called before the elements and timers of each bundle.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn start_bundle(&mut self) -> DoFnResult {
        Ok(())
    }

    /// Called for each value.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn process(
        &mut self,
        key: Self::Key,
        value: Self::Value,
        ctx: &mut KeyedContext<'_, Self::Out>,
    ) -> DoFnResult;

    /// Called when a timer fires.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn on_timer(
        &mut self,
        _key: Self::Key,
        timer: &FiredTimer,
        _ctx: &mut KeyedContext<'_, Self::Out>,
    ) -> DoFnResult {
        Err(format!(
            "timer \"{}\" fires, but the StatefulDoFn has no on_timer: write one",
            timer.name()
        )
        .into())
    }

    /// Called for each key with state when its window has expired, before its state is gone. It is called only where
    /// [`StatefulDoFn::ON_WINDOW_EXPIRATION`] says so.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn on_window_expiration(
        &mut self,
        _key: Self::Key,
        _ctx: &mut KeyedContext<'_, Self::Out>,
    ) -> DoFnResult {
        Ok(())
    }

    /// Called after the elements and timers of each bundle. There is no key at hand.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn finish_bundle(&mut self, _ctx: &mut FinishContext<'_, Self::Out>) -> DoFnResult {
        Ok(())
    }

    /// Called once, after all else, if [`StatefulDoFn::setup`] was called.
    fn teardown(&mut self) {}
}

/// A [`Context`] with the states and timers of a key. In a timer's callback its timestamp is the timer's output
/// timestamp.
pub struct KeyedContext<'a, O> {
    pub(crate) ctx: Context<'a, O>,
    pub(crate) state: &'a mut KeyedState,
}

impl<O> Keyed for KeyedContext<'_, O> {
    fn keyed(&mut self) -> &mut KeyedState {
        self.state
    }
}

impl<'a, O> Deref for KeyedContext<'a, O> {
    type Target = Context<'a, O>;
    fn deref(&self) -> &Context<'a, O> {
        &self.ctx
    }
}

impl<'a, O> DerefMut for KeyedContext<'a, O> {
    fn deref_mut(&mut self) -> &mut Context<'a, O> {
        &mut self.ctx
    }
}
