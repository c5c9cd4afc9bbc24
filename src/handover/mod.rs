//! Hand-overs: which runner acts for a tenant, and giving it to another one while work goes on.
//!
//! [`access`] says which changes of a runner's access are legal, [`flip`] which step of a flip comes next; both are pure. [`driver`] makes the
//! steps. [`attach`] is how a runner comes and goes, [`backoff`] how it tries again, [`wave`] how many tenants change hands as one and [`held`]
//! how a wave keeps hold of each. Here is what an operator, or the program that links the engine, can ask for.
//!
//! Who may act is a table of its own. Where data is (a migration) and who works on a step (leases) are two others, and none of the three knows
//! the others: a hand-over goes on while a migration does.
//!
//! Invariant: at most one runner is primary, and what an earlier one was admitted to do has ended before the next one is let in.

pub mod access;
pub(crate) mod attach;
pub mod backoff;
pub(crate) mod driver;
pub mod flip;
pub(crate) mod held;
pub mod wave;

use std::time::Duration;

use cutover_formats::access::{AccessLine, AccessRecord, HandoverPhase, HandoverRecord, InWave, Seat};
use cutover_formats::{Access, limits};

use self::access::Change;
use self::flip::FlipStep;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Thread;
use crate::status::{Holder, Waiting};
use crate::sync::MutexGuard;
use crate::tenant::access::{AccessControl, Asked, Flipped, Told};
use crate::tenant::seats::refusal_of;
use crate::tenant::{Inner, Tenant};

/// How long a flip waits for what was admitted before it, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long terminating a primary waits for what it was admitted to.
const ENDING: Duration = Duration::from_secs(5);
/// Who hands a tenant over that has no primary, in the journal.
const NOBODY: &str = "nobody";

/// How a hand-over goes. Durable with it.
#[derive(Debug, Clone)]
pub struct HandoverOptions {
    patience: Duration,
    flip_in: Option<Duration>,
}

impl Default for HandoverOptions {
    fn default() -> Self {
        Self { patience: PATIENCE, flip_in: None }
    }
}

impl HandoverOptions {
    /// How long a flip waits for what was admitted before it: then the old runner goes on. Five seconds unless told otherwise.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Flip after this time without being asked again, and try until it succeeds; also after a restart.
    #[must_use]
    pub fn flip_in(mut self, time: Duration) -> Self {
        self.flip_in = Some(time);
        self
    }
}

/// What a flip came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandoverReport {
    /// Number of the hand-over; 0 if there was nothing to do and the one that did it is over.
    pub id: u64,
    /// Nothing was to be done: the runner was primary before the call, and nothing has changed.
    pub already: bool,
    /// It went back to the earlier runner.
    pub back: bool,
    /// The epoch of the change.
    pub epoch: u64,
    /// How long requests of the tenant could have had to wait.
    pub paused: Duration,
    /// Requests that waited.
    pub queued: u64,
    /// Requests that were refused because too many waited, or for too long.
    pub refused: u64,
    /// Steps that workers of the old runner held and that are ready again.
    pub released: usize,
    /// Why it did not come to be, if it did not: everything is as it was before.
    pub undone: Option<String>,
}

impl From<Flipped> for HandoverReport {
    fn from(flipped: Flipped) -> Self {
        let Flipped { handover, back, epoch, paused, queued, refused, released, undone } = flipped;
        Self { id: handover, already: false, back, epoch, paused, queued, refused, released, undone }
    }
}

/// Where a hand-over is.
#[derive(Debug, Clone)]
pub struct HandoverProgress {
    /// All runners that were named, each once.
    pub seats: Vec<Seat>,
    /// Number of the last change.
    pub epoch: u64,
    /// The hand-over under way.
    pub handover: Option<HandoverRecord>,
    /// The step that a flip is at.
    pub step: Option<FlipStep>,
    /// Who holds the flip up: thread, what it does, for how long.
    pub holders: Vec<String>,
    /// Requests that wait now.
    pub waiting: usize,
    /// What the last flip since the engine was opened came to.
    pub last: Option<HandoverReport>,
}

