//! The gate of a worker: the only way in which it can act.
//!
//! A worker that stalls and wakes up does not know that its step has gone to somebody else. So the gate asks for the lease at every call,
//! where the call takes effect, and not once per step; and a worker whose lease has run out is refused in everything, whatever it
//! holds, until it registers anew. Stores cannot be reached through a gate.

use std::time::Duration;

use cutover_formats::limits::{self, MAX_PAYLOAD};

use super::Tenant;
use super::queue::Next;
use super::sessions::{Heartbeat, Refusal, SessionId, Terms};
use super::steps::Given;
use super::types::{Beat, Completion, Failure, Saved, Settled, Task, WorkerOptions, check_steps};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Instant, Mutex};

/// Longest time a blocked claim sleeps without looking.
const NAP: Duration = Duration::from_secs(1);

/// What a registered worker acts through. There is one for each registration: it can be given away, but it is not [`Clone`], and dropping it
/// gives back what the worker holds.
///
/// ```
/// fn away(gate: cutover::Gate) -> (cutover::Gate, ()) {
///     (gate, ())
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn twice(gate: cutover::Gate) -> (cutover::Gate, cutover::Gate) {
///     (gate.clone(), gate)
/// }
/// ```
///
/// It leads to the tenant, and nobody else goes that way:
///
/// ```
/// fn who(gate: &cutover::Gate) -> &str {
///     gate.worker()
/// }
/// ```
///
/// ```compile_fail,E0616
/// fn around(gate: &cutover::Gate) -> &cutover::Tenant {
///     &gate.tenant
/// }
/// ```
///
/// Least of all to a store, nor does it stand in for one:
///
/// ```
/// fn read(store: &dyn cutover::store::Store) {
///     let _ = store.get(cutover::formats::Family::Steps, b"key");
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn read(gate: &cutover::Gate) {
///     let _ = gate.get(cutover::formats::Family::Steps, b"key");
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn store(gate: &cutover::Gate) -> &dyn cutover::store::Store {
///     gate
/// }
/// ```
pub struct Gate {
    pub(super) tenant: Tenant,
    terms: Terms,
    session: Mutex<SessionId>,
    /// Of the last heartbeat that was made. A heartbeat of this gate's own holds it until it is taken: of two threads that beat at the same time
    /// neither overtakes the other, and is refused for it.
    sequence: Mutex<u64>,
    /// The newest epoch that it has [seen](Gate::seen).
    seen: AtomicU64,
}

impl Tenant {
    /// Registers a worker, whose name appears in the history of the steps that it settles. It is to be heard of from now on: by
    /// claims, reports and heartbeats; see [`Heartbeats`](crate::Heartbeats).
    ///
    /// # Errors
    /// If the name is empty or longer than [`limits::MAX_NAME`], or the engine is closed; [`NotPrimary`](ErrorKind::NotPrimary) or
    /// [`Deactivated`](ErrorKind::Deactivated) for a runner that does not act for the tenant.
    pub fn register(&self, worker: impl Into<WorkerOptions>) -> Result<Gate> {
        let options = worker.into();
        limits::check_name("the name of the worker", &options.name)?;
        let shared = &self.0.shared;
        shared.check()?;
        // A flip disconnects who registered before it, and nobody registers while it is on.
        let _pin = self.0.pin_for(Some(&self.1), "register a worker")?;
        let length = shared.heartbeats.engine.lease();
        let terms = Terms {
            worker: options.name,
            limit: options.limit,
            keeps_status: options.keeps_status,
            length,
            runner: self.1.number(),
        };
        // Before the session is there: a change that comes later waits for it.
        let epoch = self.status().epoch;
        let session = self.0.sessions.open(terms.clone(), epoch, shared.clock.monotonic());
        Ok(Gate {
            tenant: self.clone(),
            terms,
            session: Mutex::new(session),
            sequence: Mutex::new(0),
            seen: AtomicU64::new(epoch),
        })
    }
}

impl Gate {
    /// The name under which the worker registered.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.terms.worker
    }

    /// Registers the worker anew, after its lease ran out. What it held is not its own any more, and it has [seen](Self::seen) what it had.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn register_anew(&self) -> Result<()> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        let _pin = tenant.pin_for(Some(&self.tenant.1), "register a worker")?;
        let mut session = self.session.lock();
        let now = tenant.shared.clock.monotonic();
        tenant.sessions.close(*session, now);
        *session = tenant.sessions.open(self.terms.clone(), self.known(), now);
        drop(session);
        tenant.requeue_released();
        Ok(())
    }

    pub(super) fn session(&self) -> SessionId {
        *self.session.lock()
    }

    /// Takes the first ready step of `queue`, of whichever store, under a lease as long as the queue's [`Heartbeats`](crate::Heartbeats) say
    /// (monotonic time). Waits up to `wait` for one; `None` if there is none.
    ///
    /// A claim writes nothing, but for steps that nobody is given any more: one whose instance is to stop, or whose [`Retry`](crate::Retry) has used up
    /// a budget. After a crash of the process the step is ready again, and this claim's token is refused.
    ///
    /// # Errors
    /// [`LeaseExpired`](ErrorKind::LeaseExpired) if the worker was not heard of in time; [`AtLimit`](ErrorKind::AtLimit) if it holds as
    /// many steps as it may; or if a store cannot be read or the engine is closed.
    pub fn claim(&self, queue: &str, wait: Duration) -> Result<Option<Task>> {
        limits::check_name("the name of the queue", queue)?;
        let tenant = &*self.tenant.0;
        let session = self.session();
        let deadline = clock::deadline(wait);
        loop {
            let seen = tenant.queue.offers();
            let mut nap = tenant.requeue_released().min(NAP);
            let may = tenant.sessions.may_claim(session, tenant.shared.clock.monotonic());
            may.map_err(|refusal| self.refused(refusal))?;
            match tenant.next_entry(&self.tenant.1, queue)? {
                Next::Entry(entry) => {
                    match tenant.give(&self.tenant.1, session, &self.terms.worker, &entry) {
                        Ok(Given::Task(task)) => return Ok(Some(task)),
                        Ok(Given::Nothing) => continue,
                        Ok(Given::Refused(refusal)) => return Err(self.refused(refusal)),
                        // It keeps nobody from the others.
                        Err(err) if err.kind() == ErrorKind::Corrupt => {
                            tenant.pass_over(&entry, err)?;
                            continue;
                        }
                        Err(err) => {
                            tenant.queue.offer(entry);
                            return Err(err);
                        }
                    }
                }
                Next::NotBefore(at_ms) => {
                    nap = nap.min(Duration::from_millis(at_ms.saturating_sub(tenant.shared.clock.peek_ms())));
                }
                Next::Empty => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Who waits is heard of.
            nap = nap.min(self.terms.length / 2);
            tenant.queue.sleep(seen, left.min(nap.max(Duration::from_millis(1))));
        }
    }

    /// Says that the worker is alive and works on this task: renews its lease for its full length from now on.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn heartbeat(&self, task: &Task) -> Result<Beat> {
        self.beat(Some(task))
    }

    /// Says that the worker is alive and works on nothing.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn idle(&self) -> Result<Beat> {
        self.beat(None)
    }

    /// Notes that those to whom the worker hands the status on have confirmed the one of this epoch: its heartbeats say so from now on. Only for one
    /// that [keeps a status](WorkerOptions::keeps_status). What was confirmed later stays, and an epoch that has not come yet is as the present one.
    pub fn seen(&self, epoch: u64) {
        self.seen.fetch_max(epoch.min(self.tenant.status().epoch), Ordering::Relaxed);
    }

    /// The next heartbeat, for whoever delivers it later or on another way. It says which status the worker knows: the present one, or if it
    /// [keeps](WorkerOptions::keeps_status) one, the last that was [seen](Self::seen).
    #[must_use]
    pub fn next_heartbeat(&self, task: Option<&Task>) -> Heartbeat {
        self.numbered(&mut self.sequence.lock(), task)
    }

    /// Takes a heartbeat. What counts is when it is taken, so one that was delayed helps nobody.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn deliver(&self, beat: &Heartbeat) -> Result<Beat> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        let now = tenant.shared.clock.monotonic();
        Ok(match tenant.sessions.beat(self.session(), beat, now) {
            Ok(false) => Beat::Renewed,
            Ok(true) => Beat::CancelRequested,
            Err(refusal) => Beat::Refused(refusal),
        })
    }

    /// Saves the state of a task, up to [`MAX_PAYLOAD`] bytes in the place of what was saved before: whoever is given the step next, after a failure, a
    /// lease that ran out or a crash, finds it in [`Task::saved`]. It goes when the step completes. It does not renew the lease.
    ///
    /// Durable when it returns [`Saved::Done`]; nothing changed when it returns [`Saved::Refused`].
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it is too large; [`Indeterminate`](ErrorKind::Indeterminate) if the store failed during the
    /// commit.
    pub fn save(&self, task: &Task, state: &[u8]) -> Result<Saved> {
        limits::check_size("the saved state of the step", state.len(), MAX_PAYLOAD)?;
        let tenant = &*self.tenant.0;
        tenant.report(&self.tenant.1, self.session(), task, |tenant, report| tenant.saved(report, state))
    }

    /// Reports the result of a task and offers the steps that come after it. With its last open step the instance completes.
    ///
    /// Durable when it returns [`Settled::Done`]; nothing changed when it returns [`Settled::Refused`].
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if a step is offered more often than it has parents.
    pub fn complete(&self, task: &Task, completion: Completion) -> Result<Settled> {
        limits::check_size("the result of the step", completion.result.len(), MAX_PAYLOAD)?;
        limits::check_size("the output of the instance", completion.output.len(), MAX_PAYLOAD)?;
        check_steps(&completion.next)?;
        let tenant = &*self.tenant.0;
        tenant.report(&self.tenant.1, self.session(), task, |tenant, report| {
            tenant.completed(report, completion)
        })
    }

    /// Reports that a task failed. It is tried again after a pause, or waits for a [decision](crate::Tenant::decide) because a budget of
    /// its [`Retry`](crate::Retry) is used up, or fails its instance, as [`Failure::again`] says. Durable as [`complete`](Self::complete) is.
    ///
    /// # Errors
    /// If the store fails.
    pub fn fail(&self, task: &Task, failure: &Failure) -> Result<Settled> {
        let tenant = &*self.tenant.0;
        tenant.report(&self.tenant.1, self.session(), task, |tenant, report| tenant.failed(report, failure))
    }
}

