//! Beam's own trigger transcripts, read from the Python SDK and replayed.

use std::path::{Path, PathBuf};

use purlin_model::{Timestamp, Timing, Window};
use serde_json::Value;

use super::{Fired, Subject, fixed, parse_trigger};
use crate::graph::{Accumulation, TimestampCombiner, Trigger, WindowFn, Windowing};

const FILE: &str = "apache_beam/testing/data/trigger_transcripts.yaml";

/// The transcripts, in the Python SDK that the conformance suites use.
fn transcripts() -> Option<PathBuf> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../third_party/venv/lib");
    let versions = std::fs::read_dir(library).ok()?;
    let mut files = versions
        .flatten()
        .map(|version| version.path().join("site-packages").join(FILE));
    files.find(|file| file.is_file())
}

/// How the elements of one input come.
#[derive(Clone, Copy, Debug)]
enum Bundling {
    Whole,
    Reversed,
    OneByOne,
    OneByOneReversed,
    Pairs,
}

#[test]
fn beams_trigger_transcripts_come_out() {
    let Some(file) = transcripts() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "apache-beam is not installed in third_party/venv"
        );
        println!("skipped: apache-beam is not installed in third_party/venv");
        return;
    };
    let text = std::fs::read_to_string(file).expect("the transcripts can be read");
    // One place leaves out a blank that YAML wants and PyYAML does not.
    let text = text.replace("values:[", "values: [");
    let mut replayed = 0;
    let transcripts: Vec<Value> = serde_saphyr::from_multiple(&text).expect("the transcripts are YAML");
    for spec in transcripts {
        let name = string(&spec, "name").expect("a transcript has a name");
        if string(&spec, "timestamp_combiner") == Some("OUTPUT_AT_EARLIEST_TRANSFORMED") {
            println!("{name}: Beam's portable model has no such timestamp combiner");
            continue;
        }
        let windowing = windowing(&spec);
        let mut bundlings = vec![Bundling::Whole];
        if windowing.trigger == Trigger::Default && windowing.accumulation == Accumulation::Accumulating {
            bundlings.extend([
                Bundling::Reversed,
                Bundling::OneByOne,
                Bundling::OneByOneReversed,
                Bundling::Pairs,
            ]);
        }
        for bundling in bundlings {
            let outcome = replay(&spec, windowing.clone(), bundling);
            match (outcome, string(&spec, "error")) {
                (Ok(()), None) => {}
                // These show that a bad transcript is noticed.
                (Err(message), Some(error)) if message.starts_with(error) => {}
                (outcome, error) => panic!("{name}, {bundling:?}: {outcome:?}, where {error:?} was expected"),
            }
        }
        replayed += 1;
    }
    assert_eq!(replayed, 17);
}

fn string<'a>(spec: &'a Value, field: &str) -> Option<&'a str> {
    spec.get(field).and_then(Value::as_str)
}

fn windowing(spec: &Value) -> Windowing {
    let window_fn = string(spec, "window_fn").unwrap_or("GlobalWindows");
    let argument = window_fn.split_once('(').map_or(0, |(_, rest)| {
        rest.trim_end_matches(')')
            .parse::<i64>()
            .expect("one whole number")
            * 1000
    });
    let window_fn = match window_fn.split('(').next() {
        Some("GlobalWindows") => WindowFn::Global,
        Some("FixedWindows" | "CustomTimestampingFixedWindowsWindowFn") => WindowFn::Fixed {
            size_ms: argument,
            offset_ms: 0,
        },
        Some("Sessions") => WindowFn::Sessions { gap_ms: argument },
        other => panic!("{other:?} is no window function"),
    };
    let accumulation = match string(spec, "accumulation_mode") {
        None | Some("accumulating") => Accumulation::Accumulating,
        Some("discarding") => Accumulation::Discarding,
        Some(other) => panic!("{other} is no accumulation mode"),
    };
    let timestamp_combiner = match string(spec, "timestamp_combiner") {
        None | Some("OUTPUT_AT_EOW") => TimestampCombiner::EndOfWindow,
        Some("OUTPUT_AT_EARLIEST") => TimestampCombiner::Earliest,
        Some("OUTPUT_AT_LATEST") => TimestampCombiner::Latest,
        Some(other) => panic!("{other} is no timestamp combiner"),
    };
    let lateness = spec.get("allowed_lateness").and_then(Value::as_i64).unwrap_or(0);
    Windowing {
        window_fn,
        trigger: parse_trigger(string(spec, "trigger_fn").unwrap_or("Default")),
        accumulation,
        timestamp_combiner,
        allowed_lateness_ms: lateness * 1000,
        ..fixed("Default")
    }
}