/// Who acts for a tenant: look at it, and give it to another runner. To change it is for operators, and for the runner that acts: through the
/// tenant of another [runner](crate::Runner::tenant) every change is refused.
#[derive(Clone)]
pub struct Handover {
    tenant: Tenant,
}

impl Tenant {
    /// Who acts for it.
    #[must_use]
    pub fn handover(&self) -> Handover {
        Handover { tenant: self.clone() }
    }
}

impl Handover {
    /// Begins a hand-over to a runner that is on standby, and returns its number: the first of its three phases. The old runner works on. Every
    /// store of the tenant is read from, and definitions are made known. Durable when it returns.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if the runner is not on standby, also if it is primary already, or a hand-over is under way; or if a
    /// store cannot be read.
    pub fn prepare(&self, to: &str, options: &HandoverOptions) -> Result<u64> {
        limits::check_name("the name of the runner", to)?;
        let tenant = &*self.tenant.0;
        tenant.warm()?;
        let mut control = self.lock()?;
        let mut id = 0;
        prepare(tenant, &mut control, to, options, None, &mut id)?;
        Ok(id)
    }

    /// Flips: the second phase. Returns when the new runner has been let in, or the old one goes on; the report says which, and how long requests
    /// could have had to wait. On success it is durable.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if nothing is prepared, or another call has changed that meanwhile;
    /// [`Indeterminate`](ErrorKind::Indeterminate) if a disk fails so that it is not known how it ends. It goes on in the background then, and
    /// [`progress`](Self::progress) shows how.
    pub fn flip(&self) -> Result<HandoverReport> {
        let (control, asked) = self.ask(HandoverPhase::Prepare)?;
        self.drive(control, asked)
    }

    /// [`prepare`](Self::prepare) and [`flip`](Self::flip). Whoever asks again because it does not know how the last call went is told so if the
    /// runner is [primary already](HandoverReport::already): names are used once, so it was this hand-over.
    ///
    /// # Errors
    /// As both of them.
    pub fn run(&self, to: &str, options: &HandoverOptions) -> Result<HandoverReport> {
        let control = self.lock()?;
        if let Some(report) = already(&control, to) {
            return Ok(report);
        }
        drop(control);
        self.prepare(to, options)?;
        self.flip()
    }

    /// Asks for the flip without waiting for it: a thread of the engine, or [`Engine::step`](crate::Engine::step), makes it.
    ///
    /// # Errors
    /// As [`flip`](Self::flip).
    pub fn ask_to_flip(&self) -> Result<()> {
        self.ask(HandoverPhase::Prepare).map(drop)
    }

    /// Takes a flip back while the new runner has not said that it serves: with the same eight steps, to exactly the seats that the two had before
    /// it; others stay as they are. If it does not succeed, as the report says, it is tried again in the background.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if there is none that can be, or another call has changed that meanwhile.
    pub fn roll_back(&self) -> Result<HandoverReport> {
        let (control, asked) = self.ask(HandoverPhase::Cleanup)?;
        self.drive(control, asked)
    }

    /// Asks for that without waiting for it, as [`ask_to_flip`](Self::ask_to_flip).
    ///
    /// # Errors
    /// As [`roll_back`](Self::roll_back).
    pub fn ask_to_roll_back(&self) -> Result<()> {
        self.ask(HandoverPhase::Cleanup).map(drop)
    }

    /// Calls a hand-over off before its flip. The new runner stays on standby.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if there is none, or it has flipped.
    pub fn cancel(&self) -> Result<()> {
        self.change("operator", |record| {
            let handover = record.handover.take().filter(|one| one.phase == HandoverPhase::Prepare);
            let handover = handover.ok_or("there is no hand-over that has not flipped")?;
            Ok((handover.to, "the hand-over is called off".to_owned()))
        })
    }

