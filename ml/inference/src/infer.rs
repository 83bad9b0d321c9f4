//! The DoFn behind `RunInference`.

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purlin::prelude::*;

use crate::call::{Parts, call, run_parts};
use crate::failures::FailureRate;
use crate::helper::Helper;
use crate::metrics::{InferMetrics, ModelMetrics, count, micros};
use crate::models::{Limits, Loaded, Loading, Models};
use crate::shadow::{Gate, LoadedShadow, Shadow};
use crate::shape::Shape;
use crate::steps::Postprocessing;
use crate::update::{LatestView, Update, seen};
use crate::{FailedExample, InferenceError, LoadError, ModelHandler, PredictionResult};

/// The elements with a handler's examples.
pub(crate) type Of<H, S> = <S as Shape>::Of<<H as ModelHandler>::Example>;
/// The results.
type Out<H, S, P> =
    <S as Shape>::Of<PredictionResult<<H as ModelHandler>::Example, <P as Postprocessing<H>>::Out>>;
/// Where elements go that fail, if they go anywhere.
pub(crate) type Failed<E> = Option<OutputTag<FailedExample<E>>>;
/// A model, and the update that names it.
type Serving<H> = (Option<Update>, Arc<Loaded<H>>);

type FindHandler<K> = dyn Fn(&K) -> Option<usize> + Send + Sync;

/// The handlers of a step: one, or one for each key.
pub(crate) struct Handlers<H, K> {
    pub all: Vec<H>,
    /// The number of a key's handler; without it the first is that of all.
    pub find: Option<Arc<FindHandler<K>>>,
}

impl<H: Clone, K> Clone for Handlers<H, K> {
    fn clone(&self) -> Self {
        Handlers {
            all: self.all.clone(),
            find: self.find.clone(),
        }
    }
}

/// What a step is to do: the same in all of its clones.
pub(crate) struct Plan<H: ModelHandler, S: Shape, P> {
    pub handlers: Handlers<H, S::Key>,
    pub pad_to: usize,
    pub limits: Limits,
    pub inference_timeout: Option<Duration>,
    pub updates: Option<LatestView>,
    pub postprocess: P,
    /// Where examples go that the model fails on; without it they fail the bundle.
    pub failed: Failed<Of<H, S>>,
    /// Where examples go whose inferences fail a step behind the model.
    pub failed_postprocessing: Failed<Of<H, S>>,
    pub rate: Option<Arc<FailureRate>>,
    /// Whether examples are counted here, and not before already.
    pub counts: bool,
    pub shadow: Option<Arc<dyn Shadow<H::Example, H::Inference>>>,
    pub gate: Option<Gate>,
    pub namespace: String,
}

/// What the clones of a step have in common in a process, as long as one of them is set up.
struct Slot<H: ModelHandler> {
    models: Models<H>,
    /// The model that is used where models change, and the update that names it.
    serving: Mutex<Option<Serving<H>>>,
    /// The update whose model could not be had.
    rejected: Mutex<Option<Update>>,
    shadow: Option<Arc<dyn LoadedShadow<H::Example, H::Inference>>>,
}

/// Runs batches.
pub(crate) struct Infer<H: ModelHandler, S: Shape, P> {
    plan: Arc<Plan<H, S, P>>,
    shared: Arc<Mutex<Weak<Slot<H>>>>,
    slot: Option<Arc<Slot<H>>>,
    /// The model, where there is one and it stays.
    fixed: Option<Arc<Loaded<H>>>,
    /// How long it took to load it, until it is counted.
    loading: Loading,
    helper: Helper,
    metrics: InferMetrics,
    /// Those with the name of the model before them, where models change.
    named: Option<(String, ModelMetrics)>,
    idle_since: Instant,
}

impl<H: ModelHandler, S: Shape, P> Clone for Infer<H, S, P> {
    fn clone(&self) -> Self {
        Infer {
            plan: self.plan.clone(),
            shared: self.shared.clone(),
            slot: None,
            fixed: None,
            loading: None,
            helper: Helper::default(),
            metrics: self.metrics,
            named: None,
            idle_since: self.idle_since,
        }
    }
}

/// What a model gave for each example of a batch.
type Results<I> = Vec<Result<I, BoxError>>;
/// A batch with these.
type Ran<H, S> = (Vec<Of<H, S>>, Results<<H as ModelHandler>::Inference>);

