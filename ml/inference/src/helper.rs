//! A thread on which the work of another is done, so that this one need not wait for ever.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use purlin::BoxError;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one piece of work after the other. A clone has none yet.
#[derive(Debug, Default)]
pub(crate) struct Helper {
    jobs: Option<Sender<Job>>,
}

impl Clone for Helper {
    fn clone(&self) -> Self {
        Helper::default()
    }
}

impl Helper {
    /// Does this on the helper's thread. `None`: it was not done in time; the thread is left to itself, and the next piece of work
    /// gets another.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn within<T: Send + 'static>(
        &mut self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, BoxError> {
        let (done, result) = channel();
        let job: Job = Box::new(move || {
            // Who asked may have given up.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs()?
            .send(job)
            .map_err(|_| "the thread on which models run has ended")?;
        match result.recv_timeout(limit) {
            Ok(Ok(result)) => Ok(Some(result)),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => {
                self.jobs = None;
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => Err("the thread on which models run has ended".into()),
        }
    }

    fn jobs(&mut self) -> Result<&Sender<Job>, BoxError> {
        match &mut self.jobs {
            Some(jobs) => Ok(jobs),
            none => {
                let (jobs, work) = channel::<Job>();
                Builder::new()
                    .name("purlin-inference".to_owned())
                    .spawn(move || work.into_iter().for_each(|job| job()))
                    .map_err(|error| format!("cannot start a thread for a model: {error}"))?;
                Ok(none.insert(jobs))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_is_left_to_itself() {
        let mut helper = Helper::default();
        let long = Duration::from_secs(60);
        assert_eq!(helper.within(long, || 1).unwrap(), Some(1));
        let (go_on, wait) = channel::<()>();
        let hangs = helper.within(Duration::from_millis(1), move || wait.recv().is_ok());
        assert_eq!(hangs.unwrap(), None);
        assert_eq!(helper.within(long, || 2).unwrap(), Some(2));
        go_on.send(()).unwrap();
        let panics = catch_unwind(AssertUnwindSafe(|| helper.within(long, || panic!("no"))));
        assert!(panics.is_err());
        assert_eq!(helper.within(long, || 3).unwrap(), Some(3));
    }
}
