//! Short ids of monitoring infos: the labels are sent once, then only the values.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use parking_lot::Mutex;
use purlin_proto::pipeline::MonitoringInfo;

/// The short ids of one worker.
#[derive(Default)]
pub(super) struct ShortIds {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    ids: HashMap<Key, String>,
    infos: HashMap<String, MonitoringInfo>,
}

type Key = (String, String, BTreeMap<String, String>);

impl ShortIds {
    /// The values by short id.
    pub fn shorten(&self, infos: Vec<MonitoringInfo>) -> HashMap<String, Bytes> {
        let mut table = self.table.lock();
        let Table { ids, infos: known } = &mut *table;
        let short = infos.into_iter().map(|mut info| {
            let payload = std::mem::take(&mut info.payload);
            let labels = info.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            let next = ids.len() + 1;
            let id = ids
                .entry((info.urn.clone(), info.r#type.clone(), labels))
                .or_insert_with(|| {
                    let id = format!("{next:x}");
                    info.start_time = None;
                    known.insert(id.clone(), info);
                    id
                });
            (id.clone(), payload)
        });
        short.collect()
    }

    /// The infos behind short ids, without values. Ids that were never given are left out.
    pub fn infos(&self, ids: &[String]) -> HashMap<String, MonitoringInfo> {
        let table = self.table.lock();
        ids.iter()
            .filter_map(|id| Some((id.clone(), table.infos.get(id)?.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_labels_have_one_id() {
        let info = |urn: &str, step: &str, payload: &'static [u8]| MonitoringInfo {
            urn: urn.into(),
            r#type: "sum".into(),
            labels: [("PTRANSFORM".to_owned(), step.to_owned())].into(),
            payload: Bytes::from_static(payload),
            ..Default::default()
        };
        let ids = ShortIds::default();
        let first = ids.shorten(vec![info("a", "x", b"1"), info("a", "y", b"2")]);
        let second = ids.shorten(vec![info("a", "x", b"3"), info("b", "x", b"4")]);
        assert_eq!(
            (first["1"].as_ref(), first["2"].as_ref()),
            (b"1".as_ref(), b"2".as_ref())
        );
        assert_eq!(
            (second["1"].as_ref(), second["3"].as_ref()),
            (b"3".as_ref(), b"4".as_ref())
        );
        let infos = ids.infos(&["2".into(), "3".into(), "9".into()]);
        assert_eq!(infos.len(), 2);
        assert_eq!(
            (infos["2"].labels["PTRANSFORM"].as_str(), infos["3"].urn.as_str()),
            ("y", "b")
        );
        assert!(infos["2"].payload.is_empty());
    }
}
