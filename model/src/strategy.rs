//! The parts of a windowing strategy that are plain choices.

/// Whether fired panes keep their elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Accumulation {
    /// A pane has what came since the last one.
    #[default]
    Discarding,
    /// A pane has all that came so far.
    Accumulating,
}

/// Whether an empty pane is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaneEmission {
    /// Also when empty.
    Always,
    /// Only with elements.
    IfNonEmpty,
}

/// What timestamp a pane's output bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TimestampCombiner {
    /// The window's maximum timestamp.
    #[default]
    EndOfWindow,
    /// The earliest of the elements that are not late.
    Earliest,
    /// The latest of the elements.
    Latest,
}
