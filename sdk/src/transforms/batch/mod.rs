//! Batches for work whose cost per call is high.

mod estimator;
mod group_into;
mod open;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use purlin_model::{Element, PaneInfo, Window};

use self::estimator::{Estimator, Limits, Turn};
pub use self::group_into::GroupIntoBatches;
use self::open::{Open, Opens};
use crate::dofn::{Context, DoFn, FinishContext};
use crate::error::DoFnResult;
use crate::metrics::{Counter, Distribution, Metrics};
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
/// A batch holds elements of one window and has the timestamp of the window's end. Batches do not outlast their bundle:
/// [`GroupIntoBatches`] fills them across bundles.
///
/// Batches can also be limited in [weight](BatchElements::max_weight), and hold elements of one [group](BatchElements::group_by)
/// only: of one key, or of about one length.
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
pub struct BatchElements<S = OneEach, W = OneEach, G = OneGroup> {
    limits: Limits,
    size: S,
    max_weight: usize,
    weight: W,
    group: G,
    drops: bool,
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

/// Which elements may share a batch.
pub trait ElementGroup<T>: Clone + Send + 'static {
    /// What those elements have in common.
    type Group: Clone + Eq + Hash + Send + 'static;
    /// So many batches may be open in a bundle; then the fullest goes out.
    #[doc(hidden)]
    const MAX_OPEN: usize = 1000;

    /// The group of an element.
    fn group(&self, element: &T) -> Self::Group;
}

/// All elements may share a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneGroup;

impl<T> ElementGroup<T> for OneGroup {
    type Group = ();
    /// That is, in as many windows.
    const MAX_OPEN: usize = 10;

    #[inline]
    fn group(&self, _element: &T) {}
}

/// The group that a closure gives.
#[derive(Clone, Copy, Debug)]
pub struct GroupFn<F>(F);

