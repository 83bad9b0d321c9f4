//! A server, and how it is asked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Url};
use thiserror::Error;

use crate::breaker::CircuitBreaker;
use crate::caller::Policy;
use crate::client::Http;
use crate::retries::Retries;
use crate::throttle::Throttling;

/// A server of models: its address, how to show who asks, and how it is asked.
///
/// Tokens are named, not held: a worker reads them from its environment when it loads the model, so they are neither in the
/// pipeline
/// nor in logs or errors.
///
/// ```
/// use std::time::Duration;
/// use purlin_remote::{Retries, Server};
///
/// let server = Server::at("https://models.example.org")
///     .bearer_from_env("MODELS_TOKEN")
///     .concurrency(16)
///     .try_timeout(Duration::from_secs(20))
///     .retries(Retries { tries: 8, ..Retries::default() });
/// assert!(!format!("{server:?}").contains("Bearer"));
/// ```
#[derive(Clone, PartialEq)]
pub struct Server {
    url: String,
    /// Headers, and the variable that holds each one's value.
    headers: Vec<(String, String)>,
    certificates: Option<PathBuf>,
    connect_timeout: Duration,
    most_bytes: usize,
    pub(crate) policy: Policy,
}

/// Settings of a server that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An address that is none.
    #[error("the server's address {url:?} cannot be used: {reason}; give http://HOST:PORT or https://HOST")]
    Address {
        /// What was given, without a name and a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable of the environment that is missing or cannot be sent.
    #[error(
        "the environment variable {variable} {reason}: it has to hold the value of the header {header} for {url}"
    )]
    Variable {
        /// The variable's name.
        variable: String,
        /// What is wrong with it.
        reason: &'static str,
        /// For which header it is.
        header: String,
        /// The server.
        url: String,
    },
    /// A file of certificates that cannot be used.
    #[error("cannot use the certificates in {path}: {reason}; it has to hold certificates in PEM")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No client can be made.
    #[error("cannot prepare requests to {url}: {reason}")]
    Client {
        /// The server.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl Server {
    /// The server at this URL: `http://HOST:PORT` or `https://HOST`, with a path where it has one. The URL is checked when the
    /// model is loaded.
    pub fn at(url: impl Into<String>) -> Server {
        Server {
            url: url.into(),
            headers: Vec::new(),
            certificates: None,
            connect_timeout: Duration::from_secs(10),
            most_bytes: 256 << 20,
            policy: Policy::default(),
        }
    }

    /// Sends the token that this variable of the workers' environment holds, as `Authorization: Bearer ...`. A variable that is
    /// missing is an error when the model is loaded.
    #[must_use]
    pub fn bearer_from_env(self, variable: &str) -> Server {
        self.header_from_env(AUTHORIZATION.as_str(), variable)
    }

    /// As [`Server::bearer_from_env`], for a header of another name, which is sent as the variable has it.
    #[must_use]
    pub fn header_from_env(mut self, header: &str, variable: &str) -> Server {
        self.headers.push((header.to_owned(), variable.to_owned()));
        self
    }

    /// Trusts the certificates in this file (PEM), too, besides those that the system trusts.
    #[must_use]
    pub fn certificates(mut self, file: impl AsRef<Path>) -> Server {
        self.certificates = Some(file.as_ref().to_owned());
        self
    }

    /// So many requests of a process are in the works at a time, those that pause between two tries among them. 8 unless told.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Server {
        self.policy.concurrency = requests.max(1);
        self
    }

    /// How often requests are tried.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Server {
        self.policy.retries = retries;
        self
    }

    /// How a server that refuses requests is spared; `None` for not at all.
    #[must_use]
    pub fn throttling(mut self, throttling: impl Into<Option<Throttling>>) -> Server {
        self.policy.throttling = throttling.into();
        self
    }

    /// When a server that is away is left alone; `None` for never.
    #[must_use]
    pub fn circuit_breaker(mut self, breaker: impl Into<Option<CircuitBreaker>>) -> Server {
        self.policy.breaker = breaker.into();
        self
    }

    /// How long a connection may take. 10 s unless told.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Server {
        self.connect_timeout = limit;
        self
    }

    /// How long one try may take. 60 s unless told.
    #[must_use]
    pub fn try_timeout(mut self, limit: Duration) -> Server {
        self.policy.try_timeout = limit;
        self
    }

    /// How long a request may take with all its tries and the pauses between them. 10 minutes unless told.
    #[must_use]
    pub fn total_timeout(mut self, limit: Duration) -> Server {
        self.policy.total_timeout = limit;
        self
    }

    /// The longest answer that is read, in bytes. 256 MiB unless told.
    #[must_use]
    pub fn most_answer_bytes(mut self, bytes: usize) -> Server {
        self.most_bytes = bytes;
        self
    }

    /// The address as it may be shown: without a name and a password.
    pub fn shown(&self) -> String {
        match Url::parse(&self.url) {
            Ok(mut url) => {
                // Neither fails for what has a host; what has none holds neither.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                url.set_query(None);
                url.as_str().trim_end_matches('/').to_owned()
            }
            // Whatever stands before an @ may be a password.
            Err(_) => self.url.rsplit('@').next().unwrap_or_default().to_owned(),
        }
    }

    /// A client of it. `http2`: for gRPC.
    pub(crate) fn connect(&self, http2: bool) -> Result<Http, ServerError> {
        self.connect_with(http2, |name| std::env::var(name).ok())
    }

    fn connect_with(
        &self,
        http2: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Http, ServerError> {
        let url = self.parsed()?;
        let (headers, secrets) = self.header_values(variable)?;
        // Where another part of the program has chosen a provider, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(self.connect_timeout)
            .default_headers(headers);
        if http2 {
            builder = builder.http2_prior_knowledge();
        }
        if let Some(file) = &self.certificates {
            builder = builder.tls_certs_merge(certificates(file)?);
        }
        let client = builder.build().map_err(|error| ServerError::Client {
            url: self.shown(),
            reason: purlin_net::root_cause(&error),
        })?;
        Ok(Http::new(client, url, secrets, self.most_bytes))
    }

    fn parsed(&self) -> Result<Url, ServerError> {
        let wrong = |reason: String| ServerError::Address {
            url: self.shown(),
            reason,
        };
        let url = Url::parse(&self.url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("{}:// is neither http nor https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let reason = "it holds a user's name or password, which logs would show: use bearer_from_env or header_from_env";
            return Err(wrong(reason.to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment".to_owned()));
        }
        Ok(url)
    }

    /// The headers, and what of them must not be shown.
    fn header_values(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(HeaderMap, Vec<String>), ServerError> {
        let (mut headers, mut secrets) = (HeaderMap::new(), Vec::new());
        for (header, name) in &self.headers {
            let wrong = |reason| ServerError::Variable {
                variable: name.clone(),
                reason,
                header: header.clone(),
                url: self.shown(),
            };
            let secret = variable(name)
                .ok_or_else(|| wrong("is not set"))?
                .trim()
                .to_owned();
            if secret.is_empty() {
                return Err(wrong("is empty"));
            }
            let text = match header == AUTHORIZATION.as_str() {
                true => format!("Bearer {secret}"),
                false => secret.clone(),
            };
            let mut value = HeaderValue::from_str(&text).map_err(|_| wrong("holds what a header cannot"))?;
            value.set_sensitive(true);
            let key: HeaderName = header
                .parse()
                .map_err(|_| wrong("is for a header of no valid name"))?;
            headers.insert(key, value);
            secrets.push(secret);
        }
        Ok((headers, secrets))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.shown())
            .field("headers_from_env", &self.headers)
            .field("certificates", &self.certificates)
            .field("connect_timeout", &self.connect_timeout)
            .field("most_answer_bytes", &self.most_bytes)
            .field("policy", &self.policy)
            .finish()
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, ServerError> {
    let wrong = |reason: String| ServerError::Certificates {
        path: file.display().to_string(),
        reason,
    };
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(server: &Server, variable: Option<&str>) -> String {
        let connected = server.connect_with(false, |_| variable.map(str::to_owned));
        connected
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn addresses_that_cannot_be_used_are_told() {
        for (url, told) in [
            ("models:8080", "neither http nor https"),
            ("ftp://models", "neither http nor https"),
            ("", "relative URL without a base"),
            ("http://me:secret@models", "bearer_from_env"),
            ("http://models/?key=secret", "query"),
        ] {
            let error = error(&Server::at(url), None);
            assert!(error.contains(told), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(error(&Server::at("https://models/v1"), None), "");
    }

    #[test]
    fn tokens_are_of_the_environment_and_not_shown() {
        let server = Server::at("http://models").bearer_from_env("MODELS_TOKEN");
        let missing = error(&server, None);
        assert!(
            missing.starts_with("the environment variable MODELS_TOKEN is not set"),
            "{missing}"
        );
        assert!(error(&server, Some(" ")).contains("MODELS_TOKEN is empty"));
        let wrong = error(&server, Some("hush\nhush"));
        assert!(wrong.contains("MODELS_TOKEN holds what a header cannot") && !wrong.contains("hush"));
        let (headers, secrets) = server.header_values(|_| Some("hush ".to_owned())).unwrap();
        assert_eq!(headers[AUTHORIZATION], "Bearer hush");
        assert_eq!(secrets, ["hush"]);
        assert!(!format!("{headers:?} {server:?}").contains("hush"));
        let other = Server::at("http://models").header_from_env("x-api-key", "KEY");
        let (headers, _) = other.header_values(|_| Some("hush".to_owned())).unwrap();
        assert_eq!(headers["x-api-key"], "hush");
    }

    #[test]
    fn certificates_that_cannot_be_used_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let server = Server::at("https://models").certificates(&file);
        assert!(error(&server, None).contains("No such file"));
        std::fs::write(&file, "hello").unwrap();
        let error = error(&server, None);
        assert!(
            error.contains("ca.pem") && error.contains("no certificate"),
            "{error}"
        );
    }
}
