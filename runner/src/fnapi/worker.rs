//! A worker behind the Fn API.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use purlin_proto::fn_execution::{
    self as fnapi, instruction_request::Request, instruction_response::Response,
};
use purlin_proto::pipeline;
use purlin_proto::urns::runner_transforms;

use super::Connections;
use super::connection::WorkerConnection;
use crate::worker::{BundleOutcome, BundleWork, Worker, WorkerError};

/// A worker that answers nothing at all to its first instruction is told of after this time.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// So many transforms of a bundle are named.
const NAMED: usize = 5;

/// Resolves when a worker that has never answered anything has had the time for it.
async fn silence(connection: &WorkerConnection, connections: &Connections, awaited: &str) -> WorkerError {
    let most = connections.hang_timeout;
    let first = most.map_or(FIRST_WORD, |most| most.min(FIRST_WORD));
    connection.silent_for(first).await;
    let until = match most {
        Some(most) => format!(
            "until {} s have passed (--worker_hang_timeout)",
            most.as_secs_f64()
        ),
        None => "for ever (--worker_hang_timeout is off)".to_owned(),
    };
    let what = |time: Duration| {
        format!(
            "worker {} has connected, and answers nothing to its first instruction, {awaited}, for {} s",
            connection.name(),
            time.as_secs_f64()
        )
    };
    if connection.tells_silence() {
        let text = format!(
            "{}; it is awaited {until}; {}",
            what(first),
            connection.last_words()
        );
        connections.warn(&connection.identity(), text);
    }
    let Some(most) = most else {
        return std::future::pending().await;
    };
    connection.silent_for(most.saturating_sub(first)).await;
    let reason = format!(
        "{} (--worker_hang_timeout); its harness may have failed to start: look at its own log; {}",
        what(most),
        connection.last_words()
    );
    connection.lose(&reason);
    WorkerError::Start {
        environment: connection.identity().environment_id,
        reason,
    }
}

/// The names of what a bundle runs, the first few of them.
fn transforms(descriptor: &fnapi::ProcessBundleDescriptor) -> String {
    let runners = |urn: &str| urn == runner_transforms::DATA_SOURCE || urn == runner_transforms::DATA_SINK;
    let mut names: Vec<&str> = descriptor
        .transforms
        .values()
        .filter(|transform| !transform.spec.as_ref().is_some_and(|spec| runners(&spec.urn)))
        .map(|transform| transform.unique_name.as_str())
        .collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let names = names.join("\", \"");
    match more {
        0 => format!("\"{names}\""),
        more => format!("\"{names}\" and {more} more"),
    }
}

/// A worker that has been announced to the server by [`super::FnApiServer::expect`]. It can take bundles once
/// [`GrpcWorker::connected`] has resolved. Dropping it stops it.
pub struct GrpcWorker {
    connection: Arc<WorkerConnection>,
    connections: Arc<Connections>,
    on_stop: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl GrpcWorker {
    pub(crate) fn new(connection: Arc<WorkerConnection>, connections: Arc<Connections>) -> Self {
        Self {
            connection,
            connections,
            on_stop: Mutex::default(),
        }
    }

    /// The worker's id without its token, to be shown.
    pub fn id(&self) -> &str {
        self.connection.name()
    }

    /// Resolves when the worker's control stream has come, or it ended before, with the reason.
    pub async fn connected(&self) -> Result<(), String> {
        self.connection.life().connected().await
    }

    /// Tells that the worker is known to be gone (its process ended, say): its bundles fail at once.
    pub fn lose(&self, reason: &str) {
        self.connection.lose(reason);
    }

    /// A handle by which the worker can be declared lost.
    pub(crate) fn connection(&self) -> Arc<WorkerConnection> {
        self.connection.clone()
    }

    /// What [`Worker::stop`] awaits once the worker's streams have been closed: the end of its process, say.
    pub fn on_stop(&self, end: BoxFuture<'static, ()>) {
        *self.on_stop.lock() = Some(end);
    }

    fn ask<T: Send + 'static>(
        &self,
        request: Request,
        take: impl FnOnce(Response) -> Option<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, WorkerError>> {
        let connection = self.connection.clone();
        async move {
            let response = connection.ask(request).await?;
            take(response).ok_or_else(|| {
                WorkerError::Failed("the worker answered with another kind of response".into())
            })
        }
        .boxed()
    }

    fn detach(&self) {
        self.connection.stop();
        self.connections.workers.lock().remove(&self.connection.worker_id);
    }
}

impl Drop for GrpcWorker {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Worker for GrpcWorker {
    fn process(&self, work: BundleWork) -> BoxFuture<'static, Result<BundleOutcome, WorkerError>> {
        let (connection, connections) = (self.connection.clone(), self.connections.clone());
        if connection.was_heard() {
            return async move { connection.process(work).await }.boxed();
        }
        let awaited = format!("bundle {} of {}", work.instruction, transforms(&work.descriptor));
        async move {
            tokio::select! {
                biased;
                outcome = connection.process(work) => outcome,
                error = silence(&connection, &connections, &awaited) => Err(error),
            }
        }
        .boxed()
    }

    fn progress(
        &self,
        instruction: String,
    ) -> BoxFuture<'static, Result<Option<fnapi::ProcessBundleProgressResponse>, WorkerError>> {
        let connection = self.connection.clone();
        let hang = self.connections.hang_timeout;
        let instruction = connection.own(&instruction);
        async move {
            let request = fnapi::ProcessBundleProgressRequest {
                instruction_id: instruction.clone(),
            };
            let asked = connection.ask(Request::ProcessBundleProgress(request));
            let answer = match hang {
                Some(hang) => match tokio::time::timeout(hang, asked).await {
                    Ok(answer) => answer,
                    // Who never said a word has a limit of its own.
                    Err(_) if !connection.was_heard() => return Ok(None),
                    Err(_) => {
                        let seconds = hang.as_secs_f64();
                        connection.lose(&format!(
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
                Err(WorkerError::Failed(_)) if !connection.is_running(&instruction) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn split(
        &self,
        mut request: fnapi::ProcessBundleSplitRequest,
    ) -> BoxFuture<'static, Result<fnapi::ProcessBundleSplitResponse, WorkerError>> {
        request.instruction_id = self.connection.own(&request.instruction_id);
        self.ask(Request::ProcessBundleSplit(request), |response| match response {
            Response::ProcessBundleSplit(response) => Some(response),
            _ => None,
        })
    }

    fn finalize(&self, instruction: String) -> BoxFuture<'static, Result<(), WorkerError>> {
        let request = fnapi::FinalizeBundleRequest {
            instruction_id: self.connection.own(&instruction),
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
        let connection = self.connection.clone();
        async move { connection.status.ask().await }.boxed()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.detach();
        let end = self.on_stop.lock().take();
        async move {
            if let Some(end) = end {
                end.await;
            }
        }
        .boxed()
    }

    fn lost(&self) -> BoxFuture<'static, String> {
        let connection = self.connection.clone();
        async move { connection.life().lost().await }.boxed()
    }

    fn id(&self) -> Option<String> {
        Some(self.connection.name().to_owned())
    }

    fn is_reusable(&self) -> bool {
        self.connection.is_reusable()
    }

    fn adopt(&self, environment_id: &str, job_id: &str) {
        self.connection.adopt(environment_id, job_id);
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
        self.connections.log.log(&self.connection.identity(), &told);
    }
}
