//! Pipeline options: how and where a pipeline runs.
//!
//! A program has a struct of its own options with [`PipelineOptions`] in it:
//!
//! ```
//! use purlin::options::{self, PipelineOptions};
//!
//! /// Counts words.
//! #[derive(clap::Parser)]
//! struct Options {
//!     /// Files to read
//!     #[arg(long, default_value = "*.txt")]
//!     input: String,
//!     #[command(flatten)]
//!     pipeline: PipelineOptions,
//! }
//!
//! let args = ["wordcount", "--input=a.txt", "--runner=portablerunner", "--job-endpoint", "localhost:8099"];
//! let options: Options = options::try_parse_from(args)?;
//! assert_eq!(options.pipeline.job_endpoint.as_deref(), Some("localhost:8099"));
//! # Ok::<(), clap::Error>(())
//! ```
//!
//! `main` calls [`parse`]. Dashes and underscores are the same in names, `--name=value` and `--name value` both work,
//! an unknown option is an error that suggests the nearest, and `--help` lists all. Where a runner other than the
//! DirectRunner is named, an unknown `--name=value` may be an [option of the runner's](PipelineOptions::runner_options).
//!
//! A worker that is a process of its own is this same program, started by a runner. [`parse`] sees that, asks the
//! runner for the options that the pipeline was launched with, and returns those: the program then builds the same
//! pipeline again, and running it means to serve the runner. So what comes before `run` must be repeatable: the same
//! options, the same pipeline. `main` should do nothing there that only the launcher may do, and can tell by
//! [`in_worker`].

mod environment;
mod parse;
pub(crate) mod proto;
pub(crate) mod runner_options;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ValueEnum};

pub(crate) use environment::{EnvironmentChoice, OptionError};
pub use parse::{Parsed, parse, try_parse_from};

use crate::error::RunError;
pub use crate::harness::grpc::in_worker;

/// Which runner runs the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum RunnerKind {
    /// In this very process, with nothing else.
    #[default]
    #[value(name = "DirectRunner", alias = "direct")]
    Direct,
    /// A Beam Job Service, such as `purlin-job-service` or Flink's.
    #[value(name = "PortableRunner", alias = "portable")]
    Portable,
    /// As PortableRunner; without a job endpoint, a job service is started for the pipeline and stopped after it.
    #[value(name = "PrismRunner", alias = "prism")]
    Prism,
    /// A Flink cluster, by a job service that is started for the pipeline and stopped after it.
    #[value(name = "FlinkRunner", alias = "flink")]
    Flink,
}

/// Where a portable runner runs this program's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum EnvironmentType {
    /// In the process that submits the pipeline.
    #[value(name = "LOOPBACK")]
    Loopback,
    /// By a worker pool, such as `purlin-worker-pool`.
    #[value(name = "EXTERNAL")]
    External,
    /// In processes that the runner starts on its machine.
    #[value(name = "PROCESS")]
    Process,
    /// In containers that the runner starts.
    #[value(name = "DOCKER")]
    Docker,
}

impl EnvironmentType {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            EnvironmentType::Loopback => "LOOPBACK",
            EnvironmentType::External => "EXTERNAL",
            EnvironmentType::Process => "PROCESS",
            EnvironmentType::Docker => "DOCKER",
        }
    }
}

