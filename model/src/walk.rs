//! Finding the elements of a buffer of the data plane.

use core::ops::Range;

use crate::coder::Coder;
use crate::error::DecodeError;
use crate::pane::PaneInfo;
use crate::time::Timestamp;
use crate::window::{WindowCoder, Windows};
use crate::windowed::{Header, WindowedValueCoder};

/// Walks over the windowed values of a buffer, which stand one after the other in the nested context.
///
/// The buffer is an element's boundary at both ends: Beam never splits an element between Data messages.
///
/// ```
/// use purlin_model::{Coder, Header, Walker, WindowCoder};
///
/// let mut data = Vec::new();
/// for value in [b"\x01a", b"\x01b"] {
///     Header::IMPULSE.encode(&mut data);
///     data.extend_from_slice(value);
/// }
/// let mut values = Vec::new();
/// for element in Walker::new(&WindowCoder::Global, &Coder::Bytes, &data) {
///     values.push(&data[element?.value()]);
/// }
/// assert_eq!(values, [b"\x01a", b"\x01b"]);
/// # Ok::<(), purlin_model::DecodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Walker<'a> {
    window: &'a WindowCoder,
    value: &'a Coder,
    data: &'a [u8],
    rest: &'a [u8],
}

/// An element of a buffer. Positions are of the walker's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkedElement {
    /// Where it starts.
    pub start: usize,
    /// Where its value starts.
    pub value_start: usize,
    /// Where it, and its value, end.
    pub end: usize,
    /// Its event time.
    pub timestamp: Timestamp,
    /// The windows it is in.
    pub windows: Windows,
    /// The pane it comes from.
    pub pane: PaneInfo,
}

impl WalkedElement {
    /// The range of the whole element.
    #[inline]
    pub fn whole(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The range of the value.
    #[inline]
    pub fn value(&self) -> Range<usize> {
        self.value_start..self.end
    }
}

impl<'a> Walker<'a> {
    /// A walker over a buffer of windowed values.
    #[inline]
    pub fn new(window: &'a WindowCoder, value: &'a Coder, data: &'a [u8]) -> Self {
        Walker {
            window,
            value,
            data,
            rest: data,
        }
    }

    /// A walker over a buffer of windowed values.
    #[inline]
    pub fn of(coder: &'a WindowedValueCoder, data: &'a [u8]) -> Self {
        Self::new(&coder.window, &coder.value, data)
    }

    /// Where the next element starts.
    #[inline]
    pub fn offset(&self) -> usize {
        self.data.len() - self.rest.len()
    }

    #[inline]
    fn walk(&mut self) -> Result<WalkedElement, DecodeError> {
        let start = self.offset();
        let Header {
            timestamp,
            windows,
            pane,
        } = Header::decode(self.window, &mut self.rest)?;
        let value_start = self.offset();
        self.value.skip(&mut self.rest, true)?;
        Ok(WalkedElement {
            start,
            value_start,
            end: self.offset(),
            timestamp,
            windows,
            pane,
        })
    }
}

impl Iterator for Walker<'_> {
    type Item = Result<WalkedElement, DecodeError>;

    /// The next element; after an error there are no more.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.walk();
        if next.is_err() {
            self.rest = &[];
        }
        Some(next)
    }
}

/// Number of the elements of a buffer, without making anything of their windows and panes.
///
/// # Errors
/// When the buffer does not hold whole elements of the coder.
pub fn count_elements(window: &WindowCoder, value: &Coder, data: &[u8]) -> Result<usize, DecodeError> {
    let mut rest = data;
    let mut count = 0;
    while !rest.is_empty() {
        crate::wire::take(&mut rest, 8, "a timestamp")?;
        window.skip_windows(&mut rest)?;
        PaneInfo::skip(&mut rest)?;
        value.skip(&mut rest, true)?;
        count += 1;
    }
    Ok(count)
}
