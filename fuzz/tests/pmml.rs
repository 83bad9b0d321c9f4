//! The target `pmml` on inputs of a generator.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

#[test]
fn models_read_any_elements() {
    let limit = Duration::from_secs(20);
    let (some, _) = support::each(purlin_fuzz::pmml, 1, 3_000, 24, limit);
    assert!(some > 200, "only {some} inputs were models");
}
