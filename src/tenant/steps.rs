//! What a worker's calls come to: a step is given out, its state saved, reported, offered to those that come after it, or tried again.
//!
//! Every report is checked against the lease under the instance's lock, in the same critical section as its commit (I9): one that comes
//! after the lease ran out, or with a token that is not the current one, is refused and changes nothing.

use std::time::Duration;

use cutover_formats::record::{Assignment, Ending, InstanceRecord, StepRecord, StepState};
use cutover_formats::{Record, RowId};

use super::end::{How, why_failed};
use super::launch::{add_step, ready_ms};
use super::quarantine::readable;
use super::queue::{Entry, Next, put_step, ready_row};
use super::retry::{self, Used};
use super::seats::Caller;
use super::sessions::{Lease, Refusal, SessionId};
use super::types::{Again, Completion, Failure, NewStep, Saved, Settled, Task};
use super::{Inner, Operation};
use crate::clock;
use crate::error::{Error, ErrorKind, Result, short_reason};
use crate::store::space::{Changes, Space};
use crate::sync;

/// What trying to give a step out came to.
pub(super) enum Given {
    Task(Task),
    /// It is not to be given out any more, or was offered anew.
    Nothing,
    Refused(Refusal),
}

/// A report that is accepted, and all that is needed to commit it.
pub(super) struct Report<'r> {
    op: &'r Operation<'r>,
    space: &'r Space,
    task: &'r Task,
    lease: Lease,
    record: InstanceRecord,
    row: RowId<'static>,
    step: StepRecord,
    changes: Changes,
}

impl Report<'_> {
    /// Notes the assignment in the step's history and writes the step. Returns what is to be offered when that is committed.
    fn settle(&mut self, state: StepState, now_ms: u64, failure: Option<String>) -> Option<Entry> {
        let (instance, step) = (self.task.instance, self.task.step.as_str());
        let before = ready_row(instance, step, &self.step);
        self.step.state = state;
        self.step.revision += 1;
        if let StepState::NeedsDecision { .. } = state {
            // From here on it is written what was counted in memory.
            self.step.attempts = self.step.attempts.saturating_add(self.lease.lost);
        }
        self.step.note(Assignment {
            worker: self.lease.worker.clone(),
            token: self.lease.token,
            from_ms: self.lease.from_ms,
            until_ms: now_ms,
            failure,
        });
        put_step(&mut self.changes, self.space.id, instance, step, before, self.step.clone())
    }

    /// What comes after a failure.
    fn after_failure(&self, again: Again, now_ms: u64) -> StepState {
        let (policy, used) = (&self.step.retry, Used::by(&self.step, self.lease.lost).and_one());
        let next = match again {
            Again::Never => return StepState::Failed,
            // Whoever was asked to stop does not try again.
            _ if self.record.cancel_requested => return StepState::Failed,
            Again::After(pause) => retry::at(policy, used, now_ms.saturating_add(clock::millis(pause))),
            Again::AsPlanned => retry::next(policy, used, now_ms, sync::random()),
        };
        match next {
            retry::Next::Again { at_ms } => StepState::Ready { at_ms },
            retry::Next::Exhausted => StepState::NeedsDecision { since_ms: now_ms },
        }
    }
}

