//! Harnesses' commands, with jars and a Python made here.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_types::value::Kind;
use prost_types::{ListValue, Value};
use purlin_proto::fn_execution::ProvisionInfo;
use purlin_proto::pipeline::ApiServiceDescriptor;
use tempfile::TempDir;

use super::{Harness, LONGEST_VARIABLE, LaunchError, Programs, STAGED};
use crate::artifacts::Staged;
use crate::provision::Endpoints;

const HARNESS: &str = "org/apache/beam/fn/harness/FnHarness.class";
const CACHES: &str = "org/apache/beam/fn/harness/Caches.class";
const JAMM: &str = "org/github/jamm/MemoryMeter.class";

/// A worker's folder with staged files, and what the runner told.
struct Worker {
    folder: TempDir,
    staged: Staged,
    info: ProvisionInfo,
}

impl Worker {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(STAGED)).unwrap();
        let info = ProvisionInfo {
            runner_capabilities: vec!["a".into(), "b".into()],
            status_endpoint: Some(ApiServiceDescriptor {
                url: "status:1".into(),
                authentication: None,
            }),
            ..Default::default()
        };
        Self {
            folder,
            staged: Staged::default(),
            info,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stage(&mut self, name: &str, content: &[u8]) -> PathBuf {
        let file = self.path(STAGED).join(name);
        fs::write(&file, content).unwrap();
        self.staged.files.push(file.clone());
        file
    }

    fn option(&mut self, name: &str, kind: Kind) {
        let options = self.info.pipeline_options.get_or_insert_default();
        options
            .fields
            .insert(format!("beam:option:{name}:v1"), Value { kind: Some(kind) });
    }

    fn command(&self, programs: &Programs) -> Result<Command, LaunchError> {
        let endpoints = Endpoints {
            control: "control:1".into(),
            ..Default::default()
        };
        Harness {
            worker_id: "w-1",
            endpoints: &endpoints,
            info: &self.info,
            staged: &self.staged,
            folder: self.folder.path(),
        }
        .command(programs)
    }

    /// A machine with a Java, and with a Python that is this script.
    fn programs(&self, python: &str) -> Programs {
        let java = self.path("java/bin/java");
        fs::create_dir_all(java.parent().unwrap()).unwrap();
        fs::write(&java, "").unwrap();
        fs::write(self.path("python"), format!("#!/bin/sh\n{python}\n")).unwrap();
        fs::set_permissions(self.path("python"), fs::Permissions::from_mode(0o755)).unwrap();
        Programs {
            java_home: Some(self.path("java")),
            ..Default::default()
        }
    }

    fn python(&self, script: &str) -> Programs {
        Programs {
            python: Some(self.path("python")),
            ..self.programs(script)
        }
    }
}

/// A zip file's directory and end, which is all that is read, behind something that is not.
fn zip(names: &[&str]) -> Vec<u8> {
    let mut file = b"files".to_vec();
    let offset = file.len() as u32;
    for name in names {
        let mut entry = b"PK\x01\x02".to_vec();
        entry.resize(46, 0);
        entry[28..30].copy_from_slice(&(name.len() as u16).to_le_bytes());
        entry[30] = 1;
        entry[32] = 2;
        file.extend(entry);
        file.extend(name.bytes());
        file.extend(b"xcc");
    }
    let length = file.len() as u32 - offset;
    file.extend(b"PK\x05\x06\0\0\0\0\0\0\0\0");
    file.extend(length.to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.extend(b"\x03\0end");
    file
}

fn arguments(command: &Command) -> Vec<String> {
    let text = |argument: &std::ffi::OsStr| argument.to_string_lossy().into_owned();
    command.get_args().map(text).collect()
}

fn variables(command: &Command) -> HashMap<String, String> {
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    command
        .get_envs()
        .filter_map(|(name, value)| Some((text(name), text(value?))))
        .collect()
}

#[test]
fn a_jars_directory_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let jar = folder.path().join("a.jar");
    let has = |content: &[u8]| {
        fs::write(&jar, content).unwrap();
        super::jar::has(&jar, ["b/C.class", "C.class"]).unwrap()
    };
    let sound = zip(&["a/", "b/C.class", "z"]);
    assert_eq!(has(&sound), [true, false]);
    assert_eq!(has(&zip(&["b/C", "C.class"])), [false, true]);
    assert_eq!(has(&zip(&[])), [false, false]);
    // However it is damaged, there is an answer.
    for end in 0..sound.len() {
        has(&sound[..end]);
        let mut wrong = sound.clone();
        wrong[end] ^= 0xff;
        has(&wrong);
    }
    assert_eq!(has(b"no zip"), [false, false]);
    // A directory behind four gigabytes may have anything.
    let mut large = sound;
    let at = large.len() - 9;
    large[at..at + 4].fill(0xff);
    assert_eq!(has(&large), [true, true]);
}

