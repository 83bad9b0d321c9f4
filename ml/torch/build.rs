//! Compiles the shim, and lets programs find libtorch: those of this crate from anywhere, those that depend on it wherever
//! cargo starts them.

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
    compile_shim(Path::new(&lib));
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    // Cargo sets the loader's path to the folders that build scripts name, but only to those below `target`.
    let out = env::var("OUT_DIR").unwrap_or_default();
    let link = Path::new(&out).join("lib");
    match replace_link(&lib, &link) {
        Ok(()) => println!("cargo:rustc-link-search=native={}", link.display()),
        Err(error) => println!("cargo:warning=cannot link {} to {lib}: {error}", link.display()),
    }
}

/// The little of libtorch that tch does not reach.
fn compile_shim(lib: &Path) {
    println!("cargo:rerun-if-changed=src/shim/shim.cpp");
    let include = lib.with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("src/shim/shim.cpp")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        // It only calls libtorch, and headers so large take long to optimise.
        .opt_level(0)
        .debug(false)
        .warnings(false)
        .compile("purlin_torch_shim");
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={library}");
    }
}

fn replace_link(target: &str, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, link)
}
