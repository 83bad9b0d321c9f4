//! Elements as text.

use std::fmt::{Display, Write};

use purlin_model::Element;

use crate::pipeline::{PCollection, PTransform};
use crate::primitives::Pair;

/// Makes text of elements, pairs and lists.
///
/// ```
/// use purlin::prelude::*;
/// use purlin::transforms::ToString;
///
/// let p = TestPipeline::new();
/// let pairs = p.apply(Create::new([("a".to_string(), 1i64)]));
/// PAssert::that(&pairs.apply(ToString::kvs(": "))).contains_in_any_order(["a: 1".to_string()]);
/// let numbers = p.apply_named("Numbers", Create::new([1i64, 2]));
/// PAssert::that(&numbers.apply(ToString::elements())).contains_in_any_order(["1".to_string(), "2".to_string()]);
/// let lists = p.apply_named("Lists", Create::new([vec![1i64, 2]]));
/// PAssert::that(&lists.apply(ToString::iterables(","))).contains_in_any_order(["1,2".to_string()]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub enum ToString {}

impl ToString {
    /// Each element as text.
    pub fn elements() -> ElementToString {
        ElementToString
    }

    /// Key, delimiter, value.
    pub fn kvs(delimiter: &str) -> KvToString {
        KvToString(delimiter.to_owned())
    }

    /// The elements of a list with the delimiter between them.
    pub fn iterables(delimiter: &str) -> IterableToString {
        IterableToString(delimiter.to_owned())
    }
}

/// See [`ToString::elements`].
#[derive(Clone, Copy, Debug)]
pub struct ElementToString;

/// See [`ToString::kvs`].
#[derive(Clone, Debug)]
pub struct KvToString(String);

/// See [`ToString::iterables`].
#[derive(Clone, Debug)]
pub struct IterableToString(String);

impl<T: Element + Display> PTransform<PCollection<T>> for ElementToString {
    type Output = PCollection<String>;

    fn name(&self) -> String {
        "ToString".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<String> {
        input.map("Element", |element: T| element.to_string())
    }
}

impl<T: Pair<Key: Display, Value: Display>> PTransform<PCollection<T>> for KvToString {
    type Output = PCollection<String>;

    fn name(&self) -> String {
        "ToString".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<String> {
        let delimiter = self.0;
        T::pairs(&input).map("Kv", move |(key, value): (T::Key, T::Value)| {
            format!("{key}{delimiter}{value}")
        })
    }
}

impl<T: Element + Display> PTransform<PCollection<Vec<T>>> for IterableToString {
    type Output = PCollection<String>;

    fn name(&self) -> String {
        "ToString".into()
    }

    fn expand(self, input: PCollection<Vec<T>>) -> PCollection<String> {
        let delimiter = self.0;
        input.map("Iterable", move |elements: Vec<T>| {
            let mut text = String::new();
            for (i, element) in elements.iter().enumerate() {
                let between = if i == 0 { "" } else { &delimiter };
                // Writing to a String does not fail.
                let _ = write!(text, "{between}{element}");
            }
            text
        })
    }
}
