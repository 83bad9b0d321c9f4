//! Processes one bundle.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use purlin_proto::fn_execution::{
    Elements, InstructionResponse, ProcessBundleDescriptor, ProcessBundleResponse, instruction_response,
    process_bundle_request::CacheToken,
};
use purlin_runner::worker::{BundleOutcome, StateHandler};

use super::control::{Active, Shared};
use super::data::{DataSender, Output, Piece, Queue};
use super::logging;
use super::stage::Stage;
use crate::harness::threads::{Bundles, Executors};
use crate::harness::{BundleStart, Executor};

/// Output up to this size goes into the response, where the runner takes it from there.
const EMBED_BYTES: usize = 256 << 10;

/// A bundle that has come.
pub(super) struct Task {
    pub instruction: String,
    pub stage: Arc<Stage>,
    pub input: Arc<Queue>,
    /// All input came with the request.
    pub embedded: bool,
    /// By address of the data service.
    pub senders: HashMap<String, DataSender>,
    pub state: Arc<dyn StateHandler>,
    pub cache_tokens: Vec<CacheToken>,
    pub active: Arc<Active>,
}

/// A bundle that has ended.
pub(super) struct Ended {
    pub instruction: String,
    pub response: InstructionResponse,
}

impl Bundles for Shared {
    type Task = Task;
    type Ended = Ended;

    fn descriptor(task: &Task) -> &Arc<ProcessBundleDescriptor> {
        &task.stage.descriptor
    }

    fn run(&self, executors: &mut Executors, task: Task) -> Ended {
        run(self, executors, task)
    }

    fn tell(&self, ended: Ended) {
        self.end_bundle(ended);
    }
}

fn run(shared: &Shared, executors: &mut Executors, task: Task) -> Ended {
    let instruction = task.instruction.clone();
    let active = task.active.clone();
    let result = catch_unwind(AssertUnwindSafe(|| process(shared, executors, task)))
        .unwrap_or_else(|_| Err("the harness panicked; see the worker's log".to_owned()));
    // The executor may take another bundle: whoever still asks for this one must not reach it.
    active.detach();
    logging::leave_bundle();
    let (error, response) = match result {
        Ok(response) => (
            String::new(),
            Some(instruction_response::Response::ProcessBundle(response)),
        ),
        Err(error) => (error, None),
    };
    let response = InstructionResponse {
        instruction_id: instruction.clone(),
        error,
        response,
    };
    Ended {
        instruction,
        response,
    }
}

fn process(shared: &Shared, executors: &mut Executors, task: Task) -> Result<ProcessBundleResponse, String> {
    let stage = task.stage.clone();
    let mut executor = executors
        .take(&stage.descriptor, &shared.registry, &shared.worker)
        .map_err(|e| e.to_string())?;
    let monitor = executor.monitor();
    logging::enter_bundle(shared.log.as_ref(), &task.instruction, &monitor);
    let start = BundleStart {
        instruction: task.instruction.clone(),
        state: task.state.clone(),
        cache_tokens: task.cache_tokens.clone(),
    };
    executor.start(start).map_err(|e| e.to_string())?;
    // Before the start, the monitor shows the bundle before.
    task.active.attach(monitor);

    let mut outputs = Outputs::new(&task);
    // An executor that failed is dropped, and not used again.
    let outcome = feed(&mut executor, &task, &mut outputs)?;
    let response = outputs.finish(outcome, shared)?;
    executors.put(stage.descriptor.clone(), executor);
    Ok(response)
}

