//! Questions to an SDK about windows of the user's own types, each a small bundle.

use std::sync::Arc;

use bytes::Bytes;
use purlin_model::{Coder, DecodeError, Header, Window, WindowCoder, wire};
use purlin_proto::fn_execution as fnapi;

use super::Shared;
use crate::translate::WindowPlan;
use crate::worker::{BundleWork, StateHandler, WorkInput, WorkerError};

/// The windows that merged, each with those that became it.
pub(super) async fn merge(
    shared: &Arc<Shared>,
    plan: &WindowPlan,
    instruction: String,
    windows: &[Window],
) -> Result<Vec<(Window, Vec<Window>)>, String> {
    let mut input = Vec::new();
    Header::IMPULSE.encode(&mut input);
    wire::write_bytes(b"", &mut input, true);
    let count = i32::try_from(windows.len()).map_err(|_| "too many windows of one key".to_owned())?;
    input.extend_from_slice(&count.to_be_bytes());
    windows.iter().for_each(|window| window.encode(&mut input));
    let output = ask(shared, plan, instruction, input.into()).await?;
    read_merged(&output, &plan.answered)
        .map_err(|error| format!("the SDK's answer on merged windows: {error}"))
}

/// The side-input windows of main-input windows, in their order.
pub(super) async fn map(
    shared: &Arc<Shared>,
    plan: &WindowPlan,
    instruction: String,
    windows: &[Window],
) -> Result<Vec<Window>, String> {
    let mut input = Vec::new();
    for (index, window) in windows.iter().enumerate() {
        Header::IMPULSE.encode(&mut input);
        wire::write_bytes(&(index as u64).to_be_bytes(), &mut input, true);
        window.encode(&mut input);
    }
    let output = ask(shared, plan, instruction, input.into()).await?;
    let mapped = read_mapped(&output, &plan.answered, windows.len());
    mapped
        .map_err(|error| format!("the SDK's answer on side-input windows: {error}"))?
        .ok_or_else(|| "the SDK did not map every window for a side input".to_owned())
}

fn read_mapped(output: &[u8], coder: &WindowCoder, count: usize) -> Result<Option<Vec<Window>>, DecodeError> {
    let mut rest = output;
    let mut mapped: Vec<Option<Window>> = vec![None; count];
    while !rest.is_empty() {
        skip_header(&mut rest)?;
        let nonce = wire::read_bytes(&mut rest, true)?;
        let window = coder.decode(&mut rest, true)?;
        let index = <[u8; 8]>::try_from(nonce).map_or(usize::MAX, |bytes| u64::from_be_bytes(bytes) as usize);
        if let Some(place) = mapped.get_mut(index) {
            *place = Some(window);
        }
    }
    Ok(mapped.into_iter().collect())
}

fn read_merged(output: &[u8], coder: &WindowCoder) -> Result<Vec<(Window, Vec<Window>)>, DecodeError> {
    let window = coder.to_coder();
    let windows = Coder::iterable(window.clone());
    let pairs = Coder::iterable(Coder::kv(window, windows.clone()));
    let mut merged = Vec::new();
    let mut rest = output;
    while !rest.is_empty() {
        skip_header(&mut rest)?;
        wire::read_bytes(&mut rest, true)?;
        windows.skip(&mut rest, true)?;
        let encoded = pairs.take(&mut rest, true)?;
        for pair in pairs.iterable_elements(encoded)? {
            let mut pair = pair?;
            let result = coder.decode(&mut pair, true)?;
            let originals = windows.iterable_elements(pair)?;
            let originals = originals.map(|original| coder.decode(&mut original?, true));
            merged.push((result, originals.collect::<Result<_, _>>()?));
        }
    }
    Ok(merged)
}

fn skip_header(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let coder = purlin_model::WindowedValueCoder {
        value: Coder::Bytes,
        window: WindowCoder::Global,
    };
    coder.skip_header(rest)
}

async fn ask(
    shared: &Arc<Shared>,
    plan: &WindowPlan,
    instruction: String,
    input: Bytes,
) -> Result<Vec<u8>, String> {
    // Nothing is lost with a worker that vanishes over a question: it is asked again.
    let mut losses = 0;
    loop {
        let worker = shared
            .workers
            .get(plan.environment, 0)
            .await
            .map_err(|error| error.to_string())?;
        let work = BundleWork {
            instruction: format!("{instruction}-{losses}"),
            descriptor: Arc::clone(&plan.descriptor),
            input: vec![WorkInput::Elements(input.clone())],
            timer_families: Vec::new(),
            source: WindowPlan::SOURCE.to_owned(),
            sinks: vec![WindowPlan::SINK.to_owned()],
            cache_tokens: Vec::new(),
            state: Arc::new(NoState),
        };
        match worker.worker.process(work).await {
            Ok(outcome) => {
                let mut all = Vec::new();
                outcome
                    .outputs
                    .iter()
                    .for_each(|(_, data)| all.extend_from_slice(data));
                return Ok(all);
            }
            Err(WorkerError::Lost { .. }) if losses < 3 => {
                losses += 1;
                shared.workers.forget(plan.environment, 0, &worker).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Window functions have no state.
struct NoState;

impl StateHandler for NoState {
    fn handle(&self, request: fnapi::StateRequest) -> fnapi::StateResponse {
        let error = "a window function has no state and no side inputs".to_owned();
        fnapi::StateResponse {
            id: request.id,
            error,
            response: None,
        }
    }
}
