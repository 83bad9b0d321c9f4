//! Floats of 16 bits.

use serde::{Deserialize, Serialize};

/// A float of 16 bits (IEEE 754's binary16), which the protocol calls `FP16`: 11 bits of precision, up to 65,504.
///
/// ```
/// use purlin_remote::F16;
///
/// assert_eq!(F16::from_f32(0.1).to_f32(), 0.099975586);
/// assert_eq!(F16::from_f32(1e6).to_f32(), f32::INFINITY);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct F16(u16);

/// The bits of a fraction: of 32 bits there are 23, of 16 bits 10.
const CUT: u32 = 13;
/// What an exponent of 32 bits is larger by.
const BIAS: u32 = (127 - 15) << 23;
/// The smallest value that has all bits of precision, 2^-14, as a float of 32 bits.
const SMALLEST_NORMAL: u32 = 0x3880_0000;
const INFINITY: u32 = 0x7c00;

impl F16 {
    /// Of its bits.
    pub fn from_bits(bits: u16) -> F16 {
        F16(bits)
    }

    /// Its bits.
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// The nearest to a value, of two that are as near the even one. Values from 65,520 on become infinite; NaN stays NaN.
    pub fn from_f32(value: f32) -> F16 {
        let bits = value.to_bits();
        let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
        let rounded = if value.is_nan() {
            INFINITY | 0x200
        } else if magnitude < SMALLEST_NORMAL {
            // A whole number of the smallest steps, which are 2^-24; the largest one is the smallest normal number.
            (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even() as u32
        } else {
            let shifted = magnitude - BIAS;
            let half = (1 << (CUT - 1)) - 1 + (shifted >> CUT & 1);
            // A carry goes on into the exponent, as it should.
            ((shifted + half) >> CUT).min(INFINITY)
        };
        F16((sign | rounded) as u16)
    }

    /// The same value in 32 bits.
    pub fn to_f32(self) -> f32 {
        let bits = u32::from(self.0);
        let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
        let value = match magnitude {
            // 2^-24 times this.
            0..0x400 => (magnitude as f32 / 16_777_216.0).to_bits(),
            0x400..0x7c00 => (magnitude << CUT) + BIAS,
            _ => 0x7f80_0000 | (magnitude & 0x3ff) << CUT,
        };
        f32::from_bits(sign | value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_are_the_same_in_32_bits_and_between_them_the_nearest_is_taken() {
        for bits in 0..=u16::MAX {
            let value = F16::from_bits(bits).to_f32();
            let back = F16::from_f32(value);
            match value.is_nan() {
                true => assert!(back.to_f32().is_nan()),
                false => assert_eq!(back.to_bits(), bits),
            }
        }
        // Neighbours, up to the largest and what would come after it.
        for bits in 0..0x7c00_u16 {
            let low = F16::from_bits(bits).to_f32();
            let high = match bits {
                0x7bff => 65536.0,
                bits => F16::from_bits(bits + 1).to_f32(),
            };
            let middle = (low + high) / 2.0;
            let even = bits + bits % 2;
            for sign in [1.0, -1.0] {
                let found = |value: f32| F16::from_f32(sign * value).to_bits() & 0x7fff;
                assert_eq!(found(middle), even, "{middle}");
                assert_eq!(found(middle.next_down()), bits, "{middle}");
                assert_eq!(found(middle.next_up()), bits + 1, "{middle}");
            }
        }
    }

    #[test]
    fn known_values() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
        ] {
            assert_eq!(F16::from_bits(bits).to_f32(), value);
            assert_eq!(F16::from_f32(value).to_bits(), bits);
        }
        assert!(F16::from_f32(-0.0).to_f32().is_sign_negative());
        assert_eq!(F16::from_f32(f32::MAX).to_bits(), 0x7c00);
        assert_eq!(F16::from_f32(1e-10).to_bits(), 0);
    }
}
