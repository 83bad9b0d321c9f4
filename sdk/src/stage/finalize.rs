//! Callbacks that are to be called once a bundle's output is durable.

use std::time::Instant;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::error::DoFnResult;

/// A callback of user code.
pub(crate) struct Finalizer {
    /// Full name of the transform.
    pub transform: std::sync::Arc<str>,
    /// Until when it may be called.
    pub expiry: Instant,
    pub call: Box<dyn FnOnce() -> DoFnResult + Send>,
}

/// The callbacks of bundles that were processed, by instruction.
#[derive(Default)]
pub(crate) struct Finalizers {
    waiting: Mutex<FxHashMap<String, Vec<Finalizer>>>,
}

impl Finalizers {
    pub fn put(&self, instruction: &str, finalizers: Vec<Finalizer>) {
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        // A bundle that is never committed leaves callbacks behind.
        waiting.retain(|_, old| old.iter().any(|f| f.expiry > now));
        waiting.insert(instruction.to_owned(), finalizers);
    }

    /// Calls the callbacks of a committed bundle. What has expired is dropped; what fails is told together.
    pub fn call(&self, instruction: &str) -> Result<(), String> {
        let finalizers = {
            let mut waiting = self.waiting.lock();
            waiting.remove(instruction).unwrap_or_default()
        };
        let mut failed = Vec::new();
        for Finalizer {
            transform,
            expiry,
            call,
        } in finalizers
        {
            if expiry <= Instant::now() {
                continue;
            }
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
                Ok(Ok(())) => {}
                Ok(Err(e)) => failed.push(format!("transform \"{transform}\": its finalizer failed: {e}")),
                Err(_) => failed.push(format!("transform \"{transform}\": its finalizer panicked")),
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("; "))
        }
    }
}
