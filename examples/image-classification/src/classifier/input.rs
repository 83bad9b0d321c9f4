//! Which images there are: of a list, a folder, a glob or an object store.

use std::path::Path;

use anyhow::{Context, Result, bail};
use glob::Pattern;
use purlin::io::{match_files, read_file};

/// Files of a folder that count as images; of a glob all do.
const EXTENSIONS: [&str; 7] = ["bmp", "gif", "jfif", "jpeg", "jpg", "png", "webp"];

/// The image paths that `--input` names, in the order in which they stand in a list, by name otherwise.
///
/// A worker asks this too: it must not depend on anything but the input and what lies there.
pub fn image_paths(input: &str) -> Result<Vec<String>> {
    let paths = if let Some(folder) = folder(input) {
        let pattern = format!("{}/**/*", Pattern::escape(folder));
        let found = files(&pattern)?;
        found.into_iter().filter(|path| is_image(path, folder)).collect()
    } else if is_glob(input) {
        files(input)?
    } else {
        listed(input)?
    };
    if paths.is_empty() {
        bail!("--input: {input} names no image; {HINT}");
    }
    Ok(paths)
}

const HINT: &str =
    "it is a text file with the path of one image a line, a folder, or a pattern such as photos/*.jpg";

/// The folder, or the prefix of an object store, that an input is.
fn folder(input: &str) -> Option<&str> {
    let is_folder = if is_url(input) {
        input.ends_with('/')
    } else {
        Path::new(input).is_dir()
    };
    is_folder.then(|| match input.trim_end_matches('/') {
        // The root itself.
        "" => "/.",
        folder => folder,
    })
}

pub fn is_url(path: &str) -> bool {
    path.contains("://")
}

/// A file whose name looks like a pattern is a list all the same.
fn is_glob(input: &str) -> bool {
    input.contains(['*', '?', '[']) && !Path::new(input).is_file()
}

fn files(pattern: &str) -> Result<Vec<String>> {
    let found = match_files(pattern).with_context(|| format!("--input: cannot list {pattern}"))?;
    Ok(found.into_iter().map(|file| file.path).collect())
}

/// Whether a file of a folder is taken: by its extension, and not if it or a folder that it is in is hidden.
fn is_image(path: &str, folder: &str) -> bool {
    let below = Path::new(path.strip_prefix(folder).unwrap_or(path));
    let hidden = below
        .components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    let extension = below
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_ascii_lowercase);
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&&*extension))
}

/// The lines of a list, without blank ones.
fn listed(input: &str) -> Result<Vec<String>> {
    let text = read_file(input)
        .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
        .with_context(|| format!("--input: cannot read {input}; {HINT}"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn blank_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("list.txt");
        fs::write(&input, "a.png\n\n  \n b.jpg\r\n").unwrap();
        assert_eq!(image_paths(input.to_str().unwrap()).unwrap(), ["a.png", "b.jpg"]);
        fs::write(&input, "\n \n").unwrap();
        let error = image_paths(input.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("names no image"), "{error}");
        assert!(format!("{:#}", image_paths("absent/list.txt").unwrap_err()).contains("absent/list.txt"));
    }

    #[test]
    fn folders_and_globs_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        fs::create_dir_all(at("deep[1]/.hidden")).unwrap();
        for name in [
            "b.PNG",
            "a\nb.jpg",
            "notes.txt",
            "deep[1]/c.jpeg",
            "deep[1]/.d.jpg",
            "deep[1]/.hidden/e.jpg",
        ] {
            fs::write(at(name), "").unwrap();
        }
        let inner = image_paths(&at("deep[1]")).unwrap();
        assert_eq!(inner, [at("deep[1]/c.jpeg")]);
        let mut all = image_paths(&format!("{}/", folder.path().display())).unwrap();
        all.sort();
        assert_eq!(all, [at("a\nb.jpg"), at("b.PNG"), at("deep[1]/c.jpeg")]);
        assert_eq!(image_paths(&at("n*")).unwrap(), [at("notes.txt")]);
        let error = image_paths(&at("*.gif")).unwrap_err().to_string();
        assert!(error.contains("names no image"), "{error}");
    }
}
