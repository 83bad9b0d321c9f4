//! Jobs on a worker in this process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::support::{Builder, Context, Factory, Functions, spec};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use purlin_model::{Coder, PaneInfo, Timer, TimerFiring, Timestamp, Window, Windows, wire};
use purlin_proto::fn_execution::state_key::{BagUserState, IterableSideInput, MultimapSideInput, Type};
use purlin_proto::pipeline::{self, MonitoringInfo, ParDoPayload};
use purlin_proto::urns;
use purlin_runner::job::{Importance, Job, JobEvent, JobHandle, JobSettings, JobState, Message};
use purlin_runner::translate::{PlanOptions, plan};
use purlin_runner::worker::WorkerError;
use tokio::sync::{Notify, Semaphore};

fn start(builder: &Builder, factory: Factory) -> JobHandle {
    start_with(builder, factory, &[])
}

fn start_with(builder: &Builder, factory: Factory, pipeline_options: &[(&str, &str)]) -> JobHandle {
    let pipeline_options = pipeline_options.iter().map(|(name, value)| {
        let kind = Some(Kind::StringValue((*value).to_owned()));
        (format!("beam:option:{name}:v1"), Value { kind })
    });
    let options = PlanOptions {
        workers: 1,
        slots_per_worker: 4,
        ..PlanOptions::default()
    };
    let plan = plan(&builder.pipeline, &options).unwrap_or_else(|error| panic!("{error}"));
    Job::start(
        plan,
        Arc::new(factory),
        JobSettings {
            job_id: "job".into(),
            pipeline_options: Struct {
                fields: pipeline_options.collect(),
            },
            ..Default::default()
        },
    )
}

fn bytes(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::write_bytes(value, &mut out, true);
    out
}

fn kv(key: &str, value: &str) -> Vec<u8> {
    [bytes(key.as_bytes()), bytes(value.as_bytes())].concat()
}

fn text(mut encoded: &[u8]) -> String {
    String::from_utf8(wire::read_bytes(&mut encoded, true).unwrap().to_vec()).unwrap()
}

/// Emits each word of a text.
fn emit_words(functions: &Functions, id: &str, words: &'static str) {
    functions.set(id, move |_, context| {
        words
            .split(' ')
            .for_each(|word| context.emit(bytes(word.as_bytes())));
        Ok(())
    });
}

fn emit_pairs(functions: &Functions, id: &str, pairs: &'static [(&'static str, &'static str)]) {
    functions.set(id, move |_, context| {
        pairs.iter().for_each(|(key, value)| context.emit(kv(key, value)));
        Ok(())
    });
}

/// Keeps the texts that a transform gets.
fn keep(functions: &Functions, id: &str) -> Arc<Mutex<Vec<String>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let own = kept.clone();
    functions.set(id, move |value, _| {
        own.lock().push(text(value));
        Ok(())
    });
    kept
}

fn sorted(kept: &Arc<Mutex<Vec<String>>>) -> Vec<String> {
    let mut all = kept.lock().clone();
    all.sort();
    all
}

fn failed(message: &str) -> WorkerError {
    WorkerError::Failed(message.to_owned())
}

/// The key of a group, and how many values it has.
fn key_and_count(group: &[u8]) -> (&[u8], usize) {
    let coder = Coder::kv(Coder::Bytes, Coder::iterable(Coder::Bytes));
    let (key, values) = coder.split_kv(group).unwrap();
    let elements = coder.as_kv().unwrap().1.iterable_elements(values);
    (key, elements.unwrap().count())
}

