//! What can be wrong with a graph. All of it is reported at once.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use thiserror::Error;

use super::plan::collection_name;
use crate::graph::{
    CollectionId, Graph, SdkWindows, SideInputAccess, Transform, TransformId, TransformKind, WindowFn,
};

/// Why a graph cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphProblem {
    /// A transform names a collection that is not there.
    #[error("transform \"{transform}\" refers to collection #{collection}, which the pipeline does not have")]
    MissingCollection {
        /// Full name.
        transform: String,
        /// Index.
        collection: u32,
    },
    /// A transform or windowing strategy names an environment that is not there.
    #[error("\"{name}\" refers to environment #{environment}, which the pipeline does not have")]
    MissingEnvironment {
        /// Name of transform or collection.
        name: String,
        /// Index.
        environment: u32,
    },
    /// No environment says where user code runs.
    #[error("transform \"{transform}\" is user code but no environment of the pipeline can run it")]
    NoEnvironment {
        /// Full name.
        transform: String,
    },
    /// An environment that can process nothing.
    #[error(
        "environment \"{environment}\" has no slot for bundles: give it at least one worker with one slot"
    )]
    NoSlots {
        /// Name.
        environment: String,
    },
    /// A collection with several producers.
    #[error("collection \"{collection}\" is produced by both \"{first}\" and \"{second}\"")]
    TwoProducers {
        /// Name.
        collection: String,
        /// Full name of a producer.
        first: String,
        /// Full name of another.
        second: String,
    },
    /// A collection that is read but not produced.
    #[error("transform \"{transform}\" reads collection \"{collection}\", which no transform produces")]
    NoProducer {
        /// Full name of the reader.
        transform: String,
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
    #[error("transform \"{transform}\" has {got} {what} where it must have {expected}")]
    Arity {
        /// Full name.
        transform: String,
        /// Inputs or outputs.
        what: &'static str,
        /// How many it has.
        got: usize,
        /// How many it must have.
        expected: &'static str,
    },
    /// A collection of pairs was expected.
    #[error(
        "transform \"{transform}\" needs keyed input, but collection \"{collection}\" has coder {coder}, not beam:coder:kv:v1"
    )]
    NotKeyed {
        /// Full name.
        transform: String,
        /// Name.
        collection: String,
        /// The coder it has.
        coder: String,
    },
    /// The ends of elements cannot be found.
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
    #[error("transform \"{transform}\" cannot be {first} and {second}")]
    Conflict {
        /// Full name.
        transform: String,
        /// One property.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Custom merging windows that no SDK can merge.
    #[error("collection \"{collection}\" has custom merging windows but no environment that merges them")]
    NoMerger {
        /// Name.
        collection: String,
    },
    /// A setting refers to what is not there.
    #[error("setting {setting} refers to transform #{transform}, which is not {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// Index.
        transform: u32,
        /// What it should be.
        expected: &'static str,
    },
}

