//! Beam's external worker pool: starts, watches and stops SDK harnesses.
//!
//! A runner calls StartWorker with its addresses; the pool runs the harness command with the flags of Beam's container
//! contract, watches it, and ends it, with all that it started, on StopWorker or at the pool's own end.
#![forbid(unsafe_code)]

mod harness;
mod pool;

pub use pool::{PoolError, WorkerPool};
