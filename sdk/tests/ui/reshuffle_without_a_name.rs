//! A step without a name.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new([1i64])).reshuffle();
}

//~ argument #1 of type `&str` is missing
//~ .reshuffle(/* &str */)
