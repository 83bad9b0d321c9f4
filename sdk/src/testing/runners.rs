//! One test on several runners: what `#[purlin::test]` expands to.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{TestPipeline, Verdict};
use crate::options::{EnvironmentType, PipelineOptions, RunnerKind};

/// Names the runners.
const RUNNERS: &str = "PURLIN_TEST_RUNNERS";
/// The flags of a worker process: test programs take none that they do not know.
const WORKER: &str = "PURLIN_TEST_WORKER";
const PROGRAM: &str = "PURLIN_TEST_PROGRAM";
const TEST: &str = "PURLIN_TEST_NAME";

/// Where there is nothing but this program.
const DEFAULT: &str = "direct direct=1";

const KNOWN: &str = "direct (in this process), direct=N (with bundles of at most N elements), portable=HOST:PORT (a job \
                     service, with workers in this process), process=HOST:PORT (a job service, with workers that are \
                     processes) and prism (a job service that is started for the test)";

#[derive(Clone, Debug, PartialEq, Eq)]
enum TestRunner {
    Direct(Option<u32>),
    Portable(String),
    Process(String),
    Prism,
}

impl fmt::Display for TestRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TestRunner::Direct(None) => f.write_str("direct"),
            TestRunner::Direct(Some(elements)) => write!(f, "direct={elements}"),
            TestRunner::Portable(endpoint) => write!(f, "portable={endpoint}"),
            TestRunner::Process(endpoint) => write!(f, "process={endpoint}"),
            TestRunner::Prism => f.write_str("prism"),
        }
    }
}

fn parse(list: &str) -> Result<Vec<TestRunner>, String> {
    let runners: Vec<TestRunner> = list
        .split_whitespace()
        .map(|text| {
            let unknown = || format!("{RUNNERS} has {text:?}, which is no runner; known are {KNOWN}");
            match text.split_once('=') {
                None if text == "direct" => Ok(TestRunner::Direct(None)),
                None if text == "prism" => Ok(TestRunner::Prism),
                Some(("direct", elements)) => match elements.parse() {
                    Ok(elements @ 1..) => Ok(TestRunner::Direct(Some(elements))),
                    _ => Err(unknown()),
                },
                Some(("portable", endpoint)) if endpoint.contains(':') => {
                    Ok(TestRunner::Portable(endpoint.to_owned()))
                }
                Some(("process", endpoint)) if endpoint.contains(':') => {
                    Ok(TestRunner::Process(endpoint.to_owned()))
                }
                _ => Err(unknown()),
            }
        })
        .collect::<Result<_, _>>()?;
    match runners.is_empty() {
        true => Err(format!("{RUNNERS} names no runner; known are {KNOWN}")),
        false => Ok(runners),
    }
}

/// A program that starts this one as a worker of one test.
struct Starter(PathBuf);

impl Starter {
    fn new() -> Result<Starter, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("purlin-test-worker-{}-{number}", std::process::id()));
        let script =
            format!("#!/bin/sh\n{WORKER}=\"$*\" exec \"${PROGRAM}\" \"${TEST}\" --exact --nocapture\n");
        let write = || {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o700)
                .open(&path)?;
            file.write_all(script.as_bytes())
        };
        match write() {
            Ok(()) => Ok(Starter(path)),
            Err(error) => Err(format!("cannot write {}: {error}", path.display())),
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // Where it cannot be removed, the system's own tidying of temporary files does so.
        let _ = fs::remove_file(&self.0);
    }
}

impl TestRunner {
    /// The options, and what must be there while the test runs.
    fn options(&self, test: &str) -> Result<(PipelineOptions, Option<Starter>), String> {
        let mut options = PipelineOptions {
            job_name: Some(test.to_owned()),
            ..PipelineOptions::default()
        };
        let mut starter = None;
        match self {
            TestRunner::Direct(elements) => {
                options.experiments = elements
                    .iter()
                    .map(|n| format!("max_bundle_elements={n}"))
                    .collect();
            }
            TestRunner::Portable(endpoint) => {
                options.runner = RunnerKind::Portable;
                options.job_endpoint = Some(endpoint.clone());
            }
            TestRunner::Process(endpoint) => {
                options.runner = RunnerKind::Portable;
                options.job_endpoint = Some(endpoint.clone());
                options.environment_type = Some(EnvironmentType::Process);
                let program =
                    std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
                let script = Starter::new()?;
                let config = serde_json::json!({
                    "command": script.0.display().to_string(),
                    "env": {PROGRAM: program.display().to_string(), TEST: test},
                });
                options.environment_config = Some(config.to_string());
                starter = Some(script);
            }
            TestRunner::Prism => options.runner = RunnerKind::Prism,
        }
        Ok((options, starter))
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
        .to_owned()
}

/// Runs a test on each of these runners, and tells all failures.
fn on_runners<V: Verdict>(
    runners: &[TestRunner],
    name: &str,
    test: impl Fn(TestPipeline) -> V,
) -> Result<(), String> {
    let mut failures = Vec::new();
    for runner in runners {
        let result = runner.options(name).and_then(|(options, starter)| {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                test(TestPipeline::with_options(options)).into_result()
            }));
            drop(starter);
            match ran {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(payload) => Err(panic_message(&*payload)),
            }
        });
        if let Err(error) = result {
            failures.push(format!("on runner {runner}: {error}"));
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{name} failed on {} of {} runners\n{}",
            failures.len(),
            runners.len(),
            failures.join("\n")
        )),
    }
}

