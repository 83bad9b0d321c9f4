//! The file that workers run: this program without its debug information, which is most of it.
//!
//! Runners copy it to each of their machines, and Beam's way of fetching files has no flow control: machines with little
//! memory run out of it. The copy has the build id of the program, by which a worker shows that it is the same build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::harness::grpc::BuildId;

/// The experiment that ships the program as it is, for stack traces with files and lines.
pub(super) const DEBUG_INFO: &str = "worker_debug_info";
/// After how long without use a copy is removed.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A file to stage.
pub(super) struct Shipped {
    pub path: PathBuf,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// The file of this program that workers run; `cache` is where copies are kept for the next time. Where there can be no
/// copy it is the program itself, and the log says why.
pub(super) fn ship(program: &Path, build: &BuildId, cache: Result<PathBuf, String>) -> io::Result<Shipped> {
    let path = match cache.and_then(|cache| stripped(program, build, &cache)) {
        Ok(path) => path,
        Err(reason) => {
            tracing::info!("workers get this program with its debug information: {reason}");
            program.to_owned()
        }
    };
    let sha256 = purlin_artifacts::hash_of(&path)?;
    Ok(Shipped { path, sha256 })
}

/// Where copies are kept: a folder that is the user's alone.
pub(super) fn cache() -> Result<PathBuf, String> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    cache
        .map(|cache| cache.join("purlin").join("workers"))
        .ok_or_else(|| "neither XDG_CACHE_HOME nor HOME names a folder to keep a smaller copy in".to_owned())
}

fn stripped(program: &Path, build: &BuildId, cache: &Path) -> Result<PathBuf, String> {
    let BuildId::Note(id) = build else {
        return Err("it has no build id, by which a copy could be told to be the same build".to_owned());
    };
    let copy = cache.join(id);
    if is_build(&copy, build) {
        // So that it is not removed as unused; where this fails it is made again some time.
        let _ = fs::File::options()
            .append(true)
            .open(&copy)
            .and_then(|file| file.set_modified(SystemTime::now()));
        return Ok(copy);
    }
    let failed = |what: &str, error: io::Error| format!("{what} failed: {error}");
    fs::create_dir_all(cache).map_err(|e| failed(&format!("making {}", cache.display()), e))?;
    remove_unused(cache);
    let partial = cache.join(format!("{id}.{}", std::process::id()));
    let made = strip(program, &partial).and_then(|()| {
        if !is_build(&partial, build) {
            return Err("`strip` lost its build id".to_owned());
        }
        fs::rename(&partial, &copy).map_err(|e| failed("renaming the copy", e))
    });
    if made.is_err() {
        let _ = fs::remove_file(&partial);
    }
    made.map(|()| copy)
}

fn strip(program: &Path, to: &Path) -> Result<(), String> {
    let ran = Command::new("strip").arg("-o").arg(to).arg(program).output();
    let ran = ran.map_err(|e| format!("`strip` (of binutils) cannot be run: {e}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!(
            "`strip` ended with {}: {}",
            ran.status,
            String::from_utf8_lossy(&ran.stderr).trim()
        )),
    }
}

fn is_build(file: &Path, build: &BuildId) -> bool {
    BuildId::of(file).is_ok_and(|found| found == *build)
}

/// Removes copies that have not been used for long. What cannot be removed stays.
fn remove_unused(cache: &Path) {
    let files = fs::read_dir(cache).into_iter().flatten().flatten();
    for file in files {
        let used = file.metadata().and_then(|metadata| metadata.modified());
        if used.is_ok_and(|used| used.elapsed().is_ok_and(|ago| ago > KEPT)) {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn this() -> (PathBuf, BuildId) {
        let program = std::env::current_exe().unwrap();
        let build = BuildId::of(&program).unwrap();
        (program, build)
    }

    #[test]
    fn a_copy_is_smaller_is_the_same_build_runs_and_is_made_once() {
        let (program, build) = this();
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("of/workers");
        let shipped = ship(&program, &build, Ok(cache.clone())).unwrap();
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&shipped.path) < size(&program) / 2);
        assert_eq!(BuildId::of(&shipped.path).unwrap(), build);
        let ran = Command::new(&shipped.path).arg("--list").output().unwrap();
        assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("shipped::tests"));

        let when = fs::metadata(&shipped.path).unwrap().created().ok();
        let again = ship(&program, &build, Ok(cache.clone())).unwrap();
        assert_eq!((&again.path, &again.sha256), (&shipped.path, &shipped.sha256));
        assert_eq!(fs::metadata(&again.path).unwrap().created().ok(), when);
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    }

    #[test]
    fn what_lies_in_the_place_of_a_copy_is_not_shipped() {
        let (program, build) = this();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join(build.text());
        fs::write(&copy, "not this").unwrap();
        let old = SystemTime::now() - 2 * KEPT;
        let unused = dir.path().join("unused");
        fs::File::create(&unused).unwrap().set_modified(old).unwrap();
        let shipped = ship(&program, &build, Ok(dir.path().to_owned())).unwrap();
        assert_eq!(shipped.path, copy);
        assert!(is_build(&copy, &build) && !unused.exists());
        assert!(fs::metadata(&copy).unwrap().permissions().mode() & 0o100 != 0);
    }

    #[test]
    fn without_a_copy_the_program_itself_is_shipped() {
        let (program, build) = this();
        let unknown = BuildId::Hash("0".repeat(64));
        let nowhere = PathBuf::from("/proc/purlin");
        for (build, cache) in [
            (&unknown, cache()),
            (&build, Err("no folder".to_owned())),
            (&build, Ok(nowhere)),
        ] {
            let shipped = ship(&program, build, cache).unwrap();
            assert_eq!(shipped.path, program);
            assert_eq!(shipped.sha256.len(), 64);
        }
    }
}
