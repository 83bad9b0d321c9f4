//! One job: prepared, running or over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use purlin_proto::job_management as api;
use purlin_proto::pipeline::{self, Pipeline};
use purlin_runner::job::JobSettings;
use tokio::time::Instant;

use super::{JobError, state_to_proto};
use crate::aside::aside;
use crate::backends::{Backend, Prepared, Recovered, RunningJob, Submission};
use crate::pipeline_options::PipelineOptions;

/// What a back end made of a pipeline of so many bytes, encoded, is kept from Prepare to Run: it is several times as large. That of
/// larger ones is made again.
pub(super) const MAX_READY_BYTES: usize = 128 << 10;

/// One job.
pub(crate) struct JobRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) options: PipelineOptions,
    pub(crate) prepared_at: SystemTime,
    /// What runs it.
    backend: Arc<dyn Backend>,
    /// Whether its client is on another machine, or may be.
    from_elsewhere: bool,
    inner: Mutex<Inner>,
}

/// A job that is new to the service, before it has an id.
pub(super) struct NewJob {
    pub(super) name: String,
    pub(super) options: PipelineOptions,
    /// Encoded.
    pub(super) pipeline: Bytes,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) from_elsewhere: bool,
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
        ready: Option<Box<dyn Prepared>>,
        /// When the client was last heard of.
        heard: Instant,
    },
    Cancelled {
        at: SystemTime,
    },
    Started {
        job: Arc<dyn RunningJob>,
    },
}

impl JobRecord {
    /// Checks a pipeline, and takes it under an id.
    pub(super) async fn prepare(id: String, new: NewJob, pipeline: Pipeline) -> Result<Self, JobError> {
        let record = Self {
            id,
            name: new.name,
            options: new.options,
            prepared_at: SystemTime::now(),
            backend: new.backend,
            from_elsewhere: new.from_elsewhere,
            inner: Mutex::new(Inner {
                pipeline: Some(new.pipeline.clone()),
                stage: Stage::Prepared {
                    ready: None,
                    heard: Instant::now(),
                },
            }),
        };
        let made = record.ready(pipeline).await?;
        record.inner.lock().stage = Stage::Prepared {
            ready: kept(made, &new.pipeline),
            heard: Instant::now(),
        };
        Ok(record)
    }

    /// A job that an earlier service left running.
    pub(super) fn recovered(job: Recovered, backend: Arc<dyn Backend>) -> Self {
        Self {
            id: job.id,
            name: job.name,
            options: job.options,
            prepared_at: job.prepared_at,
            backend,
            // It is not prepared again.
            from_elsewhere: true,
            inner: Mutex::new(Inner {
                pipeline: job.pipeline,
                stage: Stage::Started { job: job.job },
            }),
        }
    }

    /// What runs it.
    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The running, or ended, job; none before Run.
    pub(crate) fn job(&self) -> Option<Arc<dyn RunningJob>> {
        match &self.inner.lock().stage {
            Stage::Started { job } => Some(job.clone()),
            _ => None,
        }
    }