impl Inner {
    /// Runs `act` on a task whose lease is current, with key and instance locked.
    pub(super) fn report<T: From<Refusal>>(
        &self,
        caller: &Caller,
        session: SessionId,
        task: &Task,
        act: impl FnOnce(&Self, Report<'_>) -> Result<T>,
    ) -> Result<T> {
        let op = self.admit(caller, "settle a step")?;
        // The instance may end with this step, and then its key must be held as well. The lease says which one that is, and not the task: that was in
        // the hands of its worker.
        let now = self.shared.clock.monotonic();
        let key = match self.sessions.current(session, task.held(), now) {
            Ok(lease) => lease.key,
            Err(refusal) => return Ok(refusal.into()),
        };
        let _key = key.as_ref().and_then(|key| self.locks.keys.lock((self.id, key)));
        let _instance = self.locks.instances.lock((self.id, task.instance));
        let now = self.shared.clock.monotonic();
        let lease = match self.sessions.current(session, task.held(), now) {
            Ok(lease) => lease,
            Err(refusal) => return Ok(refusal.into()),
        };
        self.doubts.check(&RowId::Instance { id: task.instance })?;
        let Some((space, record)) = op.locate(self.id, task.instance)? else {
            return Ok(Refusal::Ended.into());
        };
        if record.ended.is_some() {
            return Ok(Refusal::Ended.into());
        }
        let row = RowId::Step { instance: task.instance, step: task.step.clone().into() };
        let step = space.step(self.id, &row)?;
        let ready_at = step.as_ref().and_then(|step| match step.state {
            StepState::Ready { at_ms } => Some(at_ms),
            _ => None,
        });
        // A report whose outcome was unknown may have been committed all the same. Then its lease is over, and this one is late.
        let settled = |step: &StepRecord| step.history.iter().any(|one| one.token == lease.token);
        let Some(step) = step.filter(|step| ready_at.is_some() && !settled(step)) else {
            self.sessions.end(task.instance, &task.step, now);
            if ready_at.is_some() || record.cancel_requested {
                // One that was to be cancelled may have waited for this lease only: whoever is offered the entry ends it.
                let at_ms = ready_at.unwrap_or(lease.entry.at_ms);
                self.queue.offer(Entry { at_ms, ..lease.entry });
            }
            return Ok(Refusal::Settled.into());
        };
        act(self, Report { op: &op, space, task, lease, record, row, step, changes: Changes::default() })
    }
}

impl Inner {
    /// The first entry of a queue, of either store.
    pub(super) fn next_entry(&self, caller: &Caller, queue: &str) -> Result<Next> {
        let op = self.admit(caller, "claim")?;
        // One that is being opened again keeps nobody from the steps of the other.
        let open = op.by_id().filter(|space| !space.is_closed());
        let mut stores: Vec<&Space> = open.map(|space| &**space).collect();
        if stores.is_empty() {
            // Says why.
            stores.push(&op.home);
        }
        let now = self.shared.clock.monotonic();
        let is_held = |instance, step: &str| self.sessions.is_held(instance, step, now);
        // Workers that wait ask again and again. Who takes a step is told the time when it is given to him.
        self.queue.take(self.id, queue, &stores, &is_held, self.shared.clock.peek_ms())
    }

    /// Steps of workers that are not heard of any more are ready again. Says how long until the next one may be.
    pub(crate) fn requeue_released(&self) -> Duration {
        let now = self.shared.clock.monotonic();
        let (released, next) = self.sessions.take_released(now);
        released.into_iter().for_each(|entry| self.queue.offer(entry));
        next.map_or(Duration::MAX, |at| at.saturating_sub(now))
    }

