//! Files as they appear.

use std::time::Duration;

use purlin_model::Timestamp;

use super::files::{EmptyMatch, FileMetadata, find};
use super::fs;
use crate::dofn::{KeyedContext, StatefulDoFn};
use crate::error::{BoxError, DoFnResult};
use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::primitives::{Impulse, SplittableParDo};
use crate::sources::now;
use crate::splittable::{
    Continuation, ManualWatermark, OffsetRange, OffsetTracker, SplitContext, SplittableDoFn,
};
use crate::state::ValueState;

/// The files that match a pattern, looked for again and again: each comes once, when it is found, with the time of that as
/// its timestamp. A file should be whole when it appears: write it under a name that does not match, and rename it.
///
/// Without [`polls`](MatchContinuously::polls) or [`until`](MatchContinuously::until) it goes on until the pipeline is
/// drained or cancelled, and its output is unbounded. Which files were found is state, by path, for the time of the
/// pipeline.
///
/// ```
/// use std::time::Duration;
/// use purlin::prelude::*;
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("a.txt"), "abc")?;
/// # let pattern = format!("{}/*.txt", folder.path().display());
/// let p = TestPipeline::new();
/// let files = p.apply(MatchContinuously::new(&pattern, Duration::from_millis(5)).polls(3));
/// let texts = files.apply(ReadFiles::new()).values().map("Text", |bytes| bytes.to_vec());
/// PAssert::that(&texts).contains_in_any_order([b"abc".to_vec()]);
/// p.run();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MatchContinuously<Patterns = String> {
    patterns: Patterns,
    interval: Duration,
    polls: Option<u64>,
    until: Option<Timestamp>,
    updated: bool,
    empty: EmptyMatch,
}

impl MatchContinuously {
    /// The files that match this pattern, looked for so often.
    pub fn new(pattern: &str, interval: Duration) -> MatchContinuously {
        MatchContinuously::of(pattern.to_owned(), interval)
    }
}

impl MatchContinuously<()> {
    /// The files that match the patterns of a collection, each looked for so often.
    pub fn all(interval: Duration) -> MatchContinuously<()> {
        MatchContinuously::of((), interval)
    }
}

impl<Patterns> MatchContinuously<Patterns> {
    fn of(patterns: Patterns, interval: Duration) -> Self {
        MatchContinuously {
            patterns,
            interval,
            polls: None,
            until: None,
            updated: false,
            empty: EmptyMatch::Allow,
        }
    }

    /// Looks so many times, the first time at once.
    #[must_use]
    pub fn polls(mut self, polls: u64) -> Self {
        self.polls = Some(polls);
        self
    }

    /// Does not look then and later.
    #[must_use]
    pub fn until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// A file comes again whenever its time of change or its size is another than when it was found last.
    #[must_use]
    pub fn match_updated_files(mut self) -> Self {
        self.updated = true;
        self
    }

    /// What to do where no file matches: by default nothing, since one may come.
    #[must_use]
    pub fn empty_match(mut self, empty: EmptyMatch) -> Self {
        self.empty = empty;
        self
    }

    fn find(&self, patterns: &PCollection<String>) -> PCollection<FileMetadata> {
        let interval_ms = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
        if interval_ms == 0 {
            patterns
                .pipeline()
                .problem("its interval is less than a millisecond");
        }
        let poll = PollFn {
            interval_ms: interval_ms.max(1),
            polls: self.polls,
            until: self.until,
            empty: self.empty,
        };
        let started = patterns.map("Start", |pattern: String| (pattern, now()));
        let found = match (self.polls, self.until) {
            (None, None) => started.apply(SplittableParDo::new("Poll", Poll::<true>(poll))),
            _ => started.apply(SplittableParDo::new("Poll", Poll::<false>(poll))),
        };
        found
            .map("Path", |file: FileMetadata| (file.path.clone(), file))
            .stateful_par_do(
                "New",
                New {
                    seen: ValueState::new("seen"),
                    updated: self.updated,
                },
            )
    }
}

#[derive(Clone)]
struct PollFn {
    interval_ms: i64,
    polls: Option<u64>,
    until: Option<Timestamp>,
    empty: EmptyMatch,
}

