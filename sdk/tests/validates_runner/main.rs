//! One suite of pipelines for all runners: what Beam's ValidatesRunner categories ask for.
//!
//! ```text
//! cargo test -p purlin --test validates_runner                  # the embedded runner, with bundles of several sizes
//! cargo test -p purlin --test validates_runner -- --runner=PortableRunner --job_endpoint=localhost:8099 [FILTER]
//! ```
//!
//! With `--beams=python`, `prism`, `flink` or `flink-streaming` the runner is one of Beam's own: what that cannot do must fail
//! there. Each case runs in a process of its own, which is also how a worker process finds the case's pipeline again.

mod core;
mod custom_windows;
mod splittable;
mod state;
mod stream;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purlin::options::{PipelineOptions, RunnerKind};

/// Runs the suite.
#[derive(Clone, Debug, clap::Parser)]
struct Options {
    /// Run the cases whose category or name has this in it
    filters: Vec<String>,
    /// Run this one case, in this process
    #[arg(long)]
    case: Option<String>,
    /// An empty folder for this case
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// The runner is this one of Beam's own
    #[arg(long)]
    beams: Option<Beams>,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Cases that run at a time
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[command(flatten)]
    pipeline: PipelineOptions,
}

/// Runners of Beam.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Beams {
    Python,
    Prism,
    Flink,
    /// Flink, with `--streaming`.
    FlinkStreaming,
}

/// A pipeline, and what must come of it. It panics where something else does.
struct Case {
    category: &'static str,
    name: &'static str,
    run: fn(&PipelineOptions),
    /// Why Beam's Python job service cannot do it.
    not_on_beam_python: Option<&'static str>,
    /// Why Prism cannot do it.
    not_on_prism: Option<&'static str>,
    /// Why Flink cannot do it in batch.
    not_on_flink: Option<&'static str>,
    /// Why Flink cannot do it in streaming.
    not_on_flink_streaming: Option<&'static str>,
}

const fn case(category: &'static str, name: &'static str, run: fn(&PipelineOptions)) -> Case {
    Case {
        category,
        name,
        run,
        not_on_beam_python: None,
        not_on_prism: None,
        not_on_flink: None,
        not_on_flink_streaming: None,
    }
}

impl Case {
    const fn not_on_beam_python(mut self, why: &'static str) -> Case {
        self.not_on_beam_python = Some(why);
        self
    }

    const fn not_on_prism(mut self, why: &'static str) -> Case {
        self.not_on_prism = Some(why);
        self
    }

    const fn not_on_flink(mut self, why: &'static str) -> Case {
        self.not_on_flink = Some(why);
        self
    }

    const fn not_on_flink_streaming(mut self, why: &'static str) -> Case {
        self.not_on_flink_streaming = Some(why);
        self
    }

    fn not_on(&self, runner: Beams) -> Option<&'static str> {
        match runner {
            Beams::Python => self.not_on_beam_python,
            Beams::Prism => self.not_on_prism,
            Beams::Flink => self.not_on_flink,
            Beams::FlinkStreaming => self.not_on_flink_streaming,
        }
    }
}

const NO_MAP_KEYS: &str = "it has no multimap_keys and multimap_entries state";
const NO_TEST_STREAM: &str = "it refuses TestStream";
const NO_EXPIRATION: &str = "it refuses the requirement of on_window_expiration";
const NO_TIME_SORTED: &str = "it refuses the requirement of time-sorted input";
const NO_MERGED: &str = "it refuses merged windows of a window function that it does not know";
const NO_FOREIGN_WINDOWS: &str = "it takes windows to objects, by coders that it must know itself";
const NO_DRAIN: &str = "it drains no pipelines";
const NO_STABLE: &str = "it refuses the requirement of stable input";

const PRISM_NO_ENTRIES: &str = "it panics at multimap_entries state";
const PRISM_NO_STABLE: &str = "it refuses the requirement of stable input";
const PRISM_NO_MERGED: &str = "it refuses merged windows";
const PRISM_NO_FOREIGN_WINDOWS: &str = "it takes windows to objects, by coders that it must know itself";
const PRISM_NO_DRAIN: &str = "it drains no pipelines";
const PRISM_FINALIZES_FIRST: &str =
    "it asks for finalization where the transform comes first in its stage only";
