//! What is wrong with a pipeline: all of it, not the first thing found.

use std::fmt;

/// A pipeline cannot be run. Lists every problem that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslateError {
    /// The problems, in the order in which they were found; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full unique name of the transform; empty where the pipeline as a whole is meant.
    pub transform: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transform.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "transform \"{}\": {}", self.transform, self.message)
        }
    }
}

impl fmt::Display for TranslateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the pipeline cannot be run: {only}"),
            problems => {
                write!(f, "the pipeline cannot be run, for {} reasons:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for TranslateError {}

/// Collects problems; the same one is kept once.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

/// Beyond this many, a pipeline is hostile rather than wrong.
const MOST: usize = 200;

impl Problems {
    pub(super) fn add(&mut self, transform: &str, message: impl Into<String>) {
        let problem = Problem {
            transform: transform.to_owned(),
            message: message.into(),
        };
        if self.0.len() < MOST && !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// What was made, if nothing is wrong with it. `consequences` are told where nothing else is.
    pub(super) fn none_in<T>(self, made: Option<T>, consequences: Problems) -> Result<T, TranslateError> {
        let problems = if self.0.is_empty() { consequences.0 } else { self.0 };
        match made {
            Some(made) if problems.is_empty() => Ok(made),
            _ => Err(TranslateError { problems }),
        }
    }
}
