//! A worker that says what it likes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    purlin_fuzz::fn_api(data);
});
