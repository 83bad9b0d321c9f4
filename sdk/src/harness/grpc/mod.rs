//! The harness behind the Fn API: executes bundles for any Beam runner.
//!
//! ```text
//! runner ── control ──▶ control loop ──▶ a thread per bundle ── Executor
//!        ◀─ answers ──                        │  ▲
//!        ── data ─────▶ Router: by instruction ──┘  bounded queue per bundle
//!        ◀─ data ────── bounded, messages of whole elements
//!        ── state ────▶ StateClient: answers by id
//! ```

mod bundle;
mod connect;
mod control;
mod data;
mod fingerprint;
pub(crate) mod logging;
pub(crate) mod options;
mod pool;
mod provision;
mod replay;
mod short_ids;
mod stage;
mod state;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use logging::LogLayer;
pub use replay::in_worker;

pub(crate) use connect::CONNECT;
pub(crate) use fingerprint::{BuildId, build_id, fingerprint};
pub(crate) use pool::LoopbackPool;
pub(crate) use replay::{BUILD, GRAPH, enter_worker, serve};

use crate::stage::Registry;

/// Protocols of the Fn API that this harness has beyond what every environment of the SDK lists.
pub(crate) const CAPABILITIES: &[&str] = &[
    purlin_proto::urns::protocols::CONTROL_REQUEST_ELEMENTS_EMBEDDING,
    purlin_proto::urns::protocols::SDK_CONSUMING_RECEIVED_DATA,
    purlin_proto::urns::protocols::WORKER_STATUS,
];

/// Where a harness connects to, and for what.
#[derive(Clone)]
pub(crate) struct HarnessSettings {
    /// The id that every stream bears.
    pub worker_id: String,
    /// Address of the control service.
    pub control: String,
    /// Address of the logging service; none: what user code logs is not sent.
    pub logging: Option<String>,
    /// Address of the worker status service.
    pub status: Option<String>,
    /// What the runner can do, as URNs.
    pub runner_capabilities: Vec<String>,
    /// The pipeline's code.
    pub registry: Arc<Registry>,
}

/// Why a harness ended other than by the runner's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HarnessError {
    /// The id cannot be sent.
    #[error("worker id {0:?} cannot be sent as metadata: it has characters other than visible ASCII")]
    WorkerId(String),
    /// A service cannot be reached.
    #[error("cannot connect to the runner's {service} service at {address}: {reason}")]
    Connect {
        /// Which.
        service: &'static str,
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The control stream broke.
    #[error("the control stream of worker {worker} to {address} broke: {reason}")]
    Control {
        /// Which worker.
        worker: String,
        /// Of the runner.
        address: String,
        /// Why.
        reason: String,
    },
}
