//! JSON and UBJSON (draft 12), read value by value: large lists of numbers become lists of numbers, what is not asked for is passed
//! over, and a number is the nearest to what is written, also one of 32 bits.
//!
//! XGBoost writes its models in both. A [`Reader`] reads either by the same calls:
//!
//! ```
//! use purlin_json::{Fault, Reader};
//!
//! let mut weights: Vec<f32> = Vec::new();
//! let mut reader = Reader::new(br#"{"name": "linear", "weights": [0.5, 1E-1]}"#);
//! reader.object(&mut |key, reader| match key {
//!     "weights" => {
//!         weights = reader.numbers()?;
//!         Ok(())
//!     }
//!     _ => reader.skip(),
//! })?;
//! reader.end()?;
//! assert_eq!(weights, [0.5, 0.1]);
//! # Ok::<(), Fault>(())
//! ```

#![forbid(unsafe_code)]
// What a file says is answered with an error, never with a panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod fault;
mod json;
mod number;
mod reader;
mod ubjson;

pub use fault::{Fault, Format};
pub use number::Number;
pub use reader::Reader;
