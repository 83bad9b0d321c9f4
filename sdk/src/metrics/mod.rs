//! Metrics of user code: counters, distributions and gauges.
//!
//! Handles are small and can be copied; they count for the transform whose code is running, in any method of a
//! [`DoFn`](crate::DoFn), in closures, and in functions called from there on the same thread. Elsewhere they do nothing.
//!
//! ```
//! use purlin::prelude::*;
//!
//! let p = Pipeline::new();
//! let empty = Metrics::counter("words", "empty lines");
//! p.apply(Create::new(["a".to_string(), String::new()])).filter("NotEmpty", move |line: &String| {
//!     if line.is_empty() {
//!         empty.inc(1);
//!     }
//!     !line.is_empty()
//! });
//! let result = p.run(&PipelineOptions::default())?;
//! assert_eq!(result.metrics().counter("words", "empty lines"), 1);
//! # Ok::<(), RunError>(())
//! ```

mod cells;
mod query;

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

pub(crate) use cells::{BundleMetrics, STEP, enter, sum_info};
pub use query::{DistributionResult, GaugeResult, MetricKey, MetricResult, MetricResults, MetricValue};

/// Makes metrics.
pub struct Metrics;

impl Metrics {
    /// A counter.
    pub fn counter(namespace: &str, name: &str) -> Counter {
        Counter(intern(Kind::Counter, namespace, name))
    }

    /// A distribution: count, sum, minimum and maximum of values.
    pub fn distribution(namespace: &str, name: &str) -> Distribution {
        Distribution(intern(Kind::Distribution, namespace, name))
    }

    /// A gauge: the latest value.
    pub fn gauge(namespace: &str, name: &str) -> Gauge {
        Gauge(intern(Kind::Gauge, namespace, name))
    }
}

/// See [`Metrics::counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(u32);

impl Counter {
    /// Adds to it.
    #[inline]
    pub fn inc(&self, by: i64) {
        cells::with(self.0, |cell| cell.add(by));
    }

    /// Subtracts from it.
    #[inline]
    pub fn dec(&self, by: i64) {
        self.inc(-by);
    }
}

/// See [`Metrics::distribution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution(u32);

impl Distribution {
    /// Records a value.
    #[inline]
    pub fn update(&self, value: i64) {
        cells::with(self.0, |cell| cell.record(value));
    }
}

/// See [`Metrics::gauge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge(u32);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as i64);
        cells::with(self.0, |cell| cell.set(value, now));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Counter,
    Distribution,
    Gauge,
}

/// What a metric is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

#[derive(Default)]
struct Names {
    ids: FxHashMap<Name, u32>,
    names: Vec<Name>,
}

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

fn intern(kind: Kind, namespace: &str, name: &str) -> u32 {
    let name = Name {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let mut names = NAMES.lock();
    if let Some(id) = names.ids.get(&name) {
        return *id;
    }
    let id = names.names.len() as u32;
    names.names.push(name.clone());
    names.ids.insert(name, id);
    id
}

pub(crate) fn name_of(id: u32) -> Option<Name> {
    NAMES.lock().names.get(id as usize).cloned()
}
