//! Executes stages: what an SDK harness does, embedded or behind the Fn API.

#[cfg(test)]
mod backed_tests;
mod build;
mod combine;
pub mod embedded;
mod executor;
pub mod grpc;
mod keyed;
mod par_do;
mod splittable;
#[cfg(test)]
mod splittable_tests;
mod threads;
mod user_code;
mod windows;

pub(crate) use combine::CombineNode;
pub use executor::{BundleStart, Executor};
pub(crate) use keyed::StatefulNode;
pub(crate) use par_do::ParDoNode;
pub(crate) use splittable::SplittableNode;
pub(crate) use user_code::{MAIN, Prototype, SideSpec};

pub use crate::closure::{CLOSURE_COMBINE_FN, CLOSURE_DO_FN, ClosurePayload};
pub use crate::stage::{
    AnyEdge, AnyReceiver, BundleMonitor, Edge, ElementCount, ElementType, Failure, KeyedState, MapEntry,
    Node, Pages, Receiver, Registry, Signature, StepBuilder, WorkerShared, any_receiver,
};
