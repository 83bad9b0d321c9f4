//! Models of PyTorch in Purlin pipelines: what [`purlin_inference`] runs them with needs none of it.
//!
//! - [`images`]: from image paths to classes, as one transform;
//! - [`models`]: networks by torchvision's names, and any TorchScript file;
//! - [`weights`]: safetensors, `torch.save(model.state_dict(), path)` and TorchScript files;
//! - [`preprocess`]: image files to tensors, with torchvision's and PIL's numbers;
//! - `text` (with the feature of this name): sentences to embeddings, by encoders of the BERT family;
//! - [`classify`]: batches of images to labels and scores;
//! - [`tuning`]: allocator, threads, device and precision.
//!
//! # Programs that use it
//!
//! They link libtorch 2.11, which the environment variable `LIBTORCH` names while they are built: the folder that `make setup` fetches
//! (`third_party/libtorch/torch`), or that of an installed PyTorch 2.11 (`python3 -c 'import torch; print(torch.__path__[0])'`).
//! Put it into the crate's `.cargo/config.toml`, under `[env]`, or into the shell:
//!
//! ```sh
//! export LIBTORCH=/opt/purlin/third_party/libtorch/torch
//! cargo run
//! ```
//!
//! `cargo run` and `cargo test` need no more. A program that is also to be started without cargo has libtorch's folder written into
//! it by this line as its `build.rs`, or is started with `LD_LIBRARY_PATH=$LIBTORCH/lib`:
//!
//! ```text
//! fn main() { println!("cargo:rustc-link-arg=-Wl,-rpath,{}", std::env::var("DEP_PURLIN_TORCH_LIBTORCH_LIB").unwrap()) }
//! ```

#![deny(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod classify;
mod frozen;
pub mod images;
pub mod models;
pub mod preprocess;
mod shim;
#[cfg(feature = "text")]
pub mod text;
pub mod tuning;
pub mod weights;

/// The code of the guide's page.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/torch.md")]
mod guide {}

#[cfg(test)]
mod tests {
    /// Programs of crates that depend on this one are started by cargo with this folder in the loader's path.
    #[test]
    fn cargo_finds_libtorch_for_programs_that_depend_on_this_crate() {
        let lib = std::path::Path::new(concat!(env!("OUT_DIR"), "/lib"));
        assert!(lib.join("libtorch_cpu.so").is_file());
        assert!(
            lib.join("../include/torch").is_dir(),
            "the link leads to the folder itself"
        );
    }
}
