//! The driver: waits for pins, makes the moves that it is time for, retires stores. One step for one tenant at a time; a thread
//! of the engine calls it for all of them in turn.

use std::time::Duration;

use cutover_formats::{Family, Phase, Prefix, Role, RowId, StoreId};

use super::decide::{Facts, Next, decide};
use super::{phase, transition};
use crate::catalog::Released;
use crate::error::Result;
use crate::event::Event;
use crate::shared::Thread;
use crate::status::{Holder, Waiting};
use crate::store::space::Space;
use crate::sync::atomic::Ordering;
use crate::tenant::control::Control;
use crate::tenant::{Inner, describe};

/// How long one step waits for pins before it turns to other tenants.
const PATIENCE: Duration = Duration::from_millis(1);
/// After this time a wait is reported as something that stands in the way. It goes on.
const OVERDUE: Duration = Duration::from_secs(5);
/// How often it is looked whether a store has drained.
const DRAIN: Duration = Duration::from_millis(50);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// How long to wait for the control of a tenant that somebody has, perhaps in a store that hangs.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

/// The families that have to be empty before a store is given up, in the order in which blockers are named.
const TRANSIENT: [Family; 6] =
    [Family::Instances, Family::Keys, Family::Requests, Family::Steps, Family::Ready, Family::Expiry];

/// Does what it is time for, and says when to look again.
pub(crate) fn step(tenant: &Inner) -> Option<Duration> {
    // Whoever has it may hang in a store, and other tenants wait for this thread.
    let Some(mut control) = tenant.control.try_lock_for(SHORT) else { return Some(DRAIN) };
    // Under the lock, as whoever steers: once closing has had it, nothing is written any more.
    if tenant.shared.is_closed() {
        return None;
    }
    let next = step_locked(tenant, &mut control);
    let mut shown = tenant.shown.lock();
    *shown = control.shown(String::new(), shown.quarantined);
    drop(shown);
    next
}

fn step_locked(tenant: &Inner, control: &mut Control) -> Option<Duration> {
    match try_step(tenant, control) {
        Ok(next) => {
            if std::mem::take(&mut control.drive.failed) {
                control.drive.error = None;
            }
            next
        }
        Err(_) if tenant.shared.is_closed() => None,
        Err(err) => {
            report(tenant, control, err.to_string());
            control.drive.failed = true;
            Some(RETRY)
        }
    }
}

fn try_step(tenant: &Inner, control: &mut Control) -> Result<Option<Duration>> {
    transition::settle(tenant, control)?;
    if control.check_exists().is_err() {
        return Ok(None);
    }
    if !control.drive.waited && !wait(tenant, control) {
        return Ok(Some(PATIENCE));
    }
    if !control.record().retire.is_empty() {
        return retire(tenant, control);
    }
    match decide(&facts(tenant, control)?) {
        Next::Move(made) => {
            transition::make(tenant, control, made, "driver", "ready")?;
            Ok(Some(Duration::ZERO))
        }
        Next::Copy | Next::Verify => {
            tenant.shared.wake(Thread::Replicator);
            Ok(Some(DRAIN))
        }
        Next::Drain => {
            // Under the control: no transition is made while an instance is on its way.
            let moving = tenant.move_stragglers(control)?;
            let pause = if tenant.carry_requests()? { Duration::ZERO } else { DRAIN };
            Ok(Some(moving.map_or(pause, |moving| moving.min(pause))))
        }
        Next::Dwell => Ok(Some(dwell_left(tenant, control))),
        Next::Wait | Next::Hold | Next::Rest | Next::Quarantine => Ok(None),
    }
}

/// What is known now. Looks into the store that is being left, if it could be time to complete.
pub(crate) fn facts(tenant: &Inner, control: &Control) -> Result<Facts> {
    let record = control.record();
    let phase = record.status.phase;
    let migration = record.migration.as_ref();
    let abandon = migration.is_some_and(|migration| migration.abandon);
    let may_complete = matches!(phase, Phase::PostMigration | Phase::PostRollback);
    let fresh = control.drive.mends == tenant.mends.load(Ordering::Acquire);
    let drained =
        may_complete && control.drive.waited && !abandon && blockers(tenant, control, 1)?.is_empty();
    Ok(Facts {
        phase,
        goal: migration.map_or(Role::Initial, |migration| migration.goal),
        paused: migration.is_some_and(|migration| migration.paused),
        waited: control.drive.waited,
        copied: control.drive.copied && fresh,
        verified: control.drive.verified && fresh && (abandon || !tenant.has_gaps()?),
        dwelt: dwell_left(tenant, control).is_zero(),
        hold_switch: migration.is_some_and(|migration| migration.hold_switch),
        hold_complete: migration.is_some_and(|migration| migration.hold_complete),
        drained,
        unreadable: phase != Phase::Stable && !abandon && tenant.has_unreadable_definitions()?,
        abandon,
    })
}

