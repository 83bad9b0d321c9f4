//! Runs a Beam pipeline: translation, the loop around the engine, workers in-process and over the Fn API.

#![forbid(unsafe_code)]

pub mod environments;
pub mod fnapi;
pub mod job;
pub mod options;
pub mod schemas;
mod state;
pub mod translate;
pub mod worker;
