//! Workers: they claim steps whose parents are done, hold the lease as long as the task is said to run, and complete them. Each keeps the last
//! tasks of long-lived instances that it met, under lease, until their time has come.
//!
//! One that freezes is left as it is, with its gate and what it holds, and its thread goes on as another worker. When its lease has run out
//! for certain it wakes up, and tries to go on. So freezing costs a thread no time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cutover::{
    Beat, Completion, Ending, Error, ErrorKind, Failure, Gate, NewStep, Saved, Settled, Task, Tenant,
    WorkerOptions,
};
use fastrand::Rng;

use super::fleet::Member;
use super::{QUEUE, Site, step};
use crate::entry::Entry;
use crate::plan::{LONG_LIFE, micros};
use crate::workflow::Workflow;

/// How long a worker waits for a step before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);
/// How long beyond its lease a worker freezes: another one has its step by then.
const STALL: Duration = Duration::from_millis(100);

struct Hands<'s> {
    site: &'s Site,
    gate: Gate,
    parked: Vec<(Task, Arc<Member>)>,
    /// When the leases of what is parked are renewed.
    next_beat: u64,
    /// Who this thread was before, the one who wakes up first in front.
    frozen: VecDeque<Frozen>,
    options: WorkerOptions,
    rng: Rng,
    /// Its runner does not act any more: workers of another one do.
    replaced: bool,
}

/// A worker of whom nothing is heard.
struct Frozen {
    gate: Gate,
    task: Task,
    next: Vec<NewStep>,
    wakes_at: u64,
}

/// Works until told to stop, or until its runner has handed the tenant over.
pub(super) fn run(site: &Site, tenant: &Tenant, number: u16) {
    let options = WorkerOptions::new(format!("worker-{number}")).limit(usize::MAX);
    let gate = match tenant.register(options.clone()) {
        Ok(gate) => gate,
        Err(err) if is_replaced(&err) => return,
        Err(err) => return site.fail(err.into()),
    };
    let rng = Rng::with_seed(site.plan.seed ^ (site.clock.now() << 16) ^ u64::from(number) << 8);
    let (parked, frozen) = (Vec::new(), VecDeque::new());
    let mut hands = Hands { site, gate, parked, next_beat: 0, frozen, options, rng, replaced: false };
    while !hands.replaced && !site.no_work.load(Ordering::Relaxed) && !site.given_up() {
        match hands.gate.claim(QUEUE, hands.wait()) {
            Ok(Some(task)) => hands.work(tenant, task),
            Ok(None) => {}
            Err(err) if err.kind() == ErrorKind::LeaseExpired => hands.begin_anew(),
            Err(err) => hands.trouble("claiming a step", &err),
        }
        hands.complete_parked();
        hands.renew_parked();
        hands.wake_frozen();
    }
    hands.wake_all();
}

/// Whether a worker is told that its runner does not act.
fn is_replaced(err: &Error) -> bool {
    matches!(err.kind(), ErrorKind::NotPrimary | ErrorKind::Deactivated)
}

