//! Joining by keys of two types.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    let left = p.apply(Create::new([(1i64, 2i64)]));
    let right = p.apply(Create::new([("1".to_string(), 2i64)]));
    (left, right).apply(Join::inner(|l: &(i64, i64)| l.0, |r: &(String, i64)| r.0.clone()));
}

//~ mismatched types
//~ expected `i64`, found `String`
