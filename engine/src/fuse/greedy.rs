//! Greedy fusion: a transform joins its producer's stage, or else a stage that reads the same collection.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use typed_index_collections::{TiSlice, TiVec};

use super::plan::{Native, Plan, PlanNode, Stage};
use super::validate::{Checked, GraphFault, GraphProblem, Producers, producer_name, side_collections};
use crate::event::StageId;
use crate::graph::{CollectionId, EnvironmentId, Graph, TransformId, TransformKind, UserTransform, WindowFn};

/// Must start a stage, alone.
fn is_root(user: &UserTransform) -> bool {
    user.stateful
        || !user.timers.is_empty()
        || user.splittable
        || user.requires_time_sorted_input
        // Its input is what was committed only if nothing is computed anew before it in a retry.
        || user.requires_stable_input
}

struct Fusion<'a> {
    graph: &'a Graph,
    producers: TiVec<CollectionId, Option<TransformId>>,
    /// Stage of each user transform.
    stage_of: TiVec<TransformId, Option<StageId>>,
    stages: TiVec<StageId, Building>,
}

struct Building {
    environment: Option<EnvironmentId>,
    input: CollectionId,
    transforms: Vec<TransformId>,
    rooted: bool,
}

/// Fuses a graph that was checked.
pub(crate) fn fuse(
    graph: &Graph,
    checked: Checked,
    alone: &BTreeSet<TransformId>,
) -> Result<Plan, Vec<GraphProblem>> {
    let mut fusion = Fusion {
        graph,
        producers: checked.producers,
        stage_of: vec![None; graph.transforms.len()].into(),
        stages: TiVec::new(),
    };
    for &id in &checked.order {
        fusion.place(id, alone.contains(&id));
    }
    fusion.finish(&checked.order)
}

impl Fusion<'_> {
    fn place(&mut self, id: TransformId, alone: bool) {
        let transform = &self.graph.transforms[id];
        let TransformKind::User(user) = &transform.kind else {
            return;
        };
        let Some(&input) = transform.inputs.first() else {
            return;
        };
        let root = alone || is_root(user);
        let mut home = None;
        if !root {
            let producer = self.producer_stage(input);
            let siblings = self.stages.keys().filter(|&stage| {
                let stage = &self.stages[stage];
                stage.input == input && !stage.rooted
            });
            let candidates: Vec<StageId> = producer.into_iter().chain(siblings).collect();
            home = candidates.into_iter().find(|&stage| self.fits(stage, id, user));
        }
        let stage = home.unwrap_or_else(|| {
            let building = Building {
                environment: None,
                input,
                transforms: Vec::new(),
                rooted: root,
            };
            self.stages.push_and_get_key(building)
        });
        let building = &mut self.stages[stage];
        building.transforms.push(id);
        building.environment = building.environment.or(user.environment);
        self.stage_of[id] = Some(stage);
    }

    fn producer_stage(&self, collection: CollectionId) -> Option<StageId> {
        let producer = self.producers[collection]?;
        self.stage_of[producer]
    }

    /// Same environment, no side input that depends on the stage, and none that waits for windows the stage's input does
    /// not have.
    fn fits(&self, stage: StageId, id: TransformId, user: &UserTransform) -> bool {
        let same = match (self.stages[stage].environment, user.environment) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
        let transform = &self.graph.transforms[id];
        same && self.sees_windows(stage, id, user)
            && !side_collections(transform).any(|side| self.depends(side, stage))
    }

    /// Whether the windows of the stage's input tell which windows of side inputs an element waits for.
    fn sees_windows(&self, stage: StageId, id: TransformId, user: &UserTransform) -> bool {
        let collection = |id: CollectionId| &self.graph.collections[id];
        let own = self.graph.transforms[id].inputs.first();
        let own = own.map(|id| collection(*id));
        let theirs = collection(self.stages[stage].input);
        let alike = own.is_none_or(|own| {
            own.windowing.window_fn == theirs.windowing.window_fn && own.window_coder == theirs.window_coder
        });
        alike
            || user
                .side_inputs
                .iter()
                .all(|side| collection(side.collection).windowing.window_fn == WindowFn::Global)
    }

    /// Whether a collection is made by the stage or by anything that needs the stage.
    fn depends(&self, collection: CollectionId, stage: StageId) -> bool {
        let mut seen: TiVec<TransformId, bool> = vec![false; self.graph.transforms.len()].into();
        let mut open = vec![collection];
        while let Some(collection) = open.pop() {
            let Some(producer) = self.producers[collection] else {
                continue;
            };
            if core::mem::replace(&mut seen[producer], true) {
                continue;
            }
            match self.stage_of[producer] {
                Some(found) if found == stage => return true,
                // A stage needs all that any of its transforms needs.
                Some(found) => {
                    open.push(self.stages[found].input);
                    for &id in &self.stages[found].transforms {
                        seen[id] = true;
                        open.extend(side_collections(&self.graph.transforms[id]));
                    }
                }
                None => open.extend(&self.graph.transforms[producer].inputs),
            }
        }
        false
    }

    fn finish(self, order: &[TransformId]) -> Result<Plan, Vec<GraphProblem>> {
        let Fusion {
            graph,
            producers,
            stage_of,
            stages,
        } = self;
        let mut read_outside: BTreeSet<CollectionId> = BTreeSet::new();
        for (index, transform) in graph.transforms.iter_enumerated() {
            read_outside.extend(side_collections(transform));
            for &input in &transform.inputs {
                let producer = producers[input].and_then(|id| stage_of[id]);
                if stage_of[index].is_none() || stage_of[index] != producer {
                    read_outside.insert(input);
                }
            }
        }
        let mut problems = Vec::new();
        let mut plan = Plan::default();
        for (id, building) in stages.into_iter_enumerated() {
            let mut stage = Stage {
                id,
                name: String::new(),
                // User code that any SDK knows runs in the first environment when it has no neighbour.
                environment: building.environment.or(Some(EnvironmentId(0))),
                input: building.input,
                transforms: building.transforms,
                outputs: Vec::new(),
                side_inputs: Vec::new(),
                timers: Vec::new(),
                stateful: None,
                splittable: None,
            };
            let mut names = Vec::new();
            for &id in &stage.transforms {
                let transform = &graph.transforms[id];
                names.push(transform.name.as_str());
                stage
                    .outputs
                    .extend(transform.outputs.iter().filter(|id| read_outside.contains(id)));
                let TransformKind::User(user) = &transform.kind else {
                    continue;
                };
                stage
                    .side_inputs
                    .extend((0..user.side_inputs.len()).map(|side| (id, side)));
                stage
                    .timers
                    .extend((0..user.timers.len()).map(|timer| (id, timer)));
                if user.stateful || !user.timers.is_empty() || user.requires_time_sorted_input {
                    stage.stateful = Some(id);
                }
                if user.splittable {
                    stage.splittable = Some(id);
                }
            }
            stage.name = names.join(" + ");
            plan.stages.push(stage);
        }
        let nodes = plan_order(graph, &producers, &stage_of, &plan.stages, order);
        plan.nodes = nodes;
        for id in leaving(graph, &plan) {
            let collection = &graph.collections[id];
            if !collection.coder.knows_boundary() || !collection.window_coder.to_coder().knows_boundary() {
                problems.push(GraphProblem {
                    transform: producer_name(graph, &producers, id),
                    fault: GraphFault::UnknownCoder {
                        collection: collection.name.clone(),
                        coder: collection.coder.to_string(),
                    },
                });
            }
        }
        plan.describe(graph);
        if problems.is_empty() {
            Ok(plan)
        } else {
            Err(problems)
        }
    }
}

