//! Moving an instance, while it runs, from the store that launches have left to the one where they go.
//!
//! Rule of moving. The pin, the lock of its key and its own lock are held throughout, and what a step writes is durable, at every durability
//! level, before the next one begins:
//!
//! 1. a note in the store that it leaves says that it is on its way;
//! 2. its leases are revoked. A report commits under the lock of the instance, so it came before the move or is refused;
//! 3. its rows are written to the other store, its head last: without one they are reached by nobody;
//! 4. they are removed from the store that it leaves, and so is the note, in one batch.
//!
//! It lives in the one store until its head is in the other, and in the other from then on: whoever finds a note at opening goes by that
//! ([`Inner::settle_moves`]), and exactly one of the two is left. Queries ask the store that it leaves first. Moves are made only by
//! whoever holds the control of the tenant, so no transition changes that order while one is under way, and only after everybody who
//! began under another order has ended.

use std::sync::Arc;
use std::time::Duration;

use cutover_formats::record::{Assignment, InstanceRecord, KeyRecord, NoteRecord, PayloadRecord, StepRecord};
use cutover_formats::{Expiring, InstanceId, NoteId, Prefix, Record, RowId};

use super::launch::rank;
use super::quarantine::readable;
use super::queue::{Entry, ready_row};
use super::sessions::Lease;
use super::{Inner, Operation};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::locks::HeldOne;
use crate::store::Write;
use crate::store::space::{Changes, Space};
use crate::sync::Instant;

/// Steps, and bytes of them, that are read and written together.
const STEPS: usize = 4096;
const BYTES: u64 = 8 << 20;
const BEGUN: &str = "the move of the instance was begun and is finished when the stores are opened again";

/// An instance on its way, with its key and itself locked.
struct Way<'o> {
    id: InstanceId,
    from: &'o Arc<Space>,
    to: &'o Arc<Space>,
    note: RowId<'static>,
    /// It has not ended.
    lives: bool,
}

/// Some of its steps, in order.
struct Steps {
    rows: Vec<(RowId<'static>, StepRecord)>,
    done: bool,
}

/// What has been written to the other store, and what follows from it.
#[derive(Default)]
struct Carried {
    /// Steps without a head are there.
    partly: bool,
    /// The rows of its steps in the ready family, which go there with its head.
    ready: Vec<RowId<'static>>,
    /// What a worker may take there.
    entries: Vec<Entry>,
    /// All that is to leave the store that it was in.
    removals: Changes,
    /// The first of its deadlines, in milliseconds since 1970.
    deadline: Option<u64>,
}

impl Inner {
    /// Moves an instance from the store that launches have left to the other one. Returns for how long it was locked; `None` if there is
    /// nothing to move any more, or it is in doubt. The caller holds the tenant's control.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if a part of it cannot be read: that was set aside, and the instance stays.
    /// [`Indeterminate`](ErrorKind::Indeterminate) if nobody knows in which store it is: nothing is answered about it until the store that
    /// failed was opened again.
    pub(super) fn relocate(&self, op: &Operation<'_>, id: InstanceId) -> Result<Option<Duration>> {
        let Some(from) = &op.other else { return Ok(None) };
        let row = RowId::Instance { id };
        // The key of an instance never changes, so a look without locks says which one to lock.
        let Some(head) = from.instance(self.id, &row)? else { return Ok(None) };
        let key = head.key.map(|(scope, key)| RowId::Key { scope: scope.into(), key: key.into() });
        let _key = key.as_ref().and_then(|key| self.lock_key(key));
        let _instance = self.locks.instances.lock((self.id, id));
        let began = Instant::now();
        if [Some(&row), key.as_ref()].into_iter().flatten().any(|row| self.doubts.has(row)) {
            return Ok(None);
        }
        let Some(head) = from.instance(self.id, &row)? else { return Ok(None) };
        let way = Way { id, from, to: &op.home, note: note_of(id), lives: head.ended.is_none() };
        // Most that cannot be read is found before anything is written.
        let steps = self.steps_of(from, id, None)?;
        self.set_out(&way)?;
        self.shared.emit(|| Event::Moving { tenant: self.name.clone(), instance: id });
        let leases = self.sessions.revoke(id, self.shared.clock.monotonic());
        let mut carried = Carried::default();
        if let Err(err) = self.carry_rows(&way, head, key.as_ref(), steps, &leases, &mut carried) {
            return Err(self.turn_back(&way, carried.partly, leases, err));
        }
        let Carried { entries, removals, deadline, .. } = carried;
        self.commit_as(from, &removals, Write::Synced).map_err(|err| {
            // It is in both until the store that it was in takes writes again.
            self.doubts.add(from, removals.rows());
            Error::with_source(ErrorKind::Indeterminate, BEGUN, err)
        })?;
        let pause = began.elapsed();
        self.announce(entries, deadline);
        let (from, to) = (from.id, op.home.id);
        self.shared.emit(|| Event::Moved { tenant: self.name.clone(), instance: id, from, to, pause });
        Ok(Some(pause))
    }

