//! Sizes in options.

use thiserror::Error;

/// A text that is no size, or one of no bytes or of more than 64 bits can count.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no size; write one like 512M or 4G")]
pub struct SizeError(String);

/// A number of bytes, with K, M, G or T for powers of 1024.
///
/// # Errors
/// When the text is something else.
pub fn bytes_of(text: &str) -> Result<u64, SizeError> {
    let wrong = || SizeError(text.to_owned());
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper.trim_end_matches("IB").trim_end_matches('B');
    let digits = upper.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match upper.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|n| *n > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_read() {
        assert_eq!(super::bytes_of("512M"), Ok(512 << 20));
        assert_eq!(super::bytes_of("4GiB"), Ok(4 << 30));
        assert_eq!(super::bytes_of("1000"), Ok(1000));
        for wrong in ["", "M", "x", "-1", "0", "99999999T"] {
            assert!(super::bytes_of(wrong).is_err(), "{wrong}");
        }
    }
}