fn word_count(builder: &mut Builder, functions: &Functions) -> Arc<Mutex<BTreeMap<String, usize>>> {
    builder.impulse("start");
    builder.collection("words", "bytes");
    builder.collection("pairs", "kv");
    builder.collection("groups", "grouped");
    builder.par_do("split", "start", &["words"]);
    builder.par_do("pair", "words", &["pairs"]);
    builder.group("group", "pairs", "groups");
    builder.par_do("count", "groups", &[]);
    emit_words(functions, "split", "to be or not to be");
    functions.set("pair", |word, context| {
        context.emit([word, &bytes(b"1")].concat());
        Ok(())
    });
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let own = counts.clone();
    functions.set("count", move |group, _| {
        let (word, count) = key_and_count(group);
        own.lock().insert(text(word), count);
        Ok(())
    });
    counts
}

fn expected_counts() -> BTreeMap<String, usize> {
    [("be", 2), ("not", 1), ("or", 1), ("to", 2)]
        .into_iter()
        .map(|(word, n)| (word.to_owned(), n))
        .collect()
}

#[tokio::test]
async fn what_a_job_ran_on_goes_at_its_end_and_what_is_shown_stays() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    word_count(&mut builder, &factory.functions);
    // The engine, and with it the job's data, lives as long as what starts the job's workers.
    let data = Arc::downgrade(&factory.started);
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done);
    assert!(data.upgrade().is_none(), "the job's data are kept");
    assert!(job.kept_bytes() < 1 << 20);
    assert!(job.samples(Vec::new()).await.element_samples.is_empty());
    assert!(job.worker_statuses().await.is_empty());
}

#[tokio::test]
async fn workers_that_are_asked_while_the_job_ends_are_none_of_its_workers() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    word_count(&mut builder, &factory.functions);
    let (counting, telling) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    factory.blocked = Some(("count".into(), Arc::clone(&counting)));
    factory.status = Some(Arc::clone(&telling));
    let job = start(&builder, factory);
    // Until there is a worker that does not answer at once.
    while job.worker_statuses().now_or_never().is_some() {
        tokio::task::yield_now().await;
    }
    let end = async {
        counting.notify_one();
        assert_eq!(job.wait().await, JobState::Done);
        telling.add_permits(1);
    };
    let (statuses, ()) = tokio::join!(job.worker_statuses(), end);
    let told: Vec<_> = statuses.iter().map(|worker| &worker.status).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn words_are_counted() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    let counts = word_count(&mut builder, &factory.functions);
    let (started, stopped) = (factory.started.clone(), factory.stopped.clone());
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done);
    assert_eq!(*counts.lock(), expected_counts());
    let states: Vec<JobState> = job.history().into_iter().map(|change| change.state).collect();
    assert_eq!(states, [JobState::Starting, JobState::Running, JobState::Done]);
    assert_eq!(
        (started.load(Ordering::SeqCst), stopped.load(Ordering::SeqCst)),
        (1, 1)
    );
    // Listening late gives the same, and ends.
    let replayed: Vec<JobState> = job.states().map(|change| change.state).collect().await;
    assert_eq!(replayed, states);
}

#[tokio::test]
async fn a_failing_bundle_is_tried_four_times_and_its_error_reaches_the_user() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("My/Broken", "start", &[]);
    let tries = Arc::new(AtomicU32::new(0));
    let own = tries.clone();
    factory.functions.set("My/Broken", move |_, _| {
        own.fetch_add(1, Ordering::SeqCst);
        Err(failed("Traceback\n  line 1\nValueError: user's own"))
    });
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Failed);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    let events: Vec<JobEvent> = job.events().collect().await;
    let [.., JobEvent::Message(message), JobEvent::State(last)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(last.state, JobState::Failed);
    assert_eq!(message.importance, Importance::Error);
    for part in ["Traceback\n  line 1\nValueError: user's own", "My/Broken", "4"] {
        assert!(message.text.contains(part), "{part} in {}", message.text);
    }
    assert_eq!(job.error().as_ref(), Some(&message.text));
    // The user's error comes once, and its last line is the last but for the transform's name; before, one line says what happens.
    assert!(
        message
            .text
            .ends_with("ValueError: user's own (in stage \"My/Broken\")"),
        "{}",
        message.text
    );
    let told = events.iter().filter_map(|event| match event {
        JobEvent::Message(message) if message.importance >= Importance::Basic => Some(&*message.text),
        _ => None,
    });
    let told: Vec<&str> = told.collect();
    assert_eq!(
        told.iter().filter(|text| text.contains("user's own")).count(),
        1,
        "{told:#?}"
    );
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("is tried again"), "{told:#?}");
}

