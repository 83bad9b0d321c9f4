//! Closures for elements, one at a time.

use std::marker::PhantomData;

use purlin_model::Element;

use super::ParDo;
use crate::dofn::{FilterFn, FlatMapFn, MapFn, TryFlatMapFn, TryMapFn};
use crate::error::BoxError;
use crate::pipeline::{PCollection, PTransform};

macro_rules! transform {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name<F, T> {
            name: String,
            f: F,
            element: PhantomData<fn(T)>,
        }
    };
}

transform!(
    /// One output for each element.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = Pipeline::new();
    /// let lengths = p
    ///     .apply(Create::new(["a".to_string(), "bcd".to_string()]))
    ///     .apply(Map::new("Length", |s: String| s.len()));
    /// # p.build().unwrap();
    /// ```
    Map
);
transform!(
    /// One output for each element, or an error, which fails the bundle.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = Pipeline::new();
    /// let numbers = p
    ///     .apply(Create::new(["1".to_string()]))
    ///     .apply(TryMap::new("Parse", |s: String| s.parse::<i64>()));
    /// # p.build().unwrap();
    /// ```
    TryMap
);
transform!(
    /// Any number of outputs for each element.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = Pipeline::new();
    /// let counted = p.apply(Create::new([3i64])).apply(FlatMap::new("Count", |n: i64| 0..n));
    /// # p.build().unwrap();
    /// ```
    FlatMap
);
transform!(
    /// Any number of outputs for each element, or an error, which fails the bundle.
    TryFlatMap
);
transform!(
    /// The elements for which a closure says yes.
    ///
    /// ```
    /// use purlin::prelude::*;
    ///
    /// let p = Pipeline::new();
    /// let even = p.apply(Create::new([1i64, 2])).apply(Filter::new("Even", |n: &i64| n % 2 == 0));
    /// # p.build().unwrap();
    /// ```
    Filter
);

impl<F, T, U> Map<F, T>
where
    F: FnMut(T) -> U + Clone + Send + 'static,
{
    /// Calls this closure.
    pub fn new(name: &str, f: F) -> Self {
        Map {
            name: name.to_owned(),
            f,
            element: PhantomData,
        }
    }
}

impl<F, T, U> PTransform<PCollection<T>> for Map<F, T>
where
    F: FnMut(T) -> U + Clone + Send + 'static,
    T: Element,
    U: Element,
{
    type Output = PCollection<U>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn expand(self, input: PCollection<T>) -> PCollection<U> {
        ParDo::new(&self.name, MapFn::new(self.f)).expand(input)
    }
}

impl<F, T, U, E> TryMap<F, T>
where
    F: FnMut(T) -> Result<U, E> + Clone + Send + 'static,
{
    /// Calls this closure.
    pub fn new(name: &str, f: F) -> Self {
        TryMap {
            name: name.to_owned(),
            f,
            element: PhantomData,
        }
    }
}

impl<F, T, U, E> PTransform<PCollection<T>> for TryMap<F, T>
where
    F: FnMut(T) -> Result<U, E> + Clone + Send + 'static,
    T: Element,
    U: Element,
    E: Into<BoxError> + 'static,
{
    type Output = PCollection<U>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn expand(self, input: PCollection<T>) -> PCollection<U> {
        ParDo::new(&self.name, TryMapFn::<F, T, Result<U, E>>::new(self.f)).expand(input)
    }
}

impl<F, T, I> FlatMap<F, T>
where
    F: FnMut(T) -> I + Clone + Send + 'static,
{
    /// Calls this closure.
    pub fn new(name: &str, f: F) -> Self {
        FlatMap {
            name: name.to_owned(),
            f,
            element: PhantomData,
        }
    }
}

impl<F, T, I> PTransform<PCollection<T>> for FlatMap<F, T>
where
    F: FnMut(T) -> I + Clone + Send + 'static,
    T: Element,
    I: IntoIterator + 'static,
    I::Item: Element,
{
    type Output = PCollection<I::Item>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn expand(self, input: PCollection<T>) -> PCollection<I::Item> {
        ParDo::new(&self.name, FlatMapFn::new(self.f)).expand(input)
    }
}

impl<F, T, I, E> TryFlatMap<F, T>
where
    F: FnMut(T) -> Result<I, E> + Clone + Send + 'static,
{
    /// Calls this closure.
    pub fn new(name: &str, f: F) -> Self {
        TryFlatMap {
            name: name.to_owned(),
            f,
            element: PhantomData,
        }
    }
}

impl<F, T, I, E> PTransform<PCollection<T>> for TryFlatMap<F, T>
where
    F: FnMut(T) -> Result<I, E> + Clone + Send + 'static,
    T: Element,
    I: IntoIterator + 'static,
    I::Item: Element,
    E: Into<BoxError> + 'static,
{
    type Output = PCollection<I::Item>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn expand(self, input: PCollection<T>) -> PCollection<I::Item> {
        ParDo::new(&self.name, TryFlatMapFn::<F, T, Result<I, E>>::new(self.f)).expand(input)
    }
}

impl<F, T> Filter<F, T>
where
    F: FnMut(&T) -> bool + Clone + Send + 'static,
{
    /// Keeps the elements for which this closure says yes.
    pub fn new(name: &str, f: F) -> Self {
        Filter {
            name: name.to_owned(),
            f,
            element: PhantomData,
        }
    }
}

impl<F, T> PTransform<PCollection<T>> for Filter<F, T>
where
    F: FnMut(&T) -> bool + Clone + Send + 'static,
    T: Element,
{
    type Output = PCollection<T>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn expand(self, input: PCollection<T>) -> PCollection<T> {
        ParDo::new(&self.name, FilterFn::<F, T, T>::new(self.f)).expand(input)
    }
}

impl<T: Element> PCollection<T> {
    /// One output for each element; see [`Map`].
    pub fn map<U, F>(&self, name: &str, f: F) -> PCollection<U>
    where
        U: Element,
        F: FnMut(T) -> U + Clone + Send + 'static,
    {
        self.apply(Map::new(name, f))
    }

    /// One output for each element, or an error; see [`TryMap`].
    pub fn try_map<U, E, F>(&self, name: &str, f: F) -> PCollection<U>
    where
        U: Element,
        E: Into<BoxError> + 'static,
        F: FnMut(T) -> Result<U, E> + Clone + Send + 'static,
    {
        self.apply(TryMap::new(name, f))
    }

    /// Any number of outputs for each element; see [`FlatMap`].
    pub fn flat_map<I, F>(&self, name: &str, f: F) -> PCollection<I::Item>
    where
        I: IntoIterator + 'static,
        I::Item: Element,
        F: FnMut(T) -> I + Clone + Send + 'static,
    {
        self.apply(FlatMap::new(name, f))
    }

    /// Any number of outputs for each element, or an error; see [`TryFlatMap`].
    pub fn try_flat_map<I, E, F>(&self, name: &str, f: F) -> PCollection<I::Item>
    where
        I: IntoIterator + 'static,
        I::Item: Element,
        E: Into<BoxError> + 'static,
        F: FnMut(T) -> Result<I, E> + Clone + Send + 'static,
    {
        self.apply(TryFlatMap::new(name, f))
    }

    /// The elements for which a closure says yes; see [`Filter`].
    pub fn filter<F>(&self, name: &str, f: F) -> PCollection<T>
    where
        F: FnMut(&T) -> bool + Clone + Send + 'static,
    {
        self.apply(Filter::new(name, f))
    }
}
