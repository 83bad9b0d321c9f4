//! What a job's client is told of bundles that fail: the error once, at the end, and before that one line for each stage.
//!
//! SDKs log the error of a failing bundle as well, some of them several times. Such entries come on another stream than the error itself,
//! before or after it. So errors that workers log inside bundles wait until a bundle's fate is known: those that hold its error are
//! left to the service's log, the others are told.

use std::collections::{BTreeMap, HashSet, VecDeque};

use purlin_engine::StageId;

use super::log::boundary;

/// So many entries wait, of so many bytes; then the oldest is told.
const MAX_WAITING: usize = 100;
const MAX_WAITING_BYTES: usize = 4 << 20;
/// So many different errors are known again, each by so many bytes of its line.
const MAX_ERRORS: usize = 100;
const MAX_ERROR_BYTES: usize = 4 << 10;

/// The failures of a job.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// How many attempts failed, by stage.
    attempts: BTreeMap<StageId, u64>,
    /// What the errors said in their last lines.
    errors: VecDeque<String>,
    /// Instruction (empty: not known) and text.
    waiting: VecDeque<(String, String)>,
    /// Instructions of the bundles that run.
    running: HashSet<String>,
}

impl Failures {
    pub(super) fn started(&mut self, instruction: String) {
        self.running.insert(instruction);
    }

    /// A bundle succeeded. Gives what is to be told of it.
    pub(super) fn finished(&mut self, instruction: &str) -> Vec<String> {
        self.running.remove(instruction);
        let (told, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(own, _)| own == instruction || !self.running.contains(own));
        self.waiting = waiting;
        texts(told)
    }

    /// A bundle failed. Gives what is to be told of it, and how many attempts of its stage have failed.
    pub(super) fn failed(&mut self, instruction: &str, stage: StageId, error: &str) -> (Vec<String>, u64) {
        let line = last_line(error);
        let line = line
            .get(..boundary(line, MAX_ERROR_BYTES))
            .unwrap_or(line)
            .to_owned();
        if !line.is_empty() && !self.errors.contains(&line) {
            self.waiting.retain(|(_, text)| !text.contains(&line));
            self.errors.push_back(line);
            if self.errors.len() > MAX_ERRORS {
                self.errors.pop_front();
            }
        }
        let attempts = self.attempts.entry(stage).or_default();
        *attempts += 1;
        let attempts = *attempts;
        (self.finished(instruction), attempts)
    }

    /// A worker logged an error. Gives what is to be told now.
    pub(super) fn logged(&mut self, instruction: &str, text: String) -> Vec<String> {
        if self.errors.iter().any(|line| text.contains(line)) {
            return Vec::new();
        }
        if self.running.is_empty() {
            return vec![text];
        }
        self.waiting.push_back((instruction.to_owned(), text));
        let size = |(own, text): &(String, String)| own.len() + text.len();
        let mut bytes: usize = self.waiting.iter().map(size).sum();
        let mut told = Vec::new();
        while (self.waiting.len() > MAX_WAITING || bytes > MAX_WAITING_BYTES)
            && let Some(oldest) = self.waiting.pop_front()
        {
            bytes -= size(&oldest);
            told.push(oldest.1);
        }
        told
    }

    /// The job ends. Gives what still waits, and how many attempts have failed.
    pub(super) fn end(&mut self) -> (Vec<String>, u64) {
        (
            texts(std::mem::take(&mut self.waiting)),
            self.attempts.values().sum(),
        )
    }
}

fn texts(entries: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    entries.into_iter().map(|(_, text)| text).collect()
}

/// The line of an SDK's error that says most: the last one that is not blank.
pub(super) fn last_line(error: &str) -> &str {
    error
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: &str = "Traceback:\n  File \"a.py\"\nValueError: no such thing [while running 'Map']\n";

    #[test]
    fn entries_that_hold_a_failed_bundles_error_are_not_told() {
        let mut failures = Failures::default();
        failures.started("bundle-1".into());
        // Before the bundle's end, with its instruction and without; after it; and at the next attempt.
        assert!(failures.logged("bundle-1", format!("failed\n{ERROR}")).is_empty());
        assert!(
            failures
                .logged("", format!("Error processing\n{ERROR}"))
                .is_empty()
        );
        assert_eq!(failures.failed("bundle-1", StageId(0), ERROR), (vec![], 1));
        assert!(failures.logged("", format!("late\n{ERROR}")).is_empty());
        failures.started("bundle-2".into());
        assert!(failures.logged("bundle-2", format!("failed\n{ERROR}")).is_empty());
        assert_eq!(failures.failed("bundle-2", StageId(0), ERROR), (vec![], 2));
        assert_eq!(failures.end(), (vec![], 2));
    }

    #[test]
    fn what_users_log_is_told_when_the_bundle_has_ended() {
        let mut failures = Failures::default();
        assert_eq!(failures.logged("", "at once".into()), ["at once"]);
        failures.started("bundle-1".into());
        failures.started("bundle-2".into());
        assert!(failures.logged("bundle-1", "mine".into()).is_empty());
        assert!(failures.logged("bundle-2", "theirs".into()).is_empty());
        assert_eq!(
            failures.failed("bundle-1", StageId(0), ERROR),
            (vec!["mine".into()], 1)
        );
        assert_eq!(failures.finished("bundle-2"), ["theirs"]);
        failures.started("bundle-3".into());
        assert!(failures.logged("bundle-3", "last".into()).is_empty());
        assert_eq!(failures.end(), (vec!["last".into()], 1));
    }

    #[test]
    fn few_wait() {
        let mut failures = Failures::default();
        failures.started("bundle-1".into());
        let told: Vec<String> = (0..150)
            .flat_map(|i| failures.logged("bundle-1", i.to_string()))
            .collect();
        assert_eq!(told.len(), 50);
        assert_eq!(told[0], "0");
    }

    #[test]
    fn few_bytes_wait() {
        let mut failures = Failures::default();
        failures.started("bundle-1".into());
        let long = |n: usize| "e".repeat(n);
        assert!(failures.logged("bundle-1", "short".into()).is_empty());
        assert!(
            failures
                .logged("bundle-1", long(MAX_WAITING_BYTES / 2))
                .is_empty()
        );
        // As many of the oldest are told as it takes.
        assert_eq!(failures.logged("bundle-1", long(MAX_WAITING_BYTES / 2)).len(), 2);
        assert_eq!(failures.logged("bundle-1", long(MAX_WAITING_BYTES + 1)).len(), 2);
        assert_eq!(failures.end().0, Vec::<String>::new());
        let error = format!("{}end", long(10 * MAX_ERROR_BYTES));
        failures.failed("bundle-1", StageId(0), &error);
        assert_eq!(failures.errors[0].len(), MAX_ERROR_BYTES);
        // It is known again all the same.
        assert!(failures.logged("bundle-1", error).is_empty());
    }
}