#[tokio::test]
async fn errors_that_workers_log_are_told_unless_a_bundle_failed_of_them() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("Broken", "start", &[]);
    let job = Arc::new(OnceLock::<JobHandle>::new());
    let own = job.clone();
    factory.functions.set("Broken", move |_, _| {
        if let Some(job) = own.get() {
            job.worker_error("", "failed: user's own".into());
            job.worker_error("", "the disk is full".into());
        }
        Err(failed("user's own"))
    });
    let started = start(&builder, factory);
    job.set(started.clone()).unwrap();
    assert_eq!(started.wait().await, JobState::Failed);
    let messages: Vec<Message> = started.messages().collect().await;
    let told: Vec<&Message> = messages
        .iter()
        .filter(|message| message.importance >= Importance::Basic)
        .collect();
    let own: Vec<_> = told
        .iter()
        .filter(|message| message.text.contains("user's own"))
        .collect();
    assert_eq!(own.len(), 1, "{told:#?}");
    assert_eq!(own[0].importance, Importance::Error);
    assert!(
        told.iter().any(|message| message.text == "the disk is full"),
        "{told:#?}"
    );
}

#[tokio::test]
async fn a_bundle_that_fails_once_and_a_lost_worker_do_no_harm() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    let counts = word_count(&mut builder, &factory.functions);
    let tries = Arc::new(AtomicU32::new(0));
    factory.functions.set("split", move |_, context| {
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(failed("not yet")),
            1 => Err(WorkerError::Lost {
                worker: "w".into(),
                reason: "it was killed".into(),
            }),
            _ => {
                "to be or not to be"
                    .split(' ')
                    .for_each(|word| context.emit(bytes(word.as_bytes())));
                Ok(())
            }
        }
    });
    let (started, stopped) = (factory.started.clone(), factory.stopped.clone());
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done);
    assert_eq!(*counts.lock(), expected_counts());
    assert_eq!(
        (started.load(Ordering::SeqCst), stopped.load(Ordering::SeqCst)),
        (2, 2)
    );
    let messages: Vec<Message> = job.messages().collect().await;
    let (details, warnings): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .partition(|message| message.importance < Importance::Basic);
    assert!(
        details.iter().any(|message| message.text.contains("not yet")),
        "{details:#?}"
    );
    let [again, killed, count] = &warnings[..] else {
        panic!("{warnings:#?}")
    };
    assert!(again.text.contains("is tried again"), "{again:?}");
    assert!(killed.text.contains("it was killed"), "{killed:?}");
    assert!(count.text.starts_with("2 attempts"), "{count:?}");
}

#[tokio::test]
async fn a_worker_that_cannot_start_fails_the_job_with_the_reason() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("any", "start", &[]);
    factory.broken = Some("no pool at localhost:1; start one".to_owned());
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Failed);
    assert!(job.error().unwrap().contains("no pool at localhost:1; start one"));
}

/// A pipeline of an impulse and a ParDo.
fn one_step(factory: &Factory) -> Builder {
    let mut builder = Builder::new();
    builder.impulse("start");
    builder.par_do("step", "start", &[]);
    factory.functions.set("step", |_, _| Ok(()));
    builder
}

