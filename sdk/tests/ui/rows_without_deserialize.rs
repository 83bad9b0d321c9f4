//! Rows of a type that serde cannot read.
use purlin::prelude::*;

#[derive(Clone, Schema)]
struct User {
    name: String,
}

fn main() {
    let p = Pipeline::new();
    p.apply(ReadCsv::<User>::from("users.csv"));
    p.apply(ReadJson::<User>::from("users.json"));
}

//~ consider adding `#[derive(serde::Deserialize)]` to your `User` type
//~ ReadCsv::<User>::from("users.csv")
//~ ReadJson::<User>::from("users.json")
