//! The replicator: copies definitions and compares both stores, a batch at a time, at a bounded rate. One step for one tenant; a thread of
//! the engine calls it for all of them in turn.
//!
//! A scan that begins after the wait of the start needs no snapshot: definitions are only ever added, and from the wait on they are written to
//! both stores.

use std::collections::HashMap;
use std::time::Duration;

use cutover_formats::{StoreId, TenantId};

use super::decide::{Next, decide};
use super::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::shared::Thread;
use crate::sync::atomic::Ordering;
use crate::tenant::Inner;
use crate::tenant::control::Control;
use crate::tenant::repair::{Batched, Position};

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// What is being done for each tenant.
#[derive(Default)]
pub(crate) struct Replicator {
    work: HashMap<TenantId, Work>,
}

/// The work for one tenant in one epoch.
struct Work {
    epoch: u64,
    mends: u64,
    task: Task,
    position: Position,
    rate: u64,
    /// Not before, to keep to the rate. On the engine's monotonic clock, as all times here.
    next: Duration,
    began: Duration,
    began_bytes: u64,
    rows: u64,
    bytes: u64,
    copied: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Count,
    Copy,
    Verify,
}

/// What there is to do, read under the control lock.
struct Job {
    epoch: u64,
    /// How often a store of the tenant was opened again: what was copied or compared before is done again.
    mends: u64,
    next: Next,
    from: StoreId,
    to: StoreId,
    migration: u64,
    rate: u64,
}

impl Replicator {
    /// Does one batch for a tenant if there is something to do, and says when to come again.
    pub(crate) fn step(&mut self, tenant: &Inner) -> Option<Duration> {
        let job = match Self::job(tenant) {
            Ok(Some(job)) => job,
            Ok(None) => {
                self.work.remove(&tenant.id);
                return None;
            }
            Err(_) => return Some(RETRY),
        };
        let now = tenant.shared.clock.monotonic();
        let work = self.work.entry(tenant.id).or_insert_with(|| Work::new(&job, now));
        if (work.epoch, work.mends) != (job.epoch, job.mends)
            || (work.task == Task::Verify) != (job.next == Next::Verify)
        {
            *work = Work::new(&job, now);
        }
        if work.rate != job.rate {
            // What was paused for at the old rate may be an hour away.
            (work.rate, work.next) = (job.rate, now);
        }
        if now < work.next {
            return Some(work.next - now);
        }
        match work.step(tenant, &job) {
            Ok(true) => {
                self.work.remove(&tenant.id);
                tenant.shared.wake(Thread::Driver);
                Some(Duration::ZERO)
            }
            Ok(false) => Some(work.next.saturating_sub(tenant.shared.clock.monotonic())),
            Err(_) if tenant.shared.is_closed() => None,
            Err(err) => {
                // What is there is looked at again from the start, because what failed may have left a store half written; and not
                // before the pause is over, however often other tenants call for a step meanwhile.
                *work = Work::new(&job, tenant.shared.clock.monotonic() + RETRY);
                let error = err.to_string();
                tenant.control.lock().drive.error = Some(error.clone());
                tenant.shared.emit(|| Event::Failed { tenant: tenant.name.clone(), error });
                Some(RETRY)
            }
        }
    }

    fn job(tenant: &Inner) -> Result<Option<Job>> {
        let Some(mut control) = tenant.control.try_lock_for(driver::SHORT) else {
            return Err(Error::new(ErrorKind::TimedOut, "somebody else steers the migration"));
        };
        let mends = tenant.mends.load(Ordering::Acquire);
        control.drive.as_of(mends);
        let record = control.record();
        let (Some(migration), Some(target)) = (&record.migration, record.status.target) else {
            return Ok(None);
        };
        let next = decide(&driver::facts(tenant, &control)?);
        if !matches!(next, Next::Copy | Next::Verify) {
            return Ok(None);
        }
        let (epoch, from) = (record.status.epoch, record.status.initial);
        Ok(Some(Job { epoch, mends, next, from, to: target, migration: migration.id, rate: migration.rate }))
    }
}

impl Work {
    fn new(job: &Job, begin: Duration) -> Self {
        let task = if job.next == Next::Copy { Task::Count } else { Task::Verify };
        Self {
            epoch: job.epoch,
            mends: job.mends,
            task,
            position: None,
            rate: job.rate,
            next: begin,
            began: begin,
            began_bytes: 0,
            rows: 0,
            bytes: 0,
            copied: 0,
        }
    }

    /// One batch. Says whether the job is done.
    fn step(&mut self, tenant: &Inner, job: &Job) -> Result<bool> {
        let position = self.position.take();
        let batched = match self.task {
            Task::Count => tenant.count_definitions(job.from, position)?,
            Task::Copy => {
                let total = (self.copied, self.bytes);
                tenant.copy_definitions(job.from, job.to, job.migration, total, position)?
            }
            Task::Verify => {
                if self.rows == 0 {
                    tenant.repair_gaps()?;
                }
                tenant.compare_definitions(job.from, job.to, position)?
            }
        };
        let done = batched.done;
        let now = tenant.shared.clock.monotonic();
        self.add(batched, job.rate, now);
        let mut control = tenant.control.lock();
        let mends = tenant.mends.load(Ordering::Acquire);
        if (control.record().status.epoch, mends) != (job.epoch, job.mends) {
            return Ok(true);
        }
        self.show(&mut control, now);
        if !done {
            return Ok(false);
        }
        match self.task {
            Task::Count => {
                drop(control);
                self.begin_copy(tenant, job)?;
                Ok(false)
            }
            Task::Copy => {
                control.drive.copied = true;
                Ok(true)
            }
            Task::Verify => {
                control.drive.verified = true;
                control.drive.error = None;
                let (compared, copied) = (self.rows, self.copied);
                tenant.shared.emit(|| Event::Verified { tenant: tenant.name.clone(), compared, copied });
                Ok(true)
            }
        }
    }

    fn begin_copy(&mut self, tenant: &Inner, job: &Job) -> Result<()> {
        let (position, copied, bytes) = tenant.copy_position(job.to, job.migration)?;
        self.task = Task::Copy;
        self.position = position;
        self.copied = copied;
        self.bytes = bytes;
        self.began_bytes = bytes;
        self.began = tenant.shared.clock.monotonic();
        Ok(())
    }

    fn add(&mut self, batched: Batched, rate: u64, now: Duration) {
        self.position = batched.position;
        self.rows += batched.rows;
        self.bytes += batched.bytes;
        self.copied += batched.copied;
        if rate > 0 && self.task != Task::Count {
            let pause = Duration::from_secs_f64(batched.bytes as f64 / rate as f64);
            self.next = self.next.max(now) + pause;
        }
    }

    fn show(&self, control: &mut Control, now: Duration) {
        let copy = &mut control.drive.copy;
        match self.task {
            Task::Count => (copy.total, copy.total_bytes) = (self.rows, self.bytes),
            Task::Copy => {
                (copy.copied, copy.bytes) = (self.copied, self.bytes);
                let seconds = now.saturating_sub(self.began).as_secs_f64();
                copy.rate = ((self.bytes - self.began_bytes) as f64 / seconds.max(1e-6)) as u64;
                let left = copy.total_bytes.saturating_sub(copy.bytes);
                copy.left_ms = left.saturating_mul(1000).checked_div(copy.rate).unwrap_or(0);
            }
            Task::Verify => copy.compared = self.rows,
        }
    }
}
