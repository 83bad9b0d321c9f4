//! Grouping by key where there is no key, and what else wants pairs.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    let words = p.apply(Create::new(["a".to_string()]));
    words.group_by_key("Group");
    words.keys();
    words.combine_per_key("Top", Sum::<i64>::new());
}

//~ `std::string::String: Pair`
//~ words.keys();
//~ words.combine_per_key("Top"
