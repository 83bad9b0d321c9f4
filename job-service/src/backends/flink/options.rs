//! Pipeline options of jobs on Flink: those that this back end reads, and those that Beam's runner is given.

use std::path::PathBuf;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_proto::job_management::pipeline_option_type::Enum as OptionType;

use crate::jobs::JobError;
use crate::pipeline_options::{OptionValues, PipelineOptions, describe};

pub(super) const OUTPUT_EXECUTABLE_PATH: &str = "output_executable_path";

/// Which cluster runs a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Master {
    /// The one that the service was told of, if it was.
    Default,
    /// None: the job runs in the service.
    Local,
    /// Another one.
    At(String),
}

/// What the option `flink_master` says. Beam's SDKs send `[auto]` where their user said nothing.
pub(super) fn master(values: &OptionValues) -> Master {
    match values.text("flink_master").as_deref().map(str::trim) {
        None | Some("" | "[auto]") => Master::Default,
        Some("[local]" | "[collection]") => Master::Local,
        Some(master) => Master::At(master.to_owned()),
    }
}

/// What this back end reads of a job's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FlinkOptions {
    pub(super) streaming: bool,
    pub(super) parallelism: Option<u32>,
    pub(super) savepoint_path: Option<String>,
    pub(super) allow_non_restored_state: bool,
    /// Where a drained job leaves its savepoint; the cluster's own folder if not said.
    pub(super) savepoint_folder: Option<String>,
    /// The file that the jar is written to, where the job is not to be run.
    pub(super) output_executable_path: Option<PathBuf>,
}

