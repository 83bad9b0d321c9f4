//! User code for elements: [`DoFn`], its context, and closures as DoFns.

mod async_fn;
mod context;
mod func;
mod keyed;
mod tag;

use purlin_model::Element;

pub use async_fn::AsyncDoFn;
pub(crate) use async_fn::{AsyncMapFn, Waits};
pub(crate) use context::Outputs;
pub use context::{Context, FinishContext};
pub use func::{ContextFn, FilterFn, FlatMapFn, MapFn, TryFlatMapFn, TryMapFn};
pub(crate) use keyed::EXPIRATION;
pub use keyed::{KeyedContext, StatefulDoFn};
pub use tag::OutputTag;
pub(crate) use tag::TagSpec;

use crate::error::DoFnResult;

/// User code that is called for each element.
///
/// The value given to [`ParDo`](crate::primitives::ParDo) is a prototype: it is cloned for each thread that processes
/// bundles, and [`DoFn::setup`] is called on the clone. A clone is used for one bundle at a time and for many bundles
/// one after the other; when a bundle fails, its clone is dropped.
///
/// ```
/// use purlin::prelude::*;
///
/// /// Groups the elements of a bundle into lists of three.
/// #[derive(Clone, Default)]
/// struct Threes {
///     batch: Vec<i64>,
/// }
///
/// impl DoFn for Threes {
///     type In = i64;
///     type Out = Vec<i64>;
///
///     fn process(&mut self, element: i64, ctx: &mut Context<'_, Vec<i64>>) -> DoFnResult {
///         self.batch.push(element);
///         if self.batch.len() == 3 {
///             ctx.output(std::mem::take(&mut self.batch));
///         }
///         Ok(())
///     }
///
///     fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, Vec<i64>>) -> DoFnResult {
///         if !self.batch.is_empty() {
///             ctx.output(std::mem::take(&mut self.batch), Timestamp::MIN, Window::Global);
///         }
///         Ok(())
///     }
/// }
///
/// let p = Pipeline::new();
/// p.apply(Create::new([1i64, 2, 3, 4])).par_do("Threes", Threes::default());
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub trait DoFn: Clone + Send + 'static {
    /// What comes in.
    type In: Element;
    /// What goes out.
    type Out: Element;

    /// Whether [`DoFn::process`] reads the element's window (side inputs do, too). Where it does, an element in several
    /// windows is processed once for each; where it does not, once for all.
    const OBSERVES_WINDOW: bool = true;

    /// Whether [`Context::after_commit`] is called.
    const FINALIZES_BUNDLES: bool = false;

    /// Whether a retried bundle has the very elements of the failed one: for code whose effects must not come twice.
    const REQUIRES_STABLE_INPUT: bool = false;

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

    /// Called for each element.
    ///
    /// # Errors
    /// Any error fails the bundle, which is tried again; in the end the pipeline fails with the transform's name and
    /// this error.
    fn process(&mut self, element: Self::In, ctx: &mut Context<'_, Self::Out>) -> DoFnResult;

    /// Called for elements that share timestamp, windows and pane: calls [`DoFn::process`] for each, and leaves none.
    ///
    /// # Errors
    /// As for [`DoFn::process`].
    #[doc(hidden)]
    #[inline]
    fn process_batch(
        &mut self,
        elements: &mut Vec<Self::In>,
        ctx: &mut Context<'_, Self::Out>,
    ) -> DoFnResult {
        for element in elements.drain(..) {
            self.process(element, ctx)?;
            if ctx.has_failed() {
                break;
            }
        }
        Ok(())
    }

    /// Called after the elements of each bundle: what was held back must go out now.
    ///
    /// # Errors
    /// Any error fails the bundle.
    fn finish_bundle(&mut self, _ctx: &mut FinishContext<'_, Self::Out>) -> DoFnResult {
        Ok(())
    }

    /// Called once, after all else, if [`DoFn::setup`] was called.
    fn teardown(&mut self) {}
}