async fn warnings(job: &JobHandle) -> Vec<String> {
    let messages = job.messages().filter_map(|message| async move {
        (message.importance >= Importance::Warning).then_some(message.text)
    });
    messages.collect().await
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_as_it_starts_is_started_again() {
    let factory = Factory {
        deaths: Mutex::new(3),
        ..Factory::default()
    };
    let (builder, started) = (one_step(&factory), factory.started.clone());
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    assert_eq!(started.load(Ordering::SeqCst), 4);
    let warnings = warnings(&job).await;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[2].contains("start 3 ended by signal 9"), "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_always_dies_as_it_starts_fails_the_job() {
    let factory = Factory {
        deaths: Mutex::new(u32::MAX),
        ..Factory::default()
    };
    let (builder, started) = (one_step(&factory), factory.started.clone());
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Failed);
    assert_eq!(started.load(Ordering::SeqCst), 4);
    let error = job.error().unwrap();
    assert!(
        error.contains("4 tries") && error.contains("start 4 ended by signal 9"),
        "{error}"
    );
}

#[tokio::test]
async fn the_end_of_the_program_that_submitted_a_job_cancels_it() {
    let factory = Factory {
        loses_first: true,
        gone_from: Some(2),
        ..Factory::default()
    };
    let job = start(&one_step(&factory), factory);
    assert_eq!(job.wait().await, JobState::Cancelled, "{:?}", job.error());
    let warnings = warnings(&job).await;
    assert!(
        warnings.iter().any(|text| text.contains("the launcher is gone")),
        "{warnings:?}"
    );
    assert_eq!(job.error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_never_tells_what_short_ids_mean_holds_up_nothing_for_long() {
    let factory = Factory {
        silent: true,
        ..Factory::default()
    };
    let job = start(&one_step(&factory), factory);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(3600), job.wait()).await;
    assert_eq!(ended, Ok(JobState::Done));
}

#[tokio::test]
async fn a_job_can_be_cancelled() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("slow", "start", &[]);
    factory.blocked = Some(("slow".to_owned(), Arc::new(Notify::new())));
    let job = start(&builder, factory);
    job.cancel();
    job.cancel();
    assert_eq!(job.wait().await, JobState::Cancelled);
    let states: Vec<JobState> = job.history().into_iter().map(|change| change.state).collect();
    assert_eq!(
        states,
        [
            JobState::Starting,
            JobState::Running,
            JobState::Cancelling,
            JobState::Cancelled
        ]
    );
}

#[tokio::test]
async fn side_inputs_are_read_by_pages_and_by_key() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.collection("side", "kv");
    builder.par_do("make", "start", &["side"]);
    let side = |urn: &str| pipeline::SideInput {
        access_pattern: spec(urn, Vec::new()),
        ..Default::default()
    };
    let payload = ParDoPayload {
        side_inputs: [
            ("all".to_owned(), side(urns::side_inputs::ITERABLE)),
            ("by_key".to_owned(), side(urns::side_inputs::MULTIMAP)),
        ]
        .into(),
        ..Default::default()
    };
    builder.par_do_with(
        "use",
        &[("main", "start"), ("all", "side"), ("by_key", "side")],
        &[],
        payload,
    );
    let large = "x".repeat(3 << 20);
    let own = large.clone();
    factory.functions.set("make", move |_, context| {
        for (key, value) in [("a", "1"), ("b", &own), ("a", "2"), ("c", &own)] {
            context.emit(kv(key, value));
        }
        Ok(())
    });
    let seen = Arc::new(Mutex::new(None));
    let own = seen.clone();
    factory.functions.set("use", move |_, context| {
        let names = |id: &str| ("use".to_owned(), id.to_owned());
        let (transform_id, side_input_id) = names("all");
        let all = context.get(Type::IterableSideInput(IterableSideInput {
            transform_id,
            side_input_id,
            window: "".into(),
        }));
        let (transform_id, side_input_id) = names("by_key");
        let key = bytes(b"a").into();
        let some = context.get(Type::MultimapSideInput(MultimapSideInput {
            transform_id,
            side_input_id,
            window: "".into(),
            key,
        }));
        *own.lock() = Some((all, some));
        Ok(())
    });
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    let (all, some) = seen.lock().take().unwrap();
    assert_eq!(some, [bytes(b"1"), bytes(b"2")].concat());
    let mut keys = Vec::new();
    let mut rest = &all[..];
    while !rest.is_empty() {
        keys.push(text(wire_take(&mut rest)));
        wire_take(&mut rest);
    }
    keys.sort();
    assert_eq!(keys, ["a", "a", "b", "c"]);
}

