//! The ends of a stage: bytes become elements and elements bytes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use purlin_model::{DecodeError, Element, Header, WindowCoder, wire};

use super::backed;
use super::edge::{Edge, Receiver};
use super::failure::Failure;
use super::pace::Pace;

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
    pub(crate) fn write(&mut self, elements: &[u8]) {
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
pub(crate) struct SinkOp {
    form: WireForm,
    buffer: Rc<RefCell<SinkBuffer>>,
    /// The header of a batch, as bytes.
    header: Vec<u8>,
}

impl SinkOp {
    pub(crate) fn new(form: WireForm, buffer: Rc<RefCell<SinkBuffer>>) -> SinkOp {
        SinkOp {
            form,
            buffer,
            header: Vec::new(),
        }
    }

    #[inline(always)]
    fn encode<T: Element>(form: WireForm, value: &T, out: &mut Vec<u8>) {
        match form {
            WireForm::Plain => value.encode(out, true),
            WireForm::LengthPrefixed => wire::write_length_prefixed(out, |out| value.encode(out, false)),
        }
    }
}

impl<T: Element> Receiver<T> for SinkOp {
    fn receive(&mut self, value: T, at: &Header) -> Result<(), Failure> {
        let mut buffer = self.buffer.borrow_mut();
        at.encode(&mut buffer.current);
        Self::encode(self.form, &value, &mut buffer.current);
        buffer.written();
        Ok(())
    }
    fn receive_all(&mut self, values: &mut Vec<T>, at: &Header) -> Result<(), Failure> {
        let mut buffer = self.buffer.borrow_mut();
        self.header.clear();
        at.encode(&mut self.header);
        for value in values.drain(..) {
            buffer.current.extend_from_slice(&self.header);
            Self::encode(self.form, &value, &mut buffer.current);
            buffer.written();
        }
        Ok(())
    }
    fn batches(&self) -> bool {
        true
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
    /// Begins the next elements, so many. Gives how many of them were begun: the others were given away.
    #[inline]
    pub(crate) fn begin(&self, count: usize) -> usize {
        // Both sides write theirs and then read the other's, in one total order: either this sees the stop or the
        // split sees the elements begun.
        let index = self.begun.load(Ordering::Relaxed);
        let end = index + count as u64;
        self.begun.swap(end, Ordering::SeqCst);
        if end <= self.stop.load(Ordering::SeqCst) {
            return count;
        }
        self.begin_some(index, end)
    }

    #[cold]
    fn begin_some(&self, index: u64, end: u64) -> usize {
        // A split that takes its stop back saw these elements begun, and they must not be left.
        let _open = self.splitting.lock();
        let end = end.min(self.stop.load(Ordering::SeqCst)).max(index);
        self.begun.store(end, Ordering::SeqCst);
        (end - index) as usize
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
        let _open = self.splitting.lock();
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
pub(crate) enum SourceError {
    Decode(DecodeError),
    Failure(Failure),
}

impl From<DecodeError> for SourceError {
    fn from(e: DecodeError) -> Self {
        SourceError::Decode(e)
    }
}

/// `beam:runner:source:v1`.
pub(crate) trait Source {
    fn start(&mut self) -> Result<(), Failure>;
    fn process(&mut self, data: &[u8], index: &Arc<ReadIndex>) -> Result<(), SourceError>;
    fn finish(&mut self) -> Result<(), Failure>;
}

/// How the values of a source are read.
pub(crate) trait ReadValue<T> {
    fn read(&self, input: &mut &[u8]) -> Result<T, DecodeError>;
}

impl<T: Element> ReadValue<T> for WireForm {
    #[inline]
    fn read(&self, input: &mut &[u8]) -> Result<T, DecodeError> {
        match self {
            WireForm::Plain => backed::decode(input, true),
            WireForm::LengthPrefixed => {
                let mut value = wire::read_bytes(input, true)?;
                let decoded = backed::decode(&mut value, false)?;
                wire::expect_end(value)?;
                Ok(decoded)
            }
        }
    }
}

pub(crate) struct TypedSource<T, R> {
    values: R,
    windows: WindowCoder,
    next: Edge<T>,
    /// The header of the element before, decoded and as bytes: the next one mostly has the same.
    last: (Header, Vec<u8>),
    batch: Vec<T>,
    pace: Pace,
    batches: bool,
}

impl<T: Element, R: ReadValue<T>> TypedSource<T, R> {
    pub(crate) fn new(values: R, windows: WindowCoder, next: Edge<T>) -> Self {
        TypedSource {
            values,
            windows,
            batches: next.batches(),
            next,
            last: (Header::IMPULSE, Vec::new()),
            batch: Vec::new(),
            pace: Pace::of::<T>(),
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

    /// Gathers the elements behind one that have its header, as many as make a batch.
    #[inline]
    fn gather(&mut self, first: T, input: &mut &[u8]) -> Result<(), DecodeError> {
        self.batch.push(first);
        while self.batch.len() < self.pace.limit()
            && let Some(value) = input.strip_prefix(&self.last.1[..])
            && !value.is_empty()
        {
            *input = value;
            let value = self.values.read(input)?;
            self.batch.push(value);
        }
        Ok(())
    }

    /// Processes a batch. False: elements were given away, and there are no more.
    fn send_batch(&mut self, index: &ReadIndex) -> Result<bool, Failure> {
        let gathered = self.batch.len();
        let begun = index.begin(gathered);
        self.batch.truncate(begun);
        if begun > 0 {
            self.next.send_all(&mut self.batch, &self.last.0)?;
        }
        if gathered >= self.pace.limit() {
            self.pace.sent();
        }
        Ok(begun == gathered)
    }
}

impl<T: Element, R: ReadValue<T>> Source for TypedSource<T, R> {
    fn start(&mut self) -> Result<(), Failure> {
        self.batch.clear();
        self.pace.start();
        self.next.start()
    }

    fn process(&mut self, data: &[u8], index: &Arc<ReadIndex>) -> Result<(), SourceError> {
        let mut input = data;
        self.pace.begin();
        while !input.is_empty() {
            self.read_header(&mut input)?;
            let value = self.values.read(&mut input)?;
            if self.batches {
                let gathered = self.gather(value, &mut input);
                if !self.send_batch(index).map_err(SourceError::Failure)? {
                    return Ok(());
                }
                // What came before the bytes that are none was processed.
                gathered?;
            } else if index.begin(1) == 1 {
                self.next
                    .send(value, &self.last.0)
                    .map_err(SourceError::Failure)?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }
}

#[cfg(test)]
mod tests {
    use purlin_model::Timestamp;

    use super::super::edge::ElementCount;
    use super::*;

    type Seen = Rc<RefCell<Vec<(i64, i64)>>>;

    struct Keep(Seen, bool);

    impl Receiver<i64> for Keep {
        fn receive(&mut self, value: i64, at: &Header) -> Result<(), Failure> {
            self.0.borrow_mut().push((value, at.timestamp.millis()));
            Ok(())
        }
        fn batches(&self) -> bool {
            self.1
        }
        fn start(&mut self) -> Result<(), Failure> {
            Ok(())
        }
        fn finish(&mut self) -> Result<(), Failure> {
            Ok(())
        }
    }

    /// Numbers from 0 on, of which some that follow each other have the same timestamp.
    fn numbers(count: i64) -> (Vec<(i64, i64)>, Vec<u8>) {
        let elements: Vec<_> = (0..count)
            .map(|n| (n, n / 70 + i64::from(n % 200 == 0)))
            .collect();
        let mut bytes = Vec::new();
        for (number, millis) in &elements {
            let header = Header {
                timestamp: Timestamp::from_millis(*millis),
                ..Header::IMPULSE
            };
            header.encode(&mut bytes);
            number.encode(&mut bytes, true);
        }
        (elements, bytes)
    }

    fn source(batches: bool) -> (TypedSource<i64, WireForm>, Seen) {
        let seen = Seen::default();
        let keep = Box::new(Keep(seen.clone(), batches));
        let edge = Edge::new(ElementCount::default(), vec![keep]);
        (TypedSource::new(WireForm::Plain, WindowCoder::Global, edge), seen)
    }

    #[test]
    fn elements_come_in_order_up_to_a_split_in_batches_or_not() {
        let (elements, bytes) = numbers(1000);
        for (batches, stop) in [(true, None), (false, None), (true, Some(613)), (false, Some(613))] {
            let (mut source, seen) = source(batches);
            let index = Arc::new(ReadIndex::default());
            if let Some(stop) = stop {
                assert!(index.try_stop(stop));
            }
            assert!(source.process(&bytes, &index).is_ok());
            let end = stop.unwrap_or(1000);
            assert_eq!(seen.take(), elements[..end as usize]);
            assert_eq!(index.begun(), end);
        }
    }

    #[test]
    fn what_comes_before_bytes_that_are_no_element_is_processed() {
        let (elements, mut bytes) = numbers(100);
        bytes.push(0);
        let (mut source, seen) = source(true);
        let index = Arc::new(ReadIndex::default());
        let result = source.process(&bytes, &index);
        assert!(matches!(result, Err(SourceError::Decode(_))));
        assert_eq!((seen.take(), index.begun()), (elements, 100));
    }

    #[test]
    fn a_split_gives_away_only_what_was_not_begun() {
        let index = ReadIndex::default();
        assert_eq!((index.begin(1), index.begin(1)), (1, 1));
        assert!(!index.try_stop(1), "element 1 was begun");
        assert!(index.try_stop(3));
        assert!(!index.try_stop(5), "a split cannot take back");
        assert_eq!(index.begin(2), 1, "element 3 was given away");
        assert_eq!(index.begin(1), 0);
        assert_eq!((index.begun(), index.stop()), (3, 3));
        index.reset();
        assert_eq!(index.begin(5), 5);
    }

    #[test]
    fn nothing_is_lost_or_done_twice_between_a_reader_and_splits_in_a_race() {
        for round in 0..200 {
            let index = ReadIndex::default();
            let read = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let (mut read, mut left) = (0, 1000);
                    while left > 0 {
                        let count = (1 + round % 3).min(left);
                        let begun = index.begin(count);
                        read += begun as u64;
                        left -= count;
                        if begun < count {
                            break;
                        }
                    }
                    read
                });
                for _ in 0..100 {
                    index.try_stop(index.begun() + round as u64 % 2);
                }
                reader.join().unwrap()
            });
            assert_eq!(read, index.stop().min(1000));
        }
    }
}
