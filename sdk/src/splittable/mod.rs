//! Splittable DoFns: the work for one element is a restriction, which can be split while it is processed.
//!
//! ```
//! use purlin::prelude::*;
//!
//! /// Emits the numbers below an element. Other workers can take a part of them at any time.
//! #[derive(Clone)]
//! struct Below;
//!
//! impl SplittableDoFn for Below {
//!     type In = i64;
//!     type Out = i64;
//!     type Tracker = OffsetTracker;
//!     type Watermark = NoWatermark;
//!
//!     fn initial_restriction(&self, element: &i64) -> Result<OffsetRange, BoxError> {
//!         Ok(OffsetRange::new(0, *element))
//!     }
//!
//!     fn tracker(&self, _element: &i64, restriction: OffsetRange) -> OffsetTracker {
//!         OffsetTracker::new(restriction)
//!     }
//!
//!     fn process(
//!         &mut self,
//!         _element: &i64,
//!         ctx: &mut SplitContext<'_, Self>,
//!     ) -> Result<Continuation, BoxError> {
//!         let mut number = ctx.restriction().start;
//!         while ctx.try_claim(number) {
//!             ctx.output(number);
//!             number += 1;
//!         }
//!         Ok(Continuation::Done)
//!     }
//! }
//!
//! let p = TestPipeline::new();
//! let numbers = p.apply(Create::new([3i64, 2])).splittable_par_do("Below", Below);
//! PAssert::that(&numbers).contains_in_any_order([0, 0, 1, 1, 2]);
//! p.run();
//! ```

mod context;
mod offset;
mod watermark;

use std::time::Duration;

use purlin_model::Element;

pub(crate) use context::Live;
pub use context::SplitContext;
pub use offset::{OffsetRange, OffsetTracker};
pub use watermark::{ManualWatermark, MonotoneWatermark, NoWatermark, WallTimeWatermark, WatermarkEstimator};

use crate::dofn::FinishContext;
use crate::error::{BoxError, DoFnResult};
pub use crate::stage::Progress;

/// Knows which part of a restriction is claimed, and splits off what is not.
///
/// The thread that processes the element claims; other threads may ask for progress and splits at any time. What was
/// claimed belongs to the work at hand for good; what was split off can no longer be claimed.
pub trait RestrictionTracker: Send + 'static {
    /// Describes work.
    type Restriction: Element;
    /// A place in the work, for example an offset.
    type Position;

    /// How much work a restriction is, in the unit of [`Progress`]; zero or more.
    fn size(restriction: &Self::Restriction) -> f64;

    /// The work at hand: what is claimed, and what was not split off.
    fn restriction(&self) -> Self::Restriction;

    /// Claims the work up to a place. False: the place is not in the restriction (any more), and the processing of the
    /// element has to end.
    fn try_claim(&mut self, position: Self::Position) -> bool;

    /// Keeps this part of what is not claimed, from 0 to 1, and gives the rest. `None`: there is nothing to give, and
    /// nothing changes. With 0, all work that is not claimed is to be given.
    fn try_split(&mut self, fraction_of_remainder: f64) -> Option<Self::Restriction>;

    /// How far the work is.
    fn progress(&self) -> Progress;

    /// Whether all of the restriction was claimed.
    ///
    /// # Errors
    /// What is left.
    fn check_done(&self) -> Result<(), BoxError>;
}

/// What comes after [`SplittableDoFn::process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// Nothing: the restriction is done, or what is left of it was split off.
    Done,
    /// The rest of the restriction, not before this much time has passed.
    Resume(Duration),
}

/// The restriction of a splittable DoFn.
pub type RestrictionOf<D> = <<D as SplittableDoFn>::Tracker as RestrictionTracker>::Restriction;
/// The state of a splittable DoFn's watermark estimator.
pub type WatermarkStateOf<D> = <<D as SplittableDoFn>::Watermark as WatermarkEstimator>::State;

/// User code whose work for one element can be split, put off and taken up again. See the [module](self).
///
/// As for a [`DoFn`](crate::DoFn), the value given to [`SplittableParDo`](crate::primitives::SplittableParDo) is a
/// prototype that is cloned for each thread.
pub trait SplittableDoFn: Clone + Send + 'static {
    /// What comes in.
    type In: Element;
    /// What goes out.
    type Out: Element;
    /// Keeps account of the restriction.
    type Tracker: RestrictionTracker;
    /// Tells the watermark of the outputs; [`NoWatermark`] where there is nothing to tell.
    type Watermark: WatermarkEstimator;

    /// Whether the work for an element may go on for ever: the output is unbounded.
    const UNBOUNDED: bool = false;
    /// Whether [`SplitContext::after_commit`] is called.
    const FINALIZES_BUNDLES: bool = false;

    /// All work for an element.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn initial_restriction(&self, element: &Self::In) -> Result<RestrictionOf<Self>, BoxError>;

    /// A tracker of a restriction, of which nothing is claimed.
    fn tracker(&self, element: &Self::In, restriction: RestrictionOf<Self>) -> Self::Tracker;

    /// Splits the work for an element before it begins.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn split(
        &self,
        _element: &Self::In,
        restriction: RestrictionOf<Self>,
    ) -> Result<Vec<RestrictionOf<Self>>, BoxError> {
        Ok(vec![restriction])
    }

    /// What is still to be done of a restriction when the pipeline is drained. By default all of it where work ends by
    /// itself, and none where it may go on for ever.
    fn truncate(&self, _element: &Self::In, restriction: RestrictionOf<Self>) -> Option<RestrictionOf<Self>> {
        (!Self::UNBOUNDED).then_some(restriction)
    }

    /// Called once, before all else: open connections, load models.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn setup(&mut self) -> DoFnResult {
        Ok(())
    }

    /// Called before the elements of each bundle.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn start_bundle(&mut self) -> DoFnResult {
        Ok(())
    }

    /// Works on a restriction of an element: claims a place, does what is to be done there, and so on until a claim
    /// fails. It may stop before by [`Continuation::Resume`].
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn process(
        &mut self,
        element: &Self::In,
        ctx: &mut SplitContext<'_, Self>,
    ) -> Result<Continuation, BoxError>;

    /// Called after the elements of each bundle.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn finish_bundle(&mut self, _ctx: &mut FinishContext<'_, Self::Out>) -> DoFnResult {
        Ok(())
    }

    /// Called once, after all else, if [`SplittableDoFn::setup`] was called.
    fn teardown(&mut self) {}
}
