//! Executes stages: what an SDK harness does, embedded or behind the Fn API.

mod build;
mod combine;
mod edge;
mod element;
pub mod embedded;
mod executor;
mod failure;
pub mod grpc;
mod io;
mod monitor;
mod node;
mod ops;
mod par_do;
mod side;

pub(crate) use combine::CombineNode;
pub use edge::{AnyEdge, AnyReceiver, Edge, ElementCount, Receiver};
pub use element::{ElementType, any_receiver};
pub use executor::{BundleStart, Executor};
pub use failure::Failure;
pub use monitor::BundleMonitor;
pub use node::{CLOSURE_COMBINE_FN, CLOSURE_DO_FN, ClosurePayload, Node, Registry, Signature, StepBuilder};
pub(crate) use par_do::{MAIN, ParDoNode, SideSpec};
pub(crate) use side::SideReaders;
pub use side::WorkerShared;
