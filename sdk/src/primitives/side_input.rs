//! PCollections as side inputs.

use std::hash::Hash;

use purlin_model::Element;

use super::pair::Pair;
use crate::pipeline::PCollection;
use crate::side_input::{Iterable, List, Map, Multimap, SideInput, Singleton, View};

/// A view of a collection.
fn view<T, V: View>(collection: &PCollection<T>, default: Option<V::Value>) -> SideInput<V> {
    let pipeline = collection.pipeline();
    SideInput::new(
        pipeline.next_view_id(),
        (pipeline.id(), collection.id().0),
        &collection.name(),
        collection.windowing().window_fn().clone(),
        default,
    )
}

impl<T: Element + Sync> PCollection<T> {
    /// Its one element, for other elements to see. More or fewer elements are an error when it is read.
    pub fn as_singleton(&self) -> SideInput<Singleton<T>> {
        view(self, None)
    }

    /// Its one element, or this value where there is none.
    pub fn as_singleton_or(&self, default: T) -> SideInput<Singleton<T>> {
        view(self, Some(default))
    }

    /// All of its elements.
    pub fn as_list(&self) -> SideInput<List<T>> {
        view(self, None)
    }

    /// All of its elements, read from the runner page by page whenever they are iterated over: for side inputs that memory
    /// does not hold. [`PCollection::as_list`] reads them once.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let many = p.apply(Create::new(0..1000i64)).as_iterable();
    /// let sums = p.apply_named("Main", Create::new([5i64])).apply(
    ///     ParDo::of("Sum", {
    ///         let many = many.clone();
    ///         move |n: i64, ctx: &mut Context<'_, i64>| {
    ///             let mut sum = n;
    ///             for element in ctx.side(&many)?.iter() {
    ///                 sum += element?;
    ///             }
    ///             ctx.output(sum);
    ///             Ok(())
    ///         }
    ///     })
    ///     .with_side_input(&many),
    /// );
    /// PAssert::that(&sums).equals(499_505);
    /// p.run();
    /// ```
    pub fn as_iterable(&self) -> SideInput<Iterable<T>> {
        view(self, None)
    }
}

impl<T: Element> PCollection<T> {
    /// Its values by key. A key that comes twice is an error when it is read.
    pub fn as_map(&self) -> SideInput<Map<T::Key, T::Value>>
    where
        T: Pair<Key: Sync + Eq + Hash, Value: Sync>,
    {
        view(&T::pairs(self), None)
    }

    /// All values by key.
    pub fn as_multimap(&self) -> SideInput<Multimap<T::Key, T::Value>>
    where
        T: Pair<Key: Sync + Eq + Hash, Value: Sync>,
    {
        view(&T::pairs(self), None)
    }
}
