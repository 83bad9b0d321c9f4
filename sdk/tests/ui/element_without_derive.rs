//! A type of the user's own without a derive.
use purlin::prelude::*;

#[derive(Clone)]
struct User {
    name: String,
}

fn main() {
    let p = Pipeline::new();
    p.apply(Create::new(["ann".to_string()]))
        .map("User", |name: String| User { name });
}

//~ `User` cannot be an element of a PCollection
//~ #[derive(Schema)]
