//! Stages as workers get them: process-bundle descriptors.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prost::Message as _;
use purlin_engine::{CollectionId, FusedGraph, Stage, StageId};
use purlin_model::Coder;
use purlin_proto::fn_execution::{ProcessBundleDescriptor, RemoteGrpcPort};
use purlin_proto::pipeline::{self, FunctionSpec, PTransform, ParDoPayload, StateSpec, state_spec};
use purlin_proto::urns::{coders as coder_urns, runner_transforms, transforms as urns};
use typed_index_collections::{TiSlice, TiVec};

use super::coders::urn as coder_urn;
use super::graph::{Builder, side_collections};
use super::leaves::{Leaf, Op, urn};

/// A fused stage, ready for workers.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// Names of its transforms, for plans and messages.
    pub name: String,
    /// Index of its environment in [`super::Plan::environments`].
    pub environment: usize,
    /// What a worker executes; endpoints are empty (see [`super::with_endpoints`]).
    pub descriptor: Arc<ProcessBundleDescriptor>,
    /// Id of the data source transform.
    pub source: String,
    /// Ids of the data sink transforms, with the collections they write.
    pub sinks: Vec<(String, CollectionId)>,
    /// Transform id and timer family id of every timer family.
    pub timer_families: Vec<(String, String)>,
    /// Ids of the transforms that read the main input: residuals come back for these.
    pub roots: Vec<String>,
    /// The collection that the data source reads.
    pub input: CollectionId,
    /// Where the worker can fetch the values of an iterable: how many bytes of them, at most, come with their key.
    pub state_backed: Option<usize>,
}

/// The coders that a state names.
pub(super) fn state_coders(spec: &StateSpec) -> Vec<&str> {
    use state_spec::Spec;
    match &spec.spec {
        Some(Spec::ReadModifyWriteSpec(s)) => vec![&s.coder_id],
        Some(Spec::BagSpec(s)) => vec![&s.element_coder_id],
        Some(Spec::CombiningSpec(s)) => vec![&s.accumulator_coder_id],
        Some(Spec::MapSpec(s)) => vec![&s.key_coder_id, &s.value_coder_id],
        Some(Spec::SetSpec(s)) => vec![&s.element_coder_id],
        Some(Spec::OrderedListSpec(s)) => vec![&s.element_coder_id],
        Some(Spec::MultimapSpec(s)) => vec![&s.key_coder_id, &s.value_coder_id],
        None => Vec::new(),
    }
}

