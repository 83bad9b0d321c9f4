//! Steps before and behind the model.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use purlin::metrics::Distribution;
use purlin::prelude::*;

use crate::failures::FailureRate;
use crate::infer::Failed;
use crate::metrics::micros;
use crate::shape::Shape;
use crate::{FailedExample, ModelHandler, StepError};

/// No step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

type Run<A, B> = dyn Fn(A) -> Result<B, StepError> + Send + Sync;

/// Steps from `A` to `B`, one after the other.
pub struct Steps<A, B> {
    run: Arc<Run<A, B>>,
}

impl<A, B> Clone for Steps<A, B> {
    fn clone(&self) -> Self {
        Steps {
            run: self.run.clone(),
        }
    }
}

impl<A, B> fmt::Debug for Steps<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steps(..)")
    }
}

/// A chain whose last step gives `T`, or that has none.
pub trait Chain<T>: Clone {
    /// What the first step takes.
    type First;
    /// The chain with one more step.
    fn then<U>(
        self,
        step: impl Fn(T) -> Result<U, StepError> + Send + Sync + 'static,
    ) -> Steps<Self::First, U>;
}

impl<T> Chain<T> for NoSteps {
    type First = T;
    fn then<U>(self, step: impl Fn(T) -> Result<U, StepError> + Send + Sync + 'static) -> Steps<T, U> {
        Steps { run: Arc::new(step) }
    }
}

impl<A: 'static, T: 'static> Chain<T> for Steps<A, T> {
    type First = A;
    fn then<U>(self, step: impl Fn(T) -> Result<U, StepError> + Send + Sync + 'static) -> Steps<A, U> {
        let before = self.run;
        Steps {
            run: Arc::new(move |first| step(before(first)?)),
        }
    }
}

/// The function of a step, whose errors name it.
pub(crate) fn step<A, B, E: Into<BoxError>>(
    name: &str,
    f: impl Fn(A) -> Result<B, E> + Send + Sync + 'static,
) -> impl Fn(A) -> Result<B, StepError> + Send + Sync + 'static {
    let name = name.to_owned();
    move |value| {
        f(value).map_err(|source| StepError {
            step: name.clone(),
            source: source.into(),
        })
    }
}

/// Steps that give a handler's examples.
pub trait Preprocessing<H: ModelHandler>: Clone + Send + Sync + 'static {
    /// What the first step takes: the examples, where there is no step.
    type In: Element;

    /// What the steps give for an element.
    ///
    /// # Errors
    /// That of the step that fails.
    fn run(&self, value: Self::In) -> Result<H::Example, StepError>;

    /// Applies the steps to a collection, if there are some.
    #[doc(hidden)]
    fn apply<S: Shape>(
        input: &PCollection<S::Of<Self::In>>,
        steps: impl FnOnce() -> Preprocess<H, S, Self>,
    ) -> PCollection<S::Of<H::Example>> {
        input.apply(ParDo::new("Preprocess", steps()))
    }
}

impl<H: ModelHandler> Preprocessing<H> for NoSteps {
    type In = H::Example;

    fn run(&self, value: H::Example) -> Result<H::Example, StepError> {
        Ok(value)
    }

    fn apply<S: Shape>(
        input: &PCollection<S::Of<H::Example>>,
        _steps: impl FnOnce() -> Preprocess<H, S, Self>,
    ) -> PCollection<S::Of<H::Example>> {
        input.clone()
    }
}

impl<H: ModelHandler, A: Element> Preprocessing<H> for Steps<A, H::Example> {
    type In = A;

    fn run(&self, value: A) -> Result<H::Example, StepError> {
        (self.run)(value)
    }
}

/// Steps that take a handler's inferences.
pub trait Postprocessing<H: ModelHandler>: Clone + Send + Sync + 'static {
    /// What the last step gives: the inferences, where there is no step.
    type Out: Element;
    /// Whether there are steps.
    const ANY: bool;

    /// What the steps give for an inference.
    ///
    /// # Errors
    /// That of the step that fails.
    fn run(&self, inference: H::Inference) -> Result<Self::Out, StepError>;
}

impl<H: ModelHandler> Postprocessing<H> for NoSteps {
    type Out = H::Inference;
    const ANY: bool = false;

    fn run(&self, inference: H::Inference) -> Result<H::Inference, StepError> {
        Ok(inference)
    }
}

impl<H: ModelHandler, B: Element> Postprocessing<H> for Steps<H::Inference, B> {
    type Out = B;
    const ANY: bool = true;

    fn run(&self, inference: H::Inference) -> Result<B, StepError> {
        (self.run)(inference)
    }
}

/// The name of something of a key.
pub(crate) type NameOf<K> = dyn Fn(&K) -> String + Send + Sync;

/// Runs the steps before the model.
#[derive(Clone)]
pub struct Preprocess<H: ModelHandler, S: Shape, P: Preprocessing<H>> {
    pub(crate) steps: P,
    /// The name of the model of a key.
    pub(crate) model_id: Arc<NameOf<S::Key>>,
    /// Where elements go on which a step fails; without it they fail the bundle.
    pub(crate) failed: Failed<S::Of<P::In>>,
    pub(crate) rate: Option<Arc<FailureRate>>,
    pub(crate) micros: Distribution,
    pub(crate) handler: PhantomData<fn() -> H>,
}

impl<H: ModelHandler, S: Shape, P: Preprocessing<H>> DoFn for Preprocess<H, S, P> {
    type In = S::Of<P::In>;
    type Out = S::Of<H::Example>;
    const OBSERVES_WINDOW: bool = false;

    fn process(&mut self, element: Self::In, ctx: &mut Context<'_, Self::Out>) -> DoFnResult {
        let kept = self.failed.is_some().then(|| element.clone());
        let (key, value) = S::split::<P::In>(element);
        let start = Instant::now();
        let result = self.steps.run(value);
        self.micros.update(micros(start));
        if let Some(rate) = &self.rate {
            let error = result.as_ref().err().map(ToString::to_string);
            rate.record(1, error.as_deref().into_iter())?;
        }
        match (result, &self.failed, kept) {
            (Ok(example), ..) => ctx.output(S::join(key, example)),
            (Err(error), Some(failed), Some(example)) => ctx.output_to(
                failed,
                FailedExample {
                    example,
                    error: error.to_string(),
                    model_id: (self.model_id)(&key),
                },
            ),
            (Err(error), ..) => return Err(error.into()),
        }
        Ok(())
    }
}
