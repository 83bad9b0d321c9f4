//! The files that ship with the example.

use std::path::PathBuf;

use anyhow::{Result, bail};

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
