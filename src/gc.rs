//! Garbage collection: what has ended goes when its time is over.
//!
//! It reads the expiry index, so its cost follows what expires and not what is stored. What to do about a row of the index is a pure
//! decision ([`Plan`]) from the record that it points at; a row may be stale, because a key was used again or a
//! deadline moved. It takes the same locks as everybody, works in bounded batches, and never touches definitions.

use std::sync::Arc;

use cutover_formats::record::{InstanceRecord, KeyRecord, RequestRecord};
use cutover_formats::{Expiring, Family, InstanceId, Prefix, Record, RowId, StoreId};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::store::Write;
use crate::store::space::{Changes, Space};
use crate::sync::atomic::Ordering;
use crate::tenant::{Inner, ready_row};

/// Rows of the index that one step looks at in each store.
const BATCH: usize = 256;
/// Rows of the index that are handled under their locks at once, in one commit: few, because launches wait for these locks.
const TOGETHER: usize = 16;
/// Steps that are removed in one commit.
const STEPS: usize = 512;

/// What to do about a row of the index whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Remove what it points at, and the row.
    Remove,
    /// Remove the row only: what it pointed at is gone or has another deadline.
    Forget,
}

fn plan_instance(record: Option<&InstanceRecord>, now_ms: u64) -> Plan {
    match record.and_then(|record| record.ended.as_ref()) {
        Some(end) if end.collect_ms <= now_ms => Plan::Remove,
        _ => Plan::Forget,
    }
}

fn plan_key(record: Option<&KeyRecord>, now_ms: u64) -> Plan {
    match record.and_then(|record| record.ended) {
        Some(end) if end.out_of_scope_ms <= now_ms => Plan::Remove,
        _ => Plan::Forget,
    }
}

fn plan_request(record: Option<&RequestRecord>, now_ms: u64) -> Plan {
    match record {
        Some(request) if request.until_ms <= now_ms => Plan::Remove,
        _ => Plan::Forget,
    }
}

/// Collects a batch of a tenant in each of its stores; a store that launches have left goes first, and alone while anything in it is
/// due, so that it drains however busy the other one is. Says when to come again, in milliseconds since 1970: a time that is over, if
/// there may be more; `u64::MAX` if nothing has a deadline.
pub(crate) fn step(tenant: &Inner) -> Result<u64> {
    let due = tenant.next_expiry.load(Ordering::Acquire);
    if due > tenant.shared.clock.peek_ms() {
        return Ok(due);
    }
    let now_ms = tenant.shared.now_ms();
    if due > now_ms {
        // Time stands still until its mark is durable.
        return Ok(due);
    }
    // Rows that are added from here on lower it again. Taken in one step: a row whose time is before `due` may have come since the look, from
    // somebody who read the clock long ago. And before the status is read: whoever lowered it, or opened a store again, did so under a
    // status and with stores that this operation has.
    let due = tenant.next_expiry.swap(u64::MAX, Ordering::AcqRel);
    let op = tenant.enter("collect").inspect_err(|_| tenant.expires_at(due))?;
    let mut failure = None;
    for space in op.by_id() {
        let next = match collect(tenant, space, due, now_ms) {
            Ok(next) => next,
            Err(err) => {
                // A store that fails, for good perhaps, does not keep the other one from being collected.
                tenant.expires_at(due);
                failure.get_or_insert(err);
                continue;
            }
        };
        if next <= now_ms && op.other.is_some() {
            // The other store was not looked at: what it has from `due` on still waits.
            tenant.expires_at(due);
            break;
        }
        tenant.expires_at(next);
    }
    failure.map_or_else(|| Ok(tenant.next_expiry.load(Ordering::Acquire)), Err)
}

/// Collects what is due in one store. Nothing is due before `from`: the remains of rows that were deleted there are not walked over again.
fn collect(tenant: &Inner, space: &Arc<Space>, from: u64, now_ms: u64) -> Result<u64> {
    // No instance has this number, so every row of that moment comes behind it.
    let first = Expiring::Instance(InstanceId::new(StoreId(0), 0, 0));
    let after = RowId::Expiry { at_ms: from, what: first };
    // The key of a row of the index says it all.
    let page = space.survey(tenant.id, Prefix::All(Family::Expiry), Some(&after), BATCH, u64::MAX)?;
    page.damaged.iter().try_for_each(|damage| tenant.set_aside(space, damage))?;
    let rows: Vec<(u64, RowId<'static>, Expiring<'static>)> = page
        .rows
        .into_iter()
        .filter_map(|(row, _)| match &row {
            RowId::Expiry { at_ms, what } => Some((*at_ms, row.clone(), what.clone())),
            _ => None,
        })
        .collect();
    let due = rows.partition_point(|(at_ms, ..)| *at_ms <= now_ms);
    let (now, later) = rows.split_at_checked(due).unwrap_or_default();
    for chunk in now.chunks(TOGETHER) {
        collect_together(tenant, space, chunk, now_ms)?;
    }
    Ok(match (later.first(), now.last()) {
        (Some((at_ms, ..)), _) => *at_ms,
        (None, Some((at_ms, ..))) if !page.done => *at_ms,
        _ => u64::MAX,
    })
}

