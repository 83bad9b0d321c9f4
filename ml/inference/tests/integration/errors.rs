//! What fails, and what becomes of it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use purlin::prelude::*;
use purlin_inference::{BatchSizes, Batching, MemoryEstimate, ModelHandler, RunInference};

use crate::{Times, failure};

#[purlin::test]
fn what_fails_goes_where_its_kind_goes(p: TestPipeline) {
    let handler = Times {
        bad: vec![13],
        ..Times::new("kinds", 10)
    };
    let texts = p.apply(Create::new(["1", "x", "13", "4", "5"].map(str::to_owned)));
    let inference = RunInference::new(handler)
        .try_with_preprocess("Parse", |text: String| text.parse::<i64>())
        .try_with_postprocess("NotForty", |n: i64| match n {
            40 => Err("forty"),
            n => Ok(format!("<{n}>")),
        })
        .with_exception_handling();
    let (results, failed) = texts.apply(inference);
    PAssert::that(&results.map("Inference", |result| result.inference))
        .contains_in_any_order(["<10>", "<50>"].map(str::to_owned));
    let show = |example: String, error: String, model: String| format!("{example}: {error} ({model})");
    let preprocessing = failed.failed_preprocessing.map("Pre", move |failed| {
        show(failed.example, failed.error, failed.model_id)
    });
    PAssert::that(&preprocessing).equals("x: Parse: invalid digit found in string (kinds)".to_owned());
    let inferences = failed.failed_inferences.map("Inf", move |failed| {
        show(failed.example.to_string(), failed.error, failed.model_id)
    });
    PAssert::that(&inferences).equals("13: 13 is bad (kinds)".to_owned());
    let postprocessing = failed.failed_postprocessing.map("Post", move |failed| {
        show(failed.example.to_string(), failed.error, failed.model_id)
    });
    PAssert::that(&postprocessing).equals("4: NotForty: forty (kinds)".to_owned());
    p.run();
}

#[test]
fn one_bad_row_in_1000_costs_one_row() {
    let p = TestPipeline::new();
    let handler = Times {
        bad: vec![617],
        sizes: BatchSizes { min: 100, max: 100 },
        ..Times::new("a thousand", 2)
    };
    let (results, failed) = p
        .apply(Create::new(0i64..1000))
        .apply(RunInference::new(handler).with_dead_letters());
    PAssert::that(&results.apply(Count::globally())).equals(999);
    PAssert::that(&failed.map("Example", |failed| failed.example)).equals(617);
    let result = p.run();
    assert_eq!(
        result.metrics().counter("RunInference", "failed_batches_counter"),
        1
    );
    assert_eq!(result.metrics().counter("RunInference", "num_inferences"), 999);
}

#[test]
fn without_outputs_for_them_failures_name_the_model_or_the_step() {
    let p = TestPipeline::new();
    let handler = Times {
        bad: vec![1],
        ..Times::new("strict", 2)
    };
    p.apply(Create::new([1i64])).apply(RunInference::new(handler));
    let told = failure(p);
    assert!(
        told.contains("model strict failed on a batch of 1: 1 is bad"),
        "{told}"
    );

    let p = TestPipeline::new();
    let inference = RunInference::new(Times::new("strict", 2))
        .try_with_postprocess("Check", |_: i64| Err::<i64, _>("never good"));
    p.apply(Create::new([1i64])).apply(inference);
    assert!(failure(p).contains("Check: never good"));
}

#[test]
fn too_many_failures_end_the_job_with_the_first_errors() {
    let p = TestPipeline::new();
    let handler = Times {
        bad: (0..30).collect(),
        ..Times::new("rate", 2)
    };
    let inference = RunInference::new(handler)
        .with_dead_letters()
        .max_failure_rate(0.1, 50);
    let _ = p.apply(Create::new(0i64..100)).apply(inference);
    let told = failure(p);
    assert!(
        told.contains("examples failed") && told.contains("at most 10.0 % may"),
        "{told}"
    );
    assert!(told.contains("- 0 is bad") || told.contains(" is bad"), "{told}");

    let p = TestPipeline::new();
    let handler = Times {
        bad: vec![1, 2],
        ..Times::new("rate", 2)
    };
    let inference = RunInference::new(handler)
        .with_exception_handling()
        .max_failure_rate(0.1, 50);
    let (results, _) = p.apply(Create::new(0i64..100)).apply(inference);
    PAssert::that(&results.apply(Count::globally())).equals(98);
    p.run();
}

