//! What others may see of a running bundle, and ask of it.

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use purlin_model::metric::encode_progress;
use purlin_proto::fn_execution::process_bundle_split_request::DesiredSplit;
use purlin_proto::fn_execution::process_bundle_split_response::ChannelSplit;
use purlin_proto::fn_execution::{
    BundleApplication, DelayedBundleApplication, ProcessBundleSplitRequest, ProcessBundleSplitResponse,
};
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metric_types, metrics};

use super::edge::ElementCount;
use super::io::ReadIndex;
use super::progress::Progress;
use crate::metrics::{BundleMetrics, sum_info};

/// A step of an executor.
#[derive(Debug)]
pub(crate) struct Step {
    pub transform_id: String,
    pub name: String,
}

/// An element in the works that can be split.
pub(crate) trait LiveElement: Send {
    /// Who works on it.
    fn transform_id(&self) -> &str;
    /// How far it is.
    fn progress(&self) -> Progress;
    /// Keeps this part of what is left, and gives the rest: what is kept, and what is given.
    fn split(&mut self, fraction: f64) -> Option<(BundleApplication, DelayedBundleApplication)>;
}

#[derive(Clone, Default)]
pub(crate) struct LiveSlot(Arc<Mutex<Option<Box<dyn LiveElement>>>>);

impl fmt::Debug for LiveSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveSlot")
    }
}

impl LiveSlot {
    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn LiveElement>>> {
        self.0.lock()
    }
}

/// An element can be split until this is dropped.
pub(crate) struct Shown(LiveSlot);

impl Drop for Shown {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// The side of an executor that other threads use.
#[derive(Debug)]
pub struct BundleMonitor {
    pub(crate) steps: Vec<Step>,
    pub(crate) counts: Vec<(String, ElementCount)>,
    pub(crate) metrics: Arc<BundleMetrics>,
    pub(crate) index: Arc<ReadIndex>,
    /// The element in the works, where it can be split.
    pub(crate) live: LiveSlot,
    /// Id of the data source, where there is exactly one.
    pub(crate) source: Option<String>,
}

impl BundleMonitor {
    /// The metrics of the bundle so far.
    pub fn monitoring_infos(&self) -> Vec<MonitoringInfo> {
        let mut infos = Vec::new();
        for (collection, count) in &self.counts {
            infos.push(sum_info(
                metrics::ELEMENT_COUNT,
                metric_labels::PCOLLECTION,
                collection,
                count.get(),
            ));
        }
        if let Some(source) = &self.source {
            let index = self.index.begun();
            infos.push(sum_info(
                metrics::DATA_CHANNEL_READ_INDEX,
                metric_labels::TRANSFORM,
                source,
                index,
            ));
        }
        if let Some(live) = &*self.live.lock() {
            let Progress { completed, remaining } = live.progress();
            let transform = live.transform_id();
            infos.push(progress_info(metrics::WORK_COMPLETED, transform, completed));
            infos.push(progress_info(metrics::WORK_REMAINING, transform, remaining));
        }
        let step = |step: u32| self.steps.get(step as usize).map_or("", |s| &s.transform_id);
        self.metrics.monitoring_infos(step, &mut infos);
        infos
    }

    /// Gives away elements of the main input that were not begun, as far as the request and the time allow.
    pub fn split(&self, request: &ProcessBundleSplitRequest) -> ProcessBundleSplitResponse {
        let mut response = ProcessBundleSplitResponse::default();
        let Some(source) = &self.source else {
            return response;
        };
        let Some(desired) = request.desired_splits.get(source) else {
            return response;
        };
        // While this is held, the element in the works stays the same.
        let mut live = self.live.lock();
        let begun = self.index.begun();
        let end = u64::try_from(desired.estimated_input_elements)
            .unwrap_or(0)
            .min(self.index.stop());
        if let Some(live) = live.as_deref_mut()
            && let Some(current) = begun.checked_sub(1)
            && self.split_element(live, desired, current, end, &mut response)
        {
            return response;
        }
        // The element in the works is counted as half done.
        let done = begun as f64 - if begun > 0 { 0.5 } else { 0.0 };
        let fraction = desired.fraction_of_remainder.clamp(0.0, 1.0);
        let wanted = (done + fraction * (end as f64 - done)).round().max(begun as f64) as u64;
        let allowed = &desired.allowed_split_points;
        let at = match allowed.is_empty() {
            true => Some(wanted),
            // The nearest that is allowed.
            false => allowed
                .iter()
                .filter_map(|point| u64::try_from(*point).ok())
                .filter(|point| *point >= begun)
                .min_by_key(|point| point.abs_diff(wanted)),
        };
        if let Some(at) = at.filter(|at| *at < end)
            && self.index.try_stop(at)
        {
            response.channel_splits.push(ChannelSplit {
                transform_id: source.clone(),
                last_primary_element: at as i64 - 1,
                first_residual_element: at as i64,
            });
        }
        response
    }

    /// Splits the element in the works, if so much is to be given away.
    fn split_element(
        &self,
        live: &mut dyn LiveElement,
        desired: &DesiredSplit,
        current: u64,
        end: u64,
        response: &mut ProcessBundleSplitResponse,
    ) -> bool {
        let allowed = &desired.allowed_split_points;
        let allows = |index: u64| allowed.is_empty() || allowed.contains(&(index as i64));
        let done = live.progress().fraction();
        let left = 1.0 - done;
        let keep = desired.fraction_of_remainder.clamp(0.0, 1.0)
            * (end.max(current + 1) as f64 - current as f64 - done);
        if keep >= left || left <= 0.0 || !allows(current) || !allows(current + 1) {
            return false;
        }
        let Some((primary, residual)) = live.split(keep / left) else {
            return false;
        };
        // Nothing can have been begun since; the elements behind may have been given away before.
        self.index.try_stop(current + 1);
        response.primary_roots.push(primary);
        response.residual_roots.push(residual);
        if let Some(source) = &self.source {
            response.channel_splits.push(ChannelSplit {
                transform_id: source.clone(),
                last_primary_element: current as i64 - 1,
                first_residual_element: current as i64 + 1,
            });
        }
        true
    }

    /// Lets others split an element until what is returned is dropped.
    pub(crate) fn show(&self, element: Box<dyn LiveElement>) -> Shown {
        *self.live.lock() = Some(element);
        Shown(self.live.clone())
    }

    pub(crate) fn reset(&self) {
        *self.live.lock() = None;
        self.counts.iter().for_each(|(_, count)| count.reset());
        self.metrics.reset();
        self.index.reset();
    }
}

/// Work that is done or left, as a list of one number.
fn progress_info(urn: &str, transform: &str, work: f64) -> MonitoringInfo {
    MonitoringInfo {
        urn: urn.to_owned(),
        r#type: metric_types::PROGRESS_TYPE.to_owned(),
        payload: encode_progress(&[work]).into(),
        labels: [(metric_labels::TRANSFORM.to_owned(), transform.to_owned())].into(),
        ..MonitoringInfo::default()
    }
}
