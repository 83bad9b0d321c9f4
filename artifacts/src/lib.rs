//! Artifacts: the files that a pipeline's workers need.
//!
//! The launcher offers them, the job service keeps them by their sha256, and the worker pool fetches them for workers. What these
//! must agree on is here: how a file is named and hashed, what an `ArtifactInformation` of the pipeline proto says, and which names a
//! worker may write.
//!
//! ```
//! use purlin_artifacts::{Described, Hasher, Source, file};
//! use purlin_proto::pipeline::ArtifactInformation;
//!
//! let mut hash = Hasher::new();
//! hash.update(b"content");
//! let artifact: ArtifactInformation = file("/tmp/lib.jar", &hash.finish(), "lib.jar");
//!
//! let described = Described::read(&artifact).unwrap();
//! assert_eq!(described.file_name().unwrap(), "lib.jar");
//! assert!(matches!(described.source, Source::File { path, .. } if path == "/tmp/lib.jar"));
//!
//! // A name that points out of a worker's folder is an error.
//! let artifact = file("/tmp/lib.jar", "", "../lib.jar");
//! assert!(Described::read(&artifact).is_err());
//! ```
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

mod describe;
mod hash;
mod name;

pub use describe::{DescribeError, Described, Package, Source, WORKER_BINARY_ROLE, file, worker_binary};
pub use hash::{Hasher, hash_of, is_hash};
pub use name::{UnsafeName, check_name};
