//! Chat.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use purlin::{BoxError, Element};
use serde::{Deserialize, Serialize};

use super::check;
use crate::client::{Http, to_json};
use crate::failure::Failure;
use crate::protocol::Protocol;

/// A message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Element)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// What the user says.
    pub fn user(content: impl Into<String>) -> Message {
        Message {
            role: "user".to_owned(),
            content: content.into(),
        }
    }

    /// What the model is to keep in mind.
    pub fn system(content: impl Into<String>) -> Message {
        Message {
            role: "system".to_owned(),
            content: content.into(),
        }
    }
}

/// What a model is asked: a text, which is the user's, or messages.
pub trait ChatPrompt: Element {
    /// The messages.
    fn messages(&self) -> Vec<Message>;
}

impl ChatPrompt for String {
    fn messages(&self) -> Vec<Message> {
        vec![Message::user(self)]
    }
}

impl ChatPrompt for Vec<Message> {
    fn messages(&self) -> Vec<Message> {
        self.clone()
    }
}

/// What a model answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Element)]
pub struct ChatAnswer {
    /// The text.
    pub text: String,
    /// Why it ends: `stop`, or `length` where it was cut.
    pub finish_reason: Option<String>,
    /// The model that answered, as the server names it.
    pub model: String,
    /// Tokens of the question, if the server counts them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, if the server counts them.
    pub completion_tokens: Option<u64>,
}

/// Answers to questions by `POST chat/completions`, as OpenAI has it, and vLLM, SGLang, Ollama and others after it. The server's
/// URL ends
/// where these paths begin, mostly in `/v1`. Each example is a request of its own;
/// [`Server::concurrency`](crate::Server::concurrency) says
/// how many run at a time.
///
/// ```no_run
/// use purlin::prelude::*;
/// use purlin_inference::RunInference;
/// use purlin_remote::{OpenAiChat, Remote, Server};
///
/// let chat = OpenAiChat::<String>::model("Qwen/Qwen2.5-0.5B-Instruct")
///     .with_system("Answer with one word.")
///     .with_parameter("temperature", 0)
///     .with_parameter("max_tokens", 10);
/// let server = Server::at("http://localhost:8000/v1").concurrency(64);
/// let p = Pipeline::new();
/// let questions = p.apply(Create::new(["What is the capital of France?".to_owned()]));
/// let answers = questions.apply(RunInference::new(Remote::new(server, chat)).with_dead_letters());
/// # let _ = answers;
/// p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub struct OpenAiChat<E = String> {
    model: String,
    system: Option<String>,
    parameters: BTreeMap<String, serde_json::Value>,
    types: PhantomData<fn(E)>,
}

impl<E> Clone for OpenAiChat<E> {
    fn clone(&self) -> Self {
        OpenAiChat {
            model: self.model.clone(),
            system: self.system.clone(),
            parameters: self.parameters.clone(),
            types: PhantomData,
        }
    }
}

impl<E> fmt::Debug for OpenAiChat<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenAiChat({} {:?})", self.model, self.parameters)
    }
}

impl<E: ChatPrompt> OpenAiChat<E> {
    /// A model by its name on the server.
    pub fn model(name: impl Into<String>) -> Self {
        OpenAiChat {
            model: name.into(),
            system: None,
            parameters: BTreeMap::new(),
            types: PhantomData,
        }
    }

    /// Puts this before each example's messages, as the system's.
    #[must_use]
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Sends this with each request: `temperature`, `max_tokens`, `seed`, `response_format` and others that the server knows.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message>,
    #[serde(flatten)]
    parameters: &'a BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    model: String,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Answer,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize, Default)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

fn answer(response: Response) -> Result<ChatAnswer, Failure> {
    let Some(choice) = response.choices.into_iter().next() else {
        return Err(Failure::garbled("it gave no answer: its choices are empty"));
    };
    let usage = response.usage.unwrap_or_default();
    Ok(ChatAnswer {
        text: choice.message.content.unwrap_or_default(),
        finish_reason: choice.finish_reason,
        model: response.model,
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
    })
}

impl<E: ChatPrompt> Protocol for OpenAiChat<E> {
    type Example = E;
    type Inference = ChatAnswer;
    type Connected = ();
    type Request = Bytes;

    fn model(&self) -> String {
        self.model.clone()
    }

    fn key(&self) -> String {
        let types = std::any::type_name::<E>();
        format!(
            "chat {} {:?} {:?} {types}",
            self.model, self.system, self.parameters
        )
    }

    /// By its name on the server.
    fn with_model(&self, id: &str) -> Result<Self, BoxError> {
        let mut other = self.clone();
        id.clone_into(&mut other.model);
        Ok(other)
    }

    fn rows_per_request(&self) -> usize {
        1
    }

    async fn connect(&self, http: &Http) -> Result<(), Failure> {
        check(http, &self.model).await
    }

    fn request(&self, (): &(), rows: &[&E]) -> Result<Bytes, BoxError> {
        let system = self.system.iter().map(Message::system);
        let asked = rows.iter().flat_map(|row| row.messages());
        to_json(&Request {
            model: &self.model,
            messages: system.chain(asked).collect(),
            parameters: &self.parameters,
        })
    }

    async fn send(
        &self,
        http: &Http,
        (): &(),
        request: &Bytes,
        _: usize,
    ) -> Result<Vec<ChatAnswer>, Failure> {
        let response = http.post_json(&["chat", "completions"], request.clone()).await?;
        Ok(vec![answer(response)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_messages_with_parameters() {
        let chat = OpenAiChat::<String>::model("m")
            .with_system("Be short.")
            .with_parameter("seed", 7);
        let request = chat.request(&(), &[&"Why?".to_owned()]).unwrap();
        assert_eq!(
            request,
            r#"{"model":"m","messages":[{"role":"system","content":"Be short."},{"role":"user","content":"Why?"}],"seed":7}"#
        );
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str| answer(serde_json::from_str(text).unwrap());
        let found = read(
            r#"{"model": "m-1", "choices": [{"message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}"#,
        );
        let expected = ChatAnswer {
            text: "So.".to_owned(),
            finish_reason: Some("stop".to_owned()),
            model: "m-1".to_owned(),
            prompt_tokens: Some(9),
            completion_tokens: Some(2),
        };
        assert_eq!(found, Ok(expected));
        assert!(read(r#"{"choices": []}"#).unwrap_err().text.contains("no answer"));
        let silent = read(r#"{"choices": [{"message": {"content": null}}]}"#).unwrap();
        assert_eq!((silent.text.as_str(), silent.finish_reason), ("", None));
    }
}
