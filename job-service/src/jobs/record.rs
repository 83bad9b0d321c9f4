//! One job: prepared, running or over.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use purlin_proto::job_management as api;
use purlin_proto::pipeline::{self, Pipeline};
use purlin_runner::job::JobHandle;
use purlin_runner::translate::{Plan, plan};
use tokio::time::Instant;

use super::{JobError, MOST_PLANNED_BYTES, PipelineOptions, lock, state_to_proto};

/// One job.
pub(crate) struct JobRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) options: PipelineOptions,
    pub(crate) prepared_at: SystemTime,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Encoded, which takes a fraction of the memory; none when it is forgotten.
    pipeline: Option<Bytes>,
    stage: Stage,
}

/// How far a job is.
enum Stage {
    Prepared {
        /// None: it is made when the job is run.
        plan: Option<Box<Plan>>,
        /// When the client was last heard of.
        heard: Instant,
    },
    Cancelled {
        at: SystemTime,
    },
    Started {
        handle: JobHandle,
    },
}

impl JobRecord {
    pub(super) fn new(
        id: String,
        name: String,
        options: PipelineOptions,
        pipeline: Bytes,
        plan: Plan,
    ) -> Self {
        let plan = kept(plan, &pipeline);
        let stage = Stage::Prepared {
            plan,
            heard: Instant::now(),
        };
        Self {
            id,
            name,
            options,
            prepared_at: SystemTime::now(),
            inner: Mutex::new(Inner {
                pipeline: Some(pipeline),
                stage,
            }),
        }
    }

    /// The running, or ended, job; none before Run.
    pub(crate) fn handle(&self) -> Option<JobHandle> {
        match &lock(&self.inner).stage {
            Stage::Started { handle } => Some(handle.clone()),
            _ => None,
        }
    }

    /// Its state, and since when.
    pub(crate) fn state(&self) -> (api::job_state::Enum, SystemTime) {
        match &lock(&self.inner).stage {
            Stage::Prepared { .. } => (api::job_state::Enum::Stopped, self.prepared_at),
            Stage::Cancelled { at } => (api::job_state::Enum::Cancelled, *at),
            Stage::Started { handle } => {
                let now = *handle.watch().borrow();
                (state_to_proto(now.state), now.at)
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        match &lock(&self.inner).stage {
            Stage::Prepared { .. } => false,
            Stage::Cancelled { .. } => true,
            Stage::Started { handle } => handle.state().is_terminal(),
        }
    }

    pub(super) fn is_prepared(&self) -> bool {
        matches!(lock(&self.inner).stage, Stage::Prepared { .. })
    }

    /// The pipeline, unless it is forgotten. Takes long where it is large.
    pub(crate) fn pipeline(&self) -> Option<Pipeline> {
        let encoded = lock(&self.inner).pipeline.clone()?;
        // What was encoded here can be decoded.
        Pipeline::decode(encoded).ok()
    }

    /// Bytes, about, that are kept in memory for it beside what it runs on.
    pub(super) fn bytes(&self) -> usize {
        let inner = lock(&self.inner);
        let more = match &inner.stage {
            Stage::Started { handle } => handle.kept_bytes(),
            _ => 0,
        };
        inner.pipeline.as_ref().map_or(0, Bytes::len) + self.options.bytes() + more
    }

    pub(super) fn forget_pipeline(&self) {
        lock(&self.inner).pipeline = None;
    }

    /// Notes that its client still prepares it. False: it is not, or no longer, a prepared job.
    pub(super) fn heard_of(&self) -> bool {
        match &mut lock(&self.inner).stage {
            Stage::Prepared { heard, .. } => {
                *heard = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Whether it is prepared and its client was not heard of for so long; then it cannot be run any more.
    pub(super) fn expire(&self, timeout: Duration) -> bool {
        let stage = &mut lock(&self.inner).stage;
        let expired = matches!(stage, Stage::Prepared { heard, .. } if heard.elapsed() >= timeout);
        if expired {
            *stage = Stage::Cancelled {
                at: SystemTime::now(),
            };
        }
        expired
    }

    /// Starts it. The plan is made outside of the lock, where it takes long.
    pub(super) fn start(&self, start: impl FnOnce(Plan) -> JobHandle) -> Result<JobHandle, JobError> {
        let twice = || JobError::RunTwice { id: self.id.clone() };
        loop {
            let (encoded, ready) = {
                let mut inner = lock(&self.inner);
                let Stage::Prepared { plan, .. } = &mut inner.stage else {
                    return Err(twice());
                };
                let plan = plan.take();
                (inner.pipeline.clone().ok_or_else(twice)?, plan)
            };
            let ready = match ready {
                Some(plan) => *plan,
                None => {
                    let pipeline = Pipeline::decode(encoded.clone()).map_err(|_| twice())?;
                    plan(&pipeline, &self.options.plan_options()).map_err(JobError::invalid)?
                }
            };
            let mut inner = lock(&self.inner);
            if !matches!(inner.stage, Stage::Prepared { .. }) {
                return Err(twice());
            }
            if inner.pipeline.as_ref() != Some(&encoded) {
                // Its artifacts have been staged in the meantime.
                continue;
            }
            let handle = start(ready);
            inner.stage = Stage::Started {
                handle: handle.clone(),
            };
            return Ok(handle);
        }
    }

    /// Takes what was staged into the pipeline. Takes long where that is large.
    pub(super) fn staged(
        &self,
        mut dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
    ) -> Result<(), JobError> {
        let twice = || JobError::RunTwice { id: self.id.clone() };
        if !self.is_prepared() {
            return Err(twice());
        }
        if dependencies.values().all(Vec::is_empty) {
            return Ok(());
        }
        let mut pipeline = self.pipeline().ok_or_else(twice)?;
        for (id, environment) in pipeline.components.iter_mut().flat_map(|c| &mut c.environments) {
            if let Some(staged) = dependencies.remove(id) {
                environment.dependencies = staged;
            }
        }
        let planned = plan(&pipeline, &self.options.plan_options()).map_err(JobError::invalid)?;
        let encoded = Bytes::from(pipeline.encode_to_vec());
        let mut inner = lock(&self.inner);
        let Stage::Prepared { plan, heard } = &mut inner.stage else {
            return Err(twice());
        };
        *plan = kept(planned, &encoded);
        *heard = Instant::now();
        inner.pipeline = Some(encoded);
        Ok(())
    }

    /// Cancels it. True: it had not been run.
    pub(super) fn cancel(&self) -> bool {
        let stage = &mut lock(&self.inner).stage;
        match stage {
            Stage::Started { handle } => {
                handle.cancel();
                false
            }
            Stage::Prepared { .. } => {
                *stage = Stage::Cancelled {
                    at: SystemTime::now(),
                };
                true
            }
            Stage::Cancelled { .. } => false,
        }
    }
}

/// The plan, if the pipeline is not too large to keep it.
fn kept(plan: Plan, pipeline: &Bytes) -> Option<Box<Plan>> {
    (pipeline.len() <= MOST_PLANNED_BYTES).then(|| Box::new(plan))
}
