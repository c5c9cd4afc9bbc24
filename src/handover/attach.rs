//! How a runner comes to a tenant and goes.

use std::sync::Arc;
use std::time::Duration;

use cutover_formats::Access;
use cutover_formats::access::{AccessRecord, HandoverPhase, Seat};
use cutover_formats::limits::MAX_SEATS;

use super::access::{self, Change};
use super::{change_locked, driver, held, named};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::shared::Thread;
use crate::tenant::access::{AccessControl, Told};
use crate::tenant::seats::{Caller, RunnerId, refusal_of};
use crate::tenant::{Inner, Tenant};

/// That a runner is there for a tenant. While it is primary its handles are served; dropping this says that it is gone: its handles are refused
/// and its workers disconnected. Its access stays, and it may attach again under the same name, also after a restart.
#[must_use = "the runner is gone as soon as it is dropped"]
pub struct Attached {
    tenant: Arc<Inner>,
    runner: Arc<RunnerId>,
    access: Access,
    epoch: u64,
}

/// Attaches a runner, to act or to be ready.
pub(crate) fn attach(tenant: &Arc<Inner>, runner: &Arc<RunnerId>, standby: bool) -> Result<Attached> {
    // Says whether the tenant is there and its stores are open.
    drop(tenant.enter("attach a runner")?);
    if standby {
        tenant.warm()?;
    }
    let mut control = tenant.access.lock();
    tenant.shared.check()?;
    let seat = take_seat(tenant, &mut control, &runner.name, standby)?;
    tenant.seats.attach(runner);
    // A flip may have waited for it.
    control.retry_at_once();
    tenant.shared.wake(Thread::Flipper);
    Ok(Attached {
        tenant: Arc::clone(tenant),
        runner: Arc::clone(runner),
        access: seat.access,
        epoch: seat.epoch,
    })
}

