//! Workers: they claim steps whose parents are done, hold the lease as long as the task is said to run, and complete them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cutover::{Beat, Completion, Ending, NewStep, Settled, Task, Worker};
use parking_lot::Mutex;

use super::fleet::Member;
use super::{QUEUE, Site};
use crate::entry::Entry;
use crate::plan::{LONG_LIFE, micros};
use crate::workflow::Workflow;

/// How long a lease lasts without a heartbeat.
const LEASE: Duration = Duration::from_secs(30);
/// How often a lease that is being held is renewed.
const BEAT: Duration = Duration::from_secs(5);
/// How long a worker waits for a step before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(50);

/// Last tasks of long-lived instances, under lease until their time has come.
#[derive(Default)]
pub(super) struct Parked(Mutex<VecDeque<(Task, Arc<Member>)>>);

/// Works until told to stop.
pub(super) fn run(site: &Arc<Site>, parked: &Parked, number: u16) {
    let worker = match site.tenant.worker(format!("worker-{number}")) {
        Ok(worker) => worker,
        Err(err) => return site.fail(err.into()),
    };
    while !site.no_work.load(Ordering::Relaxed) && !site.given_up() {
        match worker.claim(QUEUE, LEASE, WAIT) {
            Ok(Some(task)) => work(site, &worker, parked, task),
            Ok(None) => {}
            Err(err) => site.trouble("claiming a step", &err),
        }
    }
}

fn work(site: &Site, worker: &Worker, parked: &Parked, task: Task) {
    let Some(workflow) = site.names.get(&task.definition).and_then(|place| site.workflows.get(*place)) else {
        return site
            .sink
            .put(Entry::Problem(format!("a step of the unknown definition `{}`", task.definition)));
    };
    let Some(place) = workflow.find(&task.step) else {
        let text =
            format!("`{}` has no task `{}`, and a step was claimed for it", task.definition, task.step);
        return site.sink.put(Entry::Problem(text));
    };
    let runtime = workflow.tasks.get(place).map_or(0.0, |found| found.runtime);
    if !hold_lease(site, worker, &task, runtime * site.plan.time_scale) {
        return;
    }
    let key = task.key.as_ref().map(|(_, key)| key.as_slice()).unwrap_or_default();
    // A launch whose answer was an error is in no fleet; its steps are done like all others.
    let member = site.fleet.of_key(key);
    if let Some(member) = &member
        && place == workflow.anchor()
    {
        if member.what.long && !is_due(site, member) {
            parked.0.lock().push_back((task, Arc::clone(member)));
            return;
        }
        member.close();
    }
    complete(site, worker, &task, workflow, place, member.as_deref());
}

/// Holds the lease so long; false if it was lost meanwhile.
fn hold_lease(site: &Site, worker: &Worker, task: &Task, seconds: f64) -> bool {
    let mut left = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    while !left.is_zero() && !site.given_up() {
        let nap = left.min(BEAT);
        std::thread::sleep(nap);
        left -= nap;
        if !left.is_zero() && !beat(site, worker, task) {
            return false;
        }
    }
    true
}

fn beat(site: &Site, worker: &Worker, task: &Task) -> bool {
    match worker.heartbeat(task) {
        Ok(Beat::Stale) => false,
        Ok(_) => true,
        Err(err) => {
            site.trouble("renewing a lease", &err);
            true
        }
    }
}

/// A long-lived instance ends 5 s after the first cutover that it has lived through, or with the load.
fn is_due(site: &Site, member: &Member) -> bool {
    site.board.with(|state| {
        let cutover = state.cutovers.get(member.what.cutovers);
        state.closing || cutover.is_some_and(|at| site.clock.now() >= at + micros(LONG_LIFE))
    })
}

fn complete(
    site: &Site,
    worker: &Worker,
    task: &Task,
    workflow: &Workflow,
    place: usize,
    member: Option<&Member>,
) {
    let children = workflow.tasks.get(place).into_iter().flat_map(|found| &found.children);
    let next = children.filter_map(|child| workflow.tasks.get(*child));
    let next = next.map(|child| NewStep::new(&child.id).queue(QUEUE).parents(child.parents)).collect();
    let began = site.clock.now();
    match worker.complete(task, Completion { result: Vec::new(), next, output: Vec::new() }) {
        Ok(Settled::Done { ended }) => {
            let at = site.clock.now();
            site.steps.fetch_add(1, Ordering::Relaxed);
            site.fleet.done(1);
            site.sink.put(Entry::Step);
            if let Some(ending) = ended {
                let completed = ending == Ending::Completed;
                site.sink.put(Entry::Ended { instance: task.instance, completed, began: Some(began), at });
                ended_in(site, task, member);
            }
        }
        Ok(Settled::Stale { .. }) => site.sink.put(Entry::Stale),
        Err(err) => site.trouble("completing a step", &err),
    }
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

/// Keeps the leases of parked tasks and completes those whose time has come.
pub(super) fn keep(site: &Arc<Site>, parked: &Parked) {
    let worker = match site.tenant.worker("keeper") {
        Ok(worker) => worker,
        Err(err) => return site.fail(err.into()),
    };
    let mut next_beat = site.clock.now() + micros(BEAT);
    while !site.no_work.load(Ordering::Relaxed) && !site.given_up() {
        std::thread::sleep(Duration::from_millis(20));
        let due: Vec<(Task, Arc<Member>)> = {
            let mut all = parked.0.lock();
            let (due, rest) = all.drain(..).partition(|(_, member)| is_due(site, member));
            *all = rest;
            due.into_iter().collect()
        };
        for (task, member) in due {
            member.close();
            let workflow = site.names.get(&task.definition).and_then(|place| site.workflows.get(*place));
            if let Some(workflow) = workflow {
                complete(site, &worker, &task, workflow, workflow.anchor(), Some(&member));
            }
        }
        if site.clock.now() >= next_beat {
            next_beat = site.clock.now() + micros(BEAT);
            site.fleet.tidy();
            renew(site, &worker, parked);
        }
    }
}

/// A parked task whose lease was lost is forgotten: another worker will claim it and park it again.
fn renew(site: &Site, worker: &Worker, parked: &Parked) {
    let mut all: VecDeque<(Task, Arc<Member>)> = std::mem::take(&mut *parked.0.lock());
    all.retain(|(task, _)| beat(site, worker, task));
    parked.0.lock().extend(all);
}
