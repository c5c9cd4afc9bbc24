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

/// What a registered worker acts through. There is one for each registration: it is not [`Clone`], and dropping it gives back what the worker
/// holds.
///
/// ```compile_fail
/// fn twice(gate: cutover::Gate) -> (cutover::Gate, cutover::Gate) {
///     (gate.clone(), gate)
/// }
/// ```
///
/// Nothing of the engine can be reached through it, least of all a store:
///
/// ```compile_fail
/// fn around(gate: &cutover::Gate) -> &cutover::Tenant {
///     gate.tenant()
/// }
/// ```
pub struct Gate {
    pub(super) tenant: Tenant,
    terms: Terms,
    session: Mutex<SessionId>,
    /// Of the last heartbeat.
    sequence: AtomicU64,
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
        let session = self.0.register(&terms);
        Ok(Gate { tenant: self.clone(), terms, session: Mutex::new(session), sequence: AtomicU64::new(0) })
    }
}

impl super::Inner {
    fn register(&self, terms: &Terms) -> SessionId {
        // Before the session is there: a change that comes later waits for it.
        let epoch = self.register.read().1.epoch;
        self.sessions.open(terms.clone(), epoch, self.shared.clock.monotonic())
    }
}

impl Gate {
    /// The name under which the worker registered.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.terms.worker
    }

    /// Registers the worker anew, after its lease ran out. What it held is not its own any more.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn register_anew(&self) -> Result<()> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        let _pin = tenant.pin_for(Some(&self.tenant.1), "register a worker")?;
        let mut session = self.session.lock();
        tenant.sessions.close(*session, tenant.shared.clock.monotonic());
        *session = tenant.register(&self.terms);
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
    /// A claim writes nothing. After a crash of the process the step is ready again, and this claim's token is refused.
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
        self.deliver(&self.next_heartbeat(Some(task)))
    }

    /// Says that the worker is alive and works on nothing.
    ///
    /// # Errors
    /// If the engine is closed.
    pub fn idle(&self) -> Result<Beat> {
        self.deliver(&self.next_heartbeat(None))
    }

    /// The next heartbeat, for whoever delivers it later or on another way; it says that the worker has seen the status as it is now.
    #[must_use]
    pub fn next_heartbeat(&self, task: Option<&Task>) -> Heartbeat {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        Heartbeat {
            step: task.map(|task| (task.instance, task.step.clone(), task.token)),
            sequence,
            epoch: self.tenant.status().epoch,
        }
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
