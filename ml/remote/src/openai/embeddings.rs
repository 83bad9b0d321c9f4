//! Embeddings.

use bytes::Bytes;
use purlin::BoxError;
use serde::{Deserialize, Serialize};

use super::check;
use crate::client::{Http, to_json};
use crate::failure::Failure;
use crate::protocol::Protocol;

/// Embeddings of texts by `POST embeddings`, as OpenAI has them, and vLLM, SGLang, Ollama and others after it. The server's URL
/// ends where
/// these paths begin, mostly in `/v1`. Many texts go into a request. When the model is loaded the server is asked for it by `GET
/// models`.
///
/// ```no_run
/// use purlin::prelude::*;
/// use purlin_inference::RunInference;
/// use purlin_remote::{OpenAiEmbeddings, Remote, Server};
///
/// let server = Server::at("http://localhost:8000/v1").bearer_from_env("VLLM_API_KEY");
/// let model = Remote::new(server, OpenAiEmbeddings::model("BAAI/bge-small-en-v1.5"));
/// let p = Pipeline::new();
/// let texts = p.apply(Create::new(["to be".to_owned(), "or not".to_owned()]));
/// texts.apply(RunInference::new(model)).map("Length", |result| result.inference.len());
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenAiEmbeddings {
    model: String,
    dimensions: Option<u32>,
    rows: usize,
}

impl OpenAiEmbeddings {
    /// A model by its name on the server.
    pub fn model(name: impl Into<String>) -> Self {
        OpenAiEmbeddings {
            model: name.into(),
            dimensions: None,
            rows: 64,
        }
    }

    /// Asks for embeddings of this length, of models that have several.
    #[must_use]
    pub fn dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// So many texts go into a request at most. 64 unless told.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows.max(1);
        self
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Response {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    index: usize,
    embedding: Vec<f32>,
}

/// The embeddings in the order of the texts.
fn in_order(response: Response, rows: usize) -> Result<Vec<Vec<f32>>, Failure> {
    let found = response.data.len();
    let mut ordered: Vec<Option<Vec<f32>>> = (0..rows).map(|_| None).collect();
    for one in response.data {
        match ordered.get_mut(one.index) {
            Some(place @ None) => *place = Some(one.embedding),
            Some(_) => {
                return Err(Failure::garbled(format!(
                    "it gave two embeddings of index {}",
                    one.index
                )));
            }
            None => {
                let text = format!("it gave an embedding of index {} for {rows} texts", one.index);
                return Err(Failure::garbled(text));
            }
        }
    }
    let all: Option<Vec<Vec<f32>>> = ordered.into_iter().collect();
    all.ok_or_else(|| Failure::garbled(format!("it gave {found} embeddings for {rows} texts")))
}

impl Protocol for OpenAiEmbeddings {
    type Example = String;
    type Inference = Vec<f32>;
    type Connected = ();
    type Request = Bytes;

    fn model(&self) -> String {
        self.model.clone()
    }

    fn key(&self) -> String {
        format!("embeddings {} {:?}", self.model, self.dimensions)
    }

    /// By its name on the server.
    fn with_model(&self, id: &str) -> Result<Self, BoxError> {
        let mut other = self.clone();
        id.clone_into(&mut other.model);
        Ok(other)
    }

    fn rows_per_request(&self) -> usize {
        self.rows
    }

    async fn connect(&self, http: &Http) -> Result<(), Failure> {
        check(http, &self.model).await
    }

    fn request(&self, (): &(), rows: &[&String]) -> Result<Bytes, BoxError> {
        to_json(&Request {
            model: &self.model,
            input: rows,
            encoding_format: "float",
            dimensions: self.dimensions,
        })
    }

    async fn send(
        &self,
        http: &Http,
        (): &(),
        request: &Bytes,
        rows: usize,
    ) -> Result<Vec<Vec<f32>>, Failure> {
        in_order(http.post_json(&["embeddings"], request.clone()).await?, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_put_into_the_order_of_the_texts() {
        let response = |indices: &[usize]| Response {
            data: indices
                .iter()
                .map(|index| Embedding {
                    index: *index,
                    embedding: vec![*index as f32],
                })
                .collect(),
        };
        assert_eq!(in_order(response(&[1, 0]), 2).unwrap(), [[0.0], [1.0]]);
        let told = |indices: &[usize]| in_order(response(indices), 2).unwrap_err().text;
        assert_eq!(told(&[0]), "it gave 1 embeddings for 2 texts");
        assert_eq!(told(&[0, 0]), "it gave two embeddings of index 0");
        assert_eq!(told(&[0, 2]), "it gave an embedding of index 2 for 2 texts");
    }
}