/// What the store that is being left still holds, in words, with ids; empty if it has drained.
pub(crate) fn left_in(tenant: &Inner, control: &Control) -> Result<Vec<String>> {
    blockers(tenant, control, 5)
}

fn blockers(tenant: &Inner, control: &Control, most: usize) -> Result<Vec<String>> {
    let status = control.record().status;
    let Some(role) = phase::left_behind(status.phase) else { return Ok(Vec::new()) };
    let space = tenant.space(status.store(role))?;
    // Only to be named, should the store hang.
    let _pin = tenant.shared.pins.pin(tenant.id, "look at what is left to drain");
    let mut found = Vec::new();
    for family in TRANSIENT {
        let mut after: Option<RowId<'static>> = None;
        while found.len() < most {
            let Some(row) = first_after(tenant, &space, family, after.as_ref())? else { break };
            found.push(describe(&row));
            after = Some(row);
        }
    }
    for intents in [Prefix::Replaces, Prefix::Moves] {
        if found.len() < most
            && let Some(row) = space.first(tenant.id, intents)?
        {
            found.push(describe(&row));
        }
    }
    if found.len() < most {
        found.extend(tenant.first_quarantined(&space)?);
    }
    Ok(found)
}

fn first_after(
    tenant: &Inner,
    space: &Space,
    family: Family,
    after: Option<&RowId<'static>>,
) -> Result<Option<RowId<'static>>> {
    let mut first = None;
    space.scan(tenant.id, Prefix::All(family), after, |id, _| {
        first = Some(id);
        Ok(std::ops::ControlFlow::Break(()))
    })?;
    Ok(first)
}

/// What a migration waits for, in words.
pub(crate) fn waiting_for(tenant: &Inner, control: &Control) -> String {
    let record = control.record();
    if !control.drive.waited {
        return waiting_for_operations(tenant);
    }
    if !record.retire.is_empty() {
        return "the rows of the last migration to be removed".to_owned();
    }
    let Ok(facts) = facts(tenant, control) else { return "a store that cannot be read".to_owned() };
    match decide(&facts) {
        Next::Rest if facts.paused => "being resumed".to_owned(),
        Next::Rest | Next::Move(_) => String::new(),
        Next::Wait => waiting_for_operations(tenant),
        Next::Copy => "definitions to be copied".to_owned(),
        Next::Verify => "the stores to be compared".to_owned(),
        Next::Drain => {
            let left = left_in(tenant, control).unwrap_or_default();
            format!("the store that is left to drain: {}", left.join("; "))
        }
        Next::Quarantine => unreadable(tenant),
        Next::Dwell => "the dwell of the phase to pass".to_owned(),
        Next::Hold => "being released".to_owned(),
    }
}

fn of_workers(behind: &[String]) -> String {
    format!("workers that keep the earlier status: {}", behind.join(", "))
}

fn waiting_for_operations(tenant: &Inner) -> String {
    let what = "operations under the earlier status";
    let slow = slow(tenant);
    let epoch = tenant.register.read().1.epoch;
    let behind = tenant.sessions.behind(epoch, tenant.shared.clock.monotonic());
    if slow.is_empty() && !behind.is_empty() {
        return of_workers(&behind);
    }
    if slow.is_empty() { what.to_owned() } else { format!("{what}: {}", slow.join("; ")) }
}

/// The operations of a tenant that have been running for long, in words: thread, what it does, since when. Reads no store.
pub(crate) fn slow(tenant: &Inner) -> Vec<String> {
    match tenant.shared.pins.begin_wait(tenant.id).poll() {
        Waiting::Done => Vec::new(),
        Waiting::On(holders) => {
            let long = holders.iter().filter(|holder| holder.since.elapsed() > SHORT);
            long.map(Holder::to_string).collect()
        }
    }
}

