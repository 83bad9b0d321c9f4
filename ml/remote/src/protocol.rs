//! What servers have in common: rows go out in requests, and answers come back.

use std::future::Future;

use purlin::Element;
use purlin::prelude::BoxError;

use crate::client::Http;
use crate::failure::Failure;

/// How rows are put into requests to a server, and answers taken out of what comes back. [`Remote`](crate::Remote) does the rest: batches,
/// requests side by side, tries, limits, and what fails.
///
/// The protocols here are [`KServe`](crate::KServe), [`BentoMl`](crate::BentoMl), [`OpenAiEmbeddings`](crate::OpenAiEmbeddings),
/// [`OpenAiChat`](crate::OpenAiChat) and [`JsonEndpoint`](crate::JsonEndpoint), which fits most others.
pub trait Protocol: Clone + Send + Sync + 'static {
    /// What the model is given.
    type Example: Element;
    /// What the model gives for one example.
    type Inference: Element;
    /// What is known of the model once the server was asked.
    type Connected: Send + Sync + 'static;
    /// A request as it is sent, more than once if need be.
    type Request: Send + Sync + 'static;

    /// Whether the server speaks HTTP/2 from the first byte on, as servers of gRPC do.
    const HTTP2: bool = false;

    /// Whether the server puts requests together that come at a time, so that one row fails other requests, too. A row that has failed is
    /// then asked for once more while nothing else is asked of the server.
    const MERGES: bool = false;

    /// The model's name.
    fn model(&self) -> String;

    /// Holds all that tells models of one name on one server apart.
    fn key(&self) -> String;

    /// The protocol of another model of the same server, where
    /// [models change](purlin_inference::RunInference::with_model_updates) while the job runs: its [`key`](Protocol::key) must differ.
    ///
    /// # Errors
    /// When the id names no model, or the protocol's model cannot be another, which is the case unless told.
    fn with_model(&self, _id: &str) -> Result<Self, BoxError> {
        Err("its protocol takes no other model: write Protocol::with_model for it".into())
    }

    /// So many rows go into a request at most.
    fn rows_per_request(&self) -> usize;

    /// Asks the server whether the model is there, and whether it takes what it will be given.
    ///
    /// # Errors
    /// When it is not, or does not.
    fn connect(&self, http: &Http) -> impl Future<Output = Result<Self::Connected, Failure>> + Send;

    /// The model's version, if the server tells it.
    fn version(&self, _connected: &Self::Connected) -> Option<String> {
        None
    }

    /// Whether two rows may be in one request.
    fn go_together(&self, _: &Self::Connected, _one: &Self::Example, _other: &Self::Example) -> bool {
        true
    }

    /// The request of these rows.
    ///
    /// # Errors
    /// When a row cannot be sent.
    fn request(
        &self,
        connected: &Self::Connected,
        rows: &[&Self::Example],
    ) -> Result<Self::Request, BoxError>;

    /// Sends a request of so many rows, once: the answers, one for each row in their order.
    ///
    /// # Errors
    /// When there is no answer, or not the one that was expected.
    fn send(
        &self,
        http: &Http,
        connected: &Self::Connected,
        request: &Self::Request,
        rows: usize,
    ) -> impl Future<Output = Result<Vec<Self::Inference>, Failure>> + Send;
}
