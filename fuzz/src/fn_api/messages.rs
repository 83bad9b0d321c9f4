//! What a worker says: sound messages for a stage, and any others.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use purlin_model::spec::no_schemas;
use purlin_model::{Coder, PaneInfo, Timer, TimerFiring, Timestamp, Windows, wire};
use purlin_proto::fn_execution::{
    self as fnapi, RemoteGrpcPort, instruction_response::Response as Answer, state_key, state_request,
};
use purlin_proto::pipeline::{self, MonitoringInfo, ParDoPayload};
use purlin_proto::urns::{metric_types, metrics, runner_transforms};

use crate::input::Input;

/// A stage as the worker knows it.
#[derive(Clone, Default)]
pub(super) struct Stage {
    /// Sinks with the coders of their values.
    pub sinks: Vec<(String, Coder)>,
    /// Transform, family and coder of the timers.
    pub timers: Vec<(String, String, Coder)>,
    pub transforms: Vec<String>,
    pub states: Vec<(String, String)>,
}

pub(super) fn data_entry(
    instruction: &str,
    transform: &str,
    data: Vec<u8>,
    is_last: bool,
) -> fnapi::elements::Data {
    fnapi::elements::Data {
        instruction_id: instruction.to_owned(),
        transform_id: transform.to_owned(),
        data: data.into(),
        is_last,
    }
}

pub(super) fn timer_entry(
    instruction: &str,
    transform: &str,
    family: &str,
    timers: Vec<u8>,
    is_last: bool,
) -> fnapi::elements::Timers {
    fnapi::elements::Timers {
        instruction_id: instruction.to_owned(),
        transform_id: transform.to_owned(),
        timer_family_id: family.to_owned(),
        timers: timers.into(),
        is_last,
    }
}

/// A key of any kind, mostly of a state or side input that the stage has.
pub(super) fn state_key(input: &mut Input<'_>, stage: &Stage) -> state_key::Type {
    macro_rules! key {
        ($kind:ident: $($field:ident),+) => {
            state_key::Type::$kind(state_key::$kind { $($field),+ })
        };
    }
    let (transform_id, user_state_id) = match input.pick(&stage.states) {
        Some((transform, state)) if input.byte() > 15 => (transform.clone(), state.clone()),
        _ => (
            input.pick(&stage.transforms).cloned().unwrap_or_default(),
            "side0".to_owned(),
        ),
    };
    let side_input_id = user_state_id.clone();
    let (window, key) = (input.bytes(3), input.bytes(6));
    let map_key = input.bytes(4);
    match input.below(10) {
        0 | 1 => key!(BagUserState: transform_id, user_state_id, window, key),
        2 => key!(MultimapUserState: transform_id, user_state_id, window, key, map_key),
        3 => key!(MultimapKeysUserState: transform_id, user_state_id, window, key),
        4 => key!(MultimapEntriesUserState: transform_id, user_state_id, window, key),
        5 => {
            let range = Some(fnapi::OrderedListRange {
                start: input.number(),
                end: input.number(),
            });
            key!(OrderedListUserState: transform_id, user_state_id, window, key, range)
        }
        6 => key!(IterableSideInput: transform_id, side_input_id, window),
        7 => key!(MultimapSideInput: transform_id, side_input_id, window, key),
        8 => key!(MultimapKeysValuesSideInput: transform_id, side_input_id, window),
        _ => key!(Runner: key),
    }
}

/// What is asked of a state; `token` is a continuation token that the runner gave.
pub(super) fn state_request(input: &mut Input<'_>, token: &Bytes) -> state_request::Request {
    use state_request::Request;
    match input.below(4) {
        0 => Request::Clear(Default::default()),
        1 => Request::Append(fnapi::StateAppendRequest {
            data: input.bytes(24),
        }),
        2 => Request::Get(fnapi::StateGetRequest {
            continuation_token: token.clone(),
        }),
        _ => Request::Get(fnapi::StateGetRequest {
            continuation_token: input.bytes(17),
        }),
    }
}