    fn set_out(&self, way: &Way<'_>) -> Result<()> {
        let mut intent = Changes::default();
        let record = NoteRecord::Move { to: way.to.id, at_ms: self.shared.now_ms() };
        intent.put(way.note.clone(), Record::Note(record));
        // If this fails, the note may be there: it says nothing as long as the head is not in the other store.
        self.commit_as(way.from, &intent, Write::Synced)
    }

    /// Writes the instance to the store that it goes to. Steps that have no room in one batch go ahead of the others.
    fn carry_rows(
        &self,
        way: &Way<'_>,
        mut head: InstanceRecord,
        key: Option<&RowId<'static>>,
        mut steps: Steps,
        leases: &[Lease],
        carried: &mut Carried,
    ) -> Result<()> {
        let mut changes = Changes::default();
        loop {
            let last = steps.rows.last().map(|(row, _)| row.clone());
            for (row, step) in steps.rows {
                self.carry_step(way, row, step, leases, &mut changes, carried);
            }
            if steps.done {
                break;
            }
            carried.partly = true;
            // Durable with the head, which comes after them.
            self.commit_as(way.to, &std::mem::take(&mut changes), Write::Relaxed)?;
            steps = self.steps_of(way.from, way.id, last.as_ref())?;
        }
        carried.ready.drain(..).for_each(|row| changes.mark(row));
        for row in [RowId::Input { id: way.id }, RowId::Output { id: way.id }] {
            if let Some(payload) = self.payload_of(way.from, &row)? {
                changes.put(row, Record::Payload(payload));
            }
        }
        if let Some(end) = &head.ended {
            changes.mark(RowId::Expiry { at_ms: end.collect_ms, what: Expiring::Instance(way.id) });
            carried.deadline = Some(end.collect_ms);
        }
        let here = self.key_here(way.from, way.id, key, Some(&head))?;
        if let Some((row, record)) = &here
            && goes(record, readable(way.to.key(self.id, row))?.flatten().as_ref())
        {
            if let Some(expiry) = expiry_of(row, record) {
                changes.mark(expiry);
            }
            let out_of_scope = record.ended.map(|end| end.out_of_scope_ms);
            carried.deadline = [carried.deadline, out_of_scope].into_iter().flatten().min();
            changes.put(row.clone(), Record::Key(record.clone()));
        }
        add_leaving(&mut carried.removals, way.id, Some(&head), here.as_ref());
        head.revision += 1;
        changes.put(RowId::Instance { id: way.id }, Record::Instance(head));
        self.commit_as(way.to, &changes, Write::Synced)
    }

    /// Adds a step. A lease that was revoked is noted in its history, which also refuses a report under it for good; it is not an attempt. Those
    /// of an instance that has ended wait for nobody any more.
    fn carry_step(
        &self,
        way: &Way<'_>,
        row: RowId<'static>,
        mut step: StepRecord,
        leases: &[Lease],
        changes: &mut Changes,
        carried: &mut Carried,
    ) {
        carried.removals.delete(row.clone());
        if let RowId::Step { step: name, .. } = &row {
            let name = name.clone().into_owned();
            if let Some(lease) = leases.iter().find(|lease| lease.entry.step == name)
                && step.history.iter().all(|one| one.token != lease.token)
            {
                step.note(revoked(lease, self.shared.now_ms()));
                step.revision += 1;
            }
            if let Some(ready) = ready_row(way.id, &name, &step) {
                carried.removals.delete(ready.clone());
                carried.ready.extend(way.lives.then_some(ready));
            }
            carried.entries.extend(Entry::of(way.to.id, way.id, &name, &step).filter(|_| way.lives));
        }
        changes.put(row, Record::Step(step));
    }

    /// It stays because of `err`. If nobody knows whether its head is in the other store, it is in doubt by now. If it is not there for
    /// sure, it goes on as if nothing had been, whether or not the note goes.
    fn turn_back(&self, way: &Way<'_>, partly: bool, leases: Vec<Lease>, err: Error) -> Error {
        if err.kind() == ErrorKind::Indeterminate {
            return Error::with_source(ErrorKind::Indeterminate, BEGUN, err);
        }
        let to = partly.then_some(&**way.to);
        // If this fails, it is done when the note is found again.
        drop(self.undo(way.from, to, way.id));
        leases.into_iter().for_each(|lease| self.queue.offer(lease.entry));
        err
    }

