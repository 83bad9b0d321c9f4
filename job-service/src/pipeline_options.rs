//! Pipeline options, as every SDK writes them, and those that the service reads whatever runs the job.

use bytes::Bytes;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use purlin_proto::fn_execution::log_entry::severity::Enum as Severity;
use purlin_proto::job_management::PipelineOptionDescriptor;
use purlin_proto::job_management::pipeline_option_type::Enum as OptionType;

use crate::jobs::JobError;

/// A job's options: all of them, for the workers, and those that the service reads.
#[derive(Clone, Debug)]
pub(crate) struct PipelineOptions {
    /// Encoded, which takes a fraction of the memory.
    all: Bytes,
    job_name: Option<String>,
    worker_log: Severity,
}

impl PipelineOptions {
    pub(crate) fn new(all: Struct) -> Self {
        let values = OptionValues(all);
        Self {
            job_name: values.text("job_name").filter(|name| !name.is_empty()),
            worker_log: worker_log(&values),
            all: values.0.encode_to_vec().into(),
        }
    }

    /// All options, as the client gave them.
    pub(crate) fn proto(&self) -> Struct {
        // What was encoded here can be decoded.
        Struct::decode(self.all.clone()).unwrap_or_default()
    }

    /// The values of options, by name.
    pub(crate) fn values(&self) -> OptionValues {
        OptionValues(self.proto())
    }

    /// Bytes that are kept of them.
    pub(crate) fn bytes(&self) -> usize {
        self.all.len()
    }

    /// From which severity on the client is told what its workers log.
    pub(crate) fn worker_log(&self) -> Severity {
        self.worker_log
    }

    pub(crate) fn job_name(&self) -> Option<&str> {
        self.job_name.as_deref()
    }

    /// The options that the service reads itself, for clients.
    pub(crate) fn describe() -> Vec<PipelineOptionDescriptor> {
        vec![
            describe(
                "job_name",
                OptionType::String,
                "",
                "Name of the job, in its id and in lists of jobs.",
            ),
            describe(
                "default_sdk_harness_log_level",
                OptionType::String,
                "WARNING",
                "From which level on a worker's log entries reach the client: DEBUG, INFO, WARNING or a number of Python's. \
                 Workers of Beam's SDKs read it too: it is the level of what they log.",
            ),
        ]
    }
}

/// An option, as clients are told of it.
pub(crate) fn describe(
    name: &str,
    r#type: OptionType,
    default: &str,
    description: &str,
) -> PipelineOptionDescriptor {
    PipelineOptionDescriptor {
        name: name.into(),
        r#type: r#type as i32,
        description: description.into(),
        default_value: default.into(),
        group: "purlin".into(),
    }
}

/// The spellings of an option's name.
fn keys(name: &str) -> [String; 4] {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    [
        format!("beam:option:{name}:v1"),
        name.to_owned(),
        format!("beam:option:{camel}:v1"),
        camel,
    ]
}

/// Options by name. A name is written with underscores; an option is found by its URN or by its bare name, in that spelling or in Java's.
#[derive(Clone, Debug)]
pub(crate) struct OptionValues(pub(crate) Struct);

impl OptionValues {
    /// The value of an option, unless it is null.
    pub(crate) fn find(&self, name: &str) -> Option<&Kind> {
        let value: &Value = keys(name).iter().find_map(|key| self.0.fields.get(key))?;
        value
            .kind
            .as_ref()
            .filter(|kind| !matches!(kind, Kind::NullValue(_)))
    }

    /// Takes an option away, in all its spellings.
    pub(crate) fn remove(&mut self, name: &str) {
        for key in keys(name) {
            self.0.fields.remove(&key);
        }
    }

