//! Models behind servers, for [`RunInference`](purlin_inference::RunInference).
//!
//! [`Remote`] asks a [`Server`] by a [`Protocol`]: [`KServe`]'s (of Triton, MLServer, KServe; over HTTP or gRPC), [`BentoMl`]'s,
//! [`OpenAiEmbeddings`] and [`OpenAiChat`] (of vLLM, SGLang, OpenAI and many others), or [`JsonEndpoint`] for what else speaks JSON. The
//! guide's page, `docs/guide/remote.md`, shows each.
//!
//! ```no_run
//! use purlin::prelude::*;
//! use purlin_inference::RunInference;
//! use purlin_remote::{KServe, Remote, Server};
//!
//! let server = Server::at("https://models.example.org").bearer_from_env("MODELS_TOKEN");
//! let model = Remote::new(server, KServe::<Vec<f32>, Vec<f32>>::model("iris"));
//! let p = Pipeline::new();
//! let rows = p.apply(Create::new([vec![5.1f32, 3.5, 1.4, 0.2]]));
//! rows.apply(RunInference::new(model)).map("Show", |result| println!("{:?}", result.inference));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```
//!
//! A batch of `RunInference` becomes requests that run side by side:
//!
//! ```text
//! batch ──▶ rows of one request ──▶ wait for its turn ──▶ circuit closed? held back? ──▶ try ──▶ answers, in order
//!               (Protocol)         (Server::concurrency)  (CircuitBreaker, Throttling)    │
//!                   ▲                        ▲ └────────────── pause, once more ◀─────────┤ transient (Retries)
//!                   └── halves, where failures have outputs ◀───── the rows' fault ───────┤
//!                                            the bundle fails ◀──── the server is away ───┘
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

mod bento;
mod breaker;
mod caller;
mod client;
mod endpoint;
mod failure;
mod half;
mod kserve;
mod openai;
mod protocol;
mod remote;
mod retries;
mod runtime;
mod server;
mod tensor;
mod throttle;

/// KServe's protocol v2 over gRPC: messages, client and service, generated from `proto/kserve_v2.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, clippy::pedantic, clippy::nursery)]
pub mod proto {
    tonic::include_proto!("inference");
}

pub use bento::BentoMl;
pub use breaker::{CircuitBreaker, WhenOpen};
pub use client::Http;
pub use endpoint::JsonEndpoint;
pub use failure::{Failure, FailureKind, RemoteError};
pub use half::F16;
pub use kserve::{KServe, KServeGrpc, ServedModel};
pub use openai::{ChatAnswer, ChatPrompt, Message, OpenAiChat, OpenAiEmbeddings};
pub use protocol::Protocol;
pub use remote::{Connected, Remote};
pub use retries::Retries;
pub use server::{Server, ServerError};
pub use tensor::{Datatype, Tensor, TensorRow, Values};
pub use throttle::Throttling;

/// The code in the guide is tested with that of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/remote.md")]
mod guide {}
