//! Sources without an end.

use std::time::Duration;

use purlin_model::{Element, Timestamp};

use crate::error::{BoxError, DoFnResult};
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::{Impulse, SplittableParDo};
use crate::splittable::{
    Continuation, ManualWatermark, Progress, RestrictionTracker, SplitContext, SplittableDoFn,
};

/// A source that may never end, in partitions that are read independently: topics, queues, feeds.
///
/// ```
/// use purlin::prelude::*;
///
/// /// Counts to a number, in each partition.
/// #[derive(Clone)]
/// struct Counter(i64);
///
/// struct Reader {
///     next: i64,
///     end: i64,
/// }
///
/// impl UnboundedSource for Counter {
///     type Out = i64;
///     type Partition = i64;
///     type Checkpoint = i64;
///     type Reader = Reader;
///
///     fn partitions(&self) -> Result<Vec<i64>, BoxError> {
///         Ok(vec![0, 100])
///     }
///
///     fn reader(&self, partition: &i64, checkpoint: Option<i64>) -> Result<Reader, BoxError> {
///         Ok(Reader { next: checkpoint.unwrap_or(*partition), end: partition + self.0 })
///     }
/// }
///
/// impl UnboundedReader for Reader {
///     type Out = i64;
///     type Checkpoint = i64;
///
///     fn next(&mut self) -> Result<Next<i64>, BoxError> {
///         if self.next == self.end {
///             return Ok(Next::End);
///         }
///         self.next += 1;
///         Ok(Next::Record(self.next - 1, Timestamp::from_millis(self.next)))
///     }
///
///     fn checkpoint(&self) -> i64 {
///         self.next
///     }
///
///     fn watermark(&self) -> Timestamp {
///         Timestamp::from_millis(self.next)
///     }
/// }
///
/// let p = TestPipeline::new();
/// let numbers = p.apply(ReadUnbounded::new("Count", Counter(2)));
/// PAssert::that(&numbers).contains_in_any_order([0, 1, 100, 101]);
/// p.run();
/// ```
pub trait UnboundedSource: Clone + Send + 'static {
    /// Its records.
    type Out: Element;
    /// A part that is read on its own.
    type Partition: Element;
    /// How far a partition was read.
    type Checkpoint: Element;
    /// Reads a partition.
    type Reader: UnboundedReader<Out = Self::Out, Checkpoint = Self::Checkpoint>;

    /// The partitions.
    ///
    /// # Errors
    /// When the source cannot be reached.
    fn partitions(&self) -> Result<Vec<Self::Partition>, BoxError>;

    /// Opens a partition, from its start or where an earlier reader was.
    ///
    /// # Errors
    /// When the source cannot be reached.
    fn reader(
        &self,
        partition: &Self::Partition,
        checkpoint: Option<Self::Checkpoint>,
    ) -> Result<Self::Reader, BoxError>;

    /// What came before the checkpoint is durable: the source may forget it. It is called some time after the records
    /// were emitted, or not at all.
    ///
    /// # Errors
    /// When the source cannot be reached. It is logged; the pipeline goes on.
    fn acknowledge(&self, _partition: &Self::Partition, _checkpoint: Self::Checkpoint) -> DoFnResult {
        Ok(())
    }
}

/// What a reader has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// A record and its timestamp.
    Record(T, Timestamp),
    /// Nothing now; there may be more later.
    Idle,
    /// Nothing any more.
    End,
}

/// Reads a partition of an [`UnboundedSource`].
pub trait UnboundedReader {
    /// Records.
    type Out;
    /// How far it is.
    type Checkpoint;

    /// The next record, if there is one at hand. It does not wait.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn next(&mut self) -> Result<Next<Self::Out>, BoxError>;
    /// Where another reader goes on behind the last record.
    fn checkpoint(&self) -> Self::Checkpoint;
    /// No record before this is to come.
    fn watermark(&self) -> Timestamp;
}

/// Reads an [`UnboundedSource`].
#[derive(Clone)]
pub struct ReadUnbounded<S> {
    name: String,
    source: S,
    poll: Duration,
}

impl<S: UnboundedSource> ReadUnbounded<S> {
    /// Reads this source.
    pub fn new(name: &str, source: S) -> ReadUnbounded<S> {
        ReadUnbounded {
            name: name.to_owned(),
            source,
            poll: Duration::from_millis(100),
        }
    }

    /// So long after a partition had nothing, it is asked again; 100 ms by default.
    #[must_use]
    pub fn poll_every(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }
}

