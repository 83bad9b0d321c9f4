//! Runs a pipeline in this process: the same engine, no service, no gRPC.

use std::sync::Arc;
use std::time::Duration;

use purlin_runner::job::{Job, JobHandle, JobSettings};
use purlin_runner::translate::{PlanOptions, plan};
use tokio::runtime::Runtime;

use crate::error::RunError;
use crate::harness::embedded::EmbeddedFactory;
use crate::metrics::MetricResults;
use crate::pipeline::BuiltPipeline;
use crate::result::{PipelineHandle, PipelineState, RunningPipeline};
use crate::runners::state_server::StateServer;

/// URN of the environment that is this process.
const EMBEDDED: &str = "purlin:env:embedded:v1";

/// How [`DirectRunner`] runs.
#[derive(Clone, Debug, Default)]
pub struct DirectOptions {
    /// Name of the job, for messages.
    pub job_name: String,
    /// So many bundles are processed at the same time. `None`: as many as there are processors.
    pub parallelism: Option<usize>,
    /// A bundle has so many elements at most. `None`: the engine chooses.
    pub max_bundle_elements: Option<u64>,
    /// A bundle is tried so often before the pipeline fails; 0 is endlessly. `None`: 4 times.
    pub max_attempts: Option<u32>,
    /// The values of a key that a GroupByKey gives stay with the runner, to be read page by page, where they are more bytes
    /// than this. `None`: 16 MiB.
    pub state_backed_iterable_bytes: Option<usize>,
    /// Port of this machine alone on which state that the pipeline made queryable can be read while it runs; 0 takes a free one.
    /// `None`: it cannot be read.
    pub state_port: Option<u16>,
    /// Pipeline options as the job sees them.
    pub pipeline_options: prost_types::Struct,
}

/// Runs pipelines in this process, on threads of its own.
pub struct DirectRunner;

impl DirectRunner {
    /// Starts a pipeline.
    ///
    /// # Errors
    /// When the runner cannot run it.
    pub fn start(mut built: BuiltPipeline, options: &DirectOptions) -> Result<PipelineHandle, RunError> {
        built.set_environment(EMBEDDED, Vec::new());
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slots = options.parallelism.unwrap_or(processors).max(1);
        let plan_options = PlanOptions {
            workers: 1,
            slots_per_worker: u32::try_from(slots).unwrap_or(u32::MAX),
            ..PlanOptions::default()
        };
        let mut plan_options = plan_options;
        if let Some(most) = options.state_backed_iterable_bytes {
            plan_options.state_backed_iterable_bytes = most;
        }
        // Bundles cost little where nothing travels to a worker, and slots are threads.
        plan_options.engine.few_elements = 1_000;
        if let Some(most) = options.max_bundle_elements {
            plan_options.engine.max_bundle_elements = most.max(1);
            plan_options.engine.min_bundle_elements = 1;
            plan_options.engine.few_elements = 1;
        }
        if let Some(attempts) = options.max_attempts {
            plan_options.engine.max_attempts = if attempts == 0 { u32::MAX } else { attempts };
        }
        let plan = plan(&built.proto, &plan_options).map_err(|e| RunError::Translate(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("purlin-runner")
            .enable_all()
            .build()
            .map_err(|e| RunError::Runner(format!("cannot start threads: {e}")))?;
        let listener = match options.state_port {
            Some(port) => Some(StateServer::listen(&runtime, port)?),
            None => None,
        };
        let settings = JobSettings {
            job_id: "direct".to_owned(),
            job_name: options.job_name.clone(),
            pipeline_options: options.pipeline_options.clone(),
            ..JobSettings::default()
        };
        let job = {
            let _inside = runtime.enter();
            Job::start(plan, Arc::new(EmbeddedFactory::new(built.registry)), settings)
        };
        if let Some(listener) = listener {
            listener.serve(&runtime, job.clone());
        }
        Ok(PipelineHandle::new(DirectRun {
            job,
            runtime: Some(runtime),
        }))
    }
}

struct DirectRun {
    job: JobHandle,
    runtime: Option<Runtime>,
}

impl RunningPipeline for DirectRun {
    fn state(&self) -> PipelineState {
        self.job.state()
    }

    fn metrics(&self) -> MetricResults {
        let metrics = self.job.metrics();
        MetricResults::new(&metrics.attempted, &metrics.committed)
    }

    fn error(&self) -> Option<String> {
        self.job.error()
    }

    fn cancel(&self) {
        self.job.cancel();
    }

    fn drain(&self) -> Result<(), RunError> {
        self.job.drain();
        Ok(())
    }

    fn wait(&self, at_most: Option<Duration>) -> bool {
        let Some(runtime) = &self.runtime else { return true };
        let job = self.job.clone();
        // Not `block_on` here: the caller may be a task of another runtime, where blocking is its own affair but
        // entering a second runtime panics.
        let (done, ended) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            job.wait().await;
            // The waiter may have given up.
            let _ = done.send(());
        });
        match at_most {
            None => ended.recv().is_ok() || self.state().is_terminal(),
            Some(at_most) => ended.recv_timeout(at_most).is_ok(),
        }
    }
}

impl Drop for DirectRun {
    fn drop(&mut self) {
        if !self.state().is_terminal() {
            self.job.cancel();
            self.wait(None);
        }
        if let Some(runtime) = self.runtime.take() {
            // Works inside other runtimes, too, unlike a plain drop.
            runtime.shutdown_background();
        }
    }
}
