//! A job's metrics: committed ones of bundles that count, attempted ones of all.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use purlin_engine::BundleId;
use purlin_model::metric::decode_sum;
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metric_types, metrics};

use super::merge::merge;

/// Metrics of a job, merged over its bundles.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics {
    /// Of all bundles, failed and running ones too.
    pub attempted: Vec<MonitoringInfo>,
    /// Of bundles whose results count.
    pub committed: Vec<MonitoringInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    urn: String,
    type_urn: String,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
struct Merged(BTreeMap<Key, MonitoringInfo>);

impl Merged {
    fn add(&mut self, info: &MonitoringInfo) {
        let labels = info
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let key = Key {
            urn: info.urn.clone(),
            type_urn: info.r#type.clone(),
            labels,
        };
        match self.0.entry(key) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(info.clone());
            }
            std::collections::btree_map::Entry::Occupied(mut own) => {
                let own = own.get_mut();
                own.payload =
                    merge(&info.r#type, &own.payload, &info.payload).unwrap_or_else(|| info.payload.clone());
            }
        }
    }
}

/// Gathers the metrics of bundles.
#[derive(Debug, Default)]
pub(super) struct MetricsStore {
    committed: Merged,
    failed: Merged,
    /// What running bundles told last.
    running: HashMap<BundleId, Vec<MonitoringInfo>>,
}

impl MetricsStore {
    pub(super) fn progress(&mut self, bundle: BundleId, infos: Vec<MonitoringInfo>) {
        self.running.insert(bundle, infos);
    }

    pub(super) fn committed(&mut self, bundle: BundleId, infos: &[MonitoringInfo]) {
        self.running.remove(&bundle);
        infos
            .iter()
            .filter(|info| lasts(info))
            .for_each(|info| self.committed.add(info));
    }

    /// A bundle finished, and its work is done again: its metrics are attempted ones.
    pub(super) fn undone(&mut self, bundle: BundleId, infos: &[MonitoringInfo]) {
        self.running.remove(&bundle);
        infos
            .iter()
            .filter(|info| lasts(info))
            .for_each(|info| self.failed.add(info));
    }

    pub(super) fn failed(&mut self, bundle: BundleId) {
        let infos = self.running.remove(&bundle).unwrap_or_default();
        infos
            .iter()
            .filter(|info| lasts(info))
            .for_each(|info| self.failed.add(info));
    }

    /// The metrics, with transforms named as `name` names them.
    pub(super) fn query(&self, name: impl Fn(&str) -> String) -> JobMetrics {
        let mut attempted = self.committed.clone();
        self.failed.0.values().for_each(|info| attempted.add(info));
        self.running
            .values()
            .flatten()
            .filter(|info| lasts(info))
            .for_each(|info| attempted.add(info));
        let named = |merged: &Merged| {
            let infos = merged.0.values().map(|info| {
                let mut info = info.clone();
                if let Some(transform) = info.labels.get_mut(metric_labels::TRANSFORM) {
                    *transform = name(transform);
                }
                info
            });
            infos.collect()
        };
        JobMetrics {
            attempted: named(&attempted),
            committed: named(&self.committed),
        }
    }
}

/// Whether a metric says something beyond the bundle that told it.
fn lasts(info: &MonitoringInfo) -> bool {
    info.urn != metrics::DATA_CHANNEL_READ_INDEX && info.r#type != metric_types::PROGRESS_TYPE
}

/// How many main-input elements a bundle has begun, if it tells.
pub(super) fn elements_begun(infos: &[MonitoringInfo]) -> Option<u64> {
    let info = infos
        .iter()
        .find(|info| info.urn == metrics::DATA_CHANNEL_READ_INDEX)?;
    let index = decode_sum(&info.payload)?;
    // The index is that of the element in work, -1 before the first.
    u64::try_from(index.checked_add(1)?).ok()
}

/// The infos of a response: in full, or by short ids that `known` resolves. `Err`: ids that are not known yet.
pub(super) fn resolve(
    infos: &[MonitoringInfo],
    data: &HashMap<String, Bytes>,
    known: &HashMap<String, MonitoringInfo>,
) -> Result<Vec<MonitoringInfo>, Vec<String>> {
    // SDKs that tell both say the same twice.
    if !infos.is_empty() || data.is_empty() {
        return Ok(infos.to_vec());
    }
    let missing: Vec<String> = data
        .keys()
        .filter(|id| !known.contains_key(*id))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let full = data.iter().filter_map(|(id, payload)| {
        let info = known.get(id)?;
        Some(MonitoringInfo {
            payload: payload.clone(),
            ..info.clone()
        })
    });
    Ok(full.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(transform: &str, value: u8) -> MonitoringInfo {
        MonitoringInfo {
            urn: metrics::USER_SUM_INT64.to_owned(),
            r#type: metric_types::SUM_INT64_TYPE.to_owned(),
            payload: Bytes::from(vec![value]),
            labels: HashMap::from([(metric_labels::TRANSFORM.to_owned(), transform.to_owned())]),
            ..Default::default()
        }
    }

    #[test]
    fn failed_attempts_are_attempted_only() {
        let mut store = MetricsStore::default();
        store.progress(BundleId(1), vec![counter("t", 4)]);
        store.failed(BundleId(1));
        store.committed(BundleId(2), &[counter("t", 5)]);
        store.progress(BundleId(3), vec![counter("t", 1)]);
        store.undone(BundleId(4), &[counter("t", 2)]);
        let metrics = store.query(|id| format!("name of {id}"));
        assert_eq!(metrics.committed.len(), 1);
        assert_eq!(&metrics.committed[0].payload[..], [5]);
        assert_eq!(&metrics.attempted[0].payload[..], [12]);
        assert_eq!(metrics.attempted[0].labels[metric_labels::TRANSFORM], "name of t");
    }

    #[test]
    fn short_ids_are_resolved_once_known() {
        let data = HashMap::from([("1".to_owned(), Bytes::from_static(&[7]))]);
        assert_eq!(resolve(&[], &data, &HashMap::new()), Err(vec!["1".to_owned()]));
        let known = HashMap::from([("1".to_owned(), counter("t", 0))]);
        assert_eq!(resolve(&[], &data, &known), Ok(vec![counter("t", 7)]));
        assert_eq!(
            resolve(&[counter("t", 7)], &data, &HashMap::new()),
            Ok(vec![counter("t", 7)])
        );
    }
}