/// A partition from a checkpoint on; and whether nothing is left of it.
type Rest<P, C> = (P, Option<C>, bool);

/// Records are claimed by the checkpoint behind them; there is no way to give away a later part of a partition.
struct CheckpointTracker<P, C> {
    rest: Rest<P, C>,
    split: bool,
}

impl<P: Element, C: Element> RestrictionTracker for CheckpointTracker<P, C> {
    type Restriction = Rest<P, C>;
    type Position = C;

    fn size(restriction: &Rest<P, C>) -> f64 {
        if restriction.2 { 0.0 } else { 1.0 }
    }

    fn restriction(&self) -> Rest<P, C> {
        self.rest.clone()
    }

    fn try_claim(&mut self, behind: C) -> bool {
        if !self.split {
            self.rest.1 = Some(behind);
        }
        !self.split
    }

    fn try_split(&mut self, _fraction: f64) -> Option<Rest<P, C>> {
        if self.split || self.rest.2 {
            return None;
        }
        let residual = self.rest.clone();
        self.split = true;
        self.rest.2 = true;
        Some(residual)
    }

    fn progress(&self) -> Progress {
        Progress {
            completed: 0.0,
            remaining: Self::size(&self.rest),
        }
    }

    fn check_done(&self) -> Result<(), BoxError> {
        if self.rest.2 {
            Ok(())
        } else {
            Err("the partition goes on".into())
        }
    }
}

#[derive(Clone)]
struct ReadFn<S> {
    source: S,
    poll: Duration,
}

/// So many records make a bundle, at most.
const RECORDS: u32 = 10_000;
/// Acknowledgements that come later than this are not needed.
const EXPIRY: Duration = Duration::from_secs(600);

impl<S: UnboundedSource> SplittableDoFn for ReadFn<S>
where
    S::Partition: Sync,
{
    type In = S::Partition;
    type Out = S::Out;
    type Tracker = CheckpointTracker<S::Partition, S::Checkpoint>;
    type Watermark = ManualWatermark;
    const UNBOUNDED: bool = true;
    const FINALIZES_BUNDLES: bool = true;

    fn initial_restriction(
        &self,
        partition: &S::Partition,
    ) -> Result<Rest<S::Partition, S::Checkpoint>, BoxError> {
        Ok((partition.clone(), None, false))
    }

    fn tracker(&self, _: &S::Partition, rest: Rest<S::Partition, S::Checkpoint>) -> Self::Tracker {
        CheckpointTracker { rest, split: false }
    }

    fn process(
        &mut self,
        partition: &S::Partition,
        ctx: &mut SplitContext<'_, Self>,
    ) -> Result<Continuation, BoxError> {
        let (_, checkpoint, done) = ctx.restriction();
        if done {
            return Ok(Continuation::Done);
        }
        let mut reader = self.source.reader(partition, checkpoint)?;
        let mut claimed = None;
        let mut continuation = Continuation::Resume(Duration::ZERO);
        for _ in 0..RECORDS {
            match reader.next()? {
                Next::Record(record, timestamp) => {
                    let behind = reader.checkpoint();
                    if !ctx.try_claim(behind.clone()) {
                        // Another reader reads the record again.
                        continuation = Continuation::Done;
                        break;
                    }
                    claimed = Some(behind);
                    ctx.output_with_timestamp(record, timestamp);
                    let watermark = reader.watermark();
                    ctx.watermark(|estimator| estimator.set(watermark));
                }
                Next::Idle => {
                    let watermark = reader.watermark();
                    ctx.watermark(|estimator| estimator.set(watermark));
                    continuation = Continuation::Resume(self.poll);
                    break;
                }
                Next::End => {
                    ctx.tracker(|tracker| tracker.rest.2 = true);
                    continuation = Continuation::Done;
                    break;
                }
            }
        }
        if let Some(behind) = claimed {
            let (source, partition) = (self.source.clone(), partition.clone());
            ctx.after_commit(EXPIRY, move || source.acknowledge(&partition, behind))?;
        }
        Ok(continuation)
    }
}

impl<S: UnboundedSource> PTransform<PBegin> for ReadUnbounded<S>
where
    S::Partition: Sync,
{
    type Output = PCollection<S::Out>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PBegin) -> PCollection<S::Out> {
        let source = self.source.clone();
        let partitions = input
            .pipeline()
            .apply(Impulse)
            .try_flat_map("Partitions", move |_: Vec<u8>| source.partitions());
        let read = ReadFn {
            source: self.source,
            poll: self.poll,
        };
        partitions.apply(SplittableParDo::new("Read", read))
    }
}
