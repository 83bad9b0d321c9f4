//! What user code sees of its element, and where its outputs go.

use std::sync::Arc;

use purlin_coders::{Element, Header, PaneInfo, Timestamp, Window, Windows};

use super::OutputTag;
use crate::error::BoxError;
use crate::harness::{AnyEdge, Edge, Failure, SideReaders};
use crate::metrics::STEP;
use crate::side_input::{SideInput, View};

/// The outputs of a step.
pub(crate) struct Outputs<O> {
    pub main: Edge<O>,
    pub tagged: Vec<(u64, Box<dyn AnyEdge>)>,
    /// What went wrong behind an output: the harness looks when user code returns.
    pub failure: Option<Failure>,
    pub step: u32,
    pub name: Arc<str>,
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

    /// The element's windows: more than one only where the DoFn says that it does not observe windows.
    pub fn windows(&self) -> &Windows {
        &self.at.windows
    }

    /// The pane that the element comes from.
    pub fn pane(&self) -> PaneInfo {
        self.at.pane
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
