//! Pairs, as the transforms by key want them.

use purlin_model::Element;

use crate::pipeline::PCollection;

/// An element that is a key and a value: the tuples `(K, V)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no pair of a key and a value",
    label = "the elements are no pairs `(key, value)`",
    note = "make pairs first: `.map(\"Pair\", |element| (key, element))`, or `.with_keys(\"Key\", |element| key)`"
)]
pub trait Pair: Element {
    /// The key.
    type Key: Element;
    /// The value.
    type Value: Element;

    /// The same collection, known to be of pairs.
    #[doc(hidden)]
    fn pairs(collection: &PCollection<Self>) -> PCollection<(Self::Key, Self::Value)>;
}

impl<K: Element, V: Element> Pair for (K, V) {
    type Key = K;
    type Value = V;

    fn pairs(collection: &PCollection<Self>) -> PCollection<(K, V)> {
        collection.clone()
    }
}
