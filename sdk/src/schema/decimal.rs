//! Decimal numbers.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// A decimal number: `unscaled / 10^scale`, where `unscaled` has up to 128 bits (38 digits).
///
/// ```
/// use purlin::schema::Decimal;
///
/// let price: Decimal = "12.50".parse()?;
/// assert_eq!((price.unscaled(), price.scale()), (1250, 2));
/// assert_eq!(price.to_string(), "12.50");
/// assert_eq!(price, Decimal::new(125, 1));
/// # Ok::<(), purlin::schema::DecimalError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Decimal {
    unscaled: i128,
    scale: i32,
}

/// Why a text is no decimal number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// It is written in another way.
    #[error("\"{0}\" is not a decimal number such as -12.50")]
    Syntax(String),
    /// It has too many digits.
    #[error("\"{0}\" has more digits than a decimal number of 128 bits")]
    TooLong(String),
}

impl Decimal {
    /// `unscaled / 10^scale`.
    pub const fn new(unscaled: i128, scale: i32) -> Decimal {
        Decimal { unscaled, scale }
    }

    /// The digits, as a whole number.
    pub const fn unscaled(self) -> i128 {
        self.unscaled
    }

    /// How many of the digits are behind the point; negative: how many zeros are to be added.
    pub const fn scale(self) -> i32 {
        self.scale
    }

    /// Without zeros at the end.
    fn normal(self) -> Decimal {
        let mut normal = self;
        if normal.unscaled == 0 {
            normal.scale = 0;
        }
        while normal.unscaled != 0 && normal.unscaled % 10 == 0 {
            normal.unscaled /= 10;
            normal.scale = normal.scale.saturating_sub(1);
        }
        normal
    }

    /// Two's complement, big endian, as short as its sign allows.
    pub(super) fn unscaled_bytes(self) -> impl AsRef<[u8]> {
        let bytes = self.unscaled.to_be_bytes();
        let sign = if self.unscaled < 0 { 0xff } else { 0 };
        let mut start = 0;
        while start < 15 && bytes[start] == sign && (bytes[start + 1] ^ sign) < 0x80 {
            start += 1;
        }
        bytes[start..].to_vec()
    }

    /// `None`: more than 128 bits.
    pub(super) fn from_unscaled_bytes(bytes: &[u8], scale: i32) -> Option<Decimal> {
        let sign = match bytes.first() {
            Some(byte) if *byte >= 0x80 => 0xff,
            _ => 0,
        };
        let skip = bytes.len().saturating_sub(16);
        let (extra, rest) = bytes.split_at(skip);
        let fits = extra.iter().all(|byte| *byte == sign)
            && (extra.is_empty() || rest.first().is_some_and(|byte| (byte ^ sign) < 0x80));
        let mut all = [sign; 16];
        all[16 - rest.len()..].copy_from_slice(rest);
        fits.then(|| Decimal::new(i128::from_be_bytes(all), scale))
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Decimal, DecimalError> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(DecimalError::Syntax(text.to_owned()));
        }
        let sign = if text.starts_with('-') { "-" } else { "" };
        let too_long = || DecimalError::TooLong(text.to_owned());
        let unscaled = format!("{sign}{whole}{fraction}")
            .parse()
            .map_err(|_| too_long())?;
        let scale = i32::try_from(fraction.len()).map_err(|_| too_long())?;
        Ok(Decimal { unscaled, scale })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.unscaled.unsigned_abs().to_string();
        let text = match usize::try_from(self.scale) {
            Ok(0) => digits,
            // Beyond what anybody wants to read.
            Ok(scale) if scale > 1000 => format!("{digits}E-{scale}"),
            Ok(scale) => {
                let digits = format!("{digits:0>width$}", width = scale + 1);
                let (whole, fraction) = digits.split_at(digits.len() - scale);
                format!("{whole}.{fraction}")
            }
            Err(_) => format!("{digits}E{}", self.scale.unsigned_abs()),
        };
        f.pad_integral(self.unscaled >= 0, "", &text)
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Decimal {
        Decimal::new(value.into(), 0)
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        let (a, b) = (self.normal(), other.normal());
        (a.unscaled, a.scale) == (b.unscaled, b.scale)
    }
}

impl Eq for Decimal {}

impl Hash for Decimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let normal = self.normal();
        (normal.unscaled, normal.scale).hash(state);
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let (a, b) = (self.normal(), other.normal());
        let by_sign = a.unscaled.signum().cmp(&b.unscaled.signum());
        if by_sign != Ordering::Equal || a.unscaled == 0 {
            return by_sign;
        }
        // Of equal sign: as many digits before the point, then digit by digit.
        let digits = |d: Decimal| d.unscaled.unsigned_abs().to_string();
        let (x, y) = (digits(a), digits(b));
        let before = |digits: &str, scale: i32| digits.len() as i64 - i64::from(scale);
        let by_size = before(&x, a.scale)
            .cmp(&before(&y, b.scale))
            .then_with(|| x.cmp(&y));
        if a.unscaled < 0 {
            by_size.reverse()
        } else {
            by_size
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_written_and_read() {
        for text in ["0", "-0.5", "12.50", "123456789012345678901234567890.12345678"] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), text);
        }
        assert_eq!(Decimal::new(5, -2).to_string(), "5E2");
        assert_eq!(Decimal::new(-5, 2).to_string(), "-0.05");
        for text in ["", ".", "1e3", "1,5", "--1", "- 1"] {
            assert!(
                matches!(text.parse::<Decimal>(), Err(DecimalError::Syntax(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "9".repeat(40).parse::<Decimal>(),
            Err(DecimalError::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn decimals_compare_as_numbers(a in -1000i64..1000, b in -1000i64..1000, s in 0i32..4, t in 0i32..4) {
            let (x, y) = (Decimal::new(a.into(), s), Decimal::new(b.into(), t));
            let (whole_x, whole_y) = (a * 10i64.pow((4 - s) as u32), b * 10i64.pow((4 - t) as u32));
            prop_assert_eq!(x.cmp(&y), whole_x.cmp(&whole_y));
            prop_assert_eq!(x == y, whole_x == whole_y);
        }

        #[test]
        fn bytes_round_trip(unscaled: i128) {
            let decimal = Decimal::new(unscaled, 3);
            let bytes = decimal.unscaled_bytes();
            let read = Decimal::from_unscaled_bytes(bytes.as_ref(), 3).unwrap();
            prop_assert_eq!(read.unscaled(), unscaled);
        }
    }

    #[test]
    fn bytes_are_short() {
        let bytes = |n: i128| Decimal::new(n, 0).unscaled_bytes().as_ref().to_vec();
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [0x7f]);
        assert_eq!(bytes(128), [0, 0x80]);
        assert_eq!(bytes(-128), [0x80]);
        assert_eq!(bytes(-129), [0xff, 0x7f]);
        assert_eq!(Decimal::from_unscaled_bytes(&[1; 17], 0), None);
        assert_eq!(Decimal::from_unscaled_bytes(&[], 0), Some(Decimal::new(0, 0)));
    }
}