fn wire_take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    Coder::Bytes.take(rest, true).unwrap()
}

fn bag(transform: &str, key: &[u8]) -> Type {
    Type::BagUserState(BagUserState {
        transform_id: transform.to_owned(),
        user_state_id: "seen".to_owned(),
        window: "".into(),
        key: key.to_vec().into(),
    })
}

#[tokio::test]
async fn state_and_timers_by_key() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.collection("pairs", "kv");
    builder.collection("results", "bytes");
    builder.coder("timer", urns::coders::TIMER, &["bytes", "global"]);
    builder.par_do("make", "start", &["pairs"]);
    emit_pairs(&factory.functions, "make", &[("a", "1"), ("b", "2"), ("a", "3")]);
    let bag_spec = pipeline::BagStateSpec {
        element_coder_id: "bytes".to_owned(),
    };
    let payload = ParDoPayload {
        state_specs: [(
            "seen".to_owned(),
            pipeline::StateSpec {
                spec: Some(pipeline::state_spec::Spec::BagSpec(bag_spec)),
                protocol: None,
            },
        )]
        .into(),
        timer_family_specs: [(
            "end".to_owned(),
            pipeline::TimerFamilySpec {
                time_domain: pipeline::time_domain::Enum::EventTime.into(),
                timer_family_coder_id: "timer".to_owned(),
            },
        )]
        .into(),
        ..Default::default()
    };
    builder.par_do_with("sum", &[("main", "pairs")], &["results"], payload);
    builder.par_do("keep", "results", &[]);
    factory.functions.set("sum", |pair, context| {
        let (key, value) = Coder::kv(Coder::Bytes, Coder::Bytes)
            .split_kv(pair)
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .unwrap();
        context.append(bag("sum", &key), value);
        let timer = Timer {
            user_key: key.into(),
            dynamic_tag: String::new(),
            windows: Windows::One(Window::Global),
            firing: Some(TimerFiring {
                fire_timestamp: Timestamp::END_OF_GLOBAL_WINDOW,
                hold_timestamp: Timestamp::END_OF_GLOBAL_WINDOW,
                pane: PaneInfo::NO_FIRING,
            }),
        };
        context.timers.push(("end".to_owned(), timer));
        Ok(())
    });
    factory
        .functions
        .set("sum/end", |key, context: &mut Context<'_>| {
            let seen = context.get(bag("sum", key));
            let mut rest = &seen[..];
            let mut sum = 0;
            while !rest.is_empty() {
                sum += text(wire_take(&mut rest)).parse::<i32>().unwrap();
            }
            context.emit(bytes(format!("{}: {sum}", text(key)).as_bytes()));
            Ok(())
        });
    let kept = keep(&factory.functions, "keep");
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    assert_eq!(sorted(&kept), ["a: 4", "b: 2"]);
}

fn splittable(builder: &mut Builder, bounded: bool) {
    builder.impulse("start");
    builder.collection("numbers", "bytes");
    let payload = ParDoPayload {
        restriction_coder_id: "bytes".to_owned(),
        ..Default::default()
    };
    builder.par_do_with("read", &[("main", "start")], &["numbers"], payload);
    builder.par_do("keep", "numbers", &[]);
    if !bounded {
        let numbers = builder.components().pcollections.get_mut("numbers").unwrap();
        numbers.is_bounded = pipeline::is_bounded::Enum::Unbounded.into();
    }
}

