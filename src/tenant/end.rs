//! How instances end: by their runner, by their last step, by cancellation, by termination, or to make room for a new one.
//!
//! The key lock is held from before the look at the instance until its end is durable. Visible before durable would let a second
//! launch of the key through, and power loss would then leave two live ones.

use std::sync::Arc;

use cutover_formats::limits::{self, MAX_PAYLOAD};
use cutover_formats::record::{
    Ending, InstanceEnd, InstanceRecord, KeyEnd, KeyRecord, NoteRecord, PayloadRecord,
};
use cutover_formats::{Expiring, InstanceId, NoteId, Prefix, Record, RowId, StoreId};

use super::launch::New;
use super::quarantine::readable;
use super::queue::ready_row;
use super::seats::Caller;
use super::types::Ended;
use super::{Inner, Operation, Tenant};
use crate::error::{Error, ErrorKind, Result, short_reason};
use crate::shared::Thread;
use crate::store::Write;
use crate::store::space::{Changes, Space, raw_rows};

/// Most steps that are looked at together.
const STEPS: usize = 256;
const BEGUN: &str = "the replacement was begun and is finished when the stores are opened again";
const REPLACED: &str = "replaced by a later launch of its key";

impl Tenant {
    /// Ends an instance as its runner sees it: completed or failed. Durable when it returns.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such instance.
    pub fn end(&self, id: InstanceId, ending: Ending, output: &[u8], reason: &str) -> Result<Ended> {
        limits::check_size("the output of the instance", output.len(), MAX_PAYLOAD)?;
        self.0.with_locked(&self.1, id, "end an instance", Ended::Before, |op, space, record| {
            self.0.end_now(op, space, id, record, &How { ending, reason, output }, Changes::default())?;
            Ok(Ended::Now)
        })
    }

    /// Asks an instance to stop: its workers are told at their next heartbeat, none of its steps is given out any more, and it ends
    /// as [`Ending::Cancelled`] when the last one that is held is settled or its lease runs out; at once if none is held. Steps that wait for
    /// a decision are not waited for. The request is durable when it returns.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such instance.
    pub fn cancel(&self, id: InstanceId, reason: &str) -> Result<Ended> {
        self.0.with_locked(&self.1, id, "cancel an instance", Ended::Before, |op, space, mut record| {
            if self.0.sessions.holders(id, self.0.shared.clock.monotonic()) == 0 {
                let how = How { ending: Ending::Cancelled, reason, output: &[] };
                self.0.end_now(op, space, id, record, &how, Changes::default())?;
                return Ok(Ended::Now);
            }
            record.cancel_requested = true;
            record.revision += 1;
            let mut changes = Changes::default();
            changes.put(RowId::Instance { id }, Record::Instance(record));
            self.0.commit(space, &changes)?;
            // Not before it is durable: of a request that failed nobody is told.
            self.0.sessions.ask_to_stop(id, self.0.shared.clock.monotonic());
            Ok(Ended::Asked)
        })
    }

    /// Ends an instance without asking it. Whatever its workers report afterwards is refused. Durable when it returns.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such instance.
    pub fn terminate(&self, id: InstanceId, reason: &str) -> Result<Ended> {
        self.0.with_locked(&self.1, id, "terminate an instance", Ended::Before, |op, space, record| {
            let how = How { ending: Ending::Terminated, reason, output: &[] };
            self.0.end_now(op, space, id, record, &how, Changes::default())?;
            Ok(Ended::Now)
        })
    }
}

/// How an instance ends.
pub(crate) struct How<'a> {
    pub(crate) ending: Ending,
    pub(crate) reason: &'a str,
    pub(crate) output: &'a [u8],
}

impl Inner {
    /// Applies changes with the engine's durability. A failure of the store leaves open whether they happened; what they touch is in
    /// doubt from then on. The caller holds the locks of all of it.
    pub(super) fn commit(&self, space: &Space, changes: &Changes) -> Result<()> {
        self.commit_as(space, changes, self.shared.write())
    }

    /// The same, with a durability of its own.
    pub(super) fn commit_as(&self, space: &Space, changes: &Changes, write: Write) -> Result<()> {
        space.apply(self.id, changes, write).map_err(|err| self.in_doubt(space, changes.rows(), err))
    }

