//! The ends of a stage: bytes become elements and elements bytes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use purlin_coders::{DecodeError, Element, Header, WindowCoder, wire};

use super::edge::{Edge, Receiver};
use super::failure::Failure;

/// How a runner wants a type on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireForm {
    /// By the type's own coder.
    Plain,
    /// By the type's own coder, preceded by the length.
    LengthPrefixed,
}

/// What a piece of output holds at least when it is handed on.
const PIECE: usize = 1 << 20;

/// Encoded elements of one data sink.
#[derive(Debug, Default)]
pub struct SinkBuffer {
    pieces: Vec<Bytes>,
    current: Vec<u8>,
}

impl SinkBuffer {
    #[inline]
    fn written(&mut self) {
        if self.current.len() >= PIECE {
            // The next piece is likely to be as long.
            let next = Vec::with_capacity(PIECE + PIECE / 8);
            self.pieces
                .push(std::mem::replace(&mut self.current, next).into());
        }
    }

    /// Appends whole elements.
    pub(super) fn write(&mut self, elements: &[u8]) {
        self.current.extend_from_slice(elements);
        self.written();
    }

    /// Takes the full pieces.
    pub fn take_pieces(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.pieces)
    }

    /// Takes everything.
    pub fn take_all(&mut self) -> Vec<Bytes> {
        let mut pieces = self.take_pieces();
        if !self.current.is_empty() {
            pieces.push(std::mem::take(&mut self.current).into());
        }
        pieces
    }
}

/// `beam:runner:sink:v1`.
pub(super) struct SinkOp {
    form: WireForm,
    buffer: Rc<RefCell<SinkBuffer>>,
}

impl SinkOp {
    pub(super) fn new(form: WireForm, buffer: Rc<RefCell<SinkBuffer>>) -> SinkOp {
        SinkOp { form, buffer }
    }
}

