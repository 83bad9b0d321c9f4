//! The API that OpenAI made usual: vLLM, SGLang, OpenAI and many others serve it.

mod chat;
mod embeddings;

pub use chat::{ChatAnswer, ChatPrompt, Message, OpenAiChat};
pub use embeddings::OpenAiEmbeddings;

use serde::Deserialize;

use crate::client::Http;
use crate::failure::{Failure, FailureKind};

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// Whether the server has a model of this name, where it lists its models.
async fn check(http: &Http, model: &str) -> Result<(), Failure> {
    let models = match http.get_json::<Models>(&["models"]).await {
        Ok(models) => models.data,
        // There is no list; requests will tell. That the token is wrong, or that nobody is there, is told at once.
        Err(failure)
            if failure.kind == FailureKind::Garbled || matches!(failure.status, Some(404 | 405 | 501)) =>
        {
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    if models.iter().any(|known| known.id == model) {
        return Ok(());
    }
    let names: Vec<&str> = models.iter().map(|known| known.id.as_str()).take(20).collect();
    Err(Failure::denied(format!(
        "the server has no model {model}: it has {}",
        names.join(", ")
    )))
}
