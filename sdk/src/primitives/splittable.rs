//! `beam:transform:pardo:v1` with a splittable DoFn.

use std::sync::Arc;

use prost::Message;
use purlin_coders::Element;
use purlin_proto::pipeline::ParDoPayload;
use purlin_proto::urns::transforms;

use super::SomeTags;
use super::ends::{Sides, check_tags};
use crate::dofn::OutputTags;
use crate::harness::{CLOSURE_DO_FN, ClosurePayload, MAIN, Node, SplittableNode};
use crate::pipeline::{PCollection, PTransform};
use crate::side_input::{SideInput, View};
use crate::splittable::{RestrictionOf, SplittableDoFn, WatermarkStateOf};

/// Calls a [`SplittableDoFn`] for each element; see [`crate::splittable`].
#[derive(Clone)]
pub struct SplittableParDo<D, Tags = ()> {
    name: String,
    dofn: D,
    tags: Tags,
    sides: Sides,
}

impl<D: SplittableDoFn> SplittableParDo<D> {
    /// Calls this DoFn.
    pub fn new(name: &str, dofn: D) -> SplittableParDo<D> {
        SplittableParDo {
            name: name.to_owned(),
            dofn,
            tags: (),
            sides: Sides::default(),
        }
    }
}

impl<D: SplittableDoFn, Tags: OutputTags> SplittableParDo<D, Tags> {
    /// Lets [`SplittableDoFn::process`] read a side input.
    #[must_use]
    pub fn with_side_input<V: View>(mut self, view: &SideInput<V>) -> Self {
        self.sides.declare(view);
        self
    }

    /// Adds outputs: one tag or a tuple of tags. They replace outputs that were added before.
    pub fn with_outputs<More: OutputTags>(self, tags: More) -> SplittableParDo<D, More> {
        SplittableParDo {
            name: self.name,
            dofn: self.dofn,
            tags,
            sides: self.sides,
        }
    }

    fn add(self, input: &PCollection<D::In>) -> (PCollection<D::Out>, Tags::Collections) {
        let pipeline = input.pipeline();
        let specs = self.tags.specs();
        check_tags(pipeline, &specs);
        let (side_inputs, sides) = self.sides.add(pipeline);
        let restriction = <(RestrictionOf<D>, WatermarkStateOf<D>)>::coder();
        let restriction_coder_id = pipeline.coder_id(&restriction);
        let node = Arc::new(SplittableNode::new(self.dofn, specs, sides));
        let type_name = node.type_name().to_owned();
        let path = pipeline.register(node);
        let payload = ParDoPayload {
            do_fn: Some(ClosurePayload { path, type_name }.to_spec(CLOSURE_DO_FN)),
            side_inputs,
            restriction_coder_id,
            requests_finalization: D::FINALIZES_BUNDLES,
            ..ParDoPayload::default()
        };
        pipeline.set_spec(transforms::PAR_DO, payload.encode_to_vec());
        pipeline.in_environment();
        let (windowing, bounded) = (input.windowing(), input.is_bounded() && !D::UNBOUNDED);
        let main = pipeline.new_collection(MAIN, windowing.clone(), bounded);
        let more = self.tags.collections(pipeline, &windowing, bounded);
        (main, more)
    }
}

impl<D: SplittableDoFn> PTransform<PCollection<D::In>> for SplittableParDo<D, ()> {
    type Output = PCollection<D::Out>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<D::In>) -> PCollection<D::Out> {
        self.add(&input).0
    }
}

impl<D: SplittableDoFn, Tags: SomeTags> PTransform<PCollection<D::In>> for SplittableParDo<D, Tags> {
    type Output = (PCollection<D::Out>, Tags::Collections);

    fn name(&self) -> String {
        self.name.clone()
    }

    fn expand(self, input: PCollection<D::In>) -> Self::Output {
        self.add(&input)
    }
}

impl<T: Element> PCollection<T> {
    /// Calls a splittable DoFn for each element; see [`SplittableParDo`].
    pub fn splittable_par_do<D: SplittableDoFn<In = T>>(&self, name: &str, dofn: D) -> PCollection<D::Out> {
        self.apply(SplittableParDo::new(name, dofn))
    }
}
