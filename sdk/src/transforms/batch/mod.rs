//! Batches for work whose cost per call is high.

mod estimator;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use purlin_model::{Element, PaneInfo, Window};

use self::estimator::{Estimator, Limits, Turn};
use crate::dofn::{Context, DoFn, FinishContext};
use crate::error::DoFnResult;
use crate::metrics::{Distribution, Metrics};
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::ParDo;

/// Gathers elements into batches, for steps that cost a fixed time per call and less for each element: inference, calls
/// to services, bulk inserts.
///
/// Where the smallest and the largest size differ, the size adapts: the time that the steps behind take for batches of
/// different sizes tells the fixed and the variable part of the cost, and with them the size at which the fixed part is a
/// small share (5 % unless told) while a batch takes no longer than it should (10 s unless told). All threads of a
/// process learn together. The distributions `batch_size` and `msec_per_batch` of the namespace `BatchElements` show it.
///
/// A batch holds elements of one window and has the timestamp of the window's end. Batches do not outlast their bundle.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let batches = p.apply(Create::new(0i64..10)).apply(BatchElements::new(4, 4));
/// PAssert::that(&batches).satisfies(|batches: &[Vec<i64>]| {
///     assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 10);
///     assert!(batches.iter().all(|batch| batch.len() <= 4));
/// });
/// p.run();
/// ```
#[derive(Clone)]
pub struct BatchElements<S = OneEach> {
    limits: Limits,
    size: S,
    clock: Clock,
    record_metrics: bool,
}

type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How much an element adds to the size of a batch.
pub trait ElementSize<T>: Clone + Send + 'static {
    /// The size of one element.
    fn size(&self, element: &T) -> usize;
}

/// Every element counts 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneEach;

impl<T> ElementSize<T> for OneEach {
    #[inline]
    fn size(&self, _element: &T) -> usize {
        1
    }
}

/// The size that a closure gives.
#[derive(Clone, Copy, Debug)]
pub struct SizeFn<F>(F);

impl<T, F: Fn(&T) -> usize + Clone + Send + 'static> ElementSize<T> for SizeFn<F> {
    fn size(&self, element: &T) -> usize {
        (self.0)(element)
    }
}

impl BatchElements {
    /// Batches of at least `min` and at most `max` elements; the last of a bundle may be smaller. Beam's defaults are 1
    /// and 10,000.
    pub fn new(min: usize, max: usize) -> BatchElements {
        let started = Instant::now();
        BatchElements {
            limits: Limits::new(min, max),
            size: OneEach,
            clock: Arc::new(move || started.elapsed()),
            record_metrics: true,
        }
    }
}

impl Default for BatchElements {
    fn default() -> Self {
        BatchElements::new(1, 10_000)
    }
}

impl<S> BatchElements<S> {
    /// The share of a batch's time that its fixed cost should have, above 0 and up to 1. `None`: any.
    #[must_use]
    pub fn target_batch_overhead(mut self, share: impl Into<Option<f64>>) -> Self {
        self.limits.overhead = share.into();
        self
    }

    /// How many seconds the elements of a batch should take at most, its fixed cost not counted. `None`: any.
    #[must_use]
    pub fn target_batch_duration_secs(mut self, seconds: impl Into<Option<f64>>) -> Self {
        self.limits.duration = seconds.into();
        self
    }

    /// How many seconds a batch should take at most, its fixed cost counted. `None`: any.
    #[must_use]
    pub fn target_batch_duration_secs_including_fixed_cost(
        mut self,
        seconds: impl Into<Option<f64>>,
    ) -> Self {
        self.limits.whole_duration = seconds.into();
        self
    }

    /// How far sizes may lie from the best one, as a share of it, so that there is something to compare. 0.25 unless told.
    #[must_use]
    pub fn variance(mut self, share: f64) -> Self {
        self.limits.variance = share;
        self
    }

    /// Sizes are sums of what this closure gives for each element, such as its bytes.
    #[must_use]
    pub fn element_size<T, F>(self, size: F) -> BatchElements<SizeFn<F>>
    where
        F: Fn(&T) -> usize + Clone + Send + 'static,
    {
        let BatchElements {
            limits,
            clock,
            record_metrics,
            ..
        } = self;
        BatchElements {
            limits,
            size: SizeFn(size),
            clock,
            record_metrics,
        }
    }

    /// Measures time with this clock, which gives the time since any fixed moment. For tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Whether sizes and times are recorded as metrics.
    #[must_use]
    pub fn record_metrics(mut self, record: bool) -> Self {
        self.record_metrics = record;
        self
    }
}

impl<S: fmt::Debug> fmt::Debug for BatchElements<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchElements")
            .field("limits", &self.limits)
            .field("size", &self.size)
            .finish()
    }
}

impl<T: Element, S: ElementSize<T>> PTransform<PCollection<T>> for BatchElements<S> {
    type Output = PCollection<Vec<T>>;

    fn name(&self) -> String {
        "BatchElements".into()
    }

