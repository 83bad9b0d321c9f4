//! Runners: where a pipeline runs.

mod direct;
pub(crate) mod portable;
mod state_server;

use crate::error::RunError;
use crate::options::{PipelineOptions, RunnerKind};
use crate::pipeline::{BuiltPipeline, Pipeline};
use crate::result::{PipelineHandle, PipelineResult};

pub use direct::{DirectOptions, DirectRunner};

impl Pipeline {
    /// Runs the pipeline and waits for its end.
    ///
    /// # Errors
    /// When it cannot be built or run, fails, or is cancelled.
    pub fn run(&self, options: &PipelineOptions) -> Result<PipelineResult, RunError> {
        self.start(options)?.wait()
    }

    /// Starts the pipeline.
    ///
    /// # Errors
    /// When it cannot be built, or the runner does not take it.
    pub fn start(&self, options: &PipelineOptions) -> Result<PipelineHandle, RunError> {
        let built = self.build()?;
        let at_end = self.lock().at_end.clone();
        Ok(start(options, built)?.at_end(at_end))
    }
}

/// Starts a pipeline on the runner that these options name.
fn start(options: &PipelineOptions, built: BuiltPipeline) -> Result<PipelineHandle, RunError> {
    // In a worker, this serves the runner that started the process, and ends it.
    crate::harness::grpc::serve(&built.proto, &built.registry);
    match options.runner {
        RunnerKind::Direct => {
            let direct = DirectOptions {
                max_bundle_elements: options.number("max_bundle_elements", "elements")?,
                state_backed_iterable_bytes: options.number("state_backed_iterable_bytes", "bytes")?,
                max_attempts: Some(options.max_attempts),
                job_name: options.job_name(),
                parallelism: Some(options.direct_workers()),
                state_port: options.state_port,
                pipeline_options: options.to_struct(),
            };
            DirectRunner::start(built, &direct)
        }
        RunnerKind::Portable | RunnerKind::Prism | RunnerKind::Flink => portable::start(built, options),
    }
}
