//! Plans, and jobs on workers that the tests play. One program, as each is linked for itself.

mod hostile;
mod job;
mod lift;
mod splits;
mod state_backed;
mod support;
mod translate;
