//! The target `trees` on inputs of a generator.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

#[test]
fn models_read_any_lines() {
    let limit = Duration::from_secs(20);
    // The first byte says whose model it is.
    let lightgbm = |data: &[u8]| purlin_fuzz::trees(&[&[0], data].concat());
    let xgboost = |data: &[u8]| purlin_fuzz::trees(&[&[1], data].concat());
    for (target, seed) in [(lightgbm as support::Target, 1), (xgboost, 2)] {
        let (some, _) = support::each(target, seed, 3_000, 24, limit);
        assert!(some > 200, "only {some} inputs of seed {seed} were models");
    }
}
