//! Inference transforms and model handlers for Purlin pipelines.
