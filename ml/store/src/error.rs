//! What can go wrong with a store.

use std::io;

use thiserror::Error;

use crate::kind::BadModel;
use crate::name::NameError;

/// Why a store does not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address is none.
    #[error("{url:?} is no store of models: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such model.
    #[error("the store {store} has no model {name}: it has {known}")]
    NoModel {
        /// The store.
        store: String,
        /// What was asked for.
        name: String,
        /// Names that are there.
        known: String,
    },
    /// No such version.
    #[error("the store {store} has no version {version} of {name}: it has {known}")]
    NoVersion {
        /// The store.
        store: String,
        /// The model.
        name: String,
        /// What was asked for.
        version: String,
        /// Versions that are there.
        known: String,
    },
    /// It is there already.
    #[error(
        "the store {store} has {name}:{version} already: versions do not change; add another one, or remove it first"
    )]
    Exists {
        /// The store.
        store: String,
        /// The model.
        name: String,
        /// Its version.
        version: String,
    },
    /// The file is no model.
    #[error("cannot add {path}: {reason}")]
    Bad {
        /// The file.
        path: String,
        /// What is wrong.
        reason: BadModel,
    },
    /// The model's file is not what was added.
    #[error(
        "{model} in the store {store} has changed: {path} has {found}, but {expected} was added; remove it and add it again"
    )]
    Changed {
        /// The model.
        model: String,
        /// The store.
        store: String,
        /// Its file.
        path: String,
        /// What is there.
        found: String,
        /// What was added.
        expected: String,
    },
    /// The model has other inputs than are expected.
    #[error("{model} takes {found}: expected {expected}")]
    Inputs {
        /// The model.
        model: String,
        /// What it takes.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The record of a model cannot be read.
    #[error("the record {path} cannot be read: {reason}; remove the model and add it again")]
    Record {
        /// Where it is.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Files cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    Files {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// An object store cannot be asked.
    #[error("cannot {what} {url}: {reason}")]
    Objects {
        /// What was tried.
        what: &'static str,
        /// With what.
        url: String,
        /// The store's error.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn files(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.display().to_string();
        move |source| StoreError::Files { what, path, source }
    }
}
