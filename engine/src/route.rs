//! The way of elements and watermarks through the graph.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use purlin_model::{Timestamp, Window};

use crate::chunk::Chunk;
use crate::engine::{Engine, GroupIndex, GroupState, Node, Phase, Reader, Request};
use crate::event::{Action, RequestId, StageId};
use crate::graph::CollectionId;
use crate::group::GroupError;
use crate::test_stream::Step;

impl Engine {
    /// Hands elements to all that read a collection.
    pub(crate) fn deliver(&mut self, collection: CollectionId, chunk: Chunk) {
        if chunk.count == 0 {
            return;
        }
        for index in 0..self.collections[collection].readers.len() {
            match self.collections[collection].readers[index] {
                Reader::Stage(stage) => self.enqueue(stage, chunk.clone()),
                Reader::Forward(output) => self.deliver(output, chunk.clone()),
                Reader::Group(group) if self.groups[group].one_by_one => self.group_one_by_one(group, &chunk),
                Reader::Group(group) => self.group(group, &chunk),
                Reader::Side(stage, side) => {
                    let taken = self.stages[stage].sides[side].ingest(&chunk);
                    if let Err(error) = taken {
                        let name = &self.stages[stage].name;
                        self.fail(format!("a side input of stage \"{name}\": {error}"));
                    }
                }
            }
        }
    }

    /// Hands elements to a grouping.
    fn group(&mut self, group: GroupIndex, chunk: &Chunk) {
        let state = &mut self.groups[group];
        state.changed = true;
        let taken = state.grouper.ingest(chunk, self.now, state.watermark.get());
        self.grouped(group, taken);
    }

    /// Hands elements to a grouping, each after what the one before has fired. Those whose windows have ended come last, and
    /// together: what they fire corrects what was told, once.
    fn group_one_by_one(&mut self, group: GroupIndex, chunk: &Chunk) {
        let format = self.collections[self.groups[group].input].format.clone();
        let watermark = self.groups[group].watermark.get();
        let mut late = Vec::new();
        for (index, element) in (0..).zip(format.walk(&chunk.data)) {
            let element = match element {
                Ok(element) => element,
                Err(source) => {
                    let error = format.error(index, chunk.data.len(), source);
                    return self.fail_group(group, &error);
                }
            };
            let alone = Chunk {
                data: chunk.data.slice(element.whole()),
                count: 1,
                min_timestamp: element.timestamp,
            };
            if element
                .windows
                .iter()
                .all(|window| window.max_timestamp() < watermark)
            {
                late.push(alone);
                continue;
            }
            self.group(group, &alone);
            let state = &mut self.groups[group];
            let mut out = Vec::new();
            let fired = state
                .grouper
                .advance(self.now, state.watermark.get(), self.now, &mut out);
            if !self.grouped(group, fired) {
                return;
            }
            self.deliver_firings(group, out);
        }
        for alone in late {
            self.group(group, &alone);
        }
    }

    /// Whether a grouping could do what it was to do; where not, the job fails.
    fn grouped(&mut self, group: GroupIndex, done: Result<(), GroupError>) -> bool {
        if let Err(error) = &done {
            self.fail_group(group, error);
        }
        done.is_ok()
    }

    fn fail_group(&mut self, group: GroupIndex, error: &dyn core::fmt::Display) {
        let transform = self.groups[group].transform;
        let name = &self.graph.transforms[transform].name;
        self.fail(format!("transform \"{name}\": {error}"));
    }

    /// Hands what a grouping fires to all that read it.
    fn deliver_firings(&mut self, group: GroupIndex, out: Vec<Chunk>) {
        let output = self.groups[group].output;
        for chunk in out {
            self.note_firings(group, &chunk);
            self.deliver(output, chunk);
        }
    }

    /// Puts elements into a stage's queue, or, when the job drains, where they go then.
    pub(crate) fn enqueue(&mut self, stage: StageId, chunk: Chunk) {
        let state = &self.stages[stage];
        if self.phase == Phase::Draining && state.splittable {
            match state.truncate {
                Some(truncate) => return self.enqueue_as_is(truncate, chunk),
                None if state.unbounded => return,
                None => {}
            }
        }
        self.enqueue_as_is(stage, chunk);
    }

    pub(crate) fn enqueue_as_is(&mut self, stage: StageId, chunk: Chunk) {
        let collections = &self.collections;
        let taken = self.stages[stage].enqueue(chunk, |side| collections[side].watermark.get());
        if let Err(error) = taken {
            let name = &self.stages[stage].name;
            self.fail(format!("input of stage \"{name}\": {error}"));
        }
        self.ask_mappings(stage);
    }