    /// Gives a step to a worker, if it is still to be given.
    pub(super) fn give(
        &self,
        caller: &Caller,
        session: SessionId,
        worker: &str,
        entry: &Entry,
    ) -> Result<Given> {
        let op = self.admit(caller, "claim")?;
        let Some((_, record)) = op.locate(self.id, entry.instance)? else { return Ok(Given::Nothing) };
        // A cancelled instance may end here, which takes its key; others only need the instance.
        let key = record.cancel_requested.then_some(record.key.as_ref()).flatten();
        let _key = key.and_then(|key| self.locks.keys.lock((self.id, key)));
        let _instance = self.locks.instances.lock((self.id, entry.instance));
        if self.doubts.has(&RowId::Instance { id: entry.instance }) {
            // It may never have been launched, or have ended.
            return Ok(Given::Nothing);
        }
        let Some((space, record)) = op.locate(self.id, entry.instance)? else { return Ok(Given::Nothing) };
        // It may have gone to another store since it was offered, and is offered again there.
        let entry = &Entry { store: space.id, ..entry.clone() };
        let now = self.shared.clock.monotonic();
        if record.ended.is_some() || self.sessions.is_held(entry.instance, &entry.step, now) {
            return Ok(Given::Nothing);
        }
        if record.cancel_requested {
            if self.sessions.ask_to_stop(entry.instance, now) > 0 {
                // It ends with the last of these. The step is not offered again, or whoever claims would only ever find it.
            } else if key.is_none() && record.key.is_some() {
                // The cancel came between the looks: once more, with the key.
                self.queue.offer(entry.clone());
            } else {
                self.end_cancelled(&op, space, entry, record)?;
            }
            return Ok(Given::Nothing);
        }
        let row = RowId::Step { instance: entry.instance, step: entry.step.clone().into() };
        let Some(step) = space.step(self.id, &row)? else { return Ok(Given::Nothing) };
        match step.state {
            StepState::Ready { at_ms } if at_ms == entry.at_ms => {}
            StepState::Ready { at_ms } => {
                // It was put off by a report that came to nothing as far as its worker knows: nobody has offered it since.
                self.queue.offer(Entry { at_ms, ..entry.clone() });
                return Ok(Given::Nothing);
            }
            _ => return Ok(Given::Nothing),
        }
        let now_ms = self.shared.now_ms();
        let lost = self.sessions.lost(entry.instance, &entry.step, now);
        let times = lost.as_ref().map_or(0, |lost| lost.times);
        if !retry::may_begin(&step.retry, Used::by(&step, times), now_ms) {
            self.ask_what_to_do(space, entry, step, lost, now_ms)?;
            return Ok(Given::Nothing);
        }
        let token = self.shared.next_token();
        let length = self.shared.heartbeats.of(&entry.queue).lease();
        let lease = Lease {
            token,
            session,
            worker: worker.to_owned(),
            length,
            expires: Duration::ZERO,
            from_ms: now_ms,
            cancel_requested: false,
            key: record.key.clone(),
            lost: times,
            entry: entry.clone(),
        };
        if let Err(refusal) = self.sessions.give(lease, now) {
            self.queue.offer(entry.clone());
            return Ok(Given::Refused(refusal));
        }
        let attempt = step.attempts.saturating_add(times).saturating_add(1);
        Ok(Given::Task(Task {
            instance: entry.instance,
            step: entry.step.clone(),
            queue: entry.queue.clone(),
            input: step.input,
            saved: step.saved,
            token,
            attempt,
            definition: record.definition,
            version: record.version,
            key: record.key,
        }))
    }

    /// A step that cannot be given because its row, or that of its instance, cannot be read.
    pub(super) fn pass_over(&self, entry: &Entry, err: Error) -> Result<()> {
        let op = self.enter("set a step aside")?;
        let step = RowId::Step { instance: entry.instance, step: entry.step.clone().into() };
        for space in op.by_id() {
            for row in [&RowId::Instance { id: entry.instance }, &step] {
                if readable(space.decodes(self.id, row))?.is_none() {
                    return self.set_row_aside(space, row, err);
                }
            }
        }
        // Something else: it is offered again, and the claim ends.
        self.queue.offer(entry.clone());
        Err(err)
    }

    fn end_cancelled(
        &self,
        op: &Operation<'_>,
        space: &Space,
        entry: &Entry,
        record: InstanceRecord,
    ) -> Result<()> {
        let how = How { ending: Ending::Cancelled, reason: "cancelled", output: &[] };
        self.end_now(op, space, entry.instance, record, &how, Changes::default())
    }

    /// The step stays as it is, and held, but for what is saved of it.
    pub(super) fn saved(&self, mut report: Report<'_>, state: &[u8]) -> Result<Saved> {
        report.step.saved = state.to_vec();
        report.step.revision += 1;
        report.changes.put(report.row, Record::Step(report.step));
        self.commit(report.space, &report.changes)?;
        Ok(Saved::Done)
    }

