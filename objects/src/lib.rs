//! Object stores by URL: S3, Google Cloud Storage and Azure.
//!
//! Settings come from the environment, under the names that the clouds' own tools use: `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
//! `AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and others.
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

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, OnceLock};

pub use object_store;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use thiserror::Error;

/// Schemes, the prefix of the variables of their settings, and what is mostly missing.
const CLOUDS: [(&[&str], &str, &str); 3] = [
    (
        &["s3", "s3a"],
        "AWS_",
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT and AWS_ALLOW_HTTP for other services than \
         Amazon's)",
    ),
    (
        &["gs"],
        "GOOGLE_",
        "GOOGLE_SERVICE_ACCOUNT, the path of a service account's file",
    ),
    (
        &["az", "azure", "abfs", "abfss", "adl"],
        "AZURE_",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ),
];
/// For tests: objects of this process.
const MEMORY: &str = "memory";

/// Why a URL names no place in an object store.
#[derive(Debug, Error)]
pub enum LocationError {
    /// It begins with no known scheme.
    #[error("{0}:// is not known; there are s3://, gs://, az:// and abfs://, and paths of local files")]
    Scheme(String),
    /// No bucket follows the scheme.
    #[error("name a bucket: {0}://BUCKET/NAME")]
    Bucket(String),
    /// It is no URL.
    #[error("{url} is no URL: {error}")]
    Url {
        /// The scheme and the bucket.
        url: String,
        /// What is wrong.
        error: String,
    },
    /// The settings for the store do not suffice.
    #[error("{source}; check the environment's {needed}")]
    Settings {
        /// The store's own error.
        source: object_store::Error,
        /// Names of the variables that it reads.
        needed: &'static str,
    },
}

/// A place in an object store.
#[derive(Clone)]
pub struct Location {
    /// The store of its bucket.
    pub store: Arc<dyn ObjectStore>,
    /// `s3://bucket`.
    pub root: String,
    /// What is behind it, without a slash before it.
    pub key: String,
}

impl Location {
    /// Reads a URL such as `s3://bucket/folder/name`. Nothing is asked of the store yet; one bucket's places share one client.
    ///
    /// # Errors
    /// When the URL is not one of a known store, or the environment's settings for its store are missing or wrong.
    pub fn parse(url: &str) -> Result<Self, LocationError> {
        static STORES: OnceLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = OnceLock::new();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if settings(scheme).is_none() && scheme != MEMORY {
            return Err(LocationError::Scheme(scheme.to_owned()));
        }
        if bucket.is_empty() && scheme != MEMORY {
            return Err(LocationError::Bucket(scheme.to_owned()));
        }
        let root = format!("{scheme}://{bucket}");
        let stores = STORES.get_or_init(Mutex::default);
        let mut stores = stores.lock();
        let store = match stores.get(&root) {
            Some(store) => store.clone(),
            None => {
                let store = connect(scheme, &root)?;
                stores.insert(root.clone(), store.clone());
                store
            }
        };
        Ok(Self {
            store,
            root,
            key: key.to_owned(),
        })
    }
}

fn settings(scheme: &str) -> Option<(&'static str, &'static str)> {
    CLOUDS
        .iter()
        .find(|(schemes, ..)| schemes.contains(&scheme))
        .map(|(_, prefix, needed)| (*prefix, *needed))
}

fn connect(scheme: &str, root: &str) -> Result<Arc<dyn ObjectStore>, LocationError> {
    let Some((prefix, needed)) = settings(scheme) else {
        return Ok(Arc::new(InMemory::new()));
    };
    // Where the program has chosen another provider, that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = reqwest::Url::parse(root).map_err(|error| LocationError::Url {
        url: root.to_owned(),
        error: error.to_string(),
    })?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(prefix));
    let (store, _) = object_store::parse_url_opts(&url, variables)
        .map_err(|source| LocationError::Settings { source, needed })?;
    Ok(store.into())
}

/// An error of a store with all that led to it, and the settings that it may come from.
pub fn explain(url: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = next.source();
    }
    let missing = error
        .downcast_ref::<object_store::Error>()
        .is_some_and(|error| matches!(error, object_store::Error::NotFound { .. }));
    match settings(url.split("://").next().unwrap_or_default()) {
        Some((_, needed)) if !missing => format!("{text}; check the environment's {needed}"),
        _ => text,
    }
}
