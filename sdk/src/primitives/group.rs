//! `beam:transform:group_by_key:v1`.

use purlin_coders::Element;
use purlin_proto::urns::transforms;

use crate::pipeline::{PCollection, PTransform};

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

impl<K: Element, V: Element> PTransform<PCollection<(K, V)>> for GroupByKey {
    type Output = PCollection<(K, Vec<V>)>;

    fn name(&self) -> String {
        "GroupByKey".into()
    }

    fn expand(self, input: PCollection<(K, V)>) -> PCollection<(K, Vec<V>)> {
        let pipeline = input.pipeline();
        pipeline.set_spec(transforms::GROUP_BY_KEY, Vec::new());
        pipeline.new_collection("out", input.windowing().after_grouping(), input.is_bounded())
    }
}

impl<K: Element, V: Element> PCollection<(K, V)> {
    /// The values of each key; see [`GroupByKey`].
    pub fn group_by_key(&self, name: &str) -> PCollection<(K, Vec<V>)> {
        self.apply_named(name, GroupByKey)
    }
}
