//! Processes that end whole: with all that they started, also when the program that started them is killed.
//!
//! ```text
//! program ──stdin──▶ supervisor ──▶ command ──▶ its children, wherever they hide
//!    ▲                  │  adopts orphans, watches memory
//!    └──stdout, stderr──┘  ends everything when its stdin closes: the program stopped it, or is gone
//! ```
//! The supervisor is the program itself, started again with a flag ([`supervise_if_asked`], first thing in `main`). A
//! pipe tells of the parent's end whatever killed it, where a parent-death signal follows one thread of the parent and
//! reaches no grandchildren. In a program that does not call it (a test, say) the command is a plain process group.
//!
//! Their temporary files end with them too: [`OwnFolder`].
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

mod command;
mod folder;
mod group;
mod options;
mod supervisor;
#[cfg(test)]
mod tests;
mod tree;

pub use command::{UnfinishedCommand, command_words};
pub use folder::OwnFolder;
pub use group::{ProcessEnd, ProcessGroup};
pub use options::options_json;
pub use supervisor::{Limits, allowed_cpus, supervise_if_asked};

/// The number of the signal that a file beyond the process's limit of sizes brings.
pub const SIGXFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();
