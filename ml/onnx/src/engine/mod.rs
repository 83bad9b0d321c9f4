//! What runs a model's graph.

#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod tract;

#[cfg(feature = "onnxruntime")]
pub use onnxruntime::OnnxRuntime;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use crate::error::ParseError;
use crate::file::File;
use crate::rows::{Rows, Stack};

/// What runs a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// tract, which is part of the program, and on each thread runs a batch of its own.
    #[default]
    Tract,
    /// ONNX Runtime, whose library must be on the machine: with the feature `onnxruntime`.
    #[cfg(feature = "onnxruntime")]
    OnnxRuntime(OnnxRuntime),
}

/// A model that is ready to run.
pub trait Ready: Send + Sync {
    /// The engine's name, for errors.
    fn name(&self) -> &'static str;

    /// The outputs that were chosen, for one tensor for each input.
    fn run(&self, inputs: Vec<Stack>) -> Result<Vec<Stack>, Failure>;
}

/// Why there are no outputs.
pub enum Failure {
    /// What the engine says.
    Problem(String),
    /// An output of a type that has none here.
    OutputType { output: usize, found: String },
}

/// What an engine needs of a model.
pub struct Source<'a> {
    pub file: File,
    /// What the file held.
    pub bytes: &'a [u8],
    /// The file, if there is one.
    pub path: Option<&'a Path>,
    /// The outputs that are wanted, by their places in the file.
    pub outputs: &'a [usize],
}

/// A model that is loaded, and how it takes rows, which may be other than what its shapes say.
pub type Loaded = (Box<dyn Ready>, Rows);

impl Engine {
    /// Loads a model.
    pub fn load(&self, source: Source<'_>, rows: Rows) -> Result<Loaded, ParseError> {
        match self {
            Engine::Tract => tract::load(source, rows),
            #[cfg(feature = "onnxruntime")]
            Engine::OnnxRuntime(options) => onnxruntime::load(source, rows, options),
        }
    }
}

/// What an engine gives, where a panic of its own is one error more.
fn guarded<T, E>(run: impl FnOnce() -> Result<T, E>, problem: impl FnOnce(String) -> E) -> Result<T, E> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(problem(text.unwrap_or_else(|| "it panicked".to_owned())))
        }
    }
}
