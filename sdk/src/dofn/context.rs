//! What user code sees of its element, and where its outputs go.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use purlin_coders::{Element, Header, PaneInfo, Timestamp, Window, Windows};

use super::OutputTag;
use crate::error::{BoxError, DoFnResult};
use crate::harness::{AnyEdge, BundleCell, Edge, Failure, Finalizer, SideReaders};
use crate::metrics::STEP;
use crate::side_input::{SideInput, View};
use crate::windowing::WindowType;

/// The outputs of a step.
pub(crate) struct Outputs<O> {
    pub main: Edge<O>,
    pub tagged: Vec<(u64, Box<dyn AnyEdge>)>,
    /// What went wrong behind an output: the harness looks when user code returns.
    pub failure: Option<Failure>,
    pub step: u32,
    pub name: Arc<str>,
    /// Where callbacks for the commit go, if user code declares to have some.
    pub finalizers: Option<Rc<BundleCell>>,
}

impl<O: Element> Outputs<O> {
    #[inline(always)]
    fn send(&mut self, value: O, at: &Header) {
        if self.failure.is_none() {
            let sent = self.main.send(value, at);
            STEP.set(self.step);
            if let Err(failure) = sent {
                self.failure = Some(failure);
            }
        }
    }

    fn send_to<T: Element>(&mut self, tag: &OutputTag<T>, value: T, at: &Header) {
        if self.failure.is_some() {
            return;
        }
        let edge = self.tagged.iter_mut().find(|(id, _)| *id == tag.id());
        let sent = match edge.and_then(|(_, edge)| edge.as_any().downcast_mut::<Edge<T>>()) {
            Some(edge) => edge.send(value, at),
            None => Err(Failure::message(
                &*self.name,
                format!(
                    "output \"{}\" is not declared: add .with_outputs(&tag) to the ParDo",
                    tag.name()
                ),
            )),
        };
        STEP.set(self.step);
        self.failure = sent.err();
    }

    /// Whether all that was sent was taken.
    #[inline(always)]
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.failure {
            None => Ok(()),
            Some(_) => self.failure.take().map_or(Ok(()), Err),
        }
    }

    fn after_commit(
        &mut self,
        expiry: Duration,
        call: impl FnOnce() -> DoFnResult + Send + 'static,
    ) -> DoFnResult {
        let bundle = self.finalizers.as_ref().ok_or(
            "after_commit is called, but not declared: set FINALIZES_BUNDLES = true in the impl of the DoFn",
        )?;
        let expiry = Instant::now().checked_add(expiry);
        bundle.finalizer(Finalizer {
            transform: self.name.clone(),
            expiry: expiry.ok_or("a finalizer's expiry is beyond all time")?,
            call: Box::new(call),
        });
        Ok(())
    }

    pub fn start(&mut self) -> Result<(), Failure> {
        self.failure = None;
        self.main.start()?;
        self.tagged.iter_mut().try_for_each(|(_, edge)| edge.start())
    }

    pub fn finish(&mut self) -> Result<(), Failure> {
        self.main.finish()?;
        self.tagged.iter_mut().try_for_each(|(_, edge)| edge.finish())
    }
}

/// What [`DoFn::process`](crate::DoFn::process) sees besides the element.
pub struct Context<'a, O> {
    pub(crate) at: &'a Header,
    pub(crate) outputs: &'a mut Outputs<O>,
    pub(crate) sides: &'a mut SideReaders,
}

