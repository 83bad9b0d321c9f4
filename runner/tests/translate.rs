//! Plans of pipelines that Beam's Python SDK submits (see `data/make_pipelines.py`), and of pipelines gone wrong.

use std::fmt::Write as _;

use expect_test::{Expect, expect, expect_file};
use prost::Message as _;
use purlin_proto::fn_execution::RemoteGrpcPort;
use purlin_proto::pipeline::{Pipeline, WindowingStrategy};
use purlin_runner::translate::{Plan, PlanOptions, plan};

fn options() -> PlanOptions {
    PlanOptions {
        workers: 1,
        slots_per_worker: 2,
        ..PlanOptions::default()
    }
}

fn read(name: &str) -> Pipeline {
    let path = format!("{}/tests/data/{name}.pb", env!("CARGO_MANIFEST_DIR"));
    Pipeline::decode(&std::fs::read(path).unwrap()[..]).unwrap()
}

/// A coder of a descriptor, spelled out.
fn coder(plan: &Plan, stage: usize, id: &str) -> String {
    let descriptor = &plan.stages()[stage].descriptor;
    let coder = descriptor
        .coders
        .get(id)
        .unwrap_or_else(|| panic!("coder {id} is not in the descriptor"));
    let urn = coder.spec.as_ref().map_or("", |spec| &spec.urn);
    let urn = urn.trim_start_matches("beam:coder:").trim_end_matches(":v1");
    let inner: Vec<String> = coder
        .component_coder_ids
        .iter()
        .map(|id| self::coder(plan, stage, id))
        .collect();
    if inner.is_empty() {
        urn.to_owned()
    } else {
        format!("{urn}<{}>", inner.join(", "))
    }
}

fn describe(plan: &Plan) -> String {
    let mut out = plan.to_string();
    for (number, stage) in plan.stages().iter().enumerate() {
        writeln!(
            out,
            "stage {number} in {}",
            plan.environments()[stage.environment].id
        )
        .unwrap();
        let ports = std::iter::once(&stage.source).chain(stage.sinks.iter().map(|(id, _)| id));
        for id in ports {
            let transform = &stage.descriptor.transforms[id];
            let port = RemoteGrpcPort::decode(&transform.spec.as_ref().unwrap().payload[..]).unwrap();
            writeln!(out, "  {id}: {}", coder(plan, number, &port.coder_id)).unwrap();
        }
        for (transform, family) in &stage.timer_families {
            writeln!(out, "  timers {transform} {family}").unwrap();
        }
        for strategy in stage.descriptor.windowing_strategies.values() {
            let WindowingStrategy { window_coder_id, .. } = strategy;
            assert!(stage.descriptor.coders.contains_key(window_coder_id));
        }
    }
    out
}

#[test]
fn pipelines_of_python() {
    for name in [
        "wordcount",
        "wordcount_plain",
        "text_wordcount",
        "side_inputs",
        "stateful",
        "custom_windows",
        "triggers",
        "test_stream",
        "flatten",
        "batches",
    ] {
        let plan = plan(&read(name), &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
        expect_file![format!("{}/tests/data/{name}.plan", env!("CARGO_MANIFEST_DIR"))]
            .assert_eq(&describe(&plan));
    }
}

fn problems(mutate: impl FnOnce(&mut Pipeline), expected: Expect) {
    let mut pipeline = read("wordcount");
    mutate(&mut pipeline);
    let error = plan(&pipeline, &options()).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn all_problems_are_told_at_once() {
    problems(
        |pipeline| {
            pipeline
                .requirements
                .push("beam:requirement:of_the_future:v1".to_owned());
            let components = pipeline.components.as_mut().unwrap();
            for transform in components.transforms.values_mut() {
                if transform.unique_name == "Split" {
                    transform.spec.as_mut().unwrap().payload = vec![0xff].into();
                }
                if transform.unique_name == "Format" {
                    transform.environment_id = "nowhere".to_owned();
                }
            }
        },
        expect![[r#"
            the pipeline cannot be run, for 3 reasons:
              the pipeline requires "beam:requirement:of_the_future:v1", which is not supported
              transform "Split": the payload of beam:transform:pardo:v1 is malformed: failed to decode Protobuf message: invalid varint
              transform "Format": environment "nowhere" is not among the pipeline's components"#]],
    );
}

#[test]
fn nothing_to_do_is_a_plan() {
    assert!(
        plan(&Pipeline::default(), &options())
            .unwrap()
            .stages()
            .is_empty()
    );
}
