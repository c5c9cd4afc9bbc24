//! Making a move: persist, publish, wait, act.
//!
//! Invariant I7: the record is durable in both slots before the register is told. The wait for everybody who acted on the earlier status
//! begins after that; who acts next asks [`Drive::waited`](crate::tenant::control::Drive).

use cutover_formats::meta::{EndedMigration, MigrationRecord, Outcome, TenantRecord};
use cutover_formats::{Phase, Role};

use super::phase::{self, Move};
use crate::catalog::StoreSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::shared::Thread;
use crate::sync::Instant;
use crate::sync::atomic::Ordering;
use crate::tenant::Inner;
use crate::tenant::control::{Control, CopyProgress, Drive};
use crate::tenant::stragglers::MoveProgress;

/// Free bytes without which no migration begins.
const FREE_BYTES: u64 = 64 << 20;
/// So many of a tenant's ended migrations are remembered: what somebody asks for again was asked for before not long ago.
pub(crate) const ENDED: usize = 32;

/// Refuses a move that is not legal in the present phase, in words.
pub(crate) fn check_legal(control: &Control, tried: Move) -> Result<()> {
    control.check_exists()?;
    match phase::next(control.record().status.phase, tried) {
        Ok(_) => Ok(()),
        Err(illegal) => Err(Error::new(ErrorKind::IllegalMove, illegal.to_string())),
    }
}

/// After a write that was in doubt the record may be ahead of what is published: it is not any more.
pub(crate) fn settle(tenant: &Inner, control: &mut Control) -> Result<()> {
    control.settle()?;
    let published = tenant.register.read().1;
    if control.check_exists().is_ok() && published.epoch != control.record().status.epoch {
        publish(tenant, control, published.phase);
    }
    Ok(())
}

/// Changes the record without changing the status.
pub(crate) fn persist(
    tenant: &Inner,
    control: &mut Control,
    who: &str,
    why: &str,
    change: impl FnOnce(&mut TenantRecord),
) -> Result<()> {
    control.persist(tenant.shared.now_ms(), who, why, change)?;
    tenant.shared.wake(Thread::Driver);
    Ok(())
}

/// Begins a migration. Returns its number.
pub(crate) fn start(
    tenant: &Inner,
    control: &mut Control,
    target: &StoreSpec,
    migration: impl FnOnce(u64, u64) -> MigrationRecord,
) -> Result<u64> {
    check_legal(control, Move::Start)?;
    let shared = &tenant.shared;
    shared.catalog.check(target)?;
    check_space(&shared.catalog.directory_for(target))?;
    let record = control.record();
    let (now, retiring) = (record.status.initial, record.retire.clone());
    let space = shared.catalog.place(target, tenant.id, |id| {
        let problem = if id == now {
            "the tenant is in it already; name another path for the same driver"
        } else if retiring.contains(&id) {
            "the tenant's earlier rows are still being removed from it"
        } else {
            return None;
        };
        Some(Error::new(ErrorKind::InvalidInput, format!("{id} cannot be the target: {problem}")))
    })?;
    tenant.forget_dropped()?;
    let epoch = control.next_epoch();
    let status = phase::after(&control.record().status, Move::Start, Some(space.id), epoch)
        .map_err(|illegal| Error::new(ErrorKind::IllegalMove, illegal.to_string()))?;
    let now_ms = shared.now_ms();
    let why = format!("to {} ({})", space.id, space.driver);
    tenant.spaces.write().push(space);
    // If this fails, whether it was written is read back before anything else; until then the store stays.
    control.persist(now_ms, "operator", &why, |record| {
        record.status = status;
        record.entered_ms = now_ms;
        record.migration = Some(migration(epoch, now_ms));
    })?;
    publish(tenant, control, Phase::Stable);
    Ok(epoch)
}

/// Makes a move other than the start.
pub(crate) fn make(tenant: &Inner, control: &mut Control, made: Move, who: &str, why: &str) -> Result<()> {
    check_legal(control, made)?;
    let before = control.record().status;
    let abandon = control.record().migration.as_ref().is_some_and(|migration| migration.abandon);
    let left = phase::left_behind(before.phase);
    if matches!(made, Move::Switch | Move::Complete | Move::Reverse) {
        // Only to be named, should a store hang. Nobody makes a transition while holding one, so it goes before that.
        let pin = tenant.shared.pins.pin(tenant.id, "sync a store before a move");
        for role in [Role::Initial, Role::Target] {
            // What other moves rely on being in a store is durable there, at every durability level.
            if !(abandon && left == Some(role)) {
                tenant.space(before.store(role))?.sync()?;
            }
        }
        drop(pin);
        // What was compared must not have been lost since, or this sync has made something else durable.
        if control.drive.verified && control.drive.mends != tenant.mends.load(Ordering::Acquire) {
            let message = "a store was opened again meanwhile; both are compared once more";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
    let epoch = control.next_epoch();
    let status = phase::after(&before, made, None, epoch)
        .map_err(|illegal| Error::new(ErrorKind::IllegalMove, illegal.to_string()))?;
    let now_ms = tenant.shared.now_ms();
    control.persist(now_ms, who, why, |record| {
        record.status = status;
        record.entered_ms = now_ms;
        if status.phase == Phase::Stable {
            let (id, run) =
                record.migration.take().map_or((0, None), |migration| (migration.id, migration.run));
            let outcome = match before.phase {
                Phase::PreMigration => Outcome::Cancelled,
                Phase::PostMigration => Outcome::Completed,
                _ => Outcome::RolledBack,
            };
            if record.ended.len() >= ENDED {
                record.ended.remove(0);
            }
            record.ended.push(EndedMigration { id, run, outcome, at_ms: now_ms });
            record.retire.extend(left.and_then(|role| before.store(role)));
        } else if let Some(migration) = &mut record.migration
            && made == Move::Reverse
        {
            // What was to be given up was the other store.
            migration.abandon = false;
            migration.goal = match status.phase {
                Phase::Migration | Phase::PostMigration => Role::Target,
                _ => Role::Initial,
            };
        }
    })?;
    publish(tenant, control, before.phase);
    Ok(())
}

/// Publishes what the record says and begins the wait for everybody who acted on the status before.
pub(crate) fn publish(tenant: &Inner, control: &mut Control, from: Phase) {
    let status = control.record().status;
    let (copy, moves) = match from {
        Phase::Stable => (CopyProgress::default(), MoveProgress::default()),
        _ => (control.drive.copy, control.drive.moves),
    };
    // Between these two nothing can come apart: definitions went to both stores throughout.
    let verified = status.phase == Phase::PreRollback && control.drive.verified;
    tenant.register.publish(status);
    let wait = tenant.shared.pins.begin_wait(tenant.id);
    let mends = control.drive.mends;
    control.drive = Drive {
        wait: Some(wait),
        published: Some(Instant::now()),
        verified,
        mends,
        copy,
        moves,
        ..Drive::default()
    };
    let (to, epoch) = (status.phase, status.epoch);
    tenant.shared.emit(|| Event::Phase { tenant: tenant.name.clone(), from, to, epoch });
    tenant.shared.wake(Thread::Driver);
}

fn check_space(path: &std::path::Path) -> Result<()> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let stat = rustix::fs::statvfs(there).map_err(|err| {
        Error::io(format!("asking for free space on {}", there.display()), std::io::Error::from(err))
    })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < FREE_BYTES {
        let message = format!(
            "{} has {} MiB free, less than the {} MiB that a migration begins with",
            there.display(),
            free >> 20,
            FREE_BYTES >> 20
        );
        return Err(Error::new(ErrorKind::Io, message));
    }
    Ok(())
}
