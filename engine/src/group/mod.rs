//! GroupByKey: Beam's model of windows, triggers and panes, as a machine without clock, thread or randomness.
//!
//! A [`Grouper`] holds the state of one GroupByKey. [`Grouper::ingest`] takes elements and never fires;
//! [`Grouper::advance`] fires what is due. A caller that wants early panes calls `advance` after each bundle of
//! elements, before it raises the watermark; one whose input is bounded may call it once, at the end of the input,
//! and gets one pane of each key and window.
//!
//! ```text
//! ingest ─▶ window open, fires by the watermark only ─▶ fast: one table per window, emitted as a whole
//!        └▶ anything else (triggers, late data, merging windows) ─▶ keyed: one pane per key and window
//! ```
//!
//! The two stores meet at the end of a window: what the fast one fired and what may still get late data goes on in
//! the keyed one.

mod fast;
mod fire;
mod holds;
mod keyed;
mod merge;
mod pane;
mod store;
#[cfg(test)]
mod tests;
mod trigger;

use alloc::vec::Vec;

use purlin_model::{Coder, DecodeError, PaneInfo, Timestamp, Window, WindowCoder, expiry};
use thiserror::Error;

use crate::chunk::Chunk;
use crate::graph::{Trigger, Windowing};
use fast::{Fast, Target};
use keyed::Keyed;
use pane::Emitter;
use trigger::TriggerMachine;

/// Names a question about merging windows: the windows of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupMergeId(pub u64);

/// Elements or answers that a GroupByKey cannot take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// Bytes that are not windowed pairs of the collection's coders.
    #[error("cannot read the input of a GroupByKey: {0}")]
    Decode(#[from] DecodeError),
    /// A key that is longer than any element can be.
    #[error("a key of {bytes} bytes cannot be grouped: keys are limited to 4 GiB")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// More keys in one window than can be numbered.
    #[error("more than {} keys in one window cannot be grouped in memory", u32::MAX - 1)]
    TooManyKeys,
    /// An answer to a question that was not asked.
    #[error("no merging of windows is under way by the name of {}", .0.0)]
    UnknownMerge(GroupMergeId),
}

/// The times that decisions depend on.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now: Timestamp,
    synchronized_now: Timestamp,
    input_watermark: Timestamp,
    /// What the output watermark was when the last decisions were made.
    output_watermark: Timestamp,
}

/// So many elements are taken together, that their places in memory are fetched at the same time.
const BATCH: usize = 32;

/// How the bytes of the input are laid out.
#[derive(Clone, Debug)]
struct Layout {
    key: Coder,
    value: Coder,
    window: WindowCoder,
}

/// An element of the input, not yet taken apart farther than grouping needs.
struct Element<'a> {
    timestamp: Timestamp,
    /// Count and windows, encoded.
    windows: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

impl Layout {
    #[inline]
    fn next<'a>(&self, input: &mut &'a [u8]) -> Result<Element<'a>, DecodeError> {
        let timestamp = Timestamp::decode(input)?;
        let start = *input;
        self.window.skip_windows(input)?;
        let windows = &start[..start.len() - input.len()];
        PaneInfo::skip(input)?;
        let start = *input;
        self.key.skip(input, true)?;
        let key = &start[..start.len() - input.len()];
        let start = *input;
        self.value.skip(input, true)?;
        let value = &start[..start.len() - input.len()];
        Ok(Element {
            timestamp,
            windows,
            key,
            value,
        })
    }
}

/// The state of a GroupByKey.
#[derive(Debug)]
pub struct Grouper {
    layout: Layout,
    allowed_lateness_ms: i64,
    /// Where windows fire by the watermark alone and do not merge.
    fast: Option<Fast>,
    keyed: Keyed,
    clock: Clock,
    dropped: u64,
    /// The windows of the element before, encoded, and where its values went.
    last_windows: Vec<u8>,
    targets: Vec<Target>,
}

