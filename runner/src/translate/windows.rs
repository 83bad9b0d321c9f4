//! Descriptors that ask an SDK to merge or map windows of the user's own types.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use purlin_engine::{CollectionId, TransformId};
use purlin_model::WindowCoder;
use purlin_proto::fn_execution::ProcessBundleDescriptor;
use purlin_proto::pipeline::{
    FunctionSpec, PCollection, PTransform, Trigger, WindowingStrategy, accumulation_mode, closing_behavior,
    merge_status, on_time_behavior, output_time, trigger,
};
use purlin_proto::urns::{coders as coder_urns, runner_transforms, transforms as urns, window_fns};
use typed_index_collections::TiSlice;

use super::graph::Builder;
use super::leaves::Op;
use super::stage::io_transform;

/// A small stage that asks an SDK about windows.
#[derive(Clone, Debug)]
pub struct WindowPlan {
    /// Index of the environment that answers, in [`super::Plan::environments`].
    pub environment: usize,
    /// What the worker executes.
    pub descriptor: Arc<ProcessBundleDescriptor>,
    /// Coder of the windows asked about.
    pub asked: WindowCoder,
    /// Coder of the windows answered.
    pub answered: WindowCoder,
}

impl WindowPlan {
    /// Id of the data source transform.
    pub const SOURCE: &'static str = "Read";
    /// Id of the data sink transform.
    pub const SINK: &'static str = "Write";
}

