//! Runs a pipeline on a Beam Job Service: prepare, stage artifacts, run, follow.

mod connect;
mod docker;
mod follow;
mod interrupt;
mod launch;
mod service;
mod shipped;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use purlin_proto::job_management as api;
use purlin_proto::job_management::job_service_client::JobServiceClient;
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::metric_labels;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::error::RunError;
use crate::harness::grpc::logging;
use crate::metrics::MetricResults;
use crate::options::PipelineOptions;
use crate::pipeline::BuiltPipeline;
use crate::result::{PipelineHandle, PipelineState, RunningPipeline};

/// Starts a pipeline on a job service. Returns when the job runs.
pub(crate) fn start(built: BuiltPipeline, options: &PipelineOptions) -> Result<PipelineHandle, RunError> {
    logging::of_launcher();
    let options = options.clone();
    let job = block(async move { launch::launch(built, &options).await })??;
    Ok(PipelineHandle::new(PortableRun { job }))
}

/// The threads that talk to job services, and serve LOOPBACK workers' streams.
fn runtime() -> Result<&'static Runtime, RunError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("purlin-client")
            .enable_all()
            .build()
            .map_err(|e| e.to_string())
    });
    runtime
        .as_ref()
        .map_err(|e| RunError::Runner(format!("cannot start threads: {e}")))
}

/// Waits for a future. The caller may be a task of another runtime, where entering a second one would panic.
fn block<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T, RunError> {
    let (done, result) = std::sync::mpsc::channel();
    runtime()?.spawn(async move {
        // Nobody but the caller has the other end, and it waits.
        let _ = done.send(future.await);
    });
    result
        .recv()
        .map_err(|_| RunError::Runner("talking to the job service failed; see the log".into()))
}

/// A job of a job service.
struct Job {
    id: String,
    endpoint: String,
    client: JobServiceClient<Channel>,
    timeout: Duration,
    state: watch::Sender<PipelineState>,
    /// Whether everything about the job is over: its last messages and metrics have come, what was started for it has
    /// been stopped.
    over: watch::Sender<bool>,
    error: Mutex<Option<String>>,
    metrics: Mutex<MetricResults>,
    /// Names of transforms by id.
    names: HashMap<String, String>,
}

impl Job {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Asks for the metrics; those known before if that fails.
    async fn read_metrics(&self) {
        let request = self.request(api::GetJobMetricsRequest {
            job_id: self.id.clone(),
        });
        match self.client.clone().get_job_metrics(request).await {
            Ok(response) => {
                let metrics = response.into_inner().metrics.unwrap_or_default();
                let named =
                    |infos: Vec<MonitoringInfo>| infos.into_iter().map(|i| self.named(i)).collect::<Vec<_>>();
                let results = MetricResults::new(&named(metrics.attempted), &named(metrics.committed));
                *self.metrics.lock() = results;
            }
            Err(status) => tracing::debug!("the job service gives no metrics: {}", status.message()),
        }
    }

    /// Transforms go by their names, as in this program, not by their ids.
    fn named(&self, mut info: MonitoringInfo) -> MonitoringInfo {
        if let Some(label) = info.labels.get_mut(metric_labels::TRANSFORM)
            && let Some(name) = self.names.get(label)
        {
            label.clone_from(name);
        }
        info
    }

    async fn cancel(&self) {
        let request = self.request(api::CancelJobRequest {
            job_id: self.id.clone(),
        });
        if let Err(status) = self.client.clone().cancel(request).await {
            tracing::warn!(
                "the job service at {} does not cancel the job: {}",
                self.endpoint,
                status.message()
            );
        }
    }

    async fn drain(&self) -> Result<(), RunError> {
        let request = self.request(api::DrainJobRequest {
            job_id: self.id.clone(),
        });
        match self.client.clone().drain(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(RunError::Runner(format!(
                "the job service at {} does not drain the job, which goes on; it can be cancelled: {}",
                self.endpoint,
                status.message()
            ))),
        }
    }
}

/// A pipeline on a job service.
struct PortableRun {
    job: Arc<Job>,
}

impl RunningPipeline for PortableRun {
    fn state(&self) -> PipelineState {
        *self.job.state.borrow()
    }

    fn metrics(&self) -> MetricResults {
        if !*self.job.over.borrow() {
            let job = self.job.clone();
            // Where it fails, those known before are as good as any.
            let _ = block(async move { job.read_metrics().await });
        }
        self.job.metrics.lock().clone()
    }

    fn error(&self) -> Option<String> {
        self.job.error.lock().clone()
    }

    fn cancel(&self) {
        let job = self.job.clone();
        let _ = block(async move { job.cancel().await });
    }

    fn drain(&self) -> Result<(), RunError> {
        let job = self.job.clone();
        block(async move { job.drain().await })?
    }

    fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut over = self.job.over.subscribe();
        let wait = async move {
            let wait = over.wait_for(|over| *over);
            match at_most {
                None => wait.await.is_ok(),
                Some(at_most) => matches!(tokio::time::timeout(at_most, wait).await, Ok(Ok(_))),
            }
        };
        block(wait).unwrap_or(false)
    }
}
