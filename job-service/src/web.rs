//! The web port: `/health` and `/jobs` for programs, `/` for people.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::jobs::Jobs;
use crate::time::rfc3339;

/// The pages.
pub(crate) fn router(jobs: Arc<Jobs>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/jobs", get(list))
        .with_state(jobs)
}

async fn health(State(jobs): State<Arc<Jobs>>) -> Json<Value> {
    Json(
        json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "running_jobs": *jobs.running().borrow() }),
    )
}

async fn list(State(jobs): State<Arc<Jobs>>) -> Json<Value> {
    let jobs = jobs.all();
    let jobs = jobs.iter().map(|job| {
        let (state, since) = job.state();
        let error = job.handle().and_then(|handle| handle.error());
        json!({
            "id": job.id,
            "name": job.name,
            "state": state.as_str_name(),
            "since": rfc3339(since),
            "prepared": rfc3339(job.prepared_at),
            "error": error,
        })
    });
    Json(Value::Array(jobs.collect()))
}

async fn page(State(jobs): State<Arc<Jobs>>) -> Html<String> {
    let rows = jobs.all().into_iter().rev().map(|job| {
        let (state, since) = job.state();
        let error = job.handle().and_then(|handle| handle.error()).unwrap_or_default();
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><pre>{}</pre></td></tr>",
            escape(&job.id),
            escape(&job.name),
            state.as_str_name(),
            rfc3339(since),
            escape(&error)
        )
    });
    Html(format!(
        "<!doctype html><title>Purlin jobs</title><h1>Jobs</h1><table border=1 cellpadding=4>\
         <tr><th>Id</th><th>Name</th><th>State</th><th>Since</th><th>Error</th></tr>{}</table>",
        rows.collect::<String>()
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
