//! Models in pipelines.

use purlin::prelude::*;
use purlin::testing::PAssert;
use purlin_inference::{ModelHandler, RunInference};
use purlin_onnx::{Model, Onnx, Tensor};

use crate::golden::asked;
use crate::{engines, path};

fn rows(name: &str) -> Vec<Vec<f32>> {
    let rows = asked(name).into_iter();
    rows.map(|row| row[0].values_as().unwrap().to_vec()).collect()
}

#[test]
fn a_model_in_a_pipeline() {
    let rows = rows("sk_boosted_three");
    for engine in engines() {
        let expected: Vec<(i64, Vec<f32>)> = crate::load("sk_boosted_three", &engine).run(&rows).unwrap();
        let handler =
            Onnx::<Vec<f32>, (i64, Vec<f32>)>::from_path(path("sk_boosted_three")).with_engine(engine);
        assert_eq!(handler.model_id(), "ONNX sk_boosted_three.onnx");
        let p = Pipeline::new();
        let results = p
            .apply(Create::new(rows.clone()))
            .apply(RunInference::new(handler));
        // Batches may round differently.
        let rounded = |(label, list): (i64, Vec<f32>)| {
            (
                label,
                list.iter().map(|p| (p * 1e4).round() as i64).collect::<Vec<_>>(),
            )
        };
        let found = results.map("Inference", move |result| rounded(result.inference));
        PAssert::that(&found).contains_in_any_order(expected.into_iter().map(rounded).collect::<Vec<_>>());
        p.run(&PipelineOptions::default()).unwrap();
    }
}

#[test]
fn tensors_by_name_in_a_pipeline() {
    for engine in engines() {
        let p = Pipeline::new();
        let handler = Onnx::<Vec<Tensor>, i64>::from_path(path("torch_text"))
            .with_engine(engine)
            .with_outputs(["count"]);
        let results = p
            .apply(Create::new(asked("torch_text")))
            .apply(RunInference::new(handler));
        let is_right = |row: &[Tensor], count: i64| {
            row.iter().any(|tensor| {
                tensor.name == "mask" && tensor.values_as::<i64>().unwrap().iter().sum::<i64>() == count
            })
        };
        let found = results.map("Is right", move |result| {
            is_right(&result.example, result.inference)
        });
        PAssert::that(&found).contains_in_any_order(vec![true; 7]);
        p.run(&PipelineOptions::default()).unwrap();
    }
}

#[test]
fn one_bad_row_in_a_thousand_costs_one_row() {
    for engine in engines() {
        let rows: Vec<Vec<f32>> = (0..1000)
            .map(|row| vec![row as f32 / 1000.0; if row == 77 { 5 } else { 4 }])
            .collect();
        let p = Pipeline::new();
        let handler = Onnx::<_, f32>::from_path(path("sk_boosted_number")).with_engine(engine);
        let (results, failed) = p
            .apply(Create::new(rows))
            .apply(RunInference::new(handler).with_dead_letters());
        PAssert::that(&results.apply(Count::globally())).equals(999);
        let told = failed.map("Error", |failed| {
            let text = failed.error.split_once(": ").map(|(_, text)| text.to_owned());
            (failed.example.len() as i64, text.unwrap_or_default())
        });
        PAssert::that(&told)
            .named("Errors")
            .contains_in_any_order([(5, "the input X has the shape [4], the row has [5]".to_owned())]);
        p.run(&PipelineOptions::default()).unwrap();
    }
}

#[test]
fn a_row_that_fails_within_the_model_costs_one_row() {
    for engine in engines() {
        let row = |token: i64| {
            vec![
                Tensor::list("tokens", vec![token]),
                Tensor::list("mask", vec![1i64]),
            ]
        };
        let rows: Vec<Vec<Tensor>> = (0..100).map(|n| row(if n == 42 { 99 } else { n % 11 })).collect();
        let p = Pipeline::new();
        let handler = Onnx::<_, (Vec<f32>, i64)>::from_path(path("torch_text")).with_engine(engine);
        let (results, failed) = p
            .apply(Create::new(rows))
            .apply(RunInference::new(handler).with_dead_letters());
        PAssert::that(&results.apply(Count::globally())).equals(99);
        PAssert::that(&failed.apply(Count::globally()))
            .named("Failed")
            .equals(1);
        p.run(&PipelineOptions::default()).unwrap();
    }
}

fn error_of(handler: Onnx<Vec<f32>, Vec<f32>>) -> String {
    let p = Pipeline::new();
    let results = p
        .apply(Create::new([vec![0f32; 4]]))
        .apply(RunInference::new(handler).with_dead_letters());
    let _ = results;
    p.run(&PipelineOptions::default()).unwrap_err().to_string()
}

#[test]
fn a_model_that_is_none_or_another_fails_the_pipeline_before_any_row() {
    let error = error_of(Onnx::from_path("/nowhere/model.onnx"));
    assert!(
        error.contains("cannot load the model ONNX model.onnx: cannot read the model file /nowhere/model.onnx: No such file"),
        "{error}"
    );
    let error = error_of(Onnx::from_bytes("prices", *b"tree\n"));
    assert!(
        error.contains("cannot use the model prices: it is not ONNX"),
        "{error}"
    );
    let error = error_of(Onnx::from_path(path("lgb_two")));
    assert!(
        error.contains(
            "the model's outputs are label:INT64[1], probabilities:FP32[-1,2], the pipeline's type is alloc::vec::Vec<f32>: \
             that is one tensor, not 2"
        ),
        "{error}"
    );
    let error = error_of(Onnx::from_path(path("torch_text")));
    assert!(
        error.contains("the model's inputs are tokens:INT64[batch,length], mask:INT64[batch,length]"),
        "{error}"
    );
}

#[test]
fn models_are_told_apart_and_can_be_others() {
    let handler = |path: &str| Onnx::<Vec<f32>, f32>::from_path(path);
    assert_ne!(handler("a/m.onnx").model_key(), handler("b/m.onnx").model_key());
    assert_ne!(
        handler("a/m.onnx").model_key(),
        handler("a/m.onnx").with_outputs(["y"]).model_key()
    );
    let other = handler("a/m.onnx")
        .with_outputs(["y"])
        .update_model_path("b/m.onnx")
        .unwrap();
    assert_eq!(
        other.model_key(),
        handler("b/m.onnx").with_outputs(["y"]).model_key()
    );
}

#[test]
fn results_name_the_content_of_their_model() {
    let bytes = std::fs::read(path("sk_boosted_number")).unwrap();
    let hash = purlin_inference::hash_bytes(&bytes);
    assert_eq!(Model::load(path("sk_boosted_number")).unwrap().sha256(), hash);
    for handler in [
        Onnx::<Vec<f32>, f32>::from_path(path("sk_boosted_number")),
        Onnx::from_bytes("held", bytes.clone()),
    ] {
        let p = Pipeline::new();
        let results = p
            .apply(Create::new(rows("sk_boosted_number")))
            .apply(RunInference::new(handler));
        let hashes = results.map("Hash", |result| result.model_hash).distinct();
        PAssert::that(&hashes).contains_in_any_order([Some(hash.clone())]);
        p.run(&PipelineOptions::default()).unwrap();
    }
}