/// The file that a job's jar is to be written to, if its options name one.
pub(super) fn output_executable_path(values: &OptionValues) -> Option<PathBuf> {
    let path = values.text(OUTPUT_EXECUTABLE_PATH);
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl FlinkOptions {
    pub(super) fn read(values: &OptionValues) -> Result<Self, JobError> {
        // -1 is what Beam's SDKs send where nothing was said.
        let parallelism = match values.integer("parallelism")? {
            None | Some(-1) => None,
            Some(n) => Some(
                u32::try_from(n)
                    .ok()
                    .filter(|n| (1..=32768).contains(n))
                    .ok_or_else(|| JobError::Option {
                        option: "parallelism".into(),
                        reason: format!("{n} is not between 1 and 32768"),
                    })?,
            ),
        };
        let text = |name: &str| values.text(name).filter(|text| !text.is_empty());
        Ok(Self {
            streaming: values.flag("streaming"),
            parallelism,
            savepoint_path: text("savepoint_path"),
            allow_non_restored_state: values.flag("allow_non_restored_state"),
            savepoint_folder: text("savepoint_folder"),
            output_executable_path: output_executable_path(values),
        })
    }
}

/// The options that Beam's runner is given: the client's, without those that would have it look for a cluster, and with the job's id as its
/// name, by which a service that is started later finds the job again.
pub(super) fn for_runner(options: &PipelineOptions, id: &str) -> Struct {
    let mut values = options.values();
    for name in ["runner", "flink_master", "job_name", OUTPUT_EXECUTABLE_PATH] {
        values.remove(name);
    }
    let mut all = values.0;
    let mut set = |name: &str, value: &str| {
        let kind = Some(Kind::StringValue(value.to_owned()));
        all.fields
            .insert(format!("beam:option:{name}:v1"), Value { kind });
    };
    set("flink_master", "[auto]");
    set("job_name", id);
    all
}

/// The options, for clients: of Beam's runner those that users set.
pub(super) fn described() -> Vec<PipelineOptionDescriptor> {
    const OPTIONS: [(&str, OptionType, &str, &str); 33] = [
        (
            "flink_master",
            OptionType::String,
            "[auto]",
            "Flink's REST API, as HOST:PORT or URL, several with commas between: the job runs on that cluster. [auto]: as the service's \
             --flink_master says; [local]: in the service.",
        ),
        (
            "parallelism",
            OptionType::Integer,
            "-1",
            "In how many parts Flink runs each operator; -1: as the cluster says.",
        ),
        (
            "max_parallelism",
            OptionType::Integer,
            "-1",
            "The highest parallelism that a job restored from a savepoint may have.",
        ),
        (
            "checkpointing_interval",
            OptionType::Integer,
            "-1",
            "Milliseconds between two checkpoints of a streaming job; -1: none.",
        ),
        (
            "checkpointing_mode",
            OptionType::String,
            "EXACTLY_ONCE",
            "EXACTLY_ONCE or AT_LEAST_ONCE.",
        ),
        (
            "checkpoint_timeout_millis",
            OptionType::Integer,
            "-1",
            "After how long a checkpoint is given up; -1: as the cluster says.",
        ),
        (
            "min_pause_between_checkpoints",
            OptionType::Integer,
            "-1",
            "Milliseconds from the end of a checkpoint to the next one.",
        ),
        (
            "num_concurrent_checkpoints",
            OptionType::Integer,
            "1",
            "How many checkpoints may be under way at a time.",
        ),
        (
            "unaligned_checkpoint_enabled",
            OptionType::Boolean,
            "false",
            "Whether checkpoints overtake what is buffered.",
        ),
        (
            "force_unaligned_checkpoint_enabled",
            OptionType::Boolean,
            "false",
            "Whether they do so where Flink would not let them.",
        ),
        (
            "finish_bundle_before_checkpointing",
            OptionType::Boolean,
            "false",
            "Whether bundles are ended before a checkpoint; else what they have given so far is part of it.",
        ),
        (
            "enable_stable_input_drain",
            OptionType::Boolean,
            "false",
            "Whether a job can be drained that has a transform with stable input, which may not be stable then.",
        ),
        (
            "externalized_checkpoints_enabled",
            OptionType::Boolean,
            "false",
            "Whether checkpoints are kept, to restore jobs from.",
        ),
        (
            "retain_externalized_checkpoints_on_cancellation",
            OptionType::Boolean,
            "false",
            "Whether they are kept when the job is cancelled, too.",
        ),
        (
            "fail_on_checkpointing_errors",
            OptionType::Boolean,
            "true",
            "Whether a checkpoint that fails fails the job.",
        ),
        (
            "report_checkpoint_duration",
            OptionType::String,
            "",
            "The namespace of a metric that tells how long checkpoints take; none if not said.",
        ),
        (
            "state_backend",
            OptionType::String,
            "",
            "Where state lies while a job runs: filesystem (in memory, with checkpoints in files) or rocksdb; as the cluster says if not said.",
        ),
        (
            "state_backend_storage_path",
            OptionType::String,
            "",
            "The folder of checkpoints, as a URL that all TaskManagers reach.",
        ),
        (
            "shutdown_sources_after_idle_ms",
            OptionType::Integer,
            "-1",
            "After how many idle milliseconds sources end, and with the last one the job; -1: at once without checkpoints, and never with them.",
        ),
        (
            "number_of_execution_retries",
            OptionType::Integer,
            "-1",
            "How often a job that fails is restarted; -1: as the cluster says.",
        ),
        (
            "execution_retry_delay",
            OptionType::Integer,
            "-1",
            "Milliseconds before a restart; -1: as the cluster says.",
        ),
        (
            "max_bundle_size",
            OptionType::Integer,
            "1000",
            "The most elements of a bundle, in streaming.",
        ),
        (
            "max_bundle_time_mills",
            OptionType::Integer,
            "1000",
            "The most milliseconds of a bundle, in streaming.",
        ),
        (
            "object_reuse",
            OptionType::Boolean,
            "false",
            "Whether elements are handed on without a copy.",
        ),
        (
            "faster_copy",
            OptionType::Boolean,
            "false",
            "Whether copies are made without encoding elements.",
        ),
        (
            "operator_chaining",
            OptionType::Boolean,
            "true",
            "Whether operators that follow each other run in one thread.",
        ),
        (
            "execution_mode_for_batch",
            OptionType::String,
            "PIPELINED",
            "How a batch job exchanges data: PIPELINED, or BATCH_FORCED for one that gets blocked.",
        ),
        (
            "auto_watermark_interval",
            OptionType::Integer,
            "-1",
            "Milliseconds between two watermarks of a source; -1: as the cluster says.",
        ),
        (
            "latency_tracking_interval",
            OptionType::Integer,
            "0",
            "Milliseconds between two marks that measure latency; 0: none.",
        ),
        (
            "savepoint_path",
            OptionType::String,
            "",
            "The savepoint that the job begins with.",
        ),
        (
            "allow_non_restored_state",
            OptionType::Boolean,
            "false",
            "Whether state of it that the job has no use for is passed over.",
        ),
        (
            "savepoint_folder",
            OptionType::String,
            "",
            "Where a drained job leaves its savepoint; the cluster's own folder if not said.",
        ),
        (
            OUTPUT_EXECUTABLE_PATH,
            OptionType::String,
            "",
            "A file on the service's machine that the job's jar is written to, for `flink run` to run it; the job itself is not run.",
        ),
    ];
    OPTIONS
        .iter()
        .map(|(name, r#type, default, text)| describe(name, *r#type, default, text))
        .collect()
}