/// An answer of any kind, with anything in it.
pub(super) fn any_answer(input: &mut Input<'_>, stage: Option<Stage>) -> Answer {
    let stage = stage.unwrap_or_default();
    match input.below(8) {
        0..=2 => Answer::ProcessBundle(fnapi::ProcessBundleResponse {
            residual_roots: (0..input.below(3)).map(|_| root(input, &stage)).collect(),
            monitoring_infos: infos(input, &stage),
            requires_finalization: input.yes(),
            monitoring_data: short_ids(input),
            elements: fnapi::Elements::decode(input.bytes(32)).ok(),
        }),
        3 => Answer::ProcessBundleProgress(fnapi::ProcessBundleProgressResponse {
            monitoring_infos: infos(input, &stage),
            monitoring_data: short_ids(input),
            consuming_received_data: None,
        }),
        4 | 5 => Answer::ProcessBundleSplit(fnapi::ProcessBundleSplitResponse {
            primary_roots: (0..input.below(2))
                .filter_map(|_| root(input, &stage).application)
                .collect(),
            residual_roots: (0..input.below(3)).map(|_| root(input, &stage)).collect(),
            channel_splits: (0..input.below(3))
                .map(|_| fnapi::process_bundle_split_response::ChannelSplit {
                    transform_id: input.pick(&stage.transforms).cloned().unwrap_or_default(),
                    last_primary_element: input.number(),
                    first_residual_element: input.number(),
                })
                .collect(),
        }),
        6 => Answer::MonitoringInfos(fnapi::MonitoringInfosMetadataResponse {
            monitoring_info: infos(input, &stage)
                .into_iter()
                .map(|info| ("1".to_owned(), info))
                .collect(),
        }),
        _ => Answer::FinalizeBundle(Default::default()),
    }
}

fn short_ids(input: &mut Input<'_>) -> HashMap<String, Bytes> {
    (0..input.below(2))
        .map(|id| (id.to_string(), input.bytes(12)))
        .collect()
}

fn root(input: &mut Input<'_>, stage: &Stage) -> fnapi::DelayedBundleApplication {
    let at = prost_types::Timestamp {
        seconds: input.number(),
        nanos: input.number() as i32,
    };
    let application = fnapi::BundleApplication {
        transform_id: input.pick(&stage.transforms).cloned().unwrap_or_default(),
        input_id: "in".to_owned(),
        element: input.bytes(40),
        output_watermarks: [("out".to_owned(), at)].into(),
        is_bounded: input.number() as i32,
    };
    let delay = prost_types::Duration {
        seconds: input.number(),
        nanos: input.number() as i32,
    };
    fnapi::DelayedBundleApplication {
        application: (input.byte() > 15).then_some(application),
        requested_time_delay: input.yes().then_some(delay),
    }
}

fn infos(input: &mut Input<'_>, stage: &Stage) -> Vec<MonitoringInfo> {
    let info = |input: &mut Input<'_>| MonitoringInfo {
        urn: input.pick(metrics::ALL).copied().unwrap_or_default().to_owned(),
        r#type: input
            .pick(metric_types::ALL)
            .copied()
            .unwrap_or_default()
            .to_owned(),
        payload: input.bytes(24),
        labels: [(
            "PTRANSFORM".to_owned(),
            input.pick(&stage.transforms).cloned().unwrap_or_default(),
        )]
        .into(),
        start_time: None,
    };
    (0..input.below(4)).map(|_| info(input)).collect()
}

pub(super) fn read_stage(descriptor: &fnapi::ProcessBundleDescriptor) -> Stage {
    let mut stage = Stage::default();
    for (id, transform) in &descriptor.transforms {
        stage.transforms.push(id.clone());
        let Some(spec) = &transform.spec else { continue };
        if spec.urn == runner_transforms::DATA_SINK {
            let port = RemoteGrpcPort::decode(&spec.payload[..]).unwrap_or_default();
            stage
                .sinks
                .extend(coder(&descriptor.coders, &port.coder_id).map(|coder| (id.clone(), coder)));
        } else if let Ok(payload) = ParDoPayload::decode(&spec.payload[..]) {
            for (family, spec) in payload.timer_family_specs {
                let coder = coder(&descriptor.coders, &spec.timer_family_coder_id);
                stage
                    .timers
                    .extend(coder.map(|coder| (id.clone(), family, coder)));
            }
            stage
                .states
                .extend(payload.state_specs.into_keys().map(|state| (id.clone(), state)));
            stage
                .states
                .extend(payload.side_inputs.into_keys().map(|side| (id.clone(), side)));
        }
    }
    stage.sinks.sort_by(|a, b| a.0.cmp(&b.0));
    stage.timers.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    stage.transforms.sort();
    stage.states.sort();
    stage
}

