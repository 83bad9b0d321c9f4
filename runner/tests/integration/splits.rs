//! What workers answer to requests to split a bundle, on a worker in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::{Builder, Factory};
use futures::StreamExt as _;
use purlin_proto::fn_execution::process_bundle_split_response::ChannelSplit;
use purlin_proto::fn_execution::{
    BundleApplication, DelayedBundleApplication, ProcessBundleProgressResponse, ProcessBundleSplitResponse,
};
use purlin_runner::job::{Importance, Job, JobEvent, JobHandle, JobSettings, JobState};
use purlin_runner::translate::{PlanOptions, plan};
use tokio::sync::Notify;

/// A bundle of one element that lasts, on a worker that answers splits like this. Returns how often it was asked within
/// twenty seconds, and the warnings. The job must end well, with the element processed once.
async fn split(answer: ProcessBundleSplitResponse) -> (usize, Vec<String>) {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("slow", "start", &[]);
    let processed = Arc::new(AtomicU32::new(0));
    let count = processed.clone();
    factory.functions.set("slow", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let release = Arc::new(Notify::new());
    factory.blocked = Some(("slow".to_owned(), release.clone()));
    factory.progress = Some(ProcessBundleProgressResponse::default());
    factory.split = Some(answer);
    let splits = factory.splits.clone();
    let job = start(&builder, factory).await;
    release.notify_one();
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    assert_eq!(processed.load(Ordering::SeqCst), 1);
    let asked = splits.lock().len();
    (asked, warnings(&job).await)
}

/// Starts a job on one worker with room for several bundles. Time stands still while there is work: after these twenty
/// seconds the splits have come.
async fn start(builder: &Builder, factory: Factory) -> JobHandle {
    let options = PlanOptions {
        workers: 1,
        slots_per_worker: 4,
        ..PlanOptions::default()
    };
    let plan = plan(&builder.pipeline, &options).unwrap_or_else(|error| panic!("{error}"));
    let job = Job::start(plan, Arc::new(factory), JobSettings::default());
    tokio::time::sleep(Duration::from_secs(20)).await;
    job
}

async fn warnings(job: &JobHandle) -> Vec<String> {
    let warnings = job.events().filter_map(|event| async move {
        match event {
            JobEvent::Message(message) if message.importance >= Importance::Warning => Some(message.text),
            _ => None,
        }
    });
    warnings.collect().await
}

fn channel(transform: &str, last_primary_element: i64, first_residual_element: i64) -> ChannelSplit {
    ChannelSplit {
        transform_id: transform.to_owned(),
        last_primary_element,
        first_residual_element,
    }
}

fn residual(transform: &str) -> DelayedBundleApplication {
    DelayedBundleApplication {
        application: Some(BundleApplication {
            transform_id: transform.to_owned(),
            ..Default::default()
        }),
        requested_time_delay: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundles_one_channel_is_meant_whatever_it_is_called() {
    for name in ["", "start/Read", "another"] {
        let answer = ProcessBundleSplitResponse {
            channel_splits: vec![channel(name, 0, 1)],
            ..Default::default()
        };
        let (asked, warnings) = split(answer).await;
        assert!(asked > 1, "{name:?}: asked {asked} times");
        assert_eq!(warnings, [""; 0], "{name:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_a_split_declined() {
    let (asked, warnings) = split(ProcessBundleSplitResponse::default()).await;
    assert!(asked > 1, "asked {asked} times");
    assert_eq!(warnings, [""; 0]);
}

/// The worker may have given up the element in each of these: it is processed all the same.
#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_used_runs_the_bundle_again_and_fails_nothing() {
    let given_back = |residual_roots| ProcessBundleSplitResponse {
        channel_splits: vec![channel("", -1, 1)],
        residual_roots,
        ..Default::default()
    };
    let channels = |channel_splits| ProcessBundleSplitResponse {
        channel_splits,
        ..Default::default()
    };
    let answers = [
        (
            "several channels",
            channels(vec![channel("", -1, 0), channel("a", -1, 0)]),
        ),
        ("before the first element", channels(vec![channel("", -1, -5)])),
        (
            "kept up to 0 and given back from 0",
            channels(vec![channel("", 0, 0)]),
        ),
        ("one of its parts", given_back(Vec::new())),
        (
            "without its element",
            given_back(vec![DelayedBundleApplication::default()]),
        ),
        ("\"moon\"", given_back(vec![residual("moon")])),
        (
            "of no element",
            ProcessBundleSplitResponse {
                residual_roots: vec![residual("slow")],
                ..Default::default()
            },
        ),
    ];
    for (reason, answer) in answers {
        let (asked, warnings) = split(answer).await;
        assert_eq!(asked, 1, "{reason}");
        assert_eq!(warnings.len(), 1, "{reason}: {warnings:?}");
        assert!(
            warnings[0].contains(reason),
            "{reason} is missing in {warnings:?}"
        );
    }
}

/// Nobody knows what the worker would have answered, so that the bundle's result does not count.
#[tokio::test(start_paused = true)]
async fn a_finished_bundle_waits_ten_seconds_for_the_answer_and_then_runs_again() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("slow", "start", &[]);
    let processed = Arc::new(AtomicU32::new(0));
    let count = processed.clone();
    factory.functions.set("slow", move |_, context| {
        count.fetch_add(1, Ordering::SeqCst);
        context.finalize = true;
        Ok(())
    });
    let release = Arc::new(Notify::new());
    factory.blocked = Some(("slow".to_owned(), release.clone()));
    factory.progress = Some(ProcessBundleProgressResponse::default());
    factory.ignores_splits = true;
    let (splits, finalized) = (factory.splits.clone(), factory.finalized.clone());
    let job = start(&builder, factory).await;
    release.notify_one();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(processed.load(Ordering::SeqCst), 1);
    assert_eq!(job.state(), JobState::Running);
    release.notify_one();
    let ended = tokio::time::timeout(Duration::from_secs(60), job.wait());
    assert_eq!(ended.await, Ok(JobState::Done), "{:?}", job.error());
    assert_eq!(processed.load(Ordering::SeqCst), 2);
    assert_eq!(splits.lock().len(), 1);
    assert_eq!(finalized.lock().len(), 1);
    let warnings = warnings(&job).await;
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains("there is none, 10 s after the end of the bundle")),
        "{warnings:?}"
    );
}
