//! Panes: which firing of a window an element comes from.

use alloc::vec::Vec;

use crate::error::DecodeError;
use crate::wire;

/// When a pane fired, relative to the watermark passing the end of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Timing {
    /// Before the watermark passed the end of the window.
    Early = 0,
    /// When it did.
    OnTime = 1,
    /// After it did.
    Late = 2,
    /// The element does not come from a triggered aggregation.
    Unknown = 3,
}

/// The firing of a window that an element belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PaneInfo {
    /// Whether this is the first pane of the window for the key.
    pub is_first: bool,
    /// Whether this is the last pane.
    pub is_last: bool,
    /// When it fired.
    pub timing: Timing,
    /// Zero-based number of the firing.
    pub index: i64,
    /// Zero-based number among the firings that are not early; -1 for early ones.
    pub nonspeculative_index: i64,
}

const ONE_INDEX: u8 = 1;
const TWO_INDICES: u8 = 2;

impl PaneInfo {
    /// The pane of elements that do not come from a triggered aggregation.
    pub const NO_FIRING: PaneInfo = PaneInfo {
        is_first: true,
        is_last: true,
        timing: Timing::Unknown,
        index: 0,
        nonspeculative_index: 0,
    };

    /// The one on-time pane of a window whose trigger fires once.
    pub const ON_TIME_AND_ONLY: PaneInfo = PaneInfo {
        is_first: true,
        is_last: true,
        timing: Timing::OnTime,
        index: 0,
        nonspeculative_index: 0,
    };

    const fn low_bits(self) -> u8 {
        self.is_first as u8 | (self.is_last as u8) << 1 | (self.timing as u8) << 2
    }

    /// What the low four bits stand for when no index follows.
    const fn from_low_bits(bits: u8) -> PaneInfo {
        let timing = match bits >> 2 & 3 {
            0 => Timing::Early,
            1 => Timing::OnTime,
            2 => Timing::Late,
            _ => Timing::Unknown,
        };
        let is_first = bits & 1 != 0;
        PaneInfo {
            is_first,
            is_last: bits & 2 != 0,
            timing,
            index: if is_first { 0 } else { -1 },
            nonspeculative_index: if matches!(timing, Timing::Early) { -1 } else { 0 },
        }
    }

    /// Appends one to three parts: a byte of flags, and the indices where the flags do not tell them.
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) {
        let bits = self.low_bits();
        let early = self.timing == Timing::Early;
        // Beam's SDKs write the index of early panes in any case. Panes whose parts contradict each other stay as they are.
        if !early && self == Self::from_low_bits(bits) {
            out.push(bits);
        } else if self.nonspeculative_index == if early { -1 } else { self.index } {
            out.push(bits | ONE_INDEX << 4);
            wire::write_varint(self.index as u64, out);
        } else {
            out.push(bits | TWO_INDICES << 4);
            wire::write_varint(self.index as u64, out);
            wire::write_varint(self.nonspeculative_index as u64, out);
        }
    }

    /// Reads a pane.
    ///
    /// # Errors
    /// When the input ends inside it or its first byte is of no known form.
    #[inline]
    pub fn decode(input: &mut &[u8]) -> Result<PaneInfo, DecodeError> {
        let first = wire::read_u8(input, "a pane")?;
        let mut pane = Self::from_low_bits(first & 0xf);
        match first >> 4 {
            0 => {}
            ONE_INDEX => {
                pane.index = wire::read_varint(input)? as i64;
                pane.nonspeculative_index = if pane.timing == Timing::Early {
                    -1
                } else {
                    pane.index
                };
            }
            TWO_INDICES => {
                pane.index = wire::read_varint(input)? as i64;
                pane.nonspeculative_index = wire::read_varint(input)? as i64;
            }
            _ => {
                return Err(DecodeError::InvalidByte {
                    what: "the first byte of a pane",
                    value: first,
                });
            }
        }
        Ok(pane)
    }

    /// Moves past a pane.
    ///
    /// # Errors
    /// As [`PaneInfo::decode`].
    #[inline]
    pub fn skip(input: &mut &[u8]) -> Result<(), DecodeError> {
        let first = wire::read_u8(input, "a pane")?;
        match first >> 4 {
            0 => Ok(()),
            ONE_INDEX => wire::skip_varint(input),
            TWO_INDICES => wire::skip_varint(input).and_then(|()| wire::skip_varint(input)),
            _ => Err(DecodeError::InvalidByte {
                what: "the first byte of a pane",
                value: first,
            }),
        }
    }
}

impl Default for PaneInfo {
    fn default() -> Self {
        Self::NO_FIRING
    }
}
