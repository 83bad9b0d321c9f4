//! Where metrics count: a cell for each step and metric of an executor.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;
use purlin_model::metric::{Distribution, Latest, encode_sum};
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metric_types, metrics};
use rustc_hash::FxHashMap;

use super::{Kind, name_of};

/// Index of no step.
const NO_STEP: u32 = u32::MAX;

thread_local! {
    /// The step whose code runs on this thread, as an index into the executor's steps.
    pub(crate) static STEP: Cell<u32> = const { Cell::new(NO_STEP) };
    static LOCAL: RefCell<Local> = RefCell::new(Local::default());
}

#[derive(Default)]
struct Local {
    scope: Option<Arc<BundleMetrics>>,
    cells: FxHashMap<(u32, u32), Arc<MetricCell>>,
}

/// What is counted from now on on this thread counts for this executor.
pub(crate) fn enter(scope: &Arc<BundleMetrics>) {
    LOCAL.with_borrow_mut(|local| {
        if !local.scope.as_ref().is_some_and(|s| Arc::ptr_eq(s, scope)) {
            local.cells.clear();
            local.scope = Some(scope.clone());
        }
    });
}

/// Finds the cell of a metric for the running step.
#[inline]
pub(crate) fn with(metric: u32, update: impl FnOnce(&MetricCell)) {
    let step = STEP.get();
    if step == NO_STEP {
        return;
    }
    LOCAL.with_borrow_mut(|local| {
        if let Some(cell) = local.cells.get(&(step, metric)) {
            return update(cell);
        }
        if let Some(scope) = &local.scope {
            let cell = scope.cell(step, metric);
            update(&cell);
            local.cells.insert((step, metric), cell);
        }
    });
}

/// One metric of one step. One thread writes, others may read.
#[derive(Debug, Default)]
pub(crate) struct MetricCell {
    touched: AtomicBool,
    count: AtomicI64,
    sum: AtomicI64,
    min: AtomicI64,
    max: AtomicI64,
}

impl MetricCell {
    pub fn add(&self, by: i64) {
        self.sum.store(self.sum.load(Relaxed).wrapping_add(by), Relaxed);
        self.touched.store(true, Relaxed);
    }

    pub fn record(&self, value: i64) {
        let first = !self.touched.load(Relaxed);
        self.sum
            .store(self.sum.load(Relaxed).wrapping_add(value), Relaxed);
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
        if first || value < self.min.load(Relaxed) {
            self.min.store(value, Relaxed);
        }
        if first || value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
        self.touched.store(true, Relaxed);
    }

    pub fn set(&self, value: i64, now_ms: i64) {
        self.sum.store(value, Relaxed);
        self.count.store(now_ms, Relaxed);
        self.touched.store(true, Relaxed);
    }

    fn distribution(&self) -> Distribution {
        Distribution {
            count: self.count.load(Relaxed),
            sum: self.sum.load(Relaxed),
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }

    fn latest(&self) -> Latest {
        Latest {
            at_ms: self.count.load(Relaxed),
            value: self.sum.load(Relaxed),
        }
    }

    fn reset(&self) {
        for part in [&self.count, &self.sum, &self.min, &self.max] {
            part.store(0, Relaxed);
        }
        self.touched.store(false, Relaxed);
    }
}

/// All metrics of user code in one executor, for the bundle that it processes.
#[derive(Debug, Default)]
pub(crate) struct BundleMetrics {
    cells: Mutex<FxHashMap<(u32, u32), Arc<MetricCell>>>,
}

impl BundleMetrics {
    fn cell(&self, step: u32, metric: u32) -> Arc<MetricCell> {
        self.cells.lock().entry((step, metric)).or_default().clone()
    }

    pub fn reset(&self) {
        self.cells.lock().values().for_each(|cell| cell.reset());
    }

    /// What was counted so far. `transform_id` names a step.
    pub fn monitoring_infos<'a>(&self, transform_id: impl Fn(u32) -> &'a str, out: &mut Vec<MonitoringInfo>) {
        let cells = self.cells.lock();
        for ((step, metric), cell) in cells.iter() {
            if !cell.touched.load(Relaxed) {
                continue;
            }
            let Some(name) = name_of(*metric) else { continue };
            let (urn, type_urn, payload) = match name.kind {
                Kind::Counter => (
                    metrics::USER_SUM_INT64,
                    metric_types::SUM_INT64_TYPE,
                    encode_sum(cell.sum.load(Relaxed)),
                ),
                Kind::Distribution => (
                    metrics::USER_DISTRIBUTION_INT64,
                    metric_types::DISTRIBUTION_INT64_TYPE,
                    cell.distribution().encode(),
                ),
                Kind::Gauge => (
                    metrics::USER_LATEST_INT64,
                    metric_types::LATEST_INT64_TYPE,
                    cell.latest().encode(),
                ),
            };
            let labels = [
                (
                    metric_labels::TRANSFORM.to_owned(),
                    transform_id(*step).to_owned(),
                ),
                (metric_labels::NAMESPACE.to_owned(), name.namespace),
                (metric_labels::NAME.to_owned(), name.name),
            ];
            out.push(MonitoringInfo {
                urn: urn.to_owned(),
                r#type: type_urn.to_owned(),
                payload: payload.into(),
                labels: labels.into_iter().collect(),
                start_time: None,
            });
        }
    }
}

/// A monitoring info of a sum, with one label.
pub(crate) fn sum_info(urn: &str, label: &str, value: &str, sum: u64) -> MonitoringInfo {
    MonitoringInfo {
        urn: urn.to_owned(),
        r#type: metric_types::SUM_INT64_TYPE.to_owned(),
        payload: encode_sum(sum as i64).into(),
        labels: [(label.to_owned(), value.to_owned())].into_iter().collect(),
        start_time: None,
    }
}
