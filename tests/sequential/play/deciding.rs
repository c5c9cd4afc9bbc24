//! Saving the state of steps, the steps that wait for a decision, and what is decided: the calls, and the part of the model that they see.

use cutover::{Decided, ErrorKind, InstanceId, Result, Saved, Task, Tenant, Undecided};

use super::ops;
use super::run::{Run, Writes};
use super::world::{At, Left, StepState, World, of_the_world};

impl Run {
    pub(super) fn save(&mut self, which: u8, state: u8) {
        let state = vec![state; usize::from(state % 3)];
        let done = self.with_task(which, |gate, task| gate.save(task, &state));
        let Some((seat, task, got)) = done else { return };
        self.show(&("save", &state, &task), &got);
        self.judge(seat, Writes::Anywhere, |world, at| world.save(&task, &state, &got, at));
    }

    pub(super) fn decide(&mut self, seat: usize, tenant: &Tenant, which: u8, again: bool) {
        let waiting = self.seats[seat].worlds.first().map(World::waiting).unwrap_or_default();
        let place = usize::from(which).checked_rem(waiting.len()).and_then(|at| waiting.into_iter().nth(at));
        // Mostly one that waits, if there is one; else one that may not even be there.
        let (id, step) = place.unwrap_or_else(|| (self.id(seat, which), "a".to_owned()));
        let got = tenant.decide(id, &step, &ops::decision(again));
        self.show(&("decide", id, &step, again), &got);
        self.seen.decided += u64::from(matches!(got, Ok(Decided::Retried | Decided::Aborted(_))));
        self.judge(seat, Writes::Anywhere, |mut world, at| {
            let place = world.place(id, |_| false);
            world.decide(place, (&step, again), &got, at)
        });
    }

    pub(super) fn undecided(&mut self, seat: usize, tenant: &Tenant, limit: usize) {
        match all_undecided(tenant, limit) {
            Ok(found) => {
                self.show(&("undecided", limit), &found);
                self.judge(seat, Writes::Nothing, |world, _| world.undecided(&found));
            }
            Err(err) => {
                let excused = self.struck() || self.disks.is_broken(None);
                assert!(of_the_world(&err) && excused, "the list of the undecided failed: {err:?}");
            }
        }
    }
}

/// All pages of the list.
fn all_undecided(tenant: &Tenant, limit: usize) -> Result<Vec<Undecided>> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = tenant.undecided(after.as_ref(), limit)?;
        assert!(page.steps.len() <= limit.max(1), "{page:?}");
        found.extend(page.steps);
        match page.next {
            None => return Ok(found),
            next => {
                assert!(next > after, "a list that comes back to {next:?}");
                after = next;
            }
        }
    }
    panic!("a list without an end");
}

impl World {
    /// The steps that wait for a decision, of instances whose ids are known.
    fn waiting(&self) -> Vec<(InstanceId, String)> {
        let live = self.instances.iter().filter(|one| one.ended.is_none());
        live.filter_map(|one| Some((one.id?, one)))
            .flat_map(|(id, one)| one.steps.iter().map(move |(name, step)| (id, name, step)))
            .filter(|(.., step)| matches!(step.state, StepState::NeedsDecision(_)))
            .map(|(id, name, _)| (id, name.clone()))
            .collect()
    }

    fn save(mut self, task: &Task, state: &[u8], got: &Result<Saved>, at: &At) -> Left {
        let held = self.held_by(task);
        let doubtful = self.in_doubt_about(task);
        match (got, held) {
            (Ok(Saved::Done), Some(_)) => {
                self.step_of(task).expect("it is held").saved = state.to_vec();
                Ok(vec![self])
            }
            (Ok(Saved::Refused(_)), _) if doubtful => {
                // It may have been over, or be over by this call, which came after a report that had happened.
                let mut over = self.clone();
                over.step_of(task).into_iter().for_each(|step| step.lease = None);
                Ok(vec![self, over])
            }
            (Ok(Saved::Refused(_)), None) => Ok(vec![self]),
            (Err(err), Some(place)) if of_the_world(err) && (at.excused() || doubtful) => {
                if err.kind() != ErrorKind::Indeterminate || (doubtful && !at.struck) {
                    return Ok(vec![self]);
                }
                self.doubt(place, None);
                let mut happened = self.clone();
                happened.step_of(task).expect("it is held").saved = state.to_vec();
                Ok(vec![self, happened])
            }
            (Err(err), None) if of_the_world(err) && doubtful => Ok(vec![self]),
            _ => Err(format!("saving was answered {got:?}, with a lease of {held:?}")),
        }
    }