    /// A runner has nothing to do with the tenant any more: its requests are refused, its workers disconnected, and what it was admitted to has
    /// ended. Durable when it returns.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it was never named; [`IllegalMove`](ErrorKind::IllegalMove) while a hand-over is about it;
    /// [`TimedOut`](ErrorKind::TimedOut) if it is terminated, and what it was admitted to has not ended in five seconds: nobody else becomes primary
    /// before it has.
    pub fn terminate(&self, runner: &str) -> Result<()> {
        let tenant = &*self.tenant.0;
        let mut control = self.lock()?;
        let Some(seat) = control.record().and_then(|record| record.seat(runner)) else {
            let message = format!("no runner {runner:?} was named for the tenant {:?}", tenant.name);
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let acted = seat.access == Access::Primary;
        let now_ms = tenant.shared.now_ms();
        change_locked(tenant, &mut control, "operator", |record| {
            let about = record.handover.as_ref();
            if about.is_some_and(|one| one.to == runner || one.from.as_deref() == Some(runner)) {
                return Err("a hand-over is about this runner");
            }
            change_seat(record, runner, Change::Terminate, now_ms)?;
            Ok((runner.to_owned(), "terminated".to_owned()))
        })?;
        if acted {
            control.ending = Some(tenant.shared.pins.begin_wait(tenant.id));
        }
        let ending = control.ending.is_some().then(|| tenant.shared.pins.begin_wait(tenant.id));
        drop(control);
        if let Some(number) = tenant.seats.number_of(runner) {
            tenant.sessions.close_of(number);
            tenant.requeue_released();
        }
        tenant.wake_callers();
        let Some(Err(holders)) = ending.map(|mut ending| ending.wait(ENDING)) else { return Ok(()) };
        let message =
            format!("{runner:?} is terminated, and something is still under way: {}", named(&holders));
        Err(Error::new(ErrorKind::TimedOut, message))
    }

    /// Forgets a runner that was terminated: its name may be used for another one from then on.
    ///
    /// # Errors
    /// [`IllegalMove`](ErrorKind::IllegalMove) if it is not one that was.
    pub fn forget(&self, runner: &str) -> Result<()> {
        self.change("operator", |record| {
            let before = record.seats.len();
            record.seats.retain(|seat| seat.runner != runner || seat.access != Access::Terminated);
            if record.seats.len() == before {
                return Err("it is not one that was terminated");
            }
            Ok((runner.to_owned(), "forgotten".to_owned()))
        })
    }

    /// Where it is.
    #[must_use]
    pub fn progress(&self) -> HandoverProgress {
        let tenant = &*self.tenant.0;
        let control = tenant.access.lock();
        let record = control.record();
        let step = control.flip.as_ref().and_then(|flip| FlipStep::of_number(flip.step));
        let progress = HandoverProgress {
            seats: record.map(|record| record.seats.clone()).unwrap_or_default(),
            epoch: record.map_or(0, |record| record.epoch),
            handover: record.and_then(|record| record.handover.clone()),
            step,
            holders: Vec::new(),
            waiting: tenant.seats.waiting(),
            last: control.last.clone().map(HandoverReport::from),
        };
        drop(control);
        let mut holders = Vec::new();
        if step == Some(FlipStep::Drain)
            && let Waiting::On(held) = tenant.shared.pins.begin_wait(tenant.id).poll()
        {
            holders.extend(held.iter().map(ToString::to_string));
        }
        HandoverProgress { holders, ..progress }
    }

    /// The journal of who acts, oldest line first. The eight steps of a flip are lines of their own.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn journal(&self) -> Result<Vec<AccessLine>> {
        self.tenant.0.access.lock().lines()
    }

    /// The record of who acts, for whoever may change it: clients, and the runner that acts. While a flip is on nobody may, and the callers say so.
    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, AccessControl>> {
        let Tenant(tenant, caller) = &self.tenant;
        let mut control = tenant.access.lock();
        tenant.shared.check()?;
        if control.flip.is_none() {
            driver::settle(tenant, &mut control)?;
        }
        match caller.as_runner() {
            // Under this lock that does not change, so it need not wait or pin.
            Some(runner) if control.flip.is_none() && !tenant.seats.acts(runner) => {
                Err(refusal_of(&tenant.name, control.record(), &runner.name))
            }
            _ => Ok(control),
        }
    }