/// Runs a test on each runner that `PURLIN_TEST_RUNNERS` names. `path` is the test's, with the crate.
///
/// # Panics
/// When the test fails on one of them.
#[doc(hidden)]
#[track_caller]
pub fn on_each_runner<V: Verdict>(path: &str, test: impl Fn(TestPipeline) -> V) {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    if let Ok(flags) = std::env::var(WORKER) {
        // A worker of this test: the run of its pipeline serves the runner and ends the process.
        let program = std::env::current_exe().unwrap_or_default().into_os_string();
        let flags = flags.split_whitespace().map(OsString::from);
        let arguments: Vec<OsString> = std::iter::once(program).chain(flags).collect();
        if crate::harness::grpc::enter_worker(&arguments).is_none() {
            panic!("{WORKER} does not hold the flags of a worker: it is set by {RUNNERS}=process=.. alone");
        }
        let _ = test(TestPipeline::new());
        panic!("the test ended without running its pipeline");
    }
    let list = std::env::var(RUNNERS).unwrap_or_else(|_| DEFAULT.to_owned());
    let result = parse(&list).and_then(|runners| on_runners(&runners, name, test));
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    #[test]
    fn runners_are_read() {
        let runners = parse(" direct direct=3\nportable=localhost:8099 process=h:1 prism").unwrap();
        let shown: Vec<String> = runners.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "direct",
                "direct=3",
                "portable=localhost:8099",
                "process=h:1",
                "prism"
            ]
        );
        for wrong in [
            "",
            "flink",
            "direct=0",
            "direct=many",
            "portable",
            "portable=8099",
            "prism=x",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(
                error.contains("known are direct") && error.contains(RUNNERS),
                "{error}"
            );
        }
    }

    #[test]
    fn a_failure_names_the_runner() {
        let runners = parse("direct direct=1 portable=localhost").err();
        assert!(runners.is_some());
        let runners = parse("direct direct=2").unwrap();
        let options = std::cell::RefCell::new(Vec::new());
        let error = on_runners(&runners, "sums", |p| {
            options.borrow_mut().push(p.options().experiments.clone());
            let bundled = !p.options().experiments.is_empty();
            PAssert::that(&p.apply(Create::new([1i64, 2])))
                .contains_in_any_order([1, if bundled { 3 } else { 2 }]);
            p.run();
        })
        .unwrap_err();
        assert_eq!(
            options.into_inner(),
            [vec![], vec!["max_bundle_elements=2".to_owned()]]
        );
        assert!(
            error.starts_with("sums failed on 1 of 2 runners\non runner direct=2: "),
            "{error}"
        );
        assert!(error.contains("missing: [3]; unexpected: [2]"), "{error}");
    }

    #[test]
    fn a_test_may_give_an_error_and_must_run_its_pipeline() {
        let runners = parse("direct").unwrap();
        let error = on_runners(&runners, "errs", |p| {
            p.apply(Create::new([1i64]));
            p.try_run()?;
            Err::<(), BoxError>("of its own".into())
        });
        assert!(error.unwrap_err().contains("on runner direct: of its own"));
        let error = on_runners(&runners, "idles", drop::<TestPipeline>).unwrap_err();
        assert!(error.contains("dropped without a run"), "{error}");
    }

    #[test]
    fn a_worker_process_is_this_program() {
        let (options, starter) = TestRunner::Process("h:1".into()).options("m::t").unwrap();
        let config: serde_json::Value = serde_json::from_str(&options.environment_config.unwrap()).unwrap();
        let path = starter.as_ref().unwrap().0.clone();
        assert_eq!(config["command"], path.display().to_string());
        assert_eq!(config["env"][TEST], "m::t");
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .contains("exec \"$PURLIN_TEST_PROGRAM\" \"$PURLIN_TEST_NAME\" --exact")
        );
        drop(starter);
        assert!(!path.exists());
    }
}