    /// An option that is a text; one of another type is none.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.find(name)? {
            Kind::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// An option that is true or false, also as a text; another value is false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.find(name) {
            Some(Kind::BoolValue(flag)) => *flag,
            Some(Kind::StringValue(text)) => text.eq_ignore_ascii_case("true"),
            _ => false,
        }
    }

    /// An option that is a whole number, also as a text; another value is an error that names the option.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, JobError> {
        match self.find(name) {
            None => Ok(None),
            Some(Kind::NumberValue(n)) if n.fract() == 0.0 => Ok(Some(*n as i64)),
            Some(Kind::StringValue(text)) => whole(name, text).map(Some),
            Some(Kind::NumberValue(n)) => Err(no_number(name, &n.to_string())),
            Some(_) => Err(no_number(name, "its value")),
        }
    }

    /// The same, given as an option or, by an SDK that sends no options but those it knows, as an experiment `NAME=VALUE`.
    pub(crate) fn integer_or_experiment(&self, name: &str) -> Result<Option<i64>, JobError> {
        match (self.integer(name)?, self.experiment(name)) {
            (None, Some(text)) => whole(name, text).map(Some),
            (given, _) => Ok(given),
        }
    }

    /// The value of an experiment `NAME=VALUE`.
    fn experiment(&self, name: &str) -> Option<&str> {
        let Some(Kind::ListValue(experiments)) = self.find("experiments") else {
            return None;
        };
        experiments.values.iter().find_map(|value| match &value.kind {
            Some(Kind::StringValue(text)) => text.strip_prefix(name)?.strip_prefix('='),
            _ => None,
        })
    }
}

#[cfg(test)]
impl OptionValues {
    /// These options.
    pub(crate) fn of(pairs: &[(&str, Kind)]) -> Self {
        let value = |kind: &Kind| Value {
            kind: Some(kind.clone()),
        };
        let fields = pairs.iter().map(|(name, kind)| ((*name).to_owned(), value(kind)));
        Self(Struct {
            fields: fields.collect(),
        })
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

/// The lowest level that the client asks for, of all loggers or of some; warnings reach it in any case.
fn worker_log(all: &OptionValues) -> Severity {
    let named = match all.find("sdk_harness_log_level_overrides") {
        Some(Kind::StructValue(levels)) => levels.fields.values().filter_map(|v| v.kind.as_ref()).collect(),
        _ => Vec::new(),
    };
    let asked = all.find("default_sdk_harness_log_level");
    let asked = asked.into_iter().chain(named);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_as_each_sdk_writes_them() {
        let read = |key: &str, kind: Kind| OptionValues::of(&[(key, kind)]).integer("max_workers");
        let text = Kind::StringValue("3".into());
        assert_eq!(read("beam:option:max_workers:v1", text.clone()).unwrap(), Some(3));
        let number = Kind::NumberValue(4.0);
        assert_eq!(
            read("beam:option:maxWorkers:v1", number.clone()).unwrap(),
            Some(4)
        );
        assert_eq!(read("maxWorkers", number).unwrap(), Some(4));
        assert_eq!(read("max_workers", Kind::NullValue(0)).unwrap(), None);
        assert_eq!(read("other", text).unwrap(), None);
        let error = read("max_workers", Kind::NumberValue(0.5))
            .unwrap_err()
            .to_string();
        assert!(error.contains("max_workers") && error.contains("0.5"), "{error}");
    }

    #[test]
    fn the_level_of_workers_logs_is_read() {
        let name = "beam:option:default_sdk_harness_log_level:v1";
        let read = |kind: Kind| PipelineOptions::new(OptionValues::of(&[(name, kind)]).0).worker_log();
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
            PipelineOptions::new(Struct::default()).worker_log(),
            Severity::Warn
        );
        let overrides = OptionValues::of(&[("my.module", text("INFO")), ("other", text("ERROR"))]).0;
        let overrides = ("sdk_harness_log_level_overrides", Kind::StructValue(overrides));
        let overrides = OptionValues::of(&[overrides]).0;
        assert_eq!(PipelineOptions::new(overrides).worker_log(), Severity::Info);
    }
}