/// Looks for files. The element is a pattern and when it came; offsets count the looks.
#[derive(Clone)]
struct Poll<const FOR_EVER: bool>(PollFn);

impl<const FOR_EVER: bool> SplittableDoFn for Poll<FOR_EVER> {
    type In = (String, Timestamp);
    type Out = FileMetadata;
    type Tracker = OffsetTracker;
    type Watermark = ManualWatermark;
    const UNBOUNDED: bool = FOR_EVER;

    fn initial_restriction(&self, (_, start): &Self::In) -> Result<OffsetRange, BoxError> {
        let PollFn {
            interval_ms,
            polls,
            until,
            ..
        } = self.0;
        let before = until.map_or(i64::MAX, |until| {
            let span = until.millis().saturating_sub(start.millis()).max(0);
            span / interval_ms + i64::from(span % interval_ms != 0)
        });
        let polls = polls.map_or(i64::MAX, |polls| i64::try_from(polls).unwrap_or(i64::MAX));
        Ok(OffsetRange::new(0, before.min(polls)))
    }

    fn tracker(&self, _: &Self::In, restriction: OffsetRange) -> OffsetTracker {
        OffsetTracker::new(restriction)
    }

    fn truncate(&self, _: &Self::In, _: OffsetRange) -> Option<OffsetRange> {
        // A pipeline that is drained waits for no more files.
        None
    }

    fn process(
        &mut self,
        (pattern, start): &Self::In,
        ctx: &mut SplitContext<'_, Self>,
    ) -> Result<Continuation, BoxError> {
        let poll = ctx.restriction().start;
        let due = |poll: i64| start.plus_millis(poll.saturating_mul(self.0.interval_ms));
        let until = |due: Timestamp| Duration::from_millis(due.millis_since(now()).max(0).unsigned_abs());
        let wait = until(due(poll));
        if !wait.is_zero() && poll < ctx.restriction().end {
            return Ok(Continuation::Resume(wait));
        }
        if !ctx.try_claim(poll) {
            return Ok(Continuation::Done);
        }
        // Before the look: what is found then is not older.
        let at = now().max(ctx.timestamp());
        for file in find(pattern, self.0.empty)? {
            ctx.output_with_timestamp(file, at);
        }
        ctx.watermark(|watermark| watermark.set(at));
        if poll + 1 < ctx.restriction().end {
            // Even where the next look is due: what was found goes on before.
            return Ok(Continuation::Resume(until(due(poll + 1))));
        }
        Ok(Continuation::Done)
    }
}

/// Lets files through that were not seen before.
#[derive(Clone)]
struct New {
    seen: ValueState<(i64, u64)>,
    updated: bool,
}

impl StatefulDoFn for New {
    type Key = String;
    type Value = FileMetadata;
    type Out = FileMetadata;
    crate::fields!(seen);

    fn process(
        &mut self,
        _path: String,
        file: FileMetadata,
        ctx: &mut KeyedContext<'_, FileMetadata>,
    ) -> DoFnResult {
        let is = (file.last_modified_millis, file.size);
        let seen = self.seen.read(ctx)?;
        if seen.is_none() || (self.updated && seen != Some(is)) {
            self.seen.write(ctx, &is)?;
            ctx.output(file);
        }
        Ok(())
    }
}

impl PTransform<PBegin> for MatchContinuously {
    type Output = PCollection<FileMetadata>;

    fn name(&self) -> String {
        "MatchContinuously".into()
    }

    fn expand(self, input: PBegin) -> PCollection<FileMetadata> {
        if let Err(error) = fs::check(&self.patterns) {
            input.pipeline().problem(error);
        }
        let pattern = self.patterns.clone();
        let patterns = input
            .pipeline()
            .apply(Impulse)
            .map("Pattern", move |_: Vec<u8>| pattern.clone());
        self.find(&patterns)
    }
}

impl PTransform<PCollection<String>> for MatchContinuously<()> {
    type Output = PCollection<FileMetadata>;

    fn name(&self) -> String {
        "MatchContinuously".into()
    }

    fn expand(self, input: PCollection<String>) -> PCollection<FileMetadata> {
        self.find(&input)
    }
}