/// Pair and split of a restriction that is a number of one digit.
fn sdf_functions(functions: &Functions) {
    functions.set("read/pair", |element, context| {
        context.emit([element, &bytes(b"0")].concat());
        Ok(())
    });
    functions.set("read/split", |pair, context| {
        context.emit([pair, &1f64.to_be_bytes()].concat());
        Ok(())
    });
}

#[tokio::test]
async fn a_splittable_dofn_goes_on_where_it_stopped() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    splittable(&mut builder, true);
    sdf_functions(&factory.functions);
    factory.functions.set("read/process", |sized, context| {
        // KV<KV<element, restriction>, size>: the element is empty.
        let digit = sized[2];
        context.emit(bytes(&[digit]));
        context.finalize = true;
        if digit < b'3' {
            let mut rest = sized.to_vec();
            rest[2] += 1;
            context.residuals.push((rest, 0, Some(i64::from(digit))));
            // A harness need not say whose it is: only one transform reads the bundle's input.
            context.unnamed = digit == b'1';
        }
        Ok(())
    });
    let kept = keep(&factory.functions, "keep");
    let finalized = factory.finalized.clone();
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    assert_eq!(sorted(&kept), ["0", "1", "2", "3"]);
    assert_eq!(finalized.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_endless_source_can_be_drained() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    splittable(&mut builder, false);
    sdf_functions(&factory.functions);
    let rounds = Arc::new(AtomicU32::new(0));
    let (own, enough) = (rounds.clone(), Arc::new(Notify::new()));
    let notify = enough.clone();
    factory.functions.set("read/process", move |sized, context| {
        context.emit(bytes(b"tick"));
        if own.fetch_add(1, Ordering::SeqCst) == 2 {
            notify.notify_one();
        }
        context.residuals.push((sized.to_vec(), 1000, Some(0)));
        Ok(())
    });
    // What is left is cut to nothing.
    factory.functions.set("read/truncate", |_, _| Ok(()));
    let kept = keep(&factory.functions, "keep");
    let job = start(&builder, factory);
    enough.notified().await;
    job.drain();
    assert_eq!(job.wait().await, JobState::Drained, "{:?}", job.error());
    assert!(kept.lock().len() >= 3);
    assert!(
        job.history()
            .iter()
            .any(|change| change.state == JobState::Draining)
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_idle_within_its_job_is_stopped() {
    // Milliseconds until the source goes on, and what is done until then: workers started and stopped.
    let rounds = [
        (500, (1, 0)),
        (500, (1, 0)),
        (5000, (1, 0)),
        (500, (2, 1)),
        (5000, (2, 1)),
        (0, (3, 2)),
    ];
    for (options, expected) in [
        (vec![("environment_cache_millis", "1000")], (3, 3)),
        (vec![("environment_cache_millis", "0")], (1, 1)),
        (vec![], (1, 1)),
    ] {
        let (mut builder, factory) = (Builder::new(), Factory::default());
        splittable(&mut builder, false);
        sdf_functions(&factory.functions);
        let (started, stopped) = (factory.started.clone(), factory.stopped.clone());
        let counts = move || (started.load(Ordering::SeqCst), stopped.load(Ordering::SeqCst));
        let (seen, counted) = (Arc::new(Mutex::new(Vec::new())), counts.clone());
        let own = seen.clone();
        factory.functions.set("read/process", move |sized, context| {
            let mut seen = own.lock();
            let delay = rounds[seen.len()].0;
            seen.push(counted());
            context.emit(bytes(b"tick"));
            if seen.len() < rounds.len() {
                context.residuals.push((sized.to_vec(), delay, Some(0)));
            }
            Ok(())
        });
        let kept = keep(&factory.functions, "keep");
        let job = start_with(&builder, factory, &options);
        assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
        assert_eq!(kept.lock().len(), rounds.len());
        assert_eq!(counts(), expected, "{options:?}");
        let stops = expected.1 > 1;
        let wanted: Vec<_> = rounds
            .iter()
            .map(|(_, counts)| if stops { *counts } else { (1, 0) })
            .collect();
        assert_eq!(*seen.lock(), wanted, "{options:?}");
    }
}

#[tokio::test]
async fn windows_of_the_users_own_are_merged_by_the_sdk() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.coder("mine", "test:window", &[]);
    builder.windowing("merging", "test:merging", b"fn".to_vec(), "mine");
    let strategy = builder
        .components()
        .windowing_strategies
        .get_mut("merging")
        .unwrap();
    strategy.merge_status = pipeline::merge_status::Enum::NeedsMerge.into();
    builder.impulse("start");
    builder.windowed("pairs", "kv", "merging");
    builder.windowed("groups", "grouped", "merging");
    builder.par_do("make", "start", &["pairs"]);
    builder.group("group", "pairs", "groups");
    builder.par_do("keep", "groups", &[]);
    let window = |name: &str| Window::Custom {
        max_timestamp: Timestamp(1000),
        encoded: bytes(name.as_bytes()).into(),
    };
    let (one, two, both) = (window("one"), window("two"), window("both"));
    let windows = [one.clone(), two.clone()];
    factory.functions.set("make", move |_, context| {
        for (index, window) in windows.iter().enumerate() {
            let mut header = context.header.clone();
            header.windows = Windows::One(window.clone());
            header.timestamp = Timestamp(0);
            context.out.push((header, kv("k", &index.to_string())));
        }
        Ok(())
    });
    // KV<nonce, windows> -> KV<nonce, KV<unmerged, [KV<merged, originals>]>>
    factory.functions.set("Windows", move |asked, context| {
        assert_eq!(asked[1..5], 2i32.to_be_bytes());
        let mut answer = bytes(b"");
        answer.extend(0i32.to_be_bytes());
        answer.extend(1i32.to_be_bytes());
        both.encode(&mut answer);
        answer.extend(2i32.to_be_bytes());
        one.encode(&mut answer);
        two.encode(&mut answer);
        context.emit(answer);
        Ok(())
    });
    let groups = Arc::new(Mutex::new(Vec::new()));
    let own = groups.clone();
    factory.functions.set("keep", move |group, context| {
        let (_, count) = key_and_count(group);
        own.lock().push((context.header.windows.clone(), count));
        Ok(())
    });
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    assert_eq!(*groups.lock(), [(Windows::One(window("both")), 2)]);
}

#[tokio::test(start_paused = true)]
async fn bundles_that_last_tell_their_metrics() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("slow", "start", &[]);
    factory.functions.set("slow", |_, _| Ok(()));
    let release = Arc::new(Notify::new());
    factory.blocked = Some(("slow".to_owned(), release.clone()));
    let counter = seven("slow");
    let response = purlin_proto::fn_execution::ProcessBundleProgressResponse {
        monitoring_infos: vec![counter],
        ..Default::default()
    };
    factory.progress = Some(response);
    let job = start(&builder, factory);
    while job.metrics().attempted.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(job.metrics().committed.is_empty());
    assert_eq!(&job.metrics().attempted[0].payload[..], [7]);
    release.notify_one();
    assert_eq!(job.wait().await, JobState::Done);
    // The response told nothing, and it is what counts.
    assert!(job.metrics().attempted.is_empty());
}

