//! Models beside what their makers give.

use proptest::prelude::*;
use purlin_onnx::{Engine, Model, Rows, Tensor, Values};
use serde_json::Value as Json;

use crate::{engines, folder, is_elsewhere, load};

/// A row of what goes into a model, and of what its maker gives.
pub type Answer = (Vec<Tensor>, Vec<Tensor>);

/// What was asked of each model, and what its maker said.
pub fn answers() -> Vec<(String, Vec<Answer>)> {
    let text = std::fs::read_to_string(folder().join("answers.json")).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    let models = json.as_object().unwrap().iter();
    models
        .map(|(name, rows)| {
            let rows = rows.as_array().unwrap().iter();
            (
                name.clone(),
                rows.map(|row| (tensors(&row[0]), tensors(&row[1]))).collect(),
            )
        })
        .collect()
}

fn tensors(json: &Json) -> Vec<Tensor> {
    json.as_object()
        .unwrap()
        .iter()
        .map(|(name, told)| tensor(name, told))
        .collect()
}

fn tensor(name: &str, told: &Json) -> Tensor {
    let shape = told["shape"].as_array().unwrap().iter();
    let shape: Vec<usize> = shape.map(|length| length.as_u64().unwrap() as usize).collect();
    let list = |kind: &str| told.get(kind).map(|list| list.as_array().unwrap().iter());
    let values = if let Some(list) = list("f32") {
        let number = |value: &Json| value.as_f64().map_or(f32::NAN, |number| number as f32);
        Values::F32(list.map(number).collect())
    } else if let Some(list) = list("i64") {
        Values::I64(list.map(|value| value.as_i64().unwrap()).collect())
    } else {
        Values::Text(
            list("text")
                .unwrap()
                .map(|value| value.as_str().unwrap().to_owned())
                .collect(),
        )
    };
    Tensor::new(name, shape, values)
}

/// What is asked of a model.
pub fn asked(name: &str) -> Vec<Vec<Tensor>> {
    let answers = answers().into_iter().find(|(other, _)| other == name).unwrap();
    answers.1.into_iter().map(|(asked, _)| asked).collect()
}

/// Outputs in the order of their names, as shapes of one dimension.
fn sorted(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    tensors.sort_by(|one, other| one.name.cmp(&other.name));
    tensors
}

fn assert_near(found: Vec<Tensor>, expected: Vec<Tensor>, what: &str) {
    let (found, expected) = (sorted(found), sorted(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.name, expected.name, "{what}");
        match (&found.values, &expected.values) {
            (Values::F32(found), Values::F32(expected)) => {
                assert_eq!(found.len(), expected.len(), "{what}");
                for (found, expected) in found.iter().zip(expected) {
                    let near = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
                    assert!(near, "{what}: {found}, not {expected}");
                }
            }
            (found, expected) => assert_eq!(found, expected, "{what}"),
        }
    }
}

#[test]
fn models_give_what_their_makers_give() {
    let answers = answers();
    // Elsewhere those of torch may be missing.
    assert!(
        answers.len() >= if is_elsewhere() { 22 } else { 28 },
        "{}",
        answers.len()
    );
    for engine in engines() {
        for (name, rows) in &answers {
            let model = load(name, &engine);
            let (asked, expected): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
            let found: Vec<Vec<Tensor>> = model
                .run(&asked)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            for (row, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                assert_near(found, expected, &format!("{engine:?}, {name}, row {row}"));
            }
        }
    }
}

