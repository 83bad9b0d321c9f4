//! Timers on the wire: `beam:coder:timer:v1`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::coder::Coder;
use crate::error::DecodeError;
use crate::pane::PaneInfo;
use crate::time::Timestamp;
use crate::window::{WindowCoder, Windows, encode_windows};
use crate::wire;

/// A timer that is set, cleared or fired.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timer {
    /// The key, encoded by its coder in the nested context.
    pub user_key: Bytes,
    /// The tag that tells timers of one family apart; empty for timers that are not dynamic.
    pub dynamic_tag: String,
    /// The windows; in practice one.
    pub windows: Windows,
    /// When it fires. `None` clears the timer.
    pub firing: Option<TimerFiring>,
}

/// The part of a timer that a cleared one lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerFiring {
    /// When it fires, in the time domain of its family.
    pub fire_timestamp: Timestamp,
    /// The output watermark is held here until it fires, and what it emits has this timestamp by default.
    pub hold_timestamp: Timestamp,
    /// The pane of the element that set it.
    pub pane: PaneInfo,
}

impl Timer {
    /// Whether this clears the timer.
    pub fn is_clear(&self) -> bool {
        self.firing.is_none()
    }

    /// Appends the timer (the same in both contexts).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.user_key);
        wire::write_bytes(self.dynamic_tag.as_bytes(), out, true);
        encode_windows(&self.windows, out);
        out.push(u8::from(self.is_clear()));
        if let Some(firing) = &self.firing {
            firing.fire_timestamp.encode(out);
            firing.hold_timestamp.encode(out);
            firing.pane.encode(out);
        }
    }

    /// Reads what follows the key, which the caller has read.
    ///
    /// # Errors
    /// When the bytes are not the rest of a timer.
    pub fn decode_after_key(
        user_key: Bytes,
        window: &WindowCoder,
        input: &mut &[u8],
    ) -> Result<Timer, DecodeError> {
        let dynamic_tag = wire::read_str(input, true)?.to_owned();
        let windows = window.decode_windows(input)?;
        let firing = if wire::read_bool(input, "the clear bit of a timer")? {
            None
        } else {
            Some(TimerFiring {
                fire_timestamp: Timestamp::decode(input)?,
                hold_timestamp: Timestamp::decode(input)?,
                pane: PaneInfo::decode(input)?,
            })
        };
        Ok(Timer {
            user_key,
            dynamic_tag,
            windows,
            firing,
        })
    }
}

/// How the timers of a transform are encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimerCoder {
    /// The key's coder.
    pub key: Coder,
    /// The windows' coder.
    pub window: WindowCoder,
}

impl TimerCoder {
    /// Reads a timer.
    ///
    /// # Errors
    /// When the bytes are not a timer, or the end of the key cannot be found.
    pub fn decode(&self, input: &mut &[u8]) -> Result<Timer, DecodeError> {
        let user_key = Bytes::copy_from_slice(self.key.take(input, true)?);
        Timer::decode_after_key(user_key, &self.window, input)
    }

    /// Moves past a timer.
    ///
    /// # Errors
    /// As [`TimerCoder::decode`].
    pub fn skip(&self, input: &mut &[u8]) -> Result<(), DecodeError> {
        self.key.skip(input, true)?;
        wire::read_bytes(input, true)?;
        self.window.skip_windows(input)?;
        if wire::read_bool(input, "the clear bit of a timer")? {
            return Ok(());
        }
        wire::take(input, 16, "the timestamps of a timer")?;
        PaneInfo::skip(input)
    }

    /// The timers of a buffer, one after the other, as they come on the timer streams of the data plane.
    pub fn decode_all<'a>(
        &'a self,
        mut data: &'a [u8],
    ) -> impl Iterator<Item = Result<Timer, DecodeError>> + 'a {
        core::iter::from_fn(move || {
            if data.is_empty() {
                return None;
            }
            let next = self.decode(&mut data);
            if next.is_err() {
                data = &[];
            }
            Some(next)
        })
    }
}
