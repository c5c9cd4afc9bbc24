//! Launchers: each knows what the answer must be before it calls, and never calls twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cutover::{ConflictPolicy, Ending, Launch, Launched, ReusePolicy};
use cutover_formats::Phase;
use fastrand::Rng;

use super::fleet::Member;
use super::{Site, step};
use crate::entry::{Answer, Entry, Try};
use crate::failure::{Failure, Result};
use crate::ledger::Resume;
use crate::plan::{TAIL, micros};

/// One fresh launch in so many uses the key of an ended instance again.
const REUSE_ONE_IN: usize = 10;
/// Open tasks from which on a closed loop slows down while a store drains.
const BACKLOG: u64 = 5_000;
/// Launches per second of all launchers together while it is slow.
const SLOW_PACE: f64 = 10.0;
/// Live instances at which launchers stop, so that memory is bounded whatever the rate.
const MOST_LIVE: usize = 100_000;

/// Launches until told to stop.
pub(super) fn run(site: &Arc<Site>, number: u16) {
    let mut launcher = Launcher {
        site,
        number: u64::from(number),
        rng: Rng::with_seed(site.plan.seed ^ (site.clock.now() << 16) ^ u64::from(number)),
        slot: 0,
    };
    while !site.no_launches.load(Ordering::Relaxed) && !site.given_up() {
        let due = launcher.wait_for_turn();
        if !launcher.wait_for_room() {
            break;
        }
        launcher.launch(due);
    }
}

struct Launcher<'s> {
    site: &'s Arc<Site>,
    number: u64,
    rng: Rng,
    slot: u64,
}

impl Launcher<'_> {
    /// Sleeps until the next launch is due and says when that is, as far as latency is to be counted from then.
    fn wait_for_turn(&mut self) -> Option<u64> {
        let (site, launchers) = (self.site, u64::from(self.site.plan.launchers));
        let rate = site.plan.rate.unwrap_or_else(|| pace(site));
        // All launchers share one grid of slots and take turns on it, so that they never bunch.
        let slot_us = 1e6 / rate;
        let elapsed = site.clock.now().saturating_sub(site.began) as f64;
        let current = (elapsed / slot_us) as u64;
        let next_turn = |after: u64| {
            let base = after - after % launchers + self.number;
            if base > after { base } else { base + launchers }
        };
        let paced = site.plan.rate.is_some();
        if paced {
            // At a fixed rate a late launcher catches up, and what it is late counts as latency.
            self.slot = if self.slot == 0 { next_turn(current) } else { self.slot + launchers };
        } else {
            self.slot = next_turn(current);
        }
        let due = site.began + (self.slot as f64 * slot_us) as u64;
        site.clock.sleep_until(due);
        paced.then_some(due)
    }

    /// Waits while there are too many live instances; false when told to stop. While all launchers do so, none is at work.
    fn wait_for_room(&self) -> bool {
        let site = self.site;
        if site.fleet.len() < MOST_LIVE {
            return true;
        }
        let launchers = u32::from(site.plan.launchers);
        if site.idle_launchers.fetch_add(1, Ordering::SeqCst) + 1 == launchers {
            site.sink.put(Entry::Down { at: site.clock.now() });
        }
        let stopped = || site.no_launches.load(Ordering::Relaxed) || site.given_up();
        while site.fleet.len() >= MOST_LIVE && !stopped() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if site.idle_launchers.fetch_sub(1, Ordering::SeqCst) == launchers {
            site.sink.put(Entry::Up { at: site.clock.now() });
        }
        !stopped()
    }

    fn launch(&mut self, due: Option<u64>) {
        let site = self.site;
        let launch = site.next_launch.fetch_add(1, Ordering::Relaxed);
        let repeat = self.rng.f64() < site.plan.duplicate_rate;
        if repeat && let Some(held) = site.fleet.hold(&mut self.rng) {
            let of = &held.member.what;
            let what = Try { launch, repeat, conflict: Some(held.instance), ..of.clone() };
            site.sink.put(Entry::Try { what: what.clone(), at: site.clock.now() });
            // The answer is told before the hold is let go: the holder was live all the time.
            call(site, &what, due, false);
            drop(held);
            return;
        }
        let scope = site.scope();
        let reused = if self.rng.usize(..REUSE_ONE_IN) == 0 {
            site.fleet.ended_key(scope, &mut self.rng)
        } else {
            None
        };
        let what = Try {
            launch,
            scope,
            key: reused.unwrap_or_else(|| format!("k{launch}")),
            workflow: self.rng.usize(..site.workflows.len().max(1)),
            long: self.rng.f64() < site.plan.long_lived,
            cutovers: site.board.with(|state| state.cutovers.len()),
            repeat,
            conflict: None,
        };
        let member = enlist(site, &what);
        site.sink.put(Entry::Try { what: what.clone(), at: site.clock.now() });
        settle(site, &member, call(site, &what, due, false));
    }
}

