//! Event time.

use alloc::vec::Vec;
use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};
use core::time::Duration;

use crate::error::DecodeError;
use crate::wire;

/// A point in event time: milliseconds since the Unix epoch.
///
/// Beam's range is [`Timestamp::MIN`] to [`Timestamp::MAX`] (what fits 64 bits in microseconds); arithmetic stays
/// inside of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Beam's smallest timestamp, the one of elements of an Impulse.
    pub const MIN: Timestamp = Timestamp(-9_223_372_036_854_775);
    /// Beam's largest timestamp: a watermark here says that nothing more will come.
    pub const MAX: Timestamp = Timestamp(9_223_372_036_854_775);
    /// The maximum timestamp of the global window: one day before [`Timestamp::MAX`].
    pub const END_OF_GLOBAL_WINDOW: Timestamp = Timestamp(Self::MAX.0 - 86_400_000);

    /// The timestamp of so many milliseconds since the epoch, moved into Beam's range.
    #[inline]
    pub const fn from_millis(millis: i64) -> Timestamp {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Timestamp(millis)
        }
    }

    /// Milliseconds since the epoch.
    #[inline]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Later (or, with a negative number, earlier) by so many milliseconds; stays in Beam's range.
    #[inline]
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Timestamp {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`, saturating.
    #[inline]
    pub const fn millis_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The eight bytes Beam writes: big endian with the sign bit flipped, so that bytes sort as time does.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 8] {
        (self.0 as u64 ^ (1 << 63)).to_be_bytes()
    }

    /// The inverse of [`Timestamp::to_bytes`].
    #[inline]
    pub const fn from_bytes(bytes: [u8; 8]) -> Timestamp {
        Timestamp((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
    }

    /// Appends the eight bytes.
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    /// Reads the eight bytes.
    ///
    /// # Errors
    /// When fewer than eight bytes are there.
    #[inline]
    pub fn decode(input: &mut &[u8]) -> Result<Timestamp, DecodeError> {
        Ok(Self::from_bytes(wire::take_array(input, "a timestamp")?))
    }
}

/// Whole milliseconds of a duration; what is more than fits is the most.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Later by a duration, of which whole milliseconds count; stays in Beam's range.
///
/// ```
/// use std::time::Duration;
/// use purlin_model::Timestamp;
///
/// let noon = Timestamp::from_millis(43_200_000);
/// assert_eq!(noon + Duration::from_secs(1), Timestamp::from_millis(43_201_000));
/// assert_eq!(noon - Duration::from_secs(43_200), Timestamp::from_millis(0));
/// assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
/// ```
impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    #[inline]
    fn add(self, later: Duration) -> Timestamp {
        self.plus_millis(millis(later))
    }
}

/// Earlier by a duration, of which whole milliseconds count; stays in Beam's range.
impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    #[inline]
    fn sub(self, earlier: Duration) -> Timestamp {
        self.plus_millis(-millis(earlier))
    }
}

impl AddAssign<Duration> for Timestamp {
    #[inline]
    fn add_assign(&mut self, later: Duration) {
        *self = *self + later;
    }
}

impl SubAssign<Duration> for Timestamp {
    #[inline]
    fn sub_assign(&mut self, earlier: Duration) {
        *self = *self - earlier;
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("-inf"),
            Self::MAX => f.write_str("+inf"),
            Self::END_OF_GLOBAL_WINDOW => f.write_str("end-of-global-window"),
            Timestamp(millis) => {
                let sign = if millis < 0 { "-" } else { "" };
                let magnitude = millis.unsigned_abs();
                write!(f, "{sign}{}.{:03}s", magnitude / 1000, magnitude % 1000)
            }
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}
