//! Steps without user code.

use purlin_model::{Element, Header};

use super::edge::{Edge, Receiver};
use super::failure::Failure;
use crate::windowing::WindowFn;

/// `beam:transform:window_into:v1`. What is in no window (between sliding windows with gaps) goes no further.
pub(crate) struct AssignWindows<T> {
    window_fn: WindowFn,
    next: Edge<T>,
}

impl<T: Element> AssignWindows<T> {
    pub(crate) fn new(window_fn: WindowFn, next: Edge<T>) -> Self {
        AssignWindows { window_fn, next }
    }
}

impl<T: Element> Receiver<T> for AssignWindows<T> {
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        let windows = self.window_fn.assign(at.timestamp);
        if windows.is_empty() {
            return Ok(());
        }
        self.next.send(
            value,
            &Header {
                timestamp: at.timestamp,
                windows,
                pane: at.pane,
            },
        )
    }
    fn receive_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        let windows = self.window_fn.assign(at.timestamp);
        if windows.is_empty() {
            values.clear();
            return Ok(());
        }
        let at = Header {
            timestamp: at.timestamp,
            windows,
            pane: at.pane,
        };
        self.next.send_all(values, &at)
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
