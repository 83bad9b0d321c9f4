//! Grouping by key where there is no key.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new(["a".to_string()])).group_by_key("Group");
}

//~ no method named `group_by_key` found
//~ there is a method `group_by` with a similar name
