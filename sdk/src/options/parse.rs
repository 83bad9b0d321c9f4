//! Reads command lines, in the launcher and again in its workers.

use std::cell::RefCell;
use std::ffi::OsString;
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{ArgAction, Command, ValueEnum as _};

use super::RunnerKind;

/// What a command line said: what a worker needs to read it again, and the program's own options by name.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// The arguments after the program's name, names as the program spells them.
    pub arguments: Vec<String>,
    /// Every option by name, unless it has its default value.
    pub values: Vec<(String, Value)>,
    /// Options that the program does not have, which may be the runner's: `NAME` or `NAME=VALUE`.
    pub unknown: Vec<String>,
    /// Names of the options that the program has.
    pub names: Vec<String>,
}

/// An option's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Flag(bool),
    One(String),
    Many(Vec<String>),
}

thread_local! {
    /// The command line that is being read: flattened options take it from here.
    static CURRENT: RefCell<Parsed> = RefCell::default();
}

pub(super) fn current() -> Parsed {
    CURRENT.with_borrow(Parsed::clone)
}

/// What the command line that is being read has for the runner.
pub(super) fn for_the_runner() -> Vec<String> {
    CURRENT.with_borrow(|parsed| parsed.inner.unknown.clone())
}

/// Reads this program's command line. Errors and `--help` end the program, with status 2 and 0.
///
/// With `--runner=PortableRunner`, `PrismRunner` or `FlinkRunner` an option `--NAME=VALUE` or `--NAME` that the program does not have is
/// taken for the runner's; see [`PipelineOptions::runner_options`](super::PipelineOptions::runner_options).
///
/// In a worker process, which a runner started, the options are those that the pipeline was launched with.
pub fn parse<T: clap::Parser>() -> T {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let arguments = match crate::harness::grpc::enter_worker(&arguments) {
        Some(launched) => launched,
        None => arguments,
    };
    match try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => error.exit(),
    }
}

/// Reads a command line whose first element is the program's name.
///
/// # Errors
/// An unknown option or a wrong value; also `--help` and `--version`, which are errors to clap.
pub fn try_parse_from<T: clap::Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<T, clap::Error> {
    let mut command = T::command();
    command.build();
    let arguments = spell(&command, arguments.into_iter().map(Into::into));
    let names = long_names(&command);
    let (own, unknown) = match runner_has_options(&arguments) && !takes_any_argument(&command) {
        true => without_unknown(&names, arguments.clone()),
        false => (arguments.clone(), Vec::new()),
    };
    let mut matches = command.clone().try_get_matches_from(&own)?;

    let inner = Inner {
        unknown,
        names,
        arguments: arguments
            .iter()
            .skip(1)
            .map(|a| a.to_string_lossy().into_owned())
            .collect(),
        values: values(&command, &matches),
    };
    note_without_effect(&matches, &inner);
    CURRENT.set(Parsed {
        inner: Arc::new(with_environment(inner, &command, &matches)),
    });
    let options = T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command));
    CURRENT.take();
    options
}

/// The names and aliases of all options, also of subcommands.
fn long_names(command: &Command) -> Vec<String> {
    let mut names = Vec::new();
    for arg in command.get_arguments() {
        names.extend(arg.get_long_and_visible_aliases().unwrap_or_default());
        names.extend(arg.get_all_aliases().unwrap_or_default());
    }
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.extend(command.get_subcommands().flat_map(long_names));
    names
}

