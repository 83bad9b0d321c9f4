//! Servers that speak JSON of their own.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use purlin::{BoxError, Element};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{Http, to_json};
use crate::failure::Failure;
use crate::protocol::Protocol;

type ToJson<E> = dyn Fn(&[&E]) -> Result<Bytes, BoxError> + Send + Sync;
type FromJson<I> = dyn Fn(&Http, &[u8]) -> Result<Vec<I>, Failure> + Send + Sync;

/// A path of a server that takes JSON and gives JSON, one example a request or many.
///
/// ```no_run
/// use purlin::prelude::*;
/// use purlin_inference::RunInference;
/// use purlin_remote::{JsonEndpoint, Remote, Server};
/// use serde_json::{Value, json};
///
/// // Examples and inferences are what serde writes and reads.
/// let one = JsonEndpoint::<String, Vec<f32>>::rows("embedder", "embed");
/// // Or closures say so: here of many rows in a request.
/// let many = JsonEndpoint::<String, f64>::batches(
///     "sentiment",
///     "v1/score",
///     100,
///     |texts| Ok(json!({ "texts": texts })),
///     |mut answer| Ok(serde_json::from_value(answer["scores"].take())?),
/// );
/// let server = Server::at("https://models.example.org").bearer_from_env("MODELS_TOKEN");
/// let p = Pipeline::new();
/// p.apply(Create::new(["a fine day".to_owned()])).apply(RunInference::new(Remote::new(server, many)));
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub struct JsonEndpoint<E, I> {
    name: String,
    path: String,
    rows: usize,
    to_json: Arc<ToJson<E>>,
    from_json: Arc<FromJson<I>>,
}

impl<E, I> Clone for JsonEndpoint<E, I> {
    fn clone(&self) -> Self {
        JsonEndpoint {
            name: self.name.clone(),
            path: self.path.clone(),
            rows: self.rows,
            to_json: self.to_json.clone(),
            from_json: self.from_json.clone(),
        }
    }
}

impl<E, I> fmt::Debug for JsonEndpoint<E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonEndpoint({} at {})", self.name, self.path)
    }
}

impl<E: Element, I: Element> JsonEndpoint<E, I> {
    /// One example a request, as serde writes it; the answer is the inference. The name is the model's, for results and errors;
    /// the path
    /// is that below the server's URL.
    pub fn rows(name: impl Into<String>, path: impl Into<String>) -> Self
    where
        E: Serialize,
        I: DeserializeOwned,
    {
        JsonEndpoint {
            name: name.into(),
            path: path.into(),
            rows: 1,
            to_json: Arc::new(|rows: &[&E]| to_json(&rows.first())),
            from_json: Arc::new(|http: &Http, answer: &[u8]| Ok(vec![http.parse(answer)?])),
        }
    }

    /// Up to so many examples a request. One closure gives the request's JSON, the other takes the inferences, one for each
    /// example, of
    /// the answer's. What differs in these closures has to differ in name or path, too, as they tell models apart.
    pub fn batches(
        name: impl Into<String>,
        path: impl Into<String>,
        rows: usize,
        to_json: impl Fn(&[&E]) -> Result<Value, BoxError> + Send + Sync + 'static,
        from_json: impl Fn(Value) -> Result<Vec<I>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        JsonEndpoint {
            name: name.into(),
            path: path.into(),
            rows: rows.max(1),
            to_json: Arc::new(move |rows: &[&E]| Ok(serde_json::to_vec(&to_json(rows)?)?.into())),
            from_json: Arc::new(move |http: &Http, answer: &[u8]| {
                from_json(http.parse(answer)?).map_err(|error| {
                    let told = http.told(answer);
                    Failure::garbled(format!(
                        "the answer is not the one that was expected ({error}): {told}"
                    ))
                })
            }),
        }
    }
}

impl<E: Element, I: Element> Protocol for JsonEndpoint<E, I> {
    type Example = E;
    type Inference = I;
    type Connected = ();
    type Request = Bytes;

    fn model(&self) -> String {
        self.name.clone()
    }

    fn key(&self) -> String {
        let types = std::any::type_name::<fn(E) -> I>();
        format!("JSON {} {} {} {types}", self.name, self.path, self.rows)
    }

    fn rows_per_request(&self) -> usize {
        self.rows
    }

    /// Nothing is known that could be asked.
    async fn connect(&self, _: &Http) -> Result<(), Failure> {
        Ok(())
    }

    fn request(&self, (): &(), rows: &[&E]) -> Result<Bytes, BoxError> {
        (self.to_json)(rows)
    }

    async fn send(&self, http: &Http, (): &(), request: &Bytes, _: usize) -> Result<Vec<I>, Failure> {
        let path: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let answer = http.post(&path, request.clone()).await?;
        (self.from_json)(http, &answer)
    }
}
