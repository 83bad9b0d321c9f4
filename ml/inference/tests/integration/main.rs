//! `RunInference` in pipelines, with models that calculate.

mod basics;
mod batches;
mod errors;
mod keys;
mod metrics;
mod steps;
mod updates;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use purlin::prelude::*;
use purlin_inference::{BatchSizes, InferenceError, MemoryEstimate, ModelHandler};

/// A model that multiplies numbers, and writes down what it was given.
#[derive(Clone)]
struct Times {
    id: String,
    /// Tells it from those of other tests, with which it would share models.
    number: usize,
    by: i64,
    sizes: BatchSizes,
    /// Of batches that have run.
    batches: Arc<Mutex<Vec<Vec<i64>>>>,
    /// Models that are loaded.
    live: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
    /// Numbers that fail.
    bad: Vec<i64>,
    /// For more examples memory does not suffice.
    memory: usize,
    estimate: Option<MemoryEstimate>,
}

/// A loaded model.
struct Factor {
    by: i64,
    live: Arc<AtomicUsize>,
}

impl Drop for Factor {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Times {
    fn new(id: &str, by: i64) -> Times {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Times {
            id: id.to_owned(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            by,
            sizes: BatchSizes { min: 8, max: 8 },
            batches: Arc::default(),
            live: Arc::default(),
            loads: Arc::default(),
            bad: Vec::new(),
            memory: usize::MAX,
            estimate: None,
        }
    }

    fn batches(&self) -> Vec<Vec<i64>> {
        self.batches.lock().clone()
    }
}

impl ModelHandler for Times {
    type Example = i64;
    type Inference = i64;
    type Model = Factor;

    fn model_id(&self) -> String {
        self.id.clone()
    }

    fn model_key(&self) -> String {
        format!("{} of {}", self.id, self.number)
    }

    fn load(&self) -> Result<Factor, BoxError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.live.fetch_add(1, Ordering::SeqCst);
        Ok(Factor {
            by: self.by,
            live: self.live.clone(),
        })
    }

    fn run(&self, batch: &[&i64], model: &Factor) -> Result<Vec<i64>, BoxError> {
        if batch.len() > self.memory {
            return Err(InferenceError::OutOfMemory("no room".into()).into());
        }
        if let Some(bad) = batch.iter().find(|example| self.bad.contains(example)) {
            return Err(format!("{bad} is bad").into());
        }
        self.batches
            .lock()
            .push(batch.iter().map(|example| **example).collect());
        Ok(batch.iter().map(|example| *example * model.by).collect())
    }

    fn batch_sizes(&self) -> BatchSizes {
        self.sizes
    }

    fn element_size(&self, example: &i64) -> usize {
        usize::try_from(*example).unwrap_or(0)
    }

    fn element_length(&self, example: &i64) -> usize {
        usize::try_from(*example).unwrap_or(0)
    }

    fn model_bytes(&self, _: &Factor) -> Option<u64> {
        Some(100)
    }

    fn model_hash(&self, model: &Factor) -> Option<String> {
        Some(format!("hash of {}", model.by))
    }

    /// A path is `times-FACTOR`.
    fn update_model_path(&self, path: &str) -> Result<Times, BoxError> {
        let name = std::path::Path::new(path).file_stem().unwrap_or_default();
        let by = name.to_string_lossy().replace("times-", "").parse();
        Ok(Times {
            id: path.to_owned(),
            by: by.map_err(|_| format!("{path} is no model"))?,
            ..self.clone()
        })
    }

    fn estimate(&self) -> Option<MemoryEstimate> {
        self.estimate
    }
}

/// A pipeline that has to fail: how it does.
fn failure(p: TestPipeline) -> String {
    p.try_run()
        .err()
        .map_or_else(String::new, |error| error.to_string())
}
