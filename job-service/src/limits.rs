//! How large the messages of clients may be, by method.

use std::sync::Arc;

use purlin_net::{Limit, Rule};

/// Requests that name a job, and little else.
const SMALL: usize = 64 << 10;

/// Pipelines, and files piece by piece.
pub(crate) fn large(max_message_size: usize) -> Limit {
    Limit {
        hint: "; the service's option --max_message_size allows more",
        ..Limit::of(max_message_size)
    }
}

/// The table of all methods.
pub(crate) fn rule(max_message_size: usize) -> Rule {
    let large = large(max_message_size);
    Arc::new(move |path, _| match path.rsplit('/').next().unwrap_or_default() {
        "Prepare" | "Expand" => Limit { heavy: true, ..large },
        "ReverseArtifactRetrievalService" | "ResolveArtifacts" | "GetArtifact" => large,
        _ => Limit::of(SMALL),
    })
}
