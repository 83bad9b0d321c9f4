//! Side inputs: whole PCollections as values for the elements of another one.
//!
//! ```
//! use purlin::prelude::*;
//!
//! let p = Pipeline::new();
//! let names = p.apply(Create::new([(1i64, "one".to_string()), (2, "two".to_string())]));
//! let names = names.as_map();
//! let numbers = p.apply_named("Numbers", Create::new([1i64, 2]));
//! let view = names.clone();
//! numbers.apply(
//!     ParDo::of("Name", move |n: i64, ctx: &mut Context<'_, String>| {
//!         let names = ctx.side(&view)?;
//!         ctx.output(names.get(&n).cloned().unwrap_or_default());
//!         Ok(())
//!     })
//!     .with_side_input(&names),
//! );
//! p.run(&PipelineOptions::default())?;
//! # Ok::<(), RunError>(())
//! ```

mod lazy;
mod reader;

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use purlin_model::Element;
use rustc_hash::FxHashMap;

pub use lazy::{Elements, ElementsIter};
pub(crate) use reader::{SideReader, SideReaders};

use crate::error::BoxError;
use crate::stage::Pages;
use crate::windowing::WindowFn;

/// How a side input's elements become a value.
pub trait View: 'static {
    /// What user code sees.
    type Value: Send + Sync + 'static;
    /// Reads concatenated elements. `Ok(None)`: there are none, and the view needs some.
    ///
    /// # Errors
    /// When the elements do not fit the view.
    fn load(data: &[u8]) -> Result<Option<Self::Value>, BoxError>;

    /// Makes the value of what need not be read whole.
    ///
    /// # Errors
    /// As [`View::load`], or when the elements cannot be read.
    #[doc(hidden)]
    fn open(pages: Pages) -> Result<Option<Self::Value>, BoxError> {
        Self::load(&pages.gather()?)
    }

    /// Whether the value holds all of its elements: it can be kept for other bundles.
    #[doc(hidden)]
    const WHOLE: bool = true;
}

/// The one element of a PCollection.
pub struct Singleton<T>(PhantomData<fn() -> T>);
/// All elements of a PCollection, in no order.
pub struct List<T>(PhantomData<fn() -> T>);
/// All elements of a PCollection, in no order, as they are read.
pub struct Iterable<T>(PhantomData<fn() -> T>);
/// A value by key.
pub struct Map<K, V>(PhantomData<fn() -> (K, V)>);
/// Values by key.
pub struct Multimap<K, V>(PhantomData<fn() -> (K, V)>);

fn elements<T: Element>(mut data: &[u8]) -> impl Iterator<Item = Result<T, BoxError>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let element = T::decode(&mut data, true);
        if element.is_err() {
            data = &[];
        }
        Some(element.map_err(BoxError::from))
    })
}

impl<T: Element + Sync> View for Singleton<T> {
    type Value = T;
    fn load(data: &[u8]) -> Result<Option<T>, BoxError> {
        let mut all = elements(data);
        let Some(first) = all.next() else { return Ok(None) };
        match all.count() {
            0 => first.map(Some),
            more => Err(format!("a singleton needs one element, but there are {}", more + 1).into()),
        }
    }
}

impl<T: Element + Sync> View for List<T> {
    type Value = Vec<T>;
    fn load(data: &[u8]) -> Result<Option<Vec<T>>, BoxError> {
        elements(data).collect::<Result<_, _>>().map(Some)
    }
}

impl<T: Element> View for Iterable<T> {
    type Value = Elements<T>;
    const WHOLE: bool = false;

    fn load(data: &[u8]) -> Result<Option<Elements<T>>, BoxError> {
        Ok(Some(Elements::new(Pages::whole(Bytes::copy_from_slice(data)))))
    }

    fn open(pages: Pages) -> Result<Option<Elements<T>>, BoxError> {
        Ok(Some(Elements::new(pages)))
    }
}

impl<K: Element + Sync + Eq + Hash, V: Element + Sync> View for Map<K, V> {
    type Value = FxHashMap<K, V>;
    fn load(data: &[u8]) -> Result<Option<Self::Value>, BoxError> {
        let mut map = FxHashMap::default();
        for pair in elements::<(K, V)>(data) {
            let (key, value) = pair?;
            if map.insert(key, value).is_some() {
                return Err("a key of a map has two values; use as_multimap() for such data".into());
            }
        }
        Ok(Some(map))
    }
}

impl<K: Element + Sync + Eq + Hash, V: Element + Sync> View for Multimap<K, V> {
    type Value = FxHashMap<K, Vec<V>>;
    fn load(data: &[u8]) -> Result<Option<Self::Value>, BoxError> {
        let mut map: FxHashMap<K, Vec<V>> = FxHashMap::default();
        for pair in elements::<(K, V)>(data) {
            let (key, value) = pair?;
            map.entry(key).or_default().push(value);
        }
        Ok(Some(map))
    }
}

/// A PCollection as a side input. Give it to a [`ParDo`](crate::primitives::ParDo) and read it with
/// [`Context::side`](crate::Context::side).
pub struct SideInput<V: View> {
    id: u64,
    /// Which pipeline: not the pipeline itself, which owns the code that captures this handle.
    pipeline: u64,
    /// Its number in the pipeline.
    collection: usize,
    name: Arc<str>,
    window_fn: WindowFn,
    default: Option<Arc<V::Value>>,
}

impl<V: View> Clone for SideInput<V> {
    fn clone(&self) -> Self {
        SideInput {
            id: self.id,
            pipeline: self.pipeline,
            collection: self.collection,
            name: self.name.clone(),
            window_fn: self.window_fn.clone(),
            default: self.default.clone(),
        }
    }
}

impl<V: View> fmt::Debug for SideInput<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SideInput({})", self.name)
    }
}

impl<V: View> SideInput<V> {
    /// The view of a collection, by its number in its pipeline. `id` tells the views of a pipeline apart.
    pub(crate) fn new(
        id: u64,
        (pipeline, collection): (u64, usize),
        name: &str,
        window_fn: WindowFn,
        default: Option<V::Value>,
    ) -> SideInput<V> {
        SideInput {
            id,
            pipeline,
            collection,
            name: name.into(),
            window_fn,
            default: default.map(Arc::new),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn collection(&self) -> usize {
        self.collection
    }

    pub(crate) fn window_fn(&self) -> &WindowFn {
        &self.window_fn
    }

    pub(crate) fn pipeline(&self) -> u64 {
        self.pipeline
    }

    /// Name of the PCollection.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn open(&self, pages: Pages) -> Result<Arc<V::Value>, BoxError> {
        match V::open(pages)? {
            Some(value) => Ok(Arc::new(value)),
            None => match &self.default {
                Some(value) => Ok(value.clone()),
                None => Err(
                    "a singleton needs one element, but there is none; as_singleton_or(default) takes a \
                             default"
                        .into(),
                ),
            },
        }
    }
}
