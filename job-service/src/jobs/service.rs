//! The Job API over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use purlin_net::ConnectionInfo;
use purlin_proto::job_management::{self as api, job_service_server};
use purlin_proto::pipeline;
use purlin_runner::job::{Importance, JobEvent, JobMetrics, StateChange};
use tonic::{Request, Response, Status};

use super::{JobError, Jobs, state_to_proto};
use crate::backends::RunningJob;
use crate::time;

/// The Job service.
#[derive(Clone)]
pub(crate) struct JobApi {
    pub(crate) jobs: Arc<Jobs>,
    /// Where clients stage artifacts.
    pub(crate) artifact_url: String,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

impl JobApi {
    fn started(&self, id: &str) -> Result<Arc<dyn RunningJob>, JobError> {
        // A client that could watch a job before it runs would put its own short deadline on the whole job.
        self.jobs
            .get(id)?
            .job()
            .ok_or_else(|| JobError::NotRun { id: id.to_owned() })
    }
}

#[tonic::async_trait]
impl job_service_server::JobService for JobApi {
    type GetStateStreamStream = Answers<api::JobStateEvent>;
    type GetMessageStreamStream = Answers<api::JobMessagesResponse>;

    async fn prepare(
        &self,
        request: Request<api::PrepareJobRequest>,
    ) -> Result<Response<api::PrepareJobResponse>, Status> {
        let connection = request.extensions().get::<ConnectionInfo>();
        let from_elsewhere = !connection.is_some_and(ConnectionInfo::is_local);
        let prepared = self.jobs.prepare(request.into_inner(), from_elsewhere).await;
        let job = prepared.inspect_err(|error| tracing::warn!("Prepare: {error}"))?;
        Ok(Response::new(api::PrepareJobResponse {
            preparation_id: job.id.clone(),
            artifact_staging_endpoint: Some(pipeline::ApiServiceDescriptor {
                url: self.artifact_url.clone(),
                authentication: None,
            }),
            staging_session_token: job.id.clone(),
        }))
    }

    async fn run(
        &self,
        request: Request<api::RunJobRequest>,
    ) -> Result<Response<api::RunJobResponse>, Status> {
        let job = self.jobs.run(&request.into_inner().preparation_id).await?;
        Ok(Response::new(api::RunJobResponse {
            job_id: job.id.clone(),
        }))
    }

    async fn get_jobs(
        &self,
        _: Request<api::GetJobsRequest>,
    ) -> Result<Response<api::GetJobsResponse>, Status> {
        let jobs = self.jobs.all().into_iter().map(|job| api::JobInfo {
            job_id: job.id.clone(),
            job_name: job.name.clone(),
            pipeline_options: Some(job.options.proto()),
            state: job.state().0 as i32,
        });
        Ok(Response::new(api::GetJobsResponse {
            job_info: jobs.collect(),
        }))
    }

    async fn get_state(
        &self,
        request: Request<api::GetJobStateRequest>,
    ) -> Result<Response<api::JobStateEvent>, Status> {
        let (state, at) = self.jobs.get(&request.into_inner().job_id)?.state();
        Ok(Response::new(api::JobStateEvent {
            state: state as i32,
            timestamp: Some(time::to_proto(at)),
        }))
    }

    async fn get_pipeline(
        &self,
        request: Request<api::GetJobPipelineRequest>,
    ) -> Result<Response<api::GetJobPipelineResponse>, Status> {
        let id = request.into_inner().job_id;
        let pipeline = self.jobs.get(&id)?.pipeline().await?;
        let pipeline = pipeline.ok_or(JobError::Forgotten { id })?;
        Ok(Response::new(api::GetJobPipelineResponse {
            pipeline: Some(pipeline),
        }))
    }

    async fn cancel(
        &self,
        request: Request<api::CancelJobRequest>,
    ) -> Result<Response<api::CancelJobResponse>, Status> {
        let job = self.jobs.get(&request.into_inner().job_id)?;
        self.jobs.cancel(&job);
        Ok(Response::new(api::CancelJobResponse {
            state: job.state().0 as i32,
        }))
    }

    async fn drain(
        &self,
        request: Request<api::DrainJobRequest>,
    ) -> Result<Response<api::DrainJobResponse>, Status> {
        let id = request.into_inner().job_id;
        let job = self.started(&id)?;
        job.drain().await?;
        Ok(Response::new(api::DrainJobResponse {
            state: state_to_proto(job.log().current().state) as i32,
        }))
    }

    async fn get_state_stream(
        &self,
        request: Request<api::GetJobStateRequest>,
    ) -> Result<Response<Self::GetStateStreamStream>, Status> {
        let job = self.started(&request.into_inner().job_id)?;
        let states = job.log().states();
        Ok(Response::new(Box::pin(
            states.map(|change| Ok(state_event(&change))),
        )))
    }

    async fn get_message_stream(
        &self,
        request: Request<api::JobMessagesRequest>,
    ) -> Result<Response<Self::GetMessageStreamStream>, Status> {
        use api::job_messages_response::Response as Event;
        let job = self.started(&request.into_inner().job_id)?;
        let events = job.log().events().map(|event| {
            let event = match event {
                JobEvent::State(change) => Event::StateResponse(state_event(&change)),
                JobEvent::Message(message) => Event::MessageResponse(api::JobMessage {
                    message_id: message.id.to_string(),
                    time: time::rfc3339(message.at),
                    importance: importance(message.importance) as i32,
                    message_text: message.text,
                }),
            };
            Ok(api::JobMessagesResponse {
                response: Some(event),
            })
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_job_metrics(
        &self,
        request: Request<api::GetJobMetricsRequest>,
    ) -> Result<Response<api::GetJobMetricsResponse>, Status> {
        let job = self.jobs.get(&request.into_inner().job_id)?.job();
        let metrics = match job {
            Some(job) => job.metrics().await,
            None => JobMetrics::default(),
        };
        Ok(Response::new(api::GetJobMetricsResponse {
            metrics: Some(api::MetricResults {
                attempted: metrics.attempted,
                committed: metrics.committed,
            }),
        }))
    }

    async fn describe_pipeline_options(
        &self,
        _: Request<api::DescribePipelineOptionsRequest>,
    ) -> Result<Response<api::DescribePipelineOptionsResponse>, Status> {
        Ok(Response::new(api::DescribePipelineOptionsResponse {
            options: self.jobs.describe_options(),
        }))
    }
}

fn state_event(change: &StateChange) -> api::JobStateEvent {
    api::JobStateEvent {
        state: state_to_proto(change.state) as i32,
        timestamp: Some(time::to_proto(change.at)),
    }
}

fn importance(importance: Importance) -> api::job_message::MessageImportance {
    use api::job_message::MessageImportance as Wire;
    match importance {
        Importance::Debug => Wire::JobMessageDebug,
        Importance::Detailed => Wire::JobMessageDetailed,
        Importance::Basic => Wire::JobMessageBasic,
        Importance::Warning => Wire::JobMessageWarning,
        Importance::Error => Wire::JobMessageError,
    }
}
