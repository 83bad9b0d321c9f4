//! What can be wrong with a graph. All of it is reported at once.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use thiserror::Error;
use typed_index_collections::{TiSlice, TiVec};

use super::plan::collection_name;
use crate::graph::{CollectionId, Graph, SideInputAccess, Transform, TransformId, TransformKind};

/// Why a graph cannot be run, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphProblem {
    /// Full name of the transform; empty where the graph as a whole is meant.
    pub transform: String,
    /// What is wrong with it.
    pub fault: GraphFault,
}

impl fmt::Display for GraphProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transform.is_empty() {
            self.fault.fmt(f)
        } else {
            write!(f, "transform \"{}\": {}", self.transform, self.fault)
        }
    }
}

impl core::error::Error for GraphProblem {}

/// What can be wrong with a transform of a graph, or with the graph. Collections and environments are told by name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphFault {
    /// It names a collection that is not there.
    #[error("it refers to collection #{collection}, which the pipeline does not have")]
    MissingCollection {
        /// Index.
        collection: u32,
    },
    /// It, or the windowing strategy of what it makes, names an environment that is not there.
    #[error("it refers to environment #{environment}, which the pipeline does not have")]
    MissingEnvironment {
        /// Index.
        environment: u32,
    },
    /// No environment says where user code runs.
    #[error("it is user code, but no environment of the pipeline can run it")]
    NoEnvironment,
    /// An environment that can process nothing.
    #[error(
        "environment \"{environment}\" has no slot for bundles: give it at least one worker with one slot"
    )]
    NoSlots {
        /// Name.
        environment: String,
    },
    /// A collection with several producers.
    #[error("it produces collection \"{collection}\", which \"{first}\" produces too")]
    TwoProducers {
        /// Name.
        collection: String,
        /// Full name of the other producer.
        first: String,
    },
    /// A collection that is read but not produced.
    #[error("it reads collection \"{collection}\", which no transform produces")]
    NoProducer {
        /// Name.
        collection: String,
    },
    /// Transforms that depend on their own output.
    #[error("the pipeline has a cycle through {}", transforms.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "))]
    Cycle {
        /// Full names.
        transforms: Vec<String>,
    },
    /// A wrong number of inputs or outputs.
    #[error("it has {got} {what} where it must have {expected}")]
    Arity {
        /// Inputs or outputs.
        what: &'static str,
        /// How many it has.
        got: usize,
        /// How many it must have.
        expected: &'static str,
    },
    /// A collection of pairs was expected.
    #[error("it needs keyed input, but collection \"{collection}\" has coder {coder}, not beam:coder:kv:v1")]
    NotKeyed {
        /// Name.
        collection: String,
        /// The coder it has.
        coder: String,
    },
    /// The ends of the elements that it makes cannot be found.
    #[error(
        "the coder {coder} of collection \"{collection}\" must be length-prefixed, as its elements leave their worker"
    )]
    UnknownCoder {
        /// Name.
        collection: String,
        /// The coder.
        coder: String,
    },
    /// A splittable transform with a timer or with sorted input.
    #[error("it cannot be {first} and {second}")]
    Conflict {
        /// One property.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Custom merging windows that no SDK can merge.
    #[error(
        "the windows of collection \"{collection}\" merge by a function of an SDK, but no environment is known that can merge them"
    )]
    NoMerger {
        /// Name.
        collection: String,
    },
    /// A setting refers to it as to what it is not.
    #[error("setting {setting} refers to it, but it is not {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl GraphFault {
    fn of(self, transform: &Transform) -> GraphProblem {
        GraphProblem {
            transform: transform.name.clone(),
            fault: self,
        }
    }
}

/// Which transform makes each collection, if any does.
pub(super) type Producers = TiSlice<CollectionId, Option<TransformId>>;