/// A counter of a transform that stands at seven.
fn seven(transform: &str) -> MonitoringInfo {
    MonitoringInfo {
        urn: urns::metrics::USER_SUM_INT64.to_owned(),
        r#type: urns::metric_types::SUM_INT64_TYPE.to_owned(),
        payload: vec![7].into(),
        labels: [(urns::metric_labels::TRANSFORM.to_owned(), transform.to_owned())].into(),
        ..Default::default()
    }
}

/// A worker's metrics are told by short ids; a job does not wait for their meaning, but its end does.
#[tokio::test(start_paused = true)]
async fn what_comes_next_does_not_wait_for_the_meaning_of_metrics() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.collection("pairs", "kv");
    builder.collection("groups", "grouped");
    builder.par_do("make", "start", &["pairs"]);
    builder.group("group", "pairs", "groups");
    builder.par_do("take", "groups", &[]);
    emit_pairs(&factory.functions, "make", &[("k", "v")]);
    let told = Arc::new(Semaphore::new(0));
    let tell = told.clone();
    factory.functions.set("take", move |_, _| {
        tell.add_permits(1);
        Ok(())
    });
    let counter = seven("make");
    factory.metric = Some((counter, told));
    let job = start(&builder, factory);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), job.wait());
    assert_eq!(ended.await, Ok(JobState::Done));
    // Both bundles told the same.
    assert_eq!(&job.metrics().committed[0].payload[..], [14]);
}

