//! What memory a model takes, known before it is loaded.

use std::fmt;

/// What a handler knows of the memory that its model will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Bytes of the weights, such as a file's header tells.
    pub weights: u64,
    /// Bytes that each example of a batch takes while the model runs: its tensors, and what layers give.
    pub per_example: u64,
}

/// The memory that inference takes at most in a process, as far as it is known before the start. It prints as a table.
///
/// ```
/// use purlin_inference::{MemoryEstimate, MemoryPlan};
///
/// let estimate = MemoryEstimate { weights: 98 << 20, per_example: 20 << 20 };
/// let plan = MemoryPlan::new(vec![("resnet50".to_owned(), Some(estimate))], 64, 4);
/// assert_eq!(plan.total(), (98 << 20) + 4 * 64 * (20 << 20));
/// assert!(plan.to_string().contains("98.0 MiB"), "{plan}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    models: Vec<(String, Option<MemoryEstimate>)>,
    batch: usize,
    threads: usize,
}

impl MemoryPlan {
    /// Of models, by name, that are in memory at a time, whose batches have at most so many examples and run on so many threads.
    pub fn new(models: Vec<(String, Option<MemoryEstimate>)>, batch: usize, threads: usize) -> MemoryPlan {
        MemoryPlan {
            models,
            batch,
            threads,
        }
    }

    /// Bytes of all weights.
    pub fn weights(&self) -> u64 {
        let weights = self.models.iter().filter_map(|(_, estimate)| *estimate);
        weights.fold(0, |sum, estimate| sum.saturating_add(estimate.weights))
    }

    /// Bytes of the batches that run at a time, each of the model whose examples take most.
    pub fn batches(&self) -> u64 {
        let each = self.models.iter().filter_map(|(_, estimate)| *estimate);
        let most = each.map(|estimate| estimate.per_example).max().unwrap_or(0);
        most.saturating_mul(self.batch as u64)
            .saturating_mul(self.threads as u64)
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.weights().saturating_add(self.batches())
    }

    /// Why it does not fit into so many bytes, if it does not.
    pub(crate) fn exceeds(&self, limit: u64) -> Option<String> {
        (self.total() > limit).then(|| {
            format!(
                "the model needs {}, more than its memory limit of {}: {} of weights, and {} of batches ({} examples on each of \
                 {} threads); take a smaller model or smaller batches, or raise the limit",
                Bytes(self.total()),
                Bytes(limit),
                Bytes(self.weights()),
                Bytes(self.batches()),
                self.batch,
                self.threads
            )
        })
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (model, estimate) in &self.models {
            match estimate {
                Some(estimate) => writeln!(
                    f,
                    "{model}: weights {}, each example {}",
                    Bytes(estimate.weights),
                    Bytes(estimate.per_example)
                )?,
                None => writeln!(f, "{model}: unknown, its handler estimates nothing")?,
            }
        }
        writeln!(
            f,
            "batches: {} examples on each of {} threads, {}",
            self.batch,
            self.threads,
            Bytes(self.batches())
        )?;
        write!(f, "in all: {}", Bytes(self.total()))
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1024 => write!(f, "{bytes} B"),
            bytes @ 1024..0x10_0000 => write!(f, "{:.1} KiB", bytes as f64 / 1024.0),
            bytes @ 0x10_0000..0x4000_0000 => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            bytes => write!(f, "{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        }
    }
}

/// Bytes of memory that this process holds now, where the system tells.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_figures() {
        let estimate = MemoryEstimate {
            weights: 3 << 30,
            per_example: 1 << 20,
        };
        let plan = MemoryPlan::new(
            vec![("a".to_owned(), Some(estimate)), ("b".to_owned(), None)],
            512,
            4,
        );
        assert_eq!(plan.exceeds(5 << 30), None);
        let told = plan.exceeds(4 << 30).unwrap();
        assert!(
            told.starts_with("the model needs 5.0 GiB, more than its memory limit of 4.0 GiB: 3.0 GiB of weights, and 2.0 GiB"),
            "{told}"
        );
        assert!(plan.to_string().contains("b: unknown"));
    }

    #[test]
    fn a_process_holds_some_memory() {
        assert!(resident().is_none_or(|bytes| bytes > 100_000));
    }
}
