//! One bundle: what is sent to the worker, and what the engine is told of the answer.

use std::collections::HashMap;
use std::sync::Arc;

use purlin_engine::{
    Bundle, BundleId, BundleInput, BundleResult, Chunk, CollectionFormat, CollectionId, Residual, Split,
};
use purlin_model::Timestamp;
use purlin_proto::fn_execution::{
    self as fnapi, BundleApplication, DelayedBundleApplication, ProcessBundleSplitResponse,
    process_bundle_request,
};
use purlin_proto::pipeline::MonitoringInfo;

use super::Shared;
use super::workers::JobWorker;
use crate::state::{BundleState, Iterables};
use crate::translate::StagePlan;
use crate::worker::{BundleOutcome, BundleWork, WorkInput, WorkerError};

/// How a bundle ended.
pub(super) enum End {
    /// The worker answered.
    Finished {
        result: BundleResult,
        metrics: Metrics,
        worker: Arc<JobWorker>,
    },
    /// User code, harness or worker failed.
    Failed { error: String, worker_lost: bool },
    /// There is no worker for it.
    NoWorker(String),
    /// Nor will there be: the program that submitted the job has ended, and its workers with it.
    SubmitterGone(String),
}

/// What a worker told of a bundle's metrics.
pub(super) enum Metrics {
    /// In full.
    Known(Vec<MonitoringInfo>),
    /// By short ids, some of which the worker has yet to explain. The bundle does not wait for that.
    Short(HashMap<String, bytes::Bytes>),
}

/// The instruction id of a bundle.
pub(super) fn instruction(bundle: BundleId) -> String {
    bundle.to_string()
}

/// A stage, as bundles need it again and again.
pub(super) struct StageIo {
    /// What each sink writes.
    sinks: HashMap<String, (CollectionId, CollectionFormat)>,
    sink_ids: Vec<String>,
    /// How the main input is encoded.
    input: Option<CollectionFormat>,
}

impl StageIo {
    pub(super) fn new(stage: &StagePlan, engine: &purlin_engine::Engine) -> Self {
        let sinks = stage.sinks.iter().filter_map(|(id, collection)| {
            Some((id.clone(), (*collection, engine.format(*collection)?.clone())))
        });
        StageIo {
            sinks: sinks.collect(),
            sink_ids: stage.sinks.iter().map(|(id, _)| id.clone()).collect(),
            input: engine.format(stage.input).cloned(),
        }
    }
}

/// What a worker needs for a bundle.
pub(super) fn work(shared: &Arc<Shared>, bundle: &Bundle) -> Option<BundleWork> {
    let stage = shared.stages.get(bundle.stage)?;
    let io = shared.io.get(bundle.stage)?;
    let mut tokens = vec![process_bundle_request::CacheToken {
        r#type: Some(process_bundle_request::cache_token::Type::UserState(
            Default::default(),
        )),
        token: token(bundle.state_token),
    }];
    for (transform, side_input, number) in &bundle.side_input_tokens {
        use process_bundle_request::cache_token::{SideInput, Type};
        let transform_id = shared.transforms.get(*transform)?.0.clone();
        let side_input = SideInput {
            transform_id,
            side_input_id: side_input.clone(),
        };
        tokens.push(process_bundle_request::CacheToken {
            r#type: Some(Type::SideInput(side_input)),
            token: token(*number),
        });
    }
    let mut iterables = Iterables::new(bundle.id);
    let mut pieces = Vec::with_capacity(bundle.input.len());
    for input in &bundle.input {
        match input {
            BundleInput::Elements(data) => match &io.input {
                Some(format) => pieces.extend(iterables.pieces(data, format, stage.state_backed)),
                None => pieces.push(WorkInput::Elements(data.clone())),
            },
            BundleInput::Timers {
                transform,
                family,
                data,
            } => pieces.push(WorkInput::Timers {
                transform: shared.transforms.get(*transform)?.0.clone(),
                family: family.clone(),
                data: data.clone(),
            }),
        }
    }
    Some(BundleWork {
        instruction: instruction(bundle.id),
        descriptor: Arc::clone(&stage.descriptor),
        input: pieces,
        timer_families: stage.timer_families.clone(),
        source: stage.source.clone(),
        sinks: io.sink_ids.clone(),
        cache_tokens: tokens,
        state: Arc::new(BundleState::new(Arc::clone(shared), bundle.id, iterables)),
    })
}

fn token(number: u64) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Processes a bundle to its end. `started` is told the worker as soon as it is known.
pub(super) async fn process(
    shared: &Arc<Shared>,
    bundle: Bundle,
    started: impl FnOnce(Arc<JobWorker>) + Send,
) -> End {
    let index = bundle.stage;
    let (Some(stage), Some(io)) = (shared.stages.get(index), shared.io.get(index)) else {
        return End::NoWorker(format!("the plan has no stage {}", index.0));
    };
    let worker = match shared.workers.get(stage.environment, bundle.worker).await {
        Ok(worker) => worker,
        Err(WorkerError::SubmitterGone(reason)) => return End::SubmitterGone(reason),
        Err(error) => return End::NoWorker(error.to_string()),
    };
    let Some(work) = work(shared, &bundle) else {
        return End::NoWorker(format!("the plan lacks a transform of stage \"{}\"", stage.name));
    };
    started(Arc::clone(&worker));
    // The input is the worker's and the engine's now.
    let worker_index = bundle.worker;
    drop(bundle);
    let outcome = match worker.worker.process(work).await {
        Ok(outcome) => outcome,
        Err(WorkerError::Lost { worker: id, reason }) => {
            shared
                .workers
                .forget(stage.environment, worker_index, &worker)
                .await;
            return End::Failed {
                error: format!("worker {id} was lost: {reason}"),
                worker_lost: true,
            };
        }
        // It came, and could do nothing from the start: another would be no better.
        Err(error @ WorkerError::Start { .. }) => return End::NoWorker(error.to_string()),
        Err(error) => {
            return End::Failed {
                error: error.to_string(),
                worker_lost: false,
            };
        }
    };
    let response = &outcome.response;
    let metrics = match worker.known_infos(&response.monitoring_infos, &response.monitoring_data) {
        Some(infos) => Metrics::Known(infos),
        None => Metrics::Short(response.monitoring_data.clone()),
    };
    match result(shared, stage, io, outcome) {
        Ok(result) => End::Finished {
            result,
            metrics,
            worker,
        },
        Err(error) => End::Failed {
            error,
            worker_lost: false,
        },
    }
}