/// The engine takes no residuals of a stage that has nothing to split: the bundle is tried again.
#[tokio::test]
async fn a_bundle_whose_result_is_refused_counts_once_and_is_finalized_once() {
    let (mut builder, mut factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("make", "start", &[]);
    let attempts = AtomicU32::new(0);
    factory.functions.set("make", move |_, context| {
        context.finalize = true;
        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            context.residuals.push((Vec::new(), 0, None));
            context.unnamed = true;
        }
        Ok(())
    });
    let counter = seven("make");
    factory.metric = Some((counter, Arc::new(Semaphore::new(10))));
    let finalized = factory.finalized.clone();
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done, "{:?}", job.error());
    assert_eq!(&job.metrics().committed[0].payload[..], [7]);
    assert_eq!(&job.metrics().attempted[0].payload[..], [14]);
    assert_eq!(finalized.lock().len(), 1);
}

#[tokio::test]
async fn a_worker_that_writes_nonsense_fails_its_bundle() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.collection("bad", "kv");
    builder.collection("groups", "grouped");
    builder.par_do("make", "start", &["bad"]);
    builder.group("group", "bad", "groups");
    factory.functions.set("make", |_, context| {
        context.emit(vec![0xff, 0xff]);
        Ok(())
    });
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Failed);
    assert!(job.error().unwrap().contains("bad/Write"), "{:?}", job.error());
}

#[tokio::test]
async fn the_runner_does_not_trust_state_keys() {
    let (mut builder, factory) = (Builder::new(), Factory::default());
    builder.impulse("start");
    builder.par_do("any", "start", &[]);
    let errors = Arc::new(Mutex::new(Vec::new()));
    let own = errors.clone();
    factory.functions.set("any", move |_, context| {
        use purlin_proto::fn_execution as fnapi;
        let get = || Some(fnapi::state_request::Request::Get(Default::default()));
        let runner = fnapi::StateKey {
            r#type: Some(Type::Runner(fnapi::state_key::Runner { key: "x".into() })),
        };
        let other = fnapi::StateKey {
            r#type: Some(bag("nobody", b"k")),
        };
        let stateless = fnapi::StateKey {
            r#type: Some(bag("any", b"k")),
        };
        for (key, request) in [
            (None, get()),
            (Some(runner), get()),
            (Some(other), get()),
            (Some(stateless.clone()), None),
            (Some(stateless), get()),
        ] {
            let request = fnapi::StateRequest {
                id: "7".into(),
                state_key: key,
                request,
                ..Default::default()
            };
            let response = context.state.handle(request);
            assert_eq!(response.id, "7");
            own.lock().push(response.error);
        }
        Ok(())
    });
    let job = start(&builder, factory);
    assert_eq!(job.wait().await, JobState::Done);
    let errors = errors.lock();
    assert!(
        errors.len() == 5 && errors.iter().all(|error| !error.is_empty()),
        "{errors:?}"
    );
}