    /// Removes what has come to a store without its head, and then the note.
    fn undo(&self, from: &Space, to: Option<&Space>, id: InstanceId) -> Result<()> {
        if let Some(to) = to {
            let mut after = None;
            loop {
                let page = to.survey(self.id, Prefix::StepsOf(id), after.as_ref(), STEPS, BYTES)?;
                page.damaged.iter().try_for_each(|damage| self.set_aside(to, damage))?;
                after = page.rows.last().map(|(row, _)| row.clone()).or(after);
                let mut changes = Changes::default();
                page.rows.into_iter().for_each(|(row, _)| changes.delete(row));
                if !changes.is_empty() {
                    self.commit_as(to, &changes, Write::Synced)?;
                }
                if page.done {
                    break;
                }
            }
        }
        self.commit_as(from, &Changes::removal(note_of(id)), Write::Synced)
    }

    /// Finishes or takes back what a crash or a failed store has left of moves, in either store. Says how many there were.
    pub(crate) fn settle_moves(&self, op: &Operation<'_>) -> Result<usize> {
        let mut settled = 0;
        for from in op.home_first() {
            // The key of a note says it all.
            let page = from.survey(self.id, Prefix::Moves, None, usize::MAX, u64::MAX)?;
            page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
            for (note, _) in page.rows {
                settled += usize::from(self.settle_move(op, from, &note)?);
            }
        }
        Ok(settled)
    }

    fn settle_move(&self, op: &Operation<'_>, from: &Arc<Space>, note: &RowId<'static>) -> Result<bool> {
        let RowId::Note(NoteId::Move { instance }) = note else { return Ok(false) };
        let (id, row) = (*instance, RowId::Instance { id: *instance });
        let to = op.home_first().find(|space| space.id != from.id);
        let here = readable(from.instance(self.id, &row))?.flatten();
        // If it cannot be read, what is here stays, and the note with it, until somebody has seen to the other.
        let Some(arrived) = self.look_for(to, &row)? else { return Ok(false) };
        let key = here.or(arrived).and_then(|head| head.key);
        let key = key.map(|(scope, key)| RowId::Key { scope: scope.into(), key: key.into() });
        let _key = key.as_ref().and_then(|key| self.lock_key(key));
        let _instance = self.locks.instances.lock((self.id, id));
        // One that is being made at this moment was waited for, and is gone now.
        if readable(from.decodes(self.id, note))? == Some(false) {
            return Ok(false);
        }
        let gone = readable(from.decodes(self.id, &row))? == Some(false);
        let Some(arrived) = self.look_for(to, &row)? else { return Ok(false) };
        if arrived.is_some() || gone {
            let removals = self.rows_of(from, id, key.as_ref())?;
            self.commit_as(from, &removals, Write::Synced)?;
        } else {
            self.undo(from, to.map(|to| &**to), id)?;
        }
        Ok(true)
    }

    /// The head of an instance, if it is in this store; `None` if that cannot be read and was set aside.
    fn look_for(
        &self,
        space: Option<&Arc<Space>>,
        row: &RowId<'_>,
    ) -> Result<Option<Option<InstanceRecord>>> {
        let Some(space) = space else { return Ok(Some(None)) };
        match space.instance(self.id, row) {
            Ok(found) => Ok(Some(found)),
            Err(err) => self.set_row_aside(space, row, err).map(|()| None),
        }
    }

    /// The removal of everything that an instance has in a store which it has left.
    fn rows_of(&self, from: &Space, id: InstanceId, key: Option<&RowId<'static>>) -> Result<Changes> {
        let mut removals = Changes::default();
        let mut after = None;
        loop {
            let page = from.survey(self.id, Prefix::StepsOf(id), after.as_ref(), STEPS, BYTES)?;
            page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
            after = page.rows.last().map(|(row, _)| row.clone()).or(after);
            for (row, record) in page.rows {
                match (&row, record) {
                    (RowId::Step { step, .. }, Ok(Record::Step(record))) => {
                        ready_row(id, step, &record).into_iter().for_each(|row| removals.delete(row));
                    }
                    (RowId::Step { step, .. }, Err(_)) => {
                        self.ready_rows(from, id, Some(&**step), &mut removals)?;
                    }
                    _ => {}
                }
                removals.delete(row);
            }
            if page.done {
                break;
            }
        }
        let head = readable(from.instance(self.id, &RowId::Instance { id }))?.flatten();
        let here = self.key_here(from, id, key, head.as_ref())?;
        add_leaving(&mut removals, id, head.as_ref(), here.as_ref());
        Ok(removals)
    }

