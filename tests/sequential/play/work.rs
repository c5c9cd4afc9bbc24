//! The part of the model that workers see: claims, leases, and what becomes of steps.

use std::collections::BTreeSet;

use cutover::{Again, Beat, Ending, ErrorKind, Result, Settled, Task};

use super::ops::{self, StepShape};
use super::world::{At, Lease, Left, One, Step, StepState, World, of_the_world};

/// What a worker reports.
#[derive(Debug, Clone, Copy)]
pub enum Report {
    /// It is done; what comes next, as in [`ops::next_steps`].
    Done(u8),
    /// It failed; when to try again, and the random number that decides about the pause.
    Failed(Again, u64),
}

/// A claim and its answer.
struct Asked<'a> {
    queue: &'a str,
    length_ms: u64,
    got: &'a Result<Option<Task>>,
    at: &'a At,
}

/// What workers say when they fail.
pub const WHY: &str = "no luck";
/// What is said of one that says nothing any more.
const UNHEARD: &str = "its worker was not heard of";

impl Step {
    pub fn new(shape: &StepShape, state: StepState) -> Self {
        Self {
            state,
            queue: shape.queue.to_owned(),
            input: shape.input.to_vec(),
            saved: Vec::new(),
            attempts: 0,
            max_attempts: shape.attempts,
            failed: 0,
            lost: 0,
            why: "",
            counted_ms: match state {
                StepState::Ready(at_ms) => at_ms,
                _ => 0,
            },
            lease: None,
            hidden: false,
        }
    }
}

impl Step {
    /// How often it was tried, of what counts.
    fn used(&self) -> u32 {
        self.failed + self.lost
    }

    /// Whether it may not be tried at `now_ms`, after what it has used.
    fn is_over(&self, now_ms: u64) -> bool {
        self.used() >= self.max_attempts || now_ms > self.counted_ms + ops::WITHIN
    }

    /// It waits for a decision, and from then on it is written how often its leases ran out.
    fn stop(&mut self, now_ms: u64) {
        self.state = StepState::NeedsDecision(now_ms);
        (self.attempts, self.failed, self.lost) = (self.attempts + self.lost, self.used(), 0);
    }

    /// It is to be given, and a budget is used up.
    fn give_up(&mut self, now_ms: u64) {
        if self.lost > 0 {
            self.why = UNHEARD;
        }
        self.stop(now_ms);
    }

    /// How long it pauses after a failure: twice as long each time, between half of that and all of it, within its time.
    fn pause(&self, now_ms: u64, random: u64) -> u64 {
        let pause = (1..self.used()).fold(ops::PAUSES.0, |pause, _| pause * 2).min(ops::PAUSES.1);
        let (least, left) = (pause.div_ceil(2), (self.counted_ms + ops::WITHIN).saturating_sub(now_ms));
        let most = pause.min(left).max(least);
        least + (u128::from(random) * u128::from(most - least + 1) / (1 << 64)) as u64
    }
}

impl World {
    /// Leases that are over by now are over, whatever is asked.
    pub fn expire(&mut self, at: &At) {
        for step in self.instances.iter_mut().flat_map(|one| one.steps.values_mut()) {
            if step.lease.take_if(|lease| at.mono_ms >= lease.until_ms).is_some() {
                step.lost += 1;
            }
        }
    }

    pub fn claim(self, queue: &str, length_ms: u64, got: &Result<Option<Task>>, at: &At) -> Left {
        if let Err(err) = got
            && !(of_the_world(err) && (at.excused() || self.in_doubt()))
        {
            return Err(format!("the claim failed: {err:?}"));
        }
        let due = self.first(queue, &BTreeSet::new(), at.now_ms);
        let due = due.map(|(place, name)| (self.instances[place].id, name));
        let mut worlds = Vec::new();
        let asked = Asked { queue, length_ms, got, at };
        for world in self.with_late_ends(at) {
            world.walk(&asked, BTreeSet::new(), &mut worlds);
        }
        if worlds.is_empty() {
            return Err(format!("{due:?} should have been given, and it was {got:?}"));
        }
        Ok(worlds)
    }

    /// A lease whose report had happened without its worker knowing may have been the last one of an instance that was to stop. When it is
    /// over, its entry comes back, and a claim that meets it ends the instance.
    fn with_late_ends(self, at: &At) -> Vec<World> {
        let late = |one: &One| one.doubtful && one.ended.is_none() && one.cancel_requested && one.held() == 0;
        let places: Vec<usize> = (0..self.instances.len()).filter(|at| late(&self.instances[*at])).collect();
        let mut worlds = vec![self];
        for place in places {
            let mut ended = worlds.clone();
            for world in &mut ended {
                world.end(place, Ending::Cancelled, "cancelled", &[], at.now_ms);
            }
            worlds.extend(ended);
        }
        worlds
    }

