//! Steps before and behind the model, and arguments.

use purlin::prelude::*;
use purlin_inference::{ModelHandler, RunInference, TakesArgs};

use crate::Times;

#[test]
fn steps_run_in_the_order_in_which_they_are_added() {
    let p = TestPipeline::new();
    let texts = p.apply(Create::new([" 1 ", "2"].map(str::to_owned)));
    let inference = RunInference::new(Times::new("steps", 10))
        .with_preprocess("Trim", |text: String| text.trim().to_owned())
        .try_with_preprocess("Parse", |text: String| text.parse::<i64>())
        .with_preprocess("AddOne", |n: i64| n + 1)
        .with_postprocess("Half", |n: i64| n as f64 / 2.0)
        .with_postprocess("Show", |n: f64| format!("{n:.1}"));
    let results = texts.apply(inference);
    let shown = results.map("Shown", |result| {
        format!("{} gives {}", result.example, result.inference)
    });
    PAssert::that(&shown).contains_in_any_order(["2 gives 10.0", "3 gives 15.0"].map(str::to_owned));
    let result = p.run();
    let times = |name| result.metrics().distribution("RunInference", name).count;
    assert_eq!(times("preprocess_micro_secs"), 2);
    assert!(times("postprocess_micro_secs") > 0);
}

#[test]
fn keys_pass_steps_by() {
    let p = TestPipeline::new();
    let pairs = p.apply(Create::new([("a".to_owned(), "7".to_owned())]));
    let inference = RunInference::keyed::<String>(Times::new("keyed steps", 2))
        .try_with_preprocess("Parse", |text: String| text.parse::<i64>())
        .with_postprocess("Show", |n: i64| n.to_string());
    let results = pairs
        .apply(inference)
        .map("Pair", |(key, result)| (key, result.inference));
    PAssert::that(&results).equals(("a".to_owned(), "14".to_owned()));
    p.run();
}

/// Rounds to a number of digits.
#[derive(Clone)]
struct Round;

#[derive(Clone)]
struct Digits(usize);

impl ModelHandler for Round {
    type Example = String;
    type Inference = String;
    type Model = ();

    fn model_id(&self) -> String {
        "round".to_owned()
    }
    fn load(&self) -> Result<(), BoxError> {
        Ok(())
    }
    fn run(&self, batch: &[&String], model: &()) -> Result<Vec<String>, BoxError> {
        self.run_with_args(batch, model, &Digits(0))
    }
    fn metrics_namespace(&self) -> String {
        "Rounding".to_owned()
    }
}

impl TakesArgs<Digits> for Round {
    fn run_with_args(&self, batch: &[&String], _: &(), digits: &Digits) -> Result<Vec<String>, BoxError> {
        batch
            .iter()
            .map(|text| Ok(format!("{:.*}", digits.0, text.parse::<f64>()?)))
            .collect()
    }
}

#[test]
fn arguments_reach_the_model_and_all_else_stays_the_handlers() {
    let p = TestPipeline::new();
    let texts = p.apply(Create::new(["1.28".to_owned()]));
    let plain = texts.apply(RunInference::new(Round));
    let digits = texts.apply(RunInference::new(Round.with_args(Digits(1))));
    PAssert::that(&plain.map("Plain", |result| result.inference)).equals("1".to_owned());
    PAssert::that(&digits.map("Digits", |result| (result.model_id, result.inference)))
        .equals(("round".to_owned(), "1.3".to_owned()));
    let result = p.run();
    assert_eq!(result.metrics().counter("Rounding", "num_inferences"), 2);
}