/// The options that Beam users know. See the [module](self) for how a program uses them.
#[derive(Clone, Debug, clap::Args)]
pub struct PipelineOptions {
    /// Who runs the pipeline: DirectRunner (in this process), PortableRunner (a Beam job service), PrismRunner (one that
    /// is started for it, unless --job_endpoint names one) or FlinkRunner (a Flink cluster, --flink_master). All but the
    /// first may have options of their own, as --NAME=VALUE: what this list does not have is taken for theirs, and refused
    /// if they do not have it
    #[arg(
        long = "runner",
        value_name = "RUNNER",
        value_enum,
        ignore_case = true,
        default_value_t,
        hide_possible_values = true,
        help_heading = HEADING
    )]
    pub runner: RunnerKind,

    /// Address of the job service as HOST:PORT; PortableRunner's default is localhost:8099
    #[arg(long = "job_endpoint", value_name = "HOST:PORT", help_heading = HEADING)]
    pub job_endpoint: Option<String>,

    /// Address to stage artifacts at; the one that the job service names by default
    #[arg(long = "artifact_endpoint", value_name = "HOST:PORT", help_heading = HEADING)]
    pub artifact_endpoint: Option<String>,

    /// Where a job service runs this program's code: LOOPBACK (this process, the default), EXTERNAL (a worker pool),
    /// PROCESS or DOCKER
    #[arg(
        long = "environment_type",
        value_name = "TYPE",
        value_enum,
        ignore_case = true,
        hide_possible_values = true,
        help_heading = HEADING
    )]
    pub environment_type: Option<EnvironmentType>,

    /// For EXTERNAL the pool's address, for DOCKER the image, for PROCESS a command or JSON with "command", "env",
    /// "os" and "arch" (this program by default)
    #[arg(long = "environment_config", value_name = "CONFIG", help_heading = HEADING)]
    pub environment_config: Option<String>,

    /// The same by name, repeatable: external_service_address=, docker_container_image=, process_command= or
    /// process_variables=A=1,B=2. Further ones for containers: docker_network= (host or bridge), docker_pull= (missing,
    /// always or never), docker_user=, docker_env=A=1, docker_memory=2G, docker_cpus=1.5
    #[arg(
        long = "environment_options",
        visible_alias = "environment_option",
        value_name = "NAME=VALUE",
        action = ArgAction::Append,
        help_heading = HEADING
    )]
    pub environment_options: Vec<String>,

    /// Folders and files for DOCKER workers, besides those that the options name, each as `SOURCE[:TARGET][:ro]`
    #[arg(
        long = "docker_mounts",
        help = "Folders and files for DOCKER workers, besides those that the options name: SOURCE[:TARGET][:ro], \
                comma-separated or repeated",
        visible_alias = "docker_mount",
        value_name = "MOUNTS",
        action = ArgAction::Append,
        value_delimiter = ',',
        help_heading = HEADING
    )]
    pub docker_mounts: Vec<String>,

    /// Name of the job in the job service; the program's name by default
    #[arg(long = "job_name", value_name = "NAME", help_heading = HEADING)]
    pub job_name: Option<String>,

    /// Workers that a job service starts per environment; 0 lets it choose
    #[arg(long = "sdk_worker_parallelism", value_name = "N", default_value_t = 1, help_heading = HEADING)]
    pub sdk_worker_parallelism: u32,

    /// How often a bundle is tried before the pipeline fails; 0 is endlessly
    #[arg(long = "max_attempts", value_name = "N", default_value_t = DEFAULT_MAX_ATTEMPTS, help_heading = HEADING)]
    pub max_attempts: u32,

    /// Threads of the DirectRunner; 0 is one per core
    #[arg(long = "direct_num_workers", value_name = "N", default_value_t = 0, help_heading = HEADING)]
    pub direct_num_workers: u32,

    /// Port of this machine on which the DirectRunner lets queryable state be read while the pipeline runs; 0 takes a free one
    #[arg(long = "state_port", value_name = "PORT", help_heading = HEADING)]
    pub state_port: Option<u16>,

    /// Experiments for the runner, comma-separated or repeated
    #[arg(
        long = "experiments",
        visible_alias = "experiment",
        value_name = "NAMES",
        action = ArgAction::Append,
        value_delimiter = ',',
        help_heading = HEADING
    )]
    pub experiments: Vec<String>,

    /// Tell the job service that this is a streaming pipeline
    #[arg(
        long = "streaming",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        hide_default_value = true,
        hide_possible_values = true,
        action = ArgAction::Set,
        help_heading = HEADING
    )]
    pub streaming: bool,

    /// Seconds that a job service may take to answer a request (not: to run the job)
    #[arg(
        long = "job_server_timeout",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = HEADING
    )]
    pub job_server_timeout: u64,

    /// FlinkRunner's cluster: HOST:PORT or URL of its REST API, several with commas between
    #[arg(long = "flink_master", value_name = "MASTERS", help_heading = HEADING)]
    pub flink_master: Option<String>,

    /// Beam's job server for that Flink, which is sent along with the job, or a folder of such; by default the folder in which
    /// Beam's Python SDK keeps them
    #[arg(long = "flink_job_server_jar", value_name = "PATH", help_heading = HEADING)]
    pub flink_job_server_jar: Option<PathBuf>,

    /// The job service that PrismRunner and FlinkRunner start; purlin-job-service, next to this program or on the PATH, by default
    #[arg(long = "prism_location", value_name = "FILE", help_heading = HEADING)]
    pub prism_location: Option<PathBuf>,

    /// Options of the runner's own, each as `NAME=VALUE` or, for a boolean one, `NAME`: those of the command line that the
    /// program does not have. When a pipeline is submitted, the runner is asked which options it has and of which types;
    /// an option that it does not have, or a value of another type, is an error. Several values of an array are given one
    /// by one.
    #[arg(skip = parse::for_the_runner())]
    pub runner_options: Vec<String>,

    /// What the command line said. [`parse`] fills it in.
    #[doc(hidden)]
    #[arg(skip = parse::current())]
    pub parsed: Parsed,
}