#[test]
fn staged_jars_are_run_by_java_in_their_order() {
    let mut worker = Worker::new();
    let pipeline = worker.stage("pipeline.jar", &zip(&["p/Main.class"]));
    let harness = worker.stage("beam.jar", &zip(&[HARNESS, CACHES]));
    let notes = worker.stage("notes.txt", b"notes");
    let jamm = worker.path("jamm-0.4.0.jar");
    fs::write(&jamm, zip(&[JAMM])).unwrap();
    worker.option("parallelism", Kind::NumberValue(4.0));
    worker.option("rate", Kind::NumberValue(0.5));
    let module = Value {
        kind: Some(Kind::StringValue("java.base/java.lang=ALL-UNNAMED".into())),
    };
    let modules = Kind::ListValue(ListValue { values: vec![module] });
    worker.option("jdk_add_open_modules", modules);
    let programs = Programs {
        java_class_path: vec![jamm.clone()],
        ..worker.programs("exit 1")
    };
    let command = worker.command(&programs).unwrap();
    assert_eq!(command.get_program(), worker.path("java/bin/java"));
    let class_path = [&pipeline, &harness, &notes, &jamm].map(|jar| jar.display().to_string());
    assert_eq!(
        arguments(&command),
        [
            &format!("-javaagent:{}", jamm.display()),
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            "-cp",
            &class_path.join(":"),
            "org.apache.beam.fn.harness.FnHarness",
        ]
    );
    let told = variables(&command);
    assert_eq!(told["HARNESS_ID"], "w-1");
    assert_eq!(told["CONTROL_API_SERVICE_DESCRIPTOR"], "url: \"control:1\"");
    assert_eq!(told["STATUS_API_SERVICE_DESCRIPTOR"], "url: \"status:1\"");
    assert!(!told.contains_key("LOGGING_API_SERVICE_DESCRIPTOR"));
    assert_eq!(told["RUNNER_CAPABILITIES"], "a b");
    let options = serde_json::json!({
        "beam:option:parallelism:v1": 4,
        "beam:option:rate:v1": 0.5,
        "beam:option:jdk_add_open_modules:v1": ["java.base/java.lang=ALL-UNNAMED"],
    });
    assert_eq!(told["PIPELINE_OPTIONS"], options.to_string());
    let file = fs::read_to_string(&told["PIPELINE_OPTIONS_FILE"]).unwrap();
    assert_eq!(file, options.to_string());
}

#[test]
fn what_is_too_long_for_the_kernel_goes_by_file() {
    let mut worker = Worker::new();
    worker.stage("beam.jar", &zip(&[HARNESS]));
    let long = worker.path(&"folder/".repeat(100));
    fs::create_dir_all(&long).unwrap();
    let programs = Programs {
        java_class_path: (0..200).map(|n| long.join(format!("{n}.jar"))).collect(),
        ..worker.programs("exit 1")
    };
    for jar in &programs.java_class_path {
        fs::write(jar, "").unwrap();
    }
    worker.option("text", Kind::StringValue("x".repeat(LONGEST_VARIABLE)));
    let command = worker.command(&programs).unwrap();
    let file = worker.path("class_path");
    assert_eq!(arguments(&command)[0], format!("@{}", file.display()));
    let written = fs::read_to_string(&file).unwrap();
    assert!(
        written.starts_with("-cp \"") && written.ends_with("199.jar\"\n"),
        "{written}"
    );
    let told = variables(&command);
    assert!(!told.contains_key("PIPELINE_OPTIONS") && told.contains_key("PIPELINE_OPTIONS_FILE"));
}

