//! A job's metrics: committed ones of bundles that count, attempted ones of all.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message as _;
use purlin_engine::BundleId;
use purlin_model::metric::decode_sum;
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metric_types, metrics};

use super::merge::merge;

/// Bytes of metrics that a job keeps of the bundles that count, of those that do not, and of those that run, each. It is
/// enough for some 400,000.
const MAX_BYTES: usize = 64 << 20;

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
struct Merged {
    infos: BTreeMap<Key, MonitoringInfo>,
    bytes: usize,
}

impl Merged {
    /// False if there is no room: then it stays as it is.
    fn add(&mut self, info: &MonitoringInfo) -> bool {
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
        let (bytes, payload) = match self.infos.get(&key) {
            None => (self.bytes + info.encoded_len(), info.payload.clone()),
            Some(own) => {
                let merged = merge(&info.r#type, &own.payload, &info.payload);
                let merged = merged.unwrap_or_else(|| info.payload.clone());
                (self.bytes - own.payload.len() + merged.len(), merged)
            }
        };
        let room = bytes <= MAX_BYTES;
        if room {
            self.bytes = bytes;
            self.infos.entry(key).or_insert_with(|| info.clone()).payload = payload;
        }
        room
    }
}

/// Gathers the metrics of bundles.
#[derive(Debug, Default)]
pub(super) struct MetricsStore {
    committed: Merged,
    failed: Merged,
    /// What running bundles told last, and its bytes.
    running: HashMap<BundleId, (Vec<MonitoringInfo>, usize)>,
    running_bytes: usize,
    full: Full,
}

/// Whether there was no room for a metric.
#[derive(Debug, Default, PartialEq, Eq)]
enum Full {
    #[default]
    No,
    Yes,
    Told,
}

impl MetricsStore {
    pub(super) fn progress(&mut self, bundle: BundleId, infos: Vec<MonitoringInfo>) {
        self.ended(bundle);
        let bytes = infos.iter().map(MonitoringInfo::encoded_len).sum();
        if self.running_bytes + bytes <= MAX_BYTES {
            self.running_bytes += bytes;
            self.running.insert(bundle, (infos, bytes));
        }
    }

    /// What it told while it ran.
    fn ended(&mut self, bundle: BundleId) -> Vec<MonitoringInfo> {
        let (infos, bytes) = self.running.remove(&bundle).unwrap_or_default();
        self.running_bytes -= bytes;
        infos
    }

    pub(super) fn committed(&mut self, bundle: BundleId, infos: &[MonitoringInfo]) {
        self.ended(bundle);
        for info in infos.iter().filter(|info| lasts(info)) {
            if !self.committed.add(info) {
                self.no_room();
            }
        }
    }

    /// A bundle finished, and its work is done again: its metrics are attempted ones.
    pub(super) fn undone(&mut self, bundle: BundleId, infos: &[MonitoringInfo]) {
        self.ended(bundle);
        for info in infos.iter().filter(|info| lasts(info)) {
            if !self.failed.add(info) {
                self.no_room();
            }
        }
    }

    pub(super) fn failed(&mut self, bundle: BundleId) {
        let infos = self.ended(bundle);
        self.undone(bundle, &infos);
    }

    fn no_room(&mut self) {
        if self.full == Full::No {
            self.full = Full::Yes;
        }
    }

    /// A word for the user, once, if there was no room for a metric.
    pub(super) fn told_full(&mut self) -> Option<String> {
        (self.full == Full::Yes).then(|| {
            self.full = Full::Told;
            format!(
                "the job has more than {} MiB of metrics; those that were new after that, or grew, are left out",
                MAX_BYTES >> 20
            )
        })
    }

    /// The metrics, with transforms named as `name` names them.
    pub(super) fn query(&self, name: impl Fn(&str) -> String) -> JobMetrics {
        let mut attempted = self.committed.clone();
        let running = self.running.values().flat_map(|(infos, _)| infos);
        for info in self
            .failed
            .infos
            .values()
            .chain(running.filter(|info| lasts(info)))
        {
            attempted.add(info);
        }
        let named = |merged: &Merged| {
            let infos = merged.infos.values().map(|info| {
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
    fn metrics_without_end_are_not_kept_and_that_is_told_once() {
        let mut store = MetricsStore::default();
        let long = |n: usize| counter(&"n".repeat(8_000_000 - n), 1);
        let most = MAX_BYTES / 8_000_000;
        for n in 0..2 * most {
            store.committed(BundleId(n as u64), &[long(n)]);
            store.progress(BundleId(n as u64), vec![long(n)]);
        }
        assert!(store.running_bytes <= MAX_BYTES && store.running.len() < 2 * most);
        let metrics = store.query(str::to_owned);
        assert!((most - 1..=most).contains(&metrics.committed.len()));
        assert!(metrics.attempted.len() <= most);
        assert!(store.told_full().is_some() && store.told_full().is_none());
        // Those that are there go on counting.
        store.committed(BundleId(0), &[long(0)]);
        let committed = store.query(str::to_owned).committed;
        assert!(committed.iter().any(|info| info.payload[..] == [2]));
        // What grows does not grow without end.
        let set = |text: String| {
            let mut payload = 1_u32.to_be_bytes().to_vec();
            purlin_model::wire::write_bytes(text.as_bytes(), &mut payload, true);
            let r#type = metric_types::SET_STRING_TYPE.to_owned();
            MonitoringInfo {
                payload: payload.into(),
                r#type,
                ..counter("set", 0)
            }
        };
        let mut store = MetricsStore::default();
        for n in 0..2 * most {
            store.committed(BundleId(0), &[set("n".repeat(8_000_000 - n))]);
        }
        assert!(store.committed.bytes <= MAX_BYTES);
        for n in 0..2 * most {
            store.progress(BundleId(n as u64), vec![]);
            store.failed(BundleId(n as u64));
        }
        assert_eq!(store.running_bytes, 0);
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