    /// The key of an instance, if it is still its own. That of a live one names it, so one that cannot be read is known all the same.
    fn key_here(
        &self,
        space: &Space,
        id: InstanceId,
        key: Option<&RowId<'static>>,
        head: Option<&InstanceRecord>,
    ) -> Result<Option<(RowId<'static>, KeyRecord)>> {
        let Some(row) = key else { return Ok(None) };
        let record = match readable(space.key(self.id, row))? {
            Some(there) => there.filter(|record| record.instance == id),
            None => head.filter(|head| head.ended.is_none()).map(|head| KeyRecord {
                instance: id,
                epoch: head.epoch,
                ended: None,
                revision: 1,
            }),
        };
        Ok(record.map(|record| (row.clone(), record)))
    }

    /// The next steps of an instance; an error if one of them cannot be read, which is set aside.
    fn steps_of(&self, space: &Space, id: InstanceId, after: Option<&RowId<'static>>) -> Result<Steps> {
        let page = space.survey(self.id, Prefix::StepsOf(id), after, STEPS, BYTES)?;
        if let Some(damage) = page.damaged.first() {
            self.set_aside(space, damage)?;
            return Err(Error::new(ErrorKind::Corrupt, damage.reason.clone()));
        }
        let mut rows = Vec::with_capacity(page.rows.len());
        for (row, record) in page.rows {
            match record {
                Ok(Record::Step(step)) => rows.push((row, step)),
                Ok(_) => {}
                Err(err) => {
                    self.set_aside(space, &space.damage_of(self.id, &row, &err))?;
                    return Err(err);
                }
            }
        }
        Ok(Steps { rows, done: page.done })
    }

    fn payload_of(&self, space: &Space, row: &RowId<'_>) -> Result<Option<PayloadRecord>> {
        let read = space.payload(self.id, row);
        if let Err(err) = &read
            && err.kind() == ErrorKind::Corrupt
        {
            self.set_aside(space, &space.damage_of(self.id, row, err))?;
        }
        read
    }

    /// Locks a key by its row.
    fn lock_key(&self, row: &RowId<'_>) -> Option<HeldOne<'_>> {
        match row {
            RowId::Key { scope, key } => self.locks.keys.lock((self.id, (&**scope, &**key))),
            _ => None,
        }
    }
}

fn note_of(instance: InstanceId) -> RowId<'static> {
    RowId::Note(NoteId::Move { instance })
}

/// Whether a key goes to a store that has `there` of it: not if that is of a later launch.
pub(super) fn goes(here: &KeyRecord, there: Option<&KeyRecord>) -> bool {
    there.is_none_or(|there| rank(there) < rank(here))
}

/// The row of the index for an ended key.
pub(super) fn expiry_of(row: &RowId<'static>, record: &KeyRecord) -> Option<RowId<'static>> {
    match (row, record.ended) {
        (RowId::Key { scope, key }, Some(end)) => Some(RowId::Expiry {
            at_ms: end.out_of_scope_ms,
            what: Expiring::Key { scope: scope.clone(), key: key.clone() },
        }),
        _ => None,
    }
}

/// How an assignment ended whose lease was revoked.
fn revoked(lease: &Lease, now_ms: u64) -> Assignment {
    Assignment {
        worker: lease.worker.clone(),
        token: lease.token,
        from_ms: lease.from_ms,
        until_ms: now_ms,
        failure: Some(Assignment::MOVED.to_owned()),
    }
}

/// Adds the removal of what an instance has beside its steps, and of the note.
fn add_leaving(
    removals: &mut Changes,
    id: InstanceId,
    head: Option<&InstanceRecord>,
    key: Option<&(RowId<'static>, KeyRecord)>,
) {
    if let Some(end) = head.and_then(|head| head.ended.as_ref()) {
        removals.delete(RowId::Expiry { at_ms: end.collect_ms, what: Expiring::Instance(id) });
    }
    if let Some((row, record)) = key {
        removals.delete(row.clone());
        expiry_of(row, record).into_iter().for_each(|row| removals.delete(row));
    }
    for row in [RowId::Instance { id }, RowId::Input { id }, RowId::Output { id }, note_of(id)] {
        removals.delete(row);
    }
}

#[cfg(test)]
mod tests {
    use cutover_formats::StoreId;
    use cutover_formats::record::{Ending, KeyEnd};

    use super::*;

    fn key(epoch: u64, live: bool) -> KeyRecord {
        let ended = (!live).then_some(KeyEnd { ending: Ending::Completed, out_of_scope_ms: 9 });
        KeyRecord { instance: InstanceId::new(StoreId(1), epoch, 1), epoch, ended, revision: 1 }
    }

    #[test]
    fn a_key_goes_unless_a_later_launch_holds_or_held_it_there() {
        let all = [key(1, false), key(2, false), key(1, true), key(2, true)];
        for (at, here) in all.iter().enumerate() {
            assert!(goes(here, None));
            for (other, there) in all.iter().enumerate() {
                assert_eq!(goes(here, Some(there)), other < at, "{here:?} {there:?}");
            }
        }
    }
}
