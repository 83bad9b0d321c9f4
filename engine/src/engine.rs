//! The engine: events in, actions out.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use bytes::Bytes;
use purlin_model::windowed::encode_header;
use purlin_model::{PaneInfo, Timestamp, Window};
use typed_index_collections::{TiSlice, TiVec};

use crate::bundle::BundleInFlight;
use crate::chunk::{Chunk, CollectionFormat};
use crate::config::EngineConfig;
use crate::event::{Action, BundleId, Event, Outcome, RequestId, SideInputKey, StageId, StateKey};
use crate::fuse::{FusedGraph, Native, Plan, PlanNode, Stage};
use crate::graph::{CollectionId, EnvironmentId, Graph, TransformId, TransformKind};
use crate::group::{GroupMergeId, Grouper};
use crate::index::index;
use crate::side_input::grouping_of;
use crate::stage::{Room, StageState};
use crate::state::{CommittedState, StateError, StateTooLarge};
use crate::test_stream::TestStreams;
use crate::watermark::Watermark;

/// Everything that is decided about a job while it runs. See the crate's documentation.
#[derive(Debug)]
pub struct Engine {
    pub(crate) graph: Graph,
    pub(crate) config: EngineConfig,
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) collections: TiVec<CollectionId, CollectionState>,
    pub(crate) stages: TiVec<StageId, StageState>,
    pub(crate) groups: TiVec<GroupIndex, GroupState>,
    pub(crate) bundles: BTreeMap<BundleId, BundleInFlight>,
    pub(crate) environments: TiVec<EnvironmentId, Slots>,
    pub(crate) requests: BTreeMap<RequestId, Request>,
    pub(crate) test_streams: TestStreams,
    pub(crate) phase: Phase,
    pub(crate) now: Timestamp,
    /// The clock of those who call: `now` itself, unless a TestStream moves that.
    pub(crate) real_now: Timestamp,
    pub(crate) started_at: Timestamp,
    pub(crate) wake: Option<Timestamp>,
    pub(crate) actions: Vec<Action>,
    pub(crate) next_id: u64,
    /// Bundles started since stages upstream had a turn.
    pub(crate) downstream_turns: u32,
}

index! {
    /// Index of a grouping in [`Engine::groups`].
    pub(crate) GroupIndex
}

#[derive(Debug)]
pub(crate) enum Node {
    Impulse {
        output: CollectionId,
    },
    Flatten {
        inputs: Vec<CollectionId>,
        output: CollectionId,
    },
    Group(GroupIndex),
    /// Index in [`TestStreams::streams`].
    TestStream(usize),
    Stage(StageId),
}

#[derive(Debug)]
pub(crate) struct CollectionState {
    pub watermark: Watermark,
    pub format: CollectionFormat,
    pub readers: Vec<Reader>,
}

/// Who takes the elements of a collection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    Stage(StageId),
    Group(GroupIndex),
    /// Flatten and redistribute hand on what they get.
    Forward(CollectionId),
    /// Stage and index of its side input.
    Side(StageId, usize),
}

#[derive(Debug)]
pub(crate) struct GroupState {
    pub grouper: Grouper,
    pub transform: TransformId,
    pub input: CollectionId,
    pub output: CollectionId,
    /// The input watermark at the last look.
    pub watermark: Watermark,
    /// The input is bounded and the trigger may fire early: all of a key's elements come before it is asked.
    pub waits_for_all: bool,
    /// The trigger counts elements and a TestStream governs: it is asked after each element that is not late, so that what a
    /// script shows does not depend on how its elements were put into bundles.
    pub one_by_one: bool,
    pub changed: bool,
    /// Whether a window of a key may fire more than once.
    pub refires: bool,
    /// Stage and index of side inputs that its firings replace the contents of.
    pub views: Vec<(StageId, usize)>,
}

#[derive(Debug)]
pub(crate) struct Slots {
    /// Bundles in flight of each worker.
    pub used: Vec<u32>,
    pub each: u32,
}

impl Slots {
    pub fn total(&self) -> u64 {
        self.used.len() as u64 * u64::from(self.each)
    }

