//! PMML models in pipelines: [`Pmml`] runs them by [`RunInference`](purlin_inference::RunInference), without Java.
//!
//! A [`Model`] is a document of PMML 4.0 to 4.4: regressions, general regressions, trees, ensembles and chains of models, and
//! neural networks, with derived fields, functions, targets and outputs. It gives what the JPMML evaluator gives. The document is read and
//! checked once: an element that is not known is an [error](ParseError) that names it and its line.
//!
//! ```
//! use purlin::prelude::*;
//! use purlin_inference::RunInference;
//! use purlin_pmml::{Pmml, Record};
//!
//! // Most have Pmml::from_path("wine.pmml").
//! let model = r#"<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4">
//!   <Header/>
//!   <DataDictionary>
//!     <DataField name="alcohol" optype="continuous" dataType="double"/>
//!     <DataField name="quality" optype="continuous" dataType="double"/>
//!   </DataDictionary>
//!   <RegressionModel functionName="regression">
//!     <MiningSchema>
//!       <MiningField name="alcohol"/>
//!       <MiningField name="quality" usageType="target"/>
//!     </MiningSchema>
//!     <RegressionTable intercept="1.5">
//!       <NumericPredictor name="alcohol" coefficient="0.5"/>
//!     </RegressionTable>
//!   </RegressionModel>
//! </PMML>"#;
//! let p = Pipeline::new();
//! let wines = p.apply(Create::new([9.0, 12.0].map(|alcohol| Record::new().with("alcohol", alcohol))));
//! let results = wines.apply(RunInference::new(Pmml::from_bytes("wine", model.as_bytes())));
//! results.map("Show", |result| println!("{}", result.inference.value));
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```
//!
//! Without a pipeline:
//!
//! ```no_run
//! use purlin_pmml::{Model, Record};
//!
//! let model = Model::load("wine.pmml")?;
//! let prediction = model.evaluate(&Record::new().with("alcohol", 9.0))?;
//! println!("{} for {:?}", prediction.value, model.inputs());
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

mod compiler;
mod error;
mod expression;
mod fields;
mod frame;
mod handler;
mod model;
mod models;
mod outcome;
mod predicate;
mod record;
mod value;
mod xml;

pub use error::{EvaluateError, LoadError, ParseError};
pub use handler::Pmml;
pub use model::Model;
pub use record::{Prediction, Record};
pub use value::Value;

/// The code in the guide is tested with that of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/pmml.md")]
mod guide {}