impl Builder<'_> {
    /// Plans for merging, by collection; `ids` are the collections' ids in the pipeline.
    pub(super) fn merges(
        &mut self,
        graph: &purlin_engine::Graph,
        ids: &TiSlice<CollectionId, String>,
    ) -> HashMap<CollectionId, WindowPlan> {
        let mut plans = HashMap::new();
        for ((number, collection), id) in graph.collections.iter_enumerated().zip(ids) {
            if !collection.windowing.merges_in_sdk() {
                continue;
            }
            let strategy = self.pcollections.get(id).map(|c| &c.windowing_strategy_id);
            let strategy = strategy.and_then(|id| self.components.windowing_strategies.get(id));
            let window_fn = strategy.and_then(|s| s.window_fn.clone());
            let (Some(window_fn), Some(environment), Some(format)) = (
                window_fn,
                collection.windowing.environment,
                self.formats.get(id).cloned(),
            ) else {
                continue;
            };
            let window = format.window_id.as_str();
            let bytes = self.coders.make(coder_urns::BYTES, &[]);
            let windows = self.coders.make(coder_urns::ITERABLE, &[window]);
            let input = self.coders.make(coder_urns::KV, &[&bytes, &windows]);
            let merged = self.coders.make(coder_urns::KV, &[window, &windows]);
            let merged = self.coders.make(coder_urns::ITERABLE, &[&merged]);
            let answer = self.coders.make(coder_urns::KV, &[&windows, &merged]);
            let output = self.coders.make(coder_urns::KV, &[&bytes, &answer]);
            let spec = (urns::MERGE_WINDOWS, window_fn);
            let id = format!("merge-windows-{}", number.0);
            let descriptor = self.window_descriptor(id, spec, &input, &output, environment.into());
            let plan = WindowPlan {
                environment: environment.into(),
                descriptor: Arc::new(descriptor),
                asked: format.window.clone(),
                answered: format.window,
            };
            plans.insert(number, plan);
        }
        plans
    }

    /// Plans for side inputs' window mappings, by transform and index of the side input.
    pub(super) fn mappings(
        &mut self,
        graph: &purlin_engine::Graph,
    ) -> HashMap<(TransformId, usize), WindowPlan> {
        let mut plans = HashMap::new();
        for (number, transform) in graph.transforms.iter_enumerated() {
            let purlin_engine::TransformKind::User(user) = &transform.kind else {
                continue;
            };
            for (index, side) in user.side_inputs.iter().enumerate() {
                if side.mapping != purlin_engine::WindowMapping::Sdk {
                    continue;
                }
                let Some(plan) = self.mapping(number.into(), index, &side.tag) else {
                    continue;
                };
                plans.insert((number, index), plan);
            }
        }
        plans
    }

    fn mapping(&mut self, number: usize, index: usize, tag: &str) -> Option<WindowPlan> {
        let leaf = self.leaves.get(number)?;
        let Op::User(user) = &leaf.op else { return None };
        let environment = leaf.environment?;
        let mapping = user
            .pardo
            .as_ref()?
            .side_inputs
            .get(tag)?
            .window_mapping_fn
            .clone()?;
        let main = self.formats.get(leaf.main_inputs().first()?.1)?.clone();
        let side = self.formats.get(leaf.proto.inputs.get(tag)?)?.clone();
        let bytes = self.coders.make(coder_urns::BYTES, &[]);
        let input = self.coders.make(coder_urns::KV, &[&bytes, &main.window_id]);
        let output = self.coders.make(coder_urns::KV, &[&bytes, &side.window_id]);
        let id = format!("map-windows-{number}-{index}");
        let descriptor =
            self.window_descriptor(id, (urns::MAP_WINDOWS, mapping), &input, &output, environment);
        Some(WindowPlan {
            environment,
            descriptor: Arc::new(descriptor),
            asked: main.window,
            answered: side.window,
        })
    }

    fn window_descriptor(
        &mut self,
        id: String,
        (urn, function): (&str, FunctionSpec),
        input: &str,
        output: &str,
        environment: usize,
    ) -> ProcessBundleDescriptor {
        const STRATEGY: &str = "global";
        let mut descriptor = ProcessBundleDescriptor {
            id,
            ..Default::default()
        };
        let global = self.coders.make(coder_urns::GLOBAL_WINDOW, &[]);
        let read = self.coders.make(coder_urns::WINDOWED_VALUE, &[input, &global]);
        let write = self.coders.make(coder_urns::WINDOWED_VALUE, &[output, &global]);
        for coder in [&global, &read, &write] {
            self.coders.collect(coder, &mut descriptor.coders);
        }
        if let Some(environment) = self.environments.list.get(environment) {
            descriptor
                .environments
                .insert(environment.id.clone(), environment.proto.clone());
        }
        let window_fn = FunctionSpec {
            urn: window_fns::GLOBAL_WINDOWS.to_owned(),
            payload: Default::default(),
        };
        let strategy = WindowingStrategy {
            window_fn: Some(window_fn),
            window_coder_id: global,
            merge_status: merge_status::Enum::NonMerging.into(),
            accumulation_mode: accumulation_mode::Enum::Discarding.into(),
            output_time: output_time::Enum::EndOfWindow.into(),
            closing_behavior: closing_behavior::Enum::EmitIfNonempty.into(),
            on_time_behavior: on_time_behavior::Enum::FireAlways.into(),
            trigger: Some(Trigger {
                trigger: Some(trigger::Trigger::Default(trigger::Default {})),
            }),
            assigns_to_one_window: true,
            environment_id: self.environments.id(environment),
            ..Default::default()
        };
        descriptor
            .windowing_strategies
            .insert(STRATEGY.to_owned(), strategy);
        for (name, coder) in [("asked", input), ("answered", output)] {
            let collection = PCollection {
                unique_name: name.to_owned(),
                coder_id: coder.to_owned(),
                is_bounded: purlin_proto::pipeline::is_bounded::Enum::Bounded.into(),
                windowing_strategy_id: STRATEGY.to_owned(),
                display_data: Vec::new(),
            };
            descriptor.pcollections.insert(name.to_owned(), collection);
        }
        let source = io_transform(
            runner_transforms::DATA_SOURCE,
            "Read".into(),
            &read,
            None,
            Some("asked"),
        );
        let sink = io_transform(
            runner_transforms::DATA_SINK,
            "Write".into(),
            &write,
            Some("answered"),
            None,
        );
        let ask = PTransform {
            unique_name: "Windows".to_owned(),
            spec: Some(FunctionSpec {
                urn: urn.to_owned(),
                payload: function.encode_to_vec().into(),
            }),
            inputs: HashMap::from([("in".to_owned(), "asked".to_owned())]),
            outputs: HashMap::from([("out".to_owned(), "answered".to_owned())]),
            environment_id: self.environments.id(environment),
            ..PTransform::default()
        };
        descriptor
            .transforms
            .insert(WindowPlan::SOURCE.to_owned(), source);
        descriptor.transforms.insert("Windows".to_owned(), ask);
        descriptor.transforms.insert(WindowPlan::SINK.to_owned(), sink);
        descriptor
    }
}