    /// Goes through the steps that are ready, as the engine does, and notes every world in which it may have stopped as it did.
    fn walk(mut self, asked: &Asked<'_>, passed: BTreeSet<(usize, String)>, out: &mut Vec<World>) {
        let failed = asked.got.is_err();
        loop {
            if failed {
                out.push(self.clone());
            }
            let Some((place, name)) = self.first(asked.queue, &passed, asked.at.now_ms) else {
                if matches!(asked.got, Ok(None)) {
                    out.push(self);
                }
                return;
            };
            if self.instances[place].doubtful || asked.at.broken {
                // It may be passed over for as long as it is in doubt, and as long as a lease lasts that may be over; or its store is being
                // opened again.
                let mut over = passed.clone();
                over.insert((place, name.clone()));
                self.clone().walk(asked, over, out);
            }
            if !self.instances[place].cancel_requested {
                let before = failed.then(|| self.clone());
                let step = self.instances[place].steps.get_mut(&name).expect("it is the first");
                if step.used() > 0 && step.is_over(asked.at.now_ms) {
                    step.give_up(asked.at.now_ms);
                    if let Some(before) = before {
                        out.extend([before, self.clone()].map(|world| world.doubted(place, None)));
                    }
                    continue;
                }
                if let Ok(Some(task)) = asked.got
                    && self.give(place, &name, asked.length_ms, task, asked.at)
                {
                    out.push(self);
                }
                return;
            }
            if self.instances[place].held() > 0 {
                self.hide(place, &name);
                continue;
            }
            let key = self.instances[place].launching.key;
            if failed {
                out.push(self.clone().doubted(place, key));
            }
            self.end(place, Ending::Cancelled, "cancelled", &[], asked.at.now_ms);
            if failed {
                out.push(self.clone().doubted(place, key));
            }
        }
    }

    fn doubted(mut self, place: usize, key: Option<u8>) -> Self {
        self.doubt(place, key);
        self
    }

    /// The step that is to be given next: by the time at which it became ready, then by instance, then by name.
    fn first(&self, queue: &str, passed: &BTreeSet<(usize, String)>, now_ms: u64) -> Option<(usize, String)> {
        let mut first = None;
        for (place, one) in self.instances.iter().enumerate().filter(|(_, one)| one.ended.is_none()) {
            for (name, step) in &one.steps {
                let StepState::Ready(at_ms) = step.state else { continue };
                let over = step.lease.is_some() || step.hidden || passed.contains(&(place, name.clone()));
                if step.queue != queue || over || at_ms > now_ms {
                    continue;
                }
                let order = (at_ms, one.id, name.clone());
                if first.as_ref().is_none_or(|(other, _)| order < *other) {
                    first = Some((order, place));
                }
            }
        }
        first.map(|((_, _, name), place)| (place, name))
    }

    fn hide(&mut self, place: usize, name: &str) {
        if let Some(step) = self.instances[place].steps.get_mut(name) {
            step.hidden = true;
        }
    }

    fn give(&mut self, place: usize, name: &str, length_ms: u64, task: &Task, at: &At) -> bool {
        let one = &mut self.instances[place];
        if one.id.is_none() {
            one.id = Some(task.instance);
        }
        let Some(step) = one.steps.get_mut(name) else { return false };
        let right = one.id == Some(task.instance)
            && task.step == name
            && task.queue == step.queue
            && task.input == step.input
            && task.saved == step.saved
            && task.attempt == step.attempts + step.lost + 1
            && task.definition == ops::definition_name(one.launching.definition)
            && task.version == 1
            && task.key == one.launching.key.map(ops::key);
        step.lease = Some(Lease { token: task.token, length_ms, until_ms: at.mono_ms + length_ms });
        right
    }

    /// The step of a task, if whoever has the task still holds it.
    pub(super) fn held_by(&mut self, task: &Task) -> Option<usize> {
        let place = self.place(task.instance, |_| false)?;
        let lease = self.instances[place].steps.get(&task.step)?.lease?;
        (lease.token == task.token).then_some(place)
    }