impl Builder<'_> {
    /// The stages of a fused graph. `ids` are the collections' ids by number. One that cannot be described is a problem of its
    /// first transform, and left out.
    pub(super) fn stages(
        &mut self,
        fused: &FusedGraph,
        ids: &TiSlice<CollectionId, String>,
        state_backed_bytes: usize,
    ) -> TiVec<StageId, StagePlan> {
        let mut stages = TiVec::with_capacity(fused.stages().len());
        for stage in fused.stages() {
            match self.stage(stage, ids, state_backed_bytes) {
                Ok(stage) => stages.push(stage),
                Err(message) => {
                    let first = stage.transforms.first();
                    let leaf = first.and_then(|id| self.leaves.get(usize::from(*id)));
                    self.problems.add(leaf.map_or("", Leaf::name), message);
                }
            }
        }
        stages
    }

    /// The descriptor of a stage.
    fn stage(
        &mut self,
        stage: &Stage,
        ids: &TiSlice<CollectionId, String>,
        state_backed_bytes: usize,
    ) -> Result<StagePlan, String> {
        let missing = || format!("stage \"{}\" names what the pipeline lacks", stage.name);
        let collection = |id: CollectionId| ids.get(id).cloned().ok_or_else(missing);
        let environment = usize::from(stage.environment.ok_or_else(missing)?);
        let plan_environment = self
            .environments
            .list
            .get(environment)
            .ok_or_else(missing)?
            .clone();
        let leaves: Vec<usize> = stage.transforms.iter().map(|id| usize::from(*id)).collect();
        if leaves.iter().any(|&index| index >= self.leaves.len()) {
            return Err(missing());
        }

        let mut descriptor = ProcessBundleDescriptor {
            id: format!("stage-{}", stage.id.0),
            ..Default::default()
        };
        descriptor
            .environments
            .insert(plan_environment.id.clone(), plan_environment.proto.clone());
        let input = collection(stage.input)?;
        let outputs: Vec<String> = stage
            .outputs
            .iter()
            .map(|&id| collection(id))
            .collect::<Result<_, _>>()?;
        let mut wired: HashSet<String> = side_collections(leaves.iter().map(|&i| &self.leaves[i]))
            .into_iter()
            .map(str::to_owned)
            .collect();
        wired.insert(input.clone());
        wired.extend(outputs.iter().cloned());

        let mut timer_families = Vec::new();
        let mut roots = Vec::new();
        let mut used: HashSet<String> = wired.clone();
        for &index in &leaves {
            let leaf = &self.leaves[index];
            let mut proto = leaf.proto.clone();
            proto.environment_id.clone_from(&plan_environment.id);
            if proto.unique_name.is_empty() {
                proto.unique_name.clone_from(&leaf.id);
            }
            used.extend(proto.inputs.values().chain(proto.outputs.values()).cloned());
            if leaf.main_inputs().iter().any(|(_, id)| *id == input) {
                roots.push(leaf.id.clone());
            }
            let mut families = families(leaf);
            families.sort_unstable();
            timer_families.extend(families.into_iter().map(|family| (leaf.id.clone(), family)));
            descriptor.transforms.insert(leaf.id.clone(), proto);
        }

        let unused = |transforms: &HashMap<String, PTransform>, mut id: String| {
            while transforms.contains_key(&id) {
                id.push('_');
            }
            id
        };
        let source = unused(&descriptor.transforms, format!("{input}/Read"));
        let backed = plan_environment.knows(coder_urns::STATE_BACKED_ITERABLE);
        let backed_port = if backed { self.backed_port(&input) } else { None };
        let state_backed = backed_port.is_some().then_some(state_backed_bytes);
        let port = match backed_port {
            Some(port) => port,
            None => self.port(&input)?,
        };
        let read = io_transform(
            runner_transforms::DATA_SOURCE,
            format!("{input}/Read"),
            &port,
            None,
            Some(&input),
        );
        descriptor.transforms.insert(source.clone(), read);
        let mut sinks = Vec::new();
        for (output, &number) in outputs.iter().zip(&stage.outputs) {
            let id = unused(&descriptor.transforms, format!("{output}/Write"));
            let port = self.port(output)?;
            let name = format!("{output}/Write");
            let write = io_transform(runner_transforms::DATA_SINK, name, &port, Some(output), None);
            descriptor.transforms.insert(id.clone(), write);
            sinks.push((id, number));
        }
        for id in &used {
            self.add_collection(&mut descriptor, id, wired.contains(id), &plan_environment.id)?;
        }
        self.add_coders(&mut descriptor);
        let descriptor = Arc::new(descriptor);
        Ok(StagePlan {
            name: stage.name.clone(),
            environment,
            descriptor,
            source,
            sinks,
            timer_families,
            roots,
            input: stage.input,
            state_backed,
        })
    }

    /// Id of the coder of a collection's windowed values on the wire.
    fn port(&mut self, id: &str) -> Result<String, String> {
        let format = self
            .formats
            .get(id)
            .ok_or_else(|| format!("PCollection \"{id}\" has no format"))?;
        Ok(self
            .coders
            .make(coder_urns::WINDOWED_VALUE, &[&format.wire.id, &format.window_id]))
    }

    /// As [`Builder::port`], of a key's values of which a part may stay with the runner.
    fn backed_port(&mut self, id: &str) -> Option<String> {
        let format = self.formats.get(id)?;
        let (key, values) = self.coders.kv(&format.wire.id)?;
        let values = self.coders.get(&values)?;
        let [value] = values.component_coder_ids.as_slice() else {
            return None;
        };
        if coder_urn(values) != coder_urns::ITERABLE {
            return None;
        }
        let (value, window) = (value.clone(), format.window_id.clone());
        let values = self.coders.make(coder_urns::STATE_BACKED_ITERABLE, &[&value]);
        let pair = self.coders.make(coder_urns::KV, &[&key, &values]);
        Some(self.coders.make(coder_urns::WINDOWED_VALUE, &[&pair, &window]))
    }

    fn add_collection(
        &mut self,
        descriptor: &mut ProcessBundleDescriptor,
        id: &str,
        wired: bool,
        environment: &str,
    ) -> Result<(), String> {
        let collection = self
            .pcollections
            .get(id)
            .ok_or_else(|| format!("PCollection \"{id}\" does not exist"))?;
        let mut collection = collection.clone();
        if wired && let Some(format) = self.formats.get(id) {
            collection.coder_id.clone_from(&format.wire.id);
        }
        let strategy_id = collection.windowing_strategy_id.clone();
        if !descriptor.windowing_strategies.contains_key(&strategy_id)
            && let Some(strategy) = self.components.windowing_strategies.get(&strategy_id)
        {
            let mut strategy = strategy.clone();
            // Windows in state keys and residuals are then sent as the elements' windows are.
            if let Ok((window, _)) = self.coders.window(&strategy.window_coder_id) {
                strategy.window_coder_id = window;
            }
            if let Some(own) = self.environments.get(&strategy.environment_id) {
                strategy.environment_id = self.environments.list[own].id.clone();
            } else {
                strategy.environment_id = environment.to_owned();
            }
            descriptor.windowing_strategies.insert(strategy_id, strategy);
        }
        descriptor.pcollections.insert(id.to_owned(), collection);
        Ok(())
    }

    /// The coders that the descriptor names, with their components.
    fn add_coders(&self, descriptor: &mut ProcessBundleDescriptor) {
        let mut wanted: Vec<String> = Vec::new();
        wanted.extend(descriptor.pcollections.values().map(|c| c.coder_id.clone()));
        wanted.extend(
            descriptor
                .windowing_strategies
                .values()
                .map(|s| s.window_coder_id.clone()),
        );
        for transform in descriptor.transforms.values() {
            let Some(spec) = &transform.spec else { continue };
            let payload = &spec.payload[..];
            match spec.urn.as_str() {
                runner_transforms::DATA_SOURCE | runner_transforms::DATA_SINK => {
                    wanted.extend(RemoteGrpcPort::decode(payload).map(|port| port.coder_id));
                }
                urns::COMBINE_PER_KEY
                | urns::COMBINE_PER_KEY_PRECOMBINE
                | urns::COMBINE_PER_KEY_MERGE_ACCUMULATORS
                | urns::COMBINE_PER_KEY_EXTRACT_OUTPUTS
                | urns::COMBINE_PER_KEY_CONVERT_TO_ACCUMULATORS
                | urns::COMBINE_GROUPED_VALUES => {
                    wanted.extend(
                        pipeline::CombinePayload::decode(payload).map(|combine| combine.accumulator_coder_id),
                    );
                }
                urns::PAR_DO
                | urns::PAIR_WITH_RESTRICTION
                | urns::SPLIT_AND_SIZE_RESTRICTIONS
                | urns::TRUNCATE_SIZED_RESTRICTION
                | urns::PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS => {
                    let Ok(pardo) = ParDoPayload::decode(payload) else {
                        continue;
                    };
                    wanted.push(pardo.restriction_coder_id.clone());
                    wanted.extend(
                        pardo
                            .timer_family_specs
                            .values()
                            .map(|spec| spec.timer_family_coder_id.clone()),
                    );
                    for spec in pardo.state_specs.values() {
                        wanted.extend(state_coders(spec).into_iter().map(str::to_owned));
                    }
                }
                _ => {}
            }
        }
        for id in wanted {
            self.coders.collect(&id, &mut descriptor.coders);
        }
    }

    /// Coders of the values of map states, by transform and state: where entries are read whole, values are counted.
    pub(super) fn map_states(&mut self) -> HashMap<(String, String), Coder> {
        let mut found = HashMap::new();
        for index in 0..self.leaves.len() {
            let id = self.leaves[index].id.clone();
            let Op::User(user) = &mut self.leaves[index].op else {
                continue;
            };
            let Some(pardo) = &mut user.pardo else { continue };
            for (name, spec) in &mut pardo.state_specs {
                use state_spec::Spec;
                let (key, value) = match &mut spec.spec {
                    Some(Spec::MapSpec(s)) => (&mut s.key_coder_id, &mut s.value_coder_id),
                    Some(Spec::MultimapSpec(s)) => (&mut s.key_coder_id, &mut s.value_coder_id),
                    _ => continue,
                };
                // Values (and keys) must tell where they end.
                if let (Ok(key_wire), Ok(value_wire)) = (self.coders.wire(key), self.coders.wire(value)) {
                    *key = key_wire.id;
                    *value = value_wire.id;
                    found.insert((id.clone(), name.clone()), value_wire.coder);
                }
            }
        }
        found
    }
}

