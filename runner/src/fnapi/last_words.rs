//! The last of what a worker said, for the message of its loss.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Lines that are kept.
const LINES: usize = 20;
/// A longer line is cut.
const LINE_CHARS: usize = 500;

/// The last lines of a worker's log and of its process's output.
#[derive(Default)]
pub(super) struct LastWords(Mutex<VecDeque<String>>);

impl LastWords {
    /// Adds the lines of `text`, empty ones left out.
    pub fn add(&self, text: &str) {
        let mut said = self.0.lock();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if said.len() == LINES {
                said.pop_front();
            }
            said.push_back(line.chars().take(LINE_CHARS).collect());
        }
    }

    /// The lines, the oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    /// Forgets them.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_and_long_ones_are_cut() {
        let words = LastWords::default();
        for n in 0..LINES {
            words.add(&format!("line {n}\n\n  \n"));
        }
        words.add(&"é".repeat(LINE_CHARS + 1));
        let lines = words.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], "line 1");
        assert_eq!(lines[LINES - 1], "é".repeat(LINE_CHARS));
        words.clear();
        assert!(words.lines().is_empty());
    }
}