const PRISM_EXPIRES_ONE: &str = "of several windows of a key that expire at once it forgets all but one";
const PRISM_NO_TRIGGERED_SIDES: &str = "it refuses side inputs of triggered global windows";
const PRISM_PANES: &str = "it fires panes that the trigger does not ask for";

const FLINK_FLATTENS: &str =
    "it flattens a collection and another one made of it: the second is never produced";
const FLINK_BATCH_NO_FINALIZERS: &str = "it refuses bundle finalizers in batch";
const FLINK_NO_MAPS: &str = "it has no map and multimap state";
const FLINK_NO_LISTS: &str = "it has no ordered list state";
const FLINK_NO_EXPIRATION: &str = "it does not call on_window_expiration";
const FLINK_NO_RETRIES: &str = "it tries nothing again without checkpoints";
const FLINK_NO_OWN_WINDOWS: &str = "it refuses window functions that it does not know";
const FLINK_NO_DRAIN: &str = "it drains no pipelines";
const FLINK_PANES: &str = "it fires an on-time pane without elements when a window ends for good";
const FLINK_STREAMING_FINALIZES_CHECKPOINTS: &str =
    "it calls bundle finalizers after checkpoints, of which there are none";
const FLINK_STREAMING_DROPS_TIMERS: &str = "it drops timers of the clock that are set when the source ends";
const FLINK_STREAMING_NO_TIME_SORTED: &str = "it refuses time-sorted input in streaming";
const FLINK_STREAMING_NO_STABLE: &str = "it refuses stable input without checkpoints";
const FLINK_NO_CLOCK: &str = "it refuses a TestStream that moves the clock";

