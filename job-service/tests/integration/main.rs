//! The service in this process, and its binary. One program, as each is linked for itself.

#![forbid(unsafe_code)]

mod binary;
mod service;
