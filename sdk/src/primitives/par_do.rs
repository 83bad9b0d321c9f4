//! `beam:transform:pardo:v1`.

use std::sync::Arc;

use prost::Message;
use purlin_coders::Element;
use purlin_proto::pipeline::ParDoPayload;
use purlin_proto::urns::transforms;

use super::ends::{Sides, check_tags};

use crate::dofn::{Context, ContextFn, DoFn, OutputTags};
use crate::error::DoFnResult;
use crate::harness::{CLOSURE_DO_FN, ClosurePayload, MAIN, Node, ParDoNode};
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

impl<D: DoFn> ParDo<D> {
    /// Calls this DoFn.
    pub fn new(name: &str, dofn: D) -> ParDo<D> {
        ParDo {
            name: name.to_owned(),
            dofn,
            tags: (),
            sides: Sides::default(),
        }
    }
}

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
    /// Lets the DoFn read a side input.
    #[must_use]
    pub fn with_side_input<V: View>(mut self, view: &SideInput<V>) -> Self {
        self.sides.declare(view);
        self
    }

    /// Adds outputs: one tag or a tuple of tags. They replace outputs that were added before.
    pub fn with_outputs<More: OutputTags>(self, tags: More) -> ParDo<D, More> {
        ParDo {
            name: self.name,
            dofn: self.dofn,
            tags,
            sides: self.sides,
        }
    }

    /// Adds the step to the pipeline.
    fn add(self, input: &PCollection<D::In>) -> (PCollection<D::Out>, Tags::Collections) {
        let pipeline = input.pipeline();
        let specs = self.tags.specs();
        check_tags(pipeline, &specs);
        let (side_inputs, sides) = self.sides.add(pipeline);
        let node = Arc::new(ParDoNode::new(self.dofn, specs, sides));
        let type_name = node.type_name().to_owned();
        let path = pipeline.register(node);
        let payload = ParDoPayload {
            do_fn: Some(ClosurePayload { path, type_name }.to_spec(CLOSURE_DO_FN)),
            side_inputs,
            requests_finalization: D::FINALIZES_BUNDLES,
            requires_stable_input: D::REQUIRES_STABLE_INPUT,
            ..ParDoPayload::default()
        };
        pipeline.set_spec(transforms::PAR_DO, payload.encode_to_vec());
        pipeline.in_environment();
        let (windowing, bounded) = (input.windowing(), input.is_bounded());
        let main = pipeline.new_collection(MAIN, windowing.clone(), bounded);
        let more = self.tags.collections(pipeline, &windowing, bounded);
        (main, more)
    }
}

impl<D: DoFn> PTransform<PCollection<D::In>> for ParDo<D, ()> {
    type Output = PCollection<D::Out>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<D::In>) -> PCollection<D::Out> {
        self.add(&input).0
    }
}

/// Tags that are some: outputs of a ParDo besides the main one.
pub trait SomeTags: OutputTags {}
impl<T: Element> SomeTags for crate::dofn::OutputTag<T> {}
impl<T: SomeTags> SomeTags for &T {}
impl<T: Element> SomeTags for Vec<crate::dofn::OutputTag<T>> {}
impl<A: SomeTags> SomeTags for (A,) {}
impl<A: SomeTags, B: SomeTags> SomeTags for (A, B) {}
impl<A: SomeTags, B: SomeTags, C: SomeTags> SomeTags for (A, B, C) {}
impl<A: SomeTags, B: SomeTags, C: SomeTags, D: SomeTags> SomeTags for (A, B, C, D) {}

impl<D: DoFn, Tags: SomeTags> PTransform<PCollection<D::In>> for ParDo<D, Tags> {
    type Output = (PCollection<D::Out>, Tags::Collections);

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<D::In>) -> Self::Output {
        self.add(&input)
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
