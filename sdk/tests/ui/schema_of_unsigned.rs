//! A field of a type that Beam's schemas do not have.
use purlin::prelude::*;

#[derive(Clone, Schema)]
struct Sale {
    cents: u64,
}

fn main() {}

//~ `u64` cannot be the type of a schema's field
//~ Beam has no unsigned numbers
