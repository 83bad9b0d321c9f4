//! Inputs that once found something.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

/// The target, and its input in hexadecimal digits.
const FOUND: &[(support::Target, &str)] = &[
    // A plan without stages.
    (purlin_fuzz::pipeline, "ba"),
];

#[test]
fn what_was_found_stays_mended() {
    for (target, hex) in FOUND {
        let digits: Vec<u8> = hex
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        let input: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        support::one(*target, &input, hex, Duration::from_secs(90));
    }
}