    fn expand(mut self, input: PCollection<T>) -> PCollection<Vec<T>> {
        for problem in self.limits.problems() {
            input.pipeline().problem(problem);
        }
        self.limits.make_sane();
        let metrics = self.record_metrics.then(|| BatchMetrics {
            size: Metrics::distribution("BatchElements", "batch_size"),
            millis: Metrics::distribution("BatchElements", "msec_per_batch"),
        });
        input.apply(ParDo::new(
            "Batch",
            Batch {
                estimator: Arc::new(Mutex::new(Estimator::new(self.limits))),
                turn: Turn::default(),
                open: Vec::new(),
                target: 1,
                size: self.size,
                clock: self.clock,
                metrics,
                remainder: 0.0,
            },
        ))
    }
}

impl<T: Element> PCollection<T> {
    /// Batches of at least `min` and at most `max` elements: [`BatchElements`].
    pub fn batch_elements(&self, min: usize, max: usize) -> PCollection<Vec<T>> {
        self.apply(BatchElements::new(min, max))
    }
}

/// So many windows may have a batch that is not full.
const MAX_OPEN: usize = 10;

#[derive(Clone, Copy)]
struct BatchMetrics {
    size: Distribution,
    millis: Distribution,
}

#[derive(Clone)]
struct Open<T> {
    window: Window,
    elements: Vec<T>,
    size: usize,
}

#[derive(Clone)]
struct Batch<T, S> {
    /// One for all threads.
    estimator: Arc<Mutex<Estimator>>,
    turn: Turn,
    open: Vec<Open<T>>,
    target: usize,
    size: S,
    clock: Clock,
    metrics: Option<BatchMetrics>,
    /// Of the milliseconds reported: their fraction, until it adds up to a whole one.
    remainder: f64,
}

impl<T: Element, S: ElementSize<T>> Batch<T, S> {
    fn estimator(&self) -> MutexGuard<'_, Estimator> {
        self.estimator.lock()
    }

    fn next_target(&mut self) {
        let estimator = self.estimator.clone();
        let mut estimator = estimator.lock();
        self.target = estimator.next_batch_size(&mut self.turn);
    }

    /// Emits a batch and learns from the time that it took.
    fn emit(&mut self, batch: Open<T>, send: impl FnOnce(Vec<T>, Window)) {
        let start = (self.clock)();
        let size = batch.size;
        send(batch.elements, batch.window);
        let elapsed = (self.clock)().saturating_sub(start);
        if let Some(metrics) = self.metrics {
            let millis = elapsed.as_secs_f64() * 1e3 + self.remainder;
            self.remainder = millis.fract();
            metrics.size.update(i64::try_from(size).unwrap_or(i64::MAX));
            metrics.millis.update(millis as i64);
        }
        let mut turn = std::mem::take(&mut self.turn);
        self.estimator().record(&mut turn, size, elapsed.as_secs_f64());
        self.turn = turn;
        self.next_target();
    }
}

impl<T: Element, S: ElementSize<T>> DoFn for Batch<T, S> {
    type In = T;
    type Out = Vec<T>;

    fn start_bundle(&mut self) -> DoFnResult {
        self.open.clear();
        self.next_target();
        // The first call often sets things up behind, which tells nothing about the next.
        self.turn.ignore_next = true;
        Ok(())
    }

    fn process(&mut self, element: T, ctx: &mut Context<'_, Vec<T>>) -> DoFnResult {
        let size = self.size.size(&element);
        let at = match self.open.iter().position(|open| open.window == *ctx.window()) {
            Some(at) => at,
            None => {
                self.open.push(Open {
                    window: ctx.window().clone(),
                    elements: Vec::new(),
                    size: 0,
                });
                self.open.len() - 1
            }
        };
        let mut send = |batch: Vec<T>, window: Window| {
            let at = window.max_timestamp();
            ctx.output_windowed(batch, at, window.into(), PaneInfo::NO_FIRING);
        };
        let open = &mut self.open[at];
        if open.size + size > self.target && !open.elements.is_empty() {
            let window = open.window.clone();
            let full = std::mem::replace(
                open,
                Open {
                    window,
                    elements: Vec::new(),
                    size: 0,
                },
            );
            self.emit(full, &mut send);
        }
        let open = &mut self.open[at];
        open.elements.push(element);
        open.size += size;
        if open.size >= self.target {
            // It is full: waiting for the next element would only delay it.
            let full = self.open.swap_remove(at);
            self.emit(full, &mut send);
        } else if self.open.len() > MAX_OPEN {
            let fullest = (0..self.open.len())
                .max_by_key(|i| self.open[*i].size)
                .unwrap_or(0);
            let full = self.open.swap_remove(fullest);
            self.emit(full, &mut send);
        }
        Ok(())
    }

    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, Vec<T>>) -> DoFnResult {
        for open in std::mem::take(&mut self.open) {
            self.emit(open, |batch, window| {
                let at = window.max_timestamp();
                ctx.output(batch, at, window);
            });
        }
        Ok(())
    }
}