    /// Moves all watermarks, in topological order.
    pub(crate) fn propagate(&mut self) {
        // Restrictions that were truncated come back to a stage that may stand before the one that truncates.
        let draining = self.phase == Phase::Draining && !self.config.truncates.is_empty();
        for _ in 0..1 + usize::from(draining) {
            for index in 0..self.nodes.len() {
                if matches!(self.phase, Phase::Ended(_)) {
                    return;
                }
                match &self.nodes[index] {
                    Node::Impulse { .. } => {}
                    Node::Flatten { inputs, output } => {
                        let to = self.upstream(inputs);
                        let output = *output;
                        self.collections[output].watermark.advance(to);
                    }
                    &Node::Group(group) => self.advance_group(group),
                    &Node::TestStream(stream) => {
                        let stream = &self.test_streams.streams[stream];
                        for (&output, watermark) in stream.outputs.iter().zip(&stream.watermarks) {
                            self.collections[output].watermark.advance(watermark.get());
                        }
                    }
                    &Node::Stage(stage) => self.advance_stage(stage),
                }
            }
        }
    }

    fn upstream(&self, inputs: &[CollectionId]) -> Timestamp {
        let watermarks = inputs
            .iter()
            .map(|input| self.collections[*input].watermark.get());
        watermarks.min().unwrap_or(Timestamp::MAX)
    }

