//! Ctrl-C and SIGTERM while a job runs cancel the job; without one, they end the process as ever.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use super::runtime;

type Callbacks = Mutex<Registered>;

#[derive(Default)]
struct Registered {
    callbacks: Vec<(u64, Box<dyn Fn() + Send>)>,
    next: u64,
    interrupted: bool,
}

fn registered() -> &'static Callbacks {
    static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();
    CALLBACKS.get_or_init(Callbacks::default)
}

/// Unregisters when it is dropped.
pub(super) struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        registered().lock().callbacks.retain(|(id, _)| *id != self.0);
    }
}

/// Calls `callback` at the first Ctrl-C or SIGTERM while the guard lives. The second one ends the process.
pub(super) fn on_interrupt(callback: impl Fn() + Send + 'static) -> Guard {
    static LISTENS: OnceLock<()> = OnceLock::new();
    LISTENS.get_or_init(listen);
    let mut registered = registered().lock();
    registered.next += 1;
    let id = registered.next;
    registered.callbacks.push((id, Box::new(callback)));
    Guard(id)
}

fn listen() {
    // Exit statuses as the shell tells a death by that signal.
    for (kind, status) in [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)] {
        let Ok(runtime) = runtime() else { return };
        runtime.spawn(async move {
            let Ok(mut signals) = signal(kind) else { return };
            while signals.recv().await.is_some() {
                let mut registered = registered().lock();
                if registered.interrupted || registered.callbacks.is_empty() {
                    std::process::exit(status);
                }
                registered.interrupted = true;
                registered.callbacks.iter().for_each(|(_, callback)| callback());
            }
        });
    }
}
