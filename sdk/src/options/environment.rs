//! The environment that the options ask for.

use std::collections::HashMap;

use prost::Message;
use purlin_proto::{pipeline as beam, urns};
use serde_json::Value;

use super::{EnvironmentType, PipelineOptions};

/// An option's value does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{option}: {reason}")]
pub(crate) struct OptionError {
    /// Its name.
    pub option: &'static str,
    /// What is wrong and what to do.
    pub reason: String,
}

fn wrong<T>(option: &'static str, reason: impl Into<String>) -> Result<T, OptionError> {
    Err(OptionError {
        option,
        reason: reason.into(),
    })
}

/// Where user code is to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EnvironmentChoice {
    /// In this process, which opens a worker pool.
    Loopback,
    /// By a worker pool.
    External(beam::ExternalPayload),
    /// By a process; no command: this very program.
    Process(beam::ProcessPayload),
    /// In a container of this image.
    Docker(beam::DockerPayload),
}

impl EnvironmentChoice {
    /// URN and payload, where it is known without more.
    pub(crate) fn to_proto(&self) -> Option<(&'static str, Vec<u8>)> {
        match self {
            EnvironmentChoice::Loopback => None,
            EnvironmentChoice::External(payload) => {
                Some((urns::environments::EXTERNAL, payload.encode_to_vec()))
            }
            EnvironmentChoice::Process(payload) => {
                Some((urns::environments::PROCESS, payload.encode_to_vec()))
            }
            EnvironmentChoice::Docker(payload) => Some((urns::environments::DOCKER, payload.encode_to_vec())),
        }
    }
}

impl PipelineOptions {
    /// Where a portable runner is to run user code.
    pub(crate) fn environment(&self) -> Result<EnvironmentChoice, OptionError> {
        let kind = self.environment_type.unwrap_or(EnvironmentType::Loopback);
        let config = self
            .environment_config
            .as_deref()
            .map(str::trim)
            .filter(|config| !config.is_empty());
        let mut named = Named::new(kind, &self.environment_options)?;
        let docker = |name: &&str| kind == EnvironmentType::Docker && *name != "docker_container_image";
        if config.is_some() && !named.options.keys().all(docker) {
            return wrong(
                "environment_options",
                "give these or --environment_config, not both",
            );
        }
        match kind {
            EnvironmentType::Loopback => match config {
                None => Ok(EnvironmentChoice::Loopback),
                Some(_) => wrong(
                    "environment_config",
                    "LOOPBACK needs none; did you mean another --environment_type?",
                ),
            },
            EnvironmentType::External => match config.or(named.take("external_service_address")) {
                Some(config) => external(config).map(EnvironmentChoice::External),
                None => wrong(
                    "environment_type",
                    "EXTERNAL needs the address of a worker pool: --environment_config=HOST:PORT, for example of \
                     `purlin-worker-pool`, which listens at localhost:5000",
                ),
            },
            EnvironmentType::Process => match config {
                Some(config) => process(config).map(EnvironmentChoice::Process),
                None => {
                    let command = named.take("process_command").unwrap_or_default().to_owned();
                    let env = variables(named.take("process_variables").unwrap_or_default())?;
                    Ok(EnvironmentChoice::Process(beam::ProcessPayload {
                        command,
                        env,
                        ..Default::default()
                    }))
                }
            },
            EnvironmentType::Docker => match config.or(named.take("docker_container_image")) {
                Some(image) => Ok(EnvironmentChoice::Docker(beam::DockerPayload {
                    container_image: image.to_owned(),
                })),
                None => wrong(
                    "environment_type",
                    "DOCKER needs an image that has this program: --environment_config=IMAGE",
                ),
            },
        }
    }
}

/// `--environment_options`, each known for the type of environment.
struct Named<'a> {
    options: HashMap<&'a str, &'a str>,
}

