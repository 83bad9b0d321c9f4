//! A program without a mistake.
use purlin::prelude::*;

#[derive(Clone, Schema)]
struct Sale {
    cents: i64,
}

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new([Sale { cents: 1 }]))
        .map("Cents", |sale: Sale| sale.cents);
}