/// Whether the runner that is named can have options of its own: the one in this process has none.
fn runner_has_options(arguments: &[OsString]) -> bool {
    let texts = || {
        arguments
            .iter()
            .map(|argument| argument.to_str().unwrap_or_default())
    };
    let values = texts().zip(texts().skip(1).chain([""]));
    let named = values.filter_map(|(argument, next)| match argument.strip_prefix("--runner") {
        Some("") => Some(next),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    let runner = named.last().map(|name| RunnerKind::from_str(name, true));
    matches!(runner, Some(Ok(runner)) if runner != RunnerKind::Direct)
}

/// Whether an argument of the program's takes what looks like an option.
fn takes_any_argument(command: &Command) -> bool {
    command
        .get_arguments()
        .any(|arg| arg.is_allow_hyphen_values_set() || arg.is_trailing_var_arg_set())
        || command.is_allow_external_subcommands_set()
}

/// The arguments that the program has, and the options that it does not have, without their dashes.
fn without_unknown(names: &[String], arguments: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    let mut own = Vec::with_capacity(arguments.len());
    let mut unknown = Vec::new();
    let mut after_options = false;
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        after_options |= text == "--";
        let option = text.strip_prefix("--").filter(|_| !after_options);
        let name = option.map(|option| option.split_once('=').map_or(option, |(name, _)| name));
        match (option, name) {
            (Some(option), Some(name)) if !name.is_empty() && !names.iter().any(|known| known == name) => {
                unknown.push(option.to_owned());
            }
            _ => own.push(argument),
        }
    }
    (own, unknown)
}

/// Spells the options' names as the command does: dashes and underscores are the same.
fn spell(command: &Command, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let longs = long_names(command);
    let mut after_options = false;
    let spelled = arguments.map(|argument| {
        let Some(text) = argument.to_str() else {
            return argument;
        };
        after_options |= text == "--";
        let Some(rest) = text
            .strip_prefix("--")
            .filter(|rest| !rest.is_empty() && !after_options)
        else {
            return argument;
        };
        let (name, value) = rest
            .split_once('=')
            .map_or((rest, None), |(name, value)| (name, Some(value)));
        let folded = name.replace('-', "_");
        let known = longs.iter().find(|long| long.replace('-', "_") == folded);
        match (known, value) {
            (None, _) => argument,
            (Some(long), None) => format!("--{long}").into(),
            (Some(long), Some(value)) => format!("--{long}={value}").into(),
        }
    });
    spelled.collect()
}

fn values(command: &Command, matches: &clap::ArgMatches) -> Vec<(String, Value)> {
    let mut values = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        if !matches!(
            matches.value_source(id),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            continue;
        }
        let raw = || {
            matches
                .get_raw(id)
                .into_iter()
                .flatten()
                .map(|v| v.to_string_lossy().into_owned())
        };
        let value = match arg.get_action() {
            ArgAction::SetTrue | ArgAction::SetFalse => Value::Flag(
                matches
                    .try_get_one::<bool>(id)
                    .ok()
                    .flatten()
                    .copied()
                    .unwrap_or(true),
            ),
            ArgAction::Count => Value::One(
                matches
                    .try_get_one::<u8>(id)
                    .ok()
                    .flatten()
                    .copied()
                    .unwrap_or(1)
                    .to_string(),
            ),
            ArgAction::Append => Value::Many(raw().collect()),
            _ => {
                let mut all: Vec<String> = raw().collect();
                if all.len() == 1 {
                    Value::One(all.remove(0))
                } else {
                    Value::Many(all)
                }
            }
        };
        values.push((arg.get_long().unwrap_or(id).replace('-', "_"), value));
    }
    values
}

/// A worker has other environment variables: what came from there is made explicit.
fn with_environment(mut inner: Inner, command: &Command, matches: &clap::ArgMatches) -> Inner {
    let mut explicit = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let (Some(long), Some(ValueSource::EnvVariable)) = (arg.get_long(), matches.value_source(id)) else {
            continue;
        };
        for value in matches.get_raw(id).into_iter().flatten() {
            explicit.push(match arg.get_action() {
                ArgAction::SetTrue | ArgAction::SetFalse => format!("--{long}"),
                _ => format!("--{long}={}", value.to_string_lossy()),
            });
        }
    }
    explicit.append(&mut inner.arguments);
    inner.arguments = explicit;
    inner
}

/// Options that the chosen runner has no use for do no harm, but the user should know.
#[expect(
    clippy::print_stderr,
    reason = "said to who started the program, before it has a log"
)]
fn note_without_effect(matches: &clap::ArgMatches, inner: &Inner) {
    let Ok(Some(runner)) = matches.try_get_one::<RunnerKind>("runner") else {
        return;
    };
    for name in without_effect(*runner, inner) {
        let here = match runner {
            RunnerKind::Direct => "DirectRunner",
            RunnerKind::Portable => "PortableRunner",
            RunnerKind::Prism => "PrismRunner",
            RunnerKind::Flink => "FlinkRunner",
        };
        eprintln!("note: --{name} has no effect with --runner={here}");
    }
}

pub(super) fn without_effect(runner: RunnerKind, inner: &Inner) -> Vec<&str> {
    let given = |name: &&str| inner.values.iter().any(|(given, _)| given == name);
    let useless: &[&str] = match runner {
        RunnerKind::Direct => &[
            "job_endpoint",
            "artifact_endpoint",
            "environment_type",
            "environment_config",
            "environment_options",
            "sdk_worker_parallelism",
            "experiments",
            "streaming",
            "job_server_timeout",
            "prism_location",
            "flink_master",
            "flink_job_server_jar",
        ],
        // The service that is there has a jar of its own; which cluster it is to use, it may be told.
        RunnerKind::Portable => &[
            "direct_num_workers",
            "state_port",
            "prism_location",
            "flink_job_server_jar",
        ],
        RunnerKind::Prism | RunnerKind::Flink if given(&"job_endpoint") => &[
            "direct_num_workers",
            "state_port",
            "prism_location",
            "flink_job_server_jar",
        ],
        RunnerKind::Prism => &[
            "direct_num_workers",
            "state_port",
            "flink_master",
            "flink_job_server_jar",
        ],
        RunnerKind::Flink => &["direct_num_workers", "state_port"],
    };
    useless.iter().copied().filter(given).collect()
}
