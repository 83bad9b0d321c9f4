//! A worker behind the Fn API.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use futures::FutureExt;
use futures::future::BoxFuture;
use purlin_proto::fn_execution::{
    self as fnapi, instruction_request::Request, instruction_response::Response,
};
use purlin_proto::pipeline;

use super::link::Link;
use super::{Hub, lock};
use crate::worker::{BundleOutcome, BundleWork, Worker, WorkerError};

/// A worker that has been announced to the server by [`super::FnApiServer::expect`]. It can take bundles once
/// [`GrpcWorker::connected`] has resolved. Dropping it stops it.
pub struct GrpcWorker {
    link: Arc<Link>,
    hub: Arc<Hub>,
    on_stop: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl GrpcWorker {
    pub(crate) fn new(link: Arc<Link>, hub: Arc<Hub>) -> Self {
        Self {
            link,
            hub,
            on_stop: Mutex::default(),
        }
    }

    /// The worker's id.
    pub fn id(&self) -> &str {
        &self.link.worker_id
    }

    /// Resolves when the worker's control stream has come, or it ended before, with the reason.
    pub async fn connected(&self) -> Result<(), String> {
        self.link.connected().await
    }

    /// Tells that the worker is known to be gone (its process ended, say): its bundles fail at once.
    pub fn lose(&self, reason: &str) {
        self.link.lose(reason);
    }

    /// A handle by which the worker can be declared lost.
    pub(crate) fn link(&self) -> Arc<Link> {
        self.link.clone()
    }

    /// What [`Worker::stop`] awaits once the worker's streams have been closed: the end of its process, say.
    pub fn on_stop(&self, end: BoxFuture<'static, ()>) {
        *lock(&self.on_stop) = Some(end);
    }

    fn ask<T: Send + 'static>(
        &self,
        request: Request,
        take: impl FnOnce(Response) -> Option<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, WorkerError>> {
        let link = self.link.clone();
        async move {
            let response = link.ask(request).await?;
            take(response).ok_or_else(|| {
                WorkerError::Failed("the worker answered with another kind of response".into())
            })
        }
        .boxed()
    }

    fn detach(&self) {
        self.link.stop();
        lock(&self.hub.links).remove(&self.link.worker_id);
    }
}

impl Drop for GrpcWorker {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Worker for GrpcWorker {
    fn process(&self, work: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>> {
        let link = self.link.clone();
        async move { link.process(work).await }.boxed()
    }

    fn progress(
        &self,
        instruction: String,
    ) -> BoxFuture<'static, Result<Option<fnapi::ProcessBundleProgressResponse>, WorkerError>> {
        let link = self.link.clone();
        let hang = self.hub.hang_timeout;
        let instruction = link.own(&instruction);
        async move {
            let request = fnapi::ProcessBundleProgressRequest {
                instruction_id: instruction.clone(),
            };
            let asked = link.ask(Request::ProcessBundleProgress(request));
            let answer = match hang {
                Some(hang) => match tokio::time::timeout(hang, asked).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        let seconds = hang.as_secs_f64();
                        link.lose(&format!(
                            "it hangs: it has not answered a progress request for {seconds} s (--worker_hang_timeout)"
                        ));
                        return Ok(None);
                    }
                },
                None => asked.await,
            };
            match answer {
                Ok(Response::ProcessBundleProgress(response)) => {
                    let known = response != fnapi::ProcessBundleProgressResponse::default();
                    Ok(known.then_some(response))
                }
                Ok(_) => Err(WorkerError::Failed(
                    "the worker answered a progress request with another kind".into(),
                )),
                // A bundle that has just ended cannot tell.
                Err(WorkerError::Failed(_)) if !link.is_running(&instruction) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn split(
        &self,
        mut request: fnapi::ProcessBundleSplitRequest,
    ) -> BoxFuture<'static, Result<fnapi::ProcessBundleSplitResponse, WorkerError>> {
        request.instruction_id = self.link.own(&request.instruction_id);
        self.ask(Request::ProcessBundleSplit(request), |response| match response {
            Response::ProcessBundleSplit(response) => Some(response),
            _ => None,
        })
    }

    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>> {
        let request = fnapi::FinalizeBundleRequest {
            instruction_id: self.link.own(&instruction),
        };
        self.ask(Request::FinalizeBundle(request), |response| match response {
            Response::FinalizeBundle(_) => Some(()),
            _ => None,
        })
    }

    fn monitoring_infos(
        &self,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<(String, pipeline::MonitoringInfo)>, WorkerError>> {
        let request = fnapi::MonitoringInfosMetadataRequest {
            monitoring_info_id: ids,
        };
        self.ask(Request::MonitoringInfos(request), |response| match response {
            Response::MonitoringInfos(response) => Some(response.monitoring_info.into_iter().collect()),
            _ => None,
        })
    }

    fn samples(
        &self,
        request: fnapi::SampleDataRequest,
    ) -> BoxFuture<'static, Result<fnapi::SampleDataResponse, WorkerError>> {
        self.ask(Request::SampleData(request), |response| match response {
            Response::SampleData(response) => Some(response),
            _ => None,
        })
    }

    fn status(&self) -> BoxFuture<'static, Result<String, String>> {
        let link = self.link.clone();
        async move { link.status.ask().await }.boxed()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.detach();
        let end = lock(&self.on_stop).take();
        async move {
            if let Some(end) = end {
                end.await;
            }
        }
        .boxed()
    }

    fn lost(&self) -> BoxFuture<'static, String> {
        let link = self.link.clone();
        async move { link.lost().await }.boxed()
    }

    fn id(&self) -> Option<String> {
        Some(self.link.worker_id.clone())
    }

    fn is_reusable(&self) -> bool {
        self.link.is_reusable()
    }

    fn adopt(&self, environment_id: &str, job_id: &str) {
        self.link.adopt(environment_id, job_id);
        let told = fnapi::LogEntry {
            severity: fnapi::log_entry::severity::Enum::Info as i32,
            timestamp: Some(SystemTime::now().into()),
            message: format!(
                "worker {} of an earlier job, which had the same environment and options, serves this one",
                self.id()
            ),
            log_location: super::RUNNER_NOTE.to_owned(),
            ..Default::default()
        };
        self.hub.log.log(&self.link.identity(), &told);
    }
}
