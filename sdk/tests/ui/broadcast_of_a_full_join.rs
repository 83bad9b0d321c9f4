//! Broadcasting where elements of the right may be alone.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    let side = p.apply(Create::new([(1i64, 2i64)]));
    let key = |pair: &(i64, i64)| pair.0;
    (side.clone(), side).apply(Join::full(key, key).broadcast());
}

//~ the method `broadcast` exists for struct `Join<Full,
//~ Full: KeepsLeft`
