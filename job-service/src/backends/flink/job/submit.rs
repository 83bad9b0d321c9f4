//! How a job comes to the cluster: its jar is made, uploaded and run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use purlin_net::machine_name;
use purlin_proto::pipeline::Pipeline;
use purlin_runner::job::{Importance, JobState};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{FlinkJob, PAUSE, Silence, Wish};
use crate::artifacts::Store;
use crate::backends::flink::jar::{self, ENTRY_CLASS, JarError, Runner};
use crate::backends::flink::options::FlinkOptions;
use crate::backends::flink::rest::{RestError, RunRequest};
use crate::backends::flink::trace::root_cause;

/// Why a job cannot be started.
#[derive(Debug, thiserror::Error)]
enum SubmitError {
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error(transparent)]
    Jar(#[from] JarError),
    #[error(
        "LOOPBACK workers run in the program that submits the pipeline, and only TaskManagers on its machine reach them; there is one on \
         {host}: use --environment_type=EXTERNAL --environment_config=localhost:5000 with a purlin-worker-pool beside each TaskManager, \
         or DOCKER"
    )]
    Loopback { host: String },
    #[error("{0}")]
    Translation(String),
}

/// What is to be run.
pub(in crate::backends::flink) struct Submission {
    pub(in crate::backends::flink) pipeline: Pipeline,
    /// As Beam's runner is given them.
    pub(in crate::backends::flink) runner_options: prost_types::Struct,
    pub(in crate::backends::flink) options: FlinkOptions,
    /// Whether workers run in the program that submits the pipeline.
    pub(in crate::backends::flink) loopback: bool,
    pub(in crate::backends::flink) store: Arc<Store>,
    pub(in crate::backends::flink) job_server_jar: Option<PathBuf>,
    pub(in crate::backends::flink) jar_on_cluster: Option<String>,
}

impl FlinkJob {
    pub(super) async fn course(&self, submission: Submission) {
        let mut wish = self.wish.subscribe();
        // Until it runs on the cluster, a job that is cancelled leaves nothing there but its jar, which goes, too.
        let jar = {
            let upload = self.upload(submission);
            tokio::pin!(upload);
            tokio::select! {
                uploaded = &mut upload => uploaded,
                () = cancelled(&mut wish) => {
                    // What was begun is brought to its end: a jar that nobody knows of would stay.
                    if let Ok((jar, _)) = upload.await {
                        self.delete(&jar).await;
                    }
                    return self.log.set(JobState::Cancelled);
                }
            }
        };
        let (jar, request) = match jar {
            Ok(uploaded) => uploaded,
            Err(error) => return self.fail(error.to_string()),
        };
        let started = self.submit(&jar, &request).await;
        match started {
            Ok(()) => {
                self.submitted.store(true, Ordering::Release);
                self.follow().await;
            }
            Err(error) => self.fail(error.to_string()),
        }
        self.delete(&jar).await;
    }

    async fn delete(&self, jar: &str) {
        if let Err(error) = self.cluster.delete_jar(jar).await {
            tracing::warn!("the jar {jar} of a job stays on the Flink cluster: {error}");
        }
    }

