//! What can be wrong with a call of the Job API, and its gRPC status.

use purlin_runner::translate::TranslateError;
use tonic::Status;

/// A status message travels in a header, percent-encoded; gRPC's clients take 8 KiB of headers.
const STATUS_BYTES: usize = 2400;

/// Why a call of the Job API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(
        "there is no job {id:?} on this service; one that was prepared and not run is forgotten after a while"
    )]
    Unknown { id: String },
    #[error("job {id:?} has been run, or cancelled, already; prepare it again")]
    RunTwice { id: String },
    #[error("job {id:?} has not been run yet; call Run first")]
    NotRun { id: String },
    #[error("the pipeline cannot be run:\n{problems}")]
    Invalid { problems: String },
    #[error("pipeline option {option}: {reason}")]
    Option { option: String, reason: String },
    #[error(
        "this service has no room for another prepared job (of {bytes} bytes, its options included): others are prepared, and \
         not run yet; run or cancel them, or try again in a minute"
    )]
    Full { bytes: usize },
    #[error("the pipeline of job {id:?} is not kept any more: it is large, and the job has ended")]
    Forgotten { id: String },
    #[error(
        "an environment of type {name} runs on the service's machine what the client names, and this client is on another \
         machine: use EXTERNAL with a worker pool, or start the service with --allow_environments={name}"
    )]
    OwnMachine { name: &'static str },
    #[error(
        "this service knows no environment {urn:?}, and this client is on another machine: use EXTERNAL with a worker pool, or \
         LOOPBACK"
    )]
    UnknownEnvironment { urn: String },
    #[error("the job cannot be drained: {reason}")]
    NoDrain { reason: String },
    #[error("this service is ending")]
    Ending,
    #[error("reading the pipeline failed; see the service's log")]
    Unreadable,
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
            JobError::Unknown { .. } | JobError::Forgotten { .. } => Status::not_found(message),
            JobError::RunTwice { .. } | JobError::NotRun { .. } | JobError::NoDrain { .. } => {
                Status::failed_precondition(message)
            }
            JobError::Invalid { .. } | JobError::Option { .. } => Status::invalid_argument(message),
            JobError::OwnMachine { .. } | JobError::UnknownEnvironment { .. } => {
                Status::permission_denied(message)
            }
            JobError::Full { .. } => Status::resource_exhausted(message),
            JobError::Ending => Status::unavailable(message),
            JobError::Unreadable => Status::internal(message),
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
