//! Pipelines whose combiners are taken apart, as runners get them that lift nothing themselves.

use std::collections::BTreeSet;

use crate::support::Builder;
use prost::Message as _;
use purlin_proto::pipeline::{self, Pipeline};
use purlin_proto::urns::{self, transforms};
use purlin_runner::translate::lift;

/// Sums of pairs, with the parts that an SDK puts into a combiner: a grouping, and a ParDo on whole groups.
fn sums() -> Builder {
    let mut builder = Builder::new();
    builder.impulse("start");
    builder.collection("pairs", "kv");
    builder.collection("groups", "grouped");
    builder.collection("sums", "kv");
    builder.coder("accumulator", "test:accumulator", &[]);
    builder.par_do("Pairs", "start", &["pairs"]);
    builder.transform(
        "Sum/GroupByKey",
        transforms::GROUP_BY_KEY,
        Vec::new(),
        &[("in", "pairs")],
        &["groups"],
    );
    builder.par_do("Sum/Combine", "groups", &["sums"]);
    let payload = pipeline::CombinePayload {
        combine_fn: crate::support::spec("test:combiner", b"sum".to_vec()),
        accumulator_coder_id: "accumulator".to_owned(),
    };
    let inputs = [("in", "pairs")];
    builder.transform(
        "Sum",
        transforms::COMBINE_PER_KEY,
        payload.encode_to_vec(),
        &inputs,
        &["sums"],
    );
    let composite = builder.components().transforms.get_mut("Sum").unwrap();
    composite.environment_id = "env".to_owned();
    composite.subtransforms = vec!["Sum/GroupByKey".to_owned(), "Sum/Combine".to_owned()];
    builder.pipeline.root_transform_ids = ["start/impulse", "Pairs", "Sum"].map(str::to_owned).to_vec();
    builder
}

fn lifted(builder: &Builder) -> Pipeline {
    let mut pipeline = builder.pipeline.clone();
    lift(&mut pipeline);
    pipeline
}

fn ids(pipeline: &Pipeline) -> BTreeSet<&str> {
    let components = pipeline.components.as_ref().unwrap();
    components.transforms.keys().map(String::as_str).collect()
}

fn triggered(trigger: pipeline::trigger::Trigger) -> Builder {
    let mut builder = sums();
    let strategies = &mut builder.components().windowing_strategies;
    strategies.get_mut("global").unwrap().trigger = Some(pipeline::Trigger {
        trigger: Some(trigger),
    });
    builder
}

fn count(element_count: i32) -> pipeline::trigger::Trigger {
    pipeline::trigger::Trigger::ElementCount(pipeline::trigger::ElementCount { element_count })
}

