//! The pipeline options that this service reads.

use bytes::Bytes;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use purlin_proto::fn_execution::log_entry::severity::Enum as Severity;
use purlin_proto::job_management as api;
use purlin_runner::options::in_launcher;
use purlin_runner::translate::PlanOptions;

use super::JobError;

/// More workers than this for one environment are a mistake.
const MAX_WORKERS: u32 = 1024;

/// A job's options: all of them, for the workers, and those that the service reads.
#[derive(Clone, Debug)]
pub(crate) struct PipelineOptions {
    /// Encoded, which takes a fraction of the memory.
    all: Bytes,
    job_name: Option<String>,
    workers: u32,
    streaming: bool,
    /// How often a bundle is tried; none: as the engine does by itself.
    attempts: Option<u32>,
    state_backed_iterable_bytes: Option<usize>,
    worker_log: Severity,
}

impl PipelineOptions {
    pub(crate) fn read(all: Struct) -> Result<Self, JobError> {
        let workers = match integer(&all, "sdk_worker_parallelism")? {
            None => 1,
            // Beam's convention: as many as the machine has cores.
            Some(0) => std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            Some(n) => u32::try_from(n)
                .ok()
                .filter(|n| *n <= MAX_WORKERS)
                .ok_or_else(|| JobError::Option {
                    option: "sdk_worker_parallelism".into(),
                    reason: format!("{n} is not between 0 and {MAX_WORKERS}"),
                })?,
        };
        // The name of before; where both are given, the other one counts.
        let attempts = match attempts(&all, "max_attempts")? {
            None => attempts(&all, "max_bundle_attempts")?,
            given => given,
        };
        // Where user code runs in the program that submitted the pipeline, its error is seen at once, as in Beam's in-process runner:
        // each further attempt would print it once more on the same terminal.
        let attempts = attempts.or(in_launcher(&all).then_some(1));
        let job_name = text(&all, "job_name").filter(|name| !name.is_empty());
        let streaming = match find(&all, "streaming") {
            Some(Kind::BoolValue(streaming)) => *streaming,
            Some(Kind::StringValue(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        };
        let name = "state_backed_iterable_bytes";
        let state_backed_iterable_bytes = integer(&all, name)?
            .map(|bytes| {
                usize::try_from(bytes).map_err(|_| JobError::Option {
                    option: name.into(),
                    reason: format!("{bytes} is no number of bytes"),
                })
            })
            .transpose()?;
        Ok(Self {
            worker_log: worker_log(&all),
            all: all.encode_to_vec().into(),
            job_name,
            workers,
            streaming,
            attempts,
            state_backed_iterable_bytes,
        })
    }

    pub(crate) fn proto(&self) -> Struct {
        // What was encoded here can be decoded.
        Struct::decode(self.all.clone()).unwrap_or_default()
    }

    /// Bytes that are kept of them.
    pub(super) fn bytes(&self) -> usize {
        self.all.len()
    }

    /// From which severity on the client is told what its workers log.
    pub(crate) fn worker_log(&self) -> Severity {
        self.worker_log
    }

    pub(crate) fn job_name(&self) -> Option<&str> {
        self.job_name.as_deref()
    }

    pub(crate) fn plan_options(&self) -> PlanOptions {
        let defaults = PlanOptions::default();
        let mut options = PlanOptions {
            workers: self.workers,
            pack_combiners: !self.streaming,
            state_backed_iterable_bytes: self
                .state_backed_iterable_bytes
                .unwrap_or(defaults.state_backed_iterable_bytes),
            ..defaults
        };
        if let Some(attempts) = self.attempts {
            options.engine.max_attempts = attempts;
        }
        options
    }

    /// What [`PipelineOptions::read`] reads, for clients.
    pub(crate) fn describe() -> Vec<api::PipelineOptionDescriptor> {
        use api::pipeline_option_type::Enum;
        let option =
            |name: &str, r#type: Enum, default: &str, description: &str| api::PipelineOptionDescriptor {
                name: name.into(),
                r#type: r#type as i32,
                description: description.into(),
                default_value: default.into(),
                group: "purlin".into(),
            };
        vec![
            option(
                "job_name",
                Enum::String,
                "",
                "Name of the job, in its id and in lists of jobs.",
            ),
            option(
                "default_sdk_harness_log_level",
                Enum::String,
                "WARNING",
                "From which level on a worker's log entries reach the client: DEBUG, INFO, WARNING or a number of Python's. \
                 Workers of Beam's SDKs read it too: it is the level of what they log.",
            ),
            option(
                "sdk_worker_parallelism",
                Enum::Integer,
                "1",
                "How many workers each environment has; 0 for as many as the machine has cores.",
            ),
            option(
                "max_attempts",
                Enum::Integer,
                "",
                "How often a bundle is tried before the job fails, in batch and streaming; 0 for endlessly. 4 times where it is not \
                 said, and once where workers are LOOPBACK ones.",
            ),
            option(
                "max_bundle_attempts",
                Enum::Integer,
                "",
                "The same as max_attempts.",
            ),
            option(
                "state_backed_iterable_bytes",
                Enum::Integer,
                "16777216",
                "The values of a key that a GroupByKey gives, where they are more bytes than this, are fetched by the \
                 worker page by page as it iterates over them, if its SDK can do that.",
            ),
            option(
                "environment_cache_millis",
                Enum::Integer,
                "0",
                "How long a worker may be idle within the job before it is stopped; 0 keeps it to the job's end.",
            ),
            option(
                "docker_mounts",
                Enum::Array,
                "",
                "Files and folders of this machine for DOCKER workers: SOURCE[:TARGET][:ro], with commas between.",
            ),
            option(
                "docker_network",
                Enum::String,
                "host",
                "Network of DOCKER workers: host, bridge or the name of one.",
            ),
            option(
                "docker_pull",
                Enum::String,
                "missing",
                "When the image of DOCKER workers is pulled: missing, always or never.",
            ),
            option(
                "docker_user",
                Enum::String,
                "",
                "User of DOCKER workers, as UID:GID.",
            ),
            option(
                "docker_env",
                Enum::Array,
                "",
                "Environment of DOCKER workers: NAME=VALUE, with commas between.",
            ),
            option(
                "docker_memory",
                Enum::String,
                "",
                "Memory that a DOCKER worker may use, such as 2G.",
            ),
            option(
                "docker_cpus",
                Enum::String,
                "",
                "CPUs that a DOCKER worker may use, such as 1.5.",
            ),
            option(
                "docker_working_dir",
                Enum::String,
                "",
                "Folder that DOCKER workers begin in.",
            ),
            option(
                "streaming",
                Enum::Boolean,
                "false",
                "Whether the job is a streaming one: its sibling combiners are not packed.",
            ),
        ]
    }
}

/// The lowest level that the client asks for, of all loggers or of some; warnings reach it in any case.
fn worker_log(all: &Struct) -> Severity {
    let named = match find(all, "sdk_harness_log_level_overrides") {
        Some(Kind::StructValue(levels)) => levels.fields.values().filter_map(|v| v.kind.as_ref()).collect(),
        _ => Vec::new(),
    };
    let asked = find(all, "default_sdk_harness_log_level")
        .into_iter()
        .chain(named);
    asked
        .filter_map(severity)
        .min()
        .map_or(Severity::Warn, |level| level.min(Severity::Warn))
}

/// A level as Python and Java name them, or one of Python's numbers.
fn severity(level: &Kind) -> Option<Severity> {
    let number = match level {
        Kind::NumberValue(number) => *number,
        Kind::StringValue(name) => match name.trim().to_ascii_uppercase().as_str() {
            "TRACE" | "ALL" => 5.0,
            "DEBUG" => 10.0,
            "INFO" | "NOTICE" => 20.0,
            "WARN" | "WARNING" => 30.0,
            "ERROR" | "CRITICAL" | "FATAL" | "OFF" => 40.0,
            number => number.parse().ok()?,
        },
        _ => return None,
    };
    Some(match number {
        number if number < 10.0 => Severity::Trace,
        number if number < 20.0 => Severity::Debug,
        number if number < 30.0 => Severity::Info,
        number if number < 40.0 => Severity::Warn,
        _ => Severity::Error,
    })
}

/// An option is found by its URN, or by its bare name, in either spelling.
fn find<'a>(all: &'a Struct, name: &str) -> Option<&'a Kind> {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    let keys = [
        format!("beam:option:{name}:v1"),
        name.to_owned(),
        format!("beam:option:{camel}:v1"),
        camel,
    ];
    let value: &Value = keys.iter().find_map(|key| all.fields.get(key))?;
    value
        .kind
        .as_ref()
        .filter(|kind| !matches!(kind, Kind::NullValue(_)))
}

