//! The target `coders` on inputs of a generator.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

#[test]
fn coders_read_any_bytes() {
    let limit = Duration::from_secs(20);
    let (some, _) = support::each(purlin_fuzz::coders, 1, 20_000, 60, limit);
    assert!(some > 2_000, "only {some} inputs held a value");
    support::each(purlin_fuzz::coders, 2, 2_000, 1_000, limit);
}