/// Replays one transcript. Its times are seconds.
fn replay(spec: &Value, windowing: Windowing, bundling: Bundling) -> Result<(), String> {
    let mut subject = Subject::new(windowing);
    let mut output: Vec<Fired> = Vec::new();
    let steps = spec
        .get("transcript")
        .and_then(Value::as_array)
        .expect("a transcript has steps");
    for step in steps {
        let (action, parameters) = step
            .as_object()
            .and_then(|step| step.iter().next())
            .expect("a step");
        let action = action.as_str();
        if action != "expect" && !output.is_empty() {
            return Err(format!("Unexpected output {output:?} before {action}"));
        }
        let seconds = || parameters.as_i64().expect("whole seconds") * 1000;
        match action {
            "input" => {
                let mut values = integers(parameters);
                if let Bundling::Reversed | Bundling::OneByOneReversed = bundling {
                    values.reverse();
                }
                let size = match bundling {
                    Bundling::Whole | Bundling::Reversed => usize::MAX,
                    Bundling::OneByOne | Bundling::OneByOneReversed => 1,
                    Bundling::Pairs => 2,
                };
                let elements: Vec<_> = values.iter().map(|&value| (value as u64, value * 1000)).collect();
                for bundle in elements.chunks(size.min(elements.len())) {
                    // Each bundle of late data fires; Beam's test looks at the last one then, as all accumulate.
                    output.clear();
                    subject.ingest("key", bundle);
                    output.extend(subject.advance());
                }
            }
            "watermark" => {
                subject.watermark = Timestamp(seconds());
                output.extend(subject.advance());
            }
            "clock" => {
                subject.now = subject.now.plus_millis(seconds());
                output.extend(subject.advance());
            }
            "expect" => {
                for expected in parameters.as_array().expect("a list of panes") {
                    let found = output.iter().position(|fired| is_as_expected(fired, expected));
                    let found =
                        found.ok_or_else(|| format!("Unmatched output {expected:?} in {output:?}"))?;
                    output.remove(found);
                }
            }
            // It looks at the Python implementation's state.
            "state" => {}
            other => panic!("{other} is no step"),
        }
    }
    if output.is_empty() {
        Ok(())
    } else {
        Err(format!("Unexpected output {output:?}"))
    }
}

fn integers(list: &Value) -> Vec<i64> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|item| item.as_i64().expect("a whole number"))
        .collect()
}

fn is_as_expected(fired: &Fired, expected: &Value) -> bool {
    let bounds = match fired.window {
        Window::Interval { start, .. } => (start.millis(), fired.window.max_timestamp().millis()),
        _ => (Timestamp::MIN.millis(), fired.window.max_timestamp().millis()),
    };
    expected
        .as_object()
        .expect("a pane")
        .iter()
        .all(|(field, value)| match field.as_str() {
            "window" => integers(value) == [bounds.0.div_euclid(1000), bounds.1.div_euclid(1000)],
            "values" => integers(value).iter().eq(fired
                .values
                .iter()
                .map(|&value| value as i64)
                .collect::<Vec<_>>()
                .iter()),
            "timestamp" => value.as_i64() == Some(fired.timestamp.millis().div_euclid(1000)),
            "index" => value.as_i64() == Some(fired.pane.index),
            "nonspeculative_index" => value.as_i64() == Some(fired.pane.nonspeculative_index),
            "early" => value.as_bool() == Some(fired.pane.timing == Timing::Early),
            "late" => value.as_bool() == Some(fired.pane.timing == Timing::Late),
            "final" => value.as_bool() == Some(fired.pane.is_last),
            other => panic!("{other} is no field of a pane"),
        })
}
