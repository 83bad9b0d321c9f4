//! What the transform expands to: steps, batches, the model, and their outputs.

use std::marker::PhantomData;
use std::sync::Arc;

use purlin::prelude::*;

use crate::batching::Apart;
use crate::failures::FailureRate;
use crate::infer::{Failed, Handlers, Infer, Plan};
use crate::metrics::preprocess_micros;
use crate::shadow::Gate;
use crate::shape::Shape;
use crate::steps::{Postprocessing, Preprocess, Preprocessing};
use crate::transform::{AllDeadLetters, DeadLetters, FailBundle, RunInference, Settings};
use crate::update::latest;
use crate::{Batching, FailedExample, ModelHandler, PredictionResult, RunInferenceDlq};

impl<H: ModelHandler, S: Shape> Settings<H, S> {
    pub(crate) fn batching(&self) -> Batching {
        let of_handler = || self.handlers.all.first().map(ModelHandler::batching);
        self.batching.clone().or_else(of_handler).unwrap_or_default()
    }

    fn namespace(&self) -> String {
        let of_handler = || match (&self.handlers.find, self.handlers.all.first()) {
            (None, Some(handler)) => handler.metrics_namespace(),
            _ => "BeamML_KeyedModels".to_owned(),
        };
        self.namespace.clone().unwrap_or_else(of_handler)
    }

    fn failure_rate(&self) -> Option<Arc<FailureRate>> {
        self.rate
            .map(|(rate, after)| Arc::new(FailureRate::new(rate, after)))
    }

    /// All that is wrong, except with batches.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        let rate = self.rate.map(|(rate, after)| FailureRate::new(rate, after));
        problems.extend(rate.and_then(|rate| rate.problem()));
        let gate = self.gate.map(|(rate, after)| Gate::new(rate, after));
        problems.extend(gate.and_then(|gate| gate.problem()));
        if self.gate.is_some() && self.shadow.is_none() {
            problems.push("max_disagreement is set, but there is no shadow model: add one".to_owned());
        }
        if self.updates.is_some() && self.handlers.find.is_some() {
            problems.push(
                "its models are by key, and these cannot be changed while the job runs: leave the updates out, or use one model"
                    .to_owned(),
            );
        }
        problems
    }
}

/// The step of a transform, but for its outputs.
struct Prepared<H: ModelHandler, S: Shape, P: Postprocessing<H>> {
    batches: PCollection<Vec<S::Of<H::Example>>>,
    plan: Plan<H, S, P>,
}

impl<H, S, Dead, Pre, Post> RunInference<H, S, Dead, Pre, Post>
where
    H: ModelHandler,
    S: Shape,
    Pre: Preprocessing<H>,
    Post: Postprocessing<H>,
{
    fn preprocess(
        &self,
        failed: Failed<S::Of<Pre::In>>,
        rate: Option<Arc<FailureRate>>,
    ) -> Preprocess<H, S, Pre> {
        let Handlers { all, find } = self.settings.handlers.clone();
        let names: Vec<String> = all.iter().map(ModelHandler::model_id).collect();
        let model_id = move |key: &S::Key| {
            let number = find.as_ref().map_or(Some(0), |find| find(key));
            number
                .and_then(|number| names.get(number))
                .cloned()
                .unwrap_or_default()
        };
        Preprocess {
            steps: self.preprocess.clone(),
            model_id: Arc::new(model_id),
            failed,
            rate,
            micros: preprocess_micros(&self.settings.namespace()),
            handler: PhantomData,
        }
    }

    fn prepare(
        self,
        examples: PCollection<S::Of<H::Example>>,
        rate: Option<Arc<FailureRate>>,
        counts: bool,
    ) -> Prepared<H, S, Post> {
        let pipeline = examples.pipeline().clone();
        for problem in self.settings.problems() {
            pipeline.problem(problem);
        }
        if let Some(limit) = self.settings.memory_limit
            && let Some(problem) = self.memory_plan().exceeds(limit)
        {
            pipeline.problem(problem);
        }
        let batching = self.settings.batching();
        let namespace = self.settings.namespace();
        let settings = self.settings;
        let plan = Plan {
            pad_to: batching.pad_to(),
            handlers: settings.handlers.clone(),
            limits: settings.limits,
            inference_timeout: settings.inference_timeout,
            updates: settings.updates.map(|updates| latest(&pipeline, updates)),
            postprocess: self.postprocess,
            failed: None,
            failed_postprocessing: None,
            rate,
            counts,
            shadow: settings.shadow,
            gate: settings.gate.map(|(rate, after)| Gate::new(rate, after)),
            namespace,
        };
        let apart: Apart<S::Key> = settings
            .handlers
            .find
            .map(|find| Arc::new(move |key: &S::Key| find(key).unwrap_or(usize::MAX)) as _);
        let batches = match settings.handlers.all.into_iter().next() {
            Some(handler) => batching.apply::<H, S>(examples, handler, apart),
            // The pipeline has a problem, and is not run.
            None => examples.map("Batch", |example: S::Of<H::Example>| vec![example]),
        };
        Prepared { batches, plan }
    }
}