    fn decide(
        mut self,
        place: Option<usize>,
        (step, again): (&str, bool),
        got: &Result<Decided>,
        at: &At,
    ) -> Left {
        let Some(place) = place else { return self.unknown(got, at) };
        let one = &self.instances[place];
        let (expired, doubtful, key) = (one.expired(at.now_ms), one.doubtful, one.launching.key);
        let state = one.steps.get(step).map(|step| step.state);
        let waits = matches!(state, Some(StepState::NeedsDecision(_)));
        match (got, one.ended.as_ref().map(|end| end.ending)) {
            (Err(err), Some(_)) if err.kind() == ErrorKind::NotFound && expired => Ok(vec![self]),
            (Err(err), None) if err.kind() == ErrorKind::NotFound && state.is_none() => Ok(vec![self]),
            (Ok(Decided::Ended(how)), Some(ending)) if *how == ending && !one.gone => Ok(vec![self]),
            (Ok(Decided::NotAsked), None) if state.is_some() && !waits => Ok(vec![self]),
            (Ok(answer), None) if waits => {
                let due = self.decided(place, step, again, at.now_ms);
                if *answer == due { Ok(vec![self]) } else { Err(format!("{answer:?} and not {due:?}")) }
            }
            (Err(err), ended) if of_the_world(err) && (at.excused() || doubtful) => {
                let may_have_happened = err.kind() == ErrorKind::Indeterminate && (at.struck || !doubtful);
                if ended.is_some() || !waits || !may_have_happened {
                    return Ok(vec![self]);
                }
                self.doubt(place, key);
                let mut happened = self.clone();
                happened.decided(place, step, again, at.now_ms);
                Ok(vec![self, happened])
            }
            (_, ended) => Err(format!("deciding was answered {got:?}, of {state:?}, ended {ended:?}")),
        }
    }

    fn decided(&mut self, place: usize, name: &str, again: bool, now_ms: u64) -> Decided {
        if !again {
            return Decided::Aborted(self.failed_for_good(place, name, ops::HOPELESS, now_ms));
        }
        let step = self.instances[place].steps.get_mut(name).expect("it waits");
        (step.state, step.failed, step.counted_ms) = (StepState::Ready(now_ms), 0, now_ms);
        (step.lost, step.hidden) = (0, false);
        Decided::Retried
    }

    /// Holds the whole list against what should be in it. While something is in doubt it may show it or not.
    fn undecided(mut self, got: &[Undecided]) -> Left {
        let order = |one: &Undecided| (one.since_ms, one.instance, one.step.clone());
        if !got.is_sorted_by(|one, next| order(one) < order(next)) {
            return Err(format!("the list is not in the order of waiting: {got:?}"));
        }
        let in_doubt = self.in_doubt();
        let mut seen = Vec::new();
        for found in got {
            let Some(place) = self.place(found.instance, |_| false) else {
                if in_doubt {
                    continue;
                }
                return Err(format!("{found:?} is of an instance that was never launched"));
            };
            let one = &self.instances[place];
            let right = one.ended.is_none()
                && one.steps.get(&found.step).is_some_and(|step| {
                    step.state == StepState::NeedsDecision(found.since_ms)
                        && step.queue == found.queue
                        && step.failed == found.attempts
                        && found.reason == step.why
                });
            if !right && !one.doubtful {
                return Err(format!("the list has {found:?}, which should not be in it: {one:?}"));
            }
            seen.push((found.instance, found.step.clone()));
        }
        let doubtful = |id| self.instances.iter().any(|one| one.id == Some(id) && one.doubtful);
        let missing = self.waiting().into_iter().find(|one| !seen.contains(one) && !doubtful(one.0));
        missing.map_or_else(|| Ok(vec![self]), |one| Err(format!("the list lacks {one:?}")))
    }
}
