//! What can be wrong with a call of the Job API, and its gRPC status.

use purlin_runner::translate::TranslateError;
use tonic::Status;

/// A status message travels in a header, percent-encoded; gRPC's clients take 8 KiB of headers.
const STATUS_BYTES: usize = 2400;

/// Why a call of the Job API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error("there is no job {id:?} on this service")]
    Unknown { id: String },
    #[error("job {id:?} has been run, or cancelled, already; prepare it again")]
    RunTwice { id: String },
    #[error("job {id:?} has not been run yet; call Run first")]
    NotRun { id: String },
    #[error("the pipeline cannot be run:\n{problems}")]
    Invalid { problems: String },
    #[error("pipeline option {option}: {reason}")]
    Option { option: String, reason: String },
    #[error("this service is ending")]
    Ending,
}

impl JobError {
    pub(crate) fn invalid(error: TranslateError) -> Self {
        Self::Invalid {
            problems: error.to_string(),
        }
    }
}

impl From<JobError> for Status {
    fn from(error: JobError) -> Self {
        let message = short(&error.to_string());
        match error {
            JobError::Unknown { .. } => Status::not_found(message),
            JobError::RunTwice { .. } | JobError::NotRun { .. } => Status::failed_precondition(message),
            JobError::Invalid { .. } | JobError::Option { .. } => Status::invalid_argument(message),
            JobError::Ending => Status::unavailable(message),
        }
    }
}

fn short(message: &str) -> String {
    if message.len() <= STATUS_BYTES {
        return message.to_owned();
    }
    let end = (0..=STATUS_BYTES)
        .rev()
        .find(|&i| message.is_char_boundary(i))
        .unwrap_or(0);
    let rest = message[end..].lines().count();
    format!(
        "{} ... (and {rest} more lines; the service's log has them all)",
        &message[..end]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "ä".repeat(STATUS_BYTES);
        let cut = short(&long);
        assert!(
            cut.len() < STATUS_BYTES + 100 && cut.contains("and 1 more lines"),
            "{cut}"
        );
        assert_eq!(short("x"), "x");
    }
}
