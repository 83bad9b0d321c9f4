//! The back end that runs jobs on a Flink cluster.
//!
//! A pipeline goes to the cluster's REST API in a jar with Beam's own runner for Flink, which translates it there; no Java process runs
//! here. User code runs in the workers that the pipeline's environments name, which the TaskManagers start or reach.
//!
//! | module | does |
//! |---|---|
//! | `options` | which cluster, and what Beam's runner is told |
//! | `preflight` | refuses what Beam's runner cannot do, before anything is uploaded |
//! | `jar`, `json` | make the jar |
//! | `rest` | speaks to the cluster |
//! | `job`, `trace` | submit, follow, cancel and drain a job; tell its failures, root cause first |

mod jar;
mod job;
mod json;
mod options;
mod preflight;
mod rest;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::Struct;
use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_proto::pipeline::Pipeline;
use purlin_runner::job::JobSettings;
use purlin_runner::options::in_launcher;
use tonic::async_trait;

use self::job::FlinkJob;
use self::options::{FlinkOptions, Master, master};
use self::rest::{Cluster, RestError};
use super::{Backend, Prepared, Recovered, RunningJob, Submission};
use crate::artifacts::Store;
use crate::aside::aside;
use crate::jobs::JobError;
use crate::pipeline_options::PipelineOptions;

/// How long a cluster may take to say which jobs it runs when the service starts.
const RECOVER: Duration = Duration::from_secs(10);

/// Why the cluster that a service is given cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{0}")]
pub struct FlinkSettingError(String);

/// Runs jobs on Flink clusters.
pub(crate) struct Flink {
    /// The cluster that jobs run on which say nothing else.
    default: Option<Arc<Cluster>>,
    /// Beam's job server for Flink, or a folder of them.
    job_server_jar: Option<PathBuf>,
    /// Where that is on each machine of the cluster, if it is.
    jar_on_cluster: Option<String>,
    store: Arc<Store>,
}

impl Flink {
    /// A back end whose default cluster, if there is one, is given by its masters with commas between.
    pub(crate) fn new(
        masters: Option<&str>,
        job_server_jar: Option<PathBuf>,
        jar_on_cluster: Option<String>,
        store: Arc<Store>,
    ) -> Result<Self, FlinkSettingError> {
        let default = masters.map(Cluster::new).transpose();
        let default = default
            .map_err(|error| FlinkSettingError(error.to_string()))?
            .map(Arc::new);
        Ok(Self {
            default,
            job_server_jar,
            jar_on_cluster,
            store,
        })
    }
}

