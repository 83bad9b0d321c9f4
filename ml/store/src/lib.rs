//! A store of models: files by name and version, with their hashes, in a folder or an object store.
//!
//! ```text
//! STORE/NAME/VERSION/model.onnx    the model's file (in object stores its name begins with its hash)
//! STORE/NAME/VERSION/model.json    name, version, file, bytes, sha256, kind, inputs
//! ```
//!
//! [`ModelStore::resolve`] gives the path of a model that is asked for as `NAME:VERSION` or `NAME:latest`, checked; every handler
//! that takes a
//! path takes it. The program `purlin-models` lists, adds, verifies and removes. The guide's page is `docs/guide/models.md`.

#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod error;
mod folder;
mod kind;
mod name;
#[cfg(feature = "object-store")]
mod objects;
mod place;
mod record;
mod store;

pub use error::StoreError;
pub use kind::{BadModel, Input, Inspected, Kind, inspect};
pub use name::{ModelName, NameError};
pub use record::Record;
pub use store::{ModelStore, StoredModel};

/// The code in the guide is tested with that of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/models.md")]
mod guide {}
