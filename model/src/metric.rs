//! Payloads of metrics: what SDKs write, runners add up and everybody reads.
//!
//! The doc of each type names Beam's type URN of the payload. A payload with anything behind its value is malformed.
//!
//! ```
//! use purlin_model::metric::Distribution;
//!
//! let lengths = [3, 9].into_iter().map(Distribution::of).reduce(Distribution::merge);
//! let payload = lengths.unwrap_or_default().encode();
//! assert_eq!(payload, [2, 12, 3, 9]);
//! assert_eq!(Distribution::decode(&payload).map(|d| d.max), Some(9));
//! ```

use alloc::vec::Vec;

use crate::wire;

/// Writes the payload of `beam:metrics:sum_int64:v1`.
pub fn encode_sum(sum: i64) -> Vec<u8> {
    encode_varints([sum])
}

/// Reads the payload of `beam:metrics:sum_int64:v1`; `None` where it is malformed.
pub fn decode_sum(payload: &[u8]) -> Option<i64> {
    decode_varints(payload).map(|[sum]| sum)
}

/// Count, sum, minimum and maximum: the payload of `beam:metrics:distribution_int64:v1`. The default is that of no values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many values.
    pub count: i64,
    /// Their sum.
    pub sum: i64,
    /// The smallest.
    pub min: i64,
    /// The largest.
    pub max: i64,
}

impl Distribution {
    /// The distribution of one value.
    pub fn of(value: i64) -> Self {
        Self {
            count: 1,
            sum: value,
            min: value,
            max: value,
        }
    }

    /// The mean of the values, 0 where there are none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum as f64 / self.count as f64
        }
    }

    /// Of all values of both. Sums wrap around.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self.count, other.count) {
            // Of no values there is no smallest and no largest, whatever stands there.
            (0, _) => other,
            (_, 0) => self,
            _ => Self {
                count: self.count.wrapping_add(other.count),
                sum: self.sum.wrapping_add(other.sum),
                min: self.min.min(other.min),
                max: self.max.max(other.max),
            },
        }
    }

    /// Writes the payload.
    pub fn encode(self) -> Vec<u8> {
        encode_varints([self.count, self.sum, self.min, self.max])
    }

    /// Reads the payload; `None` where it is malformed.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let [count, sum, min, max] = decode_varints(payload)?;
        Some(Self { count, sum, min, max })
    }
}

/// The latest value and when it was set: the payload of `beam:metrics:latest_int64:v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latest {
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// The value.
    pub value: i64,
}

impl Latest {
    /// The later of both; where they were set at one time, the other one.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if other.at_ms >= self.at_ms { other } else { self }
    }

    /// Writes the payload.
    pub fn encode(self) -> Vec<u8> {
        encode_varints([self.at_ms, self.value])
    }

    /// Reads the payload; `None` where it is malformed.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let [at_ms, value] = decode_varints(payload)?;
        Some(Self { at_ms, value })
    }
}

/// Writes the payload of `beam:metrics:progress:v1`: a list of numbers.
pub fn encode_progress(work: &[f64]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(4 + 8 * work.len());
    payload.extend_from_slice(&u32::try_from(work.len()).unwrap_or(u32::MAX).to_be_bytes());
    payload.extend(work.iter().flat_map(|work| work.to_be_bytes()));
    payload
}

/// Reads `N` varints, which must be all there is.
fn decode_varints<const N: usize>(mut payload: &[u8]) -> Option<[i64; N]> {
    let mut values = [0; N];
    for value in &mut values {
        *value = wire::read_varint(&mut payload).ok()? as i64;
    }
    payload.is_empty().then_some(values)
}

fn encode_varints<const N: usize>(values: [i64; N]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(N * 2);
    for value in values {
        wire::write_varint(value as u64, &mut payload);
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_beams() {
        assert_eq!(encode_sum(300), [0xac, 2]);
        assert_eq!(decode_sum(&encode_sum(-5)), Some(-5));
        let latest = Latest { at_ms: 20, value: 1 };
        assert_eq!(latest.encode(), [20, 1]);
        assert_eq!(Latest::decode(&[20, 1]), Some(latest));
        assert_eq!(Distribution::of(4).encode(), [1, 4, 4, 4]);
        assert_eq!(
            encode_progress(&[1.0]),
            [0, 0, 0, 1, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn malformed_payloads_are_none() {
        assert_eq!(decode_sum(&[]), None);
        assert_eq!(decode_sum(&[1, 2]), None);
        assert_eq!(Distribution::decode(&[1, 2, 3]), None);
        assert_eq!(Latest::decode(&[0xff]), None);
    }

    #[test]
    fn distributions_of_nothing_change_nothing() {
        let none = Distribution {
            min: i64::MAX,
            max: i64::MIN,
            ..Distribution::default()
        };
        let some = Distribution::of(-7);
        assert_eq!(none.merge(some), some);
        assert_eq!(some.merge(Distribution::default()), some);
        let both = some.merge(Distribution::of(2));
        assert_eq!(
            both.encode(),
            Distribution {
                count: 2,
                sum: -5,
                min: -7,
                max: 2
            }
            .encode()
        );
    }

    #[test]
    fn the_later_value_stays() {
        let (early, late) = (Latest { at_ms: 1, value: 8 }, Latest { at_ms: 2, value: 3 });
        assert_eq!(early.merge(late), late);
        assert_eq!(late.merge(early), late);
        assert_eq!(late.merge(Latest { value: 4, ..late }).value, 4);
    }
}