#[test]
fn out_of_memory_halves_the_batch_and_the_size_is_remembered() {
    let handler = Times {
        memory: 3,
        sizes: BatchSizes { min: 16, max: 16 },
        ..Times::new("little memory", 2)
    };
    for (run, exceeded) in [(1, 2), (2, 0)] {
        let p = TestPipeline::new();
        let results = p
            .apply(Create::new([0i64]))
            .flat_map("Numbers", |_| 0..32i64)
            .apply(RunInference::new(handler.clone()))
            .map("Inference", |result| result.inference);
        PAssert::that(&results).contains_in_any_order((0..32).map(|n| n * 2));
        let result = p.run();
        let found = result.metrics().counter("RunInference", "out_of_memory_batches");
        // From 16 over 8 and 4 to 2; a second pipeline of this process knows.
        assert!(
            if run == 1 { found == 3 } else { found == exceeded },
            "{found} in run {run}"
        );
    }
    assert!(handler.batches().iter().all(|batch| batch.len() <= 3));
}

/// A model that hangs until it is told to go on.
#[derive(Clone)]
struct Hangs {
    load: bool,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl Hangs {
    fn new(load: bool) -> (Hangs, Sender<()>) {
        let (send, receive) = channel();
        let go_on = Arc::new(Mutex::new(receive));
        (Hangs { load, go_on }, send)
    }

    fn wait(&self) {
        // An error is that the test is over.
        let _ = self.go_on.lock().recv();
    }
}

impl ModelHandler for Hangs {
    type Example = i64;
    type Inference = i64;
    type Model = ();

    fn model_id(&self) -> String {
        format!("hangs while it {}", if self.load { "loads" } else { "runs" })
    }

    fn load(&self) -> Result<(), BoxError> {
        if self.load {
            self.wait();
        }
        Ok(())
    }

    fn run(&self, batch: &[&i64], _: &()) -> Result<Vec<i64>, BoxError> {
        self.wait();
        Ok(batch.iter().map(|example| **example).collect())
    }
}

#[test]
fn a_model_that_hangs_is_named_with_its_limit() {
    let limit = Duration::from_millis(20);
    let (handler, go_on) = Hangs::new(false);
    let p = TestPipeline::new();
    let inference = RunInference::new(handler)
        .with_dead_letters()
        .inference_timeout(limit);
    let _ = p.apply(Create::new([1i64, 2])).apply(inference);
    let told = failure(p);
    assert!(
        told.contains("model hangs while it runs has not answered for a batch of")
            && told.contains("within 20ms"),
        "{told}"
    );
    drop(go_on);

    let (handler, go_on) = Hangs::new(true);
    let p = TestPipeline::new();
    p.apply(Create::new([1i64]))
        .apply(RunInference::new(handler).load_timeout(limit));
    let told = failure(p);
    assert!(
        told.contains(
            "cannot load the model hangs while it loads: it is not there after 20ms, its load timeout"
        ),
        "{told}"
    );
    drop(go_on);
}

#[test]
fn in_time_a_limit_changes_nothing() {
    let p = TestPipeline::new();
    let minute = Duration::from_secs(60);
    let handler = Times {
        bad: vec![3],
        ..Times::new("in time", 2)
    };
    let inference = RunInference::new(handler)
        .with_dead_letters()
        .load_timeout(minute)
        .inference_timeout(minute);
    let (results, failed) = p.apply(Create::new(0i64..50)).apply(inference);
    let results = results.map("Inference", |result| result.inference);
    PAssert::that(&results).contains_in_any_order((0..50).filter(|n| *n != 3).map(|n| n * 2));
    PAssert::that(&failed.map("Example", |failed| failed.example)).equals(3);
    p.run();
}

#[test]
fn limits_that_make_no_sense_are_refused_and_so_is_a_model_that_does_not_fit() {
    let p = TestPipeline::new();
    let inputs = p.apply(Create::new([1i64]));
    let handler = Times::new("refused", 1);
    let _ = inputs.apply(
        RunInference::new(handler.clone())
            .with_dead_letters()
            .max_failure_rate(1.5, 0),
    );
    inputs.apply(RunInference::new(handler.clone()).max_disagreement(0.1, 1));
    let large = Times {
        estimate: Some(MemoryEstimate {
            weights: 3 << 30,
            per_example: 0,
        }),
        ..handler
    };
    let large = RunInference::new(large).with_batching(Batching::of_size(4));
    assert!(
        large
            .memory_plan()
            .to_string()
            .contains("refused: weights 3.0 GiB")
    );
    inputs.apply(large.clone().memory_limit(4 << 30));
    inputs.apply(large.memory_limit(2 << 30));
    let told = failure(p);
    for part in [
        "for 3 reasons",
        "max_failure_rate is 1.5",
        "there is no shadow model",
        "the model needs 3.0 GiB, more than its memory limit of 2.0 GiB",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}

#[test]
fn models_go_when_no_pipeline_uses_them() {
    let handler = Times::new("goes", 2);
    let p = TestPipeline::new();
    p.apply(Create::new([1i64]))
        .apply(RunInference::new(handler.clone()));
    p.run();
    // The pipeline's workers may still be about to end.
    let model = purlin_inference::shared_model(&handler)
        .map(|(model, _)| Arc::downgrade(&model))
        .unwrap();
    for _ in 0..1000 {
        if Weak::strong_count(&model) == 0 {
            return;
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("the model is still in memory");
}
