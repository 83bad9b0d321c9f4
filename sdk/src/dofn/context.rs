//! What user code sees of its element, and where its outputs go.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use purlin_model::{Element, Header, PaneInfo, Timestamp, Window, Windows};

use super::OutputTag;
use crate::error::{BoxError, DoFnResult};
use crate::metrics::STEP;
use crate::side_input::{SideInput, SideReaders, View};
use crate::stage::{AnyEdge, BundleCell, Edge, Failure, Finalizer, Pace};
use crate::windowing::WindowType;

/// The outputs of a step.
pub(crate) struct Outputs<O> {
    main: Edge<O>,
    /// Elements for the main output with the header of the one in the works, if they are to be gathered.
    gathered: Vec<O>,
    gathers: bool,
    pace: Pace,
    pub tagged: Vec<(u64, Box<dyn AnyEdge>)>,
    /// What went wrong behind an output: the harness looks when user code returns.
    pub failure: Option<Failure>,
    pub step: u32,
    pub name: Arc<str>,
    /// Where callbacks for the commit go, if user code declares to have some.
    pub finalizers: Option<Rc<BundleCell>>,
}

impl<O: Element> Outputs<O> {
    /// Those of a step, by their edges.
    pub fn new(main: Edge<O>, tagged: Vec<(u64, Box<dyn AnyEdge>)>, step: u32, name: Arc<str>) -> Outputs<O> {
        Outputs {
            gathers: main.batches(),
            main,
            gathered: Vec::new(),
            pace: Pace::of::<O>(),
            tagged,
            failure: None,
            step,
            name,
            finalizers: None,
        }
    }

    /// What is emitted goes on at once: it may be long until user code returns.
    pub fn at_once(&mut self) {
        self.gathers = false;
    }

    /// Emits an element that has the header of the one in the works, of which there is one until the next
    /// [`Outputs::flush`].
    #[inline(always)]
    fn output(&mut self, value: O, at: &Header) {
        if !self.gathers {
            return self.send(value, at);
        }
        self.gathered.push(value);
        if self.gathered.len() >= self.pace.limit() {
            self.flush(at);
            self.pace.sent();
        }
    }

    /// As [`Outputs::output`], for elements that are no more than make a batch.
    #[inline(always)]
    fn output_batch(&mut self, values: impl Iterator<Item = O>, at: &Header) {
        if self.gathers {
            self.gathered.extend(values);
        } else {
            values.for_each(|value| self.send(value, at));
        }
    }

    /// As [`Outputs::output_batch`], for elements that are in a vector already. What is left in it is of no interest.
    #[inline(always)]
    fn output_vec(&mut self, values: &mut Vec<O>, at: &Header) {
        if self.gathers && self.gathered.is_empty() {
            std::mem::swap(&mut self.gathered, values);
        } else {
            self.output_batch(values.drain(..), at);
        }
    }

    /// Sends what was gathered.
    #[inline(always)]
    pub fn flush(&mut self, at: &Header) {
        match self.gathered.len() {
            0 => {}
            1 => {
                if let Some(only) = self.gathered.pop() {
                    self.send(only, at);
                }
            }
            _ => self.send_gathered(at),
        }
    }

    fn send_gathered(&mut self, at: &Header) {
        if self.failure.is_none() {
            let sent = self.main.send_all(&mut self.gathered, at);
            STEP.set(self.step);
            self.failure = sent.err();
        }
        self.gathered.clear();
    }

    /// Emits an element of any header.
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
        self.gathered.clear();
        self.pace.start();
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
        self.outputs.output(value, self.at);
    }

    /// Emits elements as [`Context::output`] does, one for each element of a batch or fewer.
    #[inline(always)]
    pub(crate) fn output_batch(&mut self, values: impl Iterator<Item = O>) {
        self.outputs.output_batch(values, self.at);
    }

    /// As [`Context::output_batch`]. What is left in the vector is of no interest.
    #[inline(always)]
    pub(crate) fn output_vec(&mut self, values: &mut Vec<O>) {
        self.outputs.output_vec(values, self.at);
    }

    /// Whether something behind an output failed, so that user code is called in vain.
    #[inline(always)]
    pub(crate) fn has_failed(&self) -> bool {
        self.outputs.failure.is_some()
    }

    /// Emits an element of another header, in order with the others.
    fn send(&mut self, value: O, at: &Header) {
        self.outputs.flush(self.at);
        self.outputs.send(value, at);
    }

    /// Emits an element with another timestamp. It should not lie before the timestamp of the element being processed:
    /// such an output may be late.
    pub fn output_with_timestamp(&mut self, value: O, timestamp: Timestamp) {
        self.send(
            value,
            &Header {
                timestamp,
                ..self.at.clone()
            },
        );
    }

    /// Emits an element in other windows, with another timestamp.
    pub fn output_windowed(&mut self, value: O, timestamp: Timestamp, windows: Windows, pane: PaneInfo) {
        self.send(
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
