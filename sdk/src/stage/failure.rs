//! How a failure of user code travels up through a stage.

use std::fmt;

use crate::error::{BoxError, chain};

/// User code, or the harness on its behalf, failed. One pointer, so that the good case costs nothing.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    transform: String,
    message: String,
}

impl Failure {
    /// The failure of a transform by its error.
    #[cold]
    pub fn new(transform: impl Into<String>, error: BoxError) -> Failure {
        Failure::message(transform, chain(&*error))
    }

    /// The failure of a transform by a message.
    #[cold]
    pub fn message(transform: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure(Box::new(Inner {
            transform: transform.into(),
            message: message.into(),
        }))
    }

    /// The same, with the element that the transform was at.
    #[cold]
    pub(crate) fn at_element(mut self, element: &str) -> Failure {
        self.0.message = format!("{} (at the element {element})", self.0.message);
        self
    }

    /// Full name of the transform that failed.
    pub fn transform(&self) -> &str {
        &self.0.transform
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transform \"{}\": {}", self.0.transform, self.0.message)
    }
}

impl std::error::Error for Failure {}
