//! Executes stages: what an SDK harness does, embedded or behind the Fn API.

mod backed;
#[cfg(test)]
mod backed_tests;
mod build;
mod bundle;
mod cells;
mod combine;
mod edge;
mod element;
pub mod embedded;
mod executor;
mod failure;
mod finalize;
pub mod grpc;
mod io;
mod keyed;
mod keyed_state;
mod monitor;
mod node;
mod ops;
mod pace;
mod pages;
mod par_do;
mod side;
mod splittable;
#[cfg(test)]
mod splittable_tests;
mod state_cache;
mod threads;
mod user_code;
mod windows;

pub(crate) use backed::pages as backed_pages;
pub(crate) use bundle::BundleCell;
pub use cells::MapEntry;
pub(crate) use combine::CombineNode;
pub use edge::{AnyEdge, AnyReceiver, Edge, ElementCount, Receiver};
pub use element::{ElementType, any_receiver};
pub use executor::{BundleStart, Executor};
pub use failure::Failure;
pub(crate) use finalize::Finalizer;
pub(crate) use keyed::StatefulNode;
pub use keyed_state::KeyedState;
pub use monitor::BundleMonitor;
pub use node::{CLOSURE_COMBINE_FN, CLOSURE_DO_FN, ClosurePayload, Node, Registry, Signature, StepBuilder};
pub(crate) use pace::Pace;
pub(crate) use pages::PageIter;
#[doc(hidden)]
pub use pages::Pages;
pub(crate) use par_do::ParDoNode;
pub(crate) use side::SideReaders;
pub(crate) use splittable::SplittableNode;
pub use state_cache::WorkerShared;
pub(crate) use user_code::{MAIN, Prototype, SideSpec};
