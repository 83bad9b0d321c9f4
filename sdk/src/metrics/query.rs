//! Results of metrics, read from a runner's monitoring infos.

use purlin_model::metric::decode_sum;
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metrics};
use rustc_hash::FxHashMap;

pub use purlin_model::metric::{Distribution as DistributionResult, Latest as GaugeResult};

/// What a metric says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricValue {
    /// Of a counter.
    Counter(i64),
    /// Of a distribution.
    Distribution(DistributionResult),
    /// Of a gauge.
    Gauge(GaugeResult),
}

impl MetricValue {
    fn merge(self, other: MetricValue) -> MetricValue {
        match (self, other) {
            (MetricValue::Counter(a), MetricValue::Counter(b)) => MetricValue::Counter(a.wrapping_add(b)),
            (MetricValue::Distribution(a), MetricValue::Distribution(b)) => {
                MetricValue::Distribution(a.merge(b))
            }
            (MetricValue::Gauge(a), MetricValue::Gauge(b)) => MetricValue::Gauge(a.merge(b)),
            (a, _) => a,
        }
    }
}

/// Which metric of which transform.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricKey {
    /// Name of the transform.
    pub step: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A metric of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricResult {
    /// Which.
    pub key: MetricKey,
    /// What all attempts counted.
    pub attempted: Option<MetricValue>,
    /// What committed bundles counted.
    pub committed: Option<MetricValue>,
}

/// The metrics of a run, so far or in the end.
#[derive(Clone, Debug, Default)]
pub struct MetricResults {
    metrics: Vec<MetricResult>,
    elements: FxHashMap<String, u64>,
}

impl MetricResults {
    /// From the monitoring infos of a runner. PTRANSFORM labels are taken as the transforms' names.
    pub fn new(attempted: &[MonitoringInfo], committed: &[MonitoringInfo]) -> MetricResults {
        let mut all: FxHashMap<MetricKey, MetricResult> = FxHashMap::default();
        for (infos, is_committed) in [(attempted, false), (committed, true)] {
            for (key, value) in infos.iter().filter_map(read) {
                let result = all.entry(key.clone()).or_insert_with(|| MetricResult {
                    key,
                    attempted: None,
                    committed: None,
                });
                let slot = if is_committed {
                    &mut result.committed
                } else {
                    &mut result.attempted
                };
                *slot = Some(slot.map_or(value, |v| v.merge(value)));
            }
        }
        let mut metrics: Vec<_> = all.into_values().collect();
        metrics.sort_by(|a, b| a.key.cmp(&b.key));

        let mut elements: FxHashMap<String, u64> = FxHashMap::default();
        // Runners that tell no committed values tell attempted ones.
        let counted = if committed.is_empty() {
            attempted
        } else {
            committed
        };
        for info in counted.iter().filter(|i| i.urn == metrics::ELEMENT_COUNT) {
            if let (Some(id), Some(count)) = (
                info.labels.get(metric_labels::PCOLLECTION),
                decode_sum(&info.payload),
            ) {
                *elements.entry(id.clone()).or_default() += count as u64;
            }
        }
        MetricResults { metrics, elements }
    }

    /// All metrics, by step, namespace and name.
    pub fn query(&self) -> &[MetricResult] {
        &self.metrics
    }

    /// The metrics of this namespace and name, one for each step that has it.
    pub fn named<'a>(&'a self, namespace: &'a str, name: &'a str) -> impl Iterator<Item = &'a MetricResult> {
        self.metrics
            .iter()
            .filter(move |m| m.key.namespace == namespace && m.key.name == name)
    }

    /// The value over all steps: committed where the runner tells it, else attempted.
    fn total(&self, namespace: &str, name: &str) -> Option<MetricValue> {
        self.named(namespace, name)
            .filter_map(|m| m.committed.or(m.attempted))
            .reduce(MetricValue::merge)
    }

    /// A counter over all steps, 0 where nothing was counted.
    pub fn counter(&self, namespace: &str, name: &str) -> i64 {
        match self.total(namespace, name) {
            Some(MetricValue::Counter(value)) => value,
            _ => 0,
        }
    }

    /// A distribution over all steps.
    pub fn distribution(&self, namespace: &str, name: &str) -> DistributionResult {
        match self.total(namespace, name) {
            Some(MetricValue::Distribution(value)) => value,
            _ => DistributionResult::default(),
        }
    }

    /// The latest value of a gauge.
    pub fn gauge(&self, namespace: &str, name: &str) -> Option<GaugeResult> {
        match self.total(namespace, name) {
            Some(MetricValue::Gauge(value)) => Some(value),
            _ => None,
        }
    }

    /// Number of elements by the PCollections' ids.
    pub fn element_counts(&self) -> &FxHashMap<String, u64> {
        &self.elements
    }
}

fn read(info: &MonitoringInfo) -> Option<(MetricKey, MetricValue)> {
    let value = match info.urn.as_str() {
        metrics::USER_SUM_INT64 => MetricValue::Counter(decode_sum(&info.payload)?),
        metrics::USER_DISTRIBUTION_INT64 => {
            MetricValue::Distribution(DistributionResult::decode(&info.payload)?)
        }
        metrics::USER_LATEST_INT64 => MetricValue::Gauge(GaugeResult::decode(&info.payload)?),
        _ => return None,
    };
    let label = |label: &str| info.labels.get(label).cloned();
    let key = MetricKey {
        step: label(metric_labels::TRANSFORM).unwrap_or_default(),
        namespace: label(metric_labels::NAMESPACE)?,
        name: label(metric_labels::NAME)?,
    };
    Some((key, value))
}
