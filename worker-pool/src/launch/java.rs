//! Beam's Java harness.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::options::texts;
use super::{Harness, LaunchError, Programs, at, jar, on_path};

const MAIN_CLASS: &str = "org.apache.beam.fn.harness.FnHarness";
const HARNESS: &str = "org/apache/beam/fn/harness/FnHarness.class";
/// A harness that has this measures what it caches, by jamm.
const CACHES: &str = "org/apache/beam/fn/harness/Caches.class";
const JAMM: &str = "org/github/jamm/MemoryMeter.class";
/// A longer class path goes by file: Linux passes no more than 128 KiB in one argument.
const LONGEST_ARGUMENT: usize = 100_000;

pub(super) fn command(harness: &Harness, programs: &Programs) -> Result<Command, LaunchError> {
    let java = java(programs.java_home.as_deref())?;
    // In the order in which they were staged: of two classes of a name, the first one counts.
    let jars: Vec<&PathBuf> = harness
        .staged
        .files
        .iter()
        .chain(&programs.java_class_path)
        .collect();
    let agent = check(&jars)?;
    let mut command = Command::new(java);
    if let Some(jamm) = agent {
        // As an agent it measures exactly; else it guesses.
        let mut flag = OsString::from("-javaagent:");
        flag.push(jamm);
        command.arg(flag);
    }
    let options = harness.info.pipeline_options.as_ref();
    for (flag, option) in [
        ("--add-opens", "jdk_add_open_modules"),
        ("--add-modules", "jdk_add_root_modules"),
    ] {
        command.args(texts(options, option).map(|module| format!("{flag}={module}")));
    }
    let mut class_path = OsString::new();
    for jar in jars {
        if !class_path.is_empty() {
            class_path.push(":");
        }
        class_path.push(jar);
    }
    if class_path.len() <= LONGEST_ARGUMENT {
        command.arg("-cp").arg(class_path);
    } else {
        let file = harness.folder.join("class_path");
        let quoted = class_path
            .to_string_lossy()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        std::fs::write(&file, format!("-cp \"{quoted}\"\n")).map_err(at(&file))?;
        let mut flag = OsString::from("@");
        flag.push(file);
        command.arg(flag);
    }
    command.arg(MAIN_CLASS);
    Ok(command)
}

fn java(home: Option<&Path>) -> Result<PathBuf, LaunchError> {
    let (found, looked) = match home {
        Some(home) => {
            let java = home.join("bin").join("java");
            let looked = format!("there is no {}", java.display());
            (Some(java).filter(|java| java.is_file()), looked)
        }
        None => (on_path("java"), "there is no java on the PATH".into()),
    };
    found.ok_or(LaunchError::NoJava { looked })
}

/// Sees that the harness is there with what it needs: a JVM would say little of what is missing. Returns jamm's own jar.
fn check<'a>(jars: &[&'a PathBuf]) -> Result<Option<&'a Path>, LaunchError> {
    let [mut harness, mut caches, mut measures] = [false; 3];
    let mut jamm = None;
    for jar in jars {
        let has = jar::has(jar, [HARNESS, CACHES, JAMM]).map_err(at(jar))?;
        harness |= has[0];
        caches |= has[1];
        measures |= has[2];
        let name = jar.file_name().unwrap_or_default().to_string_lossy();
        if has[2] && jamm.is_none() && name.starts_with("jamm") {
            // Merged into another jar, it is no agent.
            jamm = Some(jar.as_path());
        }
    }
    let jars = jars.len();
    match (harness, caches, measures) {
        (false, ..) => Err(LaunchError::NoHarness { jars }),
        (_, true, false) => Err(LaunchError::NoJamm { jars }),
        _ => Ok(jamm),
    }
}
