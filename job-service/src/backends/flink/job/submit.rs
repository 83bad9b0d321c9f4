//! How a job comes to the cluster: its jar is made, uploaded and run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use purlin_net::machine_name;
use purlin_proto::pipeline::Pipeline;
use purlin_runner::job::{Importance, JobState};
use tempfile::TempPath;
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
    #[error(
        "Flink finds no Beam runner where --flink_jar_on_cluster says; that must be the path of Beam's job server for Flink on each machine \
         of the cluster, which Flink may read"
    )]
    NoRunner,
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
    /// What the user is told of folders that workers do not get.
    pub(in crate::backends::flink) unmounted: Option<String>,
    pub(in crate::backends::flink) store: Arc<Store>,
    pub(in crate::backends::flink) job_server_jar: Option<PathBuf>,
    pub(in crate::backends::flink) jar_on_cluster: Option<String>,
}

impl FlinkJob {
    pub(super) async fn course(&self, submission: Submission) {
        let submission = Arc::new(submission);
        if let Some(warning) = &submission.unmounted {
            self.tell(Importance::Warning, warning);
        }
        if let Some(path) = &submission.options.output_executable_path {
            return match self.write_to(path, &submission).await {
                Ok(()) => self.log.set(JobState::Done),
                Err(error) => self.fail(error.to_string()),
            };
        }
        let mut whole = false;
        loop {
            let (jar, request) = match self.uploaded(&submission, whole).await {
                Some(Ok(uploaded)) => uploaded,
                Some(Err(error)) => return self.fail(error.to_string()),
                None => return self.log.set(JobState::Cancelled),
            };
            match self.submit(&jar, &request).await {
                Ok(()) => {
                    self.submitted.store(true, Ordering::Release);
                    self.follow().await;
                }
                // It runs on this machine, but does not read the same files: in a container, or as another user.
                Err(SubmitError::NoRunner) if !whole && submission.jar_on_cluster.is_none() => whole = true,
                Err(error) => self.fail(error.to_string()),
            }
            self.delete(&jar).await;
            if self.log.current().state.is_terminal() {
                return;
            }
        }
    }

    /// What the job's jar is called on the cluster, by which a service that is started later finds it.
    pub(super) fn jar_name(&self) -> String {
        format!("{}.jar", self.id)
    }

    pub(super) async fn delete(&self, jar: &str) {
        if let Err(error) = self.cluster.delete_jar(jar).await {
            tracing::warn!("the jar {jar} of a job stays on the Flink cluster: {error}");
        }
    }

    /// Uploads the job's jar, unless the job is cancelled first; none: it was. It leaves nothing on the cluster then.
    async fn uploaded(
        &self,
        submission: &Arc<Submission>,
        whole: bool,
    ) -> Option<Result<(String, RunRequest), SubmitError>> {
        let mut wish = self.wish.subscribe();
        let upload = self.upload(submission, whole);
        tokio::pin!(upload);
        tokio::select! {
            uploaded = &mut upload => Some(uploaded),
            () = cancelled(&mut wish) => {
                // What was begun is brought to its end: a jar that nobody knows of would stay.
                if let Ok((jar, _)) = upload.await {
                    self.delete(&jar).await;
                }
                None
            }
        }
    }

