//! Work that takes long, aside of the threads that serve others.

use crate::jobs::JobError;

/// Does what takes long where a pipeline is large, and waits for it.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| JobError::Unreadable)
}