    pub(super) fn step_of(&mut self, task: &Task) -> Option<&mut Step> {
        let place = self.place(task.instance, |_| false)?;
        self.instances[place].steps.get_mut(&task.step)
    }

    fn lease_of(&mut self, task: &Task) -> Option<&mut Lease> {
        self.step_of(task)?.lease.as_mut().filter(|lease| lease.token == task.token)
    }

    /// Whether an operation on the instance of a task had an unknown outcome. Its leases are let go of, or not, when it is known.
    pub(super) fn in_doubt_about(&mut self, task: &Task) -> bool {
        self.place(task.instance, |_| false).is_some_and(|place| self.instances[place].doubtful)
    }

    pub fn beat(mut self, task: &Task, got: &Result<Beat>, at: &At) -> Left {
        if let Ok(beat) = got
            && self.in_doubt_about(task)
        {
            if !matches!(beat, Beat::Refused(_))
                && let Some(lease) = self.lease_of(task)
            {
                lease.until_ms = at.mono_ms + lease.length_ms;
            }
            return Ok(vec![self]);
        }
        let due = match self.held_by(task) {
            None => None,
            Some(place) => {
                let one = &mut self.instances[place];
                if let Some(lease) = one.steps.get_mut(&task.step).and_then(|step| step.lease.as_mut()) {
                    lease.until_ms = at.mono_ms + lease.length_ms;
                }
                Some(if one.cancel_requested { Beat::CancelRequested } else { Beat::Renewed })
            }
        };
        match got {
            Ok(Beat::Refused(_)) if due.is_none() => Ok(vec![self]),
            Ok(beat) if Some(*beat) == due => Ok(vec![self]),
            _ => Err(format!("the heartbeat was answered {got:?} and not {due:?}")),
        }
    }

    pub fn settle(mut self, task: &Task, report: Report, got: &Result<Settled>, at: &At) -> Left {
        let doubted = match got {
            Ok(answer) => matches!(answer, Settled::Refused(_)),
            Err(err) => of_the_world(err),
        };
        let may_have_happened =
            matches!(got, Err(err) if err.kind() == ErrorKind::Indeterminate) && self.held_by(task).is_some();
        if doubted && !may_have_happened && self.in_doubt_about(task) {
            // It may have been over, or be over by this report, which came after one that had happened.
            let mut over = self.clone();
            if let (Ok(_), Some(step)) = (got, over.step_of(task)) {
                step.lease = None;
                return Ok(vec![self, over]);
            }
            return Ok(vec![self]);
        }
        let Some(place) = self.held_by(task) else {
            return match got {
                Ok(Settled::Refused(_)) => Ok(vec![self]),
                _ => Err(format!("a lease that is over was answered {got:?}")),
            };
        };
        if let Err(err) = got
            && of_the_world(err)
            && at.excused()
        {
            if err.kind() != ErrorKind::Indeterminate {
                return Ok(vec![self]);
            }
            let key = self.instances[place].launching.key;
            self.doubt(place, key);
            let mut happened = self.clone();
            let lease = self.lease_of(task).copied();
            return Ok(match happened.report(place, &task.step, report, at.now_ms) {
                // Nobody knows, so the lease is still there.
                Some(None) => {
                    happened.step_of(task).expect("it was reported").lease = lease;
                    vec![self, happened]
                }
                Some(Some(_)) => vec![self, happened],
                None => vec![self],
            });
        }
        let before = self.clone();
        let due = self.report(place, &task.step, report, at.now_ms);
        match (got, due) {
            (Ok(Settled::Done { ended }), Some(due)) if *ended == due => Ok(vec![self]),
            (Err(err), None) if err.kind() == ErrorKind::InvalidInput => Ok(vec![before]),
            _ => Err(format!("the report was answered {got:?} and not {due:?}")),
        }
    }

    /// What a report does and how its instance ends with it; `None` if it is refused.
    fn report(&mut self, place: usize, name: &str, report: Report, now_ms: u64) -> Option<Option<Ending>> {
        match report {
            Report::Done(next) => self.done(place, name, next, now_ms),
            Report::Failed(again, random) => Some(self.failed(place, name, (again, random), now_ms)),
        }
    }

