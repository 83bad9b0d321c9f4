//! The commonest mistakes do not compile, and the compiler says what to do.
//!
//! Each file in `ui/` is a program with a mistake. Its lines `//~ text` are parts of what the compiler must say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that this test was built with, and the folder of what it needs.
fn library() -> (PathBuf, PathBuf) {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap().to_path_buf();
    let libraries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let newest = libraries
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("libpurlin-") && name.ends_with(".rlib")
        })
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    (newest.expect("the library is built before its tests"), folder)
}

fn compile(program: &Path, out: &Path) -> (bool, String) {
    let (library, folder) = library();
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .args(["--edition", "2024", "--emit", "metadata", "--color", "never"])
        .arg("--extern")
        .arg(format!("purlin={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg("--out-dir")
        .arg(out)
        .arg(program)
        .output()
        .expect("the compiler runs");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn mistakes_are_told_by_the_compiler() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let out = tempfile::tempdir().unwrap();
    let mut programs: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    programs.sort();
    assert!(programs.len() > 10);
    let mut wrong = String::new();
    for program in programs {
        let source = fs::read_to_string(&program).unwrap();
        let wanted: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//~ "))
            .collect();
        let (compiled, said) = compile(&program, out.path());
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("correct") {
            // Shows that the others fail for their mistakes.
            assert!(compiled, "{name}:\n{said}");
            continue;
        }
        assert!(!compiled, "{name} compiles");
        assert!(!wanted.is_empty(), "{name} says nothing of the message");
        let missing: Vec<&&str> = wanted.iter().filter(|text| !said.contains(**text)).collect();
        if !missing.is_empty() {
            wrong.push_str(&format!("{name}: not said: {missing:#?}\n{said}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
