//! A closure that captures what cannot go to another thread.
use purlin::prelude::*;
use std::rc::Rc;

fn main() {
    let p = Pipeline::new();
    let offset = Rc::new(1i64);
    p.apply(Create::new([1i64])).map("Add", move |n: i64| n + *offset);
}

//~ `Rc<i64>` cannot be sent between threads safely
