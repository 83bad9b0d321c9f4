//! All kinds of models, beside LightGBM's own predictions.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use purlin_trees::{Model, Output, PredictOptions};

/// The folder of the models.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A model file's text.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name).with_extension("txt")).unwrap()
}

#[derive(Debug)]
pub struct Golden {
    pub rows: Vec<Vec<f64>>,
    /// By model and by what it was asked: a line for each row.
    pub models: BTreeMap<String, BTreeMap<String, Vec<Vec<f64>>>>,
}

pub fn golden() -> Golden {
    let text = std::fs::read_to_string(folder().join("answers.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = |value: &serde_json::Value| {
        let lines = value.as_array().unwrap().iter();
        lines.map(|line| numbers(line.as_str().unwrap())).collect()
    };
    let models = json["models"].as_object().unwrap().iter();
    Golden {
        rows: list(&json["rows"]),
        models: models
            .map(|(name, said)| {
                let said = said.as_object().unwrap().iter();
                (
                    name.clone(),
                    said.map(|(what, lines)| (what.clone(), list(lines))).collect(),
                )
            })
            .collect(),
    }
}

fn numbers(line: &str) -> Vec<f64> {
    line.split(' ').map(|word| word.parse().unwrap()).collect()
}

/// What `answers.json` holds by its names, and how far from it we may be: exponentials differ between machines in their last bits.
fn options(what: &str) -> (PredictOptions, f64) {
    let of = |output, tolerance| {
        let options = PredictOptions {
            output,
            ..PredictOptions::default()
        };
        (options, tolerance)
    };
    match what {
        "prediction" => of(Output::Prediction, 1e-12),
        "part" => {
            let (mut options, tolerance) = of(Output::Prediction, 1e-12);
            options.start_iteration = 1;
            options.num_iteration = NonZeroUsize::new(2);
            (options, tolerance)
        }
        "raw" => of(Output::RawScore, 0.0),
        "leaves" => of(Output::LeafIndices, 0.0),
        "contributions" => of(Output::Contributions, 1e-12),
        other => panic!("{other}"),
    }
}

fn near(left: f64, right: f64, tolerance: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= tolerance * right.abs().max(1.0)
}

#[test]
fn all_kinds_give_what_lightgbm_gives() {
    let golden = golden();
    let mut asked = 0;
    for (name, said) in &golden.models {
        let model = Model::load(folder().join(name).with_extension("txt")).unwrap();
        for (what, expected) in said {
            let (options, tolerance) = options(what);
            let found = model.predict(&golden.rows, &options).unwrap();
            let width = model.width(&options);
            for (row, expected) in expected.iter().enumerate() {
                assert_eq!(expected.len(), width, "{name} {what}");
                for (found, expected) in found[row * width..].iter().zip(expected) {
                    assert!(
                        near(*found, *expected, tolerance),
                        "{name}, {what} of row {row}: {found:?}, not {expected:?}"
                    );
                    asked += 1;
                }
            }
        }
    }
    assert!(golden.models.len() >= 42, "{}", golden.models.len());
    assert!(asked > 7_000, "{asked}");
}

#[test]
fn batches_of_any_size_and_any_number_of_threads_give_the_same_bits() {
    let golden = golden();
    let rows: Vec<&Vec<f64>> = golden.rows.iter().cycle().take(2500).collect();
    for name in [
        "multiclass",
        "linear_categorical",
        "missing_zero_categorical",
        "forest_of_many",
    ] {
        let model = Model::load(folder().join(name).with_extension("txt")).unwrap();
        for output in [Output::Prediction, Output::RawScore, Output::LeafIndices] {
            let mut options = PredictOptions {
                output,
                ..PredictOptions::default()
            };
            let all = model.predict(&rows, &options).unwrap();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let width = model.width(&options);
            for threads in [2, 3, 100] {
                options.threads = threads;
                assert_eq!(
                    bits(&model.predict(&rows, &options).unwrap()),
                    bits(&all),
                    "{name}, {threads} threads"
                );
            }
            for size in [1, 7, 8, 9, 131] {
                let found: Vec<f64> = rows[..500]
                    .chunks(size)
                    .flat_map(|rows| model.predict(rows, &options).unwrap())
                    .collect();
                assert_eq!(
                    bits(&found),
                    bits(&all[..500 * width]),
                    "{name}, batches of {size}"
                );
            }
        }
    }
}

#[test]
fn rows_of_f32_are_those_numbers() {
    let golden = golden();
    let model = Model::load(folder().join("binary.txt")).unwrap();
    let small: Vec<Vec<f32>> = golden
        .rows
        .iter()
        .map(|row| row.iter().map(|value| *value as f32).collect())
        .collect();
    let wide: Vec<Vec<f64>> = small
        .iter()
        .map(|row| row.iter().map(|value| f64::from(*value)).collect())
        .collect();
    let options = PredictOptions::default();
    assert_eq!(
        model.predict(&small, &options).unwrap(),
        model.predict(&wide, &options).unwrap()
    );
}

#[test]
fn contributions_add_up_to_the_raw_score() {
    let golden = golden();
    let model = Model::load(folder().join("categorical_missing.txt")).unwrap();
    let ask = |output| {
        let options = PredictOptions {
            output,
            ..PredictOptions::default()
        };
        model.predict(&golden.rows, &options).unwrap()
    };
    let raw = ask(Output::RawScore);
    let contributions = ask(Output::Contributions);
    assert_eq!(contributions.len(), raw.len() * 7);
    for (raw, parts) in raw.iter().zip(contributions.chunks(7)) {
        let sum: f64 = parts.iter().sum();
        assert!((sum - raw).abs() < 1e-9, "{sum} {raw}");
    }
}

#[test]
fn what_a_model_tells_of_itself() {
    let model = Model::load(folder().join("v3_multiclass.txt")).unwrap();
    assert_eq!(model.version(), "v3");
    assert_eq!(model.num_features(), 6);
    assert_eq!(model.feature_names()[5], "Column_5");
    assert_eq!(
        (model.num_scores(), model.num_trees(), model.num_iterations()),
        (3, 12, 4)
    );
}
