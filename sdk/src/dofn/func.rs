//! Closures as DoFns.

use std::marker::PhantomData;

use purlin_model::Element;

use super::{Context, DoFn};
use crate::error::{BoxError, DoFnResult};

macro_rules! closure {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<F, T, U> {
            f: F,
            types: PhantomData<fn(T) -> U>,
        }

        impl<F, T, U> $name<F, T, U> {
            /// Wraps the closure.
            pub fn new(f: F) -> Self {
                $name { f, types: PhantomData }
            }
        }

        impl<F: Clone, T, U> Clone for $name<F, T, U> {
            fn clone(&self) -> Self {
                $name { f: self.f.clone(), types: PhantomData }
            }
        }
    };
}

closure!(
    /// `T -> U` for each element.
    MapFn
);
closure!(
    /// `T -> Result<U, E>` for each element.
    TryMapFn
);
closure!(
    /// `T -> impl IntoIterator<Item = U>` for each element.
    FlatMapFn
);
closure!(
    /// `T -> Result<impl IntoIterator<Item = U>, E>` for each element.
    TryFlatMapFn
);
closure!(
    /// `&T -> bool` for each element.
    FilterFn
);
closure!(
    /// `(T, &mut Context<U>) -> DoFnResult` for each element.
    ContextFn
);

impl<F, T, U> DoFn for MapFn<F, T, U>
where
    F: FnMut(T) -> U + Clone + Send + 'static,
    T: Element,
    U: Element,
{
    type In = T;
    type Out = U;
    const OBSERVES_WINDOW: bool = false;
    #[inline]
    fn process(&mut self, element: T, ctx: &mut Context<'_, U>) -> DoFnResult {
        ctx.output((self.f)(element));
        Ok(())
    }
    #[inline]
    fn process_batch(&mut self, elements: &mut Vec<T>, ctx: &mut Context<'_, U>) -> DoFnResult {
        ctx.output_batch(elements.drain(..).map(&mut self.f));
        Ok(())
    }
}

impl<F, T, U, E> DoFn for TryMapFn<F, T, Result<U, E>>
where
    F: FnMut(T) -> Result<U, E> + Clone + Send + 'static,
    T: Element,
    U: Element,
    E: Into<BoxError> + 'static,
{
    type In = T;
    type Out = U;
    const OBSERVES_WINDOW: bool = false;
    #[inline]
    fn process(&mut self, element: T, ctx: &mut Context<'_, U>) -> DoFnResult {
        ctx.output((self.f)(element).map_err(Into::into)?);
        Ok(())
    }
}

impl<F, T, I> DoFn for FlatMapFn<F, T, I>
where
    F: FnMut(T) -> I + Clone + Send + 'static,
    T: Element,
    I: IntoIterator + 'static,
    I::Item: Element,
{
    type In = T;
    type Out = I::Item;
    const OBSERVES_WINDOW: bool = false;
    #[inline]
    fn process(&mut self, element: T, ctx: &mut Context<'_, I::Item>) -> DoFnResult {
        for value in (self.f)(element) {
            ctx.output(value);
        }
        Ok(())
    }
}

impl<F, T, I, E> DoFn for TryFlatMapFn<F, T, Result<I, E>>
where
    F: FnMut(T) -> Result<I, E> + Clone + Send + 'static,
    T: Element,
    I: IntoIterator + 'static,
    I::Item: Element,
    E: Into<BoxError> + 'static,
{
    type In = T;
    type Out = I::Item;
    const OBSERVES_WINDOW: bool = false;
    #[inline]
    fn process(&mut self, element: T, ctx: &mut Context<'_, I::Item>) -> DoFnResult {
        for value in (self.f)(element).map_err(Into::into)? {
            ctx.output(value);
        }
        Ok(())
    }
}

impl<F, T> DoFn for FilterFn<F, T, T>
where
    F: FnMut(&T) -> bool + Clone + Send + 'static,
    T: Element,
{
    type In = T;
    type Out = T;
    const OBSERVES_WINDOW: bool = false;
    #[inline]
    fn process(&mut self, element: T, ctx: &mut Context<'_, T>) -> DoFnResult {
        if (self.f)(&element) {
            ctx.output(element);
        }
        Ok(())
    }
    #[inline]
    fn process_batch(&mut self, elements: &mut Vec<T>, ctx: &mut Context<'_, T>) -> DoFnResult {
        elements.retain(&mut self.f);
        ctx.output_vec(elements);
        Ok(())
    }
}

impl<F, T, U> DoFn for ContextFn<F, T, U>
where
    F: FnMut(T, &mut Context<'_, U>) -> DoFnResult + Clone + Send + 'static,
    T: Element,
    U: Element,
{
    type In = T;
    type Out = U;
    #[inline]
    fn process(&mut self, element: T, ctx: &mut Context<'_, U>) -> DoFnResult {
        (self.f)(element, ctx)
    }
}
