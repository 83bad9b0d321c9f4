//! A model that runs beside the one that serves, to be compared with it.

use std::sync::Arc;

use parking_lot::Mutex;
use purlin::BoxError;
use thiserror::Error;

use crate::share::ShareLimit;
use crate::{InferenceError, LoadError, ModelHandler, shared_model};

/// The shadow model disagrees more often than it may.
#[derive(Debug, Error)]
#[error(
    "the shadow model {shadow} disagrees with the model on {disagreed} of {compared} examples, {percent:.1} %, but at most \
     {allowed:.1} % may (max_disagreement)"
)]
pub struct TooManyDisagreements {
    shadow: String,
    disagreed: u64,
    compared: u64,
    percent: f64,
    allowed: f64,
}

/// A shadow model before it is loaded.
pub(crate) trait Shadow<E, I>: Send + Sync {
    fn load(&self) -> Result<Arc<dyn LoadedShadow<E, I>>, LoadError>;
}

/// A shadow model.
pub(crate) trait LoadedShadow<E, I>: Send + Sync {
    fn id(&self) -> &str;
    /// For how many of the examples it gives what does not agree with the inferences.
    fn disagreements(&self, examples: &[&E], inferences: &[&I]) -> Result<usize, BoxError>;
}

/// Of a handler, with what says whether two inferences agree.
pub(crate) struct ShadowOf<H, F> {
    pub handler: H,
    pub agrees: F,
}

struct LoadedOf<H: ModelHandler, F> {
    handler: H,
    agrees: F,
    id: String,
    model: Arc<H::Model>,
}

impl<H, F, I> Shadow<H::Example, I> for ShadowOf<H, F>
where
    H: ModelHandler,
    F: Fn(&I, &H::Inference) -> bool + Clone + Send + Sync + 'static,
    I: 'static,
{
    fn load(&self) -> Result<Arc<dyn LoadedShadow<H::Example, I>>, LoadError> {
        let (model, _) = shared_model(&self.handler)?;
        Ok(Arc::new(LoadedOf {
            id: self.handler.model_id(),
            handler: self.handler.clone(),
            agrees: self.agrees.clone(),
            model,
        }))
    }
}

impl<H, F, I> LoadedShadow<H::Example, I> for LoadedOf<H, F>
where
    H: ModelHandler,
    F: Fn(&I, &H::Inference) -> bool + Send + Sync,
{
    fn id(&self) -> &str {
        &self.id
    }

    fn disagreements(&self, examples: &[&H::Example], inferences: &[&I]) -> Result<usize, BoxError> {
        let found = self.handler.run(examples, &self.model)?;
        if found.len() != examples.len() {
            return Err(InferenceError::Count {
                model: self.id.clone(),
                found: found.len(),
                wanted: examples.len(),
            }
            .into());
        }
        let pairs = inferences.iter().zip(&found);
        Ok(pairs
            .filter(|(inference, found)| !(self.agrees)(inference, found))
            .count())
    }
}

/// Counts what was compared, and disagreements.
#[derive(Debug)]
pub(crate) struct Gate(Mutex<ShareLimit>);

impl Gate {
    pub fn new(allowed: f64, after: u64) -> Gate {
        Gate(Mutex::new(ShareLimit::new(allowed, after)))
    }

    pub fn problem(&self) -> Option<String> {
        self.0.lock().problem("max_disagreement")
    }

    pub fn record(
        &self,
        shadow: &str,
        compared: usize,
        disagreed: usize,
    ) -> Result<(), TooManyDisagreements> {
        let recorded = self.0.lock().record(compared, disagreed);
        recorded.map_err(|exceeded| TooManyDisagreements {
            shadow: shadow.to_owned(),
            disagreed: exceeded.of_the_kind,
            compared: exceeded.all,
            percent: exceeded.percent,
            allowed: exceeded.allowed_percent,
        })
    }
}