/// What the engine is told of a worker's answer; an error is the worker's fault.
fn result(
    shared: &Shared,
    stage: &StagePlan,
    io: &StageIo,
    outcome: BundleOutcome,
) -> Result<BundleResult, String> {
    let BundleOutcome {
        response,
        outputs,
        timers,
    } = outcome;
    let mut result = BundleResult {
        finalize: response.requires_finalization,
        ..BundleResult::default()
    };
    for (sink, data) in outputs {
        if data.is_empty() {
            continue;
        }
        let (collection, format) = io
            .sinks
            .get(&sink)
            .ok_or_else(|| format!("the worker wrote to \"{sink}\", which is no sink of the stage"))?;
        let chunk = Chunk::scan(data, format)
            .map_err(|error| format!("the worker's output to \"{sink}\": {error}"))?;
        result.outputs.push((*collection, chunk));
    }
    for (transform, family, data) in timers {
        if data.is_empty() {
            continue;
        }
        if !stage
            .timer_families
            .iter()
            .any(|(id, name)| *id == transform && *name == family)
        {
            return Err(format!(
                "the worker set timers of \"{transform}\", family \"{family}\", which the stage lacks"
            ));
        }
        let number = shared.numbers.get(&transform).copied();
        let number = number
            .ok_or_else(|| format!("the worker set timers of \"{transform}\", which is no transform"))?;
        result.timers.push((number, family, data));
    }
    for root in response.residual_roots {
        result.residuals.push(residual(stage, root)?);
    }
    Ok(result)
}

/// The answer of a worker that gave nothing back.
pub(super) fn declined() -> Split {
    Split {
        last_primary: -1,
        ..Split::default()
    }
}

/// What a worker gave back of a bundle. An error: it may have given something up, and what cannot be told.
pub(super) fn split(stage: &StagePlan, response: ProcessBundleSplitResponse) -> Result<Split, String> {
    let mut split = declined();
    let mut channels = response.channel_splits;
    if channels.len() > 1 {
        channels.retain(|channel| channel.transform_id == stage.source);
        if channels.len() != 1 {
            return Err("it split several channels of a bundle that has one".to_owned());
        }
    }
    // A bundle has one channel, so what is split is that, whatever the worker calls it: Java's harness leaves the name
    // empty.
    if let Some(channel) = channels.into_iter().next() {
        let first = u64::try_from(channel.first_residual_element);
        let first = first.map_err(|_| "it split before the first element".to_owned())?;
        split.first_residual = Some(first);
        split.last_primary = channel.last_primary_element;
    }
    for root in response.primary_roots {
        check_root(stage, &root)?;
        split.primary_roots.push(root.element);
    }
    for root in response.residual_roots {
        split.residuals.push(residual(stage, root)?);
    }
    Ok(split)
}

fn residual(stage: &StagePlan, root: DelayedBundleApplication) -> Result<Residual, String> {
    let application = root.application.ok_or("a residual comes without its element")?;
    check_root(stage, &application)?;
    let delay_ms = root.requested_time_delay.map_or(0, |delay| {
        delay
            .seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(delay.nanos).div_euclid(1_000_000))
    });
    let watermarks = application.output_watermarks.values();
    let watermark = watermarks.map(|at| timestamp(at.seconds, at.nanos)).min();
    Ok(Residual {
        element: application.element,
        delay_ms: delay_ms.max(0),
        watermark,
    })
}

/// Residuals and primaries are elements of the stage's main input. Where nobody is named, they can be nothing else.
fn check_root(stage: &StagePlan, application: &BundleApplication) -> Result<(), String> {
    let id = &application.transform_id;
    if id.is_empty() || stage.roots.contains(id) {
        return Ok(());
    }
    Err(format!(
        "the worker gave back work of \"{id}\", which does not read the bundle's input"
    ))
}

/// Milliseconds of a protobuf timestamp, rounded down, so that a hold is never too late.
fn timestamp(seconds: i64, nanos: i32) -> Timestamp {
    let millis = seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(nanos).div_euclid(1_000_000));
    Timestamp::from_millis(millis)
}

/// A request to split a bundle.
pub(super) fn split_request(
    stage: &StagePlan,
    bundle: BundleId,
    fraction: f64,
    estimated_input_elements: u64,
) -> fnapi::ProcessBundleSplitRequest {
    let desired = fnapi::process_bundle_split_request::DesiredSplit {
        fraction_of_remainder: fraction,
        allowed_split_points: Vec::new(),
        estimated_input_elements: i64::try_from(estimated_input_elements).unwrap_or(i64::MAX),
    };
    fnapi::ProcessBundleSplitRequest {
        instruction_id: instruction(bundle),
        desired_splits: HashMap::from([(stage.source.clone(), desired)]),
    }
}