    /// Brings the job's jar to the cluster.
    async fn upload(&self, submission: Submission) -> Result<(String, RunRequest), SubmitError> {
        let version = self.cluster.version().await?;
        if submission.loopback {
            self.check_hosts().await?;
        }
        let options = &submission.options;
        let request = RunRequest {
            entry_class: ENTRY_CLASS,
            job_id: self.id.clone(),
            parallelism: options.parallelism,
            savepoint_path: options.savepoint_path.clone(),
            allow_non_restored_state: options.allow_non_restored_state.then_some(true),
        };
        let runtime = Handle::current();
        let write = move || -> Result<_, JarError> {
            let mut pipeline = submission.pipeline;
            // Flink lifts nothing itself, and not all SDKs do before they submit.
            purlin_runner::translate::lift(&mut pipeline);
            let runner = match submission.jar_on_cluster {
                Some(path) => Runner::OnCluster(path),
                None => Runner::Here(jar::find(submission.job_server_jar.as_deref(), &version)?),
            };
            jar::write(
                &runner,
                pipeline,
                &submission.runner_options,
                &submission.store,
                &runtime,
            )
        };
        let jar = tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| JarError::Panicked)??;
        let size = std::fs::metadata(&jar).map_or(0, |file| file.len());
        let id = self.cluster.upload(&jar).await?;
        self.tell(
            Importance::Detailed,
            format!(
                "uploaded the job's jar of {} MB to Flink at {}",
                size.div_ceil(1_000_000),
                self.cluster.masters()
            ),
        );
        Ok((id, request))
    }

    /// Refuses workers that not all TaskManagers reach.
    async fn check_hosts(&self) -> Result<(), SubmitError> {
        let hosts = self.cluster.hosts().await?;
        // Names are asked for, which takes as long as it takes.
        let elsewhere = move || hosts.into_iter().find(|host| !is_here(host, &machine_name()));
        match tokio::task::spawn_blocking(elsewhere).await {
            Ok(Some(host)) => Err(SubmitError::Loopback { host }),
            _ => Ok(()),
        }
    }

    /// Has the cluster run the jar. An answer that is lost does not run it twice: the job's id is its own.
    async fn submit(&self, jar: &str, request: &RunRequest) -> Result<(), SubmitError> {
        let mut silent = Silence::default();
        loop {
            let error = match self.cluster.run(jar, request).await {
                Ok(id) if id == self.id => return Ok(()),
                Ok(id) => {
                    return Err(SubmitError::Translation(format!(
                        "Flink gave the job the id {id}, not {}: what answers at {} is no Flink that Beam's runner knows",
                        self.id,
                        self.cluster.masters()
                    )));
                }
                Err(error) => error,
            };
            if let Ok(Some(_)) = self.cluster.status(&self.id).await {
                return Ok(());
            }
            match error {
                // A cluster without a leader refuses, too, and has one a little later.
                error if error.is_transient() && *self.wish.borrow() == Wish::Run => {
                    silent.heard(self, &error)
                }
                RestError::Refused { message, .. } => {
                    self.tell(Importance::Detailed, &*message);
                    return Err(SubmitError::Translation(root_cause(&message)));
                }
                error => return Err(error.into()),
            }
            sleep(PAUSE).await;
        }
    }
}

/// Resolves when a job is to be cancelled.
async fn cancelled(wish: &mut watch::Receiver<Wish>) {
    if wish.wait_for(|wish| *wish == Wish::Cancel).await.is_err() {
        std::future::pending().await
    }
}

/// Whether a host is this machine: by its name, or since an address of it can be listened on.
fn is_here(host: &str, own: &str) -> bool {
    use std::net::{TcpListener, ToSocketAddrs as _};
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare == own
        || (bare, 0u16)
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|address| TcpListener::bind(address).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::super::flink_id;
    use super::*;
    use crate::backends::flink::rest::Cluster;

    #[tokio::test]
    async fn a_cluster_without_a_leader_is_asked_again() {
        use std::sync::atomic::AtomicUsize;

        use axum::Json;
        use axum::http::StatusCode;
        use axum::routing::{get, post};
        use serde_json::{Value, json};

        let id = flink_id("job");
        let asked = Arc::new(AtomicUsize::new(0));
        let (own, counted) = (id.clone(), asked.clone());
        let run = post(async move || -> (StatusCode, Json<Value>) {
            match counted.fetch_add(1, Ordering::Relaxed) {
                0 => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    Json(json!({"errors": ["no leader"]})),
                ),
                _ => (StatusCode::OK, Json(json!({"jobid": own}))),
            }
        });
        let status = get(async || (StatusCode::NOT_FOUND, Json(json!({"errors": ["no such job"]}))));
        let router = axum::Router::new()
            .route("/v1/jars/{jar}/run", run)
            .route("/v1/jobs/{job}/status", status);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = Cluster::new(&listener.local_addr().unwrap().to_string()).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });

        let job = FlinkJob::on(Arc::new(cluster), id);
        job.submit("a.jar", &RunRequest::default()).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn this_machine_is_known_by_its_names_and_addresses() {
        assert!(
            is_here("localhost", "me")
                && is_here("me", "me")
                && is_here("127.0.0.1", "me")
                && is_here("[::1]", "me")
        );
        assert!(!is_here("192.0.2.1", "me"));
    }
}
