//! Pipelines that run, and what came of them.

use std::time::Duration;

pub use purlin_runner::job::JobState as PipelineState;

use crate::error::RunError;
use crate::metrics::MetricResults;
use crate::pipeline::AtEnd;

/// A pipeline that a runner runs. What runners implement.
pub trait RunningPipeline: Send + Sync {
    /// Where it is.
    fn state(&self) -> PipelineState;
    /// Its metrics so far.
    fn metrics(&self) -> MetricResults;
    /// Why it failed, if it did.
    fn error(&self) -> Option<String>;
    /// Asks it to stop at once.
    fn cancel(&self);
    /// Asks it to finish what it has begun.
    ///
    /// # Errors
    /// When the runner does not do so.
    fn drain(&self) -> Result<(), RunError>;
    /// Waits for its end, at most so long. True: it has ended.
    fn wait(&self, at_most: Option<Duration>) -> bool;
}

/// A pipeline that runs. Dropping the handle does not stop a pipeline on a service; it ends one in this process.
pub struct PipelineHandle {
    pipeline: Box<dyn RunningPipeline>,
    at_end: Vec<AtEnd>,
}

impl std::fmt::Debug for PipelineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PipelineHandle({:?})", self.state())
    }
}

impl PipelineHandle {
    /// The handle of a runner's pipeline.
    pub fn new(pipeline: impl RunningPipeline + 'static) -> PipelineHandle {
        PipelineHandle {
            pipeline: Box::new(pipeline),
            at_end: Vec::new(),
        }
    }

    /// Calls these when the pipeline has ended and somebody waits for it or drops the handle.
    pub(crate) fn at_end(mut self, at_end: Vec<AtEnd>) -> PipelineHandle {
        self.at_end = at_end;
        self
    }

    /// Where it is.
    pub fn state(&self) -> PipelineState {
        self.pipeline.state()
    }

    /// Its metrics so far.
    pub fn metrics(&self) -> MetricResults {
        self.pipeline.metrics()
    }

    /// Asks it to stop at once; [`PipelineHandle::wait`] tells when it has.
    pub fn cancel(&self) {
        self.pipeline.cancel();
    }

    /// Asks it to finish what it has begun: sources stop, windows end, and what was read is processed to its end.
    /// [`PipelineHandle::wait`] then gives a result whose state is [`PipelineState::Drained`].
    ///
    /// # Errors
    /// When the runner does not drain pipelines: the pipeline goes on as before.
    pub fn drain(&self) -> Result<(), RunError> {
        self.pipeline.drain()
    }

    /// Waits at most so long. True: it has ended. For progress bars: look at [`PipelineHandle::metrics`] in between.
    pub fn wait_for(&self, at_most: Duration) -> bool {
        self.pipeline.wait(Some(at_most))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it failed or was cancelled.
    pub fn wait(self) -> Result<PipelineResult, RunError> {
        self.pipeline.wait(None);
        match self.pipeline.state() {
            PipelineState::Failed => Err(RunError::Failed(
                self.pipeline
                    .error()
                    .unwrap_or_else(|| "the runner did not say why".to_owned()),
            )),
            PipelineState::Cancelled => Err(RunError::Cancelled),
            state => Ok(PipelineResult {
                state,
                metrics: self.pipeline.metrics(),
            }),
        }
    }
}

impl Drop for PipelineHandle {
    fn drop(&mut self) {
        if self.pipeline.state().is_terminal() {
            self.at_end.iter().for_each(|tidy| tidy());
        }
    }
}

/// A pipeline that ran to its end.
#[derive(Clone, Debug)]
pub struct PipelineResult {
    state: PipelineState,
    metrics: MetricResults,
}

impl PipelineResult {
    /// How it ended.
    pub fn state(&self) -> PipelineState {
        self.state
    }

    /// Its metrics.
    pub fn metrics(&self) -> &MetricResults {
        &self.metrics
    }
}