impl<T: Element> Receiver<T> for SinkOp {
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        let mut buffer = self.buffer.borrow_mut();
        let out = &mut buffer.current;
        at.encode(out);
        match self.form {
            WireForm::Plain => value.encode(out, true),
            WireForm::LengthPrefixed => wire::write_length_prefixed(out, |out| value.encode(out, false)),
        }
        buffer.written();
        Ok(())
    }
    fn start(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Which elements of the main input are processed, told to and set by other threads.
#[derive(Debug)]
pub struct ReadIndex {
    /// Elements that were begun.
    begun: AtomicU64,
    /// The first element that is not to be processed.
    stop: AtomicU64,
    /// Held while it is open whether a split gives away what it asks for.
    splitting: Mutex<()>,
}

impl Default for ReadIndex {
    fn default() -> Self {
        ReadIndex {
            begun: AtomicU64::new(0),
            stop: AtomicU64::new(u64::MAX),
            splitting: Mutex::default(),
        }
    }
}

impl ReadIndex {
    /// Begins the next element. False: it was given away.
    #[inline]
    pub(super) fn begin(&self) -> bool {
        // Both sides write theirs and then read the other's, in one total order: either this sees the stop or the
        // split sees the element begun.
        let index = self.begun.load(Ordering::Relaxed);
        self.begun.swap(index + 1, Ordering::SeqCst);
        index < self.stop.load(Ordering::SeqCst) || self.was_not_given_away(index)
    }

    #[cold]
    fn was_not_given_away(&self, index: u64) -> bool {
        // A split that takes its stop back saw this element begun, and it must not be left.
        let _open = self.splitting.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = index < self.stop.load(Ordering::SeqCst);
        if !mine {
            self.begun.store(index, Ordering::SeqCst);
        }
        mine
    }

    /// How many elements were begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// The first element that is not to be processed.
    pub fn stop(&self) -> u64 {
        self.stop.load(Ordering::SeqCst)
    }

    /// Gives away the elements from `at` on. False: one of them was begun, and nothing changes.
    pub fn try_stop(&self, at: u64) -> bool {
        let _open = self.splitting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.stop.swap(at, Ordering::SeqCst);
        if at < before && self.begun.load(Ordering::SeqCst) <= at {
            return true;
        }
        self.stop.store(before, Ordering::SeqCst);
        false
    }

    /// For a new bundle.
    pub fn reset(&self) {
        self.begun.store(0, Ordering::SeqCst);
        self.stop.store(u64::MAX, Ordering::SeqCst);
    }
}

/// Why the bytes of a source were not processed to their end.
pub(super) enum SourceError {
    Decode(DecodeError),
    Failure(Failure),
}

impl From<DecodeError> for SourceError {
    fn from(e: DecodeError) -> Self {
        SourceError::Decode(e)
    }
}

/// `beam:runner:source:v1`.
pub(super) trait Source {
    fn start(&mut self) -> Result<(), Failure>;
    fn process(&mut self, data: &[u8], index: &Arc<ReadIndex>) -> Result<(), SourceError>;
    fn finish(&mut self) -> Result<(), Failure>;
}

/// How the values of a source are read.
pub(super) trait ReadValue<T> {
    fn read(&self, input: &mut &[u8]) -> Result<T, DecodeError>;
}

impl<T: Element> ReadValue<T> for WireForm {
    #[inline]
    fn read(&self, input: &mut &[u8]) -> Result<T, DecodeError> {
        match self {
            WireForm::Plain => T::decode(input, true),
            WireForm::LengthPrefixed => {
                let mut value = wire::read_bytes(input, true)?;
                let decoded = T::decode(&mut value, false)?;
                wire::expect_end(value)?;
                Ok(decoded)
            }
        }
    }
}

pub(super) struct TypedSource<T, R> {
    values: R,
    windows: WindowCoder,
    next: Edge<T>,
    /// The header of the element before, decoded and as bytes: the next one mostly has the same.
    last: (Header, Vec<u8>),
}

impl<T: Element, R: ReadValue<T>> TypedSource<T, R> {
    pub(super) fn new(values: R, windows: WindowCoder, next: Edge<T>) -> Self {
        TypedSource {
            values,
            windows,
            next,
            last: (Header::IMPULSE, Vec::new()),
        }
    }

    #[inline]
    fn read_header(&mut self, input: &mut &[u8]) -> Result<(), DecodeError> {
        if !self.last.1.is_empty() && input.starts_with(&self.last.1) {
            *input = &input[self.last.1.len()..];
            return Ok(());
        }
        let before = *input;
        self.last.0 = Header::decode(&self.windows, input)?;
        self.last.1.clear();
        self.last
            .1
            .extend_from_slice(&before[..before.len() - input.len()]);
        Ok(())
    }
}

impl<T: Element, R: ReadValue<T>> Source for TypedSource<T, R> {
    fn start(&mut self) -> Result<(), Failure> {
        self.next.start()
    }

    fn process(&mut self, data: &[u8], index: &Arc<ReadIndex>) -> Result<(), SourceError> {
        let mut input = data;
        while !input.is_empty() {
            if !index.begin() {
                return Ok(());
            }
            self.read_header(&mut input)?;
            let value = self.values.read(&mut input)?;
            self.next
                .send(value, &self.last.0)
                .map_err(SourceError::Failure)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_gives_away_only_what_was_not_begun() {
        let index = ReadIndex::default();
        assert!(index.begin() && index.begin());
        assert!(!index.try_stop(1), "element 1 was begun");
        assert!(index.try_stop(3));
        assert!(!index.try_stop(5), "a split cannot take back");
        assert!(index.begin());
        assert!(!index.begin(), "element 3 was given away");
        assert_eq!((index.begun(), index.stop()), (3, 3));
        index.reset();
        assert!(index.begin());
    }

    #[test]
    fn nothing_is_lost_or_done_twice_between_a_reader_and_splits_in_a_race() {
        for round in 0..200 {
            let index = ReadIndex::default();
            let read = std::thread::scope(|scope| {
                let reader = scope.spawn(|| (0..1000u64).take_while(|_| index.begin()).count() as u64);
                for _ in 0..100 {
                    index.try_stop(index.begun() + round % 2);
                }
                reader.join().unwrap()
            });
            assert_eq!(read, index.stop().min(1000));
        }
    }
}