#[test]
fn what_java_lacks_is_told() {
    let mut worker = Worker::new();
    worker.stage("pipeline.jar", &zip(&["p/Main.class"]));
    let programs = worker.programs("exit 1");
    let told = |worker: &Worker, programs: &Programs| worker.command(programs).unwrap_err().to_string();
    let text = told(&worker, &programs);
    assert!(
        text.contains("none of the 1 files") && text.contains("FnHarness"),
        "{text}"
    );
    worker.stage("beam.jar", &zip(&[HARNESS, CACHES]));
    let text = told(&worker, &programs);
    assert!(
        text.contains("org.github.jamm.MemoryMeter") && text.contains("--java_class_path"),
        "{text}"
    );
    // Merged into one jar, jamm is there, but is no agent.
    worker.stage("all.jar", &zip(&[JAMM]));
    assert_eq!(arguments(&worker.command(&programs).unwrap())[0], "-cp");
    let elsewhere = Programs {
        java_home: Some("/no/java".into()),
        ..programs.clone()
    };
    let text = told(&worker, &elsewhere);
    assert!(
        text.contains("there is no /no/java/bin/java") && text.contains("JAVA_HOME"),
        "{text}"
    );
    let gone = Programs {
        java_class_path: vec!["/no/such.jar".into()],
        ..programs
    };
    assert!(told(&worker, &gone).contains("cannot use /no/such.jar"));
}

#[test]
fn other_jobs_are_run_by_python() {
    let mut worker = Worker::new();
    worker.stage("pickled_main_session", b"pickled");
    let programs = worker.python("echo True");
    let command = worker.command(&programs).unwrap();
    assert_eq!(command.get_program(), worker.path("python"));
    assert_eq!(
        arguments(&command),
        ["-m", "apache_beam.runners.worker.sdk_worker_main"]
    );
    let told = variables(&command);
    assert_eq!(told["WORKER_ID"], "w-1");
    assert_eq!(
        Path::new(&told["SEMI_PERSISTENT_DIRECTORY"]),
        worker.folder.path()
    );
    // Python named, jars are files like others.
    worker.stage("beam.jar", &zip(&[]));
    assert_eq!(
        worker.command(&programs).unwrap().get_program(),
        worker.path("python")
    );
}

#[test]
fn what_python_lacks_is_told() {
    let mut worker = Worker::new();
    let told = |worker: &Worker, programs: &Programs| worker.command(programs).unwrap_err().to_string();
    let text = told(&worker, &worker.python("echo False"));
    assert!(
        text.contains("has no apache_beam") && text.contains("--python"),
        "{text}"
    );
    let text = told(&worker, &worker.python("echo broken >&2; exit 3"));
    assert!(text.contains("does not run: exit status: 3: broken"), "{text}");
    let nowhere = Programs {
        python: Some("no-such-python".into()),
        ..Default::default()
    };
    let text = told(&worker, &nowhere);
    assert!(
        text.contains("there is no no-such-python on the PATH") && text.contains("PURLIN_PYTHON"),
        "{text}"
    );
    // It has Beam, and its pip fails.
    worker.stage("requirements.txt", b"no-such-package");
    let script = r#"case "$2" in
        venv) mkdir -p "$4/bin" "$4/site"; printf '#!/bin/sh\necho %s/site' "$4" >"$4/bin/python"; chmod +x "$4/bin/python";;
        pip) echo "no $*" >&2; exit 1;;
        *) echo True; echo /given/site;;
    esac"#;
    let text = told(&worker, &worker.python(script));
    let requirements = worker.path(STAGED).join("requirements.txt");
    assert!(
        text.contains("cannot install the packages that the job staged"),
        "{text}"
    );
    assert!(text.contains(&format!("-r {}", requirements.display())), "{text}");
    let seen = fs::read_to_string(worker.path("venv/site/given_python.pth")).unwrap();
    assert_eq!(seen, "/given/site");
}

#[test]
fn packages_are_installed_as_they_were_staged() {
    let mut worker = Worker::new();
    worker.stage("extra_packages.txt", b"own-1.tar.gz\nmissing-1.tar.gz\n");
    worker.stage("own-1.tar.gz", b"");
    worker.stage("workflow.tar.gz", b"");
    worker.staged.packages.push("indexed==2".into());
    let log = worker.path("log");
    let script = format!(
        r#"case "$2" in
        venv) mkdir -p "$4/bin" "$4/site"; printf '#!/bin/sh\necho %s/site' "$4" >"$4/bin/python"; chmod +x "$4/bin/python";;
        pip) echo "$*" >{};;
        *) echo True;;
    esac"#,
        log.display()
    );
    let command = worker.command(&worker.python(&script)).unwrap();
    let own = worker.path("venv/bin/python");
    assert_eq!(command.get_program(), own);
    let staged = worker.path(STAGED).display().to_string();
    assert_eq!(
        fs::read_to_string(&log).unwrap().trim(),
        format!(
            "-m pip --disable-pip-version-check --python {} install --quiet {staged}/own-1.tar.gz {staged}/workflow.tar.gz \
             indexed==2 --find-links {staged}",
            own.display()
        )
    );
}