/// Full name of what makes a collection; empty where nothing does.
pub(super) fn producer_name(graph: &Graph, producers: &Producers, id: CollectionId) -> String {
    let producer = producers.get(id).copied().flatten();
    let producer = producer.and_then(|id| graph.transforms.get(id));
    producer.map_or_else(String::new, |transform| transform.name.clone())
}

/// Who produces each collection, and the transforms in topological order (side inputs counted as edges).
pub(crate) struct Checked {
    pub producers: TiVec<CollectionId, Option<TransformId>>,
    pub order: Vec<TransformId>,
}

pub(crate) fn side_collections(transform: &Transform) -> impl Iterator<Item = CollectionId> + '_ {
    let sides = match &transform.kind {
        TransformKind::User(user) => user.side_inputs.as_slice(),
        _ => &[],
    };
    sides.iter().map(|side| side.collection)
}

/// Checks everything; `Ok` only where nothing is wrong.
pub(crate) fn validate(graph: &Graph) -> Result<Checked, Vec<GraphProblem>> {
    let mut problems = Vec::new();
    let count = graph.collections.len();
    let known = |id: CollectionId| usize::from(id) < count;
    let mut producers: TiVec<CollectionId, Option<TransformId>> = vec![None; count].into();
    let environments = graph.environments.len();
    for environment in &graph.environments {
        if environment.workers == 0 || environment.slots_per_worker == 0 {
            let environment = environment.name.clone();
            problems.push(GraphProblem {
                transform: String::new(),
                fault: GraphFault::NoSlots { environment },
            });
        }
    }
    for (transform_id, transform) in graph.transforms.iter_enumerated() {
        for &id in &transform.outputs {
            if !known(id) {
                let fault = GraphFault::MissingCollection { collection: id.0 };
                problems.push(fault.of(transform));
                continue;
            }
            match producers[id] {
                Some(first) => {
                    let fault = GraphFault::TwoProducers {
                        collection: collection_name(graph, id),
                        first: graph.transforms[first].name.clone(),
                    };
                    problems.push(fault.of(transform));
                }
                None => producers[id] = Some(transform_id),
            }
        }
    }
    for (collection_id, collection) in graph.collections.iter_enumerated() {
        let environment = collection.windowing.environment;
        if let Some(id) = environment.filter(|id| usize::from(*id) >= environments) {
            problems.push(GraphProblem {
                transform: producer_name(graph, &producers, collection_id),
                fault: GraphFault::MissingEnvironment { environment: id.0 },
            });
        }
    }
    for transform in &graph.transforms {
        let sides = side_collections(transform);
        for id in transform.inputs.iter().copied().chain(sides) {
            if !known(id) {
                let fault = GraphFault::MissingCollection { collection: id.0 };
                problems.push(fault.of(transform));
            } else if producers[id].is_none() {
                let collection = collection_name(graph, id);
                problems.push(GraphFault::NoProducer { collection }.of(transform));
            }
        }
        check_transform(graph, transform, &known, &mut |fault| {
            problems.push(fault.of(transform))
        });
    }
    let order = topological(graph, &producers, &mut problems);
    if problems.is_empty() {
        Ok(Checked { producers, order })
    } else {
        Err(problems)
    }
}

