//! Fusion: which transforms run together in a stage.
//!
//! A stage is a set of user transforms of one environment that read one collection, directly or through each other,
//! so that elements between them never leave the worker. Everything else is a native node of the engine.

mod fused;
mod greedy;
mod plan;
mod validate;

pub use fused::FusedGraph;
use greedy::fuse;
pub use plan::{Native, Plan, PlanNode, Stage};
pub use validate::{GraphFault, GraphProblem};
