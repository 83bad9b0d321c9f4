//! Pipelines that are wrong in every way that can be thought of, and some that cannot: errors, never panics or hangs.

use crate::support::Builder;
use prost::Message as _;
use purlin_proto::pipeline::{self, Components, FunctionSpec, ParDoPayload, Pipeline};
use purlin_proto::urns;
use purlin_runner::translate::{PlanOptions, plan};

const NAMES: &[&str] = &[
    "wordcount",
    "text_wordcount",
    "side_inputs",
    "stateful",
    "custom_windows",
    "triggers",
    "test_stream",
    "flatten",
    "batches",
    "packed",
];

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{name}.pb", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn try_plan(pipeline: &Pipeline) -> Result<(), String> {
    plan(pipeline, &PlanOptions::default())
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// A small generator: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

#[test]
fn any_byte_may_be_wrong() {
    let mut random = Random(7);
    let mut decoded = 0;
    for name in NAMES {
        let original = bytes_of(name);
        for _ in 0..150 {
            let mut data = original.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(data.len());
                data[at] = random.below(256) as u8;
            }
            if let Ok(pipeline) = Pipeline::decode(&data[..]) {
                decoded += 1;
                let _ = try_plan(&pipeline);
            }
        }
    }
    assert!(decoded > 200, "{decoded}");
}

fn sorted_ids<T>(map: &std::collections::HashMap<String, T>) -> Vec<String> {
    let mut ids: Vec<String> = map.keys().cloned().collect();
    ids.sort();
    ids
}

/// Every component removed once: what is used is missed, by name.
#[test]
fn any_component_may_be_missing() {
    for name in NAMES {
        let original = Pipeline::decode(&bytes_of(name)[..]).unwrap();
        let components = original.components.clone().unwrap();
        let remove = |what: &str, ids: Vec<String>, without: fn(&mut Components, &str)| {
            let mut missed = 0;
            for id in ids {
                let mut pipeline = original.clone();
                without(pipeline.components.as_mut().unwrap(), &id);
                missed += u32::from(try_plan(&pipeline).is_err());
            }
            assert!(missed > 0, "{name}: no {what} was missed");
        };
        remove("transform", sorted_ids(&components.transforms), |c, id| {
            drop(c.transforms.remove(id))
        });
        remove("PCollection", sorted_ids(&components.pcollections), |c, id| {
            drop(c.pcollections.remove(id))
        });
        remove("coder", sorted_ids(&components.coders), |c, id| {
            drop(c.coders.remove(id))
        });
        remove(
            "windowing",
            sorted_ids(&components.windowing_strategies),
            |c, id| {
                drop(c.windowing_strategies.remove(id));
            },
        );
        remove("environment", sorted_ids(&components.environments), |c, id| {
            drop(c.environments.remove(id))
        });
    }
}

/// Ids exchanged for one another make cycles, doubles and nonsense.
#[test]
fn any_id_may_be_another() {
    let mut random = Random(11);
    let mut wrong = 0;
    for name in NAMES {
        let original = Pipeline::decode(&bytes_of(name)[..]).unwrap();
        for _ in 0..150 {
            let mut pipeline = original.clone();
            let components = pipeline.components.as_mut().unwrap();
            let collections = sorted_ids(&components.pcollections);
            let coders = sorted_ids(&components.coders);
            let transforms = sorted_ids(&components.transforms);
            let pick = |random: &mut Random, ids: &[String]| ids[random.below(ids.len())].clone();
            match random.below(6) {
                0 => {
                    let transform = components
                        .transforms
                        .get_mut(&pick(&mut random, &transforms))
                        .unwrap();
                    for id in transform.inputs.values_mut() {
                        *id = pick(&mut random, &collections);
                    }
                }
                1 => {
                    let transform = components
                        .transforms
                        .get_mut(&pick(&mut random, &transforms))
                        .unwrap();
                    for id in transform.outputs.values_mut() {
                        *id = pick(&mut random, &collections);
                    }
                }
                2 => {
                    let coder = components.coders.get_mut(&pick(&mut random, &coders)).unwrap();
                    for id in &mut coder.component_coder_ids {
                        *id = pick(&mut random, &coders);
                    }
                    coder.component_coder_ids.push(pick(&mut random, &coders));
                }
                3 => {
                    let collection = components
                        .pcollections
                        .get_mut(&pick(&mut random, &collections))
                        .unwrap();
                    collection.coder_id = pick(&mut random, &coders);
                }
                4 => {
                    let transform = components
                        .transforms
                        .get_mut(&pick(&mut random, &transforms))
                        .unwrap();
                    let other = urns::transforms::ALL[random.below(urns::transforms::ALL.len())];
                    if let Some(spec) = &mut transform.spec {
                        spec.urn = other.to_owned();
                    }
                }
                _ => {
                    let transform = components
                        .transforms
                        .get_mut(&pick(&mut random, &transforms))
                        .unwrap();
                    transform.subtransforms.push(pick(&mut random, &transforms));
                }
            }
            wrong += u32::from(try_plan(&pipeline).is_err());
        }
    }
    assert!(wrong > 100, "{wrong}");
}

