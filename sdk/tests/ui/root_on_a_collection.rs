//! A root transform on a collection.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new(["*.txt".to_string()]))
        .apply(Create::new([1i64]));
}

//~ cannot be applied to `PCollection<
//~ root transforms such as `Create` and `ReadText` are applied to the pipeline
