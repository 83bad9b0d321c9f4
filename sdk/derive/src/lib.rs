//! Derive macros of the Purlin SDK.
