//! What can be known to be wrong before the pipeline starts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::input::is_url;
use crate::options::Files;

/// The folder of images, if one is given, is there.
pub fn images_dir(folder: Option<&Path>) -> Result<()> {
    match folder {
        Some(folder) if folder.to_str().is_some_and(is_url) => Ok(()),
        Some(folder) if !folder.is_dir() => bail!("--images_dir: {} is not a folder", folder.display()),
        _ => Ok(()),
    }
}

/// The files can be written: their folders are made if they are missing, and files can be made in them.
pub fn output(files: &Files) -> Result<()> {
    for (option, file) in [("--output", &files.output), ("--errors", &files.errors)] {
        let path = Path::new(file);
        let cannot = || format!("{option}: cannot write {file}");
        if is_url(file) {
            bail!("{option}: {file} is no local file; write one, and copy it there");
        }
        if path.is_dir() || file.ends_with('/') {
            bail!("{option}: {file} is a folder; give the name of a file");
        }
        // Something is there that is no file, such as a pipe: whether it takes data shows when it is written.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            continue;
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).with_context(cannot)?;
        let probe = folder.join(format!(".purlin-check-{}", std::process::id()));
        fs::File::create_new(&probe).with_context(cannot)?;
        fs::remove_file(&probe).with_context(cannot)?;
    }
    match fs::symlink_metadata(&files.scores) {
        Ok(found) if !found.is_file() => {
            bail!(
                "--output: {} is in the way: it is written and removed",
                files.scores
            )
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(output: &Path) -> Files {
        let output = output.display().to_string();
        Files {
            input: String::new(),
            errors: format!("{output}.errors"),
            scores: format!("{output}.errors.scores"),
            output,
        }
    }

    #[test]
    fn what_is_no_file_stays() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("target"), "mine").unwrap();
        symlink(at("target"), at("out.errors.scores")).unwrap();
        let error = output(&files(&at("out"))).unwrap_err().to_string();
        assert!(error.contains("in the way"), "{error}");
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "mine");
        symlink(at("target"), at("link")).unwrap();
        output(&files(&at("link"))).unwrap();
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "mine");
    }

    #[test]
    fn outputs_that_cannot_be_written_are_named() {
        let folder = tempfile::tempdir().unwrap();
        output(&files(&folder.path().join("new/deep/out.csv"))).unwrap();
        assert!(folder.path().join("new/deep").is_dir());
        assert_eq!(fs::read_dir(folder.path().join("new/deep")).unwrap().count(), 0);
        assert!(
            output(&files(folder.path()))
                .unwrap_err()
                .to_string()
                .contains("is a folder")
        );
        fs::write(folder.path().join("file"), "").unwrap();
        let error = output(&files(&folder.path().join("file/out.csv"))).unwrap_err();
        assert!(format!("{error:#}").contains("file/out.csv"), "{error:#}");
    }
}