const HEADING: &str = "Pipeline options";
const DEFAULT_MAX_ATTEMPTS: u32 = 4;

/// Where PortableRunner looks for a job service.
pub(crate) const DEFAULT_JOB_ENDPOINT: &str = "localhost:8099";

impl Default for PipelineOptions {
    /// DirectRunner, and what else an empty command line gives.
    fn default() -> Self {
        PipelineOptions {
            runner: RunnerKind::default(),
            job_endpoint: None,
            artifact_endpoint: None,
            environment_type: None,
            environment_config: None,
            environment_options: Vec::new(),
            docker_mounts: Vec::new(),
            job_name: None,
            sdk_worker_parallelism: 1,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            direct_num_workers: 0,
            state_port: None,
            experiments: Vec::new(),
            streaming: false,
            job_server_timeout: 300,
            flink_master: None,
            flink_job_server_jar: None,
            prism_location: None,
            runner_options: Vec::new(),
            parsed: Parsed::default(),
        }
    }
}

impl PipelineOptions {
    /// Name of the job: `--job_name`, or the program's.
    pub fn job_name(&self) -> String {
        if let Some(name) = self.job_name.as_deref().filter(|name| !name.is_empty()) {
            return name.to_owned();
        }
        let program = std::env::current_exe().ok();
        let name = program.as_deref().and_then(|path| path.file_stem());
        name.map_or_else(
            || "pipeline".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// How many bundles the DirectRunner processes at a time: at least 1.
    pub fn direct_workers(&self) -> usize {
        match self.direct_num_workers {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n as usize,
        }
    }

    /// The value of an experiment: `Some("")` for one that is just named, `None` for one that is not.
    pub fn experiment(&self, name: &str) -> Option<&str> {
        self.experiments.iter().find_map(|experiment| {
            let (found, value) = experiment.split_once('=').unwrap_or((experiment, ""));
            (found == name).then_some(value)
        })
    }

    pub(crate) fn number<N: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
        of: &str,
    ) -> Result<Option<N>, RunError> {
        let parse = |text: &str| {
            text.parse().map_err(|e| {
                RunError::Runner(format!(
                    "--experiments={name}={text} is not a number of {of}: {e}"
                ))
            })
        };
        self.experiment(name).map(parse).transpose()
    }

    /// Names of the options that the program has.
    pub(crate) fn names(&self) -> &[String] {
        &self.parsed.inner.names
    }

    /// How long a job service may take to answer.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.job_server_timeout)
    }
}
