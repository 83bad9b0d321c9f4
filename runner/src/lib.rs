//! Runs a Beam pipeline: translation, the loop around the engine, workers in-process and over the Fn API.

#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
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

pub mod environments;
pub mod fnapi;
pub mod job;
pub mod options;
pub mod query;
pub mod schemas;
mod state;
pub mod translate;
pub mod worker;
