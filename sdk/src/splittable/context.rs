//! What a splittable DoFn sees while it works on a restriction.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use purlin_model::{Element, PaneInfo, Timestamp, Window};

use super::{RestrictionOf, RestrictionTracker, SplittableDoFn, WatermarkEstimator};
use crate::dofn::{Context, OutputTag};
use crate::error::{BoxError, DoFnResult};
use crate::side_input::{SideInput, View};

/// The restriction at hand, shared with the thread that asks for progress and splits.
pub(crate) struct Live<D: SplittableDoFn> {
    shared: Arc<Mutex<(D::Tracker, D::Watermark)>>,
}

impl<D: SplittableDoFn> Clone for Live<D> {
    fn clone(&self) -> Self {
        Live {
            shared: self.shared.clone(),
        }
    }
}

impl<D: SplittableDoFn> Live<D> {
    pub fn new(tracker: D::Tracker, watermark: D::Watermark) -> Self {
        Live {
            shared: Arc::new(Mutex::new((tracker, watermark))),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, (D::Tracker, D::Watermark)> {
        self.shared.lock()
    }
}

/// What [`SplittableDoFn::process`] sees besides the element.
pub struct SplitContext<'a, D: SplittableDoFn> {
    pub(crate) ctx: Context<'a, D::Out>,
    pub(crate) live: Live<D>,
}

impl<D: SplittableDoFn> SplitContext<'_, D> {
    /// The restriction at hand. Its end may come nearer at any time, when another worker takes a part of it.
    pub fn restriction(&self) -> RestrictionOf<D> {
        self.live.lock().0.restriction()
    }

    /// Claims the work up to a place; see [`RestrictionTracker::try_claim`]. After a failed claim, return
    /// [`Continuation::Done`](super::Continuation::Done).
    pub fn try_claim(&mut self, position: <D::Tracker as RestrictionTracker>::Position) -> bool {
        self.live.lock().0.try_claim(position)
    }

    /// The tracker, for what other trackers than Purlin's may know. Others wait meanwhile.
    pub fn tracker<R>(&mut self, use_it: impl FnOnce(&mut D::Tracker) -> R) -> R {
        use_it(&mut self.live.lock().0)
    }

    /// The watermark estimator, for example to set a [`ManualWatermark`](super::ManualWatermark). Others wait meanwhile.
    pub fn watermark<R>(&mut self, use_it: impl FnOnce(&mut D::Watermark) -> R) -> R {
        use_it(&mut self.live.lock().1)
    }

    /// Emits an element with the timestamp, windows and pane of the one being processed.
    pub fn output(&mut self, value: D::Out) {
        self.observe(self.ctx.timestamp());
        self.ctx.output(value);
    }

    /// Emits an element with another timestamp.
    pub fn output_with_timestamp(&mut self, value: D::Out, timestamp: Timestamp) {
        self.observe(timestamp);
        self.ctx.output_with_timestamp(value, timestamp);
    }

    /// Emits an element to an additional output.
    pub fn output_to<T: Element>(&mut self, tag: &OutputTag<T>, value: T) {
        self.observe(self.ctx.timestamp());
        self.ctx.output_to(tag, value);
    }

    /// Emits an element to an additional output, with another timestamp.
    pub fn output_to_with_timestamp<T: Element>(
        &mut self,
        tag: &OutputTag<T>,
        value: T,
        timestamp: Timestamp,
    ) {
        self.observe(timestamp);
        self.ctx.output_to_with_timestamp(tag, value, timestamp);
    }

    fn observe(&mut self, timestamp: Timestamp) {
        self.live.lock().1.observe(timestamp);
    }

    /// The element's event time.
    pub fn timestamp(&self) -> Timestamp {
        self.ctx.timestamp()
    }

    /// The element's window.
    pub fn window(&self) -> &Window {
        self.ctx.window()
    }

    /// The pane that the element comes from.
    pub fn pane(&self) -> PaneInfo {
        self.ctx.pane()
    }

    /// The value of a side input for the element's window; see [`Context::side`].
    ///
    /// # Errors
    /// As there.
    pub fn side<V: View>(&mut self, view: &SideInput<V>) -> Result<Arc<V::Value>, BoxError> {
        self.ctx.side(view)
    }

    /// Calls this once the bundle's output is durable; see [`Context::after_commit`].
    ///
    /// # Errors
    /// As there.
    pub fn after_commit(
        &mut self,
        expiry: Duration,
        call: impl FnOnce() -> DoFnResult + Send + 'static,
    ) -> DoFnResult {
        self.ctx.after_commit(expiry, call)
    }
}