impl<H: ModelHandler, S: Shape, P: Postprocessing<H>> Infer<H, S, P> {
    pub fn new(plan: Plan<H, S, P>) -> Self {
        Infer {
            metrics: InferMetrics::new(&plan.namespace),
            plan: Arc::new(plan),
            shared: Arc::default(),
            slot: None,
            fixed: None,
            loading: None,
            helper: Helper::default(),
            named: None,
            idle_since: Instant::now(),
        }
    }

    fn slot(&self) -> Result<Arc<Slot<H>>, BoxError> {
        Ok(self
            .slot
            .clone()
            .ok_or("the model was not loaded: setup was not called")?)
    }

    /// Counts that a model was loaded.
    fn loaded(&self, loaded: &Loaded<H>, loading: Loading) {
        let Some(time) = loading else { return };
        self.metrics.total.loaded(time, loaded.bytes);
        if let Some((_, named)) = &self.named {
            named.loaded(time, loaded.bytes);
        }
    }

    /// The model for a batch of which this is the first element. `None`: its key has no handler.
    fn model(
        &mut self,
        first: &Of<H, S>,
        ctx: &mut Context<'_, Out<H, S, P>>,
    ) -> Result<Option<Arc<Loaded<H>>>, BoxError> {
        if let Some(fixed) = &self.fixed {
            return Ok(Some(fixed.clone()));
        }
        let plan = self.plan.clone();
        if let Some(view) = &plan.updates {
            let latest = ctx.side(view)?;
            let update = seen(&latest);
            return self.updated(update).map(Some);
        }
        let at = match &plan.handlers.find {
            Some(find) => find(&S::key(first)),
            None => Some(0),
        };
        let Some(handler) = at.and_then(|at| plan.handlers.all.get(at)) else {
            return Ok(None);
        };
        let slot = self.slot()?;
        let (loaded, loading) = slot.models.get(handler, &mut self.helper)?;
        self.loaded(&loaded, loading);
        Ok(Some(loaded))
    }

