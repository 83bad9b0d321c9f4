//! How elements are put into batches.

use std::sync::Arc;
use std::time::Duration;

use purlin::prelude::*;

use crate::ModelHandler;
use crate::shape::Shape;

/// How large batches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSizes {
    /// At least this, if the bundle has as many.
    pub min: usize,
    /// At most this.
    pub max: usize,
}

impl Default for BatchSizes {
    /// Between 1 and 64.
    fn default() -> Self {
        BatchSizes { min: 1, max: 64 }
    }
}

/// What becomes of a batch that has fewer elements than the smallest size when there are no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastBatch {
    /// It is run as it is.
    #[default]
    Emit,
    /// It is filled up to the smallest size, with [`ModelHandler::padding`] or with its last example again, for models that take
    /// batches of one size alone. What the model gives for the filling goes nowhere.
    Pad,
    /// Its elements are dropped; the counter `dropped` of the namespace `BatchElements` tells how many.
    Drop,
}

/// Which elements make a batch: [`ModelHandler::batching`], or [`RunInference::with_batching`](crate::RunInference::with_batching).
///
/// Without a [largest duration](Batching::max_duration), batches are made of the elements of a bundle and never wait for the next
/// one. Where the smallest and the largest size differ, the size adapts to the time that the model takes, as Beam's `BatchElements`
/// does.
///
/// ```
/// use purlin_inference::{Batching, LastBatch};
///
/// // 16 sentences of about one length, at most 4,096 tokens; a model that takes 16 at a time, never fewer.
/// let batching = Batching::of_size(16).buckets([32, 64, 128]).last_batch(LastBatch::Pad);
/// assert_eq!(batching.sizes().max, 16);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Batching {
    pub(crate) sizes: BatchSizes,
    pub(crate) max_weight: usize,
    buckets: Vec<usize>,
    max_duration: Option<Duration>,
    shards: Option<u64>,
    by_key: bool,
    pub(crate) last: LastBatch,
}

impl From<BatchSizes> for Batching {
    fn from(sizes: BatchSizes) -> Self {
        Batching {
            sizes,
            max_weight: usize::MAX,
            buckets: Vec::new(),
            max_duration: None,
            shards: None,
            by_key: false,
            last: LastBatch::Emit,
        }
    }
}

impl Default for Batching {
    fn default() -> Self {
        BatchSizes::default().into()
    }
}

impl Batching {
    /// Batches of at least `min` and at most `max` elements. Sizes between them adapt.
    pub fn between(min: usize, max: usize) -> Batching {
        BatchSizes { min, max }.into()
    }

    /// Batches of this size; the last may be smaller. A bundle that is tried again is then cut into the very same batches.
    pub fn of_size(size: usize) -> Batching {
        Batching::between(size, size)
    }

    /// The sizes.
    pub fn sizes(&self) -> BatchSizes {
        self.sizes
    }

    /// Limits the sum of what [`ModelHandler::element_size`] gives for the examples of a batch. An example that is heavier alone is
    /// a batch of its own.
    #[must_use]
    pub fn max_weight(mut self, max: usize) -> Self {
        self.max_weight = max;
        self
    }

    /// Puts examples together that are about equally long, by [`ModelHandler::element_length`], so that little of a batch is filling.
    /// Boundaries are the smallest lengths of buckets: `[32, 64]` are lengths below 32, from 32 to 63, and from 64 on.
    #[must_use]
    pub fn buckets(mut self, boundaries: impl IntoIterator<Item = usize>) -> Self {
        self.buckets = boundaries.into_iter().collect();
        self
    }

    /// Lets batches fill across bundles, and be of the largest size: a batch goes out when it is full or so long after its first
    /// element came, by the clock, and never waits for the next element. With no time at all each element goes out at once, alone.
    ///
    /// What is not full yet is state of the runner's, so elements go through it, keyed by [shards](Batching::shards) or by their keys.
    #[must_use]
    pub fn max_duration(mut self, duration: Duration) -> Self {
        self.max_duration = Some(duration);
        self
    }