    /// Its state, and since when.
    pub(crate) fn state(&self) -> (api::job_state::Enum, SystemTime) {
        match &self.inner.lock().stage {
            Stage::Prepared { .. } => (api::job_state::Enum::Stopped, self.prepared_at),
            Stage::Cancelled { at } => (api::job_state::Enum::Cancelled, *at),
            Stage::Started { job } => {
                let now = job.log().current();
                (state_to_proto(now.state), now.at)
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        match &self.inner.lock().stage {
            Stage::Prepared { .. } => false,
            Stage::Cancelled { .. } => true,
            Stage::Started { job } => job.log().current().state.is_terminal(),
        }
    }

    pub(super) fn is_prepared(&self) -> bool {
        matches!(self.inner.lock().stage, Stage::Prepared { .. })
    }

    /// The pipeline, unless it is forgotten.
    pub(crate) async fn pipeline(&self) -> Result<Option<Pipeline>, JobError> {
        let Some(encoded) = self.inner.lock().pipeline.clone() else {
            return Ok(None);
        };
        // What was encoded here can be decoded.
        aside(move || Pipeline::decode(encoded).ok()).await
    }

    fn encoded_if_prepared(&self) -> Option<Bytes> {
        let inner = self.inner.lock();
        matches!(inner.stage, Stage::Prepared { .. })
            .then(|| inner.pipeline.clone())
            .flatten()
    }

    /// Bytes, about, that are kept in memory for it beside what it runs on.
    pub(super) fn bytes(&self) -> usize {
        let inner = self.inner.lock();
        let more = match &inner.stage {
            Stage::Started { job } => job.kept_bytes(),
            _ => 0,
        };
        inner.pipeline.as_ref().map_or(0, Bytes::len) + self.options.bytes() + more
    }

    pub(super) fn forget_pipeline(&self) {
        self.inner.lock().pipeline = None;
    }

    /// Notes that its client still prepares it. False: it is not, or no longer, a prepared job.
    pub(super) fn heard_of(&self) -> bool {
        match &mut self.inner.lock().stage {
            Stage::Prepared { heard, .. } => {
                *heard = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Whether it is prepared and its client was not heard of for so long; then it cannot be run any more.
    pub(super) fn expire(&self, timeout: Duration) -> bool {
        let stage = &mut self.inner.lock().stage;
        let expired = matches!(stage, Stage::Prepared { heard, .. } if heard.elapsed() >= timeout);
        if expired {
            *stage = Stage::Cancelled {
                at: SystemTime::now(),
            };
        }
        expired
    }

    /// Has the back end look at a pipeline of this job.
    async fn ready(&self, pipeline: Pipeline) -> Result<Box<dyn Prepared>, JobError> {
        let submission = Submission {
            pipeline,
            options: self.options.clone(),
            from_elsewhere: self.from_elsewhere,
        };
        self.backend.prepare(submission).await
    }

    /// Starts it. What its back end needs is made outside of the lock, where it takes long.
    pub(super) async fn start(&self, settings: JobSettings) -> Result<Arc<dyn RunningJob>, JobError> {
        let twice = || JobError::RunTwice { id: self.id.clone() };
        loop {
            let (encoded, ready) = {
                let mut inner = self.inner.lock();
                let Stage::Prepared { ready, .. } = &mut inner.stage else {
                    return Err(twice());
                };
                let ready = ready.take();
                (inner.pipeline.clone().ok_or_else(twice)?, ready)
            };
            let ready = match ready {
                Some(ready) => ready,
                None => {
                    let encoded = encoded.clone();
                    let pipeline = aside(move || Pipeline::decode(encoded)).await?;
                    self.ready(pipeline.map_err(|_| twice())?).await?
                }
            };
            let mut inner = self.inner.lock();
            if !matches!(inner.stage, Stage::Prepared { .. }) {
                return Err(twice());
            }
            if inner.pipeline.as_ref() != Some(&encoded) {
                // Its artifacts have been staged in the meantime.
                continue;
            }
            let job = ready.run(settings);
            inner.stage = Stage::Started { job: job.clone() };
            return Ok(job);
        }
    }

    /// Takes what was staged into the pipeline.
    pub(super) async fn staged(
        &self,
        dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
    ) -> Result<(), JobError> {
        let twice = || JobError::RunTwice { id: self.id.clone() };
        if dependencies.values().all(Vec::is_empty) {
            return if self.is_prepared() { Ok(()) } else { Err(twice()) };
        }
        let encoded = self.encoded_if_prepared().ok_or_else(twice)?;
        let with_dependencies = aside(move || with_dependencies(encoded, dependencies)).await?;
        let (pipeline, encoded) = with_dependencies.ok_or_else(twice)?;
        let made = self.ready(pipeline).await?;
        let mut inner = self.inner.lock();
        let Stage::Prepared { ready, heard } = &mut inner.stage else {
            return Err(twice());
        };
        *ready = kept(made, &encoded);
        *heard = Instant::now();
        inner.pipeline = Some(encoded);
        Ok(())
    }

    /// Cancels it. True: it had not been run.
    pub(super) fn cancel(&self) -> bool {
        let stage = &mut self.inner.lock().stage;
        match stage {
            Stage::Started { job } => {
                job.cancel();
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

/// A pipeline with other dependencies of its environments: decoded, and encoded. None if it cannot be decoded.
fn with_dependencies(
    encoded: Bytes,
    mut dependencies: HashMap<String, Vec<pipeline::ArtifactInformation>>,
) -> Option<(Pipeline, Bytes)> {
    let mut pipeline = Pipeline::decode(encoded).ok()?;
    for (id, environment) in pipeline.components.iter_mut().flat_map(|c| &mut c.environments) {
        if let Some(staged) = dependencies.remove(id) {
            environment.dependencies = staged;
        }
    }
    let encoded = Bytes::from(pipeline.encode_to_vec());
    Some((pipeline, encoded))
}

/// What a back end made of a pipeline, if that is not too large to keep it.
fn kept(ready: Box<dyn Prepared>, pipeline: &Bytes) -> Option<Box<dyn Prepared>> {
    (pipeline.len() <= MAX_READY_BYTES).then_some(ready)
}
