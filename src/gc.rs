//! Garbage collection: what has ended goes when its time is over.
//!
//! It reads the expiry index, so its cost follows what expires and not what is stored. What to do about a row of the index is a pure
//! decision ([`Plan`]) from the record that it points at; a row may be stale, because a key was used again or a
//! deadline moved. It takes the same locks as everybody, works in bounded batches, and never touches definitions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cutover_formats::record::{InstanceRecord, KeyRecord, RequestRecord};
use cutover_formats::{Expiring, InstanceId, Prefix, Record, RowId};

use crate::error::Result;
use crate::event::Event;
use crate::store::Write;
use crate::store::space::{Changes, Space};
use crate::tenant::Inner;

/// Rows of the index that one step looks at in each store.
const BATCH: usize = 256;
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

/// Collects one batch of a tenant, in each of its stores. Says when to come again, in milliseconds since 1970: now, if there may be more;
/// `u64::MAX` if nothing has a deadline.
pub(crate) fn step(tenant: &Inner) -> Result<u64> {
    let now_ms = tenant.shared.now_ms();
    let due = tenant.next_expiry.load(Ordering::Acquire);
    if due > now_ms {
        return Ok(due);
    }
    // Rows that are added from here on lower it again.
    tenant.next_expiry.store(u64::MAX, Ordering::Release);
    let op = tenant.enter("collect")?;
    for space in op.by_id() {
        match collect(tenant, space, now_ms) {
            Ok(next) => tenant.expires_at(next),
            Err(err) => {
                tenant.expires_at(now_ms);
                return Err(err);
            }
        }
    }
    Ok(tenant.next_expiry.load(Ordering::Acquire))
}

fn collect(tenant: &Inner, space: &Arc<Space>, now_ms: u64) -> Result<u64> {
    let page = space.page(tenant.id, Prefix::All(cutover_formats::Family::Expiry), None, BATCH, u64::MAX)?;
    for (row, _) in &page.rows {
        let RowId::Expiry { at_ms, what } = row else { continue };
        if *at_ms > now_ms {
            return Ok(*at_ms);
        }
        match what {
            Expiring::Instance(id) => collect_instance(tenant, space, row, *id, now_ms)?,
            Expiring::Key { scope, key } => {
                let _key = tenant.shared.locks.keys.lock((tenant.id, (&**scope, &**key)));
                let id = RowId::Key { scope: scope.clone(), key: key.clone() };
                let plan = plan_key(space.key(tenant.id, &id)?.as_ref(), now_ms);
                remove(tenant, space, plan, id, row)?;
            }
            Expiring::Request { id } => {
                let _request = tenant.shared.locks.requests.lock((tenant.id, &**id));
                let id = RowId::Request { id: id.clone() };
                let plan = plan_request(space.request(tenant.id, &id)?.as_ref(), now_ms);
                remove(tenant, space, plan, id, row)?;
            }
        }
    }
    Ok(if page.done { u64::MAX } else { now_ms })
}

fn remove(
    tenant: &Inner,
    space: &Space,
    plan: Plan,
    id: RowId<'static>,
    index: &RowId<'static>,
) -> Result<()> {
    let mut changes = Changes::default();
    if plan == Plan::Remove {
        changes.delete(id);
    }
    changes.delete(index.clone());
    space.apply(tenant.id, &changes, Write::Relaxed)
}

fn collect_instance(
    tenant: &Inner,
    space: &Space,
    index: &RowId<'static>,
    id: InstanceId,
    now_ms: u64,
) -> Result<()> {
    let _instance = tenant.shared.locks.instances.lock((tenant.id, id));
    let record = space.instance(tenant.id, &RowId::Instance { id })?;
    let mut changes = Changes::default();
    if plan_instance(record.as_ref(), now_ms) == Plan::Remove {
        tenant.shared.emit(|| Event::Collecting { tenant: tenant.name.clone(), instance: id });
        remove_steps(tenant, space, id)?;
        for row in [RowId::Instance { id }, RowId::Input { id }, RowId::Output { id }] {
            changes.delete(row);
        }
        tenant.counters.collected.fetch_add(1, Ordering::Relaxed);
    }
    changes.delete(index.clone());
    space.apply(tenant.id, &changes, Write::Relaxed)
}

/// Removes the steps of an ended instance, and what may be left of them in the ready queue. The head goes after them, so a crash in between
/// leaves an instance that is collected again.
fn remove_steps(tenant: &Inner, space: &Space, id: InstanceId) -> Result<()> {
    loop {
        let page = space.page(tenant.id, Prefix::StepsOf(id), None, STEPS, 1 << 20)?;
        let mut changes = Changes::default();
        for (row, record) in page.rows {
            if let (Record::Step(step), RowId::Step { step: name, .. }) = (record, &row)
                && let cutover_formats::record::StepState::Ready { at_ms } = step.state
            {
                changes.delete(RowId::Ready {
                    queue: step.queue.into(),
                    at_ms,
                    instance: id,
                    step: name.clone(),
                });
            }
            changes.delete(row);
        }
        if changes.is_empty() {
            return Ok(());
        }
        space.apply(tenant.id, &changes, Write::Relaxed)?;
        if page.done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use cutover_formats::StoreId;
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
