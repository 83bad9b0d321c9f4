//! One job: its PCollections with their counts, sizes and samples, its transforms' times, its workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Html;
use purlin_model::metric::{Distribution, decode_sum};
use purlin_proto::fn_execution::SampledElement;
use purlin_proto::pipeline::MonitoringInfo;
use purlin_proto::urns::{metric_labels, metrics};
use purlin_runner::job::WorkerStatus;
use purlin_runner::query::StateQuery;
use serde_json::{Value, json};

use super::escape;
use crate::backends::RunningJob;
use crate::jobs::{JobRecord, Jobs};
use crate::time::rfc3339;

/// How long workers may take to tell their samples.
const SAMPLES_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a sample that are shown.
const SHOWN_BYTES: usize = 200;

type NotFound = (StatusCode, String);

fn find(jobs: &Jobs, id: &str) -> Result<Arc<JobRecord>, NotFound> {
    jobs.get(id)
        .map_err(|error| (StatusCode::NOT_FOUND, error.to_string()))
}

/// What is known of a PCollection.
#[derive(Default)]
struct Collection {
    elements: Option<u64>,
    /// Sizes of the elements that were measured.
    bytes: Option<Distribution>,
    samples: Vec<SampledElement>,
}

/// What is known of a job while it runs, and after.
#[derive(Default)]
struct Details {
    collections: BTreeMap<String, Collection>,
    /// Milliseconds by transform and phase.
    times: BTreeMap<String, BTreeMap<String, u64>>,
}

async fn details(job: &dyn RunningJob) -> Details {
    let mut details = Details::default();
    for info in job.metrics().await.attempted {
        details.add(&info);
    }
    if let Ok(samples) = tokio::time::timeout(SAMPLES_TIMEOUT, job.samples()).await {
        for (id, list) in samples.element_samples {
            details.collections.entry(id).or_default().samples = list.elements;
        }
    }
    details
}

impl Details {
    fn add(&mut self, info: &MonitoringInfo) {
        let label = |name: &str| info.labels.get(name).cloned();
        match info.urn.as_str() {
            metrics::ELEMENT_COUNT => {
                if let (Some(id), Some(count)) =
                    (label(metric_labels::PCOLLECTION), decode_sum(&info.payload))
                {
                    self.collections.entry(id).or_default().elements = Some(count as u64);
                }
            }
            metrics::SAMPLED_BYTE_SIZE => {
                if let (Some(id), Some(sizes)) = (
                    label(metric_labels::PCOLLECTION),
                    Distribution::decode(&info.payload),
                ) {
                    self.collections.entry(id).or_default().bytes = Some(sizes);
                }
            }
            urn => {
                let phase = urn
                    .strip_prefix("beam:metric:pardo_execution_time:")
                    .and_then(|phase| phase.strip_suffix("_msecs:v1"));
                if let (Some(phase), Some(transform), Some(millis)) =
                    (phase, label(metric_labels::TRANSFORM), decode_sum(&info.payload))
                {
                    let times = self.times.entry(transform).or_default();
                    *times.entry(phase.to_owned()).or_default() += millis as u64;
                }
            }
        }
    }

    fn json(&self) -> Value {
        let collections = self.collections.iter().map(|(id, collection)| {
            let bytes = collection.bytes.map(|sizes| {
                json!({ "measured": sizes.count, "sum": sizes.sum, "min": sizes.min, "max": sizes.max })
            });
            let samples = collection.samples.iter().map(|sample| {
                let error = sample.exception.as_ref().map(|exception| exception.error.clone());
                json!({ "bytes": sample.element.len(), "element": shown(&sample.element), "error": error })
            });
            let about = json!({
                "elements": collection.elements,
                "bytes": bytes,
                "samples": samples.collect::<Vec<_>>(),
            });
            (id.clone(), about)
        });
        json!({
            "pcollections": collections.collect::<serde_json::Map<_, _>>(),
            "transform_milliseconds": self.times,
        })
    }
}

/// Encoded bytes as text: what can be printed, and the others as `\xNN`.
fn shown(element: &[u8]) -> String {
    let end = element.len().min(SHOWN_BYTES);
    let dots = if element.len() > end { "…" } else { "" };
    format!("{}{dots}", element[..end].escape_ascii())
}

/// `/jobs/{id}`
pub(super) async fn job(
    State(jobs): State<Arc<Jobs>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, NotFound> {
    let job = find(&jobs, &id)?;
    let mut answer = super::summary(&job);
    if let (Some(job), Value::Object(fields)) = (job.job(), &mut answer)
        && let Value::Object(more) = details(&*job).await.json()
    {
        fields.extend(more);
    }
    Ok(Json(answer))
}

/// `/jobs/{id}/workers`
pub(super) async fn workers(
    State(jobs): State<Arc<Jobs>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, NotFound> {
    let workers = statuses(&*find(&jobs, &id)?).await.into_iter().map(|worker| {
        let (status, error) = match worker.status {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error)),
        };
        json!({
            "id": worker.worker_id,
            "environment": worker.environment_id,
            "status": status,
            "error": error,
        })
    });
    Ok(Json(workers.collect()))
}

/// `/jobs/{id}/plan`: the fused plan as text.
pub(super) async fn plan(State(jobs): State<Arc<Jobs>>, Path(id): Path<String>) -> Result<String, NotFound> {
    let job = find(&jobs, &id)?.job();
    let Some(job) = job else {
        return Err((StatusCode::NOT_FOUND, format!("job {id} has not been run yet")));
    };
    job.plan().map(str::to_owned).ok_or_else(|| {
        let reason = format!("job {id} runs on another system, which fuses its transforms itself");
        (StatusCode::NOT_FOUND, reason)
    })
}