impl Hands<'_> {
    /// An error that is not expected of a runner that acts.
    fn trouble(&mut self, doing: &str, err: &Error) {
        if is_replaced(err) {
            self.replaced = true;
        } else {
            self.site.trouble(doing, err);
        }
    }

    fn work(&mut self, tenant: &Tenant, task: Task) {
        let site = self.site;
        let Some(workflow) = site.names.get(&task.definition).and_then(|place| site.workflows.get(*place))
        else {
            let text = format!("a step of the unknown definition `{}`", task.definition);
            return site.sink.put(Entry::Problem(text));
        };
        let Some(place) = workflow.find(&task.step) else {
            let text =
                format!("`{}` has no task `{}`, and a step was claimed for it", task.definition, task.step);
            return site.sink.put(Entry::Problem(text));
        };
        let runtime = workflow.tasks.get(place).map_or(0.0, |found| found.runtime);
        if !self.hold_lease(&task, runtime * site.plan.time_scale) {
            return;
        }
        if self.rng.f64() < site.plan.stall_rate && site.stalls_first(&task) {
            return self.freeze(tenant, task, next_of(workflow, place));
        }
        let key = task.key.as_ref().map(|(_, key)| key.as_slice()).unwrap_or_default();
        // A launch whose answer was an error is in no fleet; its steps are done like all others.
        let member = site.fleet.of_key(key);
        if let Some(member) = &member
            && place == workflow.anchor()
        {
            if member.what.long && !is_due(site, member) {
                self.parked.push((task, Arc::clone(member)));
                return;
            }
            member.close();
        }
        self.complete(&task, workflow, place, member.as_deref());
    }

    /// Holds the lease so long; false if it was lost meanwhile.
    fn hold_lease(&mut self, task: &Task, seconds: f64) -> bool {
        let mut left = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        while !left.is_zero() && !self.site.given_up() {
            let nap = left.min(self.site.plan.heartbeats().every);
            std::thread::sleep(nap);
            left -= nap;
            self.renew_parked();
            if !left.is_zero() && !self.beat(task) {
                return false;
            }
        }
        true
    }

    /// The worker is not heard of any more; the thread goes on as another one, and what was parked goes to others.
    fn freeze(&mut self, tenant: &Tenant, task: Task, next: Vec<NewStep>) {
        let wakes_at = self.site.clock.now() + micros(self.site.plan.heartbeats().lease() + STALL);
        match tenant.register(self.options.clone()) {
            Ok(gate) => {
                let gate = std::mem::replace(&mut self.gate, gate);
                self.parked.clear();
                self.frozen.push_back(Frozen { gate, task, next, wakes_at });
            }
            Err(err) => self.trouble("registering", &err),
        }
    }

    /// How long it may wait for a step.
    fn wait(&self) -> Duration {
        let wakes_at = self.frozen.front().map(|frozen| frozen.wakes_at);
        wakes_at.map_or(WAIT, |at| Duration::from_micros(at.saturating_sub(self.site.clock.now())).min(WAIT))
    }

    fn wake_frozen(&mut self) {
        while self.frozen.front().is_some_and(|frozen| frozen.wakes_at <= self.site.clock.now()) {
            self.frozen.pop_front().into_iter().for_each(|frozen| self.wake(frozen));
        }
    }

    /// Whoever is frozen is heard of once more, also after the last step.
    fn wake_all(&mut self) {
        while let Some(frozen) = self.frozen.pop_front() {
            let left = frozen.wakes_at.saturating_sub(self.site.clock.now());
            std::thread::sleep(Duration::from_micros(left));
            self.wake(frozen);
        }
    }

    /// Its lease has run out, and it goes on as if nothing had been.
    fn wake(&self, frozen: Frozen) {
        let Frozen { gate, task, next, .. } = frozen;
        let mut passed = Vec::new();
        let mut note = |what: &str, refused: cutover::Result<bool>| match refused {
            Ok(true) => {}
            Ok(false) => passed.push(format!("its {what}")),
            // A runner that does not act any more is refused as such.
            Err(err) if is_replaced(&err) || err.kind() == ErrorKind::LeaseExpired => {}
            Err(err) => passed.push(format!("its {what}: {err}")),
        };
        let settled = |settled| matches!(settled, Settled::Refused(_));
        let result = Completion { result: Vec::new(), next, output: Vec::new() };
        note("state", gate.save(&task, b"late").map(|saved| matches!(saved, Saved::Refused(_))));
        note("failure", gate.fail(&task, &Failure::default()).map(settled));
        note("result", gate.complete(&task, result).map(settled));
        note("heartbeat", gate.heartbeat(&task).map(|beat| matches!(beat, Beat::Refused(_))));
        note("claim", gate.claim(QUEUE, Duration::ZERO).map(|_| false));
        self.site.sink.put(Entry::Stalled { passed });
    }

    fn beat(&mut self, task: &Task) -> bool {
        match self.gate.heartbeat(task) {
            Ok(Beat::Refused(_)) => false,
            Ok(_) => true,
            Err(err) => {
                self.trouble("renewing a lease", &err);
                !self.replaced
            }
        }
    }

    /// What it held goes to others, who park it again.
    fn begin_anew(&mut self) {
        self.parked.clear();
        if let Err(err) = self.gate.register_anew() {
            self.trouble("registering anew", &err);
        }
    }

    fn complete_parked(&mut self) {
        let site = self.site;
        let (due, rest) = self.parked.drain(..).partition(|(_, member)| is_due(site, member));
        self.parked = rest;
        let due: Vec<(Task, Arc<Member>)> = due;
        for (task, member) in due {
            member.close();
            let workflow = site.names.get(&task.definition).and_then(|place| site.workflows.get(*place));
            if let Some(workflow) = workflow {
                self.complete(&task, workflow, workflow.anchor(), Some(&member));
            }
        }
    }

    fn complete(&mut self, task: &Task, workflow: &Workflow, place: usize, member: Option<&Member>) {
        let site = self.site;
        let next = next_of(workflow, place);
        let began = site.clock.now();
        match self.gate.complete(task, Completion { result: Vec::new(), next, output: Vec::new() }) {
            Ok(Settled::Done { ended }) => {
                let at = site.clock.now();
                site.steps.fetch_add(1, Ordering::Relaxed);
                site.fleet.done(1);
                site.sink.put(Entry::Step { instance: task.instance, task: place as u32 });
                if let Some(ending) = ended {
                    let completed = ending == Ending::Completed;
                    site.sink.put(Entry::Ended {
                        instance: task.instance,
                        completed,
                        began: Some(began),
                        at,
                    });
                    ended_in(site, task, member);
                }
            }
            Ok(Settled::Refused(_)) => site.sink.put(Entry::Stale),
            Err(err) => self.trouble("completing a step", &err),
        }
    }

    /// A parked task whose lease was lost is forgotten: whoever claims it parks it again.
    fn renew_parked(&mut self) {
        if self.site.clock.now() < self.next_beat {
            return;
        }
        self.next_beat = self.site.clock.now() + micros(self.site.plan.heartbeats().every) / 2;
        self.site.fleet.tidy();
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|(task, _)| self.beat(task));
        self.parked = parked;
    }
}