    pub fn free(&self) -> u64 {
        self.total() - self.used.iter().map(|used| u64::from(*used)).sum::<u64>()
    }

    pub fn room(&self) -> Room {
        Room {
            slots: self.total().max(1),
            free: self.free().max(1),
            idle_workers: self.used.iter().map(|used| u64::from(*used == 0)).sum(),
        }
    }
}

/// A question to an SDK.
#[derive(Debug)]
pub(crate) enum Request {
    Merge {
        group: GroupIndex,
        id: GroupMergeId,
    },
    Map {
        stage: StageId,
        side: usize,
        windows: Vec<Window>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    Running,
    Draining,
    Ended(Outcome),
}

/// An id that was not given before.
pub(crate) fn fresh(next_id: &mut u64) -> u64 {
    *next_id += 1;
    *next_id
}

impl Engine {
    /// Makes an engine for a fused graph, before its start.
    pub fn new(fused: FusedGraph) -> Engine {
        let links: Vec<_> = fused
            .config
            .truncates
            .iter()
            .map(|(process, truncate)| (fused.plan.stage_of(*process), fused.plan.stage_of(*truncate)))
            .collect();
        let FusedGraph { graph, config, plan } = fused;
        let mut engine = Engine {
            stages: plan
                .stages
                .iter()
                .map(|stage| StageState::new(&graph, stage, &config))
                .collect(),
            collections: graph
                .collections
                .iter()
                .map(|collection| CollectionState {
                    watermark: Watermark::START,
                    format: CollectionFormat::from(collection),
                    readers: Vec::new(),
                })
                .collect(),
            environments: graph
                .environments
                .iter()
                .map(|environment| Slots {
                    used: vec![0; environment.workers as usize],
                    each: environment.slots_per_worker,
                })
                .collect(),
            graph,
            config,
            plan,
            nodes: Vec::new(),
            groups: TiVec::new(),
            bundles: BTreeMap::new(),
            requests: BTreeMap::new(),
            test_streams: TestStreams::default(),
            phase: Phase::New,
            now: Timestamp::MIN,
            real_now: Timestamp::MIN,
            started_at: Timestamp::MIN,
            wake: None,
            actions: Vec::new(),
            next_id: 0,
            downstream_turns: 0,
        };
        engine.connect(&links);
        engine
    }

    /// Makes the nodes of the plan and tells each collection who reads it. `links`: stages of splittable transforms, and those that
    /// truncate their restrictions.
    fn connect(&mut self, links: &[(Option<StageId>, Option<StageId>)]) {
        for index in 0..self.plan.nodes.len() {
            let node = match self.plan.nodes[index] {
                PlanNode::Stage(stage) => {
                    self.collections[self.stages[stage].input]
                        .readers
                        .push(Reader::Stage(stage));
                    for (side, view) in self.stages[stage].sides.iter().enumerate() {
                        let readers = &mut self.collections[view.collection].readers;
                        readers.push(Reader::Side(stage, side));
                    }
                    Node::Stage(stage)
                }
                PlanNode::Native(id, native) => self.connect_native(id, native),
            };
            self.nodes.push(node);
        }
        self.connect_firings();
        for stage in self.stages.keys() {
            if self.stages[stage].splittable {
                self.stages[stage].downstream = self.downstream_of(stage);
            }
        }
        for link in links {
            let &(Some(process), Some(truncate)) = link else {
                continue;
            };
            self.stages[process].truncate = Some(truncate);
            self.stages[truncate].truncates = Some(process);
            // Before a drain the truncating stage gets nothing.
            let input = self.stages[truncate].input;
            self.collections[input]
                .readers
                .retain(|reader| !matches!(reader, Reader::Stage(s) if *s == truncate));
        }
    }

