//! Starts the classifier, which lies beside this program, once the libraries that it links are known to be there.
//!
//! The classifier links libtorch. Where that is missing, the loader stops the classifier before its first line, with a message that does
//! not say what to do: hence this program, which links nothing but libc.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

const CLASSIFIER: &str = "image-classifier";

fn main() -> ExitCode {
    let error = match std::env::current_exe() {
        Ok(here) => start(&here.with_file_name(CLASSIFIER)),
        Err(error) => format!("this program cannot tell where it lies: {error}"),
    };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Becomes the classifier; returns only when that is not possible, with the reason and what to do.
fn start(classifier: &Path) -> String {
    let missing = missing_libraries(classifier);
    if !missing.is_empty() {
        return format!(
            "libtorch is missing: {} cannot load {}. Run `make setup`, which fetches it into third_party/libtorch, or set LD_LIBRARY_PATH \
             to the lib folder of a PyTorch 2.11",
            classifier.display(),
            missing.join(", ")
        );
    }
    let error = Command::new(classifier).args(std::env::args_os().skip(1)).exec();
    format!(
        "cannot start {}: {error}. Run `make classify`, which builds it",
        classifier.display()
    )
}

/// The shared libraries of `program` that the loader does not find. The loader lists them instead of running the program when it is asked
/// to trace; where it cannot be asked, the list is empty.
fn missing_libraries(program: &Path) -> Vec<String> {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return Vec::new();
    }
    let Ok(listed) = Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output() else {
        return Vec::new();
    };
    let mut missing: Vec<String> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" => not found"))
        .map(str::to_owned)
        .collect();
    missing.dedup();
    missing
}
