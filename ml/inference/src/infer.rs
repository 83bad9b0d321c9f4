//! The DoFn behind `RunInference`.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use purlin::metrics::{Counter, Distribution};
use purlin::prelude::*;

use crate::{FailedExample, ModelHandler, PredictionResult, bisect, shared_model};

/// Whether elements are examples or pairs of a key and an example.
pub trait Shape<H: ModelHandler>: Send + 'static {
    /// The elements.
    type In: Element;
    /// The results.
    type Out: Element;

    /// The example in an element.
    fn example(element: &Self::In) -> &H::Example;

    /// The result for an element.
    fn result(element: Self::In, inference: H::Inference, model_id: &str) -> Self::Out;
}

/// Elements are examples.
#[derive(Debug, Clone, Copy)]
pub struct Unkeyed;

/// Elements are pairs of a key and an example.
#[derive(Debug, Clone, Copy)]
pub struct Keyed<K>(PhantomData<fn() -> K>);

impl<H: ModelHandler> Shape<H> for Unkeyed {
    type In = H::Example;
    type Out = PredictionResult<H::Example, H::Inference>;

    fn example(element: &H::Example) -> &H::Example {
        element
    }

    fn result(example: H::Example, inference: H::Inference, model_id: &str) -> Self::Out {
        PredictionResult {
            example,
            inference,
            model_id: model_id.to_owned(),
        }
    }
}

impl<H: ModelHandler, K: Element> Shape<H> for Keyed<K> {
    type In = (K, H::Example);
    type Out = (K, PredictionResult<H::Example, H::Inference>);

    fn example(element: &(K, H::Example)) -> &H::Example {
        &element.1
    }

    fn result((key, example): (K, H::Example), inference: H::Inference, model_id: &str) -> Self::Out {
        (
            key,
            PredictionResult {
                example,
                inference,
                model_id: model_id.to_owned(),
            },
        )
    }
}

/// Runs batches.
pub(crate) struct Infer<H: ModelHandler, S: Shape<H>> {
    handler: H,
    model: Option<Arc<H::Model>>,
    model_id: String,
    /// Where examples go that fail; without it they fail the bundle.
    failed: Option<OutputTag<FailedExample<S::In>>>,
    metrics: InferMetrics,
}

#[derive(Clone, Copy)]
struct InferMetrics {
    inferences: Counter,
    failed_batches: Counter,
    batch_size: Distribution,
    batch_micros: Distribution,
    load_millis: Distribution,
}

impl<H: ModelHandler, S: Shape<H>> Clone for Infer<H, S> {
    fn clone(&self) -> Self {
        Infer {
            handler: self.handler.clone(),
            model: self.model.clone(),
            model_id: self.model_id.clone(),
            failed: self.failed.clone(),
            metrics: self.metrics,
        }
    }
}

impl<H: ModelHandler, S: Shape<H>> Infer<H, S> {
    pub fn new(handler: H, failed: Option<OutputTag<FailedExample<S::In>>>) -> Self {
        const NAMESPACE: &str = "RunInference";
        Infer {
            model_id: handler.model_id(),
            handler,
            model: None,
            failed,
            metrics: InferMetrics {
                inferences: Metrics::counter(NAMESPACE, "num_inferences"),
                failed_batches: Metrics::counter(NAMESPACE, "failed_batches_counter"),
                batch_size: Metrics::distribution(NAMESPACE, "inference_batch_size"),
                batch_micros: Metrics::distribution(NAMESPACE, "inference_batch_latency_micro_secs"),
                load_millis: Metrics::distribution(NAMESPACE, "load_model_latency_milli_secs"),
            },
        }
    }

    fn run(&self, model: &H::Model, batch: &[&H::Example]) -> Result<Vec<H::Inference>, BoxError> {
        let inferences = self.handler.run(batch, model)?;
        if inferences.len() != batch.len() {
            let (found, wanted) = (inferences.len(), batch.len());
            return Err(format!(
                "model {} gave {found} inferences for {wanted} examples",
                self.model_id
            )
            .into());
        }
        Ok(inferences)
    }
}

impl<H: ModelHandler, S: Shape<H>> DoFn for Infer<H, S> {
    type In = Vec<S::In>;
    type Out = S::Out;
    const OBSERVES_WINDOW: bool = false;

    fn setup(&mut self) -> DoFnResult {
        let (model, loading) = shared_model(&self.handler)?;
        self.model = Some(model);
        if let Some(time) = loading {
            self.metrics
                .load_millis
                .update(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn process(&mut self, batch: Vec<S::In>, ctx: &mut Context<'_, S::Out>) -> DoFnResult {
        let model = self
            .model
            .as_ref()
            .ok_or("the model was not loaded: setup was not called")?;
        let examples: Vec<&H::Example> = batch.iter().map(S::example).collect();
        let start = Instant::now();
        let whole = self.run(model, &examples);
        let results: Vec<Result<H::Inference, BoxError>> = match (whole, &self.failed) {
            (Ok(inferences), _) => inferences.into_iter().map(Ok).collect(),
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => {
                self.metrics.failed_batches.inc(1);
                if examples.len() == 1 {
                    vec![Err(error)]
                } else {
                    bisect(&examples, &mut |part| self.run(model, part))
                }
            }
        };
        self.metrics
            .batch_micros
            .update(i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX));
        self.metrics.batch_size.update(examples.len() as i64);
        drop(examples);
        for (element, result) in batch.into_iter().zip(results) {
            match (result, &self.failed) {
                (Ok(inference), _) => {
                    self.metrics.inferences.inc(1);
                    ctx.output(S::result(element, inference, &self.model_id));
                }
                (Err(error), Some(failed)) => {
                    ctx.output_to(
                        failed,
                        FailedExample {
                            example: element,
                            error: error.to_string(),
                        },
                    );
                }
                (Err(error), None) => return Err(error),
            }
        }
        Ok(())
    }
}
