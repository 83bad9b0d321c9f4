//! The SDK as a user has it. One program, as each is linked for itself; `same_results` and `validates_runner` are others, since they are
//! run by name on runners of all kinds.

mod async_par_do;
#[cfg(all(feature = "avro", feature = "parquet"))]
mod columnar;
mod common;
mod compile_errors;
mod direct;
mod file_io;
#[cfg(feature = "object-store")]
mod object_store;
mod queryable;
mod schemas;
mod splittable;
mod state;
mod state_rules;
mod text_io;
mod transforms;
mod windows;
