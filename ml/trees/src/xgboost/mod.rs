//! XGBoost's models, by the same walks through trees as LightGBM's, without XGBoost.
//!
//! A [`Model`] is a file that `save_model` of XGBoost wrote, as JSON or as UBJSON (`.json`, `.ubj`), of version 1.7 or newer: the
//! boosters `gbtree`, `dart` and `gblinear`, all objectives, missing values, splits by categories, forests, and several targets with a
//! tree for each. Values are compared and summed as `f32` and in XGBoost's order, so a margin is the one that XGBoost's Python package
//! gives, bit by bit. Where the objective takes an exponential, the prediction is within 2 units in the last place of it: the
//! exponentials of two machines may differ.
//!
//! ```no_run
//! use purlin::prelude::*;
//! use purlin_inference::RunInference;
//! use purlin_trees::XgBoost;
//!
//! let p = Pipeline::new();
//! let rows = p.apply(Create::new([vec![0.25_f32, 3.0], vec![0.75, f32::NAN]]));
//! let results = rows.apply(RunInference::new(XgBoost::from_path("model.ubj")));
//! results.map("Show", |result| println!("{:?} gives {}", result.example, result.inference[0]));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```

mod error;
mod handler;
mod model;
mod objective;
mod parse;
mod predict;
mod tree;

pub use error::{LoadError, ParseError, Part, PredictError};
pub use handler::XgBoost;
pub use model::Model;
pub use predict::{Iterations, Output, PredictOptions, Value};
