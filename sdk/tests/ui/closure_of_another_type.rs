//! A closure that takes another type than the collection's.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new([1i64]))
        .map("Length", |word: String| word.len());
}

//~ type mismatch in closure arguments