fn families(leaf: &Leaf) -> Vec<String> {
    match &leaf.op {
        Op::User(user) => {
            let pardo = user.pardo.as_ref();
            pardo
                .map(|pardo| pardo.timer_family_specs.keys().cloned().collect())
                .unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// A data source or sink.
pub(super) fn io_transform(
    urn: &str,
    name: String,
    coder: &str,
    input: Option<&str>,
    output: Option<&str>,
) -> PTransform {
    let port = RemoteGrpcPort {
        api_service_descriptor: None,
        coder_id: coder.to_owned(),
    };
    let end =
        |id: Option<&str>, tag: &str| id.map(|id| (tag.to_owned(), id.to_owned())).into_iter().collect();
    PTransform {
        unique_name: name,
        spec: Some(FunctionSpec {
            urn: urn.to_owned(),
            payload: port.encode_to_vec().into(),
        }),
        inputs: end(input, "in"),
        outputs: end(output, "out"),
        ..PTransform::default()
    }
}

/// A descriptor with the addresses at which a worker finds data and state: those that the worker can reach.
pub fn with_endpoints(
    descriptor: &ProcessBundleDescriptor,
    data: &pipeline::ApiServiceDescriptor,
    state: &pipeline::ApiServiceDescriptor,
) -> ProcessBundleDescriptor {
    let mut descriptor = descriptor.clone();
    descriptor.state_api_service_descriptor = Some(state.clone());
    descriptor.timer_api_service_descriptor = Some(data.clone());
    for transform in descriptor.transforms.values_mut() {
        if ![runner_transforms::DATA_SOURCE, runner_transforms::DATA_SINK].contains(&urn(transform)) {
            continue;
        }
        if let Some(spec) = &mut transform.spec
            && let Ok(mut port) = RemoteGrpcPort::decode(&spec.payload[..])
        {
            port.api_service_descriptor = Some(data.clone());
            spec.payload = port.encode_to_vec().into();
        }
    }
    descriptor
}
