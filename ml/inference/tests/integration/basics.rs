//! Inferences, dead letters and models that are shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use purlin::io::WriteText;
use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelHandler, PredictionResult, RunInference, shared_model};

/// A model that doubles numbers, and fails on whole batches with a 13 in them.
#[derive(Clone)]
struct Doubler {
    id: &'static str,
    loads: Arc<AtomicUsize>,
    sizes: BatchSizes,
}

impl Doubler {
    fn new(id: &'static str) -> Doubler {
        Doubler {
            id,
            loads: Arc::default(),
            sizes: BatchSizes { min: 8, max: 8 },
        }
    }
}

impl ModelHandler for Doubler {
    type Example = i64;
    type Inference = i64;
    type Model = i64;

    fn model_id(&self) -> String {
        self.id.to_owned()
    }

    fn load(&self) -> Result<i64, BoxError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.id == "absent" {
            Err("no such file".into())
        } else {
            Ok(2)
        }
    }

    fn run(&self, batch: &[&i64], model: &i64) -> Result<Vec<i64>, BoxError> {
        assert!(batch.len() <= self.sizes.max);
        if batch.contains(&&13) {
            return Err("unlucky".into());
        }
        Ok(batch.iter().map(|example| *example * model).collect())
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.sizes
    }
}

/// The lines that a collection gives, sorted.
fn lines(
    write: impl FnOnce(&Pipeline, &dyn Fn(&PCollection<String>, &str)),
) -> Result<Vec<Vec<String>>, RunError> {
    let folder = tempfile::tempdir().unwrap();
    let names = std::cell::RefCell::new(Vec::new());
    let pipeline = Pipeline::new();
    write(&pipeline, &|collection, name| {
        let path = folder.path().join(name).display().to_string();
        collection.apply_named(name, WriteText::to(&path).without_sharding());
        names.borrow_mut().push(path);
    });
    pipeline.run(&PipelineOptions::default())?;
    Ok(names
        .into_inner()
        .iter()
        .map(|path| {
            let mut lines: Vec<String> = std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        })
        .collect())
}

fn show<E: std::fmt::Display, I: std::fmt::Display>(result: &PredictionResult<E, I>) -> String {
    format!("{} {} {}", result.model_id, result.example, result.inference)
}

#[test]
fn every_example_gets_its_inference_and_the_model_is_loaded_once() {
    let handler = Doubler::new("once");
    let loads = handler.loads.clone();
    let found = lines(|pipeline, write| {
        let numbers = pipeline.apply(Create::new(100i64..300)).reshuffle("Spread");
        let results = numbers.apply(RunInference::new(handler));
        write(&results.map("Show", |result| show(&result)), "results");
    })
    .unwrap();
    let expected: Vec<String> = (100..300).map(|n| format!("once {n} {}", n * 2)).collect();
    assert_eq!(found, [expected]);
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_bad_example_costs_one_row_and_keeps_its_key() {
    let found = lines(|pipeline, write| {
        let numbers = pipeline.apply(Create::new(
            (10i64..20).map(|n| (format!("key{n}"), n)).collect::<Vec<_>>(),
        ));
        let (results, failed) = numbers.apply(RunInference::keyed(Doubler::new("keyed")).with_dead_letters());
        write(
            &results.map("Show", |(key, result)| format!("{key} {}", show(&result))),
            "results",
        );
        write(
            &failed.map("ShowFailed", |failed| {
                format!("{} {}: {}", failed.example.0, failed.example.1, failed.error)
            }),
            "failed",
        );
    })
    .unwrap();
    let expected: Vec<String> = (10..20)
        .filter(|n| *n != 13)
        .map(|n| format!("key{n} keyed {n} {}", n * 2))
        .collect();
    assert_eq!(found, [expected, vec!["key13 13: unlucky".to_owned()]]);
}

#[test]
fn without_dead_letters_a_bad_example_fails_the_pipeline() {
    let error = lines(|pipeline, _| {
        pipeline
            .apply(Create::new([1i64, 13]))
            .apply(RunInference::new(Doubler::new("strict")));
    })
    .unwrap_err();
    assert!(error.to_string().contains("unlucky"), "{error}");
}

#[test]
fn a_model_that_does_not_load_is_named() {
    let error = lines(|pipeline, _| {
        pipeline
            .apply(Create::new([1i64]))
            .apply(RunInference::new(Doubler::new("absent")));
    })
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot load the model absent: no such file"),
        "{error}"
    );
}

#[test]
fn models_are_shared_while_they_are_used() {
    let handler = Doubler::new("shared");
    let (first, loading) = shared_model(&handler).unwrap();
    assert!(loading.is_some());
    let (second, loading) = shared_model(&handler).unwrap();
    assert!(loading.is_none() && Arc::ptr_eq(&first, &second));
    drop((first, second));
    assert!(shared_model(&handler).unwrap().1.is_some());
    assert_eq!(handler.loads.load(Ordering::SeqCst), 2);
}
