//! Which windows and panes an assertion is about.

use std::fmt;
use std::marker::PhantomData;

use purlin_model::pane::Timing;
use purlin_model::{Element, PaneInfo, Window};

use crate::dofn::{Context, DoFn};
use crate::error::DoFnResult;
use crate::windowing::IntoWindow;

/// Which panes of a window are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panes {
    All,
    Early,
    OnTime,
    Late,
    NotLate,
    Last,
    /// All, and no element may come from a pane that is one of several.
    Only,
}

impl Panes {
    fn has(self, pane: PaneInfo) -> bool {
        match self {
            Panes::All | Panes::Only => true,
            Panes::Early => pane.timing == Timing::Early,
            Panes::OnTime => pane.timing == Timing::OnTime,
            Panes::Late => pane.timing == Timing::Late,
            Panes::NotLate => pane.timing != Timing::Late,
            Panes::Last => pane.is_last,
        }
    }
}

/// A window and some of its panes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scope {
    window: Window,
    panes: Panes,
}

impl Scope {
    pub fn new(window: impl IntoWindow, panes: Panes) -> Scope {
        Scope {
            window: window.into_window(),
            panes,
        }
    }

    fn has_window(&self, window: &Window) -> bool {
        let encoded = |window: &Window| match window {
            Window::Custom { encoded, .. } | Window::Opaque { encoded } => Some(encoded.clone()),
            _ => None,
        };
        // Some runners send windows of the user's own without their largest timestamps.
        *window == self.window || encoded(window).is_some_and(|bytes| encoded(&self.window) == Some(bytes))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let panes = match self.panes {
            Panes::All => "",
            Panes::Early => "the early panes of ",
            Panes::OnTime => "the on-time pane of ",
            Panes::Late => "the late panes of ",
            Panes::NotLate => "the early and on-time panes of ",
            Panes::Last => "the final pane of ",
            Panes::Only => "the only pane of ",
        };
        write!(f, "{panes}window {}", self.window)
    }
}

/// Lets through what is in the scope.
pub(super) struct InScope<T> {
    pub scope: Scope,
    pub element: PhantomData<fn() -> T>,
}

impl<T> Clone for InScope<T> {
    fn clone(&self) -> Self {
        InScope {
            scope: self.scope.clone(),
            element: PhantomData,
        }
    }
}

impl<T: Element> DoFn for InScope<T> {
    type In = T;
    type Out = T;

    fn process(&mut self, element: T, ctx: &mut Context<'_, T>) -> DoFnResult {
        let pane = ctx.pane();
        if !self.scope.has_window(ctx.window()) || !self.scope.panes.has(pane) {
            return Ok(());
        }
        if self.scope.panes == Panes::Only && !(pane.is_first && pane.is_last) {
            return Err(format!(
                "an element comes from pane {} ({:?}{}), which is one of several; in_final_pane, in_on_time_pane, \
                 in_early_panes or in_window say which are meant",
                pane.index,
                pane.timing,
                if pane.is_last { ", the last" } else { "" },
            )
            .into());
        }
        ctx.output(element);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_are_told_apart() {
        let pane = |timing, is_last| PaneInfo {
            is_first: false,
            is_last,
            timing,
            index: 1,
            nonspeculative_index: 0,
        };
        let all = [
            pane(Timing::Early, false),
            pane(Timing::OnTime, false),
            pane(Timing::Late, true),
            PaneInfo::NO_FIRING,
        ];
        let has = |panes: Panes| all.map(|pane| panes.has(pane));
        assert_eq!(has(Panes::All), [true; 4]);
        assert_eq!(has(Panes::Early), [true, false, false, false]);
        assert_eq!(has(Panes::OnTime), [false, true, false, false]);
        assert_eq!(has(Panes::Late), [false, false, true, false]);
        assert_eq!(has(Panes::NotLate), [true, true, false, true]);
        assert_eq!(has(Panes::Last), [false, false, true, true]);
    }

    #[test]
    fn windows_of_the_users_own_are_known_without_their_largest_timestamps() {
        let custom = |max: i64| Window::Custom {
            max_timestamp: purlin_model::Timestamp(max),
            encoded: vec![1, 7].into(),
        };
        let scope = Scope::new(custom(5), Panes::All);
        let other = vec![1, 8].into();
        assert!(scope.has_window(&custom(6)));
        assert!(scope.has_window(&Window::Opaque {
            encoded: vec![1, 7].into()
        }));
        assert!(!scope.has_window(&Window::Opaque { encoded: other }));
        assert!(!scope.has_window(&Window::Global));
    }
}
