//! The Rust SDK for Apache Beam pipelines.