fn check_transform(
    graph: &Graph,
    transform: &Transform,
    known: &impl Fn(CollectionId) -> bool,
    add: &mut impl FnMut(GraphFault),
) {
    let mut arity = |what, got, right: bool, expected| {
        if !right {
            add(GraphFault::Arity { what, got, expected });
        }
    };
    let (inputs, outputs) = (transform.inputs.len(), transform.outputs.len());
    match &transform.kind {
        TransformKind::Impulse => {
            arity("inputs", inputs, inputs == 0, "none");
            arity("outputs", outputs, outputs == 1, "one");
        }
        TransformKind::TestStream(_) => {
            arity("inputs", inputs, inputs == 0, "none");
            arity("outputs", outputs, outputs >= 1, "at least one");
        }
        TransformKind::Flatten => arity("outputs", outputs, outputs == 1, "one"),
        TransformKind::GroupByKey | TransformKind::Redistribute => {
            arity("inputs", inputs, inputs == 1, "one");
            arity("outputs", outputs, outputs == 1, "one");
        }
        TransformKind::User(_) => arity("main inputs", inputs, inputs == 1, "one"),
    }
    let unkeyed = |id: CollectionId| {
        let unkeyed = known(id) && graph.collections[id].coder.as_kv().is_none();
        unkeyed.then(|| GraphFault::NotKeyed {
            collection: collection_name(graph, id),
            coder: graph.collections[id].coder.to_string(),
        })
    };
    match &transform.kind {
        TransformKind::GroupByKey => {
            transform
                .inputs
                .iter()
                .filter_map(|id| unkeyed(*id))
                .for_each(&mut *add);
            for id in transform.inputs.iter().filter(|id| known(**id)) {
                let collection = &graph.collections[*id];
                if collection.windowing.merges_in_sdk() && collection.windowing.environment.is_none() {
                    let collection = collection.name.clone();
                    add(GraphFault::NoMerger { collection });
                }
            }
        }
        TransformKind::User(user) => {
            if user.stateful || !user.timers.is_empty() || user.requires_time_sorted_input {
                // The key of a splittable transform's element is inside of the element-and-restriction pair.
                transform
                    .inputs
                    .iter()
                    .filter_map(|id| unkeyed(*id))
                    .for_each(&mut *add);
            }
            let multimaps = user
                .side_inputs
                .iter()
                .filter(|side| side.access == SideInputAccess::Multimap);
            multimaps
                .filter_map(|side| unkeyed(side.collection))
                .for_each(&mut *add);
            if user.splittable && user.requires_time_sorted_input {
                let (first, second) = ("splittable", "time-sorted");
                add(GraphFault::Conflict { first, second });
            }
            match user.environment {
                Some(id) if usize::from(id) >= graph.environments.len() => {
                    add(GraphFault::MissingEnvironment { environment: id.0 });
                }
                None if graph.environments.is_empty() => add(GraphFault::NoEnvironment),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Kahn's algorithm, in the order of the transforms' indices so that plans are stable.
fn topological(graph: &Graph, producers: &Producers, problems: &mut Vec<GraphProblem>) -> Vec<TransformId> {
    let count = graph.transforms.len();
    let mut consumers: TiVec<TransformId, Vec<TransformId>> = vec![Vec::new(); count].into();
    let mut missing: TiVec<TransformId, usize> = vec![0; count].into();
    for (index, transform) in graph.transforms.iter_enumerated() {
        for id in transform
            .inputs
            .iter()
            .copied()
            .chain(side_collections(transform))
        {
            if let Some(&Some(producer)) = producers.get(id) {
                consumers[producer].push(index);
                missing[index] += 1;
            }
        }
    }
    let mut ready: alloc::collections::BTreeSet<TransformId> =
        missing.keys().filter(|&index| missing[index] == 0).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &consumer in &consumers[index] {
            missing[consumer] -= 1;
            if missing[consumer] == 0 {
                ready.insert(consumer);
            }
        }
    }
    if order.len() < count {
        // What only hangs behind the cycle is not part of it: take away what has no consumer left, again and again.
        let mut inside: TiVec<TransformId, bool> = missing.iter().map(|&missing| missing > 0).collect();
        loop {
            let leaf = inside
                .keys()
                .find(|&i| inside[i] && !consumers[i].iter().any(|&consumer| inside[consumer]));
            match leaf {
                Some(index) => inside[index] = false,
                None => break,
            }
        }
        let in_cycle = inside.keys().filter(|&index| inside[index]);
        let transforms = in_cycle
            .map(|index| graph.transforms[index].name.clone())
            .collect();
        problems.push(GraphProblem {
            transform: String::new(),
            fault: GraphFault::Cycle { transforms },
        });
    }
    order
}
