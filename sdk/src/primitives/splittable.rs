//! `beam:transform:pardo:v1` with a splittable DoFn.

use purlin_model::Element;
use purlin_proto::pipeline::ParDoPayload;

use super::ends::{Sides, SomeTags, add_step, user_code_transform};
use super::tags::OutputTags;
use crate::harness::SplittableNode;
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

user_code_transform!(SplittableParDo<D: SplittableDoFn>, PCollection<D::In>);

impl<D: SplittableDoFn, Tags: OutputTags> SplittableParDo<D, Tags> {
    fn add(self, input: &PCollection<D::In>) -> (PCollection<D::Out>, Tags::Collections) {
        let pipeline = input.pipeline();
        let restriction = <(RestrictionOf<D>, WatermarkStateOf<D>)>::coder();
        let payload = ParDoPayload {
            restriction_coder_id: pipeline.coder_id(&restriction),
            requests_finalization: D::FINALIZES_BUNDLES,
            ..ParDoPayload::default()
        };
        add_step(
            pipeline,
            (input.windowing(), input.is_bounded() && !D::UNBOUNDED),
            (self.dofn, self.tags, self.sides),
            SplittableNode,
            payload,
        )
    }
}

impl<T: Element> PCollection<T> {
    /// Calls a splittable DoFn for each element; see [`SplittableParDo`].
    pub fn splittable_par_do<D: SplittableDoFn<In = T>>(&self, name: &str, dofn: D) -> PCollection<D::Out> {
        self.apply(SplittableParDo::new(name, dofn))
    }
}