static CASES: &[Case] = &[
    case("UsesImpulse", "impulse", core::impulse),
    case("NeedsRunner", "create", core::create),
    case("NeedsRunner", "par_do_chain", core::par_do_chain),
    case("NeedsRunner", "tagged_outputs", core::tagged_outputs),
    case("NeedsRunner", "flatten", core::flatten),
    case(
        "NeedsRunner",
        "flatten_of_one_collection_twice",
        core::flatten_twice,
    ),
    case(
        "FlattenWithHeterogeneousCoders",
        "flatten_of_other_producers",
        core::flatten_of_other_producers,
    )
    .not_on_flink(FLINK_FLATTENS)
    .not_on_flink_streaming(FLINK_FLATTENS),
    case("NeedsRunner", "group_by_key", core::group_by_key),
    case("NeedsRunner", "large_groups", core::large_groups),
    case(
        "NeedsRunner",
        "reshuffle_keeps_timestamps_and_windows",
        core::reshuffle,
    ),
    case("NeedsRunner", "combine_per_key_and_globally", core::combine),
    case("NeedsRunner", "co_group_by_key", core::co_group_by_key),
    case("NeedsRunner", "an_empty_collection", core::empty),
    case("LargeKeys.Above10KB", "keys_of_10_kb", core::keys_of_10_kb),
    case("LargeKeys.Above1MB", "keys_of_1_mb", core::keys_of_1_mb),
    case("UsesSideInputs", "side_inputs", core::side_inputs),
    case(
        "UsesSideInputsWithDifferentCoders",
        "side_inputs_of_other_types",
        core::side_inputs_of_other_types,
    ),
    case(
        "UsesSideInputs",
        "side_inputs_by_window",
        core::side_inputs_by_window,
    ),
    case(
        "UsesSideInputs",
        "side_inputs_by_sliding_window",
        core::side_inputs_by_sliding_window,
    ),
    case(
        "UsesParDoLifecycle",
        "setup_bundles_and_teardown",
        core::lifecycle,
    ),
    case("UsesFailureMessage", "the_users_error_is_told", core::failure),
    case("UsesFailureMessage", "a_panic_is_told", core::panics),
    case(
        "UsesAttemptedMetrics",
        "counters_and_distributions",
        core::metrics,
    ),
    case("UsesGaugeMetrics", "gauges", core::gauges),
    case(
        "UsesBundleFinalizer",
        "finalizers_are_called_after_the_commit",
        core::finalizers,
    )
    .not_on_flink(FLINK_BATCH_NO_FINALIZERS)
    .not_on_flink_streaming(FLINK_STREAMING_FINALIZES_CHECKPOINTS)
    .not_on_prism(PRISM_FINALIZES_FIRST),
    case("NeedsRunner", "fixed_windows", core::fixed_windows),
    case("NeedsRunner", "sliding_windows", core::sliding_windows),
    case("NeedsRunner", "sessions", core::sessions),
    case("NeedsRunner", "timestamp_combiners", core::timestamp_combiners),
    case("NeedsRunner", "code_that_waits", core::async_code),
    case("UsesKeyInParDo", "keys_of_all_types", core::keys_of_all_types),
    case("UsesStatefulParDo", "value_state", state::value_state),
    case("UsesStatefulParDo", "bag_state", state::bag_state),
    case("UsesStatefulParDo", "combining_state", state::combining_state),
    case("UsesSetState", "set_state", state::set_state),
    case("UsesMapState", "map_state", state::map_state)
        .not_on_flink(FLINK_NO_MAPS)
        .not_on_flink_streaming(FLINK_NO_MAPS)
        .not_on_prism(PRISM_NO_ENTRIES)
        .not_on_beam_python(NO_MAP_KEYS),
    case("UsesMapState", "map_state_by_key", state::map_state_by_key)
        .not_on_flink(FLINK_NO_MAPS)
        .not_on_flink_streaming(FLINK_NO_MAPS),
    case("UsesMultimapState", "multimap_state", state::multimap_state)
        .not_on_flink(FLINK_NO_MAPS)
        .not_on_flink_streaming(FLINK_NO_MAPS)
        .not_on_prism(PRISM_NO_ENTRIES)
        .not_on_beam_python(NO_MAP_KEYS),
    case(
        "UsesOrderedListState",
        "ordered_list_state",
        state::ordered_list_state,
    )
    .not_on_flink(FLINK_NO_LISTS)
    .not_on_flink_streaming(FLINK_NO_LISTS),
    case(
        "UsesTimersInParDo",
        "timers_fire_at_their_times",
        state::timers_fire_at_their_times,
    )
    .not_on_flink_streaming(FLINK_STREAMING_DROPS_TIMERS),
    case("UsesTimerMap", "timers_by_tag", state::timers_by_tag),
    case(
        "UsesLoopingTimer",
        "a_timer_that_sets_itself",
        state::a_timer_that_sets_itself,
    ),
    case(
        "UsesOnWindowExpiration",
        "window_expiration",
        state::a_window_expires_once_with_its_own_state,
    )
    .not_on_flink(FLINK_NO_EXPIRATION)
    .not_on_flink_streaming(FLINK_NO_EXPIRATION)
    .not_on_prism(PRISM_EXPIRES_ONE)
    .not_on_beam_python(NO_EXPIRATION),
    case(
        "UsesRequiresTimeSortedInput",
        "time_sorted_input",
        state::time_sorted_input,
    )
    .not_on_flink_streaming(FLINK_STREAMING_NO_TIME_SORTED)
    .not_on_beam_python(NO_TIME_SORTED),
    case("UsesStableInput", "stable_input", state::stable_input)
        .not_on_flink(FLINK_NO_RETRIES)
        .not_on_flink_streaming(FLINK_STREAMING_NO_STABLE)
        .not_on_prism(PRISM_NO_STABLE)
        .not_on_beam_python(NO_STABLE),
    case("UsesBoundedSplittableParDo", "restrictions", splittable::bounded),
    case(
        "UsesBoundedSplittableParDo",
        "initial_splits",
        splittable::initial_splits,
    ),
    case(
        "UsesBoundedSplittableParDo",
        "self_checkpoints",
        splittable::self_checkpoints,
    ),
    case(
        "UsesBoundedSplittableParDo",
        "side_inputs_and_outputs",
        splittable::side_inputs_and_outputs,
    ),
    case(
        "UsesBoundedSplittableParDo",
        "generate_sequence",
        splittable::generate_sequence,
    ),
    case(
        "UsesUnboundedSplittableParDo",
        "periodic_impulse",
        splittable::periodic_impulse,
    ),
    case(
        "UsesUnboundedSplittableParDo",
        "unbounded_source",
        splittable::unbounded_source,
    ),
    case(
        "UsesUnboundedPCollections",
        "unbounded_source_in_windows",
        splittable::unbounded_source,
    ),
    case("UsesUnboundedPCollections", "drain", splittable::drain)
        .not_on_flink(FLINK_NO_DRAIN)
        .not_on_flink_streaming(FLINK_NO_DRAIN)
        .not_on_prism(PRISM_NO_DRAIN)
        .not_on_beam_python(NO_DRAIN),
    case(
        "UsesCustomWindowMerging",
        "windows_of_the_users_own_type_merge",
        custom_windows::windows_of_the_users_own_type_merge,
    )
    .not_on_flink(FLINK_NO_OWN_WINDOWS)
    .not_on_flink_streaming(FLINK_NO_OWN_WINDOWS)
    .not_on_prism(PRISM_NO_MERGED)
    .not_on_beam_python(NO_MERGED),
    case(
        "NeedsRunner",
        "windows_of_the_users_own_type_group",
        custom_windows::windows_of_the_users_own_type_group,
    )
    .not_on_flink(FLINK_NO_OWN_WINDOWS)
    .not_on_flink_streaming(FLINK_NO_OWN_WINDOWS)
    .not_on_prism(PRISM_NO_FOREIGN_WINDOWS)
    .not_on_beam_python(NO_FOREIGN_WINDOWS),
    case(
        "UsesSideInputs",
        "side_inputs_in_windows_of_the_users_own",
        custom_windows::side_inputs_have_windows_of_the_users_own,
    )
    .not_on_flink(FLINK_NO_OWN_WINDOWS)
    .not_on_flink_streaming(FLINK_NO_OWN_WINDOWS)
    .not_on_prism(PRISM_NO_FOREIGN_WINDOWS)
    .not_on_beam_python(NO_FOREIGN_WINDOWS),
    case(
        "UsesStatefulParDo",
        "state_by_windows_of_the_users_own",
        custom_windows::state_is_kept_by_windows_of_the_users_own,
    )
    .not_on_flink(FLINK_NO_OWN_WINDOWS)
    .not_on_flink_streaming(FLINK_NO_OWN_WINDOWS)
    .not_on_prism(PRISM_NO_FOREIGN_WINDOWS)
    .not_on_beam_python(NO_FOREIGN_WINDOWS),
    case(
        "NeedsRunner",
        "calendar_windows",
        custom_windows::calendar_months_group,
    )
    .not_on_flink(FLINK_NO_OWN_WINDOWS)
    .not_on_flink_streaming(FLINK_NO_OWN_WINDOWS),
    case("UsesTestStream", "late_elements", stream::late_elements)
        .not_on_flink(FLINK_PANES)
        .not_on_flink_streaming(FLINK_PANES)
        .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesTestStream",
        "early_and_late_panes",
        stream::early_and_late_panes,
    )
    .not_on_flink(FLINK_PANES)
    .not_on_flink_streaming(FLINK_PANES)
    .not_on_prism(PRISM_PANES)
    .not_on_beam_python(NO_TEST_STREAM),
    case("UsesTestStream", "assertions_by_pane", stream::assertions_by_pane)
        .not_on_flink(FLINK_PANES)
        .not_on_flink_streaming(FLINK_PANES)
        .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesTestStream",
        "assertions_by_only_pane",
        stream::assertions_by_only_pane,
    )
    .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesTestStreamWithProcessingTime",
        "processing_time",
        stream::processing_time,
    )
    .not_on_flink(FLINK_NO_CLOCK)
    .not_on_flink_streaming(FLINK_NO_CLOCK)
    .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesTriggeredSideInputs",
        "triggered_side_inputs",
        stream::triggered_side_inputs,
    )
    .not_on_flink(FLINK_PANES)
    .not_on_flink_streaming(FLINK_PANES)
    .not_on_prism(PRISM_NO_TRIGGERED_SIDES)
    .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesTestStreamWithMultipleStages",
        "two_stages",
        stream::two_stages,
    )
    .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesStrictTimerOrdering",
        "timers_in_order",
        stream::timers_in_order,
    )
    .not_on_beam_python(NO_TEST_STREAM),
    case(
        "UsesTestStreamWithOutputTimestamp",
        "output_timestamps_hold",
        stream::output_timestamps_hold,
    )
    .not_on_beam_python(NO_TEST_STREAM),
];

