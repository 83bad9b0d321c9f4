//! From a pipeline proto to what runs: the engine's graph, fused stages and their descriptors.
//!
//! Translation never trusts the proto: whatever is missing, malformed, cyclic or unknown becomes a [`Problem`] that
//! names the transform, and all problems are told at once.

mod coders;
mod environments;
mod error;
mod graph;
mod leaves;
mod lift;
mod pack;
mod queryable;
mod rewrite;
mod stage;
mod windowing;
mod windows;

use std::collections::{HashMap, HashSet};
use std::fmt;

use purlin_engine::{CollectionId, EngineConfig, FusedGraph, StageId, TransformId};
use purlin_model::Coder;
use purlin_proto::pipeline::{ApiServiceDescriptor, Components, PTransform, Pipeline};
use purlin_proto::urns::{self, requirements};
use typed_index_collections::{TiSlice, TiVec};

pub use environments::PlanEnvironment;
pub use error::{Problem, TranslateError};
pub use lift::lift;
pub use pack::pack;
pub use queryable::QUERYABLE_STATE;
pub(crate) use queryable::{QueryableState, StateKind};
pub use stage::{StagePlan, with_endpoints};
pub use windows::WindowPlan;

use coders::Coders;
use environments::Environments;
use error::Problems;
use graph::Builder;
use leaves::{Flattener, Leaf, Op, name_of};

/// What can be chosen about a plan.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Workers of each environment.
    pub workers: u32,
    /// Bundles that a worker processes at the same time, where its environment's resource hints do not say.
    pub slots_per_worker: u32,
    /// Whether sibling combiners become one where the pipeline asks for it. Beam's runners do so in batch jobs only.
    pub pack_combiners: bool,
    /// The values of a key that a GroupByKey gives, where they are more bytes than this, are fetched by the worker as
    /// it iterates, if its SDK can do that.
    pub state_backed_iterable_bytes: usize,
    /// Settings of the engine; its `truncates` are filled by the plan.
    pub engine: EngineConfig,
}

impl Default for PlanOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |count| count.get() as u32);
        PlanOptions {
            workers: 1,
            slots_per_worker: cores.clamp(2, 32),
            state_backed_iterable_bytes: 16 << 20,
            pack_combiners: true,
            engine: EngineConfig::default(),
        }
    }
}

/// A pipeline that can be run. Consumed by [`crate::job::Job::start`].
pub struct Plan {
    pub(crate) fused: FusedGraph,
    pub(crate) stages: TiVec<StageId, StagePlan>,
    pub(crate) environments: Vec<PlanEnvironment>,
    /// Id and unique name by number.
    pub(crate) transforms: TiVec<TransformId, (String, String)>,
    pub(crate) numbers: HashMap<String, TransformId>,
    pub(crate) merges: HashMap<CollectionId, WindowPlan>,
    pub(crate) mappings: HashMap<(TransformId, usize), WindowPlan>,
    /// Coders of the values of map states, by transform and state.
    pub(crate) map_states: HashMap<(String, String), Coder>,
    /// Declared states, by transform and name.
    pub(crate) states: HashSet<(String, String)>,
    /// What may be read of the job from outside.
    pub(crate) queryable: Vec<QueryableState>,
    pub(crate) remote_streams: Vec<RemoteStream>,
}

/// A TestStream whose events an endpoint serves.
pub(crate) struct RemoteStream {
    pub transform: TransformId,
    pub endpoint: ApiServiceDescriptor,
    pub leaf: Leaf,
    pub coder: String,
    pub coders: Coders,
}

impl RemoteStream {
    /// An event of the endpoint, as the engine takes it.
    pub(crate) fn event(
        &mut self,
        event: &purlin_proto::pipeline::test_stream_payload::Event,
    ) -> Result<purlin_engine::TestStreamEvent, String> {
        graph::test_stream_event(&mut self.coders, &self.leaf, &self.coder, event)
    }

    /// The outputs' tags.
    pub(crate) fn output_ids(&self) -> Vec<String> {
        self.leaf
            .outputs()
            .into_iter()
            .map(|(tag, _)| tag.to_owned())
            .collect()
    }
}

impl Plan {
    /// The fused stages.
    pub fn stages(&self) -> &TiSlice<StageId, StagePlan> {
        &self.stages
    }

    /// The environments that stages name by index.
    pub fn environments(&self) -> &[PlanEnvironment] {
        &self.environments
    }

    /// The unique name of a transform that stages' descriptors name by id; the id itself where there is none.
    pub fn transform_name<'a>(&'a self, id: &'a str) -> &'a str {
        let found = self
            .numbers
            .get(id)
            .and_then(|number| self.transforms.get(*number));
        found.map_or(id, |(_, name)| name)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fused.fmt(f)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("stages", &self.stages.len())
            .finish_non_exhaustive()
    }
}

