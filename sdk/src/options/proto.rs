//! Options as Beam's `Struct`, which travels with the job.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value as Proto};

use super::PipelineOptions;
use super::parse::Value;
use clap::ValueEnum;

pub(crate) use crate::harness::grpc::options::{ARGUMENTS, key, read_strings, string, strings};

impl PipelineOptions {
    /// The options as a job service takes them: `beam:option:NAME:v1`, the program's own included, whole numbers as
    /// text, as Beam's SDKs do.
    pub fn to_struct(&self) -> Struct {
        let mut fields = BTreeMap::new();
        for (name, value) in &self.parsed.inner.values {
            let value = match value {
                Value::Flag(flag) => Proto {
                    kind: Some(Kind::BoolValue(*flag)),
                },
                Value::One(text) => string(text),
                Value::Many(texts) => strings(texts.iter().cloned()),
            };
            fields.insert(key(name), value);
        }
        fields.insert(
            key(ARGUMENTS),
            strings(self.parsed.inner.arguments.iter().cloned()),
        );

        // These may have been changed after the command line was read.
        let mut set = |name: &str, value: Option<Proto>| match value {
            Some(value) => fields.insert(key(name), value),
            None => fields.remove(&key(name)),
        };
        let list = |texts: &[String]| (!texts.is_empty()).then(|| strings(texts.iter().cloned()));
        let runner = self
            .runner
            .to_possible_value()
            .map(|value| string(value.get_name()));
        set("runner", runner);
        set("job_name", Some(string(self.job_name())));
        set("job_endpoint", self.job_endpoint.as_deref().map(string));
        set("flink_master", self.flink_master.as_deref().map(string));
        set("artifact_endpoint", self.artifact_endpoint.as_deref().map(string));
        set(
            "environment_type",
            self.environment_type.map(|kind| string(kind.name())),
        );
        set(
            "environment_config",
            self.environment_config.as_deref().map(string),
        );
        set("environment_options", list(&self.environment_options));
        set("docker_mounts", list(&self.docker_mounts));
        set(
            "sdk_worker_parallelism",
            Some(string(self.sdk_worker_parallelism.to_string())),
        );
        set("max_attempts", Some(string(self.max_attempts.to_string())));
        set("experiments", list(&self.experiments));
        set(
            "streaming",
            Some(Proto {
                kind: Some(Kind::BoolValue(self.streaming)),
            }),
        );
        set(
            "job_server_timeout",
            Some(string(self.job_server_timeout.to_string())),
        );
        Struct { fields }
    }
}