/// `/jobs/{id}/state/{transform}/{state}?key=…`: a key's state, as far as the pipeline made it queryable.
pub(super) async fn state(
    State(jobs): State<Arc<Jobs>>,
    Path((id, transform, state)): Path<(String, String, String)>,
    uri: Uri,
) -> Result<Json<Value>, (StatusCode, String)> {
    let job = find(&jobs, &id)?.job();
    let job = job.ok_or_else(|| (StatusCode::NOT_FOUND, format!("job {id} has not been run yet")))?;
    let answer = StateQuery::parse(transform, state, uri.query().unwrap_or_default())
        .and_then(|query| job.state_of(&query));
    answer
        .map(Json)
        .map_err(|error| (error.status(), format!("{error}\n")))
}

async fn statuses(job: &JobRecord) -> Vec<WorkerStatus> {
    match job.job() {
        Some(job) => job.worker_statuses().await,
        None => Vec::new(),
    }
}

/// `/job/{id}`, for people.
pub(super) async fn page(
    State(jobs): State<Arc<Jobs>>,
    Path(id): Path<String>,
) -> Result<Html<String>, NotFound> {
    let job = find(&jobs, &id)?;
    let (state, since) = job.state();
    let details = match job.job() {
        Some(job) => details(&*job).await,
        None => Details::default(),
    };
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let collections = details.collections.iter().map(|(id, collection)| {
        let average = collection
            .bytes
            .and_then(|sizes| u64::try_from(sizes.sum.checked_div(sizes.count)?).ok());
        let samples = collection.samples.iter().map(|sample| {
            let error = sample.exception.as_ref().map_or("", |exception| &exception.error);
            format!("<pre>{} {}</pre>", escape(&shown(&sample.element)), escape(error))
        });
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(id),
            number(collection.elements),
            number(average),
            samples.collect::<String>()
        )
    });
    let times = details.times.iter().map(|(transform, phases)| {
        let phases: Vec<String> = phases
            .iter()
            .map(|(phase, millis)| format!("{phase} {millis}"))
            .collect();
        format!(
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(transform),
            escape(&phases.join(", "))
        )
    });
    let workers = statuses(&job).await.into_iter().map(|worker| {
        let status = worker
            .status
            .unwrap_or_else(|error| format!("No status: {error}"));
        format!(
            "<h3>{} ({})</h3><pre>{}</pre>",
            escape(&worker.worker_id),
            escape(&worker.environment_id),
            escape(&status)
        )
    });
    let plan = job.job().and_then(|job| job.plan().map(escape));
    let plan = plan.map_or_else(String::new, |plan| {
        format!("<h2>Fused plan</h2><pre>{plan}</pre>")
    });
    Ok(Html(format!(
        "<!doctype html><title>{name}</title><h1>{name}</h1><p>{id}: {state} since {since}</p>\
         <h2>PCollections</h2><table border=1 cellpadding=4>\
         <tr><th>Id</th><th>Elements</th><th>Bytes of one, on average</th><th>Samples</th></tr>{collections}</table>\
         <h2>Milliseconds by transform</h2><table border=1 cellpadding=4>{times}</table>\
         <h2>Workers</h2>{workers}{plan}",
        name = escape(&job.name),
        id = escape(&job.id),
        state = state.as_str_name(),
        since = rfc3339(since),
        collections = collections.collect::<String>(),
        times = times.collect::<String>(),
        workers = workers.collect::<String>(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(urn: &str, label: &str, of: &str, payload: &'static [u8]) -> MonitoringInfo {
        MonitoringInfo {
            urn: urn.into(),
            labels: [(label.to_owned(), of.to_owned())].into(),
            payload: payload.into(),
            ..Default::default()
        }
    }

    #[test]
    fn metrics_are_told_by_collection_and_transform() {
        let mut details = Details::default();
        let (pcollection, transform) = (metric_labels::PCOLLECTION, metric_labels::TRANSFORM);
        details.add(&info(metrics::ELEMENT_COUNT, pcollection, "p", &[5]));
        details.add(&info(metrics::SAMPLED_BYTE_SIZE, pcollection, "p", &[2, 8, 3, 5]));
        let process = "beam:metric:pardo_execution_time:process_bundle_msecs:v1";
        details.add(&info(process, transform, "Do", &[9]));
        // Broken payloads are not told.
        details.add(&info(metrics::ELEMENT_COUNT, pcollection, "q", &[255]));
        details.add(&info(metrics::SAMPLED_BYTE_SIZE, pcollection, "q", &[1]));
        let sample = SampledElement {
            element: vec![b'"'; 300].into(),
            ..Default::default()
        };
        details
            .collections
            .entry("p".into())
            .or_default()
            .samples
            .push(sample);
        let json = details.json();
        assert_eq!(json["pcollections"]["p"]["elements"], 5);
        assert_eq!(json["pcollections"]["p"]["bytes"]["sum"], 8);
        assert_eq!(json["pcollections"]["p"]["samples"][0]["bytes"], 300);
        assert_eq!(json["transform_milliseconds"]["Do"]["process_bundle"], 9);
        assert!(json["pcollections"].get("q").is_none());
    }
}
