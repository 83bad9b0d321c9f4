//! `/health` and `/metrics`, on the pool's own port.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::pool::Shared;

/// What has happened since the pool started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) started: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) stopped: AtomicU64,
    pub(crate) died: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The pages.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

async fn health(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let workers: Vec<Value> = shared
        .workers()
        .iter()
        .map(|(id, worker)| json!({ "id": purlin_net::without_token(id), "pid": worker.pid(), "seconds": worker.age().as_secs() }))
        .collect();
    Json(json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "max_workers": shared.settings.max_workers,
        "workers": workers,
    }))
}

/// In Prometheus's text form.
async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    let running = shared.workers().len() as u64;
    let c = &shared.counters;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (fetched, bytes, hits) = shared.cache.counts();
    let counter = |name, help, value| (name, "counter", help, value);
    let rows = [
        ("workers", "gauge", "Workers that run now.", running),
        counter("workers_started_total", "Workers started.", read(&c.started)),
        counter(
            "workers_refused_total",
            "Workers that could not be started.",
            read(&c.refused),
        ),
        counter(
            "workers_stopped_total",
            "Workers ended on request.",
            read(&c.stopped),
        ),
        counter("workers_died_total", "Workers that ended unasked.", read(&c.died)),
        counter("artifacts_fetched_total", "Staged files fetched.", fetched),
        counter("artifact_bytes_total", "Bytes of staged files fetched.", bytes),
        counter("artifact_hits_total", "Staged files found in the cache.", hits),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        let _ = writeln!(
            text,
            "# HELP purlin_pool_{name} {help}\n# TYPE purlin_pool_{name} {kind}\npurlin_pool_{name} {value}"
        );
    }
    text
}
