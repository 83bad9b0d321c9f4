//! What others may see of a running bundle, and ask of it.

use std::sync::Arc;

use purlin_proto::fn_execution::process_bundle_split_response::ChannelSplit;
use purlin_proto::fn_execution::{ProcessBundleSplitRequest, ProcessBundleSplitResponse};
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metrics};

use super::edge::ElementCount;
use super::io::ReadIndex;
use crate::metrics::{BundleMetrics, sum_info};

/// A step of an executor.
#[derive(Debug)]
pub(super) struct Step {
    pub transform_id: String,
    pub name: String,
}

/// The side of an executor that other threads use.
#[derive(Debug)]
pub struct BundleMonitor {
    pub(super) steps: Vec<Step>,
    pub(super) counts: Vec<(String, ElementCount)>,
    pub(super) metrics: Arc<BundleMetrics>,
    pub(super) index: Arc<ReadIndex>,
    /// Id of the data source, where there is exactly one.
    pub(super) source: Option<String>,
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
        let begun = self.index.begun();
        let end = u64::try_from(desired.estimated_input_elements)
            .unwrap_or(0)
            .min(self.index.stop());
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

    pub(super) fn reset(&self) {
        self.counts.iter().for_each(|(_, count)| count.reset());
        self.metrics.reset();
        self.index.reset();
    }
}
