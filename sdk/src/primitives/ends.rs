//! Side inputs and additional outputs of the transforms with user code.

use std::collections::HashMap;

use purlin_proto::pipeline::{FunctionSpec, SideInput as SideInputProto};
use purlin_proto::urns::side_inputs;

use crate::dofn::TagSpec;
use crate::harness::{MAIN, SideSpec};
use crate::pipeline::{CollectionId, Pipeline};
use crate::side_input::{SideInput, View};

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
            collection: view.collection(),
            pipeline: view.pipeline(),
        });
    }

    /// Adds the side inputs to the transform that is being expanded.
    pub fn add(self, pipeline: &Pipeline) -> (HashMap<String, SideInputProto>, Vec<SideSpec>) {
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
pub(super) fn check_tags(pipeline: &Pipeline, tags: &[TagSpec]) {
    for (index, tag) in tags.iter().enumerate() {
        if &*tag.name == MAIN || tags[..index].iter().any(|other| other.name == tag.name) {
            pipeline.problem(format!("it has two outputs of the name \"{}\"", tag.name));
        }
    }
}
