//! Environments: equal ones are one, and transforms without one get their neighbours'.

use std::collections::{BTreeSet, HashMap};

use purlin_proto::pipeline::{Components, Environment};
use purlin_proto::urns::resource_hints;

use super::error::Problems;
use super::leaves::{Leaf, Op};

/// Where user code of a plan runs.
#[derive(Clone, Debug)]
pub struct PlanEnvironment {
    /// Its id in the pipeline (of several that are equal, the first in order of id).
    pub id: String,
    /// The environment.
    pub proto: Environment,
}

impl PlanEnvironment {
    /// Whether the SDK says that it knows a coder or a protocol.
    pub fn knows(&self, urn: &str) -> bool {
        self.proto.capabilities.iter().any(|known| known == urn)
    }
}

/// The environments of a pipeline, without doubles.
pub(super) struct Environments {
    pub list: Vec<PlanEnvironment>,
    index: HashMap<String, usize>,
}

impl Environments {
    pub(super) fn new(components: &Components) -> Self {
        let mut ids: Vec<&String> = components.environments.keys().collect();
        ids.sort_unstable();
        let mut environments = Environments {
            list: Vec::new(),
            index: HashMap::new(),
        };
        for id in ids {
            let proto = &components.environments[id];
            let place = environments
                .list
                .iter()
                .position(|known| same(&known.proto, proto));
            let place = place.unwrap_or_else(|| {
                environments.list.push(PlanEnvironment {
                    id: id.clone(),
                    proto: proto.clone(),
                });
                environments.list.len() - 1
            });
            environments.index.insert(id.clone(), place);
        }
        environments
    }

    pub(super) fn get(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The id of an environment in the pipeline; empty where there is none.
    pub(super) fn id(&self, index: usize) -> String {
        self.list.get(index).map(|e| e.id.clone()).unwrap_or_default()
    }

    /// How many bundles a worker of an environment may process at a time, where a resource hint says so.
    pub(super) fn max_bundles(&self, index: usize) -> Option<u32> {
        let hint = self
            .list
            .get(index)?
            .proto
            .resource_hints
            .get(resource_hints::MAX_ACTIVE_BUNDLES_PER_WORKER)?;
        std::str::from_utf8(hint)
            .ok()?
            .trim()
            .parse()
            .ok()
            .filter(|&count| count > 0)
    }

    /// Gives every user transform its environment.
    pub(super) fn assign(&self, leaves: &mut [Leaf], problems: &mut Problems) {
        for leaf in leaves.iter_mut() {
            if !matches!(leaf.op, Op::User(_)) {
                continue;
            }
            let id = &leaf.proto.environment_id;
            if !id.is_empty() {
                leaf.environment = self.get(id);
                if leaf.environment.is_none() {
                    let message = format!("environment \"{id}\" is not among the pipeline's components");
                    problems.add(leaf.name(), message);
                }
            }
        }
        self.inherit(leaves);
        for leaf in leaves.iter_mut() {
            let missing = matches!(leaf.op, Op::User(_)) && leaf.environment.is_none();
            if missing && leaf.proto.environment_id.is_empty() {
                problems.add(
                    leaf.name(),
                    "it runs in an SDK but names no environment, and none can be inferred",
                );
            }
        }
    }

    /// Transforms that any SDK can execute may come without an environment: that of the nearest producer, else of
    /// the nearest consumer, else the only one.
    fn inherit(&self, leaves: &mut [Leaf]) {
        let needs = |leaf: &Leaf| {
            matches!(leaf.op, Op::User(_))
                && leaf.environment.is_none()
                && leaf.proto.environment_id.is_empty()
        };
        if !leaves.iter().any(needs) {
            return;
        }
        let mut made_in: HashMap<String, usize> = HashMap::new();
        let mut read_in: HashMap<String, usize> = HashMap::new();
        // Each round carries the environments over one more transform.
        for _ in 0..=leaves.len() {
            let mut changed = false;
            for leaf in leaves.iter_mut() {
                let from_inputs = leaf
                    .main_inputs()
                    .into_iter()
                    .find_map(|(_, id)| made_in.get(id))
                    .copied();
                let from_outputs = leaf
                    .outputs()
                    .into_iter()
                    .find_map(|(_, id)| read_in.get(id))
                    .copied();
                if needs(leaf) && from_inputs.is_some() {
                    leaf.environment = from_inputs;
                    changed = true;
                }
                let native = !matches!(leaf.op, Op::User(_));
                let made = leaf.environment.or(if native { from_inputs } else { None });
                let read = leaf.environment.or(from_outputs);
                for (_, id) in leaf.outputs() {
                    if let Some(environment) = made {
                        changed |= made_in.insert(id.to_owned(), environment).is_none();
                    }
                }
                for (_, id) in leaf.main_inputs() {
                    if let Some(environment) = read {
                        changed |= read_in.insert(id.to_owned(), environment).is_none();
                    }
                }
            }
            if !changed {
                break;
            }
        }
        for leaf in leaves.iter_mut().filter(|leaf| needs(leaf)) {
            leaf.environment = leaf
                .outputs()
                .into_iter()
                .find_map(|(_, id)| read_in.get(id))
                .copied();
            if leaf.environment.is_none() && self.list.len() == 1 {
                leaf.environment = Some(0);
            }
        }
    }
}

/// Whether user code cannot tell two environments apart. Display data are not looked at.
fn same(a: &Environment, b: &Environment) -> bool {
    let set = |environment: &Environment| environment.capabilities.iter().cloned().collect::<BTreeSet<_>>();
    a.urn == b.urn
        && a.payload == b.payload
        && a.dependencies == b.dependencies
        && a.resource_hints == b.resource_hints
        && set(a) == set(b)
}