/// Who produces each collection, and the transforms in topological order (side inputs counted as edges).
pub(crate) struct Checked {
    pub producers: Vec<Option<TransformId>>,
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
    let known = |id: CollectionId| (id.0 as usize) < count;
    let mut producers: Vec<Option<TransformId>> = vec![None; count];
    let environments = graph.environments.len();
    for environment in &graph.environments {
        if environment.workers == 0 || environment.slots_per_worker == 0 {
            problems.push(GraphProblem::NoSlots {
                environment: environment.name.clone(),
            });
        }
    }
    for collection in &graph.collections {
        let environment = collection.windowing.environment;
        if let Some(id) = environment.filter(|id| id.0 as usize >= environments) {
            let name = collection.name.clone();
            problems.push(GraphProblem::MissingEnvironment {
                name,
                environment: id.0,
            });
        }
    }
    for (index, transform) in graph.transforms.iter().enumerate() {
        for &id in &transform.outputs {
            if !known(id) {
                let transform = transform.name.clone();
                problems.push(GraphProblem::MissingCollection {
                    transform,
                    collection: id.0,
                });
                continue;
            }
            match producers[id.0 as usize] {
                Some(first) => problems.push(GraphProblem::TwoProducers {
                    collection: collection_name(graph, id),
                    first: graph.transforms[first.0 as usize].name.clone(),
                    second: transform.name.clone(),
                }),
                None => producers[id.0 as usize] = Some(TransformId(index as u32)),
            }
        }
    }
    for transform in &graph.transforms {
        for id in transform
            .inputs
            .iter()
            .copied()
            .chain(side_collections(transform))
        {
            let name = transform.name.clone();
            if !known(id) {
                problems.push(GraphProblem::MissingCollection {
                    transform: name,
                    collection: id.0,
                });
            } else if producers[id.0 as usize].is_none() {
                let collection = collection_name(graph, id);
                problems.push(GraphProblem::NoProducer {
                    transform: name,
                    collection,
                });
            }
        }
        check_transform(graph, transform, &known, &mut problems);
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
    problems: &mut Vec<GraphProblem>,
) {
    let name = || transform.name.clone();
    let mut arity = |what, got, right: bool, expected| {
        if !right {
            problems.push(GraphProblem::Arity {
                transform: name(),
                what,
                got,
                expected,
            });
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
    let keyed = |id: CollectionId, problems: &mut Vec<GraphProblem>| {
        if known(id) && graph.collections[id.0 as usize].coder.as_kv().is_none() {
            problems.push(GraphProblem::NotKeyed {
                transform: transform.name.clone(),
                collection: collection_name(graph, id),
                coder: graph.collections[id.0 as usize].coder.to_string(),
            });
        }
    };
    match &transform.kind {
        TransformKind::GroupByKey => {
            transform.inputs.iter().for_each(|id| keyed(*id, problems));
            for id in transform.inputs.iter().filter(|id| known(**id)) {
                let collection = &graph.collections[id.0 as usize];
                if matches!(
                    collection.windowing.window_fn,
                    WindowFn::Custom(SdkWindows { merging: true })
                ) && collection.windowing.environment.is_none()
                {
                    problems.push(GraphProblem::NoMerger {
                        collection: collection.name.clone(),
                    });
                }
            }
        }
        TransformKind::User(user) => {
            if user.stateful || !user.timers.is_empty() || user.requires_time_sorted_input {
                // The key of a splittable transform's element is inside of the element-and-restriction pair.
                transform.inputs.iter().for_each(|id| keyed(*id, problems));
            }
            for side in user
                .side_inputs
                .iter()
                .filter(|side| side.access == SideInputAccess::Multimap)
            {
                keyed(side.collection, problems);
            }
            if user.splittable && user.requires_time_sorted_input {
                let (first, second) = ("splittable", "time-sorted");
                problems.push(GraphProblem::Conflict {
                    transform: name(),
                    first,
                    second,
                });
            }
            match user.environment {
                Some(id) if id.0 as usize >= graph.environments.len() => {
                    problems.push(GraphProblem::MissingEnvironment {
                        name: name(),
                        environment: id.0,
                    });
                }
                None if graph.environments.is_empty() => {
                    problems.push(GraphProblem::NoEnvironment { transform: name() });
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// Kahn's algorithm, in the order of the transforms' indices so that plans are stable.
fn topological(
    graph: &Graph,
    producers: &[Option<TransformId>],
    problems: &mut Vec<GraphProblem>,
) -> Vec<TransformId> {
    let count = graph.transforms.len();
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut missing = vec![0usize; count];
    for (index, transform) in graph.transforms.iter().enumerate() {
        for id in transform
            .inputs
            .iter()
            .copied()
            .chain(side_collections(transform))
        {
            if let Some(Some(producer)) = producers.get(id.0 as usize) {
                consumers[producer.0 as usize].push(index);
                missing[index] += 1;
            }
        }
    }
    let mut ready: alloc::collections::BTreeSet<usize> =
        (0..count).filter(|&index| missing[index] == 0).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(index) = ready.pop_first() {
        order.push(TransformId(index as u32));
        for &consumer in &consumers[index] {
            missing[consumer] -= 1;
            if missing[consumer] == 0 {
                ready.insert(consumer);
            }
        }
    }
    if order.len() < count {
        // What only hangs behind the cycle is not part of it: take away what has no consumer left, again and again.
        let mut inside: Vec<bool> = missing.iter().map(|&missing| missing > 0).collect();
        loop {
            let leaf =
                (0..count).find(|&i| inside[i] && !consumers[i].iter().any(|&consumer| inside[consumer]));
            match leaf {
                Some(index) => inside[index] = false,
                None => break,
            }
        }
        let in_cycle = (0..count).filter(|&index| inside[index]);
        let transforms = in_cycle
            .map(|index| graph.transforms[index].name.clone())
            .collect();
        problems.push(GraphProblem::Cycle { transforms });
    }
    order
}
