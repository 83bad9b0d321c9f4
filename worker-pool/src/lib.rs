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

/// The largest gRPC message taken: a little under 2 GiB, which other gRPC libraries cannot pass.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

/// `http://` in front of an address that has none.
fn uri(address: &str) -> String {
    format!("http://{}", address.trim().trim_start_matches("http://"))
}

/// What is at the bottom of an error: layers above it say little.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
