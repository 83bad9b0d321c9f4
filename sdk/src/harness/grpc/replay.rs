//! Workers that are processes of their own.

use std::ffi::OsString;

/// Whether this process is a worker, which a runner started.
pub fn in_worker() -> bool {
    false
}

/// The command line that the pipeline was launched with, if this process is a worker.
pub(crate) fn enter_worker(_arguments: &[OsString]) -> Option<Vec<OsString>> {
    None
}
