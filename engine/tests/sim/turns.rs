//! Whether restrictions without end, which come back as soon as they are left, all have their turns.

use std::collections::{BTreeMap, BTreeSet};

/// A worker gives back what it has not begun, and that goes first: so some may be seen to pass others, of 5,000 seeds one by
/// five turns. Who starves is passed as often as the job has turns.
const MAX_OVERTAKEN: u64 = 20;

#[derive(Default)]
pub struct Turns {
    turn: u64,
    /// When each was given to a worker last.
    begun: BTreeMap<i64, u64>,
    /// Since when each waits, and how often others have had more than one turn meanwhile.
    waits: BTreeMap<i64, (u64, u64)>,
    /// The job drains: what is left is cut short, in whatever order.
    pub ended: bool,
}

impl Turns {
    /// A worker gets `ranges`, while workers have `busy`. Tells who is passed over, if somebody is.
    pub fn begin(&mut self, ranges: BTreeSet<i64>, busy: &BTreeSet<i64>) -> Option<String> {
        if self.ended {
            return None;
        }
        self.turn += 1;
        for range in self.begun.keys() {
            if busy.contains(range) || ranges.contains(range) {
                self.waits.remove(range);
            } else {
                self.waits.entry(*range).or_insert((self.turn, 0));
            }
        }
        for range in ranges {
            let last = self.begun.insert(range, self.turn);
            for (other, (since, overtaken)) in &mut self.waits {
                *overtaken += u64::from(last.is_some_and(|last| last >= *since));
                if *overtaken > MAX_OVERTAKEN {
                    return Some(format!("range {other} waits while others have turn after turn"));
                }
            }
        }
        None
    }
}