#[async_trait]
impl Backend for Flink {
    fn name(&self) -> &'static str {
        "flink"
    }

    fn takes(&self, options: &PipelineOptions) -> bool {
        let values = options.values();
        match master(&values) {
            _ if options::output_executable_path(&values).is_some() => true,
            Master::Default => self.default.is_some(),
            Master::Local => false,
            Master::At(_) => true,
        }
    }

    fn options(&self) -> Vec<PipelineOptionDescriptor> {
        options::described()
    }

    async fn prepare(&self, job: Submission) -> Result<Box<dyn Prepared>, JobError> {
        let values = job.options.values();
        let wrong = |error: RestError| JobError::Option {
            option: "flink_master".into(),
            reason: error.to_string(),
        };
        let options = FlinkOptions::read(&values)?;
        let loopback = in_launcher(&values.0);
        if options.output_executable_path.is_some() {
            check_output(loopback, job.from_elsewhere)?;
        }
        let cluster = match (master(&values), &self.default) {
            (Master::At(masters), _) => Arc::new(Cluster::new(&masters).map_err(wrong)?),
            (_, Some(cluster)) => cluster.clone(),
            // Only a cluster says which of several runners fits.
            (_, None) if self.job_server_jar.as_ref().is_some_and(|jar| jar.is_file()) => {
                Arc::new(Cluster::none().map_err(wrong)?)
            }
            (_, None) => {
                return Err(JobError::Option {
                    option: "flink_master".into(),
                    reason: "it names no cluster, and --flink_job_server_jar of the service no file that would do for any".into(),
                });
            }
        };
        let (pipeline, streaming) = (job.pipeline, options.streaming);
        let unmounted = preflight::unmounted(&pipeline, &values);
        let checked = aside(move || (preflight::problems(&pipeline, streaming), pipeline));
        let (problems, pipeline) = checked.await?;
        if !problems.is_empty() {
            return Err(JobError::Invalid {
                problems: problems.join("\n"),
            });
        }
        Ok(Box::new(PreparedJob {
            cluster,
            loopback,
            unmounted,
            options,
            all: job.options,
            pipeline,
            job_server_jar: self.job_server_jar.clone(),
            jar_on_cluster: self.jar_on_cluster.clone(),
            store: self.store.clone(),
        }))
    }

    async fn recover(&self) -> Vec<Recovered> {
        let Some(cluster) = &self.default else {
            return Vec::new();
        };
        let found = tokio::time::timeout(RECOVER, cluster.running_jobs()).await;
        let running = match found {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => {
                tracing::warn!("{error}; jobs that ran before are not found again");
                return Vec::new();
            }
            Err(_) => {
                tracing::warn!("Flink at {} does not say which jobs it runs", cluster.masters());
                return Vec::new();
            }
        };
        // Ours are called by our id, from which their id in Flink follows.
        let ours = running
            .into_iter()
            .filter(|(id, name)| *id == job::flink_id(name));
        let again = ours.map(|(flink_id, id)| Recovered {
            name: name_of(&id).to_owned(),
            options: PipelineOptions::new(Struct::default()),
            pipeline: None,
            prepared_at: SystemTime::now(),
            job: FlinkJob::follow_again(flink_id, cluster.clone()),
            id,
        });
        again.collect()
    }
}

/// Refuses to write a jar that could not be run, and files for those who may not write them.
fn check_output(loopback: bool, from_elsewhere: bool) -> Result<(), JobError> {
    let wrong = |reason: &str| {
        Err(JobError::Option {
            option: options::OUTPUT_EXECUTABLE_PATH.into(),
            reason: reason.into(),
        })
    };
    if from_elsewhere {
        return wrong(
            "it is a file of the service's machine, and this client is on another one; submit the job to a service beside it",
        );
    }
    if loopback {
        return wrong(
            "LOOPBACK workers end with the program that submits the pipeline, and the jar is run later; give another --environment_type",
        );
    }
    Ok(())
}

/// A job's name, of its id.
fn name_of(id: &str) -> &str {
    id.rsplitn(3, '-').nth(2).unwrap_or(id)
}

struct PreparedJob {
    cluster: Arc<Cluster>,
    pipeline: Pipeline,
    options: FlinkOptions,
    all: PipelineOptions,
    loopback: bool,
    /// What the user is told of folders that containers do not get.
    unmounted: Option<String>,
    job_server_jar: Option<PathBuf>,
    jar_on_cluster: Option<String>,
    store: Arc<Store>,
}

impl Prepared for PreparedJob {
    fn run(self: Box<Self>, settings: JobSettings) -> Arc<dyn RunningJob> {
        let submission = job::Submission {
            runner_options: options::for_runner(&self.all, &settings.job_id),
            pipeline: self.pipeline,
            options: self.options,
            loopback: self.loopback,
            unmounted: self.unmounted,
            store: self.store,
            job_server_jar: self.job_server_jar,
            jar_on_cluster: self.jar_on_cluster,
        };
        FlinkJob::start(&settings.job_id, self.cluster, submission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_begins_with_the_jobs_name() {
        assert_eq!(name_of("word-count-3-0a1b2c3d"), "word-count");
        assert_eq!(name_of("x"), "x");
    }

    #[test]
    fn a_jar_is_written_for_clients_of_this_machine_whose_workers_stay() {
        assert!(check_output(false, false).is_ok());
        let refused =
            |loopback, from_elsewhere| check_output(loopback, from_elsewhere).unwrap_err().to_string();
        assert!(refused(false, true).contains("this client is on another one"));
        assert!(refused(true, false).contains("give another --environment_type"));
    }
}
