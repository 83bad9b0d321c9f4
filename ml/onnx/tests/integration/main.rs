//! Models of torch, scikit-learn and LightGBM (`make_models.py`), with what these give; files that are broken; and pipelines. One
//! program, as each is linked for itself.
//!
//! All is tried with tract and, with the feature `onnxruntime`, with ONNX Runtime where `ORT_DYLIB_PATH` says that its library is.

mod broken;
mod golden;
mod inference;

use std::path::PathBuf;

use purlin_onnx::{Engine, Model, ModelOptions};

/// The folder of the models. `tests/onnx.py` makes new ones elsewhere.
pub fn folder() -> PathBuf {
    let golden = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("ONNX_MODELS").map_or_else(golden, PathBuf::from)
}

/// Whether the models are others than those in `golden`.
pub fn is_elsewhere() -> bool {
    std::env::var_os("ONNX_MODELS").is_some()
}

/// A model's file.
pub fn path(name: &str) -> PathBuf {
    folder().join(name).with_extension("onnx")
}

/// The engines that are here.
pub fn engines() -> Vec<Engine> {
    [Engine::Tract].into_iter().chain(onnx_runtime()).collect()
}

#[cfg(feature = "onnxruntime")]
fn onnx_runtime() -> Option<Engine> {
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        return Some(Engine::OnnxRuntime(purlin_onnx::OnnxRuntime::default()));
    }
    println!("skipped: ONNX Runtime: set ORT_DYLIB_PATH to its libonnxruntime.so");
    None
}

#[cfg(not(feature = "onnxruntime"))]
fn onnx_runtime() -> Option<Engine> {
    None
}

/// A model for an engine.
pub fn load(name: &str, engine: &Engine) -> Model {
    let options = ModelOptions {
        engine: engine.clone(),
        ..ModelOptions::default()
    };
    Model::load_with(path(name), &options).unwrap()
}