    fn advance_group(&mut self, group: GroupIndex) {
        let state = &mut self.groups[group];
        let to = self.collections[state.input].watermark.get();
        let grouper = &mut state.grouper;
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= self.now);
        let due = !state.waits_for_all
            && (due(grouper.next_processing_time()) || due(grouper.next_synchronized_time()));
        let moves = to > state.watermark.get();
        if !(moves || state.changed || due) {
            return;
        }
        let mut out = Vec::new();
        // What came before the watermark moved fires as it was then.
        let mut fired = Ok(());
        let waits = state.waits_for_all && to < Timestamp::MAX;
        if (due || state.changed) && !state.waits_for_all {
            fired = grouper.advance(self.now, state.watermark.get(), self.now, &mut out);
        }
        state.changed = false;
        state.watermark.advance(to);
        if !waits && (moves || state.waits_for_all) {
            fired = fired.and_then(|()| grouper.advance(self.now, to, self.now, &mut out));
        }
        let requests = grouper.take_merge_requests();
        let limit = state.watermark.get().min(grouper.hold());
        let (input, output) = (state.input, state.output);
        if !self.grouped(group, fired) {
            return;
        }
        self.deliver_firings(group, out);
        self.collections[output].watermark.advance(limit);
        for (id, windows) in requests {
            let request = RequestId(self.fresh());
            if self.graph.collections[input].windowing.environment.is_none() {
                continue;
            }
            self.requests.insert(request, Request::Merge { group, id });
            self.actions.push(Action::MergeWindows {
                request,
                collection: input,
                windows,
            });
        }
    }

    /// Tells the side inputs that read what a grouping fires which keys did.
    fn note_firings(&mut self, group: GroupIndex, chunk: &Chunk) {
        let GroupState {
            output, ref views, ..
        } = self.groups[group];
        if views.is_empty() {
            return;
        }
        let format = &self.collections[output].format;
        let Some((key_coder, _)) = format.coder.as_kv() else {
            return;
        };
        for element in format.walk(&chunk.data).flatten() {
            let Ok((key, _)) = format.coder.split_kv(&chunk.data[element.value()]) else {
                continue;
            };
            for &(stage, side) in views {
                let view = &mut self.stages[stage].sides[side];
                element
                    .windows
                    .iter()
                    .for_each(|window| view.note_firing(window, key_coder, key));
            }
        }
    }

    fn advance_stage(&mut self, stage: StageId) {
        let ahead = self.ahead();
        let collections = &self.collections;
        let state = &mut self.stages[stage];
        let mut result = state.unblock(|side| collections[side].watermark.get());
        let mut upstream = collections[state.input].watermark.get();
        match (state.truncate, state.truncates) {
            (Some(truncate), _) if self.phase == Phase::Draining => {
                upstream = upstream.min(self.stages[truncate].output_watermark.get());
            }
            // What is left of restrictions in process may come here when the job drains.
            (_, Some(process)) => upstream = upstream.min(self.stages[process].earliest()),
            _ => {}
        }
        let state = &mut self.stages[stage];
        state.set_ahead(ahead);
        if result.is_ok() {
            result = state.advance(upstream, self.now);
        }
        let to = state.output_watermark.get();
        debug_assert!(
            to <= state.input_watermark.get(),
            "an output watermark overtook its input watermark"
        );
        if let Err(error) = result {
            let error = format!("input of stage \"{}\": {error}", state.name);
            return self.fail(error);
        }
        for index in 0..self.plan.stages[stage].outputs.len() {
            let output = self.plan.stages[stage].outputs[index];
            self.collections[output].watermark.advance(to);
        }
        self.ask_mappings(stage);
    }

    fn ask_mappings(&mut self, stage: StageId) {
        for side in 0..self.stages[stage].sides.len() {
            let windows = core::mem::take(&mut self.stages[stage].sides[side].to_ask);
            if windows.is_empty() {
                continue;
            }
            let request = RequestId(self.fresh());
            let view = &self.stages[stage].sides[side];
            let (transform, side_input) = (view.transform, view.index);
            self.actions.push(Action::MapWindows {
                request,
                transform,
                side_input,
                windows: windows.clone(),
            });
            self.requests
                .insert(request, Request::Map { stage, side, windows });
        }
    }

    pub(crate) fn windows_merged(&mut self, request: RequestId, merged: Vec<(Window, Vec<Window>)>) {
        match self.requests.remove(&request) {
            Some(Request::Merge { group, id }) => {
                let state = &mut self.groups[group];
                state.changed = true;
                let merged = state.grouper.merged(id, merged);
                self.grouped(group, merged);
            }
            Some(other) => drop(self.requests.insert(request, other)),
            None => {}
        }
    }

    pub(crate) fn windows_mapped(&mut self, request: RequestId, windows: Vec<Window>) {
        match self.requests.remove(&request) {
            Some(Request::Map {
                stage,
                side,
                windows: asked,
            }) => {
                if asked.len() != windows.len() {
                    let (name, got, expected) = (&self.stages[stage].name, windows.len(), asked.len());
                    return self.fail(format!(
                        "stage \"{name}\": an SDK mapped {expected} windows of the main input to {got} side-input windows"
                    ));
                }
                self.stages[stage].sides[side].mapped(asked, windows);
            }
            Some(other) => drop(self.requests.insert(request, other)),
            None => {}
        }
    }

    /// One step of a TestStream, if one can be taken.
    pub(crate) fn step_test_streams(&mut self) -> bool {
        let Some(step) = self.test_streams.step() else {
            return false;
        };
        match step {
            Step::Elements(collection, chunk) => {
                // The events of a stream come as their watermark allows; a chunk of them may be malformed.
                let format = &self.collections[collection].format;
                match Chunk::scan(chunk.data.clone(), format) {
                    Ok(chunk) => self.deliver(collection, chunk),
                    Err(error) => self.fail(format!("a TestStream: {error}")),
                }
            }
            Step::Moved => {
                let at = self.started_at.plus_millis(self.test_streams.elapsed());
                self.now = self.now.max(at);
            }
            Step::BadOutput(transform, output) => {
                let name = self.graph.transforms[transform].name.clone();
                self.fail(format!(
                    "TestStream \"{name}\" has events for output {output}, which it does not have"
                ));
            }
        }
        true
    }

    /// When something is due by processing time.
    pub(crate) fn next_processing_time(&self) -> Option<Timestamp> {
        let stages = self
            .stages
            .iter()
            .filter_map(|stage| stage.next_processing_time());
        let groups = self
            .groups
            .iter()
            .filter(|state| !state.waits_for_all)
            .flat_map(|state| {
                [
                    state.grouper.next_processing_time(),
                    state.grouper.next_synchronized_time(),
                ]
                .into_iter()
                .flatten()
            });
        stages.chain(groups).min()
    }

    /// Whether everything was processed.
    pub(crate) fn is_done(&self) -> bool {
        let at_end =
            |collection: CollectionId| self.collections[collection].watermark.get() == Timestamp::MAX;
        let ended = self.nodes.iter().all(|node| match node {
            Node::Impulse { output } | Node::Flatten { output, .. } => at_end(*output),
            Node::Group(group) => at_end(self.groups[*group].output),
            Node::TestStream(stream) => self.test_streams.streams[*stream].ended,
            Node::Stage(stage) => {
                let state = &self.stages[*stage];
                state.output_watermark.get() == Timestamp::MAX && state.is_empty()
            }
        });
        ended && self.test_streams.all_ended()
    }

    /// Why nothing goes on though the watermarks are not at the end.
    pub(crate) fn diagnosis(&self) -> String {
        let stuck = self.nodes.iter().find_map(|node| match node {
            Node::Stage(stage) => {
                let state = &self.stages[*stage];
                let done = state.output_watermark.get() == Timestamp::MAX && state.is_empty();
                (!done).then(|| state.describe())
            }
            Node::Group(group) => {
                let state = &self.groups[*group];
                let at = self.collections[state.output].watermark.get();
                let name = &self.graph.transforms[state.transform].name;
                (at != Timestamp::MAX).then(|| {
                    let (input, hold) = (state.watermark.get(), state.grouper.hold());
                    format!("GroupByKey \"{name}\": input watermark {input}, output watermark {at}, held at {hold}")
                })
            }
            Node::Impulse { output } | Node::Flatten { output, .. } => {
                let at = self.collections[*output].watermark.get();
                let name = &self.graph.collections[*output].name;
                (at != Timestamp::MAX).then(|| format!("collection \"{name}\": watermark {at}"))
            }
            Node::TestStream(_) => None,
        });
        let what = stuck.unwrap_or_else(|| "no node is behind".into());
        format!(
            "the pipeline is stuck: nothing is left to do, but the end was not reached; first behind is {what}"
        )
    }

    /// Sources stop; what is there is processed.
    pub(crate) fn drain(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Draining;
        self.test_streams.drain();
        for stage in self.stages.keys() {
            let state = &mut self.stages[stage];
            state.drain();
            if !state.splittable || (state.truncate.is_none() && !state.unbounded) {
                continue;
            }
            let truncate = state.truncate;
            for chunk in state.take_all() {
                if let Some(truncate) = truncate {
                    self.enqueue_as_is(truncate, chunk);
                }
            }
        }
    }
}
