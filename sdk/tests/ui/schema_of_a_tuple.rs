//! A schema without names, one that contains itself, and one with an unknown setting.
use purlin::prelude::*;

#[derive(Clone, Schema)]
struct Pair(i64, i64);

#[derive(Clone, Schema)]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Clone, Schema)]
struct Renamed {
    #[schema(rename = "other")]
    field: i64,
}

#[derive(Clone, Schema)]
struct Borrowed<'a> {
    name: &'a str,
}

fn main() {}

//~ a schema's fields have names: write `struct Pair { value: .. }`
//~ `Tree` contains itself
//~ unknown setting: there is #[schema(name = "..")]
//~ a schema's type cannot borrow
