//! The pipeline options that the local back end reads.

use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_proto::job_management::pipeline_option_type::Enum as OptionType;
use purlin_runner::options::in_launcher;
use purlin_runner::translate::PlanOptions;

use crate::jobs::JobError;
use crate::pipeline_options::{OptionValues, describe};

/// More workers than this for one environment are a mistake.
const MAX_WORKERS: u32 = 1024;

/// How the runner is to make a plan for a job with these options.
pub(super) fn plan_options(values: &OptionValues) -> Result<PlanOptions, JobError> {
    let defaults = PlanOptions::default();
    let name = "state_backed_iterable_bytes";
    let state_backed_iterable_bytes = match values.integer(name)? {
        None => defaults.state_backed_iterable_bytes,
        Some(bytes) => usize::try_from(bytes).map_err(|_| JobError::Option {
            option: name.into(),
            reason: format!("{bytes} is no number of bytes"),
        })?,
    };
    let mut options = PlanOptions {
        workers: workers(values)?,
        pack_combiners: !values.flag("streaming"),
        state_backed_iterable_bytes,
        ..defaults
    };
    // The name of before; where both are given, the other one counts.
    let attempts = match attempts(values, "max_attempts")? {
        None => attempts(values, "max_bundle_attempts")?,
        given => given,
    };
    // Where user code runs in the program that submitted the pipeline, its error is seen at once, as in Beam's in-process runner:
    // each further attempt would print it once more on the same terminal.
    let attempts = attempts.or(in_launcher(&values.0).then_some(1));
    if let Some(attempts) = attempts {
        options.engine.max_attempts = attempts;
    }
    Ok(options)
}

/// How many workers each environment has.
fn workers(values: &OptionValues) -> Result<u32, JobError> {
    match values.integer("sdk_worker_parallelism")? {
        None => Ok(1),
        // Beam's convention: as many as the machine has cores.
        Some(0) => Ok(std::thread::available_parallelism().map_or(1, |n| n.get() as u32)),
        Some(n) => u32::try_from(n)
            .ok()
            .filter(|n| *n <= MAX_WORKERS)
            .ok_or_else(|| JobError::Option {
                option: "sdk_worker_parallelism".into(),
                reason: format!("{n} is not between 0 and {MAX_WORKERS}"),
            }),
    }
}

/// How often a bundle is tried; 0 stands for endlessly. None: as the engine does by itself.
fn attempts(values: &OptionValues, name: &str) -> Result<Option<u32>, JobError> {
    match values.integer_or_experiment(name)? {
        None => Ok(None),
        Some(0) => Ok(Some(u32::MAX)),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| JobError::Option {
            option: name.into(),
            reason: format!("{n} is not between 0 (endlessly) and {}", u32::MAX),
        }),
    }
}

