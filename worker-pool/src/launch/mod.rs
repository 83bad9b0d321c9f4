//! The command that runs a harness of Beam's Java or Python SDK with a job's staged files.
//!
//! Both SDKs read what they are told from environment variables. Java's harness gets the staged jars as its class path, Python's
//! finds the staged files in a folder and has the job's packages installed beside its own.

mod jar;
mod java;
mod options;
mod python;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use purlin_proto::fn_execution::ProvisionInfo;

use crate::artifacts::Staged;
use crate::provision::{Endpoints, url};

/// Folder of a worker's staged files, in the folder that is told as SEMI_PERSISTENT_DIRECTORY.
pub const STAGED: &str = "staged";
/// Options that are longer go by file only: Linux passes no more than 128 KiB in one variable.
const LONGEST_VARIABLE: usize = 100_000;

/// Why a harness cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no JVM.
    #[error(
        "the job staged jars, so its worker is Beam's Java harness, and {looked}; install a JRE, or name its folder by \
         JAVA_HOME or --java_home"
    )]
    NoJava {
        /// Where none is.
        looked: String,
    },
    /// The staged jars lack the harness.
    #[error(
        "none of the {jars} files on the class path has org.apache.beam.fn.harness.FnHarness; let the pipeline depend on \
         org.apache.beam:beam-sdks-java-harness, of its Beam's version, or name jars by --java_class_path"
    )]
    NoHarness {
        /// How many were looked at.
        jars: usize,
    },
    /// The harness cannot initialise its classes.
    #[error(
        "none of the {jars} files on the class path has org.github.jamm.MemoryMeter, without which Beam's Java harness \
         ends without a word; let the pipeline depend on com.github.jbellis:jamm, or name its jar by --java_class_path"
    )]
    NoJamm {
        /// How many were looked at.
        jars: usize,
    },
    /// There is no Python.
    #[error(
        "the job staged neither a Rust worker binary nor jars, so its worker is Beam's Python harness, and {looked}; name a \
         Python that has apache_beam by --python or PURLIN_PYTHON (launched with the Rust SDK, a pipeline stages its \
         binary; launched with Java's, its jars)"
    )]
    NoPython {
        /// Where none is.
        looked: String,
    },
    /// Python has no Beam.
    #[error(
        "{} has no apache_beam, which Beam's Python harness is a part of; install it there, or name another Python by \
         --python or PURLIN_PYTHON",
        python.display()
    )]
    NoBeam {
        /// The Python.
        python: PathBuf,
    },
    /// The packages that the job needs are not had.
    #[error("cannot install the packages that the job staged: {reason}")]
    Packages {
        /// What pip said last.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Adds the path to an error of the file system.
fn at(path: &Path) -> impl FnOnce(io::Error) -> LaunchError {
    let path = path.to_owned();
    move |error| LaunchError::Io { path, error }
}

/// Where the harnesses' own programs are on this machine.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Java's folder, with `bin/java` in it; without it `java` is looked for on the PATH.
    pub java_home: Option<PathBuf>,
    /// Jars behind the staged ones on Java's class path.
    pub java_class_path: Vec<PathBuf>,
    /// A Python that has apache_beam: with it each job is Python's. Without it `python3` is looked for on the PATH.
    pub python: Option<PathBuf>,
}

/// A worker, and what the runner and the job gave it.
#[derive(Debug)]
pub struct Harness<'a> {
    /// Its id.
    pub worker_id: &'a str,
    /// Where it connects to.
    pub endpoints: &'a Endpoints,
    /// What the runner told of it.
    pub info: &'a ProvisionInfo,
    /// Its files, which lie in [`STAGED`] in its folder.
    pub staged: &'a Staged,
    /// Its own folder.
    pub folder: &'a Path,
}

impl Harness<'_> {
    /// The command that runs it: Java's where the job staged jars, else Python's.
    pub fn command(&self, programs: &Programs) -> Result<Command, LaunchError> {
        let is_jar = |file: &PathBuf| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("jar"));
        let mut command = match programs.python.is_none() && self.staged.files.iter().any(is_jar) {
            true => java::command(self, programs)?,
            false => python::command(self, programs)?,
        };
        self.tell(&mut command)?;
        Ok(command)
    }

    /// Sets the environment variables that both harnesses read.
    fn tell(&self, command: &mut Command) -> Result<(), LaunchError> {
        let options = self.info.pipeline_options.clone().unwrap_or_default();
        let options = purlin_processes::options_json(&options).to_string();
        let file = self.folder.join("pipeline_options.json");
        std::fs::write(&file, &options).map_err(at(&file))?;
        // Java's harness knows its id by one name, Python's by the other.
        command.env("HARNESS_ID", self.worker_id);
        command.env("WORKER_ID", self.worker_id);
        command.env("PIPELINE_OPTIONS_FILE", &file);
        if options.len() <= LONGEST_VARIABLE {
            // Old SDKs know no file.
            command.env("PIPELINE_OPTIONS", &options);
        }
        command.env("SEMI_PERSISTENT_DIRECTORY", self.folder);
        command.env("RUNNER_CAPABILITIES", self.info.runner_capabilities.join(" "));
        let status = self.info.status_endpoint.as_ref().map(url).unwrap_or_default();
        for (name, address) in [
            ("CONTROL", &self.endpoints.control),
            ("LOGGING", &self.endpoints.logging),
            ("STATUS", &status),
        ] {
            let name = format!("{name}_API_SERVICE_DESCRIPTOR");
            match address.is_empty() {
                // A text proto; one of another worker's, inherited, would be wrong.
                false => command.env(name, format!("url: {address:?}")),
                true => command.env_remove(name),
            };
        }
        Ok(())
    }
}

/// The first file of this name in the folders of PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