    /// Asks for a flip, from this phase on. Whoever makes it as well keeps the lock until its first step: nobody is to come between.
    pub(crate) fn ask(&self, phase: HandoverPhase) -> Result<(MutexGuard<'_, AccessControl>, Asked)> {
        let mut control = self.lock()?;
        let asked = Self::ask_locked(&self.tenant.0, &mut control, phase)?;
        Ok((control, asked))
    }

    fn ask_locked(tenant: &Inner, control: &mut AccessControl, phase: HandoverPhase) -> Result<Asked> {
        if control.flip.is_some() {
            return Err(illegal(tenant, "a flip is on"));
        }
        let handover = control.record().and_then(|record| record.handover.as_ref());
        let Some(handover) = handover.filter(|handover| handover.phase == phase) else {
            return Err(illegal(tenant, "there is no hand-over in the phase for it"));
        };
        if control.ruled.is_some_and(|ruled| ruled.handover == handover.id) {
            return Err(illegal(tenant, "its wave has ruled about the hand-over, and that is being done"));
        }
        let asked = Asked { handover: handover.id, back: phase == HandoverPhase::Cleanup };
        (control.asked, control.last) = (Some(asked), None);
        control.retry_at_once();
        tenant.shared.wake(Thread::Flipper);
        Ok(asked)
    }

    /// Makes the steps of a flip that was asked for, until it is over.
    pub(crate) fn drive<'t>(
        &'t self,
        mut control: MutexGuard<'t, AccessControl>,
        asked: Asked,
    ) -> Result<HandoverReport> {
        let tenant = &*self.tenant.0;
        let mut stuck = false;
        loop {
            let nap = driver::step_locked(tenant, &mut control);
            // Others look at it meanwhile, or make the next step.
            drop(control);
            control = tenant.access.lock();
            tenant.shared.check()?;
            if control.flip.is_none() {
                return came_to(tenant, &mut control, asked);
            }
            let fails = nap.is_some_and(|nap| nap >= driver::RETRY);
            if fails && stuck {
                let message =
                    "a disk fails, so it is not known how the flip ends: it goes on in the background";
                return Err(Error::new(ErrorKind::Indeterminate, message));
            }
            // Once more at once: it may have been a moment's failure.
            stuck = fails;
        }
    }

    /// Changes the record while no flip is on. What `change` answers goes into the journal: about whom, and what.
    fn change(
        &self,
        who: &str,
        change: impl FnOnce(&mut AccessRecord) -> Result<(String, String), &'static str>,
    ) -> Result<()> {
        let mut control = self.lock()?;
        change_locked(&self.tenant.0, &mut control, who, change)
    }
}

/// What a flip that was asked for came to, while none is on.
fn came_to(tenant: &Inner, control: &mut AccessControl, asked: Asked) -> Result<HandoverReport> {
    let of_it = |last: &&Flipped| (last.handover, last.back) == (asked.handover, asked.back);
    if let Some(last) = control.last.as_ref().filter(of_it) {
        return Ok(last.clone().into());
    }
    // It never began, or another one has followed it.
    control.asked = control.asked.filter(|other| *other != asked);
    Err(illegal(tenant, "another call has changed the hand-over meanwhile"))
}

/// What is said to whoever asks for a hand-over to a runner that is primary already.
fn already(control: &AccessControl, to: &str) -> Option<HandoverReport> {
    let record = control.record().filter(|_| control.flip.is_none())?;
    let seat = record.primary().filter(|seat| seat.runner == to)?;
    let handover = record.handover.as_ref().filter(|handover| handover.to == to);
    let id = handover.map_or(0, |handover| handover.id);
    Some(HandoverReport { id, already: true, epoch: seat.epoch, ..HandoverReport::default() })
}