    /// Stages that process what a stage makes, or what is made of that. Readers of a side input are none.
    fn downstream_of(&self, stage: StageId) -> Vec<StageId> {
        let mut found: TiVec<StageId, bool> = vec![false; self.stages.len()].into();
        let mut seen: TiVec<CollectionId, bool> = vec![false; self.collections.len()].into();
        let outputs = |stage: StageId| self.plan.stages[stage].outputs.iter().copied();
        let mut next: Vec<CollectionId> = outputs(stage).collect();
        while let Some(collection) = next.pop() {
            if core::mem::replace(&mut seen[collection], true) {
                continue;
            }
            for reader in &self.collections[collection].readers {
                match *reader {
                    Reader::Stage(reader) => {
                        found[reader] = true;
                        next.extend(outputs(reader));
                    }
                    Reader::Group(group) => next.push(self.groups[group].output),
                    Reader::Forward(output) => next.push(output),
                    Reader::Side(..) => {}
                }
            }
        }
        found.keys().filter(|&stage| found[stage]).collect()
    }

    /// Tells side inputs apart whose windows may fire more than once.
    fn connect_firings(&mut self) {
        if !self.groups.iter().any(|group| group.refires) {
            return;
        }
        let mut producers: TiVec<CollectionId, Option<TransformId>> =
            vec![None; self.graph.collections.len()].into();
        for (id, transform) in self.graph.transforms.iter_enumerated() {
            for &output in &transform.outputs {
                producers[output] = Some(id);
            }
        }
        for (stage, state) in self.stages.iter_mut_enumerated() {
            for (side, view) in state.sides.iter_mut().enumerate() {
                let grouping = grouping_of(&self.graph, &producers, view.collection);
                let mut groups = self.groups.iter_mut();
                let group = groups.find(|group| group.refires && Some(group.transform) == grouping);
                if let Some(group) = group {
                    group.views.push((stage, side));
                    view.replaces();
                }
            }
        }
    }

    fn connect_native(&mut self, id: TransformId, native: Native) -> Node {
        let transform = &self.graph.transforms[id];
        let inputs = transform.inputs.clone();
        // Checked when the graph was: there is one.
        let output = transform.outputs.first().copied().unwrap_or(CollectionId(0));
        match (native, &transform.kind) {
            (Native::Impulse, _) => Node::Impulse { output },
            (Native::GroupByKey, _) => {
                let input = inputs.first().copied().unwrap_or(CollectionId(0));
                let collection = &self.graph.collections[input];
                // Checked when the graph was: the input is of pairs.
                let (key, value) = match collection.coder.as_kv() {
                    Some((key, value)) => (key.clone(), value.clone()),
                    None => (collection.coder.clone(), collection.coder.clone()),
                };
                let windowing = collection.windowing.clone();
                let grouper = Grouper::new(key, value, collection.window_coder.clone(), windowing);
                let watermark = Watermark::START;
                // A TestStream wants to see each pane, whatever its collections are said to be.
                let scripted = self.graph.is_scripted();
                let bounded = collection.bounded && !scripted;
                let early = collection.windowing.trigger.fires_early();
                let waits_for_all = bounded && early;
                let refires = (early && !bounded) || collection.windowing.allowed_lateness_ms > 0;
                let group = self.groups.push_and_get_key(GroupState {
                    grouper,
                    transform: id,
                    input,
                    output,
                    watermark,
                    waits_for_all,
                    one_by_one: scripted && collection.windowing.trigger.counts_elements(),
                    changed: true,
                    refires,
                    views: Vec::new(),
                });
                self.collections[input].readers.push(Reader::Group(group));
                Node::Group(group)
            }
            (Native::TestStream, TransformKind::TestStream(script)) => {
                self.test_streams.add(id, &transform.outputs, script);
                Node::TestStream(self.test_streams.streams.len() - 1)
            }
            _ => {
                for &input in &inputs {
                    self.collections[input].readers.push(Reader::Forward(output));
                }
                Node::Flatten { inputs, output }
            }
        }
    }

    /// The graph as it was given.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The stages.
    pub fn stages(&self) -> &TiSlice<StageId, Stage> {
        &self.plan.stages
    }

    /// The fused graph, which prints itself.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How elements of a collection are encoded, for [`Chunk::scan`].
    pub fn format(&self, collection: CollectionId) -> Option<&CollectionFormat> {
        self.collections
            .get(collection)
            .map(|collection| &collection.format)
    }

