//! An element that serde writes and cannot read.
use purlin::prelude::*;
use purlin::serde;

#[derive(Clone, serde::Serialize, Element)]
#[serde(crate = "purlin::serde")]
struct User {
    name: String,
}

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new(["ann".to_string()]))
        .map("User", |name: String| User { name });
}

//~ the trait bound `User: serde::de::DeserializeOwned` is not satisfied
