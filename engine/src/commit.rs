//! The end of bundles: commits, failures, splits. A commit is one step: all of a bundle's work, or nothing.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use purlin_model::Timer;

use crate::bundle::{BundleInFlight, Retry};
use crate::engine::{Engine, Phase};
use crate::event::{Action, BundleId, BundleResult, Residual, Split, StageId};

impl Engine {
    pub(crate) fn bundle_finished(&mut self, id: BundleId, result: BundleResult) {
        let Some(running) = self.bundles.get_mut(&id) else {
            return;
        };
        if running.split_asked {
            // The answer to the split says how much of the work was this bundle's.
            running.finished = Some(result);
            return;
        }
        match self.check(id, &result) {
            Ok(timers) if self.is_disturbed(id, &timers) => self.undo(id),
            Ok(timers) => self.commit(id, result, timers),
            Err(error) => {
                self.actions.push(Action::Refused {
                    bundle: id,
                    error: error.clone(),
                });
                self.bundle_failed(id, &error, false);
            }
        }
    }

    /// Reads the timers; tells what of a result cannot be taken.
    fn check(&self, id: BundleId, result: &BundleResult) -> Result<Vec<(usize, Vec<Timer>)>, String> {
        let Some(running) = self.bundles.get(&id) else {
            return Ok(Vec::new());
        };
        let stage = &self.plan.stages[running.stage];
        for (collection, _) in &result.outputs {
            if !stage.outputs.contains(collection) {
                return Err(format!(
                    "the worker sent elements of collection #{}, which is not its stage's",
                    collection.0
                ));
            }
        }
        let state = &self.stages[running.stage];
        if !result.residuals.is_empty() && !state.splittable {
            return Err("the worker left residuals of a stage that has no splittable transform".into());
        }
        check_residuals(state, &result.residuals)?;
        result
            .timers
            .iter()
            .map(|(_, family, data)| state.decode_timers(family, data))
            .collect()
    }

    /// Whether a bundle's timers would have fired otherwise, had each timestamp had a bundle of its own.
    fn is_disturbed(&self, id: BundleId, timers: &[(usize, Vec<Timer>)]) -> bool {
        self.bundles
            .get(&id)
            .is_some_and(|running| self.stages[running.stage].disturbs(&running.work, timers))
    }

    /// Nothing of a bundle is taken, and what it had waits as before.
    fn undo(&mut self, id: BundleId) {
        let Some(running) = self.bundles.remove(&id) else {
            return;
        };
        self.free_slot(&running);
        let state = &mut self.stages[running.stage];
        if let Err(error) = state.undo(running.work) {
            let error = format!("input of stage \"{}\": {error}", state.name);
            return self.fail(error);
        }
        self.actions.push(Action::Undone(id));
    }

    fn commit(&mut self, id: BundleId, result: BundleResult, timers: Vec<(usize, Vec<Timer>)>) {
        let Some(running) = self.bundles.remove(&id) else {
            return;
        };
        let stage = running.stage;
        self.free_slot(&running);
        let state = &mut self.stages[stage];
        if running.elements_done.is_none() {
            state.note_quick(running.work.elements_count);
        }
        let BundleInFlight { work, overlay, .. } = running;
        // What is new holds the watermarks before what is done lets them go.
        state.set_timers(&work, timers);
        if !result.residuals.is_empty() {
            state.note_residuals();
        }
        self.queue_residuals(stage, result.residuals, work.truncated);
        self.stages[stage].commit_state(overlay);
        let truncated_for = self.stages[stage].truncates;
        for (collection, chunk) in result.outputs {
            match truncated_for {
                Some(process) => self.enqueue_as_is(process, chunk),
                None => self.deliver(collection, chunk),
            }
        }
        self.stages[stage].release(&work);
        self.actions.push(Action::Committed {
            bundle: id,
            finalize: result.finalize,
        });
    }

    fn queue_residuals(&mut self, stage: StageId, residuals: Vec<Residual>, truncated: bool) {
        for mut residual in residuals {
            let mut to = stage;
            let state = &self.stages[stage];
            if self.phase == Phase::Draining && state.splittable && !truncated {
                match state.truncate {
                    Some(truncate) => {
                        to = truncate;
                        residual.delay_ms = 0;
                    }
                    None if state.unbounded => continue,
                    None => {}
                }
            }
            if let Err(error) = self.stages[to].push_residual(&residual, self.now) {
                let name = &self.stages[stage].name;
                return self.fail(format!("a residual of stage \"{name}\": {error}"));
            }
        }
    }

    fn free_slot(&mut self, running: &BundleInFlight) {
        let state = &mut self.stages[running.stage];
        state.ended();
        let used = &mut self.environments[state.environment].used[running.worker as usize];
        *used = used.saturating_sub(1);
    }

