//! The two programs. One program, as each is linked for itself.

mod binary;
mod boot;
mod support;
