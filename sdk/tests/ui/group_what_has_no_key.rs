//! Grouping by key where there is no key, and what else wants pairs.
use purlin::prelude::*;

fn main() {
    let p = Pipeline::new();
    let words = p.apply(Create::new(["a".to_string()]));
    words.group_by_key("Group");
    words.keys();
    words.combine_per_key("Top", Sum::<i64>::new());
    words.apply(GroupByKey);
    words.apply(CombinePerKey::new("Sum", Sum::<i64>::new()));
    words.apply(Values::new());
    let pairs = words.with_keys("Key", |word| word.len() as u64);
    words.co_group_by_key("Both", &pairs);
    words.as_map();
    words.as_multimap();
}

//~ `std::string::String` is no pair of a key and a value
//~ the elements are no pairs `(key, value)`
//~ make pairs first: `.map("Pair", |element| (key, element))`, or `.with_keys("Key", |element| key)`
//~ words.group_by_key("Group"
//~ words.keys();
//~ words.combine_per_key("Top"
//~ words.apply(GroupByKey)
//~ words.apply(CombinePerKey
//~ words.apply(Values
//~ words.co_group_by_key("Both"
//~ words.as_map()
//~ words.as_multimap()