/// A case that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// A case and how its bundles are cut.
type Variant = (&'static Case, Option<u32>);

fn variants(options: &Options) -> Vec<Variant> {
    let wanted = |case: &&Case| {
        let names = format!("{} {}", case.category, case.name);
        options.filters.is_empty()
            || options
                .filters
                .iter()
                .any(|filter| names.contains(filter.as_str()))
    };
    let sizes: &[Option<u32>] = match options.pipeline.runner {
        RunnerKind::Direct => &[None, Some(1), Some(3)],
        _ => &[None],
    };
    let cases = CASES.iter().filter(wanted);
    cases
        .flat_map(|case| sizes.iter().map(move |size| (case, *size)))
        .collect()
}

/// Runs a case in a process of its own. `Err`: what it said.
fn run_alone(case: &Case, size: Option<u32>) -> Result<(), String> {
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .arg(format!("--case={}", case.name))
        .arg(format!("--scratch={}", scratch.path().display()));
    if let Some(size) = size {
        command.arg(format!("--experiments=max_bundle_elements={size}"));
    }
    let output = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    let file = || output.reopen().map_err(|e| e.to_string());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file()?)
        .stderr(file()?)
        .spawn()
        .map_err(|e| e.to_string())?;
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break Some(status),
            None if begin.elapsed() > LIMIT => {
                // It may have ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            // Nobody sends: a wait.
            None => drop(ended.recv_timeout(Duration::from_millis(10))),
        }
    };
    drop(done);
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let mut text = String::new();
    let read = file()?.read_to_string(&mut text);
    read.map_err(|e| e.to_string())?;
    if status.is_none() {
        text.push_str(&format!("\nit did not end within {LIMIT:?}"));
    }
    Err(text)
}

