//! The Job API over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use purlin_net::ConnectionInfo;
use purlin_proto::job_management::{self as api, job_service_server};
use purlin_proto::pipeline;
use purlin_runner::job::{Importance, JobEvent, JobHandle, StateChange};
use tonic::{Request, Response, Status};

use super::pipeline_options::PipelineOptions;
use super::{JobError, Jobs, own_machine, state_to_proto};
use crate::options::OwnMachine;
use crate::time;

/// The Job service.
#[derive(Clone)]
pub(crate) struct JobApi {
    pub(crate) jobs: Arc<Jobs>,
    /// Where clients stage artifacts.
    pub(crate) artifact_url: String,
    /// What jobs of clients on other machines may run on this one.
    pub(crate) allow_environments: Arc<[OwnMachine]>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

impl JobApi {
    fn started(&self, id: &str) -> Result<JobHandle, JobError> {
        // A client that could watch a job before it runs would put its own short deadline on the whole job.
        self.jobs
            .get(id)?
            .handle()
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
        let jobs = self.jobs.clone();
        let connection = request.extensions().get::<ConnectionInfo>();
        let elsewhere = !connection.is_some_and(ConnectionInfo::is_local);
        let allowed = elsewhere.then(|| self.allow_environments.clone());
        let request = request.into_inner();
        let prepare = move || {
            if let (Some(allowed), Some(pipeline)) = (allowed, &request.pipeline) {
                own_machine::check(pipeline, &allowed)?;
            }
            jobs.prepare(request)
        };
        let job = aside(prepare)
            .await?
            .inspect_err(|error| tracing::warn!("Prepare: {error}"))?;
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
        let jobs = self.jobs.clone();
        let id = request.into_inner().preparation_id;
        let job = aside(move || jobs.run(&id)).await??;
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
        let job = self.jobs.get(&id)?;
        let pipeline = aside(move || job.pipeline()).await?;
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
        let handle = self.started(&id)?;
        handle.drain();
        Ok(Response::new(api::DrainJobResponse {
            state: state_to_proto(handle.state()) as i32,
        }))
    }

    async fn get_state_stream(
        &self,
        request: Request<api::GetJobStateRequest>,
    ) -> Result<Response<Self::GetStateStreamStream>, Status> {
        let handle = self.started(&request.into_inner().job_id)?;
        Ok(Response::new(Box::pin(
            handle.states().map(|change| Ok(state_event(&change))),
        )))
    }

    async fn get_message_stream(
        &self,
        request: Request<api::JobMessagesRequest>,
    ) -> Result<Response<Self::GetMessageStreamStream>, Status> {
        use api::job_messages_response::Response as Event;
        let handle = self.started(&request.into_inner().job_id)?;
        let events = handle.events().map(|event| {
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
        let job = self.jobs.get(&request.into_inner().job_id)?;
        let metrics = job.handle().map(|handle| handle.metrics());
        let metrics = metrics.map(|m| api::MetricResults {
            attempted: m.attempted,
            committed: m.committed,
        });
        Ok(Response::new(api::GetJobMetricsResponse {
            metrics: Some(metrics.unwrap_or_default()),
        }))
    }

    async fn describe_pipeline_options(
        &self,
        _: Request<api::DescribePipelineOptionsRequest>,
    ) -> Result<Response<api::DescribePipelineOptionsResponse>, Status> {
        Ok(Response::new(api::DescribePipelineOptionsResponse {
            options: PipelineOptions::describe(),
        }))
    }
}

/// Does what takes long where a pipeline is large, aside of the threads that serve others.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("reading the pipeline failed; see the service's log"))
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