/// The definitions that cannot be read, in words.
pub(crate) fn unreadable(tenant: &Inner) -> String {
    const NAMED: usize = 5;
    let listed = tenant.quarantine().unwrap_or_default();
    let of_definitions = listed.iter().filter(|entry| entry.family == Family::Definitions);
    let whats: Vec<&str> = of_definitions.map(|entry| entry.what.as_str()).collect();
    let more = whats.len().saturating_sub(NAMED);
    let named: Vec<&str> = whats.into_iter().take(NAMED).collect();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("definitions that cannot be read to be retried or dropped: {}{more}", named.join("; "))
}

fn dwell_left(tenant: &Inner, control: &Control) -> Duration {
    let record = control.record();
    let at = Phase::ALL.iter().position(|phase| *phase == record.status.phase);
    let dwell = record.migration.as_ref().zip(at).and_then(|(migration, at)| migration.dwell_ms.get(at));
    let until = record.entered_ms.saturating_add(dwell.copied().unwrap_or(0));
    Duration::from_millis(until.saturating_sub(tenant.shared.clock.peek_ms()))
}

/// Waits a little for everybody who acted on an earlier status. Says whether that is over.
fn wait(tenant: &Inner, control: &mut Control) -> bool {
    let mut wait = match control.drive.wait.take() {
        Some(wait) => wait,
        None => tenant.shared.pins.begin_wait(tenant.id),
    };
    if let Err(holders) = wait.wait(PATIENCE) {
        control.drive.wait = Some(wait);
        let overdue = control.drive.published.is_some_and(|at| at.elapsed() > OVERDUE);
        if overdue {
            report(tenant, control, overdue_message(&holders));
        }
        return false;
    }
    let status = control.record().status;
    let behind = tenant.sessions.behind(status.epoch, tenant.shared.clock.monotonic());
    if !behind.is_empty() {
        if control.drive.published.is_some_and(|at| at.elapsed() > OVERDUE) {
            report(tenant, control, format!("the phase waits for {}", of_workers(&behind)));
        }
        return false;
    }
    control.drive.waited = true;
    control.drive.error = None;
    let took = control.drive.published.map(|at| at.elapsed()).unwrap_or_default();
    let (phase, epoch) = (status.phase, status.epoch);
    tenant.shared.emit(|| Event::Waited { tenant: tenant.name.clone(), phase, epoch, took });
    true
}

fn overdue_message(holders: &[Holder]) -> String {
    let names: Vec<String> = holders
        .iter()
        .map(|holder| {
            let since = holder.since.elapsed().as_millis();
            format!("{:?} in {:?} for {since} ms", holder.thread, holder.operation)
        })
        .collect();
    format!("the phase waits for {}", names.join(", "))
}

fn report(tenant: &Inner, control: &mut Control, error: String) {
    if control.drive.error.as_ref() != Some(&error) {
        control.drive.error = Some(error.clone());
        tenant.shared.emit(|| Event::Failed { tenant: tenant.name.clone(), error });
    }
}

/// Removes what the tenant has left behind: its rows, and the store when nobody else uses it. After the wait of the status that does not
/// name the store any more.
fn retire(tenant: &Inner, control: &mut Control) -> Result<Option<Duration>> {
    let Some(id) = control.record().retire.first().copied() else { return Ok(None) };
    let shared = &tenant.shared;
    tenant.forget_space(id);
    if leave_store(tenant, id)? == Released::Busy {
        return Ok(Some(PATIENCE));
    }
    let at_ms = shared.now_ms();
    control.persist(at_ms, "driver", &format!("{id} left"), |record| {
        record.retire.retain(|other: &StoreId| *other != id);
    })?;
    Ok(Some(Duration::ZERO))
}

/// Removes the tenant's rows from a store that it does not use any more, and the store if nobody else does.
pub(crate) fn leave_store(tenant: &Inner, id: StoreId) -> Result<Released> {
    let catalog = &tenant.shared.catalog;
    match catalog.release(id, tenant.id, false)? {
        Released::Shared => {
            catalog.use_store(id, tenant.id)?.remove_tenant(tenant.id)?;
            catalog.release(id, tenant.id, true)
        }
        other => Ok(other),
    }
}
