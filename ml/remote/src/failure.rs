//! What can go wrong with a request.

use std::time::Duration;

use thiserror::Error;

/// What a failure means for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// Nobody answered: there is no connection, it was cut, the time was over, or a gateway says so (502, 503, 504). Tried again.
    Unavailable,
    /// The server has too much to do (429). Tried again, and less is asked of it for a while.
    Overloaded,
    /// The server failed (other 5xx, 408, 425), which may be the rows' fault. Tried again.
    Failed,
    /// The answer cannot be understood, which may be the rows' fault. Tried again.
    Garbled,
    /// The request is not accepted (other 4xx): the rows' fault, as far as can be told.
    Refused,
    /// The model cannot be asked like this, whatever the rows: it is not there, or the token is wrong (401, 403, 404 and the
    /// like).
    Denied,
}

impl FailureKind {
    /// Of a status of HTTP.
    pub fn of_status(status: u16) -> FailureKind {
        match status {
            408 | 425 => FailureKind::Failed,
            429 => FailureKind::Overloaded,
            502..=504 => FailureKind::Unavailable,
            300..=399 | 401 | 403..=405 | 407 | 410 => FailureKind::Denied,
            500.. => FailureKind::Failed,
            _ => FailureKind::Refused,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(self) -> bool {
        !matches!(self, FailureKind::Refused | FailureKind::Denied)
    }

    /// Whether parts of the batch may succeed.
    pub fn is_of_rows(self) -> bool {
        matches!(
            self,
            FailureKind::Failed | FailureKind::Garbled | FailureKind::Refused
        )
    }

    /// Whether the server was too busy to take the request: less is asked of it then.
    pub(crate) fn is_overload(self) -> bool {
        matches!(self, FailureKind::Overloaded | FailureKind::Unavailable)
    }
}

/// Why one try of a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// The status of HTTP, if there was an answer.
    pub status: Option<u16>,
    /// What to tell: the status and the begin of the answer, or the system's error.
    pub text: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without an answer of the server.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Failure {
        Failure {
            kind,
            status: None,
            text: text.into(),
            retry_after: None,
        }
    }

    /// An answer that cannot be understood.
    pub fn garbled(text: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Garbled, text)
    }

    /// The model cannot be asked like this.
    pub fn denied(text: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Denied, text)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// A request that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{model} at {url}: {failure} (tries: {tries}, in {:.1} s)", .elapsed.as_secs_f64())]
pub struct RemoteError {
    /// The model's name.
    pub model: String,
    /// The server, without names and passwords.
    pub url: String,
    /// Of the last try.
    pub failure: Failure,
    /// How often it was tried.
    pub tries: u32,
    /// From the first try on.
    pub elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        use FailureKind::*;
        let kinds = [
            (302, Denied),
            (400, Refused),
            (401, Denied),
            (404, Denied),
            (408, Failed),
            (413, Refused),
            (422, Refused),
            (429, Overloaded),
            (500, Failed),
            (501, Failed),
            (502, Unavailable),
            (503, Unavailable),
            (504, Unavailable),
            (529, Failed),
        ];
        for (status, kind) in kinds {
            assert_eq!(FailureKind::of_status(status), kind, "{status}");
        }
        // What is not tried again is told at once; what is not of the rows is not halved.
        assert!(!Refused.is_transient() && Refused.is_of_rows());
        assert!(!Denied.is_transient() && !Denied.is_of_rows());
        assert!(Unavailable.is_transient() && !Unavailable.is_of_rows());
    }

    #[test]
    fn an_error_says_model_server_and_tries() {
        let error = RemoteError {
            model: "iris".to_owned(),
            url: "http://models:8080".to_owned(),
            failure: Failure::new(FailureKind::Failed, "500 Internal Server Error: boom"),
            tries: 4,
            elapsed: Duration::from_millis(2340),
        };
        assert_eq!(
            error.to_string(),
            "iris at http://models:8080: 500 Internal Server Error: boom (tries: 4, in 2.3 s)"
        );
    }
}
