//! What is counted, under Beam's names.

use std::time::{Duration, Instant};

use purlin::metrics::{Counter, Distribution};
use purlin::prelude::Metrics;

/// Microseconds since then.
pub(crate) fn micros(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What Beam counts of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelMetrics {
    pub inferences: Counter,
    pub failed_batches: Counter,
    pub batch_size: Distribution,
    pub batch_bytes: Distribution,
    pub batch_micros: Distribution,
    pub load_millis: Distribution,
    pub model_bytes: Distribution,
}

impl ModelMetrics {
    /// The prefix is a model's name, where models change.
    pub fn new(namespace: &str, prefix: &str) -> ModelMetrics {
        let named = |name: &str| match prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}_{name}"),
        };
        let counter = |name| Metrics::counter(namespace, &named(name));
        let distribution = |name| Metrics::distribution(namespace, &named(name));
        ModelMetrics {
            inferences: counter("num_inferences"),
            failed_batches: counter("failed_batches_counter"),
            batch_size: distribution("inference_request_batch_size"),
            batch_bytes: distribution("inference_request_batch_byte_size"),
            batch_micros: distribution("inference_batch_latency_micro_secs"),
            load_millis: distribution("load_model_latency_milli_secs"),
            model_bytes: distribution("model_byte_size"),
        }
    }

    pub fn loaded(&self, time: Duration, size: u64) {
        self.load_millis
            .update(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        self.model_bytes.update(bytes(size));
    }
}

/// All that the inference step counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InferMetrics {
    pub total: ModelMetrics,
    /// Between two batches of a bundle: what comes before the model takes that time.
    pub wait: Distribution,
    pub postprocess: Distribution,
    pub out_of_memory: Counter,
    pub updates: Counter,
    pub failed_updates: Counter,
    pub agreements: Counter,
    pub disagreements: Counter,
    pub shadow_failures: Counter,
    pub shadow_micros: Distribution,
}

impl InferMetrics {
    pub fn new(namespace: &str) -> InferMetrics {
        let counter = |name| Metrics::counter(namespace, name);
        let distribution = |name| Metrics::distribution(namespace, name);
        InferMetrics {
            total: ModelMetrics::new(namespace, ""),
            wait: distribution("wait_micro_secs"),
            postprocess: distribution("postprocess_micro_secs"),
            out_of_memory: counter("out_of_memory_batches"),
            updates: counter("model_updates"),
            failed_updates: counter("failed_model_updates"),
            agreements: counter("shadow_agreements"),
            disagreements: counter("shadow_disagreements"),
            shadow_failures: counter("shadow_failures"),
            shadow_micros: distribution("shadow_batch_latency_micro_secs"),
        }
    }
}

/// The time of the steps before the model.
pub(crate) fn preprocess_micros(namespace: &str) -> Distribution {
    Metrics::distribution(namespace, "preprocess_micro_secs")
}
