//! The pure engine: graph, fusion, watermarks, windowing, triggers, timers, state and bundles.
//!
//! [`Engine::handle`] takes what happened and tells what is to be done. Time is an argument; nothing in here reads a
//! clock, starts a thread or draws a random number, so a run can be replayed exactly.
//!
//! While a bundle runs, [`Engine::state_get`], [`Engine::state_append`], [`Engine::state_clear`] and [`Engine::side_input`] answer what its
//! worker asks. What they change is the bundle's own until its commit, and goes with it if it fails: they are no events, and a replay needs
//! them no more than it needs what user code has computed.
//!
//! The way of an element: a chunk is delivered to a collection's readers ([`Chunk`]); a stage's queue keeps it; the
//! scheduler makes bundles of what waits; a commit delivers a bundle's outputs, and so on. Watermarks follow.

#![cfg_attr(not(test), no_std)]
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

extern crate alloc;

mod bundle;
pub mod chunk;
mod commit;
mod config;
mod engine;
pub mod event;
pub mod fuse;
pub mod graph;
pub(crate) mod group;
mod hash;
mod index;
mod keyed;
mod route;
mod schedule;
mod side_content;
mod side_input;
mod stage;
mod stage_queue;
mod state;
mod test_stream;
mod watermark;

pub use chunk::{Chunk, ChunkError, CollectionFormat};
pub use config::EngineConfig;
pub use engine::Engine;
pub use event::*;
pub use fuse::{FusedGraph, GraphFault, GraphProblem, Plan, Stage};
pub use graph::*;
pub use state::{CommittedState, StateContent, StateError, StateTooLarge};