#[test]
fn the_steps_take_the_place_of_the_parts() {
    let pipeline = lifted(&sums());
    let components = pipeline.components.as_ref().unwrap();
    let composite = &components.transforms["Sum"];
    assert_eq!(composite.spec.as_ref().unwrap().urn, transforms::COMBINE_PER_KEY);
    let steps = composite
        .subtransforms
        .iter()
        .map(|id| &components.transforms[id]);
    let steps: Vec<_> = steps.collect();
    let told: Vec<(&str, &str, &str)> = steps
        .iter()
        .map(|step| {
            let urn = step.spec.as_ref().unwrap().urn.as_str();
            (step.unique_name.as_str(), urn, step.environment_id.as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Sum/Precombine", transforms::COMBINE_PER_KEY_PRECOMBINE, "env"),
            ("Sum/Group", transforms::GROUP_BY_KEY, ""),
            ("Sum/Merge", transforms::COMBINE_PER_KEY_MERGE_ACCUMULATORS, "env"),
            (
                "Sum/ExtractOutputs",
                transforms::COMBINE_PER_KEY_EXTRACT_OUTPUTS,
                "env"
            ),
        ]
    );
    for step in [0, 2, 3] {
        assert_eq!(
            steps[step].spec.as_ref().unwrap().payload,
            composite.spec.as_ref().unwrap().payload
        );
    }
    // Each reads what the one before writes; the first and the last what the composite does.
    let only = |map: &std::collections::HashMap<String, String>| map.values().next().unwrap().clone();
    let inputs: Vec<String> = steps.iter().map(|step| only(&step.inputs)).collect();
    let outputs: Vec<String> = steps.iter().map(|step| only(&step.outputs)).collect();
    assert_eq!((inputs[0].as_str(), outputs[3].as_str()), ("pairs", "sums"));
    assert_eq!(inputs[1..], outputs[..3]);
    let coder = |collection: &str| spelled(components, &components.pcollections[collection].coder_id);
    assert_eq!(
        [coder(&outputs[0]), coder(&outputs[1]), coder(&outputs[2])],
        [
            "kv<bytes, accumulator>",
            "kv<bytes, iterable<accumulator>>",
            "kv<bytes, accumulator>"
        ]
    );
}

fn spelled(components: &pipeline::Components, id: &str) -> String {
    let coder = &components.coders[id];
    let urn = &coder.spec.as_ref().unwrap().urn;
    let name = urn
        .trim_start_matches("beam:coder:")
        .trim_start_matches("test:")
        .trim_end_matches(":v1");
    let inner: Vec<String> = coder
        .component_coder_ids
        .iter()
        .map(|id| spelled(components, id))
        .collect();
    match inner.is_empty() {
        true => name.to_owned(),
        false => format!("{name}<{}>", inner.join(", ")),
    }
}

/// Beam's Java runners look at all components, not only at what the roots reach.
#[test]
fn nothing_is_left_of_the_parts() {
    let pipeline = lifted(&sums());
    let steps = ["Sum/precombine", "Sum/group", "Sum/merge", "Sum/extractoutputs"];
    let expected = ["start/impulse", "Pairs", "Sum"]
        .into_iter()
        .chain(steps)
        .collect();
    assert_eq!(ids(&pipeline), expected);
    let components = pipeline.components.as_ref().unwrap();
    assert!(!components.pcollections.contains_key("groups"));
    for id in ["pairs", "sums", "start"] {
        assert!(components.pcollections.contains_key(id), "{id}");
    }
}

#[test]
fn a_second_time_changes_nothing() {
    let once = lifted(&sums());
    let mut twice = once.clone();
    lift(&mut twice);
    assert_eq!(twice, once);
}

/// Beam's rule: a trigger that counts must see each element.
#[test]
fn triggers_that_count_are_not_lifted() {
    use pipeline::trigger::{AfterEndOfWindow, Repeat, Trigger};
    let boxed = |trigger| {
        Some(Box::new(pipeline::Trigger {
            trigger: Some(trigger),
        }))
    };
    let early = |trigger| {
        Trigger::AfterEndOfWindow(Box::new(AfterEndOfWindow {
            early_firings: boxed(trigger),
            late_firings: None,
        }))
    };
    let repeated = |trigger| {
        Trigger::Repeat(Box::new(Repeat {
            subtrigger: boxed(trigger),
        }))
    };
    for trigger in [count(2), early(count(2)), repeated(count(3))] {
        let builder = triggered(trigger);
        assert_eq!(lifted(&builder), builder.pipeline);
    }
    for trigger in [count(1), early(count(1)), repeated(count(1))] {
        assert!(ids(&lifted(&triggered(trigger))).contains("Sum/precombine"));
    }
}

#[test]
fn a_combiner_without_accumulators_is_left_alone() {
    let mut builder = sums();
    let payload = pipeline::CombinePayload::default();
    let spec = crate::support::spec(transforms::COMBINE_PER_KEY, payload.encode_to_vec());
    builder.components().transforms.get_mut("Sum").unwrap().spec = spec;
    assert_eq!(lifted(&builder), builder.pipeline);
}

/// The panes of a script tell late and timely elements apart, which come together.
#[test]
fn pipelines_with_a_test_stream_are_left_alone() {
    let mut builder = sums();
    builder.collection("script", "bytes");
    builder.transform(
        "Script",
        urns::transforms::TEST_STREAM,
        Vec::new(),
        &[],
        &["script"],
    );
    assert_eq!(lifted(&builder), builder.pipeline);
}

/// Some SDKs give the environment to the parts alone.
#[test]
fn the_environment_may_be_that_of_a_part() {
    let mut builder = sums();
    let composite = builder.components().transforms.get_mut("Sum").unwrap();
    composite.environment_id.clear();
    let pipeline = lifted(&builder);
    let steps = &pipeline.components.as_ref().unwrap().transforms;
    assert_eq!(steps["Sum/precombine"].environment_id, "env");
}

#[test]
fn two_combiners_share_their_coders() {
    let mut builder = sums();
    let mut second = builder.components().transforms["Sum"].clone();
    second.unique_name = "Second".to_owned();
    second.subtransforms.clear();
    second.outputs = [("0".to_owned(), "second".to_owned())].into();
    builder.collection("second", "kv");
    builder
        .components()
        .transforms
        .insert("Second".to_owned(), second);
    builder.pipeline.root_transform_ids.push("Second".to_owned());
    let pipeline = lifted(&builder);
    let components = pipeline.components.as_ref().unwrap();
    let coder = |id: &str| &components.pcollections[id].coder_id;
    assert_eq!(coder("Sum/precombined"), coder("Second/precombined"));
    assert_eq!(components.coders.len(), builder.components().coders.len() + 3);
}

/// A forged pipeline is for the translation to refuse.
#[test]
fn malformed_combiners_are_left_alone() {
    let mut circle = sums();
    circle
        .components()
        .transforms
        .get_mut("Sum")
        .unwrap()
        .subtransforms
        .push("Sum".to_owned());
    lifted(&circle);
    let mut no_pairs = sums();
    no_pairs
        .components()
        .pcollections
        .get_mut("pairs")
        .unwrap()
        .coder_id = "bytes".to_owned();
    let mut no_output = sums();
    no_output
        .components()
        .transforms
        .get_mut("Sum")
        .unwrap()
        .outputs
        .clear();
    let mut no_payload = sums();
    let spec = crate::support::spec(transforms::COMBINE_PER_KEY, vec![0xff]);
    no_payload.components().transforms.get_mut("Sum").unwrap().spec = spec;
    for builder in [no_pairs, no_output, no_payload] {
        assert_eq!(lifted(&builder), builder.pipeline);
    }
    let mut nothing = Pipeline::default();
    lift(&mut nothing);
    assert_eq!(nothing, Pipeline::default());
}
