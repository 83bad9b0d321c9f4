//! Inputs that once found something.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

/// The target, and its input in hexadecimal digits.
const FOUND: &[(support::Target, &str)] = &[
    // A plan without stages.
    (purlin_fuzz::pipeline, "ba"),
    // A pane that is not the first, with the index of the first: it was written without its index.
    (
        purlin_fuzz::coders,
        "a7307efe7e2ff2f3f3fe7e2f0000000000002400001f7474747474000000000000f2f3ed",
    ),
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
