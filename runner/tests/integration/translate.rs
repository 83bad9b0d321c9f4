//! Plans of pipelines that Beam's Python SDK submits (see `data/make_pipelines.py`), and of pipelines gone wrong.

use std::fmt::Write as _;

use crate::support::Builder;
use expect_test::{Expect, expect, expect_file};
use prost::Message as _;
use purlin_proto::fn_execution::RemoteGrpcPort;
use purlin_proto::pipeline::{self, ParDoPayload, Pipeline, WindowingStrategy};
use purlin_proto::urns;
use purlin_runner::translate::{Plan, PlanOptions, plan, with_endpoints};

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
    let descriptor = &plan.stages().raw[stage].descriptor;
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
        "packed",
    ] {
        let plan = plan(&read(name), &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
        expect_file![format!("{}/tests/data/{name}.plan", env!("CARGO_MANIFEST_DIR"))]
            .assert_eq(&describe(&plan));
    }
}

/// SDKs differ in whether they say where a transform runs that the runner executes itself.
#[test]
fn transforms_of_the_runners_may_carry_an_environment_or_not() {
    let native = [
        urns::transforms::IMPULSE,
        urns::transforms::GROUP_BY_KEY,
        urns::transforms::RESHUFFLE,
        urns::transforms::FLATTEN,
    ];
    for name in ["wordcount_plain", "flatten"] {
        let plans = [true, false].map(|with| {
            let mut pipeline = read(name);
            let components = pipeline.components.as_mut().unwrap();
            let environment = components.environments.keys().next().unwrap().clone();
            let environment = if with { environment } else { String::new() };
            for transform in components.transforms.values_mut() {
                let urn = transform.spec.as_ref().map_or("", |spec| spec.urn.as_str());
                if native.contains(&urn) {
                    transform.environment_id.clone_from(&environment);
                }
            }
            describe(&plan(&pipeline, &options()).unwrap())
        });
        assert_eq!(plans[0], plans[1]);
    }
}

