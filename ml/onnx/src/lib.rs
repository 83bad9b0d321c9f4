//! ONNX models in pipelines: [`Onnx`] runs them by [`RunInference`](purlin_inference::RunInference).
//!
//! A [`Model`] is a file that torch, scikit-learn's and LightGBM's converters and others write. tract runs it, which is part of the
//! program; with the feature `onnxruntime`, ONNX Runtime does where it is asked for, by its library on the machine. What goes in and comes
//! out has types: lists, numbers, texts, and [`Tensor`]s by name.
//!
//! ```no_run
//! use purlin::prelude::*;
//! use purlin_inference::RunInference;
//! use purlin_onnx::Onnx;
//!
//! let p = Pipeline::new();
//! let rows = p.apply(Create::new([vec![5.1f32, 3.5, 1.4, 0.2]]));
//! // scikit-learn's classifiers give a label, and the probability of each class.
//! let iris = Onnx::<Vec<f32>, (i64, Vec<f32>)>::from_path("iris.onnx");
//! rows.apply(RunInference::new(iris)).map("Show", |result| println!("{:?}", result.inference));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```
//!
//! Without a pipeline:
//!
//! ```no_run
//! use purlin_onnx::Model;
//!
//! let model = Model::load("iris.onnx")?;
//! println!("{:?} to {:?}", model.inputs(), model.outputs());
//! let found: Vec<(i64, Vec<f32>)> = model.run(&[vec![5.1f32, 3.5, 1.4, 0.2]])?;
//! # let _ = found;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
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

mod datatype;
mod engine;
mod error;
mod file;
mod handler;
mod model;
mod operators;
mod port;
mod rows;
mod tensor;

pub use datatype::{Datatype, Values};
pub use engine::Engine;
#[cfg(feature = "onnxruntime")]
pub use engine::OnnxRuntime;
pub use error::{LoadError, Node, ParseError, RowError, RunError};
pub use handler::Onnx;
pub use model::{Model, ModelOptions};
pub use port::{Dim, Port};
pub use rows::Rows;
pub use tensor::{Tensor, TensorRow, TensorValue};

/// The code in the guide is tested with that of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/onnx.md")]
mod guide {}
