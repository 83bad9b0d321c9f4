//! The threads that wait for servers.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::mpsc::channel;

use purlin::BoxError;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Result<&'static Runtime, BoxError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let builder = Builder::new_multi_thread()
            .thread_name("purlin-remote")
            .enable_all()
            .build();
        builder.map_err(|error| format!("cannot start threads for requests: {error}"))
    });
    runtime.as_ref().map_err(|error| error.clone().into())
}

/// Waits for what is done on the process's threads for requests. Unlike tokio's own `block_on`, it may be called anywhere.
///
/// # Errors
/// When the threads cannot be started, or what is done panics.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, BoxError> {
    let (done, result) = channel();
    runtime()?.spawn(async move {
        // Who asked waits.
        let _ = done.send(work.await);
    });
    Ok(result.recv().map_err(|_| "a request ended in a panic")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_waited_for_also_within_another_runtime() {
        let other = Builder::new_current_thread().build().unwrap();
        assert_eq!(other.block_on(async { wait(async { 1 }).unwrap() }), 1);
        let panics = wait::<()>(async { panic!("no") });
        assert_eq!(panics.unwrap_err().to_string(), "a request ended in a panic");
    }
}
