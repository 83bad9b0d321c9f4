//! A pipeline that must be run.

use std::cell::Cell;
use std::ops::Deref;

use super::passert::verify_assertions;
use crate::error::RunError;
use crate::options::PipelineOptions;
use crate::pipeline::Pipeline;
use crate::result::PipelineResult;

/// A pipeline for tests. It panics when it is dropped without a run, since a test that does not run tests nothing, and it
/// fails when a [`PAssert`](super::PAssert) of it was never looked at.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let numbers = p.apply(Create::new([1i64, 2, 3]));
/// PAssert::that(&numbers.apply(Sum::globally())).equals(6);
/// p.run();
/// ```
#[derive(Debug)]
pub struct TestPipeline {
    pipeline: Pipeline,
    options: PipelineOptions,
    ran: Cell<bool>,
}

impl TestPipeline {
    /// A pipeline without transforms, which runs in this process.
    pub fn new() -> TestPipeline {
        TestPipeline::with_options(PipelineOptions::default())
    }

    /// A pipeline without transforms, which runs as these options say.
    pub fn with_options(options: PipelineOptions) -> TestPipeline {
        TestPipeline {
            pipeline: Pipeline::new(),
            options,
            ran: Cell::new(false),
        }
    }

    /// How [`TestPipeline::run`] runs it.
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }

    /// Runs the pipeline.
    ///
    /// # Panics
    /// When it fails, with the error's message.
    #[track_caller]
    pub fn run(&self) -> PipelineResult {
        self.run_with(&self.options)
    }

    /// Runs the pipeline as the options say.
    ///
    /// # Panics
    /// When it fails, with the error's message.
    #[track_caller]
    pub fn run_with(&self, options: &PipelineOptions) -> PipelineResult {
        match self.try_run_with(options) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs the pipeline.
    ///
    /// # Errors
    /// When it fails.
    pub fn try_run(&self) -> Result<PipelineResult, RunError> {
        self.try_run_with(&self.options)
    }

    /// Runs the pipeline as the options say.
    ///
    /// # Errors
    /// When it fails.
    pub fn try_run_with(&self, options: &PipelineOptions) -> Result<PipelineResult, RunError> {
        self.ran.set(true);
        let built = self.pipeline.build()?;
        let result = self.pipeline.run(options)?;
        verify_assertions(&built, result.metrics())?;
        Ok(result)
    }
}

impl Default for TestPipeline {
    fn default() -> Self {
        TestPipeline::new()
    }
}

impl Deref for TestPipeline {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        &self.pipeline
    }
}

impl Drop for TestPipeline {
    fn drop(&mut self) {
        // A second panic would end the process and hide the first.
        if !self.ran.get() && !std::thread::panicking() {
            panic!("a TestPipeline was dropped without a run: call p.run() at the end of the test");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "dropped without a run")]
    fn a_pipeline_that_is_not_run_panics() {
        drop(TestPipeline::new());
    }
}
