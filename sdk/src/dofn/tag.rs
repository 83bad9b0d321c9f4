//! Typed names of additional outputs.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::marker::PhantomData;
use std::sync::Arc;

use purlin_model::Element;
use rustc_hash::FxHasher;

use crate::harness::{AnyEdge, ElementType, Failure, StepBuilder};
use crate::pipeline::{PCollection, PValue, Pipeline};
use crate::windowing::Windowing;

/// An additional output of a ParDo: its name and the type of its elements. Clones are the same tag.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let bad = OutputTag::<String>::new("bad");
/// let tag = bad.clone();
/// let (numbers, bad) = p.apply(Create::new(["1".to_string(), "x".to_string()])).apply(
///     ParDo::of("Parse", move |text: String, ctx: &mut Context<'_, i64>| {
///         match text.parse() {
///             Ok(number) => ctx.output(number),
///             Err(_) => ctx.output_to(&tag, text),
///         }
///         Ok(())
///     })
///     .with_outputs(&bad),
/// );
/// let _: (PCollection<i64>, PCollection<String>) = (numbers, bad);
/// # p.run(&PipelineOptions::default())?;
/// # Ok::<(), RunError>(())
/// ```
pub struct OutputTag<T> {
    id: u64,
    name: Arc<str>,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        OutputTag {
            id: self.id,
            name: self.name.clone(),
            element: PhantomData,
        }
    }
}

impl<T> fmt::Debug for OutputTag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputTag({})", self.name)
    }
}

impl<T> OutputTag<T> {
    /// A tag of this name. Names of one ParDo's outputs must differ; `"out"` is the main output's.
    pub fn new(name: &str) -> OutputTag<T> {
        let hasher = BuildHasherDefault::<FxHasher>::default();
        OutputTag {
            id: hasher.hash_one(name),
            name: name.into(),
            element: PhantomData,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

type MakeEdge = fn(&str, &mut StepBuilder<'_>) -> Result<Box<dyn AnyEdge>, Failure>;

/// A tag without its type.
#[derive(Clone)]
pub struct TagSpec {
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) element: ElementType,
    pub(crate) edge: MakeEdge,
}

impl<T: Element> From<&OutputTag<T>> for TagSpec {
    fn from(tag: &OutputTag<T>) -> TagSpec {
        TagSpec {
            id: tag.id,
            name: tag.name.clone(),
            element: ElementType::of::<T>(),
            edge: |name, step| Ok(Box::new(step.output::<T>(name)?)),
        }
    }
}

/// One tag, or a tuple of tags.
pub trait OutputTags {
    /// The PCollection of each tag.
    type Collections: PValue;
    /// The tags without their types.
    #[doc(hidden)]
    fn specs(&self) -> Vec<TagSpec>;
    /// New outputs of the transform that is being expanded.
    #[doc(hidden)]
    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Self::Collections;
}

impl OutputTags for () {
    type Collections = ();
    fn specs(&self) -> Vec<TagSpec> {
        Vec::new()
    }
    fn collections(&self, _: &Pipeline, _: &Windowing, _: bool) {}
}

impl<T: Element> OutputTags for OutputTag<T> {
    type Collections = PCollection<T>;
    fn specs(&self) -> Vec<TagSpec> {
        vec![self.into()]
    }
    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> PCollection<T> {
        pipeline.new_collection(&self.name, windowing.clone(), bounded)
    }
}

impl<T: OutputTags> OutputTags for &T {
    type Collections = T::Collections;
    fn specs(&self) -> Vec<TagSpec> {
        (**self).specs()
    }
    fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Self::Collections {
        (**self).collections(pipeline, windowing, bounded)
    }
}

macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: OutputTags),+> OutputTags for ($($name,)+) {
            type Collections = ($($name::Collections,)+);
            #[allow(non_snake_case)]
            fn specs(&self) -> Vec<TagSpec> {
                let ($($name,)+) = self;
                let mut all = Vec::new();
                $(all.extend($name.specs());)+
                all
            }
            #[allow(non_snake_case)]
            fn collections(&self, pipeline: &Pipeline, windowing: &Windowing, bounded: bool) -> Self::Collections {
                let ($($name,)+) = self;
                ($($name.collections(pipeline, windowing, bounded),)+)
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
