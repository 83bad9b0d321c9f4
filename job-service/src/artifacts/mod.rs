//! Artifacts: taken from clients, kept by their sha256 while a job needs them, given to workers.

mod folder;
#[cfg(feature = "object-store")]
mod objects;
mod retrieval;
mod staging;
mod store;

pub(crate) use retrieval::Retrieval;
pub(crate) use staging::{Staging, StagingJobs};
pub use store::{ArtifactError, Store, StoreError};
