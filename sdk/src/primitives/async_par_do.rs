//! ParDo with code that waits.

use std::future::Future;

use purlin_model::Element;

use super::ParDo;
use crate::dofn::{AsyncDoFn, AsyncMapFn, Waits};
use crate::error::BoxError;
use crate::pipeline::{PCollection, PTransform};

/// Calls an [`AsyncDoFn`] for each element, with so many elements of a bundle in the works at a time.
#[derive(Clone, Debug)]
pub struct AsyncParDo<D> {
    name: String,
    concurrency: usize,
    dofn: D,
}

impl<D: AsyncDoFn> AsyncParDo<D> {
    /// Calls this code for up to `concurrency` elements at a time, in each bundle.
    pub fn new(name: &str, concurrency: usize, dofn: D) -> AsyncParDo<D> {
        AsyncParDo {
            name: name.to_owned(),
            concurrency,
            dofn,
        }
    }
}

impl<D: AsyncDoFn> PTransform<PCollection<D::In>> for AsyncParDo<D> {
    type Output = PCollection<D::Out>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<D::In>) -> PCollection<D::Out> {
        if self.concurrency == 0 {
            input.pipeline().problem("it needs a concurrency of at least 1");
        }
        ParDo::new(&self.name, Waits::new(self.dofn, self.concurrency)).expand(input)
    }
}

impl<T: Element> PCollection<T> {
    /// One output for each element, by a closure that waits: up to `concurrency` elements of a bundle are in the works
    /// at a time, and outputs are in no order.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = TestPipeline::new();
    /// let numbers = p.apply(Create::new([1i64, 2, 3]));
    /// let squares = numbers.map_async("Square", 8, |n: i64| async move {
    ///     tokio::task::yield_now().await;
    ///     n.checked_mul(n).ok_or("too large")
    /// });
    /// PAssert::that(&squares).contains_in_any_order([1, 4, 9]);
    /// p.run();
    /// ```
    pub fn map_async<U, E, F, Fut>(&self, name: &str, concurrency: usize, f: F) -> PCollection<U>
    where
        U: Element,
        E: Into<BoxError> + 'static,
        F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
    {
        self.apply(AsyncParDo::new(
            name,
            concurrency,
            AsyncMapFn::<F, T, (U, E, Fut)>::new(f),
        ))
    }
}
