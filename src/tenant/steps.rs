//! Workers and steps: claim, heartbeat, complete, fail.
//!
//! A worker holds a step under a lease with a fencing token. Every report is checked against the lease under the instance's lock, in the
//! same critical section as its commit (I9): one that comes after the lease ran out, or with a token that is not the current
//! one, is refused and changes nothing.

use std::time::Duration;

use cutover_formats::limits::{self, MAX_PAYLOAD};
use cutover_formats::record::{Assignment, Ending, InstanceRecord, StepRecord, StepState};
use cutover_formats::{Record, RowId};

use super::end::How;
use super::launch::add_step;
use super::leases::Lease;
use super::quarantine::readable;
use super::queue::{Entry, Next};
use super::types::{Beat, Completion, Failure, NewStep, Settled, Task, check_steps, short_reason};
use super::{Inner, Operation, Tenant};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::space::{Changes, Space};
use crate::sync::Instant;

/// Longest time a blocked claim sleeps without looking.
const NAP: Duration = Duration::from_secs(1);

const SETTLED: &str = "the step is settled already";
const EXPIRED: &str = "the lease has run out, or the step was given to another worker";
const ENDED: &str = "the instance has ended";

/// A named worker of a tenant.
#[derive(Clone)]
pub struct Worker {
    tenant: Tenant,
    name: String,
}

impl Tenant {
    /// A worker of this name, which appears in the history of the steps it settles.
    ///
    /// # Errors
    /// If the name is empty or longer than [`limits::MAX_NAME`].
    pub fn worker(&self, name: impl Into<String>) -> Result<Worker> {
        let name = name.into();
        limits::check_name("the name of the worker", &name)?;
        Ok(Worker { tenant: self.clone(), name })
    }
}

impl Worker {
    /// Takes the first ready step of `queue`, of whichever store, for `lease` (monotonic time, renewed by [`heartbeat`](Self::heartbeat)).
    /// Waits up to `wait` for one; `None` if there is none.
    ///
    /// A claim writes nothing. After a crash of the process the step is ready again, and this claim's token is refused.
    ///
    /// # Errors
    /// If a store cannot be read or the engine is closed.
    pub fn claim(&self, queue: &str, lease: Duration, wait: Duration) -> Result<Option<Task>> {
        limits::check_name("the name of the queue", queue)?;
        let tenant = &*self.tenant.0;
        let deadline = clock::deadline(wait);
        loop {
            let seen = tenant.queue.offers();
            let mut nap = tenant.requeue_expired().min(NAP);
            match tenant.next_entry(queue)? {
                Next::Entry(entry) => match tenant.give(&self.name, &entry, lease) {
                    Ok(Some(task)) => return Ok(Some(task)),
                    Ok(None) => continue,
                    // It keeps nobody from the others.
                    Err(err) if err.kind() == ErrorKind::Corrupt => {
                        tenant.pass_over(&entry, err)?;
                        continue;
                    }
                    Err(err) => {
                        tenant.queue.offer(entry);
                        return Err(err);
                    }
                },
                Next::NotBefore(at_ms) => {
                    nap = nap.min(Duration::from_millis(at_ms.saturating_sub(tenant.shared.clock.peek_ms())));
                }
                Next::Empty => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tenant.queue.sleep(seen, left.min(nap.max(Duration::from_millis(1))));
        }
    }

    /// Renews the lease of a task for its full length from now on.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn heartbeat(&self, task: &Task) -> Result<Beat> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        let now = tenant.shared.clock.monotonic();
        Ok(match tenant.leases.renew(task.instance, &task.step, task.token, now) {
            Some(false) => Beat::Renewed,
            Some(true) => Beat::CancelRequested,
            None => Beat::Stale,
        })
    }

    /// Reports the result of a task and offers the steps that come after it. With its last open step the instance completes.
    ///
    /// Durable when it returns [`Settled::Done`]; nothing changed when it returns [`Settled::Stale`].
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if a step is offered more often than it has parents.
    pub fn complete(&self, task: &Task, completion: Completion) -> Result<Settled> {
        limits::check_size("the result of the step", completion.result.len(), MAX_PAYLOAD)?;
        limits::check_size("the output of the instance", completion.output.len(), MAX_PAYLOAD)?;
        check_steps(&completion.next)?;
        self.settle(task, |tenant, report| tenant.completed(report, completion))
    }

    /// Reports that a task failed: it is tried again after a time, or fails its instance. Durable as [`complete`](Self::complete) is.
    ///
    /// # Errors
    /// If the store fails.
    pub fn fail(&self, task: &Task, failure: &Failure) -> Result<Settled> {
        self.settle(task, |tenant, report| tenant.failed(report, failure))
    }

