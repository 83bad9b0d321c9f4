//! One try of a request over HTTP.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, FailureKind};
use crate::retries::retry_after;

/// So much of an answer is told in an error.
const TOLD: usize = 500;

/// A server that is asked over HTTP. Each call is one try; [`Remote`](crate::Remote) makes others where that may help.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    base: Url,
    /// Never shown, even where a server repeats them.
    secrets: Vec<String>,
    most_bytes: usize,
}

impl Http {
    pub(crate) fn new(client: Client, base: Url, secrets: Vec<String>, most_bytes: usize) -> Http {
        Http {
            client,
            base,
            secrets,
            most_bytes,
        }
    }

    /// Asks for what is at this path below the server's URL, one text for each of its parts.
    ///
    /// # Errors
    /// When there is no answer, or it says that it cannot be done.
    pub async fn get(&self, path: &[&str]) -> Result<Bytes, Failure> {
        self.answer(self.client.get(self.url(path))).await
    }

    /// As [`Http::get`], with an answer in JSON.
    ///
    /// # Errors
    /// As [`Http::get`], and when the answer is not such JSON.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        let answer = self.get(path).await?;
        self.parse(&answer)
    }

    /// Sends JSON to this path, and reads the answer's.
    ///
    /// # Errors
    /// When there is no answer, it says that it cannot be done, or is not such JSON.
    pub async fn post_json<T: DeserializeOwned>(&self, path: &[&str], body: Bytes) -> Result<T, Failure> {
        let answer = self.post(path, body).await?;
        self.parse(&answer)
    }

    /// Sends JSON to this path: the answer as it came.
    ///
    /// # Errors
    /// When there is no answer, or it says that it cannot be done.
    pub async fn post(&self, path: &[&str], body: Bytes) -> Result<Bytes, Failure> {
        let request = self
            .client
            .post(self.url(path))
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        self.answer(request).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // What has a host, as http has, has a path.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Bytes, Failure> {
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        let status = response.status();
        let wanted = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        if status.is_success() {
            return self.body(response).await;
        }
        // What went wrong is known already; that the rest of it is cut tells no more.
        let body = self.body(response).await.unwrap_or_default();
        Err(Failure {
            kind: FailureKind::of_status(status.as_u16()),
            status: Some(status.as_u16()),
            text: format!("{status}: {}", self.told(&body)),
            retry_after: wanted,
        })
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unanswered(error))? {
            if body.len() + part.len() > self.most_bytes {
                let text = format!("the answer is longer than {} bytes", self.most_bytes);
                return Err(Failure::new(FailureKind::Refused, text));
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    /// An error of the connection.
    pub(crate) fn unanswered(&self, error: reqwest::Error) -> Failure {
        let kind = match error.is_builder() || error.is_redirect() {
            true => FailureKind::Denied,
            false => FailureKind::Unavailable,
        };
        let error = error.without_url();
        let (said, cause) = (error.to_string(), purlin_net::root_cause(&error));
        let text = match said == cause {
            true => said,
            false => format!("{said}: {cause}"),
        };
        Failure::new(kind, text)
    }

    /// An answer's JSON.
    ///
    /// # Errors
    /// When it is not such JSON; the failure tells the begin of the answer.
    pub fn parse<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            let told = self.told(body);
            Failure::garbled(format!(
                "the answer is not the JSON that was expected ({error}): {told}"
            ))
        })
    }

    /// The begin of an answer, on one line.
    pub(crate) fn told(&self, body: &[u8]) -> String {
        let begin = String::from_utf8_lossy(&body[..body.len().min(4 * TOLD)]);
        let mut text = begin.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in &self.secrets {
            text = text.replace(secret, "...");
        }
        let end = text.char_indices().nth(TOLD).map(|(at, _)| at);
        match end {
            Some(end) => format!("{}...", &text[..end]),
            None if text.is_empty() => "(an empty answer)".to_owned(),
            None => text,
        }
    }
}

/// JSON as it is sent.
///
/// # Errors
/// When the value has no form in JSON, such as a map whose keys are no texts.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Bytes, purlin::BoxError> {
    Ok(serde_json::to_vec(value)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str) -> Http {
        // As servers do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Http::new(
            Client::new(),
            Url::parse(url).unwrap(),
            vec!["hush".to_owned()],
            100,
        )
    }

    #[test]
    fn paths_are_put_behind_the_url() {
        let path = ["v2", "models", "a/b c", "infer"];
        for (base, expected) in [
            ("http://h", "http://h/v2/models/a%2Fb%20c/infer"),
            ("http://h/x", "http://h/x/v2/models/a%2Fb%20c/infer"),
            ("http://h/x/", "http://h/x/v2/models/a%2Fb%20c/infer"),
        ] {
            assert_eq!(http(base).url(&path).as_str(), expected);
        }
    }

    #[test]
    fn of_an_answer_the_begin_is_told_without_secrets() {
        let http = http("http://h");
        assert_eq!(http.told(b"no:\n  hush is\twrong"), "no: ... is wrong");
        assert_eq!(http.told(b""), "(an empty answer)");
        let long = http.told("ä".repeat(3000).as_bytes());
        assert_eq!(long.chars().count(), TOLD + 3);
        assert!(long.ends_with("..."));
    }
}
