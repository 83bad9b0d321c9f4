//! What can be known to be wrong before the pipeline starts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::options::Files;

/// The image paths of the input, without blank lines.
pub fn read_input(input: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(input).with_context(|| {
        format!("--input: cannot read {input}; it is a text file with the path of one image a line")
    })?;
    let paths: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if paths.is_empty() {
        bail!("--input: {input} names no image; it needs the path of one image a line");
    }
    Ok(paths)
}

/// The folder of images, if one is given, is there.
pub fn images_dir(folder: Option<&Path>) -> Result<()> {
    match folder {
        Some(folder) if !folder.is_dir() => bail!("--images_dir: {} is not a folder", folder.display()),
        _ => Ok(()),
    }
}

/// The output can be written: its folder is made if it is missing, and a file can be made in it.
pub fn output(files: &Files) -> Result<()> {
    let output = Path::new(&files.output);
    let cannot = || format!("--output: cannot write {}", output.display());
    if output.is_dir() || files.output.ends_with('/') {
        bail!(
            "--output: {} is a folder; give the name of a file",
            output.display()
        );
    }
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).with_context(cannot)?;
    fs::write(&files.scores, "").with_context(cannot)?;
    fs::remove_file(&files.scores).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(output: &Path) -> Files {
        let output = output.display().to_string();
        Files {
            input: String::new(),
            errors: format!("{output}.errors"),
            scores: format!("{output}.scores"),
            output,
        }
    }

    #[test]
    fn blank_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("list.txt");
        fs::write(&input, "a.png\n\n  \n b.jpg\r\n").unwrap();
        assert_eq!(read_input(input.to_str().unwrap()).unwrap(), ["a.png", "b.jpg"]);
        fs::write(&input, "\n \n").unwrap();
        assert!(
            read_input(input.to_str().unwrap())
                .unwrap_err()
                .to_string()
                .contains("names no image")
        );
        assert!(format!("{:#}", read_input("absent/list.txt").unwrap_err()).contains("absent/list.txt"));
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
