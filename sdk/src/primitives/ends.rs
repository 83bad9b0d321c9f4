//! What the transforms with user code have in common: side inputs, additional outputs, and how they are applied.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use purlin_model::Element;
use purlin_proto::pipeline::{FunctionSpec, ParDoPayload, SideInput as SideInputProto};
use purlin_proto::urns::{side_inputs, transforms};

use super::tags::OutputTags;
use crate::closure::{CLOSURE_DO_FN, ClosurePayload};
use crate::dofn::{OutputTag, TagSpec};
use crate::harness::{MAIN, Prototype, SideSpec};
use crate::pipeline::{CollectionId, PCollection, Pipeline};
use crate::side_input::{SideInput, View};
use crate::stage::Node;
use crate::windowing::{SdkWindowFn, Windowing};

/// The side inputs of a transform.
#[derive(Clone, Default)]
pub(super) struct Sides(Vec<Declared>);

#[derive(Clone)]
struct Declared {
    spec: SideSpec,
    collection: CollectionId,
    pipeline: u64,
}

impl Sides {
    pub fn declare<V: View>(&mut self, view: &SideInput<V>) {
        let spec = SideSpec {
            view: view.id(),
            tag: format!("side{}", self.0.len()),
            name: view.name().to_owned(),
            window_fn: view.window_fn().clone(),
        };
        self.0.push(Declared {
            spec,
            collection: CollectionId(view.collection()),
            pipeline: view.pipeline(),
        });
    }

    /// Adds the side inputs to the transform that is being expanded.
    fn add(self, pipeline: &Pipeline) -> (HashMap<String, SideInputProto>, Vec<SideSpec>) {
        let mut side_inputs = HashMap::new();
        for side in &self.0 {
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
        (side_inputs, self.0.into_iter().map(|side| side.spec).collect())
    }
}

/// Outputs of one transform have different names.
fn check_tags(pipeline: &Pipeline, tags: &[TagSpec]) {
    for (index, tag) in tags.iter().enumerate() {
        if &*tag.name == MAIN || tags[..index].iter().any(|other| other.name == tag.name) {
            pipeline.problem(format!("it has two outputs of the name \"{}\"", tag.name));
        }
    }
}

/// Makes the transform that is being expanded a step that runs what `node` makes of its prototype. The payload lacks what
/// all steps have; `windowing` and whether it is bounded are those of the outputs.
pub(super) fn add_step<D: Clone, N: Node + 'static, O: Element, Tags: OutputTags>(
    pipeline: &Pipeline,
    (windowing, bounded): (Windowing, bool),
    (dofn, tags, sides): (D, Tags, Sides),
    node: impl FnOnce(Prototype<D>) -> N,
    payload: ParDoPayload,
) -> (PCollection<O>, Tags::Collections) {
    let specs = tags.specs();
    check_tags(pipeline, &specs);
    let (side_inputs, sides) = sides.add(pipeline);
    let node = node(Prototype::new(dofn, specs, sides));
    let type_name = node.type_name().to_owned();
    let path = pipeline.register(Arc::new(node));
    let payload = ParDoPayload {
        do_fn: Some(ClosurePayload { path, type_name }.to_spec(CLOSURE_DO_FN)),
        side_inputs,
        ..payload
    };
    pipeline.set_spec(transforms::PAR_DO, payload.encode_to_vec());
    pipeline.in_environment();
    let main = pipeline.new_collection(MAIN, windowing.clone(), bounded);
    let more = tags.collections(pipeline, &windowing, bounded);
    (main, more)
}

/// Tags that are some: outputs of a ParDo besides the main one.
pub trait SomeTags: OutputTags {}
impl<T: Element> SomeTags for OutputTag<T> {}
impl<T: SomeTags> SomeTags for &T {}
impl<T: Element> SomeTags for Vec<OutputTag<T>> {}
impl<A: SomeTags> SomeTags for (A,) {}
impl<A: SomeTags, B: SomeTags> SomeTags for (A, B) {}
impl<A: SomeTags, B: SomeTags, C: SomeTags> SomeTags for (A, B, C) {}
impl<A: SomeTags, B: SomeTags, C: SomeTags, D: SomeTags> SomeTags for (A, B, C, D) {}

/// How a transform with user code is made and applied, given its `add`. Its fields are `name`, `dofn`, `tags`, `sides`.
macro_rules! user_code_transform {
    ($transform:ident<D: $dofn:ident>, $input:ty) => {
        impl<D: $dofn> $transform<D> {
            /// Calls this DoFn.
            pub fn new(name: &str, dofn: D) -> $transform<D> {
                $transform {
                    name: name.to_owned(),
                    dofn,
                    tags: (),
                    sides: Sides::default(),
                }
            }
        }

        impl<D: $dofn, Tags: OutputTags> $transform<D, Tags> {
            /// Lets the DoFn read a side input.
            #[must_use]
            pub fn with_side_input<V: View>(mut self, view: &SideInput<V>) -> Self {
                self.sides.declare(view);
                self
            }

            /// Adds outputs: one tag or a tuple of tags. They replace outputs that were added before.
            pub fn with_outputs<More: OutputTags>(self, tags: More) -> $transform<D, More> {
                $transform {
                    name: self.name,
                    dofn: self.dofn,
                    tags,
                    sides: self.sides,
                }
            }
        }

        impl<D: $dofn> PTransform<$input> for $transform<D, ()> {
            type Output = PCollection<D::Out>;

            fn name(&self) -> String {
                self.name.clone()
            }

            fn expand(self, input: $input) -> PCollection<D::Out> {
                self.add(&input).0
            }
        }

        impl<D: $dofn, Tags: SomeTags> PTransform<$input> for $transform<D, Tags> {
            type Output = (PCollection<D::Out>, Tags::Collections);

            fn name(&self) -> String {
                self.name.clone()
            }

            fn expand(self, input: $input) -> Self::Output {
                self.add(&input)
            }
        }
    };
}
pub(super) use user_code_transform;
