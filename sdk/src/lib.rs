//! The Rust SDK for Apache Beam pipelines.
//!
//! ```
//! use purlin::prelude::*;
//!
//! let p = Pipeline::new();
//! let counts = p
//!     .apply(Create::new(["to be or not to be".to_string()]))
//!     .flat_map("Split", |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
//!     .map("PairWithOne", |word| (word, 1u64))
//!     .combine_per_key("Sum", Sum::new());
//! let result = p.run(&PipelineOptions::default())?;
//! assert_eq!(result.state(), PipelineState::Done);
//! # Ok::<(), RunError>(())
//! ```
//!
//! A program's `Cargo.toml` needs one line, with the features of the files that it reads or writes (`avro`, `parquet`, `object-store`):
//!
//! ```toml
//! [dependencies]
//! purlin = { path = "../purlin/sdk", features = ["parquet"] }
//! ```
//!
//! [`clap`] and [`serde`], in which options and types of one's own are written, come with it:
//!
//! ```
//! use purlin::prelude::*;
//! use purlin::{clap, serde};
//!
//! /// Adds up what was paid.
//! #[derive(clap::Parser)]
//! struct Options {
//!     /// Files to read
//!     #[arg(long, default_value = "*.csv")]
//!     input: String,
//!     #[command(flatten)]
//!     pipeline: PipelineOptions,
//! }
//!
//! #[derive(Clone, serde::Serialize, serde::Deserialize, Element)]
//! #[serde(crate = "purlin::serde")]
//! struct Payment {
//!     cents: i64,
//! }
//!
//! let options: Options = purlin::options::try_parse_from(["payments", "--runner=DirectRunner"])?;
//! let p = Pipeline::new();
//! p.apply(ReadCsv::<Payment>::from(&options.input)).map("Cents", |payment: Payment| payment.cents);
//! # Ok::<(), clap::Error>(())
//! ```
//!
//! A pipeline is built first and run afterwards. User code is closures, [`DoFn`]s and [`CombineFn`]s. Workers in other
//! processes find closures again by building the same pipeline, so what a program does before it runs its pipeline
//! must be repeatable.

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

// Derive macros name this crate, in this crate, too.
extern crate self as purlin;

mod clock;
mod closure;
mod combine;
mod dofn;
mod error;
pub mod harness;
pub mod io;
pub mod metrics;
pub mod options;
pub mod pipeline;
pub mod primitives;
mod result;
pub mod runners;
pub mod schema;
pub mod side_input;
pub mod sources;
pub mod splittable;
mod stage;
pub mod state;
pub mod testing;
pub mod transforms;
pub mod windowing;

pub use clap;
pub use combine::CombineFn;
pub use dofn::{AsyncDoFn, Context, DoFn, FinishContext, KeyedContext, OutputTag, StatefulDoFn};
pub use error::{BoxError, BuildError, DoFnResult, RunError};
pub use pipeline::{PCollection, PTransform, Pipeline};
pub use primitives::OutputTags;
pub use purlin_derive::{Element, Schema, test};
pub use purlin_model as coders;
pub use purlin_model::{Element, PaneInfo, Timestamp, Window};
pub use result::{PipelineHandle, PipelineResult, PipelineState};
pub use schema::Schema;
pub use serde;
pub use transforms::Sum;

/// What nearly every pipeline needs.
pub mod prelude {
    pub use crate::combine::CombineFn;
    pub use crate::dofn::{AsyncDoFn, Context, DoFn, FinishContext, KeyedContext, OutputTag, StatefulDoFn};
    pub use crate::error::{BoxError, BuildError, DoFnResult, RunError};
    pub use crate::io::{
        Compression, EmptyMatch, FileMetadata, MatchAll, MatchContinuously, MatchFiles, ReadAllJson,
        ReadAllText, ReadCsv, ReadFiles, ReadJson, ReadText, ReadTfRecord, WriteCsv, WriteJson, WriteText,
        WriteTfRecord,
    };
    #[cfg(feature = "avro")]
    pub use crate::io::{ReadAvro, WriteAvro};
    #[cfg(feature = "parquet")]
    pub use crate::io::{ReadParquet, WriteParquet};
    pub use crate::metrics::Metrics;
    pub use crate::options::PipelineOptions;
    pub use crate::pipeline::{Apply, PBegin, PCollection, PTransform, PValue, Pipeline};
    pub use crate::primitives::{
        AsyncParDo, CombineGlobally, CombinePerKey, Create, Filter, FlatMap, Flatten, GroupByKey, Impulse,
        Map, ParDo, Reshuffle, SplittableParDo, StatefulParDo, TryFlatMap, TryMap,
    };
    pub use crate::result::{PipelineHandle, PipelineResult, PipelineState};
    pub use crate::side_input::{Elements, SideInput};
    pub use crate::sources::{
        BoundedSource, GenerateSequence, Next, PeriodicImpulse, ReadBounded, ReadUnbounded, UnboundedReader,
        UnboundedSource,
    };
    pub use crate::splittable::{
        Continuation, ManualWatermark, MonotoneWatermark, NoWatermark, OffsetRange, OffsetTracker,
        RestrictionTracker, SplitContext, SplittableDoFn, WallTimeWatermark, WatermarkEstimator,
    };
    pub use crate::state::{
        BagState, CombiningState, FiredTimer, MapState, MultimapState, OrderedListState, SetState, Timer,
        ValueState,
    };
    pub use crate::testing::{PAssert, TestPipeline, TestStream};
    pub use crate::transforms::{
        ApproximateQuantiles, BatchElements, CoGroupByKey, Count, Distinct, GroupByFields, GroupByRow,
        GroupIntoBatches, Join, Keys, KvSwap, Latest, Max, Mean, Min, Partition, Sample, Select, Sum, ToList,
        ToSet, Top, Values, WithKeys,
    };
    pub use crate::windowing::{
        CalendarWindows, CustomWindowFn, IntervalWindow, Merged, TimestampCombiner, Trigger, WindowFn,
        WindowType, Windowing,
    };
    pub use purlin_model::{PaneInfo, Timestamp, Window};
    // The traits and the derive macros.
    pub use crate::{Element, Schema};
}

/// For the code that derive macros write.
#[doc(hidden)]
pub mod __private {
    pub use serde::Serialize;
    pub use serde::de::DeserializeOwned;
}

/// The code in `docs/guide` is tested with that of the reference.
#[cfg(doctest)]
mod guide {
    macro_rules! chapters {
        ($($name:ident: $file:literal),* $(,)?) => {
            $(#[doc = include_str!(concat!("../../docs/guide/", $file))] mod $name {})*
        };
    }
    chapters! {
        pipelines: "pipelines.md",
        transforms: "transforms.md",
        windows: "windows.md",
        state: "state.md",
        schemas: "schemas.md",
        io: "io.md",
        testing: "testing.md",
        running: "running.md",
    }
}
