//! A store of the tenant was opened, at the start or again after it failed: what has to be finished and found out before it is used.
//!
//! Rule of mending. While the store is being opened again, something that refuses everything stands in its place, so nothing is answered from
//! it and nothing is decided without it. Everybody who used the failed handle has let go of it by then, so what failed is all noted
//! as in doubt, and what is not noted had succeeded. Then, before the new handle is used:
//!
//! 1. moves and replacements that were begun are finished, and keys that are live twice are resolved, under the locks of what they touch: the
//!    other store goes on meanwhile (I1);
//! 2. what is in memory about the store is forgotten and read again: its part of the ready queue, the deadlines, the definitions that are
//!    known, what a migration has compared. Leases stay: each report looks at the step itself;
//! 3. the new handle takes its place, and what was in doubt is not any more.

use std::sync::Arc;

use cutover_formats::record::{Ending, KeyRecord, NoteRecord};
use cutover_formats::{Family, InstanceId, NoteId, Prefix, Record, RowId};

use super::end::How;
use super::{Inner, Operation};
use crate::error::Result;
use crate::shared::Thread;
use crate::store::space::{Changes, Space};
use crate::sync::atomic::Ordering;

const TWICE: &str = "its key was live in both stores after a loss of power; the later launch stays";

impl Inner {
    /// Puts what stands in for a store in the place of its failed handle.
    pub(crate) fn withdraw_space(&self, closed: &Arc<Space>) {
        let mut spaces = self.spaces.write();
        for space in spaces.iter_mut().filter(|space| space.id == closed.id && !space.is_closed()) {
            *space = Arc::clone(closed);
        }
    }

    /// Whether this opening of the store is not the one that the tenant uses.
    pub(crate) fn lacks(&self, space: &Arc<Space>) -> bool {
        self.spaces.read().iter().any(|mine| mine.id == space.id && !Arc::ptr_eq(mine, space))
    }

    /// Takes a store that was opened again into use; see the rule in the module's header.
    ///
    /// # Errors
    /// If what has to be finished first cannot be. The store is not in use then.
    pub(crate) fn take_into_use(&self, new: &Arc<Space>) -> Result<()> {
        let op = self.enter_with("open a store again", None, Some(new))?;
        // If the other store has failed too, what needs both stays in doubt until both are there, and this one serves the rest. What
        // the other one's failed handle shows may be lost, so nothing is finished by it.
        let other_failed = || op.home_first().any(|space| space.id != new.id && space.failure().is_some());
        let settled = match other_failed() {
            true => Vec::new(),
            false => match self.finish(&op) {
                Ok(settled) => settled,
                Err(_) if new.failure().is_none() && other_failed() => Vec::new(),
                Err(err) => return Err(err),
            },
        };
        drop(op);
        self.known.forget();
        self.mends.fetch_add(1, Ordering::AcqRel);
        for space in self.spaces.write().iter_mut().filter(|space| space.id == new.id) {
            *space = Arc::clone(new);
        }
        self.settle(&settled);
        for thread in [Thread::Driver, Thread::Replicator] {
            self.shared.wake(thread);
        }
        Ok(())
    }

    /// These openings left nothing in doubt any more. What was passed over meanwhile, in either store, is looked for again: steps of instances
    /// that were in doubt, and those of replacements that were finished only now.
    fn settle(&self, openings: &[u64]) {
        self.doubts.settle(openings);
        self.queue.forget_all();
        self.wake_callers();
        // After the handle is in place: whoever collects without it puts back what he takes.
        self.next_expiry.store(0, Ordering::Release);
        self.shared.wake(Thread::Collector);
    }

    /// Settles what was left in doubt because both stores had failed. Says whether anything is still in doubt.
    pub(crate) fn settle_doubts(&self) -> Result<bool> {
        if self.doubts.openings().is_empty() {
            return Ok(false);
        }
        let op = self.enter("settle what is in doubt")?;
        if op.home_first().any(|space| space.failure().is_some()) {
            return Ok(true);
        }
        let settled = self.finish(&op)?;
        drop(op);
        self.settle(&settled);
        Ok(!self.doubts.openings().is_empty())
    }

    /// Finishes what opening finishes. Returns the openings whose doubts that has settled: those of handles that were closed before.
    fn finish(&self, op: &Operation<'_>) -> Result<Vec<u64>> {
        let mut over = self.doubts.openings();
        over.retain(|opening| op.both().all(|space| space.opening != *opening));
        self.settle_moves(op)?;
        self.redo_replaces(op)?;
        self.resolve_doubles(op)?;
        Ok(over)
    }

