//! Windows and their coders.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use bytes::Bytes;

use crate::coder::Coder;
use crate::error::DecodeError;
use crate::time::Timestamp;
use crate::{urns, wire};

/// A window, as far as a runner can know it. It encodes itself: each variant has one encoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// The window of all time. No bytes.
    Global,
    /// The window `[start, end)`. Encoded as its end and its span.
    Interval {
        /// Where it starts.
        start: Timestamp,
        /// Where it ends; this point is not in it.
        end: Timestamp,
    },
    /// A window of a type of the user's, by `beam:coder:custom_window:v1`: its maximum timestamp and its own bytes.
    Custom {
        /// The largest timestamp in it.
        max_timestamp: Timestamp,
        /// Its encoding by its own coder, in the nested context.
        encoded: Bytes,
    },
    /// A window by a coder that tells no maximum timestamp.
    Opaque {
        /// Its encoding in the nested context.
        encoded: Bytes,
    },
}

impl Window {
    /// The largest timestamp in the window. For [`Window::Opaque`] it is not known, and the end of the global window
    /// is the answer: such a window closes only when the input ends.
    #[inline]
    pub fn max_timestamp(&self) -> Timestamp {
        match self {
            Window::Global | Window::Opaque { .. } => Timestamp::END_OF_GLOBAL_WINDOW,
            Window::Interval { end, .. } => end.plus_millis(-1),
            Window::Custom { max_timestamp, .. } => *max_timestamp,
        }
    }

    /// Appends the window's encoding (the same in both contexts).
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Window::Global => {}
            Window::Interval { start, end } => {
                end.encode(out);
                wire::write_varint(end.0.wrapping_sub(start.0) as u64, out);
            }
            Window::Custom {
                max_timestamp,
                encoded,
            } => {
                max_timestamp.encode(out);
                out.extend_from_slice(encoded);
            }
            Window::Opaque { encoded } => out.extend_from_slice(encoded),
        }
    }

    /// The window's encoding on its own, as it stands in state keys.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Global => f.write_str("global"),
            Window::Interval { start, end } => write!(f, "[{start}, {end})"),
            Window::Custom {
                max_timestamp,
                encoded,
            } => {
                write!(f, "custom({}, to {max_timestamp})", encoded.escape_ascii())
            }
            Window::Opaque { encoded } => write!(f, "opaque({})", encoded.escape_ascii()),
        }
    }
}

/// How the windows of a collection are encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowCoder {
    /// `beam:coder:global_window:v1`.
    Global,
    /// `beam:coder:interval_window:v1`.
    Interval,
    /// `beam:coder:custom_window:v1` of the window's own coder.
    Custom(Box<Coder>),
    /// Any other coder.
    Opaque(Box<Coder>),
}

impl WindowCoder {
    /// The window coder that a coder is.
    pub fn from_coder(coder: Coder) -> WindowCoder {
        match coder {
            Coder::GlobalWindow => WindowCoder::Global,
            Coder::IntervalWindow => WindowCoder::Interval,
            Coder::CustomWindow(inner) => WindowCoder::Custom(inner),
            other => WindowCoder::Opaque(Box::new(other)),
        }
    }

    /// The inverse of [`WindowCoder::from_coder`].
    pub fn to_coder(&self) -> Coder {
        match self {
            WindowCoder::Global => Coder::GlobalWindow,
            WindowCoder::Interval => Coder::IntervalWindow,
            WindowCoder::Custom(inner) => Coder::CustomWindow(inner.clone()),
            WindowCoder::Opaque(coder) => (**coder).clone(),
        }
    }

    /// Reads a window. `nested` is false only for a window that stands alone.
    ///
    /// # Errors
    /// When the bytes are not a window of this coder.
    #[inline]
    pub fn decode(&self, input: &mut &[u8], nested: bool) -> Result<Window, DecodeError> {
        match self {
            WindowCoder::Global => Ok(Window::Global),
            WindowCoder::Interval => {
                let end = Timestamp::decode(input)?;
                let span = wire::read_varint(input)? as i64;
                let start = end.0.checked_sub(span).filter(|_| span >= 0);
                let what = "the span of an interval window";
                let start = start.ok_or(DecodeError::OutOfRange { what, value: span })?;
                Ok(Window::Interval {
                    start: Timestamp(start),
                    end,
                })
            }
            WindowCoder::Custom(inner) => {
                let max_timestamp = Timestamp::decode(input)?;
                Ok(Window::Custom {
                    max_timestamp,
                    encoded: taken(inner, input, nested)?,
                })
            }
            WindowCoder::Opaque(coder) => Ok(Window::Opaque {
                encoded: taken(coder, input, nested)?,
            }),
        }
    }