#[test]
fn rows_are_taken_as_shapes_say() {
    let rows = |name: &str| load(name, &Engine::Tract).rows();
    assert_eq!(rows("torch_conv_one"), Rows::OneByOne);
    assert_eq!(rows("hand_whole"), Rows::Whole);
    // All others many at a time, tract's too.
    for (name, _) in answers() {
        let expected = if name == "torch_conv_one" {
            Rows::OneByOne
        } else {
            Rows::Stacked
        };
        assert_eq!(rows(&name), expected, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A row's result does not depend on those that stand beside it.
    #[test]
    fn batches_of_any_size_give_the_same(picks in proptest::collection::vec(0usize..7, 1..40), cut in 0usize..40) {
        for engine in engines() {
            for name in ["sk_boosted_three", "sk_columns", "torch_text", "lgb_two"] {
                let (model, asked) = (load(name, &engine), asked(name));
                let rows: Vec<Vec<Tensor>> = picks.iter().map(|pick| asked[*pick].clone()).collect();
                let run = |rows: &[Vec<Tensor>]| -> Vec<Vec<Tensor>> { model.run(rows).unwrap() };
                let all = run(&rows);
                let (left, right) = rows.split_at(cut.min(rows.len()));
                let parts = [run(left), run(right)].concat();
                for (one, other) in all.into_iter().zip(parts) {
                    assert_near(one, other, name);
                }
            }
        }
    }
}

#[test]
fn rows_of_different_lengths_go_together() {
    // Sequences of any length: those of one length are a batch.
    for engine in engines() {
        let model = load("torch_text", &engine);
        let row = |length: usize| {
            vec![
                Tensor::list("tokens", (0..length as i64).collect::<Vec<_>>()),
                Tensor::list("mask", vec![1i64; length]),
            ]
        };
        let lengths = [3, 5, 3, 1, 5];
        let rows: Vec<Vec<Tensor>> = lengths.into_iter().map(row).collect();
        let found: Vec<Vec<Tensor>> = model.run(&rows).unwrap();
        for (row, found) in rows.into_iter().zip(found) {
            assert_eq!(found[1], Tensor::one("count", row[0].values.len() as i64));
            let alone: Vec<Vec<Tensor>> = model.run(&[row]).unwrap();
            assert_near(found, alone.into_iter().next().unwrap(), "a row alone");
        }
    }
}

#[test]
fn one_model_serves_all_threads() {
    for engine in engines() {
        let (model, asked) = (load("torch_conv", &engine), asked("torch_conv"));
        let expected: Vec<Vec<f32>> = model.run(&asked).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let found: Vec<Vec<f32>> = model.run(&asked).unwrap();
                        assert_eq!(found, expected);
                    }
                });
            }
        });
    }
}

#[test]
fn results_have_the_types_that_are_asked_for() {
    for engine in engines() {
        let model = load("sk_forest_words", &engine);
        let asked = asked("sk_forest_words");
        let rows: Vec<Vec<f32>> = asked
            .iter()
            .map(|row| row[0].values_as().unwrap().to_vec())
            .collect();
        // Lists are as good as tensors by name.
        let by_name: Vec<(String, Vec<f32>)> = model.run(&asked).unwrap();
        let found: Vec<(String, Vec<f32>)> = model.run(&rows).unwrap();
        assert_eq!(found, by_name);
        for (word, probabilities) in found {
            // The classes are in the order of their names.
            let place = ["high", "low", "middle"]
                .iter()
                .position(|class| *class == word)
                .unwrap();
            let most = probabilities.iter().copied().fold(0.0, f32::max);
            assert_eq!(probabilities[place], most);
        }
        // One value is as good as a list of one.
        let texts = load("hand_texts", &engine);
        let words = ["b", "a", "else"].map(str::to_owned);
        let found: Vec<(i64, String)> = texts.run(&words).unwrap();
        let again = |text: &str| text.to_owned();
        assert_eq!(found, [(7, again("B")), (5, again("A")), (-3, again("_Unused"))]);
    }
}

#[test]
fn a_model_without_a_dimension_for_rows_takes_each_whole() {
    for engine in engines() {
        let model = load("hand_whole", &engine);
        let rows = [2usize, 5].map(|length| Tensor::new("x", [3, length], vec![1f32; 3 * length]));
        let sums: Vec<f32> = model.run(&rows).unwrap();
        assert_eq!(sums, [6.0, 15.0]);
    }
}

#[test]
fn what_a_model_tells_of_itself() {
    let model = load("sk_columns", &Engine::Tract);
    let inputs: Vec<String> = model.inputs().iter().map(ToString::to_string).collect();
    assert_eq!(
        inputs,
        ["age:FP32[-1,1]", "doors:INT64[-1,1]", "colour:BYTES[-1,1]"]
    );
    let model = load("torch_text", &Engine::Tract);
    let told = |ports: &[&purlin_onnx::Port]| ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told(&model.inputs().iter().collect::<Vec<_>>()),
        ["tokens:INT64[batch,length]", "mask:INT64[batch,length]"]
    );
    assert_eq!(
        told(&model.outputs()),
        ["vector:FP32[batch,3]", "count:INT64[batch]"]
    );
    // Dictionaries of probabilities are opened.
    let model = load("sk_boosted_three", &Engine::Tract);
    assert_eq!(told(&model.outputs())[1], "output_probability:FP32[-1,3]");
    let bytes = std::fs::read(crate::path("sk_boosted_three")).unwrap();
    assert_eq!(model.sha256(), purlin_inference::hash_bytes(&bytes));
    assert_eq!(Model::from_bytes(&bytes).unwrap().opset(), model.opset());
}
