//! Derive macros of the Purlin SDK.

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

mod element;
mod schema;
mod test;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a serde type an element of collections: it travels by its `Serialize` and `Deserialize`, in a compact format
/// that only the same program reads. The type must be `Clone + Serialize + DeserializeOwned + Send + 'static`.
#[proc_macro_derive(Element)]
pub fn element(input: TokenStream) -> TokenStream {
    element::expand(parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct a row and an element of collections, or an enum a type that fields can have (without data: an
/// enumeration; with data: a one-of). The type must be `Clone + Send + 'static`.
///
/// `#[schema(name = "..")]` on a field or a case names it otherwise than Rust does.
#[proc_macro_derive(Schema, attributes(schema))]
pub fn schema(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    schema::expand(input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// A test that runs on each runner that the environment variable `PURLIN_TEST_RUNNERS` names: by default in this process,
/// with bundles of any size and of one element. The function takes a `TestPipeline`, and returns nothing or a `Result`.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    test::expand(arguments.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
