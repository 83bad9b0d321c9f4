//! The target `fn_api` on inputs of a generator.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

#[test]
fn workers_may_say_what_they_like() {
    let (some, all) = support::each(purlin_fuzz::fn_api, 4, 2_000, 120, Duration::from_secs(90));
    assert!(
        some > 1_500 && all > some,
        "{some} workers were asked something, {all} times"
    );
}
