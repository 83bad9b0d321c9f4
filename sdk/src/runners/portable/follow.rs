//! Follows a job to its end.

use std::sync::Arc;
use std::time::Duration;

use purlin_proto::job_management as api;
use purlin_proto::job_management::job_message::MessageImportance;
use purlin_proto::job_management::job_messages_response::Response as Event;
use purlin_proto::job_management::job_state::Enum as Wire;

use super::service::JobService;
use super::{Job, interrupt};
use crate::harness::grpc::LoopbackPool;
use crate::harness::grpc::logging::JOB;
use crate::result::PipelineState;

/// How long a job's last messages may come after its end.
const LAST_MESSAGES: Duration = Duration::from_secs(5);
/// How often, and after what pause, a broken state stream is opened again.
const RETRIES: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What was started in or by this process for one job.
#[derive(Default)]
pub(super) struct Started {
    pub pool: Option<LoopbackPool>,
    pub service: Option<JobService>,
}

impl Started {
    pub async fn stop(self) {
        if let Some(pool) = self.pool {
            pool.stop().await;
        }
        if let Some(service) = self.service {
            service.stop().await;
        }
    }
}

/// Follows a job; then stops what was started for it.
pub(super) async fn follow(job: Arc<Job>, started: Started) {
    let guard = interrupt::on_interrupt({
        let (job, runtime) = (job.clone(), tokio::runtime::Handle::current());
        move || {
            #[expect(
                clippy::print_stderr,
                reason = "said to who pressed Ctrl-C, whatever is logged"
            )]
            {
                eprintln!("interrupted: cancelling job {}; once more ends at once", job.id);
            }
            let job = job.clone();
            runtime.spawn(async move { job.cancel().await });
        }
    });
    let mut messages = tokio::spawn(messages(job.clone()));
    let end = states(&job).await;
    match tokio::time::timeout(LAST_MESSAGES, &mut messages).await {
        Ok(_) => {}
        Err(_) => messages.abort(),
    }
    match end {
        Ok(state) => {
            job.read_metrics().await;
            job.state.send_replace(state);
        }
        Err(reason) => {
            // What the service said before is worth less than that it is gone.
            *job.error.lock() = Some(reason);
            job.state.send_replace(PipelineState::Failed);
        }
    }
    drop(guard);
    started.stop().await;
    job.over.send_replace(true);
}

/// Waits for the terminal state. It is not published yet: messages and metrics may be on their way.
async fn states(job: &Job) -> Result<PipelineState, String> {
    let mut broken = 0;
    loop {
        let reason = match state_stream(job).await {
            Ok(state) => return Ok(state),
            Err(reason) => reason,
        };
        broken += 1;
        if broken > RETRIES {
            return Err(format!("the job service at {} is gone: {reason}", job.endpoint));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn state_stream(job: &Job) -> Result<PipelineState, String> {
    let request = api::GetJobStateRequest {
        job_id: job.id.clone(),
    };
    let stream = job
        .client
        .clone()
        .get_state_stream(request)
        .await
        .map_err(|s| s.message().to_owned())?;
    let mut stream = stream.into_inner();
    loop {
        match stream.message().await {
            Ok(Some(event)) => {
                let Some(state) = state(event.state()) else {
                    continue;
                };
                if state.is_terminal() {
                    return Ok(state);
                }
                job.state.send_replace(state);
            }
            Ok(None) => return Err("it ended the stream of the job's states before the job's end".to_owned()),
            Err(status) => return Err(status.message().to_owned()),
        }
    }
}

fn state(wire: Wire) -> Option<PipelineState> {
    Some(match wire {
        Wire::Unspecified => return None,
        Wire::Stopped | Wire::Starting => PipelineState::Starting,
        Wire::Running | Wire::Updating => PipelineState::Running,
        Wire::Draining => PipelineState::Draining,
        Wire::Cancelling => PipelineState::Cancelling,
        // A job that was replaced by an update is over for those who launched it.
        Wire::Done | Wire::Updated => PipelineState::Done,
        Wire::Failed => PipelineState::Failed,
        Wire::Cancelled => PipelineState::Cancelled,
        Wire::Drained => PipelineState::Drained,
    })
}

/// Passes the job's messages on to `tracing`, and keeps the last error.
async fn messages(job: Arc<Job>) {
    let request = api::JobMessagesRequest {
        job_id: job.id.clone(),
    };
    let mut stream = match job.client.clone().get_message_stream(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => {
            tracing::debug!("the job service gives no messages: {}", status.message());
            return;
        }
    };
    while let Ok(Some(message)) = stream.message().await {
        if let Some(Event::MessageResponse(message)) = message.response {
            take(&job, message);
        }
    }
}

fn take(job: &Job, message: api::JobMessage) {
    let text = &message.message_text;
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(target: JOB, tracing::Level::$level, job = job.id, "{text}")
        };
    }
    match message.importance() {
        MessageImportance::Unspecified | MessageImportance::JobMessageBasic => event!(INFO),
        MessageImportance::JobMessageDebug | MessageImportance::JobMessageDetailed => event!(DEBUG),
        MessageImportance::JobMessageWarning => event!(WARN),
        MessageImportance::JobMessageError => {
            event!(ERROR);
            *job.error.lock() = Some(message.message_text);
        }
    }
}
