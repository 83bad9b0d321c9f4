//! When panes fire: Beam's trigger algebra.

use std::time::Duration;

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

/// A step from a timestamp to the one that a processing-time trigger waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampTransform {
    /// Add this.
    Delay(Duration),
    /// Round up to a multiple of the period, counted from the offset.
    AlignTo {
        /// Multiples of this.
        period: Duration,
        /// Counted from this.
        offset: Duration,
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
        Trigger::AfterProcessingTime(vec![TimestampTransform::Delay(delay)])
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
    pub(crate) fn continuation(&self) -> Trigger {
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
    pub(crate) fn waits_for_the_window(&self) -> bool {
        matches!(
            self,
            Trigger::Default | Trigger::AfterEndOfWindow { early: None, .. } | Trigger::Never
        )
    }
}
