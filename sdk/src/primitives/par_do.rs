//! `beam:transform:pardo:v1`.

use purlin_model::Element;
use purlin_proto::pipeline::ParDoPayload;

use super::ends::{Sides, SomeTags, add_step, user_code_transform};
use super::tags::OutputTags;
use crate::dofn::{Context, ContextFn, DoFn};
use crate::error::DoFnResult;
use crate::harness::ParDoNode;
use crate::pipeline::{PCollection, PTransform};
use crate::side_input::{SideInput, View};

/// Calls a [`DoFn`] for each element.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let lines = p.apply(Create::new(["a b".to_string()]));
/// let words: PCollection<String> = lines.apply(ParDo::of(
///     "Split",
///     |line: String, ctx: &mut Context<'_, String>| {
///         for word in line.split(' ') {
///             ctx.output(word.to_owned());
///         }
///         Ok(())
///     },
/// ));
/// # p.build().unwrap();
/// ```
#[derive(Clone)]
pub struct ParDo<D, Tags = ()> {
    name: String,
    dofn: D,
    tags: Tags,
    sides: Sides,
}

user_code_transform!(ParDo<D: DoFn>, PCollection<D::In>);

impl<F, T, U> ParDo<ContextFn<F, T, U>>
where
    F: FnMut(T, &mut Context<'_, U>) -> DoFnResult + Clone + Send + 'static,
    T: Element,
    U: Element,
{
    /// Calls this closure, which sees the element's context.
    pub fn of(name: &str, f: F) -> Self {
        ParDo::new(name, ContextFn::new(f))
    }
}

impl<D: DoFn, Tags: OutputTags> ParDo<D, Tags> {
    fn add(self, input: &PCollection<D::In>) -> (PCollection<D::Out>, Tags::Collections) {
        let payload = ParDoPayload {
            requests_finalization: D::FINALIZES_BUNDLES,
            requires_stable_input: D::REQUIRES_STABLE_INPUT,
            ..ParDoPayload::default()
        };
        add_step(
            input.pipeline(),
            (input.windowing(), input.is_bounded()),
            (self.dofn, self.tags, self.sides),
            ParDoNode,
            payload,
        )
    }
}

impl<T: Element> PCollection<T> {
    /// Calls a DoFn for each element; see [`ParDo`].
    pub fn par_do<D: DoFn<In = T>>(&self, name: &str, dofn: D) -> PCollection<D::Out> {
        self.apply(ParDo::new(name, dofn))
    }

    /// Calls a closure with each element and its context; see [`ParDo::of`].
    pub fn par_do_with<U, F>(&self, name: &str, f: F) -> PCollection<U>
    where
        U: Element,
        F: FnMut(T, &mut Context<'_, U>) -> DoFnResult + Clone + Send + 'static,
    {
        self.apply(ParDo::of(name, f))
    }
}