    /// Finishes what a crash or a failed store has left of replacements: ends the old instance if it lives, applies the rows of the new
    /// one. Says how many there were.
    pub(crate) fn redo_replaces(&self, op: &Operation<'_>) -> Result<usize> {
        let mut redone = 0;
        for home in op.home_first() {
            let survey = home.survey(self.id, Prefix::Replaces, None, usize::MAX, u64::MAX)?;
            survey.damaged.iter().try_for_each(|damage| self.set_aside(home, damage))?;
            for (row, intent) in survey.rows {
                match intent {
                    Ok(_) => redone += usize::from(self.redo_replace(op, home, &row)?),
                    // What it was to start was not acknowledged.
                    Err(err) => self.set_row_aside(home, &row, err)?,
                }
            }
        }
        Ok(redone)
    }

    fn redo_replace(&self, op: &Operation<'_>, home: &Arc<Space>, row: &RowId<'static>) -> Result<bool> {
        let RowId::Note(NoteId::Replace { old }) = row else { return Ok(false) };
        // The key of an instance never changes. If the old one is gone, nobody gets at the key, which is in doubt.
        let key = op.locate(self.id, *old)?.and_then(|(_, record)| record.key);
        let _key = key.as_ref().and_then(|key| self.locks.keys.lock((self.id, key)));
        let _instance = self.locks.instances.lock((self.id, *old));
        // One that is being made at this moment was waited for, and is gone now.
        let Some(NoteRecord::Replace { reason, rows, .. }) = home.note(self.id, row)? else {
            return Ok(false);
        };
        if let Some((space, record)) = op.locate(self.id, *old)?
            && record.ended.is_none()
        {
            let how = How { ending: Ending::Terminated, reason: &reason, output: &[] };
            self.end_now(op, space, *old, record, &how, Changes::default())?;
        }
        let mut done = Changes::default();
        done.delete(row.clone());
        let mut batch = home.encode(self.id, &done)?;
        home.apply_raw(&mut batch, &rows)?;
        home.commit(&batch, self.shared.write())?;
        Ok(true)
    }

    /// After a loss of tails two stores may both hold a live instance of a key. The launch of the later epoch stays, the other one is
    /// terminated. Returns those that were.
    pub(crate) fn resolve_doubles(&self, op: &Operation<'_>) -> Result<Vec<InstanceId>> {
        let mut ended = Vec::new();
        let Some(other) = op.home_first().nth(1) else { return Ok(ended) };
        let mut after = None;
        loop {
            let survey = other.survey(self.id, Prefix::All(Family::Keys), after.as_ref(), 1024, u64::MAX)?;
            survey.damaged.iter().try_for_each(|damage| self.set_aside(other, damage))?;
            for (row, record) in survey.rows {
                match record {
                    Ok(Record::Key(KeyRecord { ended: None, .. })) => {
                        ended.extend(self.resolve_double(op, other, &row)?);
                    }
                    Ok(_) => {}
                    // Nobody takes a key that cannot be read.
                    Err(err) => self.set_row_aside(other, &row, err)?,
                }
                after = Some(row);
            }
            if survey.done {
                return Ok(ended);
            }
        }
    }

    fn resolve_double(
        &self,
        op: &Operation<'_>,
        other: &Arc<Space>,
        row: &RowId<'static>,
    ) -> Result<Option<InstanceId>> {
        let RowId::Key { scope, key } = row else { return Ok(None) };
        let live = |space: &Space| match space.key(self.id, row) {
            Ok(key) => Ok(key.filter(|key| key.ended.is_none())),
            Err(err) => self.set_row_aside(space, row, err).map(|()| None),
        };
        if live(&op.home)?.is_none() {
            return Ok(None);
        }
        // Again under the lock: whoever was changing it has ended.
        let _key = self.locks.keys.lock((self.id, (&**scope, &**key)));
        let (Some(here), Some(there)) = (live(other)?, live(&op.home)?) else { return Ok(None) };
        let (space, loser) =
            if there.epoch >= here.epoch { (other, here.instance) } else { (&op.home, there.instance) };
        let _instance = self.locks.instances.lock((self.id, loser));
        let loser_row = RowId::Instance { id: loser };
        let head = match space.instance(self.id, &loser_row) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(err) => return self.set_row_aside(space, &loser_row, err).map(|()| None),
        };
        let how = How { ending: Ending::Terminated, reason: TWICE, output: &[] };
        self.end_now(op, space, loser, head, &how, Changes::default())?;
        Ok(Some(loser))
    }
}
