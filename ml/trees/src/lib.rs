//! Boosted trees in pipelines: [`LightGbm`] runs LightGBM's models by
//! [`RunInference`](purlin_inference::RunInference), without LightGBM, and [`XgBoost`] those of [XGBoost](xgboost).
//!
//! A [`Model`] is a text file that LightGBM's `save_model` wrote, in the formats v3 and v4: all objectives, classes, categories,
//! missing values, linear leaves, random forests. What it predicts is what LightGBM's own Python package predicts: values are
//! compared and summed in the same order, in the same precision. A file that is cut, changed or something else is an
//! [error](ParseError) that names tree, line and key.
//!
//! ```
//! use purlin::prelude::*;
//! use purlin_inference::RunInference;
//! use purlin_trees::LightGbm;
//!
//! // Two leaves: what is at most 0.5 is 10, the rest and what is missing is 20. Most have LightGbm::from_path("model.txt").
//! let model = "tree
//! version=v4
//! num_class=1
//! max_feature_idx=0
//! feature_names=size
//! objective=regression
//!
//! Tree=0
//! num_leaves=2
//! num_cat=0
//! split_feature=0
//! threshold=0.5
//! decision_type=8
//! left_child=-1
//! right_child=-2
//! leaf_value=10 20
//!
//! end of trees
//! ";
//! let p = Pipeline::new();
//! let rows = p.apply(Create::new([vec![0.25], vec![0.75], vec![f64::NAN]]));
//! let results = rows.apply(RunInference::new(LightGbm::from_bytes("sizes", model.as_bytes())));
//! results.map("Show", |result| println!("{:?} gives {}", result.example, result.inference[0]));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```
//!
//! Without a pipeline:
//!
//! ```no_run
//! use purlin_trees::{Model, Output, PredictOptions};
//!
//! let model = Model::load("model.txt")?;
//! let rows = [[0.25, 3.0], [0.75, f64::NAN]];
//! let options = PredictOptions { output: Output::RawScore, ..PredictOptions::default() };
//! let scores = model.predict(&rows, &options)?;
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

mod contributions;
mod error;
mod forest;
mod handler;
mod model;
mod parse;
mod parts;
mod predict;
mod walk;
pub mod xgboost;

pub use error::{LoadError, ParseError, Part, PredictError};
pub use handler::LightGbm;
pub use model::Model;
pub use predict::{Output, PredictOptions, Value};
pub use xgboost::XgBoost;

/// The code in the guide is tested with that of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/trees.md")]
mod guide {}
