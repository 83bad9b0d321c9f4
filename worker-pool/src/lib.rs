//! Beam's external worker pool: starts, watches and stops SDK harnesses.
//!
//! ```text
//! StartWorker ──▶ provision info ──▶ staged artifacts, checked, cached by sha256 ──▶ the harness, supervised
//!                                                                                      │ its output, its end
//! StopWorker, lost runner, end of the pool ──▶ the end of it and of all it started     ▼
//!                                                                        the runner's log
//! ```
//! The harness is the pipeline's own program, staged by the Rust SDK, or the command that the pool was given, which is run
//! with the flags of Beam's container contract and gets its artifacts itself. `purlin-boot` is such a command: [`launch`] makes
//! it Beam's Java or Python harness.
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

pub mod artifacts;
pub mod launch;
mod pool;
pub mod provision;
mod runner_log;
#[cfg(test)]
mod tests;
mod web;
mod worker;

pub use pool::{PoolError, PoolSettings, WorkerPool};