    /// What a commit of these rows that failed like this comes to, under their locks.
    pub(super) fn in_doubt<'r>(
        &self,
        space: &Space,
        rows: impl Iterator<Item = &'r RowId<'static>>,
        err: Error,
    ) -> Error {
        match err.kind() {
            ErrorKind::Io | ErrorKind::Corrupt | ErrorKind::Panicked => {
                self.doubts.add(space, rows);
                self.shared.wake(Thread::Keeper);
                Error::with_source(ErrorKind::Indeterminate, "whether the commit happened is unknown", err)
            }
            _ => err,
        }
    }

    /// Runs `act` on a live instance, with its key and itself locked. One that has ended before is answered with `ended`.
    pub(super) fn with_locked<T>(
        &self,
        caller: &Caller,
        id: InstanceId,
        what: &'static str,
        ended: impl FnOnce(Ending) -> T,
        act: impl FnOnce(&Operation<'_>, &Arc<Space>, InstanceRecord) -> Result<T>,
    ) -> Result<T> {
        let op = self.admit(caller, what)?;
        // The key of an instance never changes, so a look without locks says which one to lock.
        let (_, record) = op.locate(self.id, id)?.ok_or_else(|| not_found(id))?;
        let _key = record.key.as_ref().and_then(|key| self.locks.keys.lock((self.id, key)));
        let _instance = self.locks.instances.lock((self.id, id));
        self.doubts.check(&RowId::Instance { id })?;
        let (space, record) = op.locate(self.id, id)?.ok_or_else(|| not_found(id))?;
        match &record.ended {
            Some(end) => Ok(ended(end.ending)),
            None => act(&op, space, record),
        }
    }

    /// Commits the end of an instance together with `changes`. The caller holds its key and itself, and it lives.
    pub(super) fn end_now(
        &self,
        op: &Operation<'_>,
        space: &Space,
        id: InstanceId,
        record: InstanceRecord,
        how: &How<'_>,
        mut changes: Changes,
    ) -> Result<()> {
        debug_assert!(op.by_id().any(|other| other.id == space.id));
        let deadline = self.add_end(&mut changes, space, id, record, how)?;
        self.commit(space, &changes)?;
        self.after_end(id, deadline);
        Ok(())
    }

    /// Ends an instance, one of whose steps `changes` fail for good. Says how: whoever was asked to stop has not failed.
    pub(super) fn end_failed(
        &self,
        op: &Operation<'_>,
        space: &Space,
        id: InstanceId,
        mut record: InstanceRecord,
        why: &str,
        changes: Changes,
    ) -> Result<Ending> {
        let ending = if record.cancel_requested { Ending::Cancelled } else { Ending::Failed };
        record.open_steps = record.open_steps.saturating_sub(1);
        self.end_now(op, space, id, record, &How { ending, reason: why, output: &[] }, changes)?;
        Ok(ending)
    }

    /// Adds what ends an instance: its head, its output, its key, its open steps, its deadlines. Returns the first of
    /// these.
    fn add_end(
        &self,
        changes: &mut Changes,
        space: &Space,
        id: InstanceId,
        mut record: InstanceRecord,
        how: &How<'_>,
    ) -> Result<u64> {
        let now_ms = self.shared.now_ms();
        let scope = record.key.as_ref().map(|(scope, _)| scope.as_str());
        let retention = self.retention.read().of(scope);
        let collect_ms = now_ms.saturating_add(retention.instance_ms);
        if record.open_steps > 0 {
            self.add_unready(changes, space, id)?;
        }
        if let Some((scope, key)) = record.key.clone() {
            let row = RowId::Key { scope: scope.into(), key: key.into() };
            // The key of a live instance names it, so one that cannot be read is known all the same.
            let there = readable(space.key(self.id, &row))?.flatten();
            let revision = there.map_or(1, |record| record.revision + 1);
            changes.delete(space.quarantine_of(self.id, &row));
            let out_of_scope_ms = now_ms.saturating_add(retention.key_ms);
            let ended = Some(KeyEnd { ending: how.ending, out_of_scope_ms });
            let epoch = record.epoch;
            if let RowId::Key { scope, key } = row.clone() {
                changes.mark(RowId::Expiry { at_ms: out_of_scope_ms, what: Expiring::Key { scope, key } });
            }
            changes.put(row, Record::Key(KeyRecord { instance: id, epoch, ended, revision }));
        }
        if !how.output.is_empty() {
            let output = PayloadRecord { bytes: how.output.to_vec() };
            changes.put(RowId::Output { id }, Record::Payload(output));
        }
        changes.mark(RowId::Expiry { at_ms: collect_ms, what: Expiring::Instance(id) });
        let reason = short_reason(how.reason);
        record.ended = Some(InstanceEnd { ending: how.ending, at_ms: now_ms, collect_ms, reason });
        record.revision += 1;
        changes.put(RowId::Instance { id }, Record::Instance(record));
        Ok(now_ms.saturating_add(retention.instance_ms.min(retention.key_ms)))
    }

    /// Takes the rows of its steps out of the ready family: those that wait for a worker, and those that wait for a decision.
    fn add_unready(&self, changes: &mut Changes, space: &Space, instance: InstanceId) -> Result<()> {
        let mut after: Option<RowId<'static>> = None;
        loop {
            // With all their inputs and results at once an instance may be larger than memory.
            let steps = space.survey(self.id, Prefix::StepsOf(instance), after.as_ref(), STEPS, 1 << 20)?;
            after = steps.rows.last().map(|(row, _)| row.clone());
            for (row, record) in steps.rows {
                match (row, record) {
                    (RowId::Step { step, .. }, Ok(Record::Step(record))) => {
                        ready_row(instance, &step, &record).into_iter().for_each(|row| changes.delete(row));
                    }
                    // It does not keep its instance from ending; the collector sets it aside.
                    (RowId::Step { step, .. }, Err(_)) => {
                        self.ready_rows(space, instance, Some(&*step), changes)?;
                    }
                    _ => {}
                }
            }
            if steps.done {
                return Ok(());
            }
        }
    }

    fn after_end(&self, id: InstanceId, deadline: u64) {
        self.sessions.end_instance(id);
        self.announce(Vec::new(), Some(deadline));
        self.waiters.ended();
    }

    /// Terminates `old` and starts `new`. In one store that is one batch. Over two stores a durable intent comes first, so that opening
    /// finishes what a crash interrupts. The caller holds the key and both instances.
    pub(super) fn replace(&self, op: &Operation<'_>, old: InstanceId, new: &mut New) -> Result<()> {
        let (space, record) = op.locate(self.id, old)?.ok_or_else(|| not_found(old))?;
        let how = How { ending: Ending::Terminated, reason: REPLACED, output: &[] };
        let mut end = Changes::default();
        let deadline = self.add_end(&mut end, space, old, record, &how)?;
        if space.id == op.home.id {
            // Later changes of a row win: the key's new holder stands behind its old one.
            end.append(std::mem::take(&mut new.changes));
            self.commit(&op.home, &end)?;
            self.after_end(old, deadline);
            return Ok(());
        }
        let intent = RowId::Note(NoteId::Replace { old });
        let payloads = self.intend(op, old, space.id, &intent, new)?;
        if let Err(err) = self.commit(space, &end) {
            return Err(self.withdraw(op, space, intent, &payloads, new, err));
        }
        self.after_end(old, deadline);
        new.changes.delete(intent);
        self.commit_or_doubt(&op.home, &new.changes)
    }

    /// Makes the intent to replace durable, and with it the rows of the new instance that may be large: they are found only by way of
    /// its head, which comes last. The intent holds the others.
    fn intend(
        &self,
        op: &Operation<'_>,
        old: InstanceId,
        old_store: StoreId,
        intent: &RowId<'static>,
        new: &mut New,
    ) -> Result<Vec<RowId<'static>>> {
        let large = |row: &RowId<'_>| matches!(row, RowId::Input { .. } | RowId::Step { .. });
        let mut intend = new.changes.split_off(large);
        let payloads = intend.rows().cloned().collect();
        let rows = raw_rows(&op.home.encode(self.id, &new.changes)?);
        let (at_ms, reason) = (self.shared.now_ms(), REPLACED.to_owned());
        let note = NoteRecord::Replace { old, old_store, at_ms, reason, rows };
        intend.put(intent.clone(), Record::Note(note));
        // At every durability level it outlives the end of the old instance, which is in another store: power loss takes a tail of each.
        // If this fails, the intent may be there: opening would finish it.
        self.commit_as(&op.home, &intend, Write::Synced).inspect_err(|err| {
            if err.kind() == ErrorKind::Indeterminate {
                self.doubts.add(&op.home, new.changes.rows());
            }
        })?;
        Ok(payloads)
    }

    /// The end of the old instance failed with `err` after the intent was made. If it was refused, the intent is taken back; if nobody
    /// knows, or that fails too, opening the store again finishes it, and until then the key waits.
    fn withdraw(
        &self,
        op: &Operation<'_>,
        space: &Space,
        intent: RowId<'static>,
        payloads: &[RowId<'static>],
        new: &New,
        err: Error,
    ) -> Error {
        if err.kind() != ErrorKind::Indeterminate {
            let mut back = Changes::default();
            payloads.iter().cloned().for_each(|row| back.delete(row));
            back.delete(intent);
            if self.commit(&op.home, &back).is_ok() {
                return err;
            }
            self.doubts.add(&op.home, new.changes.rows());
        } else {
            self.doubts.add(space, new.changes.rows());
        }
        Error::with_source(ErrorKind::Indeterminate, BEGUN, err)
    }

    /// Commits what an intent has promised: if that does not succeed, in whatever way, opening does it.
    fn commit_or_doubt(&self, space: &Space, changes: &Changes) -> Result<()> {
        self.commit(space, changes).map_err(|err| {
            self.doubts.add(space, changes.rows());
            Error::with_source(ErrorKind::Indeterminate, BEGUN, err)
        })
    }
}

/// Why an instance ended with a step that failed for this reason.
pub(super) fn why_failed(step: &str, reason: &str) -> String {
    format!("step {step:?} failed: {}", short_reason(reason))
}

pub(super) fn not_found(id: InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no instance {id}"))
}
