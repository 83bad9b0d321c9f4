//! Keys that are not `Eq` and `Hash`.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new([(0.5, 1i64)]))
        .combine_per_key("Sum", Sum::new());
}

//~ Hash` is not satisfied