    /// How the job ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Number of elements that were dropped because they came after their window had expired.
    pub fn dropped_elements(&self) -> u64 {
        let groups = self.groups.iter().map(|state| state.grouper.dropped());
        let stages = self.stages.iter().map(|stage| stage.dropped());
        groups.chain(stages).sum()
    }

    /// Takes an event at a processing time and tells what is to be done. After [`Action::Finished`] nothing is.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        if matches!(self.phase, Phase::Ended(_)) {
            return Vec::new();
        }
        self.tick(now);
        match event {
            Event::Start => self.start(now),
            Event::Tick => self.wake = None,
            Event::BundleFinished { bundle, result } => self.bundle_finished(bundle, result),
            Event::BundleFailed {
                bundle,
                error,
                worker_lost,
            } => self.bundle_failed(bundle, &error, worker_lost),
            Event::BundleSplit { bundle, split } => self.bundle_split(bundle, split),
            Event::SplitUnusable { bundle, error } => self.split_unusable(bundle, error),
            Event::BundleProgress {
                bundle,
                elements_done,
            } => {
                if let Some(running) = self.bundles.get_mut(&bundle) {
                    running.elements_done = Some(elements_done);
                    if elements_done > 0 {
                        // A worker may say what it likes.
                        let begun = elements_done.min(running.work.elements_count.max(1));
                        running.pace.get_or_insert((begun, self.now));
                    }
                }
            }
            Event::WindowsMerged { request, merged } => self.windows_merged(request, merged),
            Event::WindowsMapped { request, windows } => self.windows_mapped(request, windows),
            Event::RequestFailed { request, error } => {
                if self.requests.remove(&request).is_some() {
                    self.fail(format!(
                        "an SDK could not answer a question about custom windows: {error}"
                    ));
                }
            }
            Event::TestStreamEvents {
                transform,
                events,
                done,
            } => {
                self.test_streams.push(transform, events, done);
            }
            Event::Drain => self.drain(),
            Event::Cancel => self.end(Outcome::Cancelled),
        }
        self.run();
        core::mem::take(&mut self.actions)
    }

    fn tick(&mut self, now: Timestamp) {
        self.real_now = self.real_now.max(now);
        if self.test_streams.any() {
            self.now = self
                .now
                .max(self.started_at.plus_millis(self.test_streams.elapsed()));
            let ahead = self.ahead();
            self.stages.iter_mut().for_each(|stage| stage.set_ahead(ahead));
        } else {
            self.now = self.now.max(now);
        }
    }

    /// Milliseconds that a TestStream's clock is ahead of the SDKs' own.
    pub(crate) fn ahead(&self) -> i64 {
        if self.test_streams.any() {
            self.now.millis_since(self.real_now)
        } else {
            0
        }
    }

    fn start(&mut self, now: Timestamp) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Running;
        self.started_at = now;
        self.now = now;
        for index in 0..self.nodes.len() {
            let Node::Impulse { output } = self.nodes[index] else {
                continue;
            };
            let mut data = Vec::new();
            encode_header(Timestamp::MIN, &[Window::Global], PaneInfo::NO_FIRING, &mut data);
            // The empty byte string, nested.
            data.push(0);
            self.deliver(
                output,
                Chunk {
                    data: data.into(),
                    count: 1,
                    min_timestamp: Timestamp::MIN,
                },
            );
            self.collections[output].watermark.advance(Timestamp::MAX);
        }
    }

    /// Goes on until there is nothing to do but to wait.
    fn run(&mut self) {
        if self.phase == Phase::New {
            return;
        }
        let mut futile = 0;
        while !matches!(self.phase, Phase::Ended(_)) {
            self.propagate();
            self.schedule();
            self.split_stragglers();
            if !self.bundles.is_empty() || !self.requests.is_empty() {
                break;
            }
            if matches!(self.phase, Phase::Ended(_)) || self.step_test_streams() {
                continue;
            }
            if self.is_done() {
                let drained = self.phase == Phase::Draining;
                self.end(if drained { Outcome::Drained } else { Outcome::Done });
                break;
            }
            if self.test_streams.any() && !self.test_streams.all_ended() {
                // An endpoint has to say what comes next.
                break;
            }
            match self.next_processing_time() {
                Some(at) if at <= self.now => {
                    // What was due has been looked at; if it stays due nothing comes of it, however often.
                    futile += 1;
                    if futile > 100 {
                        self.fail(self.diagnosis());
                    }
                }
                // With a TestStream time does not pass by itself.
                Some(at) if self.test_streams.any() => self.now = at,
                Some(_) => break,
                None => self.fail(self.diagnosis()),
            }
        }
        self.set_wake();
    }

    fn set_wake(&mut self) {
        if matches!(self.phase, Phase::Ended(_)) || self.test_streams.any() {
            return;
        }
        let next = self.next_processing_time().filter(|at| *at > self.now);
        if let Some(at) = next
            && self.wake != Some(at)
        {
            self.wake = Some(at);
            self.actions.push(Action::WakeAt(at));
        }
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.phase = Phase::Ended(outcome);
        self.actions
            .extend(self.bundles.keys().map(|bundle| Action::Abandon(*bundle)));
        self.bundles.clear();
        self.actions.push(Action::Finished(outcome));
    }

    pub(crate) fn fail(&mut self, error: String) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.actions.push(Action::Failed { error });
        self.end(Outcome::Failed);
    }

    pub(crate) fn fresh(&mut self) -> u64 {
        fresh(&mut self.next_id)
    }

    fn running(&self, bundle: BundleId) -> Result<&BundleInFlight, StateError> {
        self.bundles.get(&bundle).ok_or(StateError::UnknownBundle(bundle))
    }

    /// User state as a running bundle sees it: what is committed, and what the bundle changed.
    ///
    /// # Errors
    /// When the bundle is not running or the state is of another kind.
    pub fn state_get(&self, bundle: BundleId, key: &StateKey) -> Result<Vec<Bytes>, StateError> {
        let running = self.running(bundle)?;
        self.stages[running.stage].state().get(&running.overlay, key)
    }

    /// A key's user state in each window that has some, as it is committed: what running bundles changed is not in it. Copies
    /// no data.
    ///
    /// # Errors
    /// When it has more bytes than `most`.
    pub fn committed_state(
        &self,
        transform: TransformId,
        state: &str,
        key: &Bytes,
        most: usize,
    ) -> Result<Vec<CommittedState>, StateTooLarge> {
        let stage = self.plan.stage_of(transform);
        stage.map_or(Ok(Vec::new()), |stage| {
            self.stages[stage].state().committed(transform, state, key, most)
        })
    }

    /// Adds to user state, tentatively until the bundle is committed.
    ///
    /// # Errors
    /// When the bundle is not running, or the state cannot take the data.
    pub fn state_append(&mut self, bundle: BundleId, key: StateKey, data: Bytes) -> Result<(), StateError> {
        let running = self
            .bundles
            .get_mut(&bundle)
            .ok_or(StateError::UnknownBundle(bundle))?;
        self.stages[running.stage]
            .state()
            .append(&mut running.overlay, &key, data)
    }

    /// Clears user state, tentatively until the bundle is committed.
    ///
    /// # Errors
    /// When the bundle is not running, or the state cannot be cleared in this way.
    pub fn state_clear(&mut self, bundle: BundleId, key: &StateKey) -> Result<(), StateError> {
        let running = self
            .bundles
            .get_mut(&bundle)
            .ok_or(StateError::UnknownBundle(bundle))?;
        self.stages[running.stage]
            .state()
            .clear(&mut running.overlay, key)
    }

    /// What a running bundle reads of a side input.
    ///
    /// # Errors
    /// When the bundle is not running, or its stage has no such side input.
    pub fn side_input(&self, bundle: BundleId, key: &SideInputKey) -> Result<Vec<Bytes>, StateError> {
        let running = self.running(bundle)?;
        let mut sides = self.stages[running.stage].sides.iter();
        let side = sides.find(|side| side.transform == key.transform && side.tag == key.side_input);
        let unknown = || StateError::UnknownSideInput {
            transform: key.transform.0,
            side_input: key.side_input.clone(),
        };
        side.ok_or_else(unknown)?.read(&key.window, &key.part)
    }
}
