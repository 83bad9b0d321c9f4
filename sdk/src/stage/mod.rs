//! The parts of a stage below user code: edges between steps, the ends where bytes become elements, the bundle at hand, the
//! states of keys, and what a [`Node`] needs to become a step.
//!
//! All of a stage's steps run on one thread. A step calls the next one through a typed [`Edge`]: one dynamic call per element
//! or batch, and no encoding in between.

pub(crate) mod at_element;
pub(crate) mod backed;
pub(crate) mod bundle;
pub(crate) mod cells;
pub(crate) mod edge;
pub(crate) mod element;
pub(crate) mod failure;
pub(crate) mod field;
pub(crate) mod finalize;
pub(crate) mod io;
pub(crate) mod keyed_state;
pub(crate) mod monitor;
pub(crate) mod node;
pub(crate) mod ops;
pub(crate) mod pace;
pub(crate) mod pages;
pub(crate) mod progress;
pub(crate) mod state_cache;

pub(crate) use backed::pages as backed_pages;
pub(crate) use bundle::BundleCell;
pub use cells::MapEntry;
pub use edge::{AnyEdge, AnyReceiver, Edge, ElementCount, Receiver};
pub use element::{ElementType, any_receiver};
pub use failure::Failure;
pub(crate) use field::FieldKind;
pub use field::{FieldSpec, TimeDomain};
pub(crate) use finalize::Finalizer;
pub use keyed_state::KeyedState;
pub use monitor::BundleMonitor;
pub use node::{Node, Registry, Signature, StepBuilder};
pub(crate) use pace::Pace;
pub(crate) use pages::PageIter;
#[doc(hidden)]
pub use pages::Pages;
pub use progress::Progress;
pub use state_cache::WorkerShared;