/// Every collection that passes through the engine.
fn leaving(graph: &Graph, plan: &Plan) -> BTreeSet<CollectionId> {
    let mut found = BTreeSet::new();
    for node in &plan.nodes {
        match *node {
            PlanNode::Stage(id) => {
                let stage = &plan.stages[id];
                found.insert(stage.input);
                found.extend(&stage.outputs);
            }
            PlanNode::Native(id, _) => found.extend(&graph.transforms[id].outputs),
        }
    }
    found
}

/// Nodes in topological order of the fused graph. Stages are placed when all that they need is placed.
fn plan_order(
    graph: &Graph,
    producers: &Producers,
    stage_of: &TiSlice<TransformId, Option<StageId>>,
    stages: &TiSlice<StageId, Stage>,
    order: &[TransformId],
) -> Vec<PlanNode> {
    let mut nodes = Vec::new();
    let mut done: TiVec<TransformId, bool> = vec![false; graph.transforms.len()].into();
    let mut left: Vec<TransformId> = order.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|&id| {
            if done[id] {
                return false;
            }
            let is_done =
                |collection: CollectionId| producers[collection].is_none_or(|producer| done[producer]);
            match stage_of[id] {
                Some(stage) => {
                    let stage = &stages[stage];
                    let mut needs = vec![stage.input];
                    for &id in &stage.transforms {
                        needs.extend(side_collections(&graph.transforms[id]));
                    }
                    if !needs.into_iter().all(is_done) {
                        return true;
                    }
                    stage.transforms.iter().for_each(|&id| done[id] = true);
                    nodes.push(PlanNode::Stage(stage.id));
                }
                None => {
                    let transform = &graph.transforms[id];
                    if !transform.inputs.iter().all(|id| is_done(*id)) {
                        return true;
                    }
                    done[id] = true;
                    let native = match transform.kind {
                        TransformKind::Impulse => Native::Impulse,
                        TransformKind::Flatten => Native::Flatten,
                        TransformKind::GroupByKey => Native::GroupByKey,
                        TransformKind::TestStream(_) => Native::TestStream,
                        TransformKind::Redistribute | TransformKind::User(_) => Native::Redistribute,
                    };
                    nodes.push(PlanNode::Native(id, native));
                }
            }
            false
        });
        debug_assert!(left.len() < before, "fusion made a cycle");
        if left.len() == before {
            break;
        }
    }
    nodes
}