    /// How many batches fill at a time where there is a largest duration: as many as this machine has cores, unless told. More are
    /// run at a time, but take longer to be full. Where batches are [of a key](Batching::by_key), keys take their place.
    #[must_use]
    pub fn shards(mut self, shards: u64) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Only elements of one key share a batch, where elements have keys.
    #[must_use]
    pub fn by_key(mut self) -> Self {
        self.by_key = true;
        self
    }

    /// What becomes of a batch that has fewer elements than the smallest size when there are no more.
    #[must_use]
    pub fn last_batch(mut self, last: LastBatch) -> Self {
        self.last = last;
        self
    }

    /// What a batch is filled up to.
    pub(crate) fn pad_to(&self) -> usize {
        match self.last {
            LastBatch::Pad => self.sizes.min,
            LastBatch::Emit | LastBatch::Drop => 0,
        }
    }

    /// All that is wrong with it; sizes are left to the transforms that take them.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.max_weight == 0 {
            problems.push("the largest weight of a batch is 0: give it at least 1".to_owned());
        }
        if !self.buckets.is_sorted_by(|a, b| a < b) {
            problems.push(format!(
                "the boundaries of its buckets are {:?}, but each has to be larger than the one before",
                self.buckets
            ));
        }
        if self.shards == Some(0) {
            problems.push("it has 0 shards: give it at least 1".to_owned());
        }
        if self.last == LastBatch::Drop && self.max_duration.is_some() {
            problems.push(
                "batches have a largest duration, and small ones are to be dropped: that would drop whatever comes slowly; \
                 emit or pad the last batch"
                    .to_owned(),
            );
        }
        if self.last == LastBatch::Pad && self.max_weight != usize::MAX {
            problems.push(
                "small batches are to be padded, and batches have a largest weight: a padded batch could exceed it; leave one \
                 of the two out"
                    .to_owned(),
            );
        }
        problems
    }

    /// Puts elements into batches. `apart` tells elements apart that must not share one.
    pub(crate) fn apply<H: ModelHandler, S: Shape>(
        self,
        input: PCollection<S::Of<H::Example>>,
        handler: H,
        apart: Apart<S::Key>,
    ) -> PCollection<Vec<S::Of<H::Example>>> {
        for problem in self.problems() {
            input.pipeline().problem(problem);
        }
        let BatchSizes { min, max } = self.sizes;
        let weigher = handler.clone();
        let weight = move |of: &S::Of<H::Example>| weigher.element_size(S::value(of));
        let (buckets, by_key) = (self.buckets, self.by_key);
        let group = move |of: &S::Of<H::Example>| Group {
            key: by_key.then(|| S::key(of).to_bytes()),
            apart: apart.as_ref().map_or(0, |apart| apart(&S::key(of))),
            bucket: match buckets.is_empty() {
                true => 0,
                false => {
                    let length = handler.element_length(S::value(of));
                    buckets.partition_point(|smallest| *smallest <= length)
                }
            },
        };
        let Some(duration) = self.max_duration else {
            let mut batches = BatchElements::new(min, max);
            if self.last == LastBatch::Drop {
                batches = batches.drop_partial_batches();
            }
            return input.apply(batches.max_weight(self.max_weight.max(1), weight).group_by(group));
        };
        if min == 0 || min > max {
            input.pipeline().problem(format!(
                "the smallest batch size is {min} and the largest {max}: they need to be at least 1, in this order"
            ));
        }
        if duration.is_zero() {
            return input.map("AtOnce", |of: S::Of<H::Example>| vec![of]);
        }
        let shards = match by_key {
            true => 1,
            false => self.shards.unwrap_or_else(cores).max(1),
        };
        let mut next = 0u64;
        let batches = GroupIntoBatches::of_size(max)
            .max_weight(self.max_weight.max(1), weight)
            .max_buffering_duration(duration);
        input
            .map("Key", move |of: S::Of<H::Example>| {
                next = (next + 1) % shards;
                let Group { key, apart, bucket } = group(&of);
                ((next, (key, (apart, bucket))), of)
            })
            .apply(batches)
            .values()
    }
}

/// Gives the number of the set of keys whose elements may share a batch.
pub(crate) type Apart<K> = Option<Arc<dyn Fn(&K) -> usize + Send + Sync>>;

/// What the elements of a batch have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Group {
    key: Option<Vec<u8>>,
    apart: usize,
    bucket: usize,
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}
