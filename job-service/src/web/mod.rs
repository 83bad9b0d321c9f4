//! The web port: `/health`, `/jobs`, `/jobs/{id}`, `/jobs/{id}/workers`, `/jobs/{id}/plan` and `/jobs/{id}/state/{transform}/{state}` for programs, `/` and `/job/{id}` for people.
//! It answers GET requests and changes nothing.

mod job;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::jobs::{JobRecord, Jobs};
use crate::time::rfc3339;

/// The pages.
pub(crate) fn router(jobs: Arc<Jobs>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/jobs", get(list))
        .route("/jobs/{id}", get(job::job))
        .route("/jobs/{id}/workers", get(job::workers))
        .route("/jobs/{id}/plan", get(job::plan))
        .route("/jobs/{id}/state/{transform}/{state}", get(job::state))
        .route("/job/{id}", get(job::page))
        .with_state(jobs)
}

async fn health(State(jobs): State<Arc<Jobs>>) -> Json<Value> {
    Json(
        json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "running_jobs": *jobs.running().borrow() }),
    )
}

async fn list(State(jobs): State<Arc<Jobs>>) -> Json<Value> {
    Json(Value::Array(jobs.all().iter().map(|job| summary(job)).collect()))
}

fn summary(job: &JobRecord) -> Value {
    let (state, since) = job.state();
    let error = job.job().and_then(|job| job.log().error());
    json!({
        "id": job.id,
        "name": job.name,
        "state": state.as_str_name(),
        "since": rfc3339(since),
        "prepared": rfc3339(job.prepared_at),
        "error": error,
    })
}

async fn page(State(jobs): State<Arc<Jobs>>) -> Html<String> {
    let rows = jobs.all().into_iter().rev().map(|job| {
        let (state, since) = job.state();
        let error = job.job().and_then(|job| job.log().error()).unwrap_or_default();
        format!(
            "<tr><td><a href=\"/job/{0}\">{0}</a></td><td>{1}</td><td>{2}</td><td>{3}</td><td><pre>{4}</pre></td></tr>",
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
