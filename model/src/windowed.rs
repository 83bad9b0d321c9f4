//! Values with their timestamp, windows and pane: what flows on the data plane.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::coder::Coder;
use crate::error::DecodeError;
use crate::pane::PaneInfo;
use crate::time::Timestamp;
use crate::window::{Window, WindowCoder, Windows, encode_windows};
use crate::wire;

/// What stands before the value of a windowed value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The element's event time.
    pub timestamp: Timestamp,
    /// The windows it is in.
    pub windows: Windows,
    /// The pane it comes from.
    pub pane: PaneInfo,
}

impl Header {
    /// The header of an Impulse's element, before any windowing.
    pub const IMPULSE: Header = Header {
        timestamp: Timestamp::MIN,
        windows: Windows::GLOBAL,
        pane: PaneInfo::NO_FIRING,
    };

    /// Appends the header; the value in the nested context follows.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_header(self.timestamp, &self.windows, self.pane, out);
    }

    /// Reads the header; the value in the nested context follows.
    ///
    /// # Errors
    /// When the bytes are not a header with windows of this coder.
    #[inline]
    pub fn decode(window: &WindowCoder, input: &mut &[u8]) -> Result<Header, DecodeError> {
        // Nearly every element of a batch pipeline is in the global window alone and comes from no trigger.
        if matches!(window, WindowCoder::Global)
            && let Some((head, rest)) = input.split_first_chunk::<13>()
            && head[8..] == PLAIN
        {
            let mut timestamp = [0; 8];
            timestamp.copy_from_slice(&head[..8]);
            *input = rest;
            let timestamp = Timestamp::from_bytes(timestamp);
            return Ok(Header {
                timestamp,
                windows: Windows::GLOBAL,
                pane: PaneInfo::NO_FIRING,
            });
        }
        Ok(Header {
            timestamp: Timestamp::decode(input)?,
            windows: window.decode_windows(input)?,
            pane: PaneInfo::decode(input)?,
        })
    }

    /// The header with each of its windows alone.
    pub fn in_each_window(&self) -> impl Iterator<Item = Header> + '_ {
        self.windows.iter().map(|window| Header {
            timestamp: self.timestamp,
            windows: Windows::One(window.clone()),
            pane: self.pane,
        })
    }
}

/// Appends timestamp, windows and pane; the value in the nested context follows.
#[inline]
pub fn encode_header(timestamp: Timestamp, windows: &[Window], pane: PaneInfo, out: &mut Vec<u8>) {
    timestamp.encode(out);
    encode_windows(windows, out);
    pane.encode(out);
}

/// A windowed value whose value is a slice of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowedValueRef<'a> {
    /// The element's event time.
    pub timestamp: Timestamp,
    /// The windows it is in.
    pub windows: Windows,
    /// The pane it comes from.
    pub pane: PaneInfo,
    /// The value's encoding.
    pub value: &'a [u8],
}

impl WindowedValueRef<'_> {
    /// Appends the windowed value.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_header(self.timestamp, &self.windows, self.pane, out);
        out.extend_from_slice(self.value);
    }
}

/// `beam:coder:windowed_value:v1`: timestamp, windows, pane, value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowedValueCoder {
    /// The value's coder.
    pub value: Coder,
    /// The windows' coder.
    pub window: WindowCoder,
}

/// One window of no bytes, and the byte of [`PaneInfo::NO_FIRING`].
const PLAIN: [u8; 5] = [0, 0, 0, 1, 0xf];

impl WindowedValueCoder {
    /// Moves past what stands before the value.
    ///
    /// # Errors
    /// As [`Header::decode`].
    #[inline]
    pub fn skip_header(&self, input: &mut &[u8]) -> Result<(), DecodeError> {
        wire::take(input, 8, "a timestamp")?;
        self.window.skip_windows(input)?;
        PaneInfo::skip(input)
    }

    /// Reads one windowed value (elements of the data plane are nested).
    ///
    /// # Errors
    /// When the bytes are not of this coder.
    #[inline]
    pub fn decode<'a>(
        &self,
        input: &mut &'a [u8],
        nested: bool,
    ) -> Result<WindowedValueRef<'a>, DecodeError> {
        let Header {
            timestamp,
            windows,
            pane,
        } = Header::decode(&self.window, input)?;
        let value = self.value.take(input, nested)?;
        Ok(WindowedValueRef {
            timestamp,
            windows,
            pane,
            value,
        })
    }
}

/// `beam:coder:param_windowed_value:v1`: only the value is encoded; timestamp, windows and pane are the coder's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParamWindowedValueCoder {
    /// The value's coder.
    pub value: Coder,
    /// The windows' coder.
    pub window: WindowCoder,
    header: Header,
    payload: Bytes,
}

impl ParamWindowedValueCoder {
    /// The coder of a payload, which is a windowed value of the empty byte string.
    ///
    /// # Errors
    /// When the payload is not that.
    pub fn new(value: Coder, window: WindowCoder, payload: Bytes) -> Result<Self, DecodeError> {
        let mut input = &payload[..];
        let header = Header::decode(&window, &mut input)?;
        Ok(ParamWindowedValueCoder {
            value,
            window,
            header,
            payload,
        })
    }

    /// Timestamp, windows and pane of every value.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The coder's payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub(crate) fn with_value(&self, value: Coder) -> Self {
        ParamWindowedValueCoder {
            value,
            ..self.clone()
        }
    }
}
