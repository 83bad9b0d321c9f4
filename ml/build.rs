//! Writes libtorch's folder into every binary of this crate, so that they run from anywhere without LD_LIBRARY_PATH.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    match std::env::var("DEP_TCH_LIBTORCH_LIB") {
        Ok(lib) => {
            // Crates that link this one read the same value as DEP_PURLIN_ML_LIBTORCH_LIB.
            println!("cargo:libtorch_lib={lib}");
            println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        }
        Err(_) => {
            panic!("libtorch was not found: run `make setup`, or point LIBTORCH at a PyTorch 2.11 folder")
        }
    }
}
