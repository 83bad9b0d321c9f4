//! Which bundle starts where, and which are asked to split.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use purlin_model::Timestamp;
use typed_index_collections::TiVec;

use crate::bundle::{BundleInFlight, Retry};
use crate::engine::{Engine, Node, Phase, fresh};
use crate::event::{Action, Bundle, BundleId, StageId};
use crate::graph::EnvironmentId;
use crate::state::Overlay;

/// After so many bundles the stages upstream have a turn.
const DOWNSTREAM_TURNS: u32 = 16;
/// A bundle that has begun no more elements at its first report is slow. Where it has begun more, another bundle must
/// have more to do to be worth what it costs.
const SLOW_ELEMENTS: u64 = 10;

/// A bundle that is worth a split.
#[derive(Clone, Copy, Debug)]
enum Straggler {
    /// How fast it goes is not known.
    Unknown,
    /// It began `share` elements in the time that a bundle is worth; `left` are not begun.
    Slow { share: u64, left: u64 },
}

impl Straggler {
    /// The fraction of its remainder that it keeps if others have so many slots, and how many of these what it gives up
    /// will use.
    fn keeps(self, slots: u64) -> (f64, u64) {
        let Straggler::Slow { share, left } = self else {
            return (0.5, 1);
        };
        let share = share.max(1);
        // Whole shares, so that what user code puts together (a batch of so many elements) stays together.
        let shares = left.div_ceil(share);
        let kept = match shares > slots {
            true => left.div_ceil(slots + 1).next_multiple_of(share).min(left - 1),
            false => 0,
        };
        // SDKs count the element in work as half done, and round.
        ((kept as f64 + 0.5) / (left as f64 + 0.5), shares.min(slots))
    }
}

impl Engine {
    /// Starts bundles while there is something to do and a slot to do it in.
    pub(crate) fn schedule(&mut self) {
        // A stage downstream may have work for ever, such as timers that set themselves again: the others have their turns.
        if self.downstream_turns >= DOWNSTREAM_TURNS {
            self.downstream_turns = 0;
            for index in 0..self.nodes.len() {
                if self.start_one(index) {
                    break;
                }
            }
        }
        // Downstream first: what is begun is finished before more is begun.
        for index in (0..self.nodes.len()).rev() {
            while self.start_one(index) {
                self.downstream_turns += 1;
            }
        }
    }