    /// Runs `act` on a task whose lease is current, with key and instance locked.
    fn settle(
        &self,
        task: &Task,
        act: impl FnOnce(&Inner, Report<'_>) -> Result<Settled>,
    ) -> Result<Settled> {
        let tenant = &*self.tenant.0;
        let op = tenant.enter("settle a step")?;
        // The instance may end with this step, and then its key must be held as well.
        let _key = task.key.as_ref().and_then(|key| tenant.locks.keys.lock((tenant.id, key)));
        let _instance = tenant.locks.instances.lock((tenant.id, task.instance));
        let now = tenant.shared.clock.monotonic();
        let Some(lease) = tenant.leases.current(task.instance, &task.step, task.token, now) else {
            return Ok(Settled::Stale { why: EXPIRED });
        };
        tenant.doubts.check(&RowId::Instance { id: task.instance })?;
        let Some((space, record)) = op.locate(tenant.id, task.instance)? else {
            return Ok(Settled::Stale { why: ENDED });
        };
        if record.ended.is_some() {
            return Ok(Settled::Stale { why: ENDED });
        }
        let row = RowId::Step { instance: task.instance, step: task.step.clone().into() };
        let step = space.step(tenant.id, &row)?;
        let ready_at = step.as_ref().and_then(|step| match step.state {
            StepState::Ready { at_ms } => Some(at_ms),
            _ => None,
        });
        // A report whose outcome was unknown may have been committed all the same. Then its lease is over, and this one is late.
        let settled = |step: &StepRecord| step.history.iter().any(|one| one.token == lease.token);
        let Some(step) = step.filter(|step| ready_at.is_some() && !settled(step)) else {
            tenant.leases.end(task.instance, &task.step);
            if ready_at.is_some() || record.cancel_requested {
                // One that was to be cancelled may have waited for this lease only: whoever is offered the entry ends it.
                let at_ms = ready_at.unwrap_or(lease.entry.at_ms);
                tenant.queue.offer(Entry { at_ms, ..lease.entry });
            }
            return Ok(Settled::Stale { why: SETTLED });
        };
        let mut changes = Changes::default();
        changes.delete(lease.entry.row());
        act(tenant, Report { op: &op, space, task, lease, record, row, step, changes })
    }
}

/// A report that is accepted, and all that is needed to commit it.
struct Report<'r> {
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
    /// Notes the assignment in the step's history and writes the step.
    fn put_step(&mut self, state: StepState, now_ms: u64, failure: Option<String>) {
        self.step.state = state;
        self.step.revision += 1;
        self.step.history.push(Assignment {
            worker: self.lease.worker.clone(),
            token: self.lease.token,
            from_ms: self.lease.from_ms,
            until_ms: now_ms,
            failure,
        });
        self.changes.put(self.row.clone(), Record::Step(self.step.clone()));
    }
}

impl Inner {
    /// The first entry of a queue, of either store.
    fn next_entry(&self, queue: &str) -> Result<Next> {
        let op = self.enter("claim")?;
        // One that is being opened again keeps nobody from the steps of the other.
        let open = op.by_id().filter(|space| !space.is_closed());
        let mut stores: Vec<&Space> = open.map(|space| &**space).collect();
        if stores.is_empty() {
            // Says why.
            stores.push(&op.home);
        }
        let is_held = |instance, step: &str| self.leases.is_held(instance, step);
        // Workers that wait ask again and again. Who takes a step is told the time when it is given to him.
        self.queue.take(self.id, queue, &stores, &is_held, self.shared.clock.peek_ms())
    }

    /// Steps whose lease has run out are ready again. Says how long until the next one does.
    fn requeue_expired(&self) -> Duration {
        let now = self.shared.clock.monotonic();
        let (expired, next) = self.leases.take_expired(now);
        expired.into_iter().for_each(|entry| self.queue.offer(entry));
        next.map_or(Duration::MAX, |at| at.saturating_sub(now))
    }