    pub(super) fn completed(&self, mut report: Report<'_>, completion: Completion) -> Result<Settled> {
        let now_ms = self.shared.now_ms();
        report.step.result = completion.result;
        report.step.saved = Vec::new();
        report.settle(StepState::Completed, now_ms, None);
        let (instance, step) = (report.task.instance, report.task.step.as_str());
        let stopping = report.record.cancel_requested;
        let mut entries = Vec::new();
        let mut created = 0;
        for next in completion.next.iter().filter(|_| !stopping) {
            created += u32::from(self.offer_step(&mut report, next, now_ms, &mut entries)?);
        }
        report.record.open_steps = (report.record.open_steps + created).saturating_sub(1);
        let how = if report.record.open_steps == 0 {
            How { ending: Ending::Completed, reason: "", output: &completion.output }
        } else if stopping && self.sessions.ask_to_stop(instance, self.shared.clock.monotonic()) == 1 {
            How { ending: Ending::Cancelled, reason: "cancelled", output: &[] }
        } else {
            report.record.revision += 1;
            report.changes.put(RowId::Instance { id: instance }, Record::Instance(report.record));
            self.commit(report.space, &report.changes)?;
            self.sessions.end(instance, step, self.shared.clock.monotonic());
            self.announce(entries, None);
            return Ok(Settled::Done { ended: None });
        };
        self.end_now(report.op, report.space, instance, report.record, &how, report.changes)?;
        Ok(Settled::Done { ended: Some(how.ending) })
    }

    /// One parent of `next` has completed. Says whether the step is new.
    fn offer_step(
        &self,
        report: &mut Report<'_>,
        next: &NewStep,
        now_ms: u64,
        entries: &mut Vec<Entry>,
    ) -> Result<bool> {
        let (instance, store) = (report.task.instance, report.space.id);
        let row = RowId::Step { instance, step: next.name.clone().into() };
        let waiting = |parents: u32| match parents {
            0 => StepState::Ready { at_ms: now_ms },
            parents => StepState::Waiting { parents },
        };
        match report.space.step(self.id, &row)? {
            None => {
                let state = waiting(next.parents.saturating_sub(1));
                entries.extend(add_step(&mut report.changes, store, instance, next, state));
                Ok(true)
            }
            Some(mut step) => {
                let StepState::Waiting { parents } = step.state else {
                    let message =
                        format!("the step {:?} was offered more often than it has parents", next.name);
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                };
                step.state = waiting(parents.saturating_sub(1));
                step.counted_ms = ready_ms(step.state);
                step.revision += 1;
                entries.extend(put_step(&mut report.changes, store, instance, &next.name, None, step));
                Ok(false)
            }
        }
    }

    pub(super) fn failed(&self, mut report: Report<'_>, failure: &Failure) -> Result<Settled> {
        let now_ms = self.shared.now_ms();
        let (instance, step) = (report.task.instance, report.task.step.as_str());
        let reason = own_reason(&failure.reason);
        let state = report.after_failure(failure.again, now_ms);
        let why = why_failed(step, &reason);
        let entry = report.settle(state, now_ms, Some(reason));
        if state == StepState::Failed {
            let Report { op, space, record, changes, .. } = report;
            let ending = self.end_failed(op, space, instance, record, &why, changes)?;
            return Ok(Settled::Done { ended: Some(ending) });
        }
        self.commit(report.space, &report.changes)?;
        self.sessions.end(instance, step, self.shared.clock.monotonic());
        self.announce(entry.into_iter().collect(), None);
        Ok(Settled::Done { ended: None })
    }
}

/// A worker's reason, cut to its limit. One in the words that are the engine's own is told from these.
fn own_reason(reason: &str) -> String {
    let reason = short_reason(reason);
    if [Assignment::MOVED, Assignment::UNHEARD].contains(&&*reason) {
        format!("its worker says: {reason}")
    } else {
        reason
    }
}
