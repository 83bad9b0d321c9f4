//! What a container needs of this machine so that it finds the files that the program's options name.
//!
//! A container sees the files of its image. So that a pipeline reads and writes in DOCKER what it does everywhere else,
//! the paths among its options are mounted under their own names: what is there to be read only, the folders that outputs
//! go to for writing too. The container works in this program's folder, as this program's user.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use prost_types::Struct;
use prost_types::value::Kind;
use purlin_proto::job_management::PipelineOptionDescriptor;

use crate::options::proto::{key, read_strings, string, strings};

/// The option that names the folders of a container.
const MOUNTS: &str = "docker_mounts";

/// Options whose values are paths that are written.
fn is_output(name: &str) -> bool {
    name.contains("output") || matches!(name, "temp_location" | "staging_location")
}

/// Options of the launch itself, which no worker reads files by.
const LAUNCH: &[&str] = &[
    "environment_config",
    "environment_options",
    MOUNTS,
    "job_endpoint",
    "artifact_endpoint",
    "job_name",
    "prism_location",
    "runner",
    "environment_type",
    "experiments",
];

/// Adds mounts, user and folder of the containers to a job's options, where the user has not said other.
pub(super) fn localize(options: &mut Struct) {
    let Ok(here) = std::env::current_dir() else { return };
    let mut mounts = BTreeMap::new();
    for (urn, value) in &options.fields {
        let name = urn
            .strip_prefix("beam:option:")
            .and_then(|name| name.strip_suffix(":v1"))
            .unwrap_or(urn);
        if LAUNCH.contains(&name) || name.starts_with("purlin_") {
            continue;
        }
        let texts = match &value.kind {
            Some(Kind::StringValue(text)) => vec![text],
            Some(Kind::ListValue(list)) => list
                .values
                .iter()
                .filter_map(|value| match &value.kind {
                    Some(Kind::StringValue(text)) => Some(text),
                    _ => None,
                })
                .collect(),
            _ => continue,
        };
        for text in texts {
            if let Some((path, read_only)) = local(&here, name, text) {
                let known = mounts.entry(path).or_insert(read_only);
                *known &= read_only;
            }
        }
    }
    let output = mounts
        .iter()
        .find(|(_, read_only)| !**read_only)
        .map(|(path, _)| path.clone());
    let given = options.fields.get(&key(MOUNTS));
    let mut all = given.and_then(read_strings).unwrap_or_default();
    all.extend(mounts.iter().map(|(path, read_only)| {
        let path = path.display();
        let mode = if *read_only { "ro" } else { "rw" };
        format!("{path}:{path}:{mode}")
    }));
    if !all.is_empty() {
        options.fields.insert(key(MOUNTS), strings(all));
    }
    let mut default = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            options.fields.entry(key(name)).or_insert_with(|| string(value));
        }
    };
    default("docker_working_dir", Some(here.display().to_string()));
    default("docker_user", user(output.as_deref()));
    default("docker_env", Some("HOME=/tmp".to_owned()));
}

/// What to tell a user whose runner does not know of mounts, as runners other than Purlin's do not: `described` are the options that it
/// has, if it tells.
pub(super) fn unmounted(options: &Struct, described: Option<&[PipelineOptionDescriptor]>) -> Option<String> {
    let knows = |described: &[PipelineOptionDescriptor]| described.iter().any(|o| o.name == MOUNTS);
    let mounts = options.fields.get(&key(MOUNTS)).and_then(read_strings)?;
    if mounts.is_empty() || described.is_some_and(knows) {
        return None;
    }
    let paths: Vec<&str> = mounts
        .iter()
        .filter_map(|mount| mount.split(':').next())
        .collect();
    Some(format!(
        "this runner starts containers without folders of this machine, so DOCKER workers do not find {}: put the files into the image or \
         into an object store, or use --environment_type=EXTERNAL with a purlin-worker-pool that sees them",
        paths.join(", ")
    ))
}

