//! When panes fire: Beam's trigger algebra.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

/// When panes fire.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Trigger {
    /// At the watermark, then for each late element.
    #[default]
    Default,
    /// At the watermark, with firings before and after it.
    AfterEndOfWindow {
        /// Before the watermark passes the end of the window, repeatedly.
        early: Option<Box<Trigger>>,
        /// After it, repeatedly.
        late: Option<Box<Trigger>>,
    },
    /// After this many elements.
    ElementCount(u32),
    /// After processing time passed, by the first element's arrival and these transforms.
    AfterProcessingTime(Vec<TimestampTransform>),
    /// After synchronized processing time.
    AfterSynchronizedProcessingTime,
    /// One after the other.
    AfterEach(Vec<Trigger>),
    /// All of them.
    AfterAll(Vec<Trigger>),
    /// Any of them.
    AfterAny(Vec<Trigger>),
    /// The main trigger until the other one finishes.
    OrFinally(Box<Trigger>, Box<Trigger>),
    /// Again and again.
    Repeat(Box<Trigger>),
    /// For each element.
    Always,
    /// Only when the window closes.
    Never,
}

/// A step from a timestamp to the timestamp that a processing-time trigger waits for, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampTransform {
    /// Add this.
    Delay(i64),
    /// Round up to a multiple of the period, counted from the offset.
    AlignTo {
        /// Multiples of this.
        period_ms: i64,
        /// Counted from this.
        offset_ms: i64,
    },
}

/// Builds [`Trigger::AfterEndOfWindow`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AfterEndOfWindow {
    early: Option<Box<Trigger>>,
    late: Option<Box<Trigger>>,
}

impl AfterEndOfWindow {
    /// Fires by this before the end of the window, repeatedly.
    #[must_use]
    pub fn early(mut self, trigger: Trigger) -> Self {
        self.early = Some(Box::new(trigger));
        self
    }

    /// Fires by this after the end of the window, repeatedly.
    #[must_use]
    pub fn late(mut self, trigger: Trigger) -> Self {
        self.late = Some(Box::new(trigger));
        self
    }
}

impl From<AfterEndOfWindow> for Trigger {
    fn from(t: AfterEndOfWindow) -> Trigger {
        Trigger::AfterEndOfWindow {
            early: t.early,
            late: t.late,
        }
    }
}

impl Trigger {
    /// At the watermark; add early and late firings.
    pub fn after_end_of_window() -> AfterEndOfWindow {
        AfterEndOfWindow::default()
    }

    /// This long after the first element came.
    pub fn after_processing_time(delay: Duration) -> Trigger {
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Trigger::AfterProcessingTime(vec![TimestampTransform::Delay(delay_ms)])
    }

    /// Again and again.
    #[must_use]
    pub fn repeatedly(self) -> Trigger {
        Trigger::Repeat(Box::new(self))
    }

    /// Until the other one finishes.
    #[must_use]
    pub fn or_finally(self, other: Trigger) -> Trigger {
        Trigger::OrFinally(Box::new(self), Box::new(other))
    }

    /// The trigger behind a grouping that fires by this one: as soon as results come.
    pub fn continuation(&self) -> Trigger {
        let all = |triggers: &[Trigger]| triggers.iter().map(Trigger::continuation).collect::<Vec<_>>();
        let boxed = |trigger: &Option<Box<Trigger>>| trigger.as_ref().map(|t| Box::new(t.continuation()));
        match self {
            Trigger::Default => Trigger::Default,
            Trigger::AfterEndOfWindow { early, late } => Trigger::AfterEndOfWindow {
                early: boxed(early),
                late: boxed(late),
            },
            Trigger::ElementCount(_) => Trigger::ElementCount(1),
            Trigger::AfterProcessingTime(_) | Trigger::AfterSynchronizedProcessingTime => {
                Trigger::AfterSynchronizedProcessingTime
            }
            Trigger::AfterEach(triggers) => Trigger::AfterAny(all(triggers)).repeatedly(),
            Trigger::AfterAll(triggers) => Trigger::AfterAll(all(triggers)),
            Trigger::AfterAny(triggers) => Trigger::AfterAny(all(triggers)),
            Trigger::OrFinally(main, other) => {
                main.continuation().or_finally(other.continuation()).repeatedly()
            }
            Trigger::Repeat(trigger) => trigger.continuation().repeatedly(),
            Trigger::Always => Trigger::Always,
            Trigger::Never => Trigger::Never,
        }
    }

