//! Typed names of additional outputs.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::marker::PhantomData;
use std::sync::Arc;

use purlin_model::Element;
use rustc_hash::FxHasher;

use crate::stage::{AnyEdge, ElementType, Failure, StepBuilder};

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