    fn done(&mut self, place: usize, name: &str, next: u8, now_ms: u64) -> Option<Option<Ending>> {
        let one = &mut self.instances[place];
        let shapes = if one.cancel_requested { Vec::new() } else { ops::next_steps(next) };
        let waits = |one: &One, shape: &StepShape| {
            one.steps.get(shape.name).is_none_or(|step| matches!(step.state, StepState::Waiting(_)))
        };
        if !shapes.iter().all(|shape| waits(one, shape)) {
            return None;
        }
        for shape in shapes {
            one.offer(&shape, now_ms);
        }
        let held = one.held();
        let step = one.steps.get_mut(name)?;
        (step.state, step.lease, step.attempts) = (StepState::Completed, None, step.attempts + 1);
        step.saved.clear();
        one.open_steps -= 1;
        let (left, stopping) = (one.open_steps, one.cancel_requested);
        Some(if left == 0 {
            self.end(place, Ending::Completed, "", ops::OUTPUT, now_ms);
            Some(Ending::Completed)
        } else if stopping && held == 1 {
            self.end(place, Ending::Cancelled, "cancelled", &[], now_ms);
            Some(Ending::Cancelled)
        } else {
            None
        })
    }

    fn failed(
        &mut self,
        place: usize,
        name: &str,
        (again, random): (Again, u64),
        now_ms: u64,
    ) -> Option<Ending> {
        let one = &mut self.instances[place];
        let step = one.steps.get_mut(name)?;
        step.attempts += 1;
        step.failed += 1;
        (step.lease, step.why) = (None, WHY);
        let pause = match again {
            Again::After(pause) => pause.as_millis() as u64,
            Again::AsPlanned => step.pause(now_ms, random),
            Again::Never => return Some(self.failed_for_good(place, name, WHY, now_ms)),
        };
        if one.cancel_requested {
            return Some(self.failed_for_good(place, name, WHY, now_ms));
        }
        if step.is_over(now_ms + pause) {
            step.stop(now_ms);
        } else {
            step.state = StepState::Ready(now_ms + pause);
        }
        None
    }

    pub(super) fn failed_for_good(&mut self, place: usize, name: &str, why: &str, now_ms: u64) -> Ending {
        let one = &mut self.instances[place];
        one.steps.get_mut(name).expect("it was failed").state = StepState::Failed;
        one.open_steps -= 1;
        let ending = if one.cancel_requested { Ending::Cancelled } else { Ending::Failed };
        self.end(place, ending, &format!("step {name:?} failed: {why}"), &[], now_ms);
        ending
    }

    /// The input of an instance and the result of its step `a`.
    #[allow(clippy::type_complexity, reason = "two answers of the engine as they are")]
    pub fn payloads(
        self,
        place: Option<usize>,
        got: &(Result<Option<Vec<u8>>>, Result<Option<Vec<u8>>>),
        at: &At,
    ) -> Left {
        let (input, result) = got;
        let Some(one) = place.map(|place| &self.instances[place]) else {
            return match (input, result) {
                _ if at.excused() || self.in_doubt() => Ok(vec![self]),
                (Ok(None), Err(err)) if err.kind() == ErrorKind::NotFound => Ok(vec![self]),
                _ => Err(format!("an id that was never given has payloads: {got:?}")),
            };
        };
        let (expired, excused) = (one.expired(at.now_ms), at.excused() || one.doubtful);
        let due = one.steps.get("a").filter(|step| step.state == StepState::Completed);
        let due = due.map(|_| ops::RESULT.to_vec());
        let input_right = match input {
            Ok(Some(bytes)) => *bytes == ops::input(&one.launching) && !one.gone,
            Ok(None) => expired,
            Err(err) => of_the_world(err) && excused,
        };
        let result_right = match result {
            // Its steps go before its head, so a crash may leave the head alone.
            Ok(bytes) => (*bytes == due && !one.gone) || (bytes.is_none() && expired),
            Err(err) if err.kind() == ErrorKind::NotFound => expired,
            Err(err) => of_the_world(err) && excused,
        };
        if input_right && result_right { Ok(vec![self]) } else { Err(format!("{got:?} should be {one:?}")) }
    }
}

impl One {
    /// One parent of the step is done.
    fn offer(&mut self, shape: &StepShape, now_ms: u64) {
        let ready = |parents: u32| match parents {
            0 => StepState::Ready(now_ms),
            parents => StepState::Waiting(parents),
        };
        match self.steps.get_mut(shape.name) {
            None => {
                let step = Step::new(shape, ready(shape.parents.saturating_sub(1)));
                self.steps.insert(shape.name.to_owned(), step);
                self.open_steps += 1;
            }
            Some(step) => {
                if let StepState::Waiting(parents) = step.state {
                    step.state = ready(parents.saturating_sub(1));
                    step.counted_ms = now_ms;
                }
            }
        }
    }
}