/// A long-lived instance ends 5 s after the first cutover that it has lived through, or with the load: where it can be moved, only then.
fn is_due(site: &Site, member: &Member) -> bool {
    site.board.with(|state| {
        let cutover = state.cutovers.get(member.what.cutovers).filter(|_| site.plan.move_older_us.is_none());
        state.closing || cutover.is_some_and(|at| site.clock.now() >= at + micros(LONG_LIFE))
    })
}

fn next_of(workflow: &Workflow, place: usize) -> Vec<NewStep> {
    let children = workflow.tasks.get(place).into_iter().flat_map(|found| &found.children);
    let next = children.filter_map(|child| workflow.tasks.get(*child));
    next.map(|child| step(&child.id).parents(child.parents)).collect()
}

/// Right after its end an instance is looked up by id and by key, in whatever phase that is.
fn ended_in(site: &Site, task: &Task, member: Option<&Member>) {
    let Some(member) = member else { return };
    let (scope, key) = (member.what.scope, member.what.key.clone());
    let by_id = site.tenant.instance(task.instance);
    let by_key = site.tenant.instance_by_key(scope.name(), key.as_bytes());
    for (how, found) in [("by id", by_id), ("by key", by_key)] {
        match found {
            Ok(Some(found)) if found.id == task.instance && found.ending() == Some(Ending::Completed) => {}
            Ok(found) => {
                let seen = found.map_or_else(|| "nothing".to_owned(), |found| format!("{found:?}"));
                let text =
                    format!("instance {} was looked up {how} right after its end: {seen}", task.instance);
                site.sink.put(Entry::Problem(text));
            }
            Err(err) => site.trouble("looking up an instance", &err),
        }
    }
    site.fleet.remove(member);
    site.fleet.remember(scope, key);
}