    /// Brings the job's jar to the cluster. `whole`: with Beam's runner in it, though the cluster is on this machine.
    async fn upload(
        &self,
        submission: &Arc<Submission>,
        whole: bool,
    ) -> Result<(String, RunRequest), SubmitError> {
        let version = self.cluster.version().await?;
        let hosts = self.hosts().await?;
        if submission.loopback
            && let Some(host) = &hosts.elsewhere
        {
            return Err(SubmitError::Loopback { host: host.clone() });
        }
        let options = &submission.options;
        let request = RunRequest {
            entry_class: ENTRY_CLASS,
            job_id: self.id.clone(),
            parallelism: options.parallelism,
            savepoint_path: options.savepoint_path.clone(),
            allow_non_restored_state: options.allow_non_restored_state.then_some(true),
        };
        let runner = match &submission.jar_on_cluster {
            Some(path) => Runner::OnCluster(path.clone()),
            None => {
                let jar = jar::find(submission.job_server_jar.as_deref(), &version)?;
                match std::path::absolute(&jar) {
                    // 150 MB less to send, to store and to check on each machine, for each job.
                    Ok(path) if hosts.all_here() && !whole => Runner::OnCluster(path.display().to_string()),
                    _ => Runner::Here(jar),
                }
            }
        };
        let jar = written(submission, runner, std::env::temp_dir()).await?;
        let id = self.cluster.upload(&jar, &self.jar_name()).await?;
        self.tell(
            Importance::Detailed,
            format!(
                "uploaded the job's jar of {} to Flink at {}",
                megabytes(&jar),
                self.cluster.masters()
            ),
        );
        Ok((id, request))
    }

    /// Writes the job's jar to a file, to be run by other means.
    async fn write_to(&self, path: &Path, submission: &Arc<Submission>) -> Result<(), SubmitError> {
        let given = submission.job_server_jar.as_deref();
        let runner = match given.filter(|path| path.is_file()) {
            Some(jar) => jar.to_owned(),
            // Of several, that which the cluster's version asks for.
            None => jar::find(given, &self.cluster.version().await?)?,
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let jar = written(submission, Runner::Here(runner), folder.clone()).await?;
        let size = megabytes(&jar);
        jar.persist(&path)
            .map_err(|failed| jar::unwritable(&folder)(failed.error))?;
        self.tell(
            Importance::Basic,
            format!(
                "wrote {size} to {path}; `flink run {path}` runs the pipeline",
                path = path.display()
            ),
        );
        Ok(())
    }

    /// Where the TaskManagers are.
    async fn hosts(&self) -> Result<Hosts, SubmitError> {
        let hosts = self.cluster.hosts().await?;
        let any = !hosts.is_empty();
        // Names are asked for, which takes as long as it takes.
        let elsewhere = move || hosts.into_iter().find(|host| !is_here(host, &machine_name()));
        let elsewhere = tokio::task::spawn_blocking(elsewhere).await;
        Ok(Hosts {
            any,
            elsewhere: elsewhere.unwrap_or_default(),
        })
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
                RestError::Refused { message, .. }
                    if message.contains(&format!("ClassNotFoundException: {ENTRY_CLASS}")) =>
                {
                    return Err(SubmitError::NoRunner);
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

/// The hosts of a cluster's TaskManagers.
struct Hosts {
    /// Whether there are some.
    any: bool,
    /// One that is not this machine.
    elsewhere: Option<String>,
}

impl Hosts {
    fn all_here(&self) -> bool {
        self.any && self.elsewhere.is_none()
    }
}

/// The job's jar, in a temporary file of this folder.
async fn written(
    submission: &Arc<Submission>,
    runner: Runner,
    folder: PathBuf,
) -> Result<TempPath, JarError> {
    let runtime = Handle::current();
    let submission = submission.clone();
    let write = move || {
        let mut pipeline = submission.pipeline.clone();
        // Flink does neither itself, and not all SDKs do before they submit.
        if !submission.options.streaming {
            purlin_runner::translate::pack(&mut pipeline);
        }
        purlin_runner::translate::lift(&mut pipeline);
        let options = &submission.runner_options;
        jar::write(&runner, pipeline, options, &submission.store, &folder, &runtime)
    };
    tokio::task::spawn_blocking(write)
        .await
        .map_err(|_| JarError::Panicked)?
}

fn megabytes(jar: &Path) -> String {
    let bytes = std::fs::metadata(jar).map_or(0, |file| file.len());
    format!("{} MB", bytes.div_ceil(1_000_000))
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
