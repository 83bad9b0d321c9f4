//! Each element once.

use std::hash::Hash;

use purlin_model::Element;

use super::Count;
use crate::pipeline::{PCollection, PTransform};

/// Each element once per window, however often it comes. Elements are the same when their encodings are.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let numbers = p.apply(Create::new([1i64, 2, 1, 1]));
/// PAssert::that(&numbers.apply(Distinct::new())).contains_in_any_order([1, 2]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Distinct;

impl Distinct {
    /// The transform.
    pub fn new() -> Distinct {
        Distinct
    }
}

impl<T: Element + Eq + Hash> PTransform<PCollection<T>> for Distinct {
    type Output = PCollection<T>;

    fn name(&self) -> String {
        "Distinct".into()
    }

    fn expand(self, input: PCollection<T>) -> PCollection<T> {
        // Counting is combined before the shuffle, so an element crosses it once per bundle.
        input
            .map("ToPairs", |element: T| (element, ()))
            .combine_per_key("Group", Count::new())
            .keys()
    }
}

impl<T: Element + Eq + Hash> PCollection<T> {
    /// Each element once per window: [`Distinct`].
    pub fn distinct(&self) -> PCollection<T> {
        self.apply(Distinct)
    }
}