/// The step, with the side input that it reads.
fn infer<H: ModelHandler, S: Shape, P: Postprocessing<H>>(plan: Plan<H, S, P>) -> ParDo<Infer<H, S, P>> {
    let updates = plan.updates.clone();
    let step = ParDo::new("Infer", Infer::new(plan));
    match updates {
        Some(view) => step.with_side_input(&view),
        None => step,
    }
}

impl<H, S, Pre, Post> PTransform<PCollection<S::Of<Pre::In>>> for RunInference<H, S, FailBundle, Pre, Post>
where
    H: ModelHandler,
    S: Shape,
    Pre: Preprocessing<H>,
    Post: Postprocessing<H>,
{
    type Output = PCollection<S::Of<PredictionResult<H::Example, Post::Out>>>;

    fn name(&self) -> String {
        "RunInference".into()
    }

    fn expand(self, input: PCollection<S::Of<Pre::In>>) -> Self::Output {
        let examples = Pre::apply::<S>(&input, || self.preprocess(None, None));
        let Prepared { batches, plan } = self.prepare(examples, None, false);
        batches.apply(infer(plan))
    }
}

impl<H, S, Pre, Post> PTransform<PCollection<S::Of<Pre::In>>> for RunInference<H, S, DeadLetters, Pre, Post>
where
    H: ModelHandler,
    S: Shape,
    Pre: Preprocessing<H>,
    Post: Postprocessing<H>,
{
    type Output = (
        PCollection<S::Of<PredictionResult<H::Example, Post::Out>>>,
        PCollection<FailedExample<S::Of<H::Example>>>,
    );

    fn name(&self) -> String {
        "RunInference".into()
    }

    fn expand(self, input: PCollection<S::Of<Pre::In>>) -> Self::Output {
        let rate = self.settings.failure_rate();
        let examples = Pre::apply::<S>(&input, || self.preprocess(None, None));
        let Prepared { batches, mut plan } = self.prepare(examples, rate, true);
        let failed = OutputTag::new("failed");
        plan.failed = Some(failed.clone());
        batches.apply(infer(plan).with_outputs(&failed))
    }
}

impl<H, S, Pre, Post> PTransform<PCollection<S::Of<Pre::In>>>
    for RunInference<H, S, AllDeadLetters, Pre, Post>
where
    H: ModelHandler,
    S: Shape,
    Pre: Preprocessing<H>,
    Post: Postprocessing<H>,
{
    type Output = (
        PCollection<S::Of<PredictionResult<H::Example, Post::Out>>>,
        RunInferenceDlq<S::Of<Pre::In>, S::Of<H::Example>>,
    );

    fn name(&self) -> String {
        "RunInference".into()
    }

    fn expand(self, input: PCollection<S::Of<Pre::In>>) -> Self::Output {
        let rate = self.settings.failure_rate();
        let unprepared = OutputTag::new("failed_preprocessing");
        let preprocess = self.preprocess(Some(unprepared.clone()), rate.clone());
        let (examples, failed_preprocessing) =
            input.apply(ParDo::new("Preprocess", preprocess).with_outputs(&unprepared));
        let Prepared { batches, mut plan } = self.prepare(examples, rate, false);
        let failed = OutputTag::new("failed_inferences");
        let postprocessing = OutputTag::new("failed_postprocessing");
        plan.failed = Some(failed.clone());
        plan.failed_postprocessing = Some(postprocessing.clone());
        let step = infer(plan).with_outputs((&failed, &postprocessing));
        let (results, (failed_inferences, failed_postprocessing)) = batches.apply(step);
        let dlq = RunInferenceDlq {
            failed_preprocessing,
            failed_inferences,
            failed_postprocessing,
        };
        (results, dlq)
    }
}
