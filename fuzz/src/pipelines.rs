//! Real pipelines, changed.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use purlin_proto::pipeline::{Components, FunctionSpec, PTransform, Pipeline};
use purlin_proto::urns;
use purlin_runner::translate::{PlanOptions, plan};

use crate::PIPELINES;
use crate::input::Input;

/// Changes a pipeline as the bytes say, and plans it. Returns how many stages it has, 0 if it was refused.
///
/// # Panics
/// Where planning does.
pub fn pipeline(data: &[u8]) -> usize {
    let mut input = Input(data);
    let Some(pipeline) = changed(&mut input) else {
        return 0;
    };
    let options = PlanOptions {
        workers: input.below(4) as u32,
        slots_per_worker: input.below(40) as u32,
        ..PlanOptions::default()
    };
    match plan(&pipeline, &options) {
        Ok(plan) => {
            let _ = plan.to_string();
            plan.stages().len()
        }
        Err(error) => {
            assert!(!error.problems.is_empty(), "an error must say what is wrong");
            0
        }
    }
}

/// A pipeline of the fixtures, with up to eight changes; or one out of nothing but bytes.
fn changed(input: &mut Input<'_>) -> Option<Pipeline> {
    let number = input.below(PIPELINES.len() + 1);
    let Some(&original) = PIPELINES.get(number) else {
        return Pipeline::decode(input.0).ok();
    };
    let mut bytes = original.to_vec();
    if input.byte() < 64 {
        for _ in 0..=input.below(3) {
            let at = usize::from(input.byte()) << 8 | usize::from(input.byte());
            let length = bytes.len();
            bytes[at % length] = input.byte();
        }
    }
    let mut pipeline = Pipeline::decode(&bytes[..]).ok()?;
    for _ in 0..input.below(9) {
        change(&mut pipeline, input);
    }
    Some(pipeline)
}

fn ids<T>(map: &HashMap<String, T>) -> Vec<String> {
    let mut ids: Vec<String> = map.keys().cloned().collect();
    ids.sort();
    ids.push(String::new());
    ids.push("nowhere".to_owned());
    ids
}

fn any<'m, T>(map: &'m mut HashMap<String, T>, input: &mut Input<'_>) -> Option<&'m mut T> {
    let mut ids: Vec<&String> = map.keys().collect();
    ids.sort();
    let id = input.pick(&ids).map(|id| (*id).clone())?;
    map.get_mut(&id)
}

