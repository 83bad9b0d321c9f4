//! Executes a ProcessBundleDescriptor.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use purlin_proto::fn_execution::process_bundle_request::CacheToken;
use purlin_proto::fn_execution::{ProcessBundleDescriptor, ProcessBundleResponse};
use purlin_runner::worker::{BundleOutcome, StateHandler};
use rustc_hash::FxHashMap;

use super::build;
use crate::metrics::{STEP, enter};
use crate::stage::backed::Decoding;
use crate::stage::bundle::BundleCell;
use crate::stage::failure::Failure;
use crate::stage::io::{SinkBuffer, Source, SourceError};
use crate::stage::monitor::BundleMonitor;
use crate::stage::node::{Registry, TimerSink};
use crate::stage::state_cache::WorkerShared;

/// What a bundle comes with.
pub struct BundleStart {
    /// Instruction id.
    pub instruction: String,
    /// Answers state requests.
    pub state: Arc<dyn StateHandler>,
    /// Tokens for caches.
    pub cache_tokens: Vec<CacheToken>,
}

/// The steps of one stage, ready for bundles: one at a time, on the thread that made it.
///
/// User code is set up when it is made and torn down when it is dropped. After an error it must be dropped.
pub struct Executor {
    /// Id of the descriptor.
    pub(super) stage: String,
    pub(super) sources: FxHashMap<String, Box<dyn Source>>,
    pub(super) sinks: Vec<(String, Rc<RefCell<SinkBuffer>>)>,
    pub(super) timers: Vec<(String, Rc<RefCell<dyn TimerSink>>)>,
    pub(super) bundle: Rc<BundleCell>,
    pub(super) monitor: Arc<BundleMonitor>,
}

impl Executor {
    /// Makes the steps of a stage and sets up their user code.
    ///
    /// # Errors
    /// When the descriptor does not fit this pipeline, or the set-up of user code fails.
    pub fn new(
        descriptor: &ProcessBundleDescriptor,
        registry: &Arc<Registry>,
        shared: &Arc<WorkerShared>,
    ) -> Result<Executor, Failure> {
        build::executor(descriptor, registry, shared)
    }

    /// For other threads: progress and splits of the bundle in the works.
    pub fn monitor(&self) -> Arc<BundleMonitor> {
        self.monitor.clone()
    }

    /// Starts a bundle.
    ///
    /// # Errors
    /// When user code fails or panics.
    pub fn start(&mut self, bundle: BundleStart) -> Result<(), Failure> {
        self.monitor.reset();
        for (_, sink) in &self.sinks {
            sink.borrow_mut().take_all();
        }
        self.bundle
            .start(bundle.instruction, bundle.state, bundle.cache_tokens);
        self.bundle
            .set_careful(self.bundle.shared.has_failed(&self.stage));
        let Executor { sources, monitor, .. } = self;
        let started = guarded(monitor, || {
            sources.values_mut().try_for_each(|source| source.start())
        });
        started.map_err(|failure| self.failed(failure))
    }

    /// The bundle has failed: the worker is careful with the next one of this stage. Where it was so with this one, the failure
    /// names the element.
    #[cold]
    fn failed(&self, failure: Failure) -> Failure {
        self.bundle.shared.ended(&self.stage, true);
        match self.bundle.note(None) {
            Some(at) if *at.transform == *failure.transform() => failure.at_element(&at.told()),
            _ => failure,
        }
    }

    /// Processes concatenated windowed values for a data source.
    ///
    /// # Errors
    /// When user code fails or panics, or the bytes are not elements.
    pub fn elements(&mut self, source: &str, data: &Bytes) -> Result<(), Failure> {
        let Executor {
            sources,
            monitor,
            bundle,
            ..
        } = self;
        let Some(op) = sources.get_mut(source) else {
            return Err(Failure::message(
                source,
                "data came for a source that the stage does not have",
            ));
        };
        let _decoding = Decoding::of(bundle);
        let processed = guarded(monitor, || {
            op.process(data, &monitor.index).map_err(|error| match error {
                SourceError::Failure(failure) => failure,
                SourceError::Decode(e) => Failure::message(
                    source,
                    format!(
                        "element {} of the bundle cannot be decoded: {e}",
                        monitor.index.begun()
                    ),
                ),
            })
        });
        processed.map_err(|failure| self.failed(failure))?;
        self.all_was_read()
    }