    /// Starts a bundle of the node, if it is a stage that has something to do and a slot to do it in.
    fn start_one(&mut self, node: usize) -> bool {
        let Node::Stage(stage) = self.nodes[node] else {
            return false;
        };
        if matches!(self.phase, Phase::Ended(_)) || !self.stages[stage].has_work() {
            return false;
        }
        let environment = self.stages[stage].environment;
        if self.environments[environment].free() == 0 {
            return false;
        }
        let room = self.environments[environment].room();
        let retry = match self.stages[stage].next_retry() {
            Some(retry) => retry,
            None if self.is_held_back(stage) => return false,
            None => match self.stages[stage].compose(&self.config, room) {
                Ok(Some(mut work)) => {
                    work.truncated = self.phase == Phase::Draining;
                    Retry {
                        work,
                        attempt: 1,
                        losses: 0,
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    let name = &self.stages[stage].name;
                    self.fail(format!("input of stage \"{name}\": {error}"));
                    return false;
                }
            },
        };
        self.start_bundle(stage, retry);
        true
    }

    /// Whether a source outruns what follows. No stage waits for another in a circle: what is queued behind it can be
    /// processed without it, and what is itself a source, with work for ever, does not count.
    fn is_held_back(&self, stage: StageId) -> bool {
        let state = &self.stages[stage];
        if self.phase != Phase::Running || !state.is_endless() {
            return false;
        }
        let behind = state.downstream.iter().map(|&stage| &self.stages[stage]);
        let queued = behind
            .filter(|stage| !stage.is_endless())
            .map(|stage| stage.queued_bytes());
        queued.sum::<u64>() > self.config.max_queued_bytes
    }

    fn start_bundle(&mut self, stage: StageId, retry: Retry) {
        let Retry {
            work,
            attempt,
            losses,
        } = retry;
        let id = BundleId(self.fresh());
        let worker = self.choose_worker(stage);
        let side_input_tokens = self.side_input_tokens(stage);
        let next_id = &mut self.next_id;
        let state_token = self.stages[stage].cache_token(worker, || fresh(next_id));
        let bundle = Bundle {
            id,
            stage,
            worker,
            attempt,
            input: work.input(),
            elements: work.elements_count,
            state_token,
            side_input_tokens,
        };
        self.stages[stage].started();
        self.environments[self.stages[stage].environment].used[worker as usize] += 1;
        let split_pause = match self.stages[stage].splittable {
            true => self.config.split_after_ms.max(1),
            false => self.config.split_slow_after_ms.max(1),
        };
        let running = BundleInFlight {
            stage,
            worker,
            attempt,
            losses,
            work,
            overlay: Overlay::default(),
            split_at: self.now.plus_millis(split_pause),
            split_pause,
            split_asked: false,
            elements_done: None,
            pace: None,
            finished: None,
        };
        self.bundles.insert(id, running);
        self.actions.push(Action::StartBundle(bundle));
    }

    /// The worker with most room; for a stage with state the last one, whose caches are warm, if it is as good.
    fn choose_worker(&self, stage: StageId) -> u32 {
        let state = &self.stages[stage];
        let slots = &self.environments[state.environment];
        let last = state.last_worker().map(|worker| worker as usize);
        let best = (0..slots.used.len()).min_by_key(|&worker| (slots.used[worker], Some(worker) != last));
        best.unwrap_or(0) as u32
    }

    fn side_input_tokens(&mut self, stage: StageId) -> Vec<(crate::graph::TransformId, String, u64)> {
        let mut tokens = Vec::new();
        for side in 0..self.stages[stage].sides.len() {
            if self.stages[stage].sides[side].changed {
                let token = self.fresh();
                let view = &mut self.stages[stage].sides[side];
                view.token = token;
                view.changed = false;
            }
            let view = &self.stages[stage].sides[side];
            tokens.push((view.transform, view.tag.clone(), view.token));
        }
        tokens
    }

    /// Where slots are idle, bundles that last are asked to give up part of what they have not begun.
    pub(crate) fn split_stragglers(&mut self) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let draining = self.phase == Phase::Draining;
        let mut asked = Vec::new();
        let mut stragglers: TiVec<EnvironmentId, Vec<(BundleId, Straggler)>> =
            vec![Vec::new(); self.environments.len()].into();
        for (&id, running) in &self.bundles {
            let state = &self.stages[running.stage];
            let Some(done) = running.elements_done else {
                continue;
            };
            if running.split_asked || running.finished.is_some() || self.now < running.split_at {
                continue;
            }
            // A source without end stops when the job drains, and from time to time: nothing else would commit what it has
            // read, let other restrictions have their turn, or hold it back.
            let stops = if draining {
                state.unbounded && !running.work.truncated
            } else {
                let waited_for = || !state.is_keyed() && self.is_waited_for(running.stage);
                state.splits() && (state.unbounded || (state.is_endless() && waited_for()))
            };
            if state.splittable && stops {
                asked.push((id, 0.0));
                continue;
            }
            if state.is_keyed() || !state.splits() || state.size() > 0 {
                continue;
            }
            let left = running.work.elements_count.saturating_sub(done);
            if let Some(straggler) = self.straggler(running, left) {
                stragglers[state.environment].push((id, straggler));
            }
        }
        for (environment, stragglers) in stragglers.into_iter_enumerated() {
            let mut idle = self.environments[environment].free();
            let mut others = stragglers.len() as u64;
            for (id, straggler) in stragglers {
                if idle == 0 {
                    break;
                }
                let slots = idle.div_ceil(others);
                let (fraction, used) = straggler.keeps(slots);
                idle -= used;
                others -= 1;
                asked.push((id, fraction));
                if let Straggler::Slow { share, .. } = straggler
                    && let Some(running) = self.bundles.get(&id)
                {
                    self.stages[running.stage].note_slow(share);
                }
            }
        }
        for (bundle, fraction) in asked {
            if let Some(running) = self.bundles.get_mut(&bundle) {
                running.split_asked = true;
                self.actions.push(Action::SplitBundle {
                    bundle,
                    fraction,
                    estimated_input_elements: running.work.elements_count,
                });
            }
        }
    }

    /// Whether, and how, a bundle with so many elements left is worth a split.
    fn straggler(&self, running: &BundleInFlight, left: u64) -> Option<Straggler> {
        if self.stages[running.stage].splittable {
            return Some(Straggler::Unknown);
        }
        match running.pace {
            // What it has before it takes long, by its pace; or some element keeps it longer than its pace says.
            Some((share, at)) => {
                let much = share.saturating_mul(if share <= SLOW_ELEMENTS { 1 } else { 3 });
                let lasting = self.now >= at.plus_millis(self.config.split_after_ms);
                (left >= much || (left > 0 && lasting)).then_some(Straggler::Slow { share, left })
            }
            // It may be in its setup.
            None => {
                let lasting = self.config.split_after_ms - self.config.split_slow_after_ms;
                (left > 0 && self.now >= running.split_at.plus_millis(lasting)).then_some(Straggler::Unknown)
            }
        }
    }

    /// Whether there is no slot for what waits of the stage's environment, or the stage is held back.
    fn is_waited_for(&self, stage: StageId) -> bool {
        let environment = self.stages[stage].environment;
        let mut same = self
            .stages
            .iter()
            .filter(|other| other.environment == environment);
        let full = self.environments[environment].free() == 0;
        self.is_held_back(stage) || (full && same.any(|other| other.has_work()))
    }

    /// When a bundle may be asked to split again.
    pub(crate) fn postpone_split(&mut self, bundle: BundleId, useful: bool) {
        let now = self.now;
        if let Some(running) = self.bundles.get_mut(&bundle) {
            running.split_asked = false;
            if !useful {
                running.split_pause = running.split_pause.saturating_mul(2);
            }
            running.split_at = if now == Timestamp::MAX {
                now
            } else {
                now.plus_millis(running.split_pause)
            };
        }
    }
}
