//! How far the work on an element is.

/// How far the work on a restriction is, in a unit of the tracker's choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What is done.
    pub completed: f64,
    /// What is left.
    pub remaining: f64,
}

impl Progress {
    /// The part that is done, from 0 to 1.
    pub fn fraction(self) -> f64 {
        let all = self.completed + self.remaining;
        if all > 0.0 {
            (self.completed / all).clamp(0.0, 1.0)
        } else {
            0.5
        }
    }
}
