//! The files that ship with the example.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The names of ImageNet's 1000 classes, one a line. In the program itself: workers in containers have no files of it.
pub const IMAGENET: &str = include_str!("../../data/imagenet_labels.txt");

/// A shipped file: in a folder `data` next to the program, or in the sources that it was built from.
pub fn file(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join("data")));
    let folders = [
        beside,
        Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data"))),
    ];
    for folder in folders.iter().flatten() {
        let path = folder.join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    let looked: Vec<String> = folders
        .iter()
        .flatten()
        .map(|folder| folder.display().to_string())
        .collect();
    bail!(
        "the shipped {name} is in none of {}: give --model_state_dict_path and --input",
        looked.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use purlin_torch::classify::parse_labels;

    use super::*;

    #[test]
    fn imagenet_has_a_thousand_names() {
        let names = parse_labels(IMAGENET);
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| !name.is_empty()));
        // Numbers that PyTorch's examples show.
        assert_eq!(
            (&*names[0], &*names[258], &*names[999]),
            ("tench", "Samoyed", "toilet tissue")
        );
    }
}