    /// The model of the latest update that this process knows of, which is at least this one.
    fn updated(&mut self, update: Option<&Update>) -> Result<Arc<Loaded<H>>, BoxError> {
        let slot = self.slot()?;
        let serving = slot.serving.lock().clone();
        if let Some((serves, loaded)) = &serving {
            let is_old = match (serves, update) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(serves), Some(update)) => update.order < serves.order || update == serves,
            };
            if is_old || slot.rejected.lock().as_ref() == update {
                return Ok(loaded.clone());
            }
        }
        if let Some(update) = update {
            self.name_metrics(&update.model.model_name);
        }
        let handler = self.plan.handlers.all.first().ok_or("there is no handler")?;
        let found = match update {
            None => slot.models.load(handler, "", "", &mut self.helper),
            Some(update) => {
                let Update { model, revision, .. } = update;
                let place = format!("{}\n{revision}", model.model_id);
                handler
                    .update_model_path(&model.model_id)
                    .map_err(|source| LoadError {
                        model: model.model_id.clone(),
                        source,
                    })
                    .and_then(|handler| slot.models.load(&handler, &place, revision, &mut self.helper))
            }
        };
        match (found, serving) {
            (Ok((loaded, loading)), _) => {
                self.loaded(&loaded, loading);
                self.serve(&slot, update, &loaded);
                Ok(loaded)
            }
            // A model that cannot be had must not stop the one that serves.
            (Err(error), Some((_, loaded))) => {
                self.reject(&slot, update, &loaded.id, &error);
                Ok(loaded)
            }
            (Err(error), None) => Err(error.into()),
        }
    }

    /// From now on this model serves, unless a later one does already.
    fn serve(&self, slot: &Slot<H>, update: Option<&Update>, loaded: &Arc<Loaded<H>>) {
        let order = |update: &Option<Update>| update.as_ref().map(|update| update.order);
        let update = update.cloned();
        let mut serving = slot.serving.lock();
        if let Some((serves, _)) = &*serving
            && (order(serves) > order(&update) || *serves == update)
        {
            return;
        }
        if serving.is_some() {
            self.metrics.updates.inc(1);
        }
        let before = serving.replace((update, loaded.clone()));
        drop(serving);
        // Here, where nothing is locked: the last to hold a model waits until it is gone.
        drop(before);
    }

    fn reject(&self, slot: &Slot<H>, update: Option<&Update>, serves: &str, error: &LoadError) {
        let mut rejected = slot.rejected.lock();
        if rejected.as_ref() != update {
            *rejected = update.cloned();
            self.metrics.failed_updates.inc(1);
            tracing::warn!(%error, serves, "a new model is left out, and the one before stays");
        }
    }

    fn name_metrics(&mut self, name: &str) {
        if self.named.as_ref().is_none_or(|(other, _)| other != name) {
            let metrics = || ModelMetrics::new(&self.plan.namespace, name);
            self.named = (!name.is_empty()).then(|| (name.to_owned(), metrics()));
        }
    }

    /// Runs a batch, which is given back with what the model gave for each of its elements.
    fn run(&mut self, loaded: &Arc<Loaded<H>>, batch: Vec<Of<H, S>>) -> Result<Ran<H, S>, BoxError> {
        let (plan, metrics, examples) = (self.plan.clone(), self.metrics, batch.len());
        let keeps_failures = plan.failed.is_some();
        let mut failed = false;
        let parts = Parts {
            bisects: keeps_failures,
            limit: loaded.place.batch_limit(),
            is_out_of_memory: &|error| loaded.handler.is_out_of_memory(error),
            out_of_memory: &mut |size| {
                metrics.out_of_memory.inc(1);
                loaded.place.limit_batches(size / 2);
                tracing::warn!(model = loaded.id, "memory does not suffice for a batch of {size}");
            },
            failed: &mut || failed = true,
        };
        let named = |error: BoxError| match error.downcast::<InferenceError>() {
            Ok(error)
                if !matches!(
                    *error,
                    InferenceError::OutOfMemory(_) | InferenceError::Unavailable(_)
                ) =>
            {
                error as BoxError
            }
            other => InferenceError::Batch {
                model: loaded.id.clone(),
                examples,
                source: other.map_or_else(|error| error, |error| error as BoxError),
            }
            .into(),
        };
        let outcome = match plan.inference_timeout {
            None => {
                let run =
                    &mut |part: Range<usize>| call::<H, S>(loaded, &batch[part], plan.pad_to, keeps_failures);
                run_parts(examples, parts, run).map(|results| (batch, results))
            }
            Some(limit) => {
                let batch = Arc::new(Mutex::new(batch));
                let run = &mut |part: Range<usize>| {
                    let examples = part.len();
                    let (batch, model, pad_to) = (batch.clone(), loaded.clone(), plan.pad_to);
                    let work = move || call::<H, S>(&model, &batch.lock()[part], pad_to, keeps_failures);
                    self.helper.within(limit, work)?.unwrap_or_else(|| {
                        Err(InferenceError::Timeout {
                            model: loaded.id.clone(),
                            examples,
                            limit,
                        }
                        .into())
                    })
                };
                let results = run_parts(examples, parts, run);
                // Of an error the batch may still be in use.
                results.map(|results| (std::mem::take(&mut *batch.lock()), results))
            }
        };
        if failed {
            self.count(|metrics| metrics.failed_batches.inc(1));
        }
        outcome.map_err(named)
    }

    fn count(&self, update: impl Fn(&ModelMetrics)) {
        update(&self.metrics.total);
        if let Some((_, named)) = &self.named {
            update(named);
        }
    }

    /// Compares with what the shadow model gives.
    fn compare(&self, examples: &[&H::Example], results: &Results<H::Inference>) -> DoFnResult {
        let slot = self.slot()?;
        let Some(shadow) = &slot.shadow else { return Ok(()) };
        let (examples, inferences): (Vec<&H::Example>, Vec<&H::Inference>) = examples
            .iter()
            .zip(results)
            .filter_map(|(example, result)| Some((*example, result.as_ref().ok()?)))
            .unzip();
        if examples.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        match shadow.disagreements(&examples, &inferences) {
            Ok(disagreed) => {
                self.metrics.shadow_micros.update(micros(start));
                self.metrics.disagreements.inc(count(disagreed));
                self.metrics.agreements.inc(count(examples.len() - disagreed));
                if let Some(gate) = &self.plan.gate {
                    gate.record(shadow.id(), examples.len(), disagreed)?;
                }
            }
            // It serves nobody, so nobody has to suffer for it.
            Err(error) => {
                self.metrics.shadow_failures.inc(1);
                tracing::warn!(%error, model = shadow.id(), "the shadow model failed on a batch");
            }
        }
        Ok(())
    }

    /// What the model gave goes out.
    fn emit(
        &self,
        loaded: Option<&Loaded<H>>,
        batch: Vec<Of<H, S>>,
        results: Results<H::Inference>,
        ctx: &mut Context<'_, Out<H, S, P>>,
    ) -> DoFnResult {
        let plan = &*self.plan;
        let model_id = || loaded.map_or_else(String::new, |loaded| loaded.id.clone());
        let size = batch.len();
        let (mut errors, mut well) = (Vec::new(), 0);
        let start = Instant::now();
        for (element, result) in batch.into_iter().zip(results) {
            let is_inference = result.is_ok();
            well += i64::from(is_inference);
            let result = result.and_then(|inference| Ok(plan.postprocess.run(inference)?));
            let failed = match is_inference {
                true => &plan.failed_postprocessing,
                false => &plan.failed,
            };
            match (result, failed) {
                (Ok(inference), _) => {
                    let (key, example) = S::split::<H::Example>(element);
                    let result = PredictionResult {
                        example,
                        inference,
                        model_id: model_id(),
                        model_version: loaded.and_then(|loaded| loaded.version.clone()),
                        model_hash: loaded.and_then(|loaded| loaded.hash.clone()),
                    };
                    ctx.output(S::join(key, result));
                }
                (Err(error), Some(failed)) => {
                    let error = error.to_string();
                    if plan.rate.is_some() {
                        errors.push(error.clone());
                    }
                    let failure = FailedExample {
                        example: element,
                        error,
                        model_id: model_id(),
                    };
                    ctx.output_to(failed, failure);
                }
                (Err(error), None) => return Err(error),
            }
        }
        if P::ANY {
            self.metrics.postprocess.update(micros(start));
        }
        self.count(|metrics| metrics.inferences.inc(well));
        if let Some(rate) = &plan.rate {
            let new = if plan.counts { size } else { 0 };
            rate.record(new, errors.iter().map(String::as_str))?;
        }
        Ok(())
    }

    fn process_batch_of_examples(
        &mut self,
        batch: Vec<Of<H, S>>,
        ctx: &mut Context<'_, Out<H, S, P>>,
    ) -> DoFnResult {
        let Some(first) = batch.first() else { return Ok(()) };
        let Some(loaded) = self.model(first, ctx)? else {
            if self.plan.failed.is_none() {
                return Err(InferenceError::NoHandler.into());
            }
            let results = batch.iter().map(|_| Err(InferenceError::NoHandler.into()));
            let results = results.collect();
            return self.emit(None, batch, results, ctx);
        };
        let start = Instant::now();
        let (batch, results) = self.run(&loaded, batch)?;
        let elapsed = micros(start);
        let examples: Vec<&H::Example> = batch.iter().map(S::value).collect();
        let bytes = crate::metrics::bytes(loaded.handler.num_bytes(&examples));
        self.count(|metrics| {
            metrics.batch_micros.update(elapsed);
            metrics.batch_size.update(count(examples.len()));
            metrics.batch_bytes.update(bytes);
        });
        self.compare(&examples, &results)?;
        drop(examples);
        self.emit(Some(&loaded), batch, results, ctx)
    }
}