/// The path to mount for an option's value, and whether only for reading; none if the value names no local file.
fn local(here: &Path, name: &str, text: &str) -> Option<(PathBuf, bool)> {
    let text = text.strip_prefix("file://").unwrap_or(text);
    // A colon or comma cannot be told in a mount's text.
    if text.is_empty() || text.contains([':', ',']) {
        return None;
    }
    let path = plain(&here.join(text));
    if is_output(name) {
        // Its folder: a file is replaced by one that was written beside it.
        let folder = path
            .ancestors()
            .skip(usize::from(!text.ends_with('/')))
            .find(|folder| folder.is_dir())?;
        return (folder != Path::new("/")).then(|| (folder.to_owned(), false));
    }
    if let Some(at) = text.find(['*', '?', '[']) {
        // A pattern: the folder in front of it.
        let fixed = text.get(..at)?;
        let folder = plain(&here.join(fixed.rfind('/').and_then(|end| fixed.get(..end)).unwrap_or(".")));
        return (folder.is_dir() && folder != Path::new("/")).then_some((folder, true));
    }
    // Only what looks like a path, or the name `images` of an option would mount a folder that is so called.
    let exists = path.exists() && path != Path::new("/");
    (exists && (text.contains('/') || text.contains('.'))).then_some((path, true))
}

/// The path without `.` and `..`, symbolic links left as they are named.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The user that containers run as: this process's, or, where that is root, the one that owns what is written.
fn user(output: Option<&Path>) -> Option<String> {
    // The owner of a process's folder in /proc is its user.
    let own = std::fs::metadata("/proc/self").ok()?;
    let of = match own.uid() {
        0 => output
            .and_then(|output| std::fs::metadata(output).ok())
            .unwrap_or(own),
        _ => own,
    };
    Some(format!("{}:{}", of.uid(), of.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_among_the_options_are_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path();
        std::fs::create_dir_all(here.join("data/images")).unwrap();
        std::fs::write(here.join("data/in.txt"), "").unwrap();
        type Mounted = Option<(&'static str, bool)>;
        let cases: Vec<(&str, &str, Mounted)> = vec![
            ("input", "data/in.txt", Some(("data/in.txt", true))),
            ("images_dir", "./data/../data/images", Some(("data/images", true))),
            ("input", "data/*.txt", Some(("data", true))),
            ("input", "data/gone.txt", None),
            ("input", "gs://bucket/x", None),
            ("model_name", "data", None),
            ("output", "data/out.csv", Some(("data", false))),
            ("output", "data/new/folder/out.csv", Some(("data", false))),
        ];
        for (name, text, expected) in cases {
            let expected = expected.map(|(path, read_only)| (here.join(path), read_only));
            assert_eq!(local(here, name, text), expected, "--{name}={text}");
        }
        let absolute = here.join("data/in.txt");
        assert_eq!(
            local(Path::new("/"), "input", absolute.to_str().unwrap()),
            Some((absolute, true))
        );
    }

    #[test]
    fn what_the_user_says_counts() {
        let mut options = Struct::default();
        options.fields.insert(key("docker_user"), string("7:8"));
        options.fields.insert(key(MOUNTS), strings(["/a:/b".to_owned()]));
        localize(&mut options);
        assert_eq!(options.fields[&key("docker_user")], string("7:8"));
        assert_eq!(options.fields[&key(MOUNTS)], strings(["/a:/b".to_owned()]));
        assert!(options.fields.contains_key(&key("docker_working_dir")));
    }

    #[test]
    fn what_a_runner_does_not_mount_is_told() {
        let mut options = Struct::default();
        assert_eq!(unmounted(&options, None), None);
        let mounts = ["/data/in:/data/in:ro".to_owned(), "/out:/out:rw".to_owned()];
        options.fields.insert(key(MOUNTS), strings(mounts));
        let named = |name: &str| PipelineOptionDescriptor {
            name: name.into(),
            ..Default::default()
        };
        assert_eq!(unmounted(&options, Some(&[named(MOUNTS)])), None);
        for foreign in [None, Some([named("parallelism")].as_slice())] {
            let warning = unmounted(&options, foreign).unwrap();
            assert!(warning.contains("do not find /data/in, /out: put"), "{warning}");
        }
    }
}
