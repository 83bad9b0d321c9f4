//! Beam's Job Service: jobs, artifacts, expansion.
//!
//! ```text
//! options ──▶ server ──┬─ job port        jobs::service      Prepare, Run, states, messages, metrics
//!                      ├─ artifact port   artifacts          staging from clients, retrieval by workers
//!                      ├─ expansion port  expansion
//!                      ├─ Fn API port     backends::Local    for workers of jobs that run here
//!                      └─ web port        web                /health, /jobs
//! ```
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
mod aside;
mod backends;
mod expansion;
mod jobs;
mod limits;
pub mod logging;
pub mod options;
mod pipeline_options;
mod server;
mod time;
mod web;

pub use server::{JobService, StartError};
