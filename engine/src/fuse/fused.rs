//! A graph that was checked and fused: what an engine is made from.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use typed_index_collections::TiSlice;

use super::plan::{Plan, Stage};
use super::validate::{GraphFault, GraphProblem, validate};
use crate::config::EngineConfig;
use crate::event::StageId;
use crate::graph::{Graph, TransformId, TransformKind};

/// A graph with the stages that were made of it, and the settings that these depend on. [`crate::Engine::new`] runs it.
#[derive(Clone, Debug)]
pub struct FusedGraph {
    pub(crate) graph: Graph,
    pub(crate) config: EngineConfig,
    pub(crate) plan: Plan,
}

impl FusedGraph {
    /// Checks a graph and fuses it.
    ///
    /// # Errors
    /// Everything that is wrong with the graph, and with what the settings say of it.
    pub fn new(graph: Graph, config: EngineConfig) -> Result<FusedGraph, Vec<GraphProblem>> {
        let mut problems = check_truncates(&graph, &config);
        let checked = match validate(&graph) {
            Ok(checked) if problems.is_empty() => checked,
            Ok(_) => return Err(problems),
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        let alone: BTreeSet<TransformId> = config.truncates.iter().map(|(_, truncate)| *truncate).collect();
        let plan = super::fuse(&graph, checked, &alone)?;
        let mut fused = FusedGraph { graph, config, plan };
        fused.add_truncated_outputs(&alone);
        if fused.graph.is_scripted() {
            fused.follow_script();
        }
        Ok(fused)
    }

    /// The graph that was fused.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The stages.
    pub fn stages(&self) -> &TiSlice<StageId, Stage> {
        &self.plan.stages
    }

    /// What truncates restrictions emits them to the engine, even if no transform reads them.
    fn add_truncated_outputs(&mut self, truncates: &BTreeSet<TransformId>) {
        for &id in truncates {
            let Some(stage) = self.plan.stage_of(id) else {
                continue;
            };
            let outputs = &mut self.plan.stages[stage].outputs;
            for output in &self.graph.transforms[id].outputs {
                if !outputs.contains(output) {
                    outputs.push(*output);
                }
            }
        }
    }

    /// What comes together in an event of a script is one bundle, and the next one waits for it: what a script shows must not
    /// depend on the schedule.
    fn follow_script(&mut self) {
        self.config.max_bundle_elements = u64::MAX;
        self.config.max_bundle_bytes = u64::MAX;
        self.config.min_bundle_elements = u64::from(u32::MAX);
        for environment in &mut self.graph.environments {
            (environment.workers, environment.slots_per_worker) = (1, 1);
        }
    }
}

/// The plan, a node of the graph or a transform of a stage in each line.
impl fmt::Display for FusedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

fn check_truncates(graph: &Graph, config: &EngineConfig) -> Vec<GraphProblem> {
    let transform = |id: TransformId| graph.transforms.get(id);
    let user = |id: TransformId| match transform(id).map(|t| &t.kind) {
        Some(TransformKind::User(user)) => Some(user),
        _ => None,
    };
    let problem = |id: TransformId, expected: &'static str| GraphProblem {
        transform: transform(id).map_or_else(|| format!("#{}", id.0), |t| String::from(t.name.as_str())),
        fault: GraphFault::Setting {
            setting: "truncates",
            expected,
        },
    };
    let mut problems = Vec::new();
    for &(process, truncate) in &config.truncates {
        if !user(process).is_some_and(|user| user.splittable) {
            problems.push(problem(process, "a splittable transform"));
        }
        if user(truncate).is_none() {
            problems.push(problem(truncate, "user code"));
        }
    }
    problems
}
