//! The jobs that a service knows, within bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{JobError, JobRecord};
use parking_lot::Mutex;

/// How many ended jobs are remembered,
const MAX_ENDED: usize = 200;
/// and of how many bytes, all together: their pipelines, options, messages, metrics and samples.
const MAX_ENDED_BYTES: usize = 32 << 20;
/// How many jobs may be prepared and not run yet,
const MAX_PREPARED: usize = 1000;
/// and of how many bytes, all together: their pipelines and options.
pub(super) const MAX_PREPARED_BYTES: usize = 256 << 20;
/// A prepared job of which nothing was heard for so long makes room for others when there is none.
const MAKES_ROOM_AFTER: Duration = Duration::from_secs(60);

/// All jobs, by number: the oldest first.
#[derive(Default)]
pub(crate) struct JobTable {
    jobs: Mutex<BTreeMap<u64, Arc<JobRecord>>>,
}

impl JobTable {
    pub(super) fn all(&self) -> Vec<Arc<JobRecord>> {
        self.jobs.lock().values().cloned().collect()
    }

    pub(super) fn get(&self, id: &str) -> Result<Arc<JobRecord>, JobError> {
        let found = self.jobs.lock().values().find(|job| job.id == id).cloned();
        found.ok_or_else(|| JobError::Unknown { id: id.to_owned() })
    }

    /// Adds a job that is prepared, or already runs.
    pub(super) fn insert(&self, number: u64, job: Arc<JobRecord>) {
        self.jobs.lock().insert(number, job);
    }

    /// Adds a prepared job, if there is room. `expired` is told of the jobs that are taken away to make some.
    pub(super) fn insert_prepared(
        &self,
        number: u64,
        job: Arc<JobRecord>,
        expired: impl Fn(&JobRecord),
    ) -> Result<(), JobError> {
        let mut jobs = self.jobs.lock();
        forget_ended(&mut jobs);
        make_room(&mut jobs, job.bytes(), expired)?;
        jobs.insert(number, job);
        Ok(())
    }

    /// Forgets the oldest of the ended jobs, where they are too many or too large.
    pub(super) fn forget_ended(&self) {
        forget_ended(&mut self.jobs.lock());
    }

    /// Takes away the jobs that were prepared and of which nothing was heard for so long.
    pub(super) fn expire(&self, timeout: Duration) -> Vec<Arc<JobRecord>> {
        let mut jobs = self.jobs.lock();
        let over = jobs.iter().filter(|(_, job)| job.expire(timeout));
        let over: Vec<u64> = over.map(|(n, _)| *n).collect();
        over.iter().filter_map(|n| jobs.remove(n)).collect()
    }
}

/// The last ended job always stays, if without its pipeline: its client may still ask for its state.
fn forget_ended(jobs: &mut BTreeMap<u64, Arc<JobRecord>>) {
    let (mut count, mut bytes) = (0, 0);
    let mut over = Vec::new();
    for (n, job) in jobs.iter().rev().filter(|(_, job)| job.is_over()) {
        if count == 0 && job.bytes() > MAX_ENDED_BYTES {
            job.forget_pipeline();
        }
        count += 1;
        bytes += job.bytes();
        if count > 1 && (count > MAX_ENDED || bytes > MAX_ENDED_BYTES) {
            over.push(*n);
        }
    }
    for n in over {
        jobs.remove(&n);
    }
}

/// Makes room for another prepared job, which takes so many bytes.
fn make_room(
    jobs: &mut BTreeMap<u64, Arc<JobRecord>>,
    bytes: usize,
    expired: impl Fn(&JobRecord),
) -> Result<(), JobError> {
    let prepared = jobs.iter().filter(|(_, job)| job.is_prepared());
    let prepared: Vec<(u64, usize)> = prepared.map(|(n, job)| (*n, job.bytes())).collect();
    let mut count = prepared.len();
    let mut all = bytes + prepared.iter().map(|(_, bytes)| bytes).sum::<usize>();
    for (n, own) in prepared {
        if count < MAX_PREPARED && all <= MAX_PREPARED_BYTES {
            break;
        }
        if jobs.get(&n).is_some_and(|job| job.expire(MAKES_ROOM_AFTER)) {
            if let Some(job) = jobs.remove(&n) {
                expired(&job);
            }
            (count, all) = (count - 1, all - own);
        }
    }
    if count < MAX_PREPARED && all <= MAX_PREPARED_BYTES {
        Ok(())
    } else {
        Err(JobError::Full { bytes })
    }
}