/// The value of an experiment `NAME=VALUE`: how an SDK that sends no options but those it knows can give another one.
fn experiment<'a>(all: &'a Struct, name: &str) -> Option<&'a str> {
    let Some(Kind::ListValue(experiments)) = find(all, "experiments") else {
        return None;
    };
    experiments.values.iter().find_map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => text.strip_prefix(name)?.strip_prefix('='),
        _ => None,
    })
}

/// How often a bundle is tried; 0 stands for endlessly.
fn attempts(all: &Struct, name: &str) -> Result<Option<u32>, JobError> {
    let given = match (integer(all, name)?, experiment(all, name)) {
        (None, Some(text)) => Some(whole(name, text)?),
        (given, _) => given,
    };
    match given {
        None => Ok(None),
        Some(0) => Ok(Some(u32::MAX)),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| JobError::Option {
            option: name.into(),
            reason: format!("{n} is not between 0 (endlessly) and {}", u32::MAX),
        }),
    }
}

fn text(all: &Struct, name: &str) -> Option<String> {
    match find(all, name)? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn no_number(option: &str, given: &str) -> JobError {
    JobError::Option {
        option: option.into(),
        reason: format!("{given} is no whole number"),
    }
}

fn whole(option: &str, text: &str) -> Result<i64, JobError> {
    text.trim()
        .parse()
        .map_err(|_| no_number(option, &format!("{text:?}")))
}

fn integer(all: &Struct, name: &str) -> Result<Option<i64>, JobError> {
    match find(all, name) {
        None => Ok(None),
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 => Ok(Some(*n as i64)),
        Some(Kind::StringValue(text)) => whole(name, text).map(Some),
        Some(Kind::NumberValue(n)) => Err(no_number(name, &n.to_string())),
        Some(_) => Err(no_number(name, "its value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, Kind)]) -> Struct {
        let fields = pairs.iter().map(|(k, v)| {
            (
                (*k).to_owned(),
                Value {
                    kind: Some(v.clone()),
                },
            )
        });
        Struct {
            fields: fields.collect(),
        }
    }

    #[test]
    fn options_are_read_as_each_sdk_writes_them() {
        let read = |key: &str, kind: Kind| PipelineOptions::read(options(&[(key, kind)])).unwrap().workers;
        assert_eq!(
            read(
                "beam:option:sdk_worker_parallelism:v1",
                Kind::StringValue("3".into())
            ),
            3
        );
        assert_eq!(
            read("beam:option:sdkWorkerParallelism:v1", Kind::NumberValue(4.0)),
            4
        );
        assert_eq!(read("sdk_worker_parallelism", Kind::NullValue(0)), 1);
        assert!(read("sdk_worker_parallelism", Kind::StringValue("0".into())) >= 1);
    }

    #[test]
    fn bundles_are_tried_as_often_as_the_options_say() {
        let read = |pairs: &[(&str, Kind)]| {
            let options = PipelineOptions::read(options(pairs)).unwrap();
            options.plan_options().engine.max_attempts
        };
        assert_eq!(read(&[]), 4);
        for option in ["max_attempts", "max_bundle_attempts"] {
            let name = &*format!("beam:option:{option}:v1");
            assert_eq!(read(&[(name, Kind::StringValue("2".into()))]), 2);
            assert_eq!(read(&[(name, Kind::NumberValue(0.0))]), u32::MAX);
            let wrong = PipelineOptions::read(options(&[(name, Kind::NumberValue(-1.0))])).unwrap_err();
            assert!(wrong.to_string().contains(option), "{wrong}");
        }
        let loopback = (
            "beam:option:environment_type:v1",
            Kind::StringValue("LOOPBACK".into()),
        );
        assert_eq!(read(std::slice::from_ref(&loopback)), 1);
        // As Java names it.
        let java = "beam:option:defaultEnvironmentType:v1";
        assert_eq!(read(&[(java, Kind::StringValue("LOOPBACK".into()))]), 1);
        assert_eq!(read(&[loopback, ("max_attempts", Kind::NumberValue(3.0))]), 3);
        let experiments = ["other", "max_attempts=7"].map(|text| Value {
            kind: Some(Kind::StringValue(text.into())),
        });
        let experiments = Kind::ListValue(prost_types::ListValue {
            values: experiments.into(),
        });
        assert_eq!(read(&[("beam:option:experiments:v1", experiments)]), 7);
    }

    #[test]
    fn the_level_of_workers_logs_is_read() {
        let name = "beam:option:default_sdk_harness_log_level:v1";
        let read = |kind: Kind| {
            PipelineOptions::read(options(&[(name, kind)]))
                .unwrap()
                .worker_log()
        };
        let text = |text: &str| Kind::StringValue(text.into());
        for (given, level) in [
            (text("INFO"), Severity::Info),
            (text("debug"), Severity::Debug),
            (text("20"), Severity::Info),
            (Kind::NumberValue(10.0), Severity::Debug),
            // Warnings are told in any case.
            (text("ERROR"), Severity::Warn),
            (text("moon"), Severity::Warn),
        ] {
            assert_eq!(read(given.clone()), level, "{given:?}");
        }
        assert_eq!(
            PipelineOptions::read(Struct::default()).unwrap().worker_log(),
            Severity::Warn
        );
        let overrides = options(&[("my.module", text("INFO")), ("other", text("ERROR"))]);
        let overrides = options(&[("sdk_harness_log_level_overrides", Kind::StructValue(overrides))]);
        assert_eq!(
            PipelineOptions::read(overrides).unwrap().worker_log(),
            Severity::Info
        );
    }

    #[test]
    fn sizes_are_read() {
        let name = "state_backed_iterable_bytes";
        let read = |kind: Kind| PipelineOptions::read(options(&[(name, kind)]));
        let plan = read(Kind::StringValue("1000".into())).unwrap().plan_options();
        assert_eq!(plan.state_backed_iterable_bytes, 1000);
        let default = PipelineOptions::read(Struct::default()).unwrap().plan_options();
        assert_eq!(default.state_backed_iterable_bytes, 16 << 20);
        let error = read(Kind::NumberValue(-1.0)).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }

    #[test]
    fn wrong_values_name_the_option() {
        for kind in [
            Kind::StringValue("many".into()),
            Kind::NumberValue(-1.0),
            Kind::NumberValue(1e12),
        ] {
            let error = PipelineOptions::read(options(&[("sdk_worker_parallelism", kind)]))
                .unwrap_err()
                .to_string();
            assert!(error.contains("sdk_worker_parallelism"), "{error}");
        }
    }
}
