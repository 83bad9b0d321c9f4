//! The target `pipelines` on inputs of a generator.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

#[test]
fn pipelines_are_planned_or_refused() {
    let (some, _) = support::each(purlin_fuzz::pipeline, 3, 3_000, 80, Duration::from_secs(60));
    assert!(
        (100..2_900).contains(&some),
        "{some} of 3,000 pipelines were planned"
    );
}