fn change(pipeline: &mut Pipeline, input: &mut Input<'_>) {
    let Some(components) = &mut pipeline.components else {
        return;
    };
    let Components {
        transforms,
        pcollections,
        windowing_strategies,
        coders,
        environments,
    } = components;
    let transform_ids = ids(transforms);
    let collection_ids = ids(pcollections);
    let coder_ids = ids(coders);
    let strategy_ids = ids(windowing_strategies);
    let environment_ids = ids(environments);
    let pick = |input: &mut Input<'_>, ids: &[String]| input.pick(ids).cloned().unwrap_or_default();
    match input.below(20) {
        0 => drop(transforms.remove(&pick(input, &transform_ids))),
        1 => drop(pcollections.remove(&pick(input, &collection_ids))),
        2 => drop(coders.remove(&pick(input, &coder_ids))),
        3 => drop(windowing_strategies.remove(&pick(input, &strategy_ids))),
        4 => drop(environments.remove(&pick(input, &environment_ids))),
        5 | 6 => {
            let Some(transform) = any(transforms, input) else {
                return;
            };
            let ends = if input.yes() {
                &mut transform.inputs
            } else {
                &mut transform.outputs
            };
            let mut tags: Vec<String> = ends.keys().cloned().collect();
            tags.sort();
            let tag = if input.yes() {
                "another".to_owned()
            } else {
                pick(input, &tags)
            };
            ends.insert(tag, pick(input, &collection_ids));
        }
        7 => {
            let Some(transform) = any(transforms, input) else {
                return;
            };
            transform.subtransforms.push(pick(input, &transform_ids));
        }
        8 => {
            let Some(transform) = any(transforms, input) else {
                return;
            };
            let urn = input.pick(urns::transforms::ALL).copied().unwrap_or_default();
            transform.spec.get_or_insert_default().urn = urn.to_owned();
        }
        9 => {
            if let Some(spec) = any(transforms, input).and_then(|t| t.spec.as_mut()) {
                spoil(spec, input);
            }
        }
        10 => {
            let Some(transform) = any(transforms, input) else {
                return;
            };
            transform.environment_id = pick(input, &environment_ids);
        }
        11 | 12 => {
            let Some(coder) = any(coders, input) else { return };
            let id = pick(input, &coder_ids);
            match input.below(3) {
                0 => coder.component_coder_ids.push(id),
                1 => drop(coder.component_coder_ids.pop()),
                _ => coder
                    .component_coder_ids
                    .iter_mut()
                    .for_each(|own| own.clone_from(&id)),
            }
        }
        13 => {
            let Some(coder) = any(coders, input) else { return };
            let urn = input.pick(urns::coders::ALL).copied().unwrap_or_default();
            coder.spec.get_or_insert_default().urn = urn.to_owned();
        }
        14 => {
            let Some(collection) = any(pcollections, input) else {
                return;
            };
            match input.below(3) {
                0 => collection.coder_id = pick(input, &coder_ids),
                1 => collection.windowing_strategy_id = pick(input, &strategy_ids),
                _ => collection.is_bounded = i32::from(input.byte()) - 1,
            }
        }
        15 => {
            let Some(strategy) = any(windowing_strategies, input) else {
                return;
            };
            match input.below(7) {
                0 => strategy.window_coder_id = pick(input, &coder_ids),
                1 => strategy.allowed_lateness = input.number(),
                2 => strategy.merge_status = input.number() as i32,
                3 => strategy.output_time = input.number() as i32,
                4 => strategy.accumulation_mode = input.number() as i32,
                5 => strategy.trigger = None,
                _ => spoil(strategy.window_fn.get_or_insert_default(), input),
            }
        }
        16 => {
            let Some(strategy) = any(windowing_strategies, input) else {
                return;
            };
            let urns = urns::window_fns::ALL;
            let urn = input.pick(urns).copied().unwrap_or_default();
            strategy.window_fn.get_or_insert_default().urn = urn.to_owned();
        }
        17 => pipeline.root_transform_ids.push(pick(input, &transform_ids)),
        18 => {
            // A transform twice, under another name.
            let id = pick(input, &transform_ids);
            if let Some(twin) = transforms.get(&id).cloned() {
                transforms.insert(format!("{id}-twin"), twin);
                pipeline.root_transform_ids.push(format!("{id}-twin"));
            }
        }
        _ => {
            let transform = PTransform {
                unique_name: String::from_utf8_lossy(&input.bytes(8)).into_owned(),
                spec: Some(FunctionSpec {
                    urn: input
                        .pick(urns::transforms::ALL)
                        .copied()
                        .unwrap_or_default()
                        .to_owned(),
                    payload: input.bytes(16),
                }),
                inputs: [("in".to_owned(), pick(input, &collection_ids))].into(),
                outputs: [("out".to_owned(), pick(input, &collection_ids))].into(),
                environment_id: pick(input, &environment_ids),
                ..PTransform::default()
            };
            transforms.insert("added".to_owned(), transform);
            pipeline.root_transform_ids.push("added".to_owned());
        }
    }
}

fn spoil(spec: &mut FunctionSpec, input: &mut Input<'_>) {
    let mut payload = spec.payload.to_vec();
    match input.below(3) {
        0 => payload.truncate(input.below(payload.len() + 1)),
        1 => {
            let at = input.below(payload.len());
            if let Some(byte) = payload.get_mut(at) {
                *byte = input.byte();
            }
        }
        _ => payload = input.bytes(32).to_vec(),
    }
    spec.payload = Bytes::from(payload);
}
