//! Runners: where a pipeline runs.

mod direct;
pub(crate) mod portable;

use crate::error::RunError;
use crate::options::PipelineOptions;
use crate::pipeline::Pipeline;
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
        Ok(options.start(built)?.at_end(at_end))
    }
}