impl<T, G, F> ElementGroup<T> for GroupFn<F>
where
    G: Clone + Eq + Hash + Send + 'static,
    F: Fn(&T) -> G + Clone + Send + 'static,
{
    type Group = G;

    fn group(&self, element: &T) -> G {
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
            max_weight: usize::MAX,
            weight: OneEach,
            group: OneGroup,
            drops: false,
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

impl<S, W, G> BatchElements<S, W, G> {
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
    pub fn element_size<T, F>(self, size: F) -> BatchElements<SizeFn<F>, W, G>
    where
        F: Fn(&T) -> usize + Clone + Send + 'static,
    {
        BatchElements {
            limits: self.limits,
            size: SizeFn(size),
            max_weight: self.max_weight,
            weight: self.weight,
            group: self.group,
            drops: self.drops,
            clock: self.clock,
            record_metrics: self.record_metrics,
        }
    }

    /// Besides its size, the sum of what this closure gives for each element of a batch is limited: of bytes, of tokens. An element
    /// that is heavier alone is a batch of its own.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let words = p.apply(Create::new(["to", "be", "or", "not", "to", "be"].map(str::to_owned)));
    /// let batches = words.apply(BatchElements::new(100, 100).max_weight(5, |word: &String| word.len()));
    /// PAssert::that(&batches).satisfies(|batches: &[Vec<String>]| {
    ///     assert!(batches.iter().all(|batch| batch.concat().len() <= 5));
    /// });
    /// p.run();
    /// ```
    #[must_use]
    pub fn max_weight<T, F>(self, max: usize, weight: F) -> BatchElements<S, SizeFn<F>, G>
    where
        F: Fn(&T) -> usize + Clone + Send + 'static,
    {
        BatchElements {
            limits: self.limits,
            size: self.size,
            max_weight: max,
            weight: SizeFn(weight),
            group: self.group,
            drops: self.drops,
            clock: self.clock,
            record_metrics: self.record_metrics,
        }
    }

    /// A batch holds elements of one group only, which this closure gives: of one key, or of one bucket of lengths. A bundle has at
    /// most 1,000 batches open; the fullest then goes out.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let batches = p.apply(Create::new(0i64..10)).apply(BatchElements::new(4, 4).group_by(|n: &i64| n % 2));
    /// PAssert::that(&batches).satisfies(|batches: &[Vec<i64>]| {
    ///     assert!(batches.iter().all(|batch| batch.iter().all(|n| n % 2 == batch[0] % 2)));
    /// });
    /// p.run();
    /// ```
    #[must_use]
    pub fn group_by<T, K, F>(self, group: F) -> BatchElements<S, W, GroupFn<F>>
    where
        K: Clone + Eq + Hash + Send + 'static,
        F: Fn(&T) -> K + Clone + Send + 'static,
    {
        BatchElements {
            limits: self.limits,
            size: self.size,
            max_weight: self.max_weight,
            weight: self.weight,
            group: GroupFn(group),
            drops: self.drops,
            clock: self.clock,
            record_metrics: self.record_metrics,
        }
    }

    /// Drops what is left at the end of a bundle in batches below the smallest size, for steps that only take full ones. The
    /// counter `dropped` of the namespace `BatchElements` tells how many elements that were.
    #[must_use]
    pub fn drop_partial_batches(mut self) -> Self {
        self.drops = true;
        self
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

impl<S: fmt::Debug, W: fmt::Debug, G: fmt::Debug> fmt::Debug for BatchElements<S, W, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchElements")
            .field("limits", &self.limits)
            .field("size", &self.size)
            .field("max_weight", &self.max_weight)
            .field("weight", &self.weight)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl<T, S, W, G> PTransform<PCollection<T>> for BatchElements<S, W, G>
where
    T: Element,
    S: ElementSize<T>,
    W: ElementSize<T>,
    G: ElementGroup<T>,
{
    type Output = PCollection<Vec<T>>;

    fn name(&self) -> String {
        "BatchElements".into()
    }

    fn expand(mut self, input: PCollection<T>) -> PCollection<Vec<T>> {
        for problem in self.limits.problems() {
            input.pipeline().problem(problem);
        }
        if self.max_weight == 0 {
            input
                .pipeline()
                .problem("the largest weight of a batch is 0: give it at least 1");
        }
        self.limits.make_sane();
        let metrics = self.record_metrics.then(|| BatchMetrics {
            size: Metrics::distribution("BatchElements", "batch_size"),
            millis: Metrics::distribution("BatchElements", "msec_per_batch"),
        });
        let min = self.limits.min;
        input.apply(ParDo::new(
            "Batch",
            Batch {
                estimator: Arc::new(Mutex::new(Estimator::new(self.limits))),
                turn: Turn::default(),
                open: Opens::default(),
                target: 1,
                size: self.size,
                max_weight: self.max_weight,
                weight: self.weight,
                group: self.group,
                drops_below: if self.drops { min } else { 0 },
                dropped: Metrics::counter("BatchElements", "dropped"),
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

#[derive(Clone, Copy)]
struct BatchMetrics {
    size: Distribution,
    millis: Distribution,
}

#[derive(Clone)]
struct Batch<T, S, W, G: ElementGroup<T>> {
    /// One for all threads.
    estimator: Arc<Mutex<Estimator>>,
    turn: Turn,
    open: Opens<T, G::Group>,
    target: usize,
    size: S,
    max_weight: usize,
    weight: W,
    group: G,
    /// What is smaller at the end of a bundle is dropped.
    drops_below: usize,
    dropped: Counter,
    clock: Clock,
    metrics: Option<BatchMetrics>,
    /// Of the milliseconds reported: their fraction, until it adds up to a whole one.
    remainder: f64,
}

impl<T: Element, S: ElementSize<T>, W: ElementSize<T>, G: ElementGroup<T>> Batch<T, S, W, G> {
    fn estimator(&self) -> MutexGuard<'_, Estimator> {
        self.estimator.lock()
    }

    fn next_target(&mut self) {
        let estimator = self.estimator.clone();
        let mut estimator = estimator.lock();
        self.target = estimator.next_batch_size(&mut self.turn);
    }

    /// Emits a batch and learns from the time that it took.
    fn emit(&mut self, batch: Open<T, G::Group>, send: impl FnOnce(Vec<T>, Window)) {
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

impl<T: Element, S: ElementSize<T>, W: ElementSize<T>, G: ElementGroup<T>> DoFn for Batch<T, S, W, G> {
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
        let (size, weight) = (self.size.size(&element), self.weight.size(&element));
        let place = self.open.place(ctx.window(), self.group.group(&element));
        let mut send = |batch: Vec<T>, window: Window| {
            let at = window.max_timestamp();
            ctx.output_windowed(batch, at, window.into(), PaneInfo::NO_FIRING);
        };
        let open = self.open.get_mut(place);
        let exceeds = open.size.saturating_add(size) > self.target
            || open.weight.saturating_add(weight) > self.max_weight;
        if exceeds && !open.elements.is_empty() {
            let full = open.take();
            self.emit(full, &mut send);
        }
        let open = self.open.get_mut(place);
        open.push(element, size, weight);
        if open.size >= self.target || open.weight >= self.max_weight {
            // It is full: waiting for the next element would only delay it.
            let full = self.open.remove(place);
            self.emit(full, &mut send);
        } else if self.open.len() > G::MAX_OPEN {
            let fullest = self.open.fullest();
            let full = self.open.remove(fullest);
            self.emit(full, &mut send);
        }
        Ok(())
    }

    fn finish_bundle(&mut self, ctx: &mut FinishContext<'_, Vec<T>>) -> DoFnResult {
        for open in self.open.take_all() {
            if open.size < self.drops_below {
                self.dropped
                    .inc(i64::try_from(open.elements.len()).unwrap_or(i64::MAX));
                continue;
            }
            self.emit(open, |batch, window| {
                let at = window.max_timestamp();
                ctx.output(batch, at, window);
            });
        }
        Ok(())
    }
}
