//! What Beam's runner for Flink cannot do, found before anything is uploaded: all of it at once, with the transform and what would work.

use prost::Message as _;
use prost_types::value::Kind;
use purlin_proto::pipeline::{
    PTransform, ParDoPayload, Pipeline, StateSpec, TestStreamPayload, is_bounded, state_spec,
    test_stream_payload,
};
use purlin_proto::urns::{environments, transforms, window_fns};

use crate::pipeline_options::OptionValues;

/// The problems of a pipeline, sorted by transform; none where Flink can run it.
pub(super) fn problems(pipeline: &Pipeline, streaming: bool) -> Vec<String> {
    let Some(components) = &pipeline.components else {
        return Vec::new();
    };
    let streaming = streaming || is_unbounded(pipeline);
    let mut found = Vec::new();
    for transform in components.transforms.values() {
        let urn = transform.spec.as_ref().map_or("", |spec| &*spec.urn);
        let payload = transform
            .spec
            .as_ref()
            .map(|spec| spec.payload.clone())
            .unwrap_or_default();
        match urn {
            transforms::PAR_DO => {
                // One that cannot be read is told of by Beam's runner.
                let par_do = ParDoPayload::decode(payload).unwrap_or_default();
                par_do_problems(transform, &par_do, streaming, &mut found);
            }
            transforms::TEST_STREAM => {
                let stream = TestStreamPayload::decode(payload).unwrap_or_default();
                test_stream_problems(transform, &stream, streaming, &mut found);
            }
            _ => {}
        }
    }
    for (id, strategy) in &components.windowing_strategies {
        let urn = strategy
            .window_fn
            .as_ref()
            .map_or("", |window_fn| &*window_fn.urn);
        if !KNOWN_WINDOWS.contains(&urn) {
            found.push(window_problem(pipeline, id, urn));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What to tell the user of a pipeline that may not find its files: Beam's runner starts containers itself, without what our own runner
/// reads of options.
pub(super) fn unmounted(pipeline: &Pipeline, options: &OptionValues) -> Option<String> {
    let all = pipeline.components.iter().flat_map(|c| c.environments.values());
    let in_containers = all.clone().any(|one| one.urn == environments::DOCKER);
    let mounts = match options.find("docker_mounts")? {
        Kind::ListValue(list) => list
            .values
            .iter()
            .filter_map(|mount| mount.kind.as_ref())
            .collect(),
        one => vec![one],
    };
    let paths = mounts.into_iter().filter_map(|mount| match mount {
        Kind::StringValue(text) => text.split(':').next(),
        _ => None,
    });
    let paths: Vec<&str> = paths.filter(|path| !path.is_empty()).collect();
    (in_containers && !paths.is_empty()).then(|| {
        format!(
            "Flink starts containers without folders of its machines, so DOCKER workers do not find {}: put the files into the image or into \
             an object store, or use --environment_type=EXTERNAL with a purlin-worker-pool beside each TaskManager",
            paths.join(", ")
        )
    })
}

const KNOWN_WINDOWS: [&str; 4] = [
    window_fns::GLOBAL_WINDOWS,
    window_fns::FIXED_WINDOWS,
    window_fns::SLIDING_WINDOWS,
    window_fns::SESSION_WINDOWS,
];

/// Whether Beam's runner makes a streaming job of it, whatever the options say.
fn is_unbounded(pipeline: &Pipeline) -> bool {
    let components = pipeline.components.iter();
    let mut collections = components.flat_map(|components| components.pcollections.values());
    collections.any(|collection| collection.is_bounded == is_bounded::Enum::Unbounded as i32)
}

fn par_do_problems(transform: &PTransform, par_do: &ParDoPayload, streaming: bool, found: &mut Vec<String>) {
    let name = &transform.unique_name;
    let states = par_do.state_specs.iter();
    for (state, (kind, instead)) in states.filter_map(|(name, spec)| Some((name, unknown_state(spec)?))) {
        found.push(format!(
            "{name}: state {state:?} is {kind}, which Beam's runner for Flink does not have; {instead}"
        ));
    }
    if !streaming && !par_do.on_window_expiration_timer_family_spec.is_empty() {
        found.push(format!(
            "{name}: on_window_expiration is never called by Flink in batch; set an event-time timer at the window's end instead, or run \
             with --streaming"
        ));
    }
    if !streaming && par_do.requests_finalization {
        found.push(format!(
            "{name}: bundle finalizers are not called by Flink in batch; run with --streaming and --checkpointing_interval, or do it in \
             finish_bundle"
        ));
    }
}

/// The kind of a state that Flink lacks, and what would work.
fn unknown_state(spec: &StateSpec) -> Option<(&'static str, &'static str)> {
    const BAG: &str = "use a bag or a value that holds all entries";
    match spec.spec.as_ref()? {
        state_spec::Spec::MapSpec(_) => Some(("map state", BAG)),
        state_spec::Spec::MultimapSpec(_) => Some(("multimap state", BAG)),
        state_spec::Spec::OrderedListSpec(_) => {
            Some(("ordered-list state", "use a bag and sort what is read of it"))
        }
        _ => None,
    }
}

fn test_stream_problems(
    transform: &PTransform,
    stream: &TestStreamPayload,
    streaming: bool,
    found: &mut Vec<String>,
) {
    use test_stream_payload::event::Event;
    let name = &transform.unique_name;
    if !streaming {
        found.push(format!(
            "{name}: Flink has TestStream in streaming only; run with --streaming"
        ));
    }
    let clock =
        |event: &test_stream_payload::Event| matches!(event.event, Some(Event::ProcessingTimeEvent(_)));
    if stream.events.iter().any(clock) {
        found.push(format!(
            "{name}: a TestStream cannot move Flink's clock; leave out advance_processing_time, or run this test on the local back end"
        ));
    }
    if stream
        .endpoint
        .as_ref()
        .is_some_and(|endpoint| !endpoint.url.is_empty())
    {
        found.push(format!(
            "{name}: Flink cannot read a TestStream's events of a service; give the events in the pipeline"
        ));
    }
}

fn window_problem(pipeline: &Pipeline, strategy: &str, urn: &str) -> String {
    let components = pipeline.components.iter();
    let mut collections: Vec<&str> = components
        .clone()
        .flat_map(|components| &components.pcollections)
        .filter(|(_, collection)| collection.windowing_strategy_id == strategy)
        .map(|(id, _)| &**id)
        .collect();
    collections.sort_unstable();
    let producers = components.flat_map(|components| components.transforms.values());
    let mut producers: Vec<&str> = producers
        .filter(|transform| transform.subtransforms.is_empty())
        .filter(|transform| {
            transform
                .outputs
                .values()
                .any(|output| collections.binary_search(&&**output).is_ok())
        })
        .map(|transform| &*transform.unique_name)
        .collect();
    producers.sort_unstable();
    let transform = producers.first().copied().unwrap_or(strategy);
    format!(
        "{transform}: window function {urn:?} is known to its SDK only, and Beam's runner for Flink knows global, fixed and sliding windows \
         and sessions; use one of these"
    )
}

#[cfg(test)]
mod tests {
    use purlin_proto::pipeline::{
        Components, FunctionSpec, MapStateSpec, OrderedListStateSpec, PCollection, WindowingStrategy,
    };

    use super::*;

    fn spec(urn: &str, payload: Vec<u8>) -> Option<FunctionSpec> {
        Some(FunctionSpec {
            urn: urn.into(),
            payload: payload.into(),
        })
    }

    fn transform(name: &str, spec: Option<FunctionSpec>, output: &str) -> (String, PTransform) {
        let transform = PTransform {
            unique_name: name.into(),
            spec,
            outputs: [("out".to_owned(), output.to_owned())].into(),
            ..Default::default()
        };
        (name.to_lowercase(), transform)
    }

    fn sample() -> Pipeline {
        let state = |spec| StateSpec {
            spec: Some(spec),
            ..Default::default()
        };
        let map = state(state_spec::Spec::MapSpec(MapStateSpec::default()));
        let list = state(state_spec::Spec::OrderedListSpec(OrderedListStateSpec::default()));
        let par_do = ParDoPayload {
            state_specs: [("seen".to_owned(), map), ("queue".to_owned(), list)].into(),
            on_window_expiration_timer_family_spec: "end".into(),
            requests_finalization: true,
            ..Default::default()
        };
        let collection = PCollection {
            windowing_strategy_id: "months".into(),
            is_bounded: is_bounded::Enum::Bounded as i32,
            ..Default::default()
        };
        let months = WindowingStrategy {
            window_fn: spec("my:months", Vec::new()),
            ..Default::default()
        };
        Pipeline {
            components: Some(Components {
                transforms: [
                    transform(
                        "Count",
                        spec(transforms::PAR_DO, par_do.encode_to_vec()),
                        "counts",
                    ),
                    transform("Months", spec(transforms::ASSIGN_WINDOWS, Vec::new()), "monthly"),
                ]
                .into(),
                pcollections: [("monthly".to_owned(), collection)].into(),
                windowing_strategies: [("months".to_owned(), months)].into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn all_that_flink_cannot_do_is_told_at_once() {
        let found = problems(&sample(), false);
        let begins: Vec<&str> = found
            .iter()
            .map(|problem| problem.split(", ").next().unwrap())
            .collect();
        assert_eq!(
            begins,
            [
                "Count: bundle finalizers are not called by Flink in batch; run with --streaming and --checkpointing_interval",
                "Count: on_window_expiration is never called by Flink in batch; set an event-time timer at the window's end instead",
                "Count: state \"queue\" is ordered-list state",
                "Count: state \"seen\" is map state",
                "Months: window function \"my:months\" is known to its SDK only",
            ]
        );
    }

    #[test]
    fn what_only_batch_lacks_is_allowed_in_streaming() {
        assert_eq!(problems(&sample(), true).len(), 3);
        let mut pipeline = sample();
        let collections = &mut pipeline.components.as_mut().unwrap().pcollections;
        collections.get_mut("monthly").unwrap().is_bounded = is_bounded::Enum::Unbounded as i32;
        assert_eq!(problems(&pipeline, false).len(), 3);
    }

    #[test]
    fn folders_that_no_container_gets_are_told_of() {
        let mut pipeline = sample();
        let text = |text: &str| Kind::StringValue(text.into());
        let options = |kind| {
            let value = prost_types::Value { kind: Some(kind) };
            OptionValues(prost_types::Struct {
                fields: [("beam:option:docker_mounts:v1".to_owned(), value)].into(),
            })
        };
        let both = prost_types::ListValue {
            values: ["/in:/in:ro", "/out"]
                .map(|mount| prost_types::Value {
                    kind: Some(text(mount)),
                })
                .into(),
        };
        let both = options(Kind::ListValue(both));
        assert_eq!(unmounted(&pipeline, &both), None);
        let environment = purlin_proto::pipeline::Environment {
            urn: environments::DOCKER.into(),
            ..Default::default()
        };
        let components = pipeline.components.as_mut().unwrap();
        components.environments.insert("docker".into(), environment);
        assert!(
            unmounted(&pipeline, &both)
                .unwrap()
                .contains("do not find /in, /out: put")
        );
        assert!(unmounted(&pipeline, &options(text("/in"))).is_some());
        assert_eq!(unmounted(&pipeline, &options(text(""))), None);
    }

    #[test]
    fn a_clock_that_a_test_moves_is_refused() {
        use test_stream_payload::event::{AdvanceProcessingTime, Event};
        let event = Event::ProcessingTimeEvent(AdvanceProcessingTime::default());
        let stream = TestStreamPayload {
            events: vec![test_stream_payload::Event { event: Some(event) }],
            ..Default::default()
        };
        let found = |streaming| {
            let stream = transform(
                "Events",
                spec(transforms::TEST_STREAM, stream.encode_to_vec()),
                "events",
            );
            let components = Components {
                transforms: [stream].into(),
                ..Default::default()
            };
            problems(
                &Pipeline {
                    components: Some(components),
                    ..Default::default()
                },
                streaming,
            )
        };
        assert_eq!(found(false).len(), 2);
        assert!(found(true)[0].contains("Events: a TestStream cannot move Flink's clock"));
    }
}
