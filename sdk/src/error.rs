//! What can go wrong, one enum per operation.

use std::fmt;

/// Any error of user code. `?` turns every error type into it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What the methods of a [`DoFn`](crate::DoFn) return.
pub type DoFnResult = Result<(), BoxError>;

/// A pipeline that cannot be built: all of its problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// Each names the transform and says what to do.
    pub problems: Vec<String>,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [one] => write!(f, "the pipeline cannot be built: {one}"),
            many => {
                write!(f, "the pipeline cannot be built, for {} reasons:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n- {problem}"))
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Why a pipeline did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The pipeline cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The runner cannot run the pipeline.
    #[error("the runner cannot run this pipeline:\n{0}")]
    Translate(String),
    /// The runner could not be reached, or it refused the pipeline.
    #[error("{0}")]
    Runner(String),
    /// The pipeline failed: the transform's name and the user's own error.
    #[error("the pipeline failed: {0}")]
    Failed(String),
    /// The pipeline was cancelled.
    #[error("the pipeline was cancelled")]
    Cancelled,
}

/// The message of an error with all of its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
