//! `beam:transform:group_by_key:v1`.

use purlin_model::Element;
use purlin_proto::urns::transforms;

use crate::error::BoxError;
use crate::pipeline::{PCollection, PTransform};
use crate::primitives::Pair;
use crate::side_input::Elements;

/// The values of each key, by window. Keys are the same when their encodings are.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let grouped: PCollection<(String, Vec<i64>)> =
///     p.apply(Create::new([("a".to_string(), 1i64), ("a".to_string(), 2)])).apply(GroupByKey);
/// # p.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupByKey;

impl GroupByKey {
    /// As [`GroupByKey`], for values that memory does not hold: they are read from the runner page by page whenever they
    /// are iterated over.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let sums = p
    ///     .apply(Create::new((0..1000i64).map(|n| (n % 2, n))))
    ///     .apply(GroupByKey::as_iterables())
    ///     .try_map("Sum", |(key, values): (i64, Elements<i64>)| {
    ///         let mut sum = 0;
    ///         for value in &values {
    ///             sum += value?;
    ///         }
    ///         Ok::<_, BoxError>((key, sum))
    ///     });
    /// PAssert::that(&sums).contains_in_any_order([(0, 249_500), (1, 250_000)]);
    /// p.run();
    /// ```
    pub fn as_iterables() -> GroupAsIterables {
        GroupAsIterables(())
    }
}

/// Made by [`GroupByKey::as_iterables`].
#[derive(Clone, Copy, Debug)]
pub struct GroupAsIterables(());

fn group<K: Element, V: Element, G: Element>(input: PCollection<(K, V)>) -> PCollection<(K, G)> {
    let pipeline = input.pipeline();
    pipeline.set_spec(transforms::GROUP_BY_KEY, Vec::new());
    pipeline.new_collection("out", input.windowing().after_grouping(), input.is_bounded())
}

impl<T: Pair> PTransform<PCollection<T>> for GroupAsIterables {
    type Output = PCollection<(T::Key, Elements<T::Value>)>;

    fn name(&self) -> String {
        "GroupByKey".into()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        group(T::pairs(&input))
    }
}

impl<T: Pair> PTransform<PCollection<T>> for GroupByKey {
    type Output = PCollection<(T::Key, Vec<T::Value>)>;

    fn name(&self) -> String {
        "GroupByKey".into()
    }

    fn expand(self, input: PCollection<T>) -> Self::Output {
        if Vec::<T::Value>::coder() == Elements::<T::Value>::coder() {
            return group(T::pairs(&input));
        }
        // A vector of bytes is a byte string, and a group is none.
        input.group_by_key_as_iterables("Group").try_map(
            "Gather",
            |(key, values): (T::Key, Elements<T::Value>)| {
                let values = values.iter().collect::<Result<Vec<T::Value>, BoxError>>()?;
                Ok::<_, BoxError>((key, values))
            },
        )
    }
}

impl<T: Element> PCollection<T> {
    /// The values of each key; see [`GroupByKey`].
    pub fn group_by_key(&self, name: &str) -> PCollection<(T::Key, Vec<T::Value>)>
    where
        T: Pair,
    {
        self.apply_named(name, GroupByKey)
    }

    /// The values of each key, read page by page; see [`GroupByKey::as_iterables`].
    pub fn group_by_key_as_iterables(&self, name: &str) -> PCollection<(T::Key, Elements<T::Value>)>
    where
        T: Pair,
    {
        self.apply_named(name, GroupByKey::as_iterables())
    }
}
