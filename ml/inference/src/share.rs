//! A limit on the share of examples that may be of some kind: may fail, or be given different answers by two models.

/// Counts examples of this process. A bundle that is tried again counts again, but once too many are of the kind, that stays so.
#[derive(Clone, Debug)]
pub(crate) struct ShareLimit {
    /// From 0 to 1.
    allowed: f64,
    /// So many examples are needed to tell.
    after: u64,
    all: u64,
    of_the_kind: u64,
    exceeded: bool,
}

/// More are of the kind than may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exceeded {
    pub all: u64,
    pub of_the_kind: u64,
    pub percent: f64,
    pub allowed_percent: f64,
}

impl ShareLimit {
    pub fn new(allowed: f64, after: u64) -> ShareLimit {
        ShareLimit {
            allowed,
            after,
            all: 0,
            of_the_kind: 0,
            exceeded: false,
        }
    }

    /// What is wrong with the share that is allowed, which was set by this name.
    pub fn problem(&self, name: &str) -> Option<String> {
        (!(0.0..=1.0).contains(&self.allowed)).then(|| {
            format!(
                "{name} is {}, but must be from 0, for none, to 1, for all",
                self.allowed
            )
        })
    }

    /// Whether it was exceeded: nothing counts any more then.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Counts examples, and those of the kind, which may be among earlier examples.
    pub fn record(&mut self, examples: usize, of_the_kind: usize) -> Result<(), Exceeded> {
        if !self.exceeded {
            self.all += examples as u64;
            self.of_the_kind += of_the_kind as u64;
        }
        let share = self.of_the_kind as f64 / self.all.max(1) as f64;
        if self.all < self.after.max(1) || share <= self.allowed {
            return Ok(());
        }
        self.exceeded = true;
        Err(Exceeded {
            all: self.all,
            of_the_kind: self.of_the_kind,
            percent: share * 100.0,
            allowed_percent: self.allowed * 100.0,
        })
    }
}
