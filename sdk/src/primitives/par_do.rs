//! `beam:transform:pardo:v1`.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use purlin_coders::Element;
use purlin_proto::pipeline::{FunctionSpec, ParDoPayload, SideInput as SideInputProto};
use purlin_proto::urns::{side_inputs, transforms};

use crate::dofn::{Context, ContextFn, DoFn, OutputTags};
use crate::error::DoFnResult;
use crate::harness::{CLOSURE_DO_FN, ClosurePayload, MAIN, Node, ParDoNode, SideSpec};
use crate::pipeline::{CollectionId, PCollection, PTransform};
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
    sides: Vec<Declared>,
}

#[derive(Clone)]
struct Declared {
    spec: SideSpec,
    collection: CollectionId,
    pipeline: u64,
}

impl<D: DoFn> ParDo<D> {
    /// Calls this DoFn.
    pub fn new(name: &str, dofn: D) -> ParDo<D> {
        ParDo {
            name: name.to_owned(),
            dofn,
            tags: (),
            sides: Vec::new(),
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
        let spec = SideSpec {
            view: view.id(),
            tag: format!("side{}", self.sides.len()),
            name: view.name().to_owned(),
            window_fn: view.window_fn().clone(),
        };
        self.sides.push(Declared {
            spec,
            collection: view.collection(),
            pipeline: view.pipeline(),
        });
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
        for (index, tag) in specs.iter().enumerate() {
            if &*tag.name == MAIN || specs[..index].iter().any(|other| other.name == tag.name) {
                pipeline.problem(format!("it has two outputs of the name \"{}\"", tag.name));
            }
        }
        let mut side_inputs = HashMap::new();
        for side in &self.sides {
            if side.pipeline != pipeline.id() {
                pipeline.problem(format!(
                    "its side input \"{}\" belongs to another pipeline",
                    side.spec.name
                ));
                continue;
            }
            pipeline.add_side_input(&side.spec.tag, side.collection);
            let spec = |urn: &str| {
                Some(FunctionSpec {
                    urn: urn.to_owned(),
                    payload: Default::default(),
                })
            };
            let proto = SideInputProto {
                access_pattern: spec(side_inputs::ITERABLE),
                view_fn: spec("purlin:view_fn:v1"),
                window_mapping_fn: Some(side.spec.window_fn.to_spec()),
            };
            side_inputs.insert(side.spec.tag.clone(), proto);
        }
        let sides = self.sides.into_iter().map(|side| side.spec).collect();
        let node = Arc::new(ParDoNode::new(self.dofn, specs, sides));
        let type_name = node.type_name().to_owned();
        let path = pipeline.register(node);
        let payload = ParDoPayload {
            do_fn: Some(ClosurePayload { path, type_name }.to_spec(CLOSURE_DO_FN)),
            side_inputs,
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