impl<O: Element> Context<'_, O> {
    /// Emits an element with the timestamp, windows and pane of the one being processed.
    #[inline(always)]
    pub fn output(&mut self, value: O) {
        self.outputs.send(value, self.at);
    }

    /// Emits an element with another timestamp. It should not lie before the timestamp of the element being processed:
    /// such an output may be late.
    pub fn output_with_timestamp(&mut self, value: O, timestamp: Timestamp) {
        self.outputs.send(
            value,
            &Header {
                timestamp,
                ..self.at.clone()
            },
        );
    }

    /// Emits an element in other windows, with another timestamp.
    pub fn output_windowed(&mut self, value: O, timestamp: Timestamp, windows: Windows, pane: PaneInfo) {
        self.outputs.send(
            value,
            &Header {
                timestamp,
                windows,
                pane,
            },
        );
    }

    /// Emits an element to an additional output.
    pub fn output_to<T: Element>(&mut self, tag: &OutputTag<T>, value: T) {
        self.outputs.send_to(tag, value, self.at);
    }

    /// Emits an element to an additional output, with another timestamp.
    pub fn output_to_with_timestamp<T: Element>(
        &mut self,
        tag: &OutputTag<T>,
        value: T,
        timestamp: Timestamp,
    ) {
        self.outputs.send_to(
            tag,
            value,
            &Header {
                timestamp,
                ..self.at.clone()
            },
        );
    }

    /// The element's event time.
    pub fn timestamp(&self) -> Timestamp {
        self.at.timestamp
    }

    /// The element's window. Where a DoFn says that it does not observe windows, the first of them.
    pub fn window(&self) -> &Window {
        self.at.windows.first().unwrap_or(&Window::Global)
    }

    /// The element's window as one of the user's own type, or as an
    /// [`IntervalWindow`](crate::windowing::IntervalWindow). `None`: it is of another type.
    pub fn window_as<W: WindowType>(&self) -> Option<W> {
        W::from_window(self.window())
    }

    /// The element's windows: more than one only where the DoFn says that it does not observe windows.
    pub fn windows(&self) -> &Windows {
        &self.at.windows
    }

    /// The pane that the element comes from.
    pub fn pane(&self) -> PaneInfo {
        self.at.pane
    }

    /// Calls this once the bundle's output is durable (*bundle finalization*): for example, to acknowledge what was
    /// read. It is called at most once, and not after `expiry` or if the worker is lost before. The DoFn says by
    /// `FINALIZES_BUNDLES = true` that it calls this.
    ///
    /// # Errors
    /// When the DoFn does not say so.
    pub fn after_commit(
        &mut self,
        expiry: Duration,
        call: impl FnOnce() -> DoFnResult + Send + 'static,
    ) -> DoFnResult {
        self.outputs.after_commit(expiry, call)
    }

    /// The value of a side input for the element's window. It is read once and kept.
    ///
    /// # Errors
    /// When the side input was not declared, cannot be read, or does not fit its view.
    pub fn side<V: View>(&mut self, view: &SideInput<V>) -> Result<Arc<V::Value>, BoxError> {
        let window = self.at.windows.first().unwrap_or(&Window::Global);
        self.sides.read(view, window)
    }
}

/// What [`DoFn::finish_bundle`](crate::DoFn::finish_bundle) sees.
pub struct FinishContext<'a, O> {
    pub(crate) outputs: &'a mut Outputs<O>,
}

impl<O: Element> FinishContext<'_, O> {
    /// Calls this once the bundle's output is durable; see [`Context::after_commit`].
    ///
    /// # Errors
    /// When the DoFn does not say that it does so.
    pub fn after_commit(
        &mut self,
        expiry: Duration,
        call: impl FnOnce() -> DoFnResult + Send + 'static,
    ) -> DoFnResult {
        self.outputs.after_commit(expiry, call)
    }

    /// Emits an element with this timestamp in this window.
    pub fn output(&mut self, value: O, timestamp: Timestamp, window: Window) {
        self.output_windowed(value, timestamp, window.into(), PaneInfo::NO_FIRING);
    }

    /// Emits an element with this timestamp, windows and pane.
    pub fn output_windowed(&mut self, value: O, timestamp: Timestamp, windows: Windows, pane: PaneInfo) {
        self.outputs.send(
            value,
            &Header {
                timestamp,
                windows,
                pane,
            },
        );
    }

    /// Emits an element to an additional output.
    pub fn output_to<T: Element>(
        &mut self,
        tag: &OutputTag<T>,
        value: T,
        timestamp: Timestamp,
        window: Window,
    ) {
        self.outputs.send_to(
            tag,
            value,
            &Header {
                timestamp,
                windows: window.into(),
                pane: PaneInfo::NO_FIRING,
            },
        );
    }
}