/// Who is waited for, in words.
fn named(holders: &[Holder]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Makes a change durable and publishes it, while no flip is on.
fn change_locked(
    tenant: &Inner,
    control: &mut AccessControl,
    who: &str,
    change: impl FnOnce(&mut AccessRecord) -> Result<(String, String), &'static str>,
) -> Result<()> {
    if control.flip.is_some() {
        return Err(illegal(tenant, "a flip is on"));
    }
    control.settle()?;
    let Some(record) = control.record() else {
        return Err(illegal(tenant, "no runner was named for it"));
    };
    let mut changed = record.clone();
    changed.epoch = control.next_epoch();
    let (runner, why) = change(&mut changed).map_err(|why| illegal(tenant, why))?;
    let told = Told { who, step: 0, runner: &runner, why: &why };
    control.persist(tenant.shared.now_ms(), &[told], |record| {
        let journal = record.journal.clone();
        *record = AccessRecord { journal, ..changed };
    })?;
    tenant.seats.show(control.record());
    Ok(())
}

/// Changes the access of one runner, as the table allows.
fn change_seat(
    record: &mut AccessRecord,
    runner: &str,
    change: Change,
    now_ms: u64,
) -> Result<(), &'static str> {
    let epoch = record.epoch;
    let seat = record.seats.iter_mut().find(|seat| seat.runner == runner).ok_or("it was never named")?;
    seat.access = access::next(Some(seat.access), change).map_err(|_| "its access does not allow it")?;
    (seat.epoch, seat.since_ms) = (epoch, now_ms);
    Ok(())
}

fn illegal(tenant: &Inner, what: &str) -> Error {
    let message = format!("cannot change who acts for the tenant {:?}: {what}", tenant.name);
    Error::new(ErrorKind::IllegalMove, message)
}

/// Begins a hand-over. `id` is its number, set before anything of it may be durable: also if it is not known whether it is.
fn prepare(
    tenant: &Inner,
    control: &mut AccessControl,
    to: &str,
    options: &HandoverOptions,
    wave: Option<InWave>,
    id: &mut u64,
) -> Result<()> {
    control.settle()?;
    let record = control.record();
    if record.and_then(|record| record.seat(to)).is_none_or(|seat| seat.access != Access::Standby) {
        let refusal = refusal_of(&tenant.name, record, to);
        return Err(Error::with_source(
            ErrorKind::IllegalMove,
            "only a runner on standby takes over",
            refusal,
        ));
    }
    if let Some(handover) = record.and_then(|record| record.handover.as_ref()) {
        let what = format!("hand-over {} to {:?} is under way: {}", handover.id, handover.to, handover.phase);
        return Err(illegal(tenant, &what));
    }
    let now_ms = tenant.shared.now_ms();
    change_locked(tenant, control, "operator", |record| {
        *id = record.epoch;
        let from = record.primary().map(|seat| seat.runner.clone());
        let why = format!("prepare: from {:?}", from.as_deref().unwrap_or(NOBODY));
        record.handover = Some(HandoverRecord {
            id: *id,
            from,
            to: to.to_owned(),
            phase: HandoverPhase::Prepare,
            flip_at_ms: options.flip_in.map(|time| now_ms.saturating_add(clock::millis(time))),
            patience_ms: clock::millis(options.patience),
            earlier: Vec::new(),
            started_ms: now_ms,
            wave,
        });
        Ok((to.to_owned(), why))
    })?;
    control.retry_at_once();
    tenant.shared.wake(Thread::Flipper);
    Ok(())
}

/// The hand-over to a runner whose request is to bring the tenant to it: the one that is prepared, or a new one.
fn prepare_for(tenant: &Inner, control: &mut AccessControl, runner: &str) -> Result<u64> {
    let prepared = control.record().and_then(|record| record.handover.as_ref());
    let prepared = prepared.filter(|one| one.phase == HandoverPhase::Prepare && one.to == runner);
    match prepared.map(|handover| handover.id) {
        Some(id) => Ok(id),
        None => {
            let mut id = 0;
            prepare(tenant, control, runner, &HandoverOptions::default(), None, &mut id)?;
            Ok(id)
        }
    }
}
