//! Sources with an end.

use purlin_model::{Element, Timestamp};

use crate::error::BoxError;
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::{Impulse, SplittableParDo};
use crate::splittable::{
    Continuation, NoWatermark, OffsetRange, OffsetTracker, SplitContext, SplittableDoFn,
};

/// A source with an end, whose records lie at ascending offsets: bytes of a file, rows of a table.
///
/// ```
/// use purlin::prelude::*;
///
/// /// The first squares.
/// #[derive(Clone)]
/// struct Squares(i64);
///
/// impl BoundedSource for Squares {
///     type Out = i64;
///
///     fn offsets(&self) -> Result<OffsetRange, BoxError> {
///         Ok(OffsetRange::new(0, self.0))
///     }
///
///     fn read(
///         &self,
///         from: i64,
///         claim: &mut dyn FnMut(i64) -> bool,
///         emit: &mut dyn FnMut(i64, Option<Timestamp>),
///     ) -> Result<(), BoxError> {
///         for n in from.. {
///             if !claim(n) {
///                 break;
///             }
///             emit(n * n, None);
///         }
///         Ok(())
///     }
/// }
///
/// let p = TestPipeline::new();
/// PAssert::that(&p.apply(ReadBounded::new("Squares", Squares(4)))).contains_in_any_order([0, 1, 4, 9]);
/// p.run();
/// ```
pub trait BoundedSource: Clone + Send + 'static {
    /// Its records.
    type Out: Element;

    /// The offsets at which records may begin.
    ///
    /// # Errors
    /// When the source cannot be reached.
    fn offsets(&self) -> Result<OffsetRange, BoxError>;

    /// So many offsets make a piece of work that is worth its while.
    fn desired_piece(&self, offsets: OffsetRange) -> u64 {
        (offsets.len() / 16).max(1)
    }

    /// Reads the records that begin at or after an offset: claims each one's offset, and emits the record. It stops
    /// when the source ends or a claim fails: the record belongs to another worker then.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn read(
        &self,
        from: i64,
        claim: &mut dyn FnMut(i64) -> bool,
        emit: &mut dyn FnMut(Self::Out, Option<Timestamp>),
    ) -> Result<(), BoxError>;
}

/// Reads a [`BoundedSource`].
#[derive(Clone)]
pub struct ReadBounded<S> {
    name: String,
    source: S,
}

impl<S: BoundedSource> ReadBounded<S> {
    /// Reads this source.
    pub fn new(name: &str, source: S) -> ReadBounded<S> {
        ReadBounded {
            name: name.to_owned(),
            source,
        }
    }
}

#[derive(Clone)]
struct ReadFn<S>(S);

impl<S: BoundedSource> SplittableDoFn for ReadFn<S> {
    type In = Vec<u8>;
    type Out = S::Out;
    type Tracker = OffsetTracker;
    type Watermark = NoWatermark;

    fn initial_restriction(&self, _: &Vec<u8>) -> Result<OffsetRange, BoxError> {
        self.0.offsets()
    }

    fn tracker(&self, _: &Vec<u8>, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }

    fn split(&self, _: &Vec<u8>, restriction: OffsetRange) -> Result<Vec<OffsetRange>, BoxError> {
        Ok(restriction.split(self.0.desired_piece(restriction)))
    }

    fn process(&mut self, _: &Vec<u8>, ctx: &mut SplitContext<'_, Self>) -> Result<Continuation, BoxError> {
        let from = ctx.restriction().start;
        let live = ctx.live.clone();
        let mut claim = |offset: i64| {
            use crate::splittable::RestrictionTracker;
            live.lock().0.try_claim(offset)
        };
        let mut emit = |record: S::Out, timestamp: Option<Timestamp>| match timestamp {
            Some(timestamp) => ctx.output_with_timestamp(record, timestamp),
            None => ctx.output(record),
        };
        self.0.read(from, &mut claim, &mut emit)?;
        // The source has ended: no record begins at the offsets that are left.
        ctx.tracker(OffsetTracker::finish);
        Ok(Continuation::Done)
    }
}

impl<S: BoundedSource> PTransform<PBegin> for ReadBounded<S> {
    type Output = PCollection<S::Out>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PBegin) -> PCollection<S::Out> {
        let impulse = input.pipeline().apply(Impulse);
        impulse.apply(SplittableParDo::new("Read", ReadFn(self.source)))
    }
}