fn coder(coders: &HashMap<String, pipeline::Coder>, id: &str) -> Option<Coder> {
    let proto = coders.get(id)?;
    let spec = proto.spec.as_ref()?;
    let components = proto
        .component_coder_ids
        .iter()
        .map(|id| coder(coders, id))
        .collect::<Option<_>>()?;
    Coder::from_parts(&spec.urn, &spec.payload, components, &no_schemas).ok()
}

/// A value that the coder can read.
pub(super) fn generate(coder: &Coder, input: &mut Input<'_>, out: &mut Vec<u8>, depth: usize) {
    if depth > 20 {
        return;
    }
    let depth = depth + 1;
    match coder {
        Coder::Bytes | Coder::Utf8 | Coder::LengthPrefix(_) => {
            let text = [b'a' + input.byte() % 3];
            wire::write_bytes(&text, out, true);
        }
        Coder::VarInt => out.push(input.byte() & 0x7f),
        Coder::Bool => out.push(input.byte() & 1),
        Coder::Double => out.extend_from_slice(&f64::from(input.byte()).to_be_bytes()),
        Coder::Kv(kv) => {
            generate(&kv.0, input, out, depth);
            generate(&kv.1, input, out, depth);
        }
        Coder::Iterable(element) | Coder::StateBackedIterable(element) => {
            let count = input.below(3);
            out.extend_from_slice(&(count as i32).to_be_bytes());
            (0..count).for_each(|_| generate(element, input, out, depth));
        }
        Coder::Nullable(inner) => {
            let some = input.yes();
            out.push(u8::from(some));
            if some {
                generate(inner, input, out, depth);
            }
        }
        Coder::ShardedKey(key) => {
            wire::write_bytes(b"shard", out, true);
            generate(key, input, out, depth);
        }
        Coder::WindowedValue(coder) => {
            let at = if input.yes() { 0 } else { input.number() };
            out.extend_from_slice(&Timestamp::from_millis(at).to_bytes());
            out.extend_from_slice(&1i32.to_be_bytes());
            generate(&coder.window.to_coder(), input, out, depth);
            PaneInfo::NO_FIRING.encode(out);
            generate(&coder.value, input, out, depth);
        }
        Coder::IntervalWindow => {
            out.extend_from_slice(&Timestamp(10 * input.number().rem_euclid(1000)).to_bytes());
            out.push(10);
        }
        Coder::CustomWindow(window) => {
            out.extend_from_slice(&Timestamp(input.number().rem_euclid(1000)).to_bytes());
            generate(window, input, out, depth);
        }
        _ => {}
    }
}

pub(super) fn timers(coder: &Coder, input: &mut Input<'_>) -> Vec<u8> {
    let Coder::Timer(coder) = coder else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for _ in 0..input.below(3) {
        let (mut user_key, mut windows) = (Vec::new(), Vec::new());
        generate(&coder.key, input, &mut user_key, 0);
        generate(&coder.window.to_coder(), input, &mut windows, 0);
        let Ok(window) = coder.window.decode(&mut &windows[..], true) else {
            continue;
        };
        let firing = TimerFiring {
            fire_timestamp: Timestamp::from_millis(input.number()),
            hold_timestamp: Timestamp::from_millis(input.number()),
            pane: PaneInfo::NO_FIRING,
        };
        let timer = Timer {
            user_key: user_key.into(),
            dynamic_tag: String::from_utf8_lossy(&input.bytes(2)).into_owned(),
            windows: Windows::One(window),
            firing: (input.byte() > 31).then_some(firing),
        };
        timer.encode(&mut out);
    }
    out
}
