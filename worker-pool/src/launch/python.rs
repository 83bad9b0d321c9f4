//! Beam's Python harness.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Harness, LaunchError, Programs, STAGED, at, on_path};

const MODULE: &str = "apache_beam.runners.worker.sdk_worker_main";
/// Prints whether Beam is there, and then the folders of installed packages, each on a line.
const FIND: &str = "import importlib.util as u, site\n\
                    print(u.find_spec('apache_beam') is not None, *site.getsitepackages(), sep='\\n')";
/// How Beam's SDK calls what it stages: packages to install, by name and version; the names of staged packages; the
/// pipeline's own package.
const REQUIREMENTS: &str = "requirements.txt";
const EXTRA_PACKAGES: &str = "extra_packages.txt";
const WORKFLOW: &str = "workflow.tar.gz";
/// So many lines of pip's are shown.
const LINES: usize = 5;

pub(super) fn command(harness: &Harness, programs: &Programs) -> Result<Command, LaunchError> {
    let python = python(programs.python.as_deref())?;
    let said = output(Command::new(&python).arg("-c").arg(FIND)).map_err(|reason| LaunchError::NoPython {
        looked: format!("{} does not run: {reason}", python.display()),
    })?;
    let mut lines = said.lines();
    if lines.next() != Some("True") {
        return Err(LaunchError::NoBeam { python });
    }
    let installed: Vec<&str> = lines.collect();
    let wanted = packages(harness)?;
    let python = match wanted.is_empty() {
        true => python,
        false => install(&python, &installed, &wanted, harness.folder)?,
    };
    let mut command = Command::new(python);
    command.arg("-m").arg(MODULE);
    Ok(command)
}

fn python(given: Option<&Path>) -> Result<PathBuf, LaunchError> {
    let (found, looked) = match given {
        // A bare name is looked for, a path is taken.
        Some(name) if name.components().count() == 1 => (
            on_path(&name.to_string_lossy()),
            format!("there is no {} on the PATH", name.display()),
        ),
        Some(path) => (
            Some(path.to_owned()).filter(|path| path.is_file()),
            format!("there is no {}", path.display()),
        ),
        None => (on_path("python3"), "there is no python3 on the PATH".into()),
    };
    found.ok_or(LaunchError::NoPython { looked })
}

/// The job's packages, as pip's arguments.
fn packages(harness: &Harness) -> Result<Vec<OsString>, LaunchError> {
    let staged = harness.folder.join(STAGED);
    let has = |name: &str| harness.staged.files.contains(&staged.join(name));
    let mut arguments = Vec::new();
    if has(REQUIREMENTS) {
        arguments.push("-r".into());
        arguments.push(staged.join(REQUIREMENTS).into());
    }
    if has(EXTRA_PACKAGES) {
        let list = staged.join(EXTRA_PACKAGES);
        let names = std::fs::read_to_string(&list).map_err(at(&list))?;
        let names = names.lines().map(str::trim).filter(|name| has(name));
        arguments.extend(names.map(|name| staged.join(name).into()));
    }
    if has(WORKFLOW) {
        arguments.push(staged.join(WORKFLOW).into());
    }
    arguments.extend(harness.staged.packages.iter().map(OsString::from));
    if !arguments.is_empty() {
        arguments.push("--find-links".into());
        arguments.push(staged.into());
    }
    Ok(arguments)
}

/// Installs the job's packages into an environment of the worker's own, which sees the packages that the given Python has
/// already. Returns its Python.
fn install(
    python: &Path,
    installed: &[&str],
    wanted: &[OsString],
    folder: &Path,
) -> Result<PathBuf, LaunchError> {
    let packages = |reason| LaunchError::Packages { reason };
    let environment = folder.join("venv");
    output(
        Command::new(python)
            .args(["-m", "venv", "--without-pip"])
            .arg(&environment),
    )
    .map_err(packages)?;
    let own = environment.join("bin").join("python");
    let site = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let site = output(Command::new(&own).arg("-c").arg(site)).map_err(packages)?;
    let link = Path::new(site.trim()).join("given_python.pth");
    std::fs::write(&link, installed.join("\n")).map_err(at(&link))?;
    output(
        Command::new(python)
            .args(["-m", "pip", "--disable-pip-version-check", "--python"])
            .arg(&own)
            .args(["install", "--quiet"])
            .args(wanted),
    )
    .map_err(packages)?;
    Ok(own)
}

/// What a command prints, or why it failed.
fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|e| e.to_string())?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    Err(format!("{}: {}", done.status, last.join("\n")))
}