/// A Reshuffle of Python's has a GroupByKey and four ParDos inside, which are not run.
#[test]
fn what_the_runner_knows_stands_for_its_subtransforms() {
    let plan = plan(&read("stateful"), &options()).unwrap().to_string();
    assert!(plan.contains("Redistribute Reshuffle"), "{plan}");
    assert!(!plan.contains("AddRandomKeys"), "{plan}");
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

/// What cannot be told before stages are made is told with the rest, and what reads of a broken transform is not blamed.
#[test]
fn problems_of_all_steps_of_planning_are_told_in_one_round() {
    let mut builder = Builder::new();
    builder.coder("text", urns::coders::STRING_UTF8, &[]);
    builder.impulse("start");
    builder.collection("lost", "nothing");
    builder.par_do("Lost", "start", &["lost"]);
    builder.par_do("AfterLost", "lost", &[]);
    builder.collection("texts", "text");
    builder.par_do("Texts", "start", &["texts"]);
    let sorted = pipeline::ParDoPayload {
        requires_time_sorted_input: true,
        ..Default::default()
    };
    builder.par_do_with("Sorted", &[("main", "texts")], &[], sorted);
    run_in(&mut builder, "Texts", "nowhere");
    let error = plan(&builder.pipeline, &options()).unwrap_err();
    let at = |name: &str| error.problems.iter().filter(|p| p.transform == name).count();
    // The environment, the coder and the missing key, which are looked for in this order.
    assert!(
        at("Texts") == 1 && at("Lost") == 1 && at("Sorted") >= 1,
        "{error}"
    );
    assert_eq!(at("AfterLost"), 0, "{error}");
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

/// A pipeline of two SDKs; the second one knows no varints, and a third environment equals the first.
fn two_sdks() -> Builder {
    let mut builder = Builder::new();
    let first = builder.components().environments.get_mut("env").unwrap();
    first.capabilities = vec![
        urns::coders::VARINT.to_owned(),
        urns::coders::STRING_UTF8.to_owned(),
    ];
    let mut equal = first.clone();
    equal.capabilities.reverse();
    let second = pipeline::Environment {
        urn: "test:other".to_owned(),
        capabilities: vec![urns::coders::STRING_UTF8.to_owned()],
        ..Default::default()
    };
    builder
        .components()
        .environments
        .insert("zzz-equal".to_owned(), equal);
    builder
        .components()
        .environments
        .insert("other".to_owned(), second);
    builder.coder("varint", urns::coders::VARINT, &[]);
    builder.coder("text", urns::coders::STRING_UTF8, &[]);
    builder.coder("own", "test:pickled", &[]);
    builder.coder("pair", urns::coders::KV, &["text", "varint"]);
    builder.impulse("start");
    builder
}

fn run_in(builder: &mut Builder, transform: &str, environment: &str) {
    let transform = builder.components().transforms.get_mut(transform).unwrap();
    transform.environment_id = environment.to_owned();
}

#[test]
fn sdks_meet_in_coders_that_all_know() {
    let mut builder = two_sdks();
    builder.collection("pairs", "pair");
    builder.collection("mine", "own");
    builder.collection("back", "own");
    builder.par_do("Make", "start", &["pairs"]);
    builder.par_do("Map", "pairs", &["mine"]);
    builder.par_do("Theirs", "mine", &["back"]);
    builder.par_do("Mine/Again", "back", &[]);
    run_in(&mut builder, "Map", "zzz-equal");
    run_in(&mut builder, "Theirs", "other");
    let plan = plan(&builder.pipeline, &options()).unwrap();
    expect![[r#"
        Impulse start/impulse: nothing -> start
        stage 0 on env: start -> mine
            Make
            Map
        stage 1 on other: mine -> back
            Theirs
        stage 2 on env: back -> nothing
            Mine/Again
        stage 0 in env
          start/Read: windowed_value<bytes, global_window>
          mine/Write: windowed_value<length_prefix<test:pickled>, global_window>
        stage 1 in other
          mine/Read: windowed_value<length_prefix<test:pickled>, global_window>
          back/Write: windowed_value<length_prefix<test:pickled>, global_window>
        stage 2 in env
          back/Read: windowed_value<length_prefix<test:pickled>, global_window>
    "#]]
    .assert_eq(&describe(&plan));
}

#[test]
fn a_flatten_of_two_sdks_is_transcoded_where_elements_are_made() {
    let mut builder = two_sdks();
    builder.collection("numbers", "varint");
    builder.collection("pickled", "own");
    builder.collection("all", "bytes");
    builder.par_do("Numbers", "start", &["numbers"]);
    builder.par_do("Pickled", "start", &["pickled"]);
    run_in(&mut builder, "Pickled", "other");
    builder.transform(
        "Flatten",
        urns::transforms::FLATTEN,
        Vec::new(),
        &[("0", "numbers"), ("1", "pickled")],
        &["all"],
    );
    builder.par_do("Read", "all", &[]);
    let plan = plan(&builder.pipeline, &options()).unwrap();
    expect![[r#"
        Impulse start/impulse: nothing -> start
        stage 0 on env: start -> Flatten/transcode/0
            Numbers
            Flatten/Transcode/0
        stage 1 on other: start -> Flatten/transcode/1
            Pickled
            Flatten/Transcode/1
        Flatten Flatten: Flatten/transcode/0, Flatten/transcode/1 -> all
        stage 2 on env: all -> nothing
            Read
        stage 0 in env
          start/Read: windowed_value<bytes, global_window>
          Flatten/transcode/0/Write: windowed_value<bytes, global_window>
        stage 1 in other
          start/Read: windowed_value<bytes, global_window>
          Flatten/transcode/1/Write: windowed_value<bytes, global_window>
        stage 2 in env
          all/Read: windowed_value<bytes, global_window>
    "#]]
    .assert_eq(&describe(&plan));
}

/// Pairs whose keys only an SDK can tell from their values are sent whole, and written anew where a Flatten's reader runs.
#[test]
fn a_test_stream_of_pairs_with_unknown_keys_is_written_anew_by_an_sdk() {
    let mut builder = two_sdks();
    builder.coder("unknown", urns::coders::KV, &["own", "text"]);
    builder.collection("stream", "unknown");
    builder.collection("more", "unknown");
    builder.collection("all", "unknown");
    builder.par_do("More", "start", &["more"]);
    let element = pipeline::test_stream_payload::TimestampedElement {
        encoded_element: b"no length before the key".as_slice().into(),
        timestamp: 1,
    };
    let added = pipeline::test_stream_payload::event::AddElements {
        elements: vec![element],
        ..Default::default()
    };
    let payload = pipeline::TestStreamPayload {
        coder_id: "unknown".to_owned(),
        events: vec![pipeline::test_stream_payload::Event {
            event: Some(pipeline::test_stream_payload::event::Event::ElementEvent(added)),
        }],
        ..Default::default()
    };
    let urn = urns::transforms::TEST_STREAM;
    builder.transform("Stream", urn, payload.encode_to_vec(), &[], &["stream"]);
    let inputs = [("0", "stream"), ("1", "more")];
    builder.transform(
        "Flatten",
        urns::transforms::FLATTEN,
        Vec::new(),
        &inputs,
        &["all"],
    );
    builder.par_do("Read", "all", &[]);
    run_in(&mut builder, "Read", "other");
    let described = describe(&plan(&builder.pipeline, &options()).unwrap());
    for line in [
        "on other: Stream/transcode/0 -> stream\n",
        "Flatten Flatten: stream, more -> all\n",
        "  Stream/transcode/0/Read: windowed_value<length_prefix<kv<test:pickled, string_utf8>>, global_window>\n",
        "  stream/Write: windowed_value<kv<length_prefix<test:pickled>, string_utf8>, global_window>\n",
    ] {
        assert!(described.contains(line), "{line}is not in\n{described}");
    }
}

#[test]
fn window_into_without_an_environment_runs_where_its_input_is_made() {
    let mut builder = two_sdks();
    builder.collection("numbers", "varint");
    builder.collection("windowed", "varint");
    builder.par_do("Numbers", "start", &["numbers"]);
    run_in(&mut builder, "Numbers", "other");
    builder.transform(
        "Window",
        urns::transforms::ASSIGN_WINDOWS,
        Vec::new(),
        &[("in", "numbers")],
        &["windowed"],
    );
    builder.par_do("Read", "windowed", &[]);
    let plan = plan(&builder.pipeline, &options()).unwrap();
    let places: Vec<(&str, &str)> = plan
        .stages()
        .iter()
        .map(|s| (s.name.as_str(), plan.environments()[s.environment].id.as_str()))
        .collect();
    assert_eq!(places, [("Numbers + Window", "other"), ("Read", "env")]);
}

#[test]
fn a_combiner_is_lifted_unless_its_trigger_counts() {
    for (trigger, lifted) in [
        (None, true),
        (
            Some(pipeline::trigger::Trigger::ElementCount(
                pipeline::trigger::ElementCount { element_count: 2 },
            )),
            false,
        ),
    ] {
        let mut builder = Builder::new();
        builder.impulse("start");
        let strategy = builder
            .components()
            .windowing_strategies
            .get_mut("global")
            .unwrap();
        strategy.trigger = trigger.map(|trigger| pipeline::Trigger {
            trigger: Some(trigger),
        });
        builder.collection("pairs", "kv");
        builder.collection("sums", "kv");
        builder.par_do("Pairs", "start", &["pairs"]);
        let payload = pipeline::CombinePayload {
            combine_fn: None,
            accumulator_coder_id: "bytes".to_owned(),
        };
        let urn = urns::transforms::COMBINE_PER_KEY;
        builder.transform("Sum", urn, payload.encode_to_vec(), &[("in", "pairs")], &["sums"]);
        run_in(&mut builder, "Sum", "env");
        let plan = plan(&builder.pipeline, &options()).unwrap();
        let names: Vec<&str> = plan.stages().iter().map(|stage| stage.name.as_str()).collect();
        if lifted {
            assert_eq!(
                names,
                ["Pairs + Sum/Precombine", "Sum/Merge + Sum/ExtractOutputs"]
            );
        } else {
            assert_eq!(names, ["Pairs", "Sum/Combine"]);
        }
    }
}

#[test]
fn endpoints_are_filled_in_for_each_worker() {
    let mut builder = Builder::new();
    builder.impulse("start");
    builder.collection("out", "bytes");
    builder.collection("groups", "grouped");
    builder.par_do("Make", "start", &["out"]);
    let plan = plan(&builder.pipeline, &options()).unwrap();
    let stage = &plan.stages().raw[0];
    let at = |url: &str| pipeline::ApiServiceDescriptor {
        url: url.to_owned(),
        authentication: None,
    };
    let descriptor = with_endpoints(&stage.descriptor, &at("data:1"), &at("state:2"));
    assert_eq!(descriptor.state_api_service_descriptor, Some(at("state:2")));
    assert_eq!(descriptor.timer_api_service_descriptor, Some(at("data:1")));
    let source = descriptor.transforms[&stage.source].spec.as_ref().unwrap();
    let port = RemoteGrpcPort::decode(&source.payload[..]).unwrap();
    assert_eq!(port.api_service_descriptor, Some(at("data:1")));
    assert!(descriptor.coders.contains_key(&port.coder_id));
}

#[test]
fn timers_and_map_states_are_sent_in_coders_that_the_runner_reads() {
    let mut builder = two_sdks();
    builder.coder("odd", urns::coders::KV, &["own", "varint"]);
    builder.coder("timer", urns::coders::TIMER, &["own", "global"]);
    builder.collection("pairs", "odd");
    builder.par_do("Make", "start", &["pairs"]);
    let map = pipeline::MapStateSpec {
        key_coder_id: "text".to_owned(),
        value_coder_id: "own".to_owned(),
    };
    let payload = ParDoPayload {
        state_specs: [(
            "map".to_owned(),
            pipeline::StateSpec {
                spec: Some(pipeline::state_spec::Spec::MapSpec(map)),
                protocol: None,
            },
        )]
        .into(),
        timer_family_specs: [(
            "t".to_owned(),
            pipeline::TimerFamilySpec {
                time_domain: pipeline::time_domain::Enum::ProcessingTime.into(),
                timer_family_coder_id: "timer".to_owned(),
            },
        )]
        .into(),
        ..Default::default()
    };
    builder.par_do_with("Keep", &[("main", "pairs")], &[], payload);
    let plan = plan(&builder.pipeline, &options()).unwrap();
    let number = plan
        .stages()
        .iter()
        .position(|stage| stage.name == "Keep")
        .unwrap();
    let descriptor = &plan.stages().raw[number].descriptor;
    let sent =
        ParDoPayload::decode(&descriptor.transforms["Keep"].spec.as_ref().unwrap().payload[..]).unwrap();
    let timer = &sent.timer_family_specs["t"].timer_family_coder_id;
    // "varint" is opaque where one of two SDKs in use lacks it; here only the first is used.
    assert_eq!(
        coder(&plan, number, timer),
        "timer<length_prefix<test:pickled>, global_window>"
    );
    let Some(pipeline::state_spec::Spec::MapSpec(map)) = &sent.state_specs["map"].spec else {
        panic!("{sent:?}")
    };
    assert_eq!(coder(&plan, number, &map.key_coder_id), "string_utf8");
    assert_eq!(
        coder(&plan, number, &map.value_coder_id),
        "length_prefix<test:pickled>"
    );
    let pairs = &descriptor.pcollections["pairs"].coder_id;
    assert_eq!(
        coder(&plan, number, pairs),
        "kv<length_prefix<test:pickled>, varint>"
    );
}