impl Grouper {
    /// A machine without elements. The input is windowed values of KV pairs of `key` and `value`, the output of
    /// pairs of `key` and iterables of `value`, both with windows of `window_coder`.
    pub fn new(key: Coder, value: Coder, window_coder: WindowCoder, windowing: Windowing) -> Grouper {
        let machine = TriggerMachine::new(&windowing.trigger, windowing.window_fn.merges());
        let start = Timestamp::MIN;
        Grouper {
            layout: Layout {
                key,
                value,
                window: window_coder,
            },
            allowed_lateness_ms: windowing.allowed_lateness_ms,
            fast: Fast::for_windowing(&windowing),
            keyed: Keyed::new(machine, windowing),
            clock: Clock {
                now: start,
                synchronized_now: start,
                input_watermark: start,
                output_watermark: start,
            },
            dropped: 0,
            last_windows: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Takes elements. `now` is processing time; `input_watermark` is the watermark at which they arrive: what belongs
    /// to windows that have expired by it is dropped. Nothing fires before the next [`Grouper::advance`].
    ///
    /// # Errors
    /// When the bytes cannot be read; some of the elements before the unreadable one have been taken.
    pub fn ingest(
        &mut self,
        chunk: &Chunk,
        now: Timestamp,
        input_watermark: Timestamp,
    ) -> Result<(), GroupError> {
        self.clock.now = self.clock.now.max(now);
        self.clock.input_watermark = self.clock.input_watermark.max(input_watermark);
        // What is due by this watermark but has not fired keeps the output watermark where it is.
        let due = self.next_event_time().unwrap_or(Timestamp::MAX);
        self.raise_output_watermark(due);
        self.last_windows.clear();
        self.targets.clear();
        let data = chunk.data.clone();
        let mut input = &data[..];
        let mut batch = Vec::with_capacity(BATCH);
        while !input.is_empty() {
            let element = self.layout.next(&mut input)?;
            if element.windows != self.last_windows {
                self.take(&mut batch)?;
                self.find_targets(element.windows)?;
            }
            if u32::try_from(element.key.len()).is_err() {
                return Err(GroupError::KeyTooLong {
                    bytes: element.key.len(),
                });
            }
            batch.push((store::hash_key(element.key), element));
            if batch.len() == BATCH {
                self.take(&mut batch)?;
            }
        }
        self.take(&mut batch)
    }

    /// Takes some elements of the same windows.
    fn take(&mut self, batch: &mut Vec<(u32, Element<'_>)>) -> Result<(), GroupError> {
        for target in &self.targets {
            match target {
                Target::Fast(group) => {
                    if let Some(fast) = &mut self.fast {
                        fast.add(*group, batch, &self.clock)?;
                    }
                }
                Target::Keyed(window) => {
                    for (_, element) in &*batch {
                        let taken = self.keyed.add(element.key, window, element, &self.clock)?;
                        self.dropped += u64::from(!taken);
                    }
                }
                Target::Expired => self.dropped += batch.len() as u64,
            }
        }
        batch.clear();
        Ok(())
    }

    /// Finds out where the values of an element with these windows go.
    fn find_targets(&mut self, windows: &[u8]) -> Result<(), GroupError> {
        self.last_windows.clear();
        self.targets.clear();
        for window in self.layout.window.decode_windows(&mut &windows[..])?.as_slice() {
            let watermark = self.clock.input_watermark;
            let target = if expiry(window, self.allowed_lateness_ms) < watermark {
                Target::Expired
            } else {
                match &mut self.fast {
                    // One that has passed but has yet to fire takes what comes late, too.
                    Some(fast) if window.max_timestamp() >= watermark || fast.has(window) => {
                        Target::Fast(fast.group(window))
                    }
                    _ => Target::Keyed(window.clone()),
                }
            };
            self.targets.push(target);
        }
        self.last_windows.extend_from_slice(windows);
        Ok(())
    }

    /// Fires what is due by these times, which never go back, and puts the panes into `out`.
    ///
    /// # Errors
    /// None today; the signature leaves room for stores that can fail.
    pub fn advance(
        &mut self,
        now: Timestamp,
        input_watermark: Timestamp,
        synchronized_now: Timestamp,
        out: &mut Vec<Chunk>,
    ) -> Result<(), GroupError> {
        self.clock.now = self.clock.now.max(now);
        self.clock.input_watermark = self.clock.input_watermark.max(input_watermark);
        self.clock.synchronized_now = self.clock.synchronized_now.max(synchronized_now);
        let mut emitter = Emitter::new(out);
        if let Some(fast) = &mut self.fast {
            fast.fire(&self.clock, &mut self.keyed, &mut emitter)?;
        }
        self.keyed.fire(&self.clock, &mut emitter);
        emitter.finish();
        self.raise_output_watermark(Timestamp::MAX);
        Ok(())
    }

    fn raise_output_watermark(&mut self, limit: Timestamp) {
        let allowed = self.hold().min(self.clock.input_watermark).min(limit);
        self.clock.output_watermark = self.clock.output_watermark.max(allowed);
    }

    /// The output watermark may not pass this. [`Timestamp::MAX`] when nothing is held.
    pub fn hold(&self) -> Timestamp {
        let fast = self.fast.as_ref().map_or(Timestamp::MAX, Fast::hold);
        fast.min(self.keyed.hold(self.clock.output_watermark))
    }

    /// The processing time at which [`Grouper::advance`] may have something to fire.
    pub fn next_processing_time(&self) -> Option<Timestamp> {
        self.keyed.next_processing_time()
    }

    /// The synchronized processing time at which [`Grouper::advance`] may have something to fire.
    pub fn next_synchronized_time(&self) -> Option<Timestamp> {
        self.keyed.next_synchronized_time()
    }

    /// Something fires or expires when the input watermark passes this (is later than this).
    pub fn next_event_time(&self) -> Option<Timestamp> {
        let fast = self.fast.as_ref().and_then(Fast::next_event_time);
        match (fast, self.keyed.next_event_time()) {
            (Some(fast), Some(keyed)) => Some(fast.min(keyed)),
            (fast, keyed) => fast.or(keyed),
        }
    }

    /// Whether elements came whose triggers have not been looked at since.
    #[cfg_attr(not(test), allow(dead_code))]
    pub fn has_news(&self) -> bool {
        self.keyed.has_news()
    }

    /// Whether there is no state at all: neither elements nor the memory of panes that fired.
    #[cfg_attr(not(test), allow(dead_code))]
    pub fn is_empty(&self) -> bool {
        self.fast.as_ref().is_none_or(Fast::is_empty) && self.keyed.is_empty()
    }

    /// Number of values that were dropped, because their window had expired or its trigger had finished.
    #[cfg_attr(not(test), allow(dead_code))]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Windows to be merged by the SDK, for window functions that merge and are known to an SDK only. Each question is
    /// told once; the values in its new windows wait, and hold the watermark, until [`Grouper::merged`] answers it.
    pub fn take_merge_requests(&mut self) -> Vec<(GroupMergeId, Vec<Window>)> {
        self.keyed.take_merge_requests()
    }

    /// Takes the SDK's answer: each merged window with those that became it; windows not named are unchanged.
    ///
    /// # Errors
    /// When the question was not asked, or is answered already.
    pub fn merged(&mut self, id: GroupMergeId, merged: Vec<(Window, Vec<Window>)>) -> Result<(), GroupError> {
        self.dropped += self.keyed.merged(id, merged, &self.clock)?;
        Ok(())
    }
}

/// Whether nothing but the watermark's passing the end of the window can fire an open window for the first time.
fn fires_first_by_watermark(windowing: &Windowing) -> bool {
    !windowing.window_fn.merges()
        && match &windowing.trigger {
            Trigger::Default => true,
            Trigger::AfterEndOfWindow { early, .. } => {
                early.as_deref().is_none_or(|early| *early == Trigger::Never)
            }
            // It fires when the window expires, which is the same point where no lateness is allowed.
            Trigger::Never => windowing.allowed_lateness_ms <= 0,
            _ => false,
        }
}
