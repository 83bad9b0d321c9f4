//! Keys and values of pairs.

use purlin_model::Element;

use crate::pipeline::{PCollection, PTransform};
use crate::primitives::Pair;

/// The keys of pairs, each as often as it comes.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let pairs = p.apply(Create::new([("a".to_string(), 1i64), ("b".to_string(), 2)]));
/// let keys = pairs.apply(Keys::new());
/// PAssert::that(&keys).contains_in_any_order(["a".to_string(), "b".to_string()]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys;

impl Keys {
    /// The transform.
    pub fn new() -> Keys {
        Keys
    }
}

impl<T: Pair> PTransform<PCollection<T>> for Keys {
    type Output = PCollection<T::Key>;

    fn name(&self) -> String {
        "Keys".into()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        T::pairs(&input).map("Key", |(key, _): (T::Key, T::Value)| key)
    }
}

/// The values of pairs.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let pairs = p.apply(Create::new([("a".to_string(), 1i64), ("b".to_string(), 2)]));
/// PAssert::that(&pairs.apply(Values::new())).contains_in_any_order([1, 2]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Values;

impl Values {
    /// The transform.
    pub fn new() -> Values {
        Values
    }
}

impl<T: Pair> PTransform<PCollection<T>> for Values {
    type Output = PCollection<T::Value>;

    fn name(&self) -> String {
        "Values".into()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        T::pairs(&input).map("Value", |(_, value): (T::Key, T::Value)| value)
    }
}

/// Pairs with key and value exchanged.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let pairs = p.apply(Create::new([("a".to_string(), 1i64)]));
/// PAssert::that(&pairs.apply(KvSwap::new())).contains_in_any_order([(1, "a".to_string())]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KvSwap;

impl KvSwap {
    /// The transform.
    pub fn new() -> KvSwap {
        KvSwap
    }
}

impl<T: Pair> PTransform<PCollection<T>> for KvSwap {
    type Output = PCollection<(T::Value, T::Key)>;

    fn name(&self) -> String {
        "KvSwap".into()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        T::pairs(&input).map("Swap", |(key, value): (T::Key, T::Value)| (value, key))
    }
}

/// Pairs each element with a key that is made from it.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let words = p.apply(Create::new(["to".to_string(), "be".to_string()]));
/// let by_initial = words.apply(WithKeys::of(|word: &String| word[..1].to_string()));
/// PAssert::that(&by_initial)
///     .contains_in_any_order([("t".to_string(), "to".to_string()), ("b".to_string(), "be".to_string())]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithKeys<F> {
    key: F,
}

impl<F> WithKeys<F> {
    /// With the key that the closure gives for an element.
    pub fn of(key: F) -> WithKeys<F> {
        WithKeys { key }
    }
}

impl<T, K, F> PTransform<PCollection<T>> for WithKeys<F>
where
    T: Element,
    K: Element,
    F: Fn(&T) -> K + Clone + Send + 'static,
{
    type Output = PCollection<(K, T)>;

    fn name(&self) -> String {
        "WithKeys".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<(K, T)> {
        let key = self.key;
        input.map("Pair", move |element: T| (key(&element), element))
    }
}

impl<T: Element> PCollection<T> {
    /// Pairs each element with a key that is made from it: [`WithKeys`].
    pub fn with_keys<K: Element>(
        &self,
        name: &str,
        key: impl Fn(&T) -> K + Clone + Send + 'static,
    ) -> PCollection<(K, T)> {
        self.apply_named(name, WithKeys::of(key))
    }
}

impl<T: Element> PCollection<T> {
    /// The keys of the pairs: [`Keys`].
    pub fn keys(&self) -> PCollection<T::Key>
    where
        T: Pair,
    {
        self.apply(Keys)
    }

    /// The values of the pairs: [`Values`].
    pub fn values(&self) -> PCollection<T::Value>
    where
        T: Pair,
    {
        self.apply(Values)
    }

    /// The pairs with key and value exchanged: [`KvSwap`].
    pub fn kv_swap(&self) -> PCollection<(T::Value, T::Key)>
    where
        T: Pair,
    {
        self.apply(KvSwap)
    }
}