/// Plans a pipeline.
///
/// # Errors
/// All that is wrong with the pipeline.
pub fn plan(pipeline: &Pipeline, options: &PlanOptions) -> Result<Plan, TranslateError> {
    let mut problems = Problems::default();
    for requirement in &pipeline.requirements {
        if !requirements::ALL.contains(&requirement.as_str()) {
            problems.add(
                "",
                format!("the pipeline requires \"{requirement}\", which is not supported"),
            );
        }
    }
    let rewritten = with_combiners_in_steps(pipeline, options.pack_combiners);
    let pipeline = rewritten.as_ref().unwrap_or(pipeline);
    let empty = Components::default();
    let components = pipeline.components.as_ref().unwrap_or(&empty);
    let roots = roots(pipeline, components);
    let environments = Environments::new(components);
    let coders = Coders::new(&components.coders, used_environments(components, &environments));

    let mut flattener = Flattener::new(components, coders, problems);
    flattener.collect(&roots);
    let mut builder = Builder::new(flattener, &environments);
    builder.check_collections();
    builder.sort();
    let Builder { leaves, problems, .. } = &mut builder;
    environments.assign(leaves, problems);
    builder.decide_formats();
    let map_states = builder.map_states();
    let (graph, ids) = builder.graph(options.workers, options.slots_per_worker);
    builder.rewrite_payloads();
    let merges = builder.merges(&graph, &ids);
    let mappings = builder.mappings(&graph);

    let config = EngineConfig {
        truncates: builder.truncates(),
        ..options.engine.clone()
    };
    // Where some leaves are left out, the others are looked at all the same: all that is wrong is told at once.
    let planned = match FusedGraph::new(graph, config) {
        Ok(fused) => {
            let stages = builder.stages(&fused, &ids, options.state_backed_iterable_bytes);
            Some((fused, stages))
        }
        Err(problems) => {
            for problem in problems {
                let message = problem.fault.to_string();
                builder.problems.add(&problem.transform, message);
            }
            None
        }
    };
    let problems = std::mem::take(&mut builder.problems);
    let consequences = std::mem::take(&mut builder.consequences);
    let (fused, stages) = problems.none_in(planned, consequences)?;

    let transforms: TiVec<TransformId, (String, String)> = builder
        .leaves
        .iter()
        .map(|leaf| (leaf.id.clone(), leaf.name().to_owned()))
        .collect();
    let numbers = transforms
        .iter_enumerated()
        .map(|(number, (id, _))| (id.clone(), number));
    let numbers = numbers.collect();
    let states = builder.leaves.iter().flat_map(Leaf::states).collect();
    let queryable = builder.queryable_states();
    let remote_streams = remote_streams(builder);
    Ok(Plan {
        fused,
        stages,
        environments: environments.list,
        transforms,
        numbers,
        merges,
        mappings,
        map_states,
        states,
        queryable,
        remote_streams,
    })
}

/// The pipeline with its combiners lifted, and packed if so wished; none where it has no combiners.
fn with_combiners_in_steps(pipeline: &Pipeline, packed: bool) -> Option<Pipeline> {
    let combines = |proto: &PTransform| leaves::urn(proto) == urns::transforms::COMBINE_PER_KEY;
    let components = pipeline.components.as_ref()?;
    if !components.transforms.values().any(combines) {
        return None;
    }
    let mut rewritten = pipeline.clone();
    if packed {
        pack(&mut rewritten);
    }
    lift(&mut rewritten);
    Some(rewritten)
}

/// The root transforms; where a pipeline names none, those that no other transform contains.
fn roots(pipeline: &Pipeline, components: &Components) -> Vec<String> {
    if !pipeline.root_transform_ids.is_empty() {
        return pipeline.root_transform_ids.clone();
    }
    let contained: HashSet<&String> = components
        .transforms
        .values()
        .flat_map(|t| &t.subtransforms)
        .collect();
    let mut roots: Vec<String> = components
        .transforms
        .keys()
        .filter(|id| !contained.contains(id))
        .cloned()
        .collect();
    roots.sort_unstable();
    // All contain each other: the visit tells.
    if roots.is_empty() {
        roots.extend(components.transforms.keys().min().cloned());
    }
    roots
}

/// The environments that transforms name: capabilities of others do not matter.
fn used_environments<'a>(
    components: &'a Components,
    environments: &'a Environments,
) -> impl Iterator<Item = &'a purlin_proto::pipeline::Environment> {
    let used: HashSet<usize> = components
        .transforms
        .values()
        .filter_map(|t| environments.get(&t.environment_id))
        .collect();
    let mut used: Vec<usize> = used.into_iter().collect();
    used.sort_unstable();
    used.into_iter()
        .filter_map(|index| environments.list.get(index).map(|e| &e.proto))
}

fn remote_streams(builder: Builder<'_>) -> Vec<RemoteStream> {
    let Builder { leaves, coders, .. } = builder;
    let mut streams = Vec::new();
    for (number, leaf) in leaves.into_iter().enumerate() {
        let Op::TestStream(payload) = &leaf.op else {
            continue;
        };
        let Some(endpoint) = payload
            .endpoint
            .clone()
            .filter(|endpoint| !endpoint.url.is_empty())
        else {
            continue;
        };
        streams.push(RemoteStream {
            transform: number.into(),
            endpoint,
            coder: payload.coder_id.clone(),
            coders: coders.clone(),
            leaf,
        });
    }
    streams
}

/// The name by which users know a transform of a pipeline.
pub fn transform_name<'a>(pipeline: &'a Pipeline, id: &'a str) -> &'a str {
    let proto = pipeline
        .components
        .as_ref()
        .and_then(|components| components.transforms.get(id));
    proto.map_or(id, |proto| name_of(id, proto))
}