fn error(builder: &Builder, parts: &[&str]) {
    let error = try_plan(&builder.pipeline).unwrap_err();
    for part in parts {
        assert!(error.contains(part), "{part} in: {error}");
    }
}

#[test]
fn coders_that_contain_themselves() {
    let mut builder = Builder::new();
    builder.coder("snake", urns::coders::KV, &["snake", "bytes"]);
    builder.impulse("start");
    builder.collection("out", "snake");
    builder.par_do("Bite", "start", &["out"]);
    error(&builder, &["Bite", "snake", "contains itself"]);
}

#[test]
fn unknown_coders_that_contain_themselves() {
    let mut builder = Builder::new();
    builder.coder("snake", "their:own", &["snake"]);
    builder.impulse("start");
    builder.collection("out", "snake");
    builder.par_do("Bite", "start", &["out"]);
    error(&builder, &["Bite", "snake", "contains itself"]);
}

#[test]
fn coders_that_double_at_each_level() {
    let mut builder = Builder::new();
    builder.coder("level0", urns::coders::BYTES, &[]);
    for level in 1..64 {
        let below = format!("level{}", level - 1);
        builder.coder(&format!("level{level}"), urns::coders::KV, &[&below, &below]);
    }
    builder.impulse("start");
    builder.collection("out", "level63");
    builder.par_do("Double", "start", &["out"]);
    error(&builder, &["Double", "parts"]);
}

#[test]
fn composites_that_nest_without_end() {
    let mut builder = Builder::new();
    let roots: Vec<String> = (0..100_000).map(|level| format!("level{level}")).collect();
    for (level, id) in roots.iter().enumerate() {
        let transform = pipeline::PTransform {
            unique_name: id.clone(),
            subtransforms: vec![format!("level{}", level + 1)],
            ..Default::default()
        };
        builder.components().transforms.insert(id.clone(), transform);
    }
    builder.pipeline.root_transform_ids.push("level0".to_owned());
    error(&builder, &["nested"]);
}

#[test]
fn cycles_of_data() {
    let mut builder = Builder::new();
    builder.collection("a", "bytes");
    builder.collection("b", "bytes");
    builder.par_do("First", "b", &["a"]);
    builder.par_do("Second", "a", &["b"]);
    error(&builder, &["First", "Second", "cycle"]);
}

#[test]
fn what_a_transform_lacks_is_told_with_its_name() {
    let mut builder = Builder::new();
    builder.impulse("start");
    builder.collection("plain", "bytes");
    builder.collection("grouped", "grouped");
    builder.par_do("Make", "start", &["plain"]);
    builder.group("Group", "plain", "grouped");
    error(&builder, &["\"Group\"", "KV", "bytes"]);

    let mut builder = Builder::new();
    builder.impulse("start");
    builder.transform(
        "Odd/One",
        "of:no:one:v1",
        Vec::new(),
        &[("in", "start")],
        &["out"],
    );
    builder.collection("out", "bytes");
    error(&builder, &["\"Odd/One\"", "of:no:one:v1", "expand"]);

    let mut builder = Builder::new();
    builder.impulse("start");
    let side = pipeline::SideInput {
        access_pattern: Some(FunctionSpec {
            urn: "by:magic".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let payload = ParDoPayload {
        side_inputs: [("other".to_owned(), side)].into(),
        ..Default::default()
    };
    builder.par_do_with("Wonder", &[("main", "start")], &[], payload);
    error(
        &builder,
        &["\"Wonder\"", "\"other\" is not among", "by:magic", "iterable"],
    );

    let mut builder = Builder::new();
    builder.impulse("start");
    let payload = ParDoPayload {
        timer_family_specs: [("t".to_owned(), pipeline::TimerFamilySpec::default())].into(),
        ..Default::default()
    };
    builder.par_do_with("Timed", &[("main", "start")], &[], payload);
    error(&builder, &["\"Timed\"", "KV", "time domain"]);
}

#[test]
fn windowing_that_cannot_be() {
    for (urn, payload, part) in [
        (urns::window_fns::FIXED_WINDOWS, Vec::new(), "size"),
        (urns::window_fns::SESSION_WINDOWS, Vec::new(), "gap"),
        (urns::window_fns::SLIDING_WINDOWS, vec![0xff], "malformed"),
        ("", Vec::new(), "URN"),
    ] {
        let mut builder = Builder::new();
        builder.windowing("odd", urn, payload, "interval");
        builder.impulse("start");
        builder.windowed("out", "bytes", "odd");
        builder.par_do("Window", "start", &["out"]);
        error(&builder, &["\"Window\"", part]);
    }
}