fn main() -> ExitCode {
    let options: Options = purlin::options::parse();
    if options.list {
        for case in CASES {
            println!("{}\t{}", case.category, case.name);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &options.case {
        let Some(case) = CASES.iter().find(|case| case.name == name) else {
            eprintln!("there is no case \"{name}\"");
            return ExitCode::FAILURE;
        };
        if let Some(scratch) = &options.scratch {
            core::SCRATCH.get_or_init(|| scratch.clone());
        }
        (case.run)(&options.pipeline);
        return ExitCode::SUCCESS;
    }

    let all = variants(&options);
    println!("running {} tests", all.len());
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<(String, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some((case, size)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut name = format!("{}::{}", case.category, case.name);
                    if let Some(size) = size {
                        name.push_str(&format!(" (bundles of {size})"));
                    }
                    let result = run_alone(case, *size);
                    let cannot = options.beams.and_then(|runner| case.not_on(runner));
                    let result = match (result, cannot) {
                        (Ok(()), None) => Ok("ok"),
                        (Err(_), Some(_)) => Ok("ok (fails as expected)"),
                        (Err(text), None) => Err(text),
                        (Ok(()), Some(why)) => Err(format!("it passed, but the list says: {why}")),
                    };
                    println!("test {name} ... {}", result.as_ref().map_or("FAILED", |how| *how));
                    if let Err(text) = result {
                        failed.lock().push((name, text));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    for (name, text) in &failed {
        println!("\n---- {name} ----\n{text}");
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out",
        all.len() - failed.len(),
        failed.len(),
        0
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