impl<'a> Named<'a> {
    fn new(kind: EnvironmentType, given: &'a [String]) -> Result<Self, OptionError> {
        let known: &[&str] = match kind {
            EnvironmentType::Loopback => &[],
            EnvironmentType::External => &["external_service_address"],
            EnvironmentType::Process => &["process_command", "process_variables"],
            // Those after the first are the job service's to read.
            EnvironmentType::Docker => &[
                "docker_container_image",
                "docker_network",
                "docker_pull",
                "docker_user",
                "docker_env",
                "docker_mounts",
                "docker_memory",
                "docker_cpus",
                "docker_working_dir",
            ],
        };
        let mut options = HashMap::new();
        for option in given {
            let Some((name, value)) = option.split_once('=') else {
                return wrong("environment_options", format!("{option:?} is not NAME=VALUE"));
            };
            if !known.contains(&name) {
                let has = match known {
                    [] => "none".to_owned(),
                    known => known.join(" and "),
                };
                return wrong(
                    "environment_options",
                    format!("{} has no {name:?}; it has {has}", kind.name()),
                );
            }
            options.insert(name, value);
        }
        Ok(Named { options })
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        self.options.remove(name).filter(|value| !value.is_empty())
    }
}

const CONFIG: &str = "environment_config";

fn external(config: &str) -> Result<beam::ExternalPayload, OptionError> {
    let endpoint = |url: &str| {
        Some(beam::ApiServiceDescriptor {
            url: url.to_owned(),
            authentication: None,
        })
    };
    if !config.starts_with('{') {
        return Ok(beam::ExternalPayload {
            endpoint: endpoint(config),
            ..Default::default()
        });
    }
    let json = object(config)?;
    known_fields(&json, &["url", "params"])?;
    match json.get("url") {
        Some(Value::String(url)) => Ok(beam::ExternalPayload {
            endpoint: endpoint(url),
            params: texts(&json, "params")?,
        }),
        _ => wrong(
            CONFIG,
            "the JSON for EXTERNAL needs \"url\", the pool's address as \"HOST:PORT\"",
        ),
    }
}

fn process(config: &str) -> Result<beam::ProcessPayload, OptionError> {
    if !config.starts_with('{') {
        return Ok(beam::ProcessPayload {
            command: config.to_owned(),
            ..Default::default()
        });
    }
    let json = object(config)?;
    known_fields(&json, &["command", "env", "os", "arch"])?;
    let text = |name: &str| match json.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => wrong(CONFIG, format!("\"{name}\" is a text, not {other}")),
    };
    Ok(beam::ProcessPayload {
        os: text("os")?,
        arch: text("arch")?,
        command: text("command")?,
        env: texts(&json, "env")?,
    })
}

type Object = serde_json::Map<String, Value>;

fn object(config: &str) -> Result<Object, OptionError> {
    match serde_json::from_str(config) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => wrong(CONFIG, "the JSON is no object"),
        Err(error) => wrong(CONFIG, format!("this is no JSON: {error}")),
    }
}

fn known_fields(json: &Object, known: &[&str]) -> Result<(), OptionError> {
    match json.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => wrong(
            CONFIG,
            format!("unknown field {key:?}; known are {}", known.join(", ")),
        ),
    }
}

fn texts(json: &Object, name: &str) -> Result<HashMap<String, String>, OptionError> {
    let Some(value) = json.get(name) else {
        return Ok(HashMap::new());
    };
    let Value::Object(object) = value else {
        return wrong(CONFIG, format!("\"{name}\" is an object of texts, not {value}"));
    };
    let texts = object.iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        other => wrong(CONFIG, format!("\"{key}\" in \"{name}\" is a text, not {other}")),
    });
    texts.collect()
}

fn variables(list: &str) -> Result<HashMap<String, String>, OptionError> {
    let pairs = list
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => wrong(
                "environment_options",
                format!("process_variables: {pair:?} is not NAME=VALUE"),
            ),
        });
    pairs.collect()
}