/// Launches per second in a closed loop. Full until the switch, so that the gaps around it are measured at the pace of those before it;
/// while a store drains it gives way, after the phase's dwell, to a backlog that the workers have not got through.
fn pace(site: &Site) -> f64 {
    let (phase, since) = site.board.with(|state| (state.phase, state.since));
    if !matches!(phase, Phase::PostMigration | Phase::PostRollback) {
        return site.plan.pace();
    }
    let measured = site.plan.dwell(phase).unwrap_or(TAIL).max(TAIL) + TAIL / 4;
    let young = site.clock.now().saturating_sub(since.max(site.began)) < micros(measured);
    if young || site.fleet.open_tasks() < BACKLOG { site.plan.pace() } else { SLOW_PACE }
}

fn enlist(site: &Site, what: &Try) -> Arc<Member> {
    let tasks = site.workflows.get(what.workflow).map_or(0, |workflow| workflow.tasks.len() as u64);
    site.fleet.add(what.clone(), tasks)
}

fn settle(site: &Site, member: &Arc<Member>, answer: Answer) {
    match answer {
        Answer::Started(instance) => {
            site.started.fetch_add(1, Ordering::Relaxed);
            site.fleet.started(member, instance);
        }
        // It failed, and whether it was launched nobody knows; nothing waits for it.
        _ => site.fleet.remove(member),
    }
}

/// Calls the engine once and tells the ledger what it answered.
fn call(site: &Site, what: &Try, due: Option<u64>, again: bool) -> Answer {
    let Some(workflow) = site.workflows.get(what.workflow) else {
        return Answer::Failed(format!("there is no workflow number {}", what.workflow));
    };
    let roots = workflow.tasks.iter().take(workflow.roots);
    let steps = roots.map(|task| step(&task.id));
    let mut launch = Launch::new(&workflow.name, 1)
        .key(what.scope.name(), what.key.as_bytes())
        .request_id(format!("{}/{}", site.plan.tenant, what.launch).as_bytes())
        .on_conflict(ConflictPolicy::Fail)
        .reuse(ReusePolicy::AllowDuplicate);
    for step in steps {
        launch = launch.step(step);
    }
    let called = site.clock.now();
    let result = site.tenant.launch(&launch);
    let at = site.clock.now();
    let answer = match result {
        Ok(Launched::Started(instance)) => Answer::Started(instance),
        Ok(Launched::Conflict { instance }) => Answer::Conflict(instance),
        Ok(other) => Answer::Failed(format!("answered {other:?}")),
        Err(err) => Answer::Failed(err.to_string()),
    };
    let took = at.saturating_sub(due.unwrap_or(called).min(called));
    site.sink.put(Entry::Ack { launch: what.launch, answer: answer.clone(), at, took, again });
    answer
}

/// Takes over from a killed process, before anything else happens to its instances: looks which have ended, then settles the
/// launches that were never answered by repeating them with their request ids.
pub(super) fn take_over(site: &Arc<Site>, resume: &Resume) -> Result<()> {
    for (what, id) in &resume.live {
        let instance = id.parse().map_err(|err| Failure::new(format!("the instance id {id}: {err}")))?;
        match site.tenant.instance(instance)? {
            Some(found) if found.ending().is_none() => {
                let member = enlist(site, what);
                site.fleet.started(&member, instance);
            }
            Some(found) => {
                let completed = found.ending() == Some(Ending::Completed);
                site.sink.put(Entry::Ended { instance, completed, began: None, at: site.clock.now() });
            }
            // Collected, which the ledger was told, or lost, which it will find out.
            None => {}
        }
    }
    for what in &resume.open {
        match what.conflict {
            Some(_) => drop(call(site, what, None, true)),
            None => {
                let member = enlist(site, what);
                settle(site, &member, call(site, what, None, true));
            }
        }
    }
    Ok(())
}
