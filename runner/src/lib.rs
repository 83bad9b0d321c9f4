//! Runs a Beam pipeline: translation, the loop around the engine, workers in-process and over the Fn API.

#![forbid(unsafe_code)]

pub mod worker;