impl Gate {
    fn beat(&self, task: Option<&Task>) -> Result<Beat> {
        let mut sequence = self.sequence.lock();
        let beat = self.numbered(&mut sequence, task);
        self.deliver(&beat)
    }

    fn numbered(&self, sequence: &mut u64, task: Option<&Task>) -> Heartbeat {
        *sequence += 1;
        Heartbeat {
            step: task.map(|task| (task.instance, task.step.clone(), task.token)),
            sequence: *sequence,
            epoch: self.known(),
        }
    }

    /// The epoch of the newest status that the worker acts on for certain.
    fn known(&self) -> u64 {
        if self.terms.keeps_status {
            return self.seen.load(Ordering::Relaxed);
        }
        self.tenant.status().epoch
    }

    /// Why nothing can be claimed. A worker whose runner does not act any more is told that: to register anew would be of no use.
    fn refused(&self, refusal: Refusal) -> Error {
        if let Err(err) = self.tenant.check_access() {
            return err;
        }
        refused(refusal)
    }
}

/// For those who have no other word for it.
pub(super) fn refused(refusal: Refusal) -> Error {
    let kind = match refusal {
        Refusal::AtLimit => ErrorKind::AtLimit,
        _ => ErrorKind::LeaseExpired,
    };
    Error::new(kind, refusal.to_string())
}

impl Drop for Gate {
    fn drop(&mut self) {
        let tenant = &*self.tenant.0;
        tenant.sessions.close(self.session(), tenant.shared.clock.monotonic());
        tenant.requeue_released();
    }
}