    /// Gives a step to a worker, if it is still to be given.
    fn give(&self, worker: &str, entry: &Entry, length: Duration) -> Result<Option<Task>> {
        let op = self.enter("claim")?;
        let Some((_, record)) = op.locate(self.id, entry.instance)? else { return Ok(None) };
        // A cancelled instance may end here, which takes its key; others only need the instance.
        let key = record.cancel_requested.then_some(record.key.as_ref()).flatten();
        let _key = key.and_then(|key| self.locks.keys.lock((self.id, key)));
        let _instance = self.locks.instances.lock((self.id, entry.instance));
        if self.doubts.has(&RowId::Instance { id: entry.instance }) {
            // It may never have been launched, or have ended.
            return Ok(None);
        }
        let Some((space, record)) = op.locate(self.id, entry.instance)? else { return Ok(None) };
        if record.ended.is_some() || self.leases.is_held(entry.instance, &entry.step) {
            return Ok(None);
        }
        if record.cancel_requested {
            if self.leases.ask_to_stop(entry.instance) > 0 {
                // It ends with the last of these. The step is not offered again, or whoever claims would only ever find it.
            } else if key.is_none() && record.key.is_some() {
                // The cancel came between the looks: once more, with the key.
                self.queue.offer(entry.clone());
            } else {
                self.end_cancelled(&op, space, entry, record)?;
            }
            return Ok(None);
        }
        let row = RowId::Step { instance: entry.instance, step: entry.step.clone().into() };
        let Some(step) = space.step(self.id, &row)? else { return Ok(None) };
        match step.state {
            StepState::Ready { at_ms } if at_ms == entry.at_ms => {}
            StepState::Ready { at_ms } => {
                // It was put off by a report that came to nothing as far as its worker knows: nobody has offered it since.
                self.queue.offer(Entry { at_ms, ..entry.clone() });
                return Ok(None);
            }
            _ => return Ok(None),
        }
        let token = self.shared.next_token();
        self.leases.give(Lease {
            token,
            worker: worker.to_owned(),
            length,
            expires: self.shared.clock.monotonic().saturating_add(length),
            from_ms: self.shared.now_ms(),
            cancel_requested: false,
            entry: entry.clone(),
        });
        Ok(Some(Task {
            instance: entry.instance,
            step: entry.step.clone(),
            queue: entry.queue.clone(),
            input: step.input,
            token,
            attempt: step.history.len() as u32 + 1,
            definition: record.definition,
            version: record.version,
            key: record.key,
        }))
    }

    /// A step that cannot be given because its row, or that of its instance, cannot be read.
    fn pass_over(&self, entry: &Entry, err: Error) -> Result<()> {
        let op = self.enter("set a step aside")?;
        let Some(space) = op.by_id().find(|space| space.id == entry.store) else { return Ok(()) };
        let step = RowId::Step { instance: entry.instance, step: entry.step.clone().into() };
        for row in [RowId::Instance { id: entry.instance }, step] {
            if readable(space.decodes(self.id, &row))?.is_none() {
                return self.set_row_aside(space, &row, err);
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

    fn completed(&self, mut report: Report<'_>, completion: Completion) -> Result<Settled> {
        let now_ms = self.shared.now_ms();
        report.step.result = completion.result;
        report.put_step(StepState::Completed, now_ms, None);
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
        } else if stopping && self.leases.ask_to_stop(instance) == 1 {
            How { ending: Ending::Cancelled, reason: "cancelled", output: &[] }
        } else {
            report.record.revision += 1;
            report.changes.put(RowId::Instance { id: instance }, Record::Instance(report.record));
            self.commit(report.space, &report.changes)?;
            self.leases.end(instance, step);
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
                step.revision += 1;
                if let StepState::Ready { at_ms } = step.state {
                    let (queue, step) = (step.queue.clone(), next.name.clone());
                    let entry = Entry { at_ms, instance, step, queue, store };
                    report.changes.mark(entry.row());
                    entries.push(entry);
                }
                report.changes.put(row, Record::Step(step));
                Ok(false)
            }
        }
    }

    fn failed(&self, mut report: Report<'_>, failure: &Failure) -> Result<Settled> {
        let now_ms = self.shared.now_ms();
        let (instance, step) = (report.task.instance, report.task.step.as_str());
        let reason = short_reason(&failure.reason);
        let attempts_left = report.step.history.len() as u32 + 1 < report.step.max_attempts;
        let retry_in = failure.retry_in.filter(|_| attempts_left && !report.record.cancel_requested);
        if let Some(delay) = retry_in {
            let at_ms = now_ms.saturating_add(clock::millis(delay));
            let entry = Entry { at_ms, ..report.lease.entry.clone() };
            report.put_step(StepState::Ready { at_ms }, now_ms, Some(reason));
            report.changes.mark(entry.row());
            self.commit(report.space, &report.changes)?;
            self.leases.end(instance, step);
            self.announce(vec![entry], None);
            return Ok(Settled::Done { ended: None });
        }
        report.put_step(StepState::Failed, now_ms, Some(reason.clone()));
        let ending = if report.record.cancel_requested { Ending::Cancelled } else { Ending::Failed };
        let reason = format!("step {step:?} failed: {reason}");
        let how = How { ending, reason: &reason, output: &[] };
        report.record.open_steps = report.record.open_steps.saturating_sub(1);
        self.end_now(report.op, report.space, instance, report.record, &how, report.changes)?;
        Ok(Settled::Done { ended: Some(ending) })
    }
}