/// Collects a few rows under their locks, in one commit.
fn collect_together(
    tenant: &Inner,
    space: &Arc<Space>,
    rows: &[(u64, RowId<'static>, Expiring<'static>)],
    now_ms: u64,
) -> Result<()> {
    let (locks, id) = (&tenant.locks, tenant.id);
    let whats = || rows.iter().map(|(_, _, what)| what);
    let _keys = locks.keys.lock_all(whats().filter_map(|what| match what {
        Expiring::Key { scope, key } => Some((id, (&**scope, &**key))),
        _ => None,
    }));
    let _requests = locks.requests.lock_all(whats().filter_map(|what| match what {
        Expiring::Request { id: request } => Some((id, &**request)),
        _ => None,
    }));
    let _instances = locks.instances.lock_all(whats().filter_map(|what| match what {
        Expiring::Instance(instance) => Some((id, *instance)),
        _ => None,
    }));
    let mut changes = Changes::default();
    for (_, index, what) in rows {
        if let Err((row, err)) = add_removal(tenant, space, what, now_ms, &mut changes) {
            // It stays, without its row of the index, until somebody has seen to it: the others go on.
            tenant.set_row_aside(space, &row, err)?;
        }
        changes.delete(index.clone());
    }
    space.apply(id, &changes, Write::Relaxed)
}

/// A row that could not be read, and why.
type Unread = (RowId<'static>, Error);

/// Adds the removal of what a row of the index points at, if it is to be removed.
fn add_removal(
    tenant: &Inner,
    space: &Arc<Space>,
    what: &Expiring<'static>,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), Unread> {
    let id = tenant.id;
    let (row, plan) = match what {
        Expiring::Instance(instance) => return add_instance(tenant, space, *instance, now_ms, changes),
        Expiring::Key { scope, key } => {
            let row = RowId::Key { scope: scope.clone(), key: key.clone() };
            let read = space.key(id, &row);
            (row, read.map(|record| plan_key(record.as_ref(), now_ms)))
        }
        Expiring::Request { id: request } => {
            let row = RowId::Request { id: request.clone() };
            let read = space.request(id, &row);
            (row, read.map(|record| plan_request(record.as_ref(), now_ms)))
        }
    };
    match plan {
        Ok(Plan::Remove) => changes.delete(row),
        Ok(Plan::Forget) => {}
        Err(err) => return Err((row, err)),
    }
    Ok(())
}

fn add_instance(
    tenant: &Inner,
    space: &Arc<Space>,
    id: InstanceId,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<(), Unread> {
    let head = RowId::Instance { id };
    let record = space.instance(tenant.id, &head).map_err(|err| (head, err))?;
    if plan_instance(record.as_ref(), now_ms) == Plan::Remove {
        tenant.shared.emit(|| Event::Collecting { tenant: tenant.name.clone(), instance: id });
        remove_steps(tenant, space, id)?;
        for row in [RowId::Instance { id }, RowId::Input { id }, RowId::Output { id }] {
            changes.delete(row);
        }
    }
    Ok(())
}

/// Removes the steps of an ended instance, and what may be left of them in the ready family. The head goes after them, so a crash in between
/// leaves an instance that is collected again.
fn remove_steps(tenant: &Inner, space: &Space, id: InstanceId) -> Result<(), Unread> {
    let head = |err| (RowId::Instance { id }, err);
    loop {
        let mut page = space.survey(tenant.id, Prefix::StepsOf(id), None, STEPS, 1 << 20).map_err(head)?;
        if let Some(damage) = page.damaged.pop() {
            return Err(head(Error::new(ErrorKind::Corrupt, damage.reason)));
        }
        let mut changes = Changes::default();
        for (row, record) in page.rows {
            let record = record.map_err(|err| (row.clone(), err))?;
            if let (Record::Step(step), RowId::Step { step: name, .. }) = (record, &row) {
                ready_row(id, name, &step).into_iter().for_each(|row| changes.delete(row));
            }
            changes.delete(row);
        }
        if changes.is_empty() {
            return Ok(());
        }
        space.apply(tenant.id, &changes, Write::Relaxed).map_err(head)?;
        if page.done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use cutover_formats::record::{Answer, Ending, InstanceEnd, KeyEnd};

    use super::*;

    const ID: InstanceId = InstanceId::new(StoreId(1), 5, 5);

    #[test]
    fn only_what_has_ended_and_is_due_is_removed() {
        let mut instance = InstanceRecord {
            definition: "d".into(),
            version: 1,
            key: None,
            epoch: 1,
            ended: None,
            cancel_requested: false,
            open_steps: 0,
            launched_ms: 0,
            start_ms: 0,
            revision: 1,
        };
        assert_eq!(plan_instance(None, 100), Plan::Forget);
        assert_eq!(plan_instance(Some(&instance), 100), Plan::Forget, "it lives");
        let end = InstanceEnd { ending: Ending::Failed, at_ms: 1, collect_ms: 100, reason: String::new() };
        instance.ended = Some(end);
        assert_eq!(plan_instance(Some(&instance), 99), Plan::Forget);
        assert_eq!(plan_instance(Some(&instance), 100), Plan::Remove);
    }

    #[test]
    fn a_key_that_was_used_again_stays() {
        let mut key = KeyRecord { instance: ID, epoch: 1, ended: None, revision: 2 };
        assert_eq!(plan_key(Some(&key), u64::MAX), Plan::Forget, "it is live again");
        key.ended = Some(KeyEnd { ending: Ending::Completed, out_of_scope_ms: 200 });
        assert_eq!(plan_key(Some(&key), 199), Plan::Forget, "it ended again, later");
        assert_eq!(plan_key(Some(&key), 200), Plan::Remove);
        assert_eq!(plan_key(None, 200), Plan::Forget);
    }

    #[test]
    fn a_request_goes_at_its_time() {
        let request = RequestRecord { digest: [0; 32], answer: Answer::Started(ID), until_ms: 7 };
        assert_eq!(plan_request(Some(&request), 6), Plan::Forget);
        assert_eq!(plan_request(Some(&request), 7), Plan::Remove);
        assert_eq!(plan_request(None, 7), Plan::Forget);
    }
}
