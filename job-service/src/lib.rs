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