    /// Moves past a window.
    ///
    /// # Errors
    /// As [`WindowCoder::decode`], but values are not checked.
    #[inline]
    pub fn skip(&self, input: &mut &[u8], nested: bool) -> Result<(), DecodeError> {
        match self {
            WindowCoder::Global => Ok(()),
            WindowCoder::Interval => {
                wire::take(input, 8, "an interval window")?;
                wire::skip_varint(input)
            }
            WindowCoder::Custom(inner) => {
                wire::take(input, 8, "a custom window")?;
                inner.skip(input, nested)
            }
            WindowCoder::Opaque(coder) => coder.skip(input, nested),
        }
    }

    /// Reads the windows of an element: a count of four bytes, then the windows.
    ///
    /// # Errors
    /// When the bytes are not windows of this coder.
    #[inline]
    pub fn decode_windows(&self, input: &mut &[u8]) -> Result<Windows, DecodeError> {
        let count = wire::read_i32_be(input, "the number of windows")?;
        if count == 1 {
            return Ok(Windows::One(self.decode(input, true)?));
        }
        let count = self.check_count(count, input.len())?;
        (0..count)
            .map(|_| self.decode(input, true))
            .collect::<Result<Vec<_>, _>>()
            .map(Windows::Many)
    }

    /// Moves past the windows of an element and tells how many there were.
    ///
    /// # Errors
    /// As [`WindowCoder::decode_windows`].
    #[inline]
    pub fn skip_windows(&self, input: &mut &[u8]) -> Result<usize, DecodeError> {
        let count = wire::read_i32_be(input, "the number of windows")?;
        let count = self.check_count(count, input.len())?;
        for _ in 0..count {
            self.skip(input, true)?;
        }
        Ok(count)
    }

    /// The count if so many windows can be there. Keeps a forged count from filling the memory.
    fn check_count(&self, count: i32, left: usize) -> Result<usize, DecodeError> {
        let min_size = match self {
            WindowCoder::Global => 0,
            WindowCoder::Interval => 9,
            WindowCoder::Custom(_) => 8,
            WindowCoder::Opaque(coder) => coder.min_size(),
        };
        wire::checked_count(i64::from(count), min_size, left, "the number of windows")
    }

    /// The URN, for messages.
    pub fn urn(&self) -> &str {
        match self {
            WindowCoder::Global => urns::GLOBAL_WINDOW,
            WindowCoder::Interval => urns::INTERVAL_WINDOW,
            WindowCoder::Custom(_) => urns::CUSTOM_WINDOW,
            WindowCoder::Opaque(coder) => coder.urn(),
        }
    }
}

fn taken(coder: &Coder, input: &mut &[u8], nested: bool) -> Result<Bytes, DecodeError> {
    let before = *input;
    coder.skip(input, nested)?;
    Ok(Bytes::copy_from_slice(&before[..before.len() - input.len()]))
}

/// The windows of one element. Nearly always one, which is held without allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Windows {
    /// One window.
    One(Window),
    /// Several, or none.
    Many(Vec<Window>),
}

impl Windows {
    /// The global window alone.
    pub const GLOBAL: Windows = Windows::One(Window::Global);

    /// The windows as a slice.
    #[inline]
    pub fn as_slice(&self) -> &[Window] {
        match self {
            Windows::One(window) => core::slice::from_ref(window),
            Windows::Many(windows) => windows,
        }
    }
}

impl Deref for Windows {
    type Target = [Window];
    #[inline]
    fn deref(&self) -> &[Window] {
        self.as_slice()
    }
}

impl From<Window> for Windows {
    fn from(window: Window) -> Self {
        Windows::One(window)
    }
}

impl FromIterator<Window> for Windows {
    fn from_iter<I: IntoIterator<Item = Window>>(windows: I) -> Self {
        let mut windows = windows.into_iter();
        match (windows.next(), windows.next()) {
            (None, _) => Windows::Many(Vec::new()),
            (Some(one), None) => Windows::One(one),
            (Some(first), Some(second)) => {
                Windows::Many([first, second].into_iter().chain(windows).collect())
            }
        }
    }
}

impl<'a> IntoIterator for &'a Windows {
    type Item = &'a Window;
    type IntoIter = core::slice::Iter<'a, Window>;
    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

/// Appends the windows of an element: a count of four bytes, then the windows.
#[inline]
pub fn encode_windows(windows: &[Window], out: &mut Vec<u8>) {
    out.extend_from_slice(&(windows.len() as u32).to_be_bytes());
    for window in windows {
        window.encode(out);
    }
}