    pub(crate) fn bundle_failed(&mut self, id: BundleId, error: &str, worker_lost: bool) {
        let Some(running) = self.bundles.remove(&id) else {
            return;
        };
        self.free_slot(&running);
        let BundleInFlight {
            stage,
            work,
            mut attempt,
            mut losses,
            ..
        } = running;
        let state = &mut self.stages[stage];
        let name = &state.name;
        if worker_lost {
            losses += 1;
            if losses > self.config.max_worker_losses {
                let error = format!(
                    "{error}\nstage \"{name}\": {losses} workers were lost while they processed the same bundle"
                );
                return self.fail(error);
            }
        } else {
            if attempt >= self.config.max_attempts {
                // The error comes last: its last line is what people look at.
                let error = match attempt {
                    1 => error.to_owned(),
                    _ => format!("a bundle failed {attempt} times, the last time with:\n{error}"),
                };
                return self.fail(error);
            }
            attempt = attempt.saturating_add(1);
        }
        state.retry(Retry {
            work,
            attempt,
            losses,
        });
    }

    pub(crate) fn bundle_split(&mut self, id: BundleId, split: Split) {
        let Some(running) = self.bundles.get_mut(&id) else {
            return;
        };
        let useful = split.first_residual.is_some() || !split.residuals.is_empty();
        let stage = running.stage;
        if useful {
            let truncated = running.work.truncated;
            let state = &self.stages[stage];
            // An answer that cannot be read leaves the work whole, for the retry.
            let mut work = running.work.clone();
            let cut = if state.is_keyed() && !state.splittable {
                Err("elements of a transform with state cannot be given back".to_string())
            } else {
                let checked = check_split(&split, work.elements_count);
                let checked = checked.and_then(|()| check_residuals(state, &split.residuals));
                checked.and_then(|()| {
                    let cut = work.cut(&split, state.format());
                    cut.map_err(|error| error.to_string())
                })
            };
            let given_back = match cut {
                Ok(given_back) => {
                    running.work = work;
                    given_back
                }
                Err(error) => return self.split_unusable(id, error),
            };
            let old = core::mem::take(&mut running.work.holds);
            running.work.holds = running
                .work
                .elements
                .iter()
                .map(|chunk| chunk.min_timestamp)
                .collect();
            self.stages[stage].hold(&running.work.holds);
            let drains = self.phase == Phase::Draining && !truncated;
            for chunk in given_back.into_iter().rev() {
                if drains {
                    // Where restrictions go that were not truncated yet.
                    self.enqueue(stage, chunk);
                    continue;
                }
                let state = &mut self.stages[stage];
                if let Err(error) = state.give_back(chunk) {
                    let error = format!("input of stage \"{}\": {error}", state.name);
                    return self.fail(error);
                }
            }
            self.queue_residuals(stage, split.residuals, truncated);
            self.stages[stage].let_go(&old);
        }
        self.postpone_split(id, useful);
        let finished = self
            .bundles
            .get_mut(&id)
            .and_then(|running| running.finished.take());
        if let Some(result) = finished {
            self.bundle_finished(id, result);
        }
    }

    /// The worker may have given up elements that nobody else would get, so the whole bundle runs again. That is no
    /// failure of the bundle, as splitting was the engine's wish, and the stage's bundles are not split any more. Only
    /// a drain goes on asking, to stop endless sources; there it counts as a failed attempt, so that it ends.
    pub(crate) fn split_unusable(&mut self, id: BundleId, error: String) {
        let Some(running) = self.bundles.get(&id) else {
            return;
        };
        let stage = running.stage;
        self.actions.push(Action::Abandon(id));
        let stopped = !self.stages[stage].stop_splits();
        if stopped && self.phase == Phase::Draining {
            let error = format!("an answer to a split cannot be used: {error}");
            return self.bundle_failed(id, &error, false);
        }
        let Some(running) = self.bundles.remove(&id) else {
            return;
        };
        self.free_slot(&running);
        let BundleInFlight {
            work,
            attempt,
            losses,
            ..
        } = running;
        self.stages[stage].retry(Retry {
            work,
            attempt,
            losses,
        });
        if !stopped {
            self.actions.push(Action::SplitsStopped { stage, error });
        }
    }
}

/// Whether a split tells where every element of the bundle has gone.
fn check_split(split: &Split, elements: u64) -> Result<(), String> {
    let Some(first_residual) = split.first_residual else {
        return Err("work was given back of no element of the bundle".into());
    };
    let kept = u64::try_from(split.last_primary.saturating_add(1)).unwrap_or(0);
    if kept > first_residual {
        return Err(format!(
            "elements are kept up to {} and given back from {first_residual}",
            split.last_primary
        ));
    }
    let in_two = kept.min(elements) < first_residual.min(elements);
    if in_two && (split.primary_roots.is_empty() || split.residuals.is_empty()) {
        return Err(format!(
            "element {kept} was split, and one of its parts was not told"
        ));
    }
    Ok(())
}

/// Residuals that cannot be read fail their bundle, not the job.
fn check_residuals(state: &crate::stage::StageState, residuals: &[Residual]) -> Result<(), String> {
    residuals.iter().try_for_each(|residual| {
        let chunk = crate::chunk::Chunk::scan(residual.element.clone(), state.format());
        let chunk = chunk.map_err(|error| format!("a residual: {error}"))?;
        if chunk.count == 1 {
            Ok(())
        } else {
            Err(format!("a residual has {} elements", chunk.count))
        }
    })
}