/// What is read here, and what is read by the runner when it starts workers.
pub(super) fn describe_all() -> Vec<PipelineOptionDescriptor> {
    vec![
        describe(
            "sdk_worker_parallelism",
            OptionType::Integer,
            "1",
            "How many workers each environment has; 0 for as many as the machine has cores.",
        ),
        describe(
            "max_attempts",
            OptionType::Integer,
            "",
            "How often a bundle is tried before the job fails, in batch and streaming; 0 for endlessly. 4 times where it is not \
                 said, and once where workers are LOOPBACK ones.",
        ),
        describe(
            "max_bundle_attempts",
            OptionType::Integer,
            "",
            "The same as max_attempts.",
        ),
        describe(
            "state_backed_iterable_bytes",
            OptionType::Integer,
            "16777216",
            "The values of a key that a GroupByKey gives, where they are more bytes than this, are fetched by the \
                 worker page by page as it iterates over them, if its SDK can do that.",
        ),
        describe(
            "environment_cache_millis",
            OptionType::Integer,
            "0",
            "How long a worker may be idle within the job before it is stopped; 0 keeps it to the job's end.",
        ),
        describe(
            "docker_mounts",
            OptionType::Array,
            "",
            "Files and folders of this machine for DOCKER workers: SOURCE[:TARGET][:ro], with commas between.",
        ),
        describe(
            "docker_network",
            OptionType::String,
            "host",
            "Network of DOCKER workers: host, bridge or the name of one.",
        ),
        describe(
            "docker_pull",
            OptionType::String,
            "missing",
            "When the image of DOCKER workers is pulled: missing, always or never.",
        ),
        describe(
            "docker_user",
            OptionType::String,
            "",
            "User of DOCKER workers, as UID:GID.",
        ),
        describe(
            "docker_env",
            OptionType::Array,
            "",
            "Environment of DOCKER workers: NAME=VALUE, with commas between.",
        ),
        describe(
            "docker_memory",
            OptionType::String,
            "",
            "Memory that a DOCKER worker may use, such as 2G.",
        ),
        describe(
            "docker_cpus",
            OptionType::String,
            "",
            "CPUs that a DOCKER worker may use, such as 1.5.",
        ),
        describe(
            "docker_working_dir",
            OptionType::String,
            "",
            "Folder that DOCKER workers begin in.",
        ),
        describe(
            "streaming",
            OptionType::Boolean,
            "false",
            "Whether the job is a streaming one: its sibling combiners are not packed.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;
    use prost_types::{ListValue, Value};

    use super::*;

    fn read(pairs: &[(&str, Kind)]) -> Result<PlanOptions, JobError> {
        plan_options(&OptionValues::of(pairs))
    }

    #[test]
    fn the_number_of_workers_is_read() {
        let workers = |key: &str, kind: Kind| read(&[(key, kind)]).unwrap().workers;
        let three = Kind::StringValue("3".into());
        assert_eq!(workers("beam:option:sdk_worker_parallelism:v1", three), 3);
        assert_eq!(
            workers("beam:option:sdkWorkerParallelism:v1", Kind::NumberValue(4.0)),
            4
        );
        assert_eq!(workers("sdk_worker_parallelism", Kind::NullValue(0)), 1);
        assert!(workers("sdk_worker_parallelism", Kind::StringValue("0".into())) >= 1);
    }

    #[test]
    fn bundles_are_tried_as_often_as_the_options_say() {
        let attempts = |pairs: &[(&str, Kind)]| read(pairs).unwrap().engine.max_attempts;
        assert_eq!(attempts(&[]), 4);
        for option in ["max_attempts", "max_bundle_attempts"] {
            let name = &*format!("beam:option:{option}:v1");
            assert_eq!(attempts(&[(name, Kind::StringValue("2".into()))]), 2);
            assert_eq!(attempts(&[(name, Kind::NumberValue(0.0))]), u32::MAX);
            let wrong = read(&[(name, Kind::NumberValue(-1.0))]).unwrap_err();
            assert!(wrong.to_string().contains(option), "{wrong}");
        }
        let loopback = (
            "beam:option:environment_type:v1",
            Kind::StringValue("LOOPBACK".into()),
        );
        assert_eq!(attempts(std::slice::from_ref(&loopback)), 1);
        // As Java names it.
        let java = "beam:option:defaultEnvironmentType:v1";
        assert_eq!(attempts(&[(java, Kind::StringValue("LOOPBACK".into()))]), 1);
        assert_eq!(attempts(&[loopback, ("max_attempts", Kind::NumberValue(3.0))]), 3);
        let experiments = ["other", "max_attempts=7"].map(|text| Value {
            kind: Some(Kind::StringValue(text.into())),
        });
        let experiments = Kind::ListValue(ListValue {
            values: experiments.into(),
        });
        assert_eq!(attempts(&[("beam:option:experiments:v1", experiments)]), 7);
    }

    #[test]
    fn sizes_are_read() {
        let name = "state_backed_iterable_bytes";
        let plan = read(&[(name, Kind::StringValue("1000".into()))]).unwrap();
        assert_eq!(plan.state_backed_iterable_bytes, 1000);
        assert_eq!(read(&[]).unwrap().state_backed_iterable_bytes, 16 << 20);
        let error = read(&[(name, Kind::NumberValue(-1.0))]).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }

    #[test]
    fn wrong_values_name_the_option() {
        for kind in [
            Kind::StringValue("many".into()),
            Kind::NumberValue(-1.0),
            Kind::NumberValue(1e12),
        ] {
            let error = read(&[("sdk_worker_parallelism", kind)]).unwrap_err().to_string();
            assert!(error.contains("sdk_worker_parallelism"), "{error}");
        }
    }
}
