//! Whether elements have keys.

use std::marker::PhantomData;

use purlin::Element;

/// Whether the elements of a collection are values or pairs of a key and a value.
pub trait Shape: Clone + Send + Sync + 'static {
    /// The keys.
    type Key: Element;
    /// The elements, for values of this type.
    type Of<T: Element>: Element;

    /// The value in an element.
    fn value<T: Element>(of: &Self::Of<T>) -> &T;
    /// The key of an element.
    fn key<T: Element>(of: &Self::Of<T>) -> Self::Key;
    /// An element's key and value.
    fn split<T: Element>(of: Self::Of<T>) -> (Self::Key, T);
    /// The element of a key and a value.
    fn join<T: Element>(key: Self::Key, value: T) -> Self::Of<T>;
}

/// Elements are values.
#[derive(Debug, Clone, Copy)]
pub struct Unkeyed;

/// Elements are pairs of a key and a value.
#[derive(Debug, Clone, Copy)]
pub struct Keyed<K>(PhantomData<fn() -> K>);

impl Shape for Unkeyed {
    type Key = ();
    type Of<T: Element> = T;

    fn value<T: Element>(of: &T) -> &T {
        of
    }
    fn key<T: Element>(_: &T) {}
    fn split<T: Element>(of: T) -> ((), T) {
        ((), of)
    }
    fn join<T: Element>((): (), value: T) -> T {
        value
    }
}

impl<K: Element> Shape for Keyed<K> {
    type Key = K;
    type Of<T: Element> = (K, T);

    fn value<T: Element>(of: &(K, T)) -> &T {
        &of.1
    }
    fn key<T: Element>(of: &(K, T)) -> K {
        of.0.clone()
    }
    fn split<T: Element>(of: (K, T)) -> (K, T) {
        of
    }
    fn join<T: Element>(key: K, value: T) -> (K, T) {
        (key, value)
    }
}