/// Brings all input to the executor, and its output away as it comes.
fn feed(executor: &mut Executor, task: &Task, outputs: &mut Outputs<'_>) -> Result<BundleOutcome, String> {
    let mut sources: Vec<&str> = task.stage.sources.iter().map(|(id, _)| id.as_str()).collect();
    let mut timers: Vec<&(String, String)> = task.stage.timers.iter().map(|(family, _)| family).collect();
    while !sources.is_empty() || !timers.is_empty() {
        let piece = match task.embedded {
            false => task.input.next()?,
            true => task.input.take().ok_or(
                "the elements in the bundle's request lack is_last for a data source or timer family of the stage",
            )?,
        };
        match piece {
            Piece::Data(data) => {
                if !data.data.is_empty() {
                    executor
                        .elements(&data.transform_id, &data.data)
                        .map_err(|e| e.to_string())?;
                }
                if data.is_last {
                    sources.retain(|id| *id != data.transform_id);
                }
            }
            Piece::Timers(piece) => {
                let family = (piece.transform_id, piece.timer_family_id);
                if !piece.timers.is_empty() {
                    executor
                        .timers(&family.0, &family.1, &piece.timers)
                        .map_err(|e| e.to_string())?;
                }
                if piece.is_last {
                    timers.retain(|open| **open != family);
                }
            }
        }
        for (sink, data) in executor.take_outputs() {
            outputs.data(&sink, data)?;
        }
    }
    executor.finish().map_err(|e| e.to_string())
}

/// Output of a bundle, by data service.
struct Outputs<'a> {
    stage: &'a Stage,
    by_service: Vec<(String, Output)>,
}

impl<'a> Outputs<'a> {
    fn new(task: &'a Task) -> Outputs<'a> {
        let output = |(service, sender): (&String, &DataSender)| {
            (service.clone(), Output::new(sender.clone(), &task.instruction))
        };
        Outputs {
            stage: &task.stage,
            by_service: task.senders.iter().map(output).collect(),
        }
    }

    fn to(&mut self, service: Option<&str>) -> Result<&mut Output, String> {
        let found = self
            .by_service
            .iter_mut()
            .find(|(address, _)| Some(address.as_str()) == service);
        found
            .map(|(_, output)| output)
            .ok_or_else(|| "there is output for a sink that the stage does not have".into())
    }

    fn data(&mut self, sink: &str, data: Bytes) -> Result<(), String> {
        let service = self
            .stage
            .sinks
            .iter()
            .find(|(id, _)| id == sink)
            .map(|(_, service)| service.as_str());
        self.to(service)?.data(sink, data, false)
    }

    /// Sends what is left and closes every sink and timer family; what is small goes into the response.
    fn finish(mut self, outcome: BundleOutcome, shared: &Shared) -> Result<ProcessBundleResponse, String> {
        let BundleOutcome {
            mut response,
            outputs,
            timers,
        } = outcome;
        for (sink, data) in outputs {
            self.data(&sink, data)?;
        }
        let stage = self.stage;
        for (transform, family, data) in timers {
            let mut known = stage
                .timers
                .iter()
                .filter(|((t, f), _)| *t == transform && *f == family);
            let service = known.next().map(|(_, service)| service.as_str());
            self.to(service)?.timers(&transform, &family, data, false)?;
        }
        for (sink, service) in &stage.sinks {
            self.to(Some(service))?.data(sink, Bytes::new(), true)?;
        }
        for ((transform, family), service) in &stage.timers {
            self.to(Some(service))?
                .timers(transform, family, Bytes::new(), true)?;
        }

        let unsent: Option<usize> = self.by_service.iter().map(|(_, output)| output.unsent()).sum();
        if shared.embeds && unsent.is_some_and(|bytes| bytes <= EMBED_BYTES) {
            let mut all = Elements::default();
            for (_, output) in self.by_service {
                let message = output.into_message();
                all.data.extend(message.data);
                all.timers.extend(message.timers);
            }
            // Java takes it for output that has come, and finds none.
            let empty = all.data.is_empty() && all.timers.is_empty();
            response.elements = (!empty).then_some(all);
        } else {
            for (_, output) in &mut self.by_service {
                output.flush()?;
            }
        }
        if shared.shortens {
            response.monitoring_data = shared
                .short_ids
                .shorten(std::mem::take(&mut response.monitoring_infos));
        }
        Ok(response)
    }
}