    /// Whether an unbounded collection in the global window would ever fire by it.
    pub fn waits_for_the_window(&self) -> bool {
        matches!(
            self,
            Trigger::Default | Trigger::AfterEndOfWindow { early: None, .. } | Trigger::Never
        )
    }

    /// Whether the trigger may fire before the watermark passes the end of the window.
    pub fn fires_early(&self) -> bool {
        match self {
            Trigger::Default | Trigger::Never => false,
            Trigger::AfterEndOfWindow { early, .. } => early.is_some(),
            Trigger::AfterAll(all) => all.iter().all(Trigger::fires_early),
            Trigger::AfterEach(each) => each.first().is_some_and(Trigger::fires_early),
            Trigger::AfterAny(any) => any.iter().any(Trigger::fires_early),
            Trigger::OrFinally(main, until) => main.fires_early() || until.fires_early(),
            Trigger::Repeat(inner) => inner.fires_early(),
            Trigger::ElementCount(_)
            | Trigger::AfterProcessingTime(_)
            | Trigger::AfterSynchronizedProcessingTime
            | Trigger::Always => true,
        }
    }

    /// Whether the trigger may fire before its window expires.
    pub fn fires_open(&self) -> bool {
        match self {
            Trigger::Never => false,
            Trigger::AfterAll(all) => all.iter().all(Trigger::fires_open),
            Trigger::AfterEach(each) => each.first().is_some_and(Trigger::fires_open),
            Trigger::AfterAny(any) => any.iter().any(Trigger::fires_open),
            Trigger::OrFinally(main, until) => main.fires_open() || until.fires_open(),
            Trigger::Repeat(inner) => inner.fires_open(),
            _ => true,
        }
    }

    /// Whether the trigger looks at how many elements have come.
    pub fn counts_elements(&self) -> bool {
        match self {
            Trigger::ElementCount(_) | Trigger::Always => true,
            Trigger::AfterEndOfWindow { early, late } => [early, late]
                .into_iter()
                .flatten()
                .any(|inner| inner.counts_elements()),
            Trigger::AfterAll(inner) | Trigger::AfterEach(inner) | Trigger::AfterAny(inner) => {
                inner.iter().any(Trigger::counts_elements)
            }
            Trigger::OrFinally(main, until) => main.counts_elements() || until.counts_elements(),
            Trigger::Repeat(inner) => inner.counts_elements(),
            Trigger::Default
            | Trigger::Never
            | Trigger::AfterProcessingTime(_)
            | Trigger::AfterSynchronizedProcessingTime => false,
        }
    }

    /// Whether elements may be combined before the trigger sees them: it must not count them. This is Beam's own
    /// rule for lifting combiners.
    pub fn allows_lifting(&self) -> bool {
        match self {
            Trigger::Default
            | Trigger::Always
            | Trigger::Never
            | Trigger::AfterProcessingTime(_)
            | Trigger::AfterSynchronizedProcessingTime
            | Trigger::ElementCount(1) => true,
            Trigger::AfterEndOfWindow { early, late } => {
                early.as_deref().is_none_or(Trigger::allows_lifting)
                    && late.as_deref().is_none_or(Trigger::allows_lifting)
            }
            Trigger::AfterAny(triggers) => triggers.iter().all(Trigger::allows_lifting),
            Trigger::Repeat(trigger) => trigger.allows_lifting(),
            Trigger::ElementCount(_)
            | Trigger::AfterEach(_)
            | Trigger::AfterAll(_)
            | Trigger::OrFinally(..) => false,
        }
    }
}
