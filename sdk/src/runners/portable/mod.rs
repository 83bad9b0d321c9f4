//! Runs a pipeline on a Beam Job Service.

use crate::error::RunError;
use crate::options::PipelineOptions;
use crate::pipeline::BuiltPipeline;
use crate::result::PipelineHandle;

pub(crate) fn start(_built: BuiltPipeline, options: &PipelineOptions) -> Result<PipelineHandle, RunError> {
    options.environment().map_err(|e| RunError::Runner(e.to_string()))?;
    Err(RunError::Runner("the portable runner is being written".into()))
}
