//! Queries: by id, by key, lists, and waiting for an end.

use std::time::Duration;

use cutover_formats::limits;
use cutover_formats::record::InstanceRecord;
use cutover_formats::{InstanceId, Prefix, Record, RowId};

use super::end::not_found;
use super::types::{Filter, Instance, InstancePage, InstanceState};
use super::{Inner, Operation, Tenant};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::space::Space;
use crate::sync::Instant;

/// Most heads that one page of a list looks at, so that a filter which matches little does not hold a pin for long.
const SCAN: usize = 4096;

impl Tenant {
    /// The instance of this id, with its output if it has ended; `None` if there is none, or it was collected.
    ///
    /// What it says is durable: an instance that is being launched or ended at this moment is waited for.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn instance(&self, id: InstanceId) -> Result<Option<Instance>> {
        let op = self.0.admit(&self.1, "query by id")?;
        let _instance = self.0.locks.instances.lock((self.0.id, id));
        self.0.show(&op, id)
    }

    /// The instance that holds the key, else the last one that held it and is still in scope and not collected.
    ///
    /// # Errors
    /// If a store cannot be read; [`InvalidInput`](ErrorKind::InvalidInput) for a scope or key that no launch can have.
    pub fn instance_by_key(&self, scope: &str, key: &[u8]) -> Result<Option<Instance>> {
        limits::check_name("the scope of the key", scope)?;
        limits::check_key(key)?;
        loop {
            let op = self.0.admit(&self.1, "query by key")?;
            // Without the key lock a query could see neither of two holders that follow each other, or the older one.
            let _key = self.0.locks.keys.lock((self.0.id, (scope, key)));
            let found = match self.0.key_record(&op, scope, key)? {
                Some(record) => self.0.show(&op, record.instance)?,
                None => None,
            };
            // Before the switch only home was asked, and since then the key may have a holder in the target.
            if self.0.register.unchanged(op.seq) {
                return Ok(found);
            }
        }
    }

    /// Up to `limit` instances that match, in the order of their ids, from behind `after` on. A page may have fewer, or none, and
    /// still not be the last: `next` says. May show a launch that is just being made durable, or one whose commit failed.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn list(&self, filter: &Filter, after: Option<InstanceId>, limit: usize) -> Result<InstancePage> {
        let tenant = &*self.0;
        // A page without room would not say where the next one starts.
        let limit = limit.max(1);
        let op = tenant.admit(&self.1, "list")?;
        let now_ms = tenant.shared.now_ms();
        let mut heads = Vec::new();
        // What lies behind the end of any page that is not the last of its store is not known yet.
        let mut known_to: Option<InstanceId> = None;
        for space in op.by_id() {
            let after = after.map(|id| RowId::Instance { id });
            let page = space.page(tenant.id, Prefix::Heads, after.as_ref(), SCAN, u64::MAX)?;
            let rows = page.rows.into_iter().filter_map(|(row, record)| match (row, record) {
                (RowId::Instance { id }, Record::Instance(record)) => Some((id, record)),
                _ => None,
            });
            let before = heads.len();
            heads.extend(rows);
            let last = heads.get(before..).and_then(|added| added.last()).map(|(id, _)| *id);
            if !page.done {
                known_to = [known_to, last].into_iter().flatten().min();
            }
        }
        heads.sort_by_key(|(id, _)| *id);
        heads.dedup_by_key(|(id, _)| *id);
        let mut page = InstancePage { instances: Vec::new(), next: known_to };
        for (id, record) in heads.into_iter().filter(|(id, _)| known_to.is_none_or(|last| *id <= last)) {
            if filter.matches(&record) {
                if page.instances.len() == limit {
                    page.next = page.instances.last().map(|instance: &Instance| instance.id);
                    break;
                }
                page.instances.push(view(id, record, Vec::new(), now_ms));
            }
        }
        Ok(page)
    }

    /// Waits until the instance has ended; `None` if the time is over first.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such instance, or it was collected.
    pub fn wait(&self, id: InstanceId, timeout: Duration) -> Result<Option<Instance>> {
        let deadline = clock::deadline(timeout);
        loop {
            let seen = self.0.waiters.seen();
            let instance = self.instance(id)?.ok_or_else(|| not_found(id))?;
            if instance.ending().is_some() {
                return Ok(Some(instance));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.0.waiters.sleep(seen, left.min(Duration::from_secs(3600)));
        }
    }
}

impl Filter {
    fn matches(&self, record: &InstanceRecord) -> bool {
        self.definition.as_ref().is_none_or(|name| *name == record.definition)
            && self.live.is_none_or(|live| live == record.ended.is_none())
            && self.scope.as_ref().is_none_or(|scope| record.key.as_ref().is_some_and(|(of, _)| of == scope))
    }
}

impl Inner {
    fn show(&self, op: &Operation<'_>, id: InstanceId) -> Result<Option<Instance>> {
        self.doubts.check(&RowId::Instance { id })?;
        let Some((space, record)) = op.locate(self.id, id)? else { return Ok(None) };
        let output = match record.ended {
            Some(_) => self.output(space, id)?,
            None => Vec::new(),
        };
        Ok(Some(view(id, record, output, self.shared.now_ms())))
    }

    fn output(&self, space: &Space, id: InstanceId) -> Result<Vec<u8>> {
        Ok(space.payload(self.id, &RowId::Output { id })?.map(|payload| payload.bytes).unwrap_or_default())
    }
}

fn view(id: InstanceId, record: InstanceRecord, output: Vec<u8>, now_ms: u64) -> Instance {
    let state = match &record.ended {
        Some(end) => InstanceState::Ended(end.ending),
        None if now_ms < record.start_ms => InstanceState::Scheduled,
        None => InstanceState::Running,
    };
    let (ended_ms, reason) = record.ended.map_or((None, String::new()), |end| (Some(end.at_ms), end.reason));
    Instance {
        id,
        definition: record.definition,
        version: record.version,
        key: record.key,
        state,
        cancel_requested: record.cancel_requested,
        open_steps: record.open_steps,
        launched_ms: record.launched_ms,
        ended_ms,
        reason,
        output,
    }
}

impl Tenant {
    /// The input of an instance; `None` if there is no such instance.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn input(&self, id: InstanceId) -> Result<Option<Vec<u8>>> {
        let op = self.0.admit(&self.1, "read an input")?;
        // Without the lock it could be gone from where the instance was found, because that moves.
        let _instance = self.0.locks.instances.lock((self.0.id, id));
        let Some((space, _)) = op.locate(self.0.id, id)? else { return Ok(None) };
        let payload = space.payload(self.0.id, &RowId::Input { id })?;
        Ok(Some(payload.map(|payload| payload.bytes).unwrap_or_default()))
    }

    /// The result of a step that has completed; `None` otherwise.
    ///
    /// # Errors
    /// If a store cannot be read.
    pub fn step_result(&self, instance: InstanceId, step: &str) -> Result<Option<Vec<u8>>> {
        limits::check_name("the name of the step", step)?;
        let op = self.0.admit(&self.1, "read a result")?;
        let _instance = self.0.locks.instances.lock((self.0.id, instance));
        self.0.doubts.check(&RowId::Instance { id: instance })?;
        let row = RowId::Step { instance, step: step.into() };
        match op.locate(self.0.id, instance)? {
            Some((space, _)) => Ok(space
                .step(self.0.id, &row)?
                .filter(|step| step.state == cutover_formats::record::StepState::Completed)
                .map(|step| step.result)),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no instance {instance}"))),
        }
    }
}