/// The seat of a runner that attaches, durable.
fn take_seat(tenant: &Inner, control: &mut AccessControl, runner: &str, standby: bool) -> Result<Seat> {
    if control.flip.is_none() {
        driver::settle(tenant, control)?;
    }
    let record = control.record();
    let mine = record.and_then(|record| record.seat(runner)).cloned();
    let change = if standby { Change::AttachStandby } else { Change::Attach };
    let refused = || refusal_of(&tenant.name, record, runner);
    let next = access::next(mine.as_ref().map(|seat| seat.access), change).map_err(|_| refused())?;
    if let Some(seat) = mine {
        // It is what it was: a reconnect.
        return Ok(seat);
    }
    if next == Access::Primary && record.is_some_and(|record| record.primary().is_some()) {
        return Err(refused());
    }
    if control.flip.is_some() {
        let message = format!("a flip of the tenant {:?} is on", tenant.name);
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    if next == Access::Primary {
        wait_for_terminated(tenant, control)?;
    }
    let record = control.record();
    let room = record.map_or(Ok(None), |record| make_room(&record.seats))?;
    let (epoch, since_ms) = (control.next_epoch(), tenant.shared.now_ms());
    let seat = Seat { runner: runner.to_owned(), access: next, epoch, since_ms };
    let why = format!("attached: {next}");
    let told = Told { who: "runner", step: 0, runner, why: &why };
    control.persist(since_ms, &[told], |record: &mut AccessRecord| {
        record.epoch = epoch;
        record.seats.retain(|other| Some(&other.runner) != room.as_ref());
        record.seats.push(seat.clone());
    })?;
    tenant.seats.show(control.record());
    let (name, runner) = (tenant.name.clone(), runner.to_owned());
    tenant.shared.emit(|| Event::Access { tenant: name, runner, access: next, epoch });
    Ok(seat)
}

/// What an earlier primary was admitted to has ended before the next one is let in.
fn wait_for_terminated(tenant: &Inner, control: &mut AccessControl) -> Result<()> {
    if let Some(wait) = &mut control.ending
        && let Err(holders) = wait.wait(driver::SHORT)
    {
        let names = named(&holders);
        let message =
            format!("the primary of the tenant {:?} was terminated and has not ended: {names}", tenant.name);
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    control.ending = None;
    Ok(())
}

/// Who has to be forgotten for one more to be named.
fn make_room(seats: &[Seat]) -> Result<Option<String>> {
    if seats.len() < MAX_SEATS {
        return Ok(None);
    }
    let terminated = seats.iter().filter(|seat| seat.access == Access::Terminated);
    let oldest = terminated.min_by_key(|seat| seat.epoch).map(|seat| seat.runner.clone());
    let full = || {
        let message =
            format!("{MAX_SEATS} runners were named for the tenant, and none of them is terminated");
        Error::new(ErrorKind::AtLimit, message)
    };
    oldest.map(Some).ok_or_else(full)
}

impl Attached {
    /// What the runner was when it attached.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Number of the change by which it came to that: after a restart the same as before.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The tenant, for this runner.
    #[must_use]
    pub fn tenant(&self) -> Tenant {
        Tenant(Arc::clone(&self.tenant), Caller::runner(Arc::clone(&self.runner)))
    }

    /// Whether it acts for the tenant at this moment.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.tenant.seats.acts(&self.runner)
    }

    /// Waits until it acts for the tenant: until it is let in. Says whether it does; `false` if the time was over first.
    ///
    /// # Errors
    /// If the engine is closed meanwhile.
    pub fn wait_to_act(&self, timeout: Duration) -> Result<bool> {
        let shared = &self.tenant.shared;
        let open = || !shared.is_closed();
        let acts = self.tenant.seats.wait_to_act(&self.runner, clock::deadline(timeout), open);
        shared.check()?;
        Ok(acts)
    }

    /// Says that the new runner serves: the last phase of a hand-over. Only now the old one is terminated, and there is no way back. Durable when
    /// it returns; without a hand-over to this runner nothing changes. While the hand-over is part of a wave that has not come to its end, only
    /// that this was said is durable, and need not be said again: the wave ends the hand-over, or takes it back.
    ///
    /// # Errors
    /// [`NotPrimary`](ErrorKind::NotPrimary) if it does not act for the tenant; [`Unavailable`](ErrorKind::Unavailable) while the flip is not
    /// acknowledged.
    pub fn serving(&self) -> Result<()> {
        let tenant = &*self.tenant;
        let mut control = tenant.access.lock();
        tenant.shared.check()?;
        control.settle()?;
        let record = control.record();
        if record.and_then(AccessRecord::primary).is_none_or(|seat| seat.runner != self.runner.name) {
            return Err(refusal_of(&tenant.name, record, &self.runner.name));
        }
        if phase_to(&control, &self.runner.name) == Some(HandoverPhase::Flip) {
            // It was let in a moment ago, and that is not acknowledged yet.
            driver::step_locked(tenant, &mut control);
        }
        match phase_to(&control, &self.runner.name) {
            None | Some(HandoverPhase::Prepare) => return Ok(()),
            Some(HandoverPhase::Cleanup) => {}
            Some(phase) => {
                let message = format!("the hand-over of the tenant {:?} is still in {phase}", tenant.name);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        let now_ms = tenant.shared.now_ms();
        if held::knows_that_it_serves(&control) {
            return Ok(());
        }
        change_locked(tenant, &mut control, "runner", |record| {
            let why = held::serves(record, now_ms)?;
            Ok((self.runner.name.clone(), why.to_owned()))
        })
    }
}

/// How far the hand-over to this runner has come.
fn phase_to(control: &AccessControl, runner: &str) -> Option<HandoverPhase> {
    let handover = control.record()?.handover.as_ref().filter(|handover| handover.to == runner);
    handover.map(|handover| handover.phase)
}

impl Drop for Attached {
    fn drop(&mut self) {
        let number = self.runner.number;
        if self.tenant.seats.detach(&self.runner) {
            self.tenant.sessions.close_of(number);
            self.tenant.requeue_released();
            self.tenant.wake_callers();
        }
    }
}
