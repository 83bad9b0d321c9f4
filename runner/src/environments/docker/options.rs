//! What a pipeline's options and resource hints say of its containers.

use std::path::Path;

use prost_types::Struct;
use purlin_proto::pipeline::Environment;
use purlin_proto::urns::resource_hints;

use crate::options::texts;

/// A folder or file of the engine's machine, in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountOption {
    pub source: String,
    pub target: String,
    pub read_only: bool,
}

impl std::fmt::Display for MountOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)?;
        if self.target != self.source {
            write!(f, " as {}", self.target)?;
        }
        f.write_str(if self.read_only {
            " (read-only)"
        } else {
            " (read and write)"
        })
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    Always,
    Never,
}

/// How containers of a job run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DockerOptions {
    pub mounts: Vec<MountOption>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    /// `host`, `bridge`, or the name of a network.
    pub network: Option<String>,
    pub pull: Pull,
    /// Bytes that a container may use.
    pub memory: Option<i64>,
    /// CPUs that a container may use, in billionths.
    pub nano_cpus: Option<i64>,
    /// Bytes that the hint wants.
    pub min_ram: Option<i64>,
    /// CPUs that the hint wants.
    pub cpu_count: Option<i64>,
    /// Accelerators that the hint wants.
    pub gpus: Option<i64>,
}

impl DockerOptions {
    /// Reads them. Each stands for itself, or as `NAME=VALUE` among `environment_options`.
    pub(super) fn read(options: &Struct, environment: &Environment) -> Result<Self, String> {
        let all = |name: &str| values(options, name);
        let one = |name: &str| {
            all(name)
                .into_iter()
                .next_back()
                .filter(|value| !value.is_empty())
        };
        let lists = |name: &str| -> Vec<String> {
            all(name)
                .iter()
                .flat_map(|value| value.split(','))
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()
        };
        let mut read = Self {
            env: lists("docker_env"),
            user: one("docker_user"),
            working_dir: one("docker_working_dir"),
            network: one("docker_network"),
            pull: match one("docker_pull").as_deref() {
                None | Some("missing") => Pull::Missing,
                Some("always") => Pull::Always,
                Some("never") => Pull::Never,
                Some(other) => {
                    return Err(format!(
                        "--docker_pull is missing, always or never, not {other:?}"
                    ));
                }
            },
            memory: one("docker_memory")
                .map(|text| bytes("docker_memory", &text))
                .transpose()?,
            ..Self::default()
        };
        for text in lists("docker_mounts") {
            read.mounts.push(mount(&text)?);
        }
        if let Some(pair) = read.env.iter().find(|pair| !pair.contains('=')) {
            return Err(format!("--docker_env: {pair:?} is not NAME=VALUE"));
        }
        if let Some(text) = one("docker_cpus") {
            let cpus = text.parse::<f64>().ok().filter(|cpus| *cpus > 0.0 && *cpus < 1e6);
            let cpus = cpus.ok_or_else(|| format!("--docker_cpus: {text:?} is no number of CPUs"))?;
            read.nano_cpus = Some((cpus * 1e9) as i64);
        }
        let hint = |urn: &str| {
            let value = environment.resource_hints.get(urn)?;
            Some(String::from_utf8_lossy(value).trim().to_owned())
        };
        read.min_ram = hint(resource_hints::MIN_RAM_BYTES)
            .map(|text| bytes("the resource hint min_ram", &text))
            .transpose()?;
        read.cpu_count = hint(resource_hints::CPU_COUNT).and_then(|text| text.parse().ok());
        read.gpus = hint(resource_hints::ACCELERATOR).map(|text| accelerators(&text));
        Ok(read)
    }
}

