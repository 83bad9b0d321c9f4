//! Splitting a collection into several.

use purlin_model::Element;

use crate::dofn::{Context, OutputTag, TagSpec};
use crate::pipeline::{PCollection, PTransform, Pipeline};
use crate::primitives::OutputTags;
use crate::primitives::ParDo;
use crate::windowing::Windowing;

/// Splits a collection into a fixed number of collections. The closure gives the number, from 0 on, of the one that an
/// element goes to; a number that is too large is an error.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = TestPipeline::new();
/// let parts = p.apply(Create::new([1i64, 2, 3, 4, 5])).apply(Partition::new(2, |n: &i64| (*n % 2) as usize));
/// PAssert::that(&parts[0]).contains_in_any_order([2, 4]);
/// PAssert::that(&parts[1]).contains_in_any_order([1, 3, 5]);
/// p.run();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Partition<F> {
    number: usize,
    by: F,
}

impl<F> Partition<F> {
    /// Into so many parts.
    pub fn new(number: usize, by: F) -> Partition<F> {
        Partition { number, by }
    }
}

impl<T: Element> OutputTags for Vec<OutputTag<T>> {
    type Collections = Vec<PCollection<T>>;

    fn specs(&self) -> Vec<TagSpec> {
        self.iter().map(TagSpec::from).collect()
    }

    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Vec<PCollection<T>> {
        self.iter()
            .map(|tag| tag.collections(pipeline, windowing, bounded))
            .collect()
    }
}

impl<T: Element, F> PTransform<PCollection<T>> for Partition<F>
where
    F: Fn(&T) -> usize + Clone + Send + 'static,
{
    type Output = Vec<PCollection<T>>;

    fn name(&self) -> String {
        "Partition".into()
    }

    fn expand(self, input: PCollection<T>) -> Vec<PCollection<T>> {
        if self.number == 0 {
            input
                .pipeline()
                .problem("a collection is split into at least one part, but 0 were asked for");
        }
        let tags: Vec<_> = (0..self.number)
            .map(|i| OutputTag::<T>::new(&format!("part{i}")))
            .collect();
        let declared = tags.clone();
        let by = self.by;
        let split = ParDo::of("Split", move |element: T, ctx: &mut Context<'_, ()>| {
            let part = by(&element);
            match tags.get(part) {
                Some(tag) => ctx.output_to(tag, element),
                None => {
                    return Err(format!(
                        "an element went to part {part}, but there are {} parts, numbered from 0",
                        tags.len()
                    )
                    .into());
                }
            }
            Ok(())
        });
        let (_, parts) = input.apply(split.with_outputs(declared));
        parts
    }
}
