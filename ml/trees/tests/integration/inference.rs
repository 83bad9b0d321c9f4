//! Models in pipelines.

use std::num::NonZeroUsize;

use purlin::prelude::*;
use purlin::testing::PAssert;
use purlin_inference::{ModelHandler, ModelMetadata, RunInference};
use purlin_trees::{LightGbm, Model, Output, PredictOptions};

use crate::golden::{folder, golden, text};

fn rows() -> Vec<Vec<f64>> {
    // Equal to themselves, for the comparison.
    golden()
        .rows
        .into_iter()
        .filter(|row| row.iter().all(|value| !value.is_nan()))
        .collect()
}

fn expected(name: &str, options: &PredictOptions) -> Vec<Vec<f64>> {
    let model = Model::load(folder().join(name).with_extension("txt")).unwrap();
    let values = model.predict(&rows(), options).unwrap();
    values.chunks(model.width(options)).map(<[f64]>::to_vec).collect()
}

/// Runs a handler over the rows, and compares what comes out with what the model itself gives.
fn check(handler: LightGbm, id: &str, expected: Vec<Vec<f64>>) {
    assert_eq!(handler.model_id(), id);
    let p = Pipeline::new();
    let results = p.apply(Create::new(rows())).apply(RunInference::new(handler));
    let found = results.map("Inference", |result| (result.model_id, result.inference));
    let id = id.to_owned();
    let expected: Vec<_> = expected.into_iter().map(|values| (id.clone(), values)).collect();
    PAssert::that(&found).contains_in_any_order(expected);
    p.run(&PipelineOptions::default()).unwrap();
}

#[test]
fn predictions_and_all_else_that_a_model_can_tell() {
    let path = folder().join("multiclassova.txt");
    let mut options = PredictOptions::default();
    let name = "LightGBM multiclassova.txt";
    check(
        LightGbm::from_path(&path),
        name,
        expected("multiclassova", &options),
    );
    for output in [Output::RawScore, Output::LeafIndices, Output::Contributions] {
        options.output = output;
        check(
            LightGbm::from_path(&path).with_output(output),
            name,
            expected("multiclassova", &options),
        );
    }
    let two = NonZeroUsize::new(2).unwrap();
    options = PredictOptions {
        start_iteration: 1,
        num_iteration: Some(two),
        threads: 2,
        ..PredictOptions::default()
    };
    let handler = LightGbm::from_path(&path)
        .with_start_iteration(1)
        .with_num_iteration(two)
        .with_threads(2);
    check(handler, name, expected("multiclassova", &options));
}

#[test]
fn a_model_in_the_program() {
    let handler = LightGbm::from_bytes("prices", text("linear").into_bytes());
    check(
        handler.clone(),
        "LightGBM prices",
        expected("linear", &PredictOptions::default()),
    );
    // Others of the same name are other models.
    let other = LightGbm::from_bytes("prices", text("binary").into_bytes());
    assert_ne!(handler.model_key(), other.model_key());
    assert_ne!(
        LightGbm::from_path("a/m.txt").model_key(),
        LightGbm::from_path("b/m.txt").model_key()
    );
}

#[test]
fn a_row_of_another_width_is_one_dead_letter() {
    let rows: Vec<Vec<f32>> = (0..200)
        .map(|row| vec![0.5; if row == 77 { 5 } else { 6 }])
        .collect();
    let p = Pipeline::new();
    let handler = LightGbm::from_path(folder().join("binary.txt")).with_f32_rows();
    let (results, failed) = p
        .apply(Create::new(rows))
        .apply(RunInference::new(handler).with_dead_letters());
    let widths = results.map("Width", |result| result.inference.len() as u64);
    PAssert::that(&widths).contains_in_any_order(vec![1; 199]);
    let errors = failed.map("Error", |failed| failed.error);
    PAssert::that(&errors).contains_in_any_order(["row 0 has 5 features, the model has 6".to_owned()]);
    p.run(&PipelineOptions::default()).unwrap();
}

#[test]
fn rows_of_any_width_when_told() {
    let p = Pipeline::new();
    let handler = LightGbm::from_path(folder().join("regression.txt")).with_any_width();
    let rows = vec![vec![0.5; 6], vec![0.5; 8]];
    let results = p.apply(Create::new(rows)).apply(RunInference::new(handler));
    let values = results.map("Value", |result| result.inference);
    let model = Model::load(folder().join("regression.txt")).unwrap();
    let one = model.predict(&[[0.5; 6]], &PredictOptions::default()).unwrap();
    PAssert::that(&values).contains_in_any_order([one.clone(), one]);
    p.run(&PipelineOptions::default()).unwrap();
}

#[test]
fn a_model_that_is_none_fails_the_pipeline_with_its_name() {
    let run = |handler: LightGbm| {
        let p = Pipeline::new();
        p.apply(Create::new(rows())).apply(RunInference::new(handler));
        p.run(&PipelineOptions::default()).unwrap_err().to_string()
    };
    let error = run(LightGbm::from_path("/nowhere/model.txt"));
    assert!(error.contains("cannot load the model LightGBM model.txt: cannot read the model file /nowhere/model.txt: No such file"), "{error}");
    let error = run(LightGbm::from_bytes("prices", *b"tree\n"));
    assert!(
        error.contains(
            "cannot use the model prices: the file ends at line 1 without `end of trees` (trees so far: 0)"
        ),
        "{error}"
    );
}

#[test]
fn results_name_the_content_of_their_model() {
    let path = folder().join("multiclassova.txt");
    let hash = purlin_inference::hash_bytes(&std::fs::read(&path).unwrap());
    for handler in [
        LightGbm::from_path(&path),
        LightGbm::from_bytes("held", std::fs::read(&path).unwrap()),
    ] {
        let p = Pipeline::new();
        let results = p.apply(Create::new(rows())).apply(RunInference::new(handler));
        let hashes = results.map("Hash", |result| result.model_hash).distinct();
        PAssert::that(&hashes).contains_in_any_order([Some(hash.clone())]);
        p.run(&PipelineOptions::default()).unwrap();
    }
}

#[test]
fn a_model_that_changes_while_the_job_runs() {
    let folder = folder();
    let path = |name: &str| folder.join(name).with_extension("txt").display().to_string();
    let at = Timestamp::from_millis;
    let p = TestPipeline::new();
    // A text names a model, a number is a row.
    let stream = TestStream::new()
        .element(String::new(), at(1))
        .element(path("regression"), at(2))
        .element(String::new(), at(3));
    let stream = p.apply(stream);
    let models = stream
        .filter("Models", |path: &String| !path.is_empty())
        .map("Model", |path| ModelMetadata::at(&path));
    let row = vec![0.5; 6];
    let of_stream = row.clone();
    let results = stream
        .filter("Rows", |path: &String| path.is_empty())
        .map("Row", move |_| of_stream.clone())
        .apply(
            RunInference::new(LightGbm::from_path(path("binary")).with_output(Output::RawScore))
                .with_model_updates(&models),
        );
    let shown = results.map("Show", |result| (result.model_id, result.inference));
    // What else the handler was told stays.
    let options = PredictOptions {
        output: Output::RawScore,
        ..PredictOptions::default()
    };
    let expected = ["binary", "regression"].map(|name| {
        let model = Model::load(path(name)).unwrap();
        let values = model.predict(std::slice::from_ref(&row), &options).unwrap();
        (format!("LightGBM {name}.txt"), values)
    });
    assert_ne!(expected[0].1, expected[1].1);
    PAssert::that(&shown).contains_in_any_order(expected);
    p.run();
}
