//! Models in pipelines.

use purlin::prelude::*;
use purlin::testing::PAssert;
use purlin_inference::{ModelHandler, ModelMetadata, RunInference};
use purlin_pmml::{Model, Pmml, Prediction, Record, Value};

use crate::golden::{answers, folder, record, text};

fn rows(name: &str) -> Vec<Record> {
    let model = Model::parse(text(name).as_bytes()).unwrap();
    let rows = answers()[name]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(record)
        .collect::<Vec<_>>();
    rows.into_iter()
        .filter(|row| model.evaluate(row).is_ok())
        .collect()
}

#[test]
fn predictions_of_a_file_and_of_the_program() {
    let name = "sk_boosted_three";
    let rows = rows(name);
    let model = Model::parse(text(name).as_bytes()).unwrap();
    let expected: Vec<Prediction> = rows.iter().map(|row| model.evaluate(row).unwrap()).collect();
    assert!(
        expected
            .iter()
            .any(|prediction| prediction.probability(2) > Some(0.4))
    );
    let file = Pmml::from_path(folder().join("sk_boosted_three.pmml"));
    let bytes = Pmml::from_bytes("stars", text(name).into_bytes());
    for (handler, id) in [(file, "PMML sk_boosted_three.pmml"), (bytes, "PMML stars")] {
        assert_eq!(handler.model_id(), id);
        let p = Pipeline::new();
        let results = p
            .apply(Create::new(rows.clone()))
            .apply(RunInference::new(handler));
        let found = results.map("Inference", |result| result.inference);
        PAssert::that(&found).contains_in_any_order(expected.clone());
        p.run(&PipelineOptions::default()).unwrap();
    }
}

#[test]
fn models_of_one_name_are_told_apart() {
    let key = |name: &str| Pmml::from_bytes("wine", text(name).into_bytes()).model_key();
    assert_ne!(key("sk_linear"), key("sk_poisson"));
    let path = |path: &str| Pmml::from_path(path).model_key();
    assert_ne!(path("a/m.pmml"), path("b/m.pmml"));
    let other = Pmml::from_path("a/m.pmml").update_model_path("b/m.pmml").unwrap();
    assert_eq!(other.model_key(), path("b/m.pmml"));
}

#[test]
fn one_bad_row_of_a_thousand_is_one_dead_letter() {
    let row = |number: usize| {
        let colour = if number == 777 { "purple" } else { "red" };
        Record::new()
            .with("acidity", 7.0)
            .with("sugar", number as f64 / 100.0)
            .with("alcohol", 11.0)
            .with("colour", colour)
    };
    let p = Pipeline::new();
    let handler = Pmml::from_path(folder().join("sk_forest_number.pmml"));
    let (results, failed) = p
        .apply(Create::new((0..1000).map(row).collect::<Vec<_>>()))
        .apply(RunInference::new(handler).with_dead_letters());
    let known = results.map("Known", |result| u64::from(!result.inference.value.is_missing()));
    PAssert::that(&known).contains_in_any_order(vec![1u64; 999]);
    let errors = failed.map("Error", |failed| failed.error);
    let error = "row 0: the field `colour` has the invalid value `purple`: expected one of the values of its DataField";
    PAssert::that(&errors).contains_in_any_order([error.to_owned()]);
    p.run(&PipelineOptions::default()).unwrap();
}

#[test]
fn a_model_that_is_none_fails_the_pipeline_with_its_name() {
    let run = |handler: Pmml| {
        let p = Pipeline::new();
        p.apply(Create::new([Record::default()]))
            .apply(RunInference::new(handler));
        p.run(&PipelineOptions::default()).unwrap_err().to_string()
    };
    let error = run(Pmml::from_path("/nowhere/wine.pmml"));
    let expected =
        "cannot load the model PMML wine.pmml: cannot read the model file /nowhere/wine.pmml: No such file";
    assert!(error.contains(expected), "{error}");
    let error = run(Pmml::from_bytes("wine", *b"<PMML version=\"4.4\">"));
    let expected =
        "cannot use the model wine: line 1: the XML is broken: it ends within `PMML`: it was cut off";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn values_travel() {
    let values = [
        Value::Missing,
        Value::Integer(-7),
        Value::Double(0.1),
        Value::Boolean(true),
        "".into(),
        "rosé".into(),
    ];
    for value in values {
        assert_eq!(Value::from_bytes(&value.to_bytes()).unwrap(), value);
        let record = Record::new().with("a", value.clone()).with("b", 1);
        assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
        let prediction = Prediction {
            value: value.clone(),
            probabilities: vec![(value.clone(), 0.25)],
            outputs: vec![("o".into(), value)],
        };
        assert_eq!(
            Prediction::from_bytes(&prediction.to_bytes()).unwrap(),
            prediction
        );
    }
}

#[test]
fn results_name_the_content_of_their_model() {
    let name = "sk_boosted_three";
    let hash = purlin_inference::hash_bytes(text(name).as_bytes());
    let handler = Pmml::from_bytes("stars", text(name).into_bytes());
    let p = Pipeline::new();
    let results = p.apply(Create::new(rows(name))).apply(RunInference::new(handler));
    let hashes = results.map("Hash", |result| result.model_hash);
    PAssert::that(&hashes).satisfies(move |hashes: &[Option<String>]| {
        assert!(
            hashes.iter().all(|found| found.as_ref() == Some(&hash)),
            "{hashes:?}"
        );
    });
    p.run(&PipelineOptions::default()).unwrap();
}

#[test]
fn a_model_that_changes_while_the_job_runs() {
    let name = "sk_boosted_three";
    let rows = rows(name);
    let model = Model::parse(text(name).as_bytes()).unwrap();
    let expected: Vec<Prediction> = rows.iter().map(|row| model.evaluate(row).unwrap()).collect();
    let p = TestPipeline::new();
    let path = folder().join(name).with_extension("pmml");
    let models = p.apply(Create::new([ModelMetadata::at(&path.display().to_string())]));
    let handler = Pmml::from_bytes("never used", text("sk_linear").into_bytes());
    let results = p
        .apply_named("Rows", Create::new(rows))
        .apply(RunInference::new(handler).with_model_updates(&models));
    let found = results.map("Inference", |result| (result.model_id, result.inference));
    let expected = expected
        .into_iter()
        .map(|prediction| ("PMML sk_boosted_three.pmml".to_owned(), prediction))
        .collect::<Vec<_>>();
    PAssert::that(&found).contains_in_any_order(expected);
    p.run();
}