    /// User code may pass over the errors of what it reads by page.
    fn all_was_read(&self) -> Result<(), Failure> {
        match self.bundle.unread() {
            None => Ok(()),
            Some((step, reason)) => {
                let step = self.monitor.steps.get(step as usize);
                let failure = Failure::message(step.map_or("(none)", |step| &step.name), reason);
                Err(self.failed(failure))
            }
        }
    }

    /// Processes timers that fire.
    ///
    /// # Errors
    /// When user code fails or panics, or the transform has no such timers.
    pub fn timers(&mut self, transform: &str, family: &str, data: &Bytes) -> Result<(), Failure> {
        if data.is_empty() {
            return Ok(());
        }
        let Some((_, sink)) = self.timers.iter().find(|(id, _)| id == transform) else {
            return Err(Failure::message(
                transform,
                format!("timers came for \"{family}\", which it does not have"),
            ));
        };
        let fired = guarded(&self.monitor, || sink.borrow_mut().fire(family, data));
        fired.map_err(|failure| self.failed(failure))?;
        self.all_was_read()
    }

    /// Takes the timers that were set or cleared: by transform id and family.
    pub fn take_timers(&mut self) -> Vec<(String, String, Bytes)> {
        let mut all = Vec::new();
        for (transform, sink) in &self.timers {
            let taken = sink.borrow_mut().take();
            all.extend(
                taken
                    .into_iter()
                    .map(|(family, data)| (transform.clone(), family, data)),
            );
        }
        all
    }

    /// Takes the output that is ready: whole elements, by sink transform id.
    pub fn take_outputs(&mut self) -> Vec<(String, Bytes)> {
        self.collect(SinkBuffer::take_pieces)
    }

    fn collect(&self, take: fn(&mut SinkBuffer) -> Vec<Bytes>) -> Vec<(String, Bytes)> {
        let mut outputs = Vec::new();
        for (id, sink) in &self.sinks {
            outputs.extend(
                take(&mut sink.borrow_mut())
                    .into_iter()
                    .map(|piece| (id.clone(), piece)),
            );
        }
        outputs
    }

    /// Ends the bundle: what is left of its output, and the response.
    ///
    /// # Errors
    /// When user code fails or panics.
    pub fn finish(&mut self) -> Result<BundleOutcome, Failure> {
        let Executor { sources, monitor, .. } = self;
        let finished = guarded(monitor, || {
            sources.values_mut().try_for_each(|source| source.finish())
        });
        finished.map_err(|failure| self.failed(failure))?;
        self.all_was_read()?;
        if self.bundle.is_careful() {
            self.bundle.shared.ended(&self.stage, false);
        }
        let (residual_roots, requires_finalization) = self.bundle.end();
        let response = ProcessBundleResponse {
            monitoring_infos: self.monitor.monitoring_infos(),
            residual_roots,
            requires_finalization,
            ..ProcessBundleResponse::default()
        };
        Ok(BundleOutcome {
            response,
            outputs: self.collect(SinkBuffer::take_all),
            timers: self.take_timers(),
        })
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Counters of teardown have nowhere to go, but must not go to another executor.
        enter(&self.monitor.metrics);
    }
}

/// Runs user code: a panic becomes a failure of the transform whose code ran.
pub(super) fn guarded<T>(
    monitor: &BundleMonitor,
    f: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    enter(&monitor.metrics);
    STEP.set(u32::MAX);
    let result = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let step = monitor.steps.get(STEP.get() as usize);
        let name = step.map_or("(none)", |step| &step.name);
        Err(Failure::message(
            name,
            format!("user code panicked: {}", panic_text(&*panic)),
        ))
    });
    STEP.set(u32::MAX);
    result
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}
