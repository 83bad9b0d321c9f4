//! Stages that ask about windows of the user's own: `beam:transform:merge_windows:v1` and `…:map_windows:v1`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use purlin_model::{DecodeError, PaneInfo, Timestamp, Window, WindowCoder, wire};

use crate::stage::failure::Failure;
use crate::stage::io::{ReadIndex, SinkBuffer, Source, SourceError};
use crate::windowing::{SdkWindowFn, WindowFn};

/// What is asked of a window function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Which windows merge: `KV<nonce, windows>` becomes `KV<nonce, KV<unmerged, [KV<merged, from>]>>`.
    Merge,
    /// Which side-input window belongs to a main window: `KV<nonce, window>` becomes the same.
    Map,
}

/// Reads questions and writes answers.
pub(super) struct WindowsSource {
    pub question: Question,
    pub window_fn: WindowFn,
    pub name: String,
    /// Coder of the windows asked about.
    pub asked: WindowCoder,
    pub answers: Rc<RefCell<SinkBuffer>>,
}

fn read_windows(coder: &WindowCoder, input: &mut &[u8]) -> Result<Vec<Window>, DecodeError> {
    let count = wire::read_i32_be(input, "the number of windows")?;
    if count >= 0 {
        // Each window takes bytes, so the count is not trusted with memory.
        return (0..count).map(|_| coder.decode(input, true)).collect();
    }
    let mut all = Vec::new();
    loop {
        let count = wire::read_varint(input)?;
        if count == 0 {
            return Ok(all);
        }
        for _ in 0..count {
            all.push(coder.decode(input, true)?);
        }
    }
}

fn write_windows(windows: &[Window], out: &mut Vec<u8>) {
    out.extend_from_slice(&(windows.len() as i32).to_be_bytes());
    windows.iter().for_each(|window| window.encode(out));
}

impl WindowsSource {
    fn answer(&self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), SourceError> {
        match self.question {
            Question::Map => {
                let main = self.asked.decode(input, true)?;
                let fail = |text: String| SourceError::Failure(Failure::message(&*self.name, text));
                let side = self.window_fn.side_input_window(&main);
                let side = side.ok_or_else(|| {
                    fail(format!(
                        "window function \"{}\" has no side-input window for the main window {main}",
                        self.window_fn
                    ))
                })?;
                side.encode(out);
            }
            Question::Merge => {
                let mut windows = read_windows(&self.asked, input)?;
                let merged = self
                    .window_fn
                    .merge(&windows)
                    .map_err(|text| SourceError::Failure(Failure::message(&*self.name, text)))?;
                windows.retain(|window| !merged.iter().any(|(_, from)| from.contains(window)));
                write_windows(&windows, out);
                out.extend_from_slice(&(merged.len() as i32).to_be_bytes());
                for (window, from) in &merged {
                    window.encode(out);
                    write_windows(from, out);
                }
            }
        }
        Ok(())
    }
}

impl Source for WindowsSource {
    fn start(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn process(&mut self, data: &[u8], index: &Arc<ReadIndex>) -> Result<(), SourceError> {
        let mut input = data;
        while !input.is_empty() {
            let before = input;
            Timestamp::decode(&mut input)?;
            WindowCoder::Global.decode_windows(&mut input)?;
            PaneInfo::decode(&mut input)?;
            wire::read_bytes(&mut input, true)?;
            if index.begin(1) == 0 {
                return Ok(());
            }
            // The header and the nonce go back as they came.
            let mut out = before[..before.len() - input.len()].to_vec();
            self.answer(&mut input, &mut out)?;
            self.answers.borrow_mut().write(&out);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
