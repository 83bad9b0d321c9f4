//! Lets programs find libtorch: those of this crate from anywhere, those that depend on it wherever cargo starts them.

use std::path::Path;
use std::{env, fs, io};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else {
        panic!("libtorch was not found: run `make setup`, or point LIBTORCH at a PyTorch 2.11 folder")
    };
    // Crates that link this one read the same value as DEP_PURLIN_TORCH_LIBTORCH_LIB.
    println!("cargo:libtorch_lib={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    // Cargo sets the loader's path to the folders that build scripts name, but only to those below `target`.
    let out = env::var("OUT_DIR").unwrap_or_default();
    let link = Path::new(&out).join("lib");
    match replace_link(&lib, &link) {
        Ok(()) => println!("cargo:rustc-link-search=native={}", link.display()),
        Err(error) => println!("cargo:warning=cannot link {} to {lib}: {error}", link.display()),
    }
}

fn replace_link(target: &str, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, link)
}
