//! What fusion makes: stages and native nodes, in topological order.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use typed_index_collections::TiVec;

use crate::event::StageId;
use crate::graph::{CollectionId, EnvironmentId, Graph, TransformId, TransformKind};

/// Transforms that run together on a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its index in [`crate::Engine::stages`].
    pub id: StageId,
    /// For messages: the names of its transforms.
    pub name: String,
    /// Where it runs. Always there in stages of an [`crate::Engine`].
    pub environment: Option<EnvironmentId>,
    /// The one main input.
    pub input: CollectionId,
    /// In topological order.
    pub transforms: Vec<TransformId>,
    /// Collections made in the stage that others read.
    pub outputs: Vec<CollectionId>,
    /// Transform and index into its side inputs.
    pub side_inputs: Vec<(TransformId, usize)>,
    /// Transform and index into its timer families.
    pub timers: Vec<(TransformId, usize)>,
    /// The transform with state or timers, which is then the stage's root.
    pub stateful: Option<TransformId>,
    /// The transform that may leave residuals, which is then the stage's root.
    pub splittable: Option<TransformId>,
}

/// A node that the engine executes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// `beam:transform:impulse:v1`.
    Impulse,
    /// `beam:transform:flatten:v1`.
    Flatten,
    /// `beam:transform:group_by_key:v1`.
    GroupByKey,
    /// Reshuffle and redistribute.
    Redistribute,
    /// `beam:transform:test_stream:v1`.
    TestStream,
}

/// A node of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanNode {
    /// Runs on workers.
    Stage(StageId),
    /// Runs in the engine.
    Native(TransformId, Native),
}

/// The fused graph. `Display` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// All stages.
    pub stages: TiVec<StageId, Stage>,
    /// Stages and native nodes in topological order, side inputs counted as edges.
    pub nodes: Vec<PlanNode>,
    /// What `Display` shows of each node.
    pub(crate) lines: Vec<String>,
}

impl Stage {
    fn describe(&self, graph: &Graph) -> String {
        let names = |collections: &[CollectionId]| {
            collections
                .iter()
                .map(|id| collection_name(graph, *id))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let environment = self
            .environment
            .and_then(|id| graph.environments.get(id))
            .map_or("any", |environment| environment.name.as_str());
        let mut text = format!("stage {} on {environment}: {}", self.id.0, names(&[self.input]));
        text += &format!(
            " -> {}",
            if self.outputs.is_empty() {
                "nothing".into()
            } else {
                names(&self.outputs)
            }
        );
        for id in &self.transforms {
            let Some(transform) = graph.transforms.get(*id) else {
                continue;
            };
            text += &format!("\n    {}", transform.name);
            let TransformKind::User(user) = &transform.kind else {
                continue;
            };
            if user.stateful || !user.timers.is_empty() {
                text += " [stateful]";
            }
            if user.splittable {
                text += " [splittable]";
            }
            for side in &user.side_inputs {
                text += &format!(
                    " [side {} = {}]",
                    side.tag,
                    collection_name(graph, side.collection)
                );
            }
            for timer in &user.timers {
                text += &format!(" [timer {} {:?}]", timer.name, timer.domain);
            }
        }
        text
    }
}

pub(crate) fn collection_name(graph: &Graph, id: CollectionId) -> String {
    match graph.collections.get(id) {
        Some(collection) => collection.name.clone(),
        None => format!("collection #{}", id.0),
    }
}

impl Plan {
    /// Index of the stage of a transform.
    pub(crate) fn stage_of(&self, id: TransformId) -> Option<StageId> {
        self.stages.position(|stage| stage.transforms.contains(&id))
    }

    pub(crate) fn describe(&mut self, graph: &Graph) {
        let line = |node: &PlanNode| match node {
            PlanNode::Stage(id) => self.stages[*id].describe(graph),
            PlanNode::Native(id, native) => {
                let transform = &graph.transforms[*id];
                let names = |collections: &[CollectionId]| {
                    let names: Vec<_> = collections.iter().map(|id| collection_name(graph, *id)).collect();
                    if names.is_empty() {
                        "nothing".to_string()
                    } else {
                        names.join(", ")
                    }
                };
                let name = &transform.name;
                format!(
                    "{native:?} {name}: {} -> {}",
                    names(&transform.inputs),
                    names(&transform.outputs)
                )
            }
        };
        let lines = self.nodes.iter().map(line).collect();
        self.lines = lines;
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {} ({})", self.id.0, self.name)
    }
}
