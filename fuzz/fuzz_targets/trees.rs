//! A changed model file of LightGBM or XGBoost.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    purlin_fuzz::trees(data);
});
