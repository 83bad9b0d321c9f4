//! Metrics under Beam's names.

use purlin::prelude::*;
use purlin_inference::RunInference;

use crate::Times;

#[test]
fn metrics_have_beams_names() {
    let p = TestPipeline::new();
    let numbers = p.apply(Create::new([0i64])).flat_map("Numbers", |_| 0..20i64);
    numbers.apply(RunInference::new(Times::new("metrics", 2)));
    numbers.apply(RunInference::new(Times::new("metrics elsewhere", 2)).metrics_namespace("elsewhere"));
    let result = p.run();
    let metrics = result.metrics();
    for namespace in ["RunInference", "elsewhere"] {
        assert_eq!(metrics.counter(namespace, "num_inferences"), 20);
        assert_eq!(metrics.counter(namespace, "failed_batches_counter"), 0);
        let distribution = |name| {
            let found = metrics.distribution(namespace, name);
            (found.count, found.sum)
        };
        assert_eq!(distribution("inference_request_batch_size"), (3, 20));
        // Each number is a byte.
        assert_eq!(distribution("inference_request_batch_byte_size"), (3, 20));
        assert_eq!(distribution("inference_batch_latency_micro_secs").0, 3);
        assert_eq!(distribution("load_model_latency_milli_secs").0, 1);
        assert_eq!(distribution("model_byte_size"), (1, 100));
        assert_eq!(distribution("wait_micro_secs").0, 3);
    }
}