/// The number in `type:nvidia-tesla-t4;count:2;install-nvidia-driver`; -1, all, if it says none.
fn accelerators(hint: &str) -> i64 {
    let count = hint
        .split(';')
        .find_map(|part| part.trim().strip_prefix("count:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(-1)
}

/// `SOURCE[:TARGET][:ro|:rw]`, absolute paths both.
fn mount(text: &str) -> Result<MountOption, String> {
    let wrong = |why: &str| {
        Err(format!(
            "--docker_mounts: {text:?} {why}; write /folder, /folder:/in/container or /folder:/in/container:ro"
        ))
    };
    let (paths, read_only) = match text.rsplit_once(':') {
        Some((paths, "ro")) => (paths, true),
        Some((paths, "rw")) => (paths, false),
        _ => (text, false),
    };
    let (source, target) = paths.split_once(':').unwrap_or((paths, paths));
    if !Path::new(source).is_absolute() || !Path::new(target).is_absolute() {
        return wrong("has no absolute paths");
    }
    Ok(MountOption {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    })
}

/// A size such as 512M, 2g or 1073741824.
fn bytes(option: &str, text: &str) -> Result<i64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.trim_end_matches("IB").trim_end_matches('B');
    let digits = bare.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match bare.get(digits.len()..).unwrap_or_default() {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let number = digits.parse::<i64>().ok().filter(|n| *n > 0);
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{option}: {text:?} is no size; write one like 512M or 4G"))
}

/// The texts of an option: its own, and those among the environment options.
fn values(options: &Struct, name: &str) -> Vec<String> {
    let mut found: Vec<String> = texts(options, "environment_options")
        .iter()
        .filter_map(|option| option.split_once('='))
        .filter(|(given, _)| *given == name)
        .map(|(_, value)| value.to_owned())
        .collect();
    found.extend(texts(options, name));
    found
}

#[cfg(test)]
mod tests {
    use prost_types::Value;
    use prost_types::value::Kind;

    use super::*;

    fn string(text: &str) -> Value {
        Value {
            kind: Some(Kind::StringValue(text.into())),
        }
    }

    fn read(fields: &[(&str, Value)], hints: &[(&str, &str)]) -> Result<DockerOptions, String> {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let hints = hints
            .iter()
            .map(|(urn, value)| ((*urn).to_owned(), value.as_bytes().to_vec().into()));
        let environment = Environment {
            resource_hints: hints.collect(),
            ..Default::default()
        };
        DockerOptions::read(
            &Struct {
                fields: fields.collect(),
            },
            &environment,
        )
    }

    #[test]
    fn options_come_by_themselves_and_among_the_environments() {
        let list = prost_types::ListValue {
            values: vec![string("docker_network=bridge"), string("docker_memory=512M")],
        };
        let list = Value {
            kind: Some(Kind::ListValue(list)),
        };
        let options = read(
            &[
                ("beam:option:environment_options:v1", list),
                ("beam:option:docker_mounts:v1", string("/a,/b:/c:ro")),
                ("docker_env", string("A=1,B=2")),
                ("docker_cpus", string("1.5")),
            ],
            &[],
        );
        let options = options.unwrap();
        assert_eq!(options.network.as_deref(), Some("bridge"));
        assert_eq!(
            (options.memory, options.nano_cpus),
            (Some(512 << 20), Some(1_500_000_000))
        );
        assert_eq!(options.env, ["A=1", "B=2"]);
        let mounts: Vec<String> = options.mounts.iter().map(ToString::to_string).collect();
        assert_eq!(mounts, ["/a (read and write)", "/b as /c (read-only)"]);
    }

    #[test]
    fn hints_are_read() {
        let options = read(
            &[],
            &[
                (resource_hints::MIN_RAM_BYTES, "1073741824"),
                (resource_hints::CPU_COUNT, "4"),
                (
                    resource_hints::ACCELERATOR,
                    "type:nvidia-tesla-t4;count:2;install-nvidia-driver",
                ),
            ],
        );
        let options = options.unwrap();
        assert_eq!(
            (options.min_ram, options.cpu_count, options.gpus),
            (Some(1 << 30), Some(4), Some(2))
        );
        assert_eq!(accelerators("type:x"), -1);
    }

    #[test]
    fn wrong_values_name_the_option() {
        for (name, value) in [
            ("docker_mounts", "relative"),
            ("docker_mounts", "/a:b"),
            ("docker_env", "A"),
            ("docker_pull", "sometimes"),
            ("docker_memory", "much"),
            ("docker_cpus", "-1"),
        ] {
            let error = read(&[(name, string(value))], &[]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