impl<H: ModelHandler, S: Shape, P: Postprocessing<H>> DoFn for Infer<H, S, P> {
    type In = Vec<Of<H, S>>;
    type Out = Out<H, S, P>;

    fn setup(&mut self) -> DoFnResult {
        let plan = self.plan.clone();
        let slot = {
            let mut shared = self.shared.lock();
            match shared.upgrade() {
                Some(slot) => slot,
                None => {
                    let shadow = plan.shadow.as_ref().map(|shadow| shadow.load()).transpose()?;
                    let slot = Arc::new(Slot {
                        models: Models::new(plan.limits),
                        serving: Mutex::default(),
                        rejected: Mutex::default(),
                        shadow,
                    });
                    *shared = Arc::downgrade(&slot);
                    slot
                }
            }
        };
        self.slot = Some(slot.clone());
        if let [handler] = &plan.handlers.all[..]
            && plan.handlers.find.is_none()
            && plan.updates.is_none()
        {
            let (loaded, loading) = slot.models.get(handler, &mut self.helper)?;
            self.fixed = Some(loaded);
            self.loading = loading;
        }
        Ok(())
    }

    fn start_bundle(&mut self) -> DoFnResult {
        self.idle_since = Instant::now();
        Ok(())
    }

    fn process(&mut self, batch: Self::In, ctx: &mut Context<'_, Self::Out>) -> DoFnResult {
        self.metrics.wait.update(micros(self.idle_since));
        if let (Some(loaded), loading @ Some(_)) = (&self.fixed, self.loading.take()) {
            // Not in setup, which belongs to no bundle that could tell it.
            self.loaded(loaded, loading);
        }
        let done = self.process_batch_of_examples(batch, ctx);
        self.idle_since = Instant::now();
        done
    }

    fn teardown(&mut self) {
        self.fixed = None;
        self.slot = None;
    }
}
