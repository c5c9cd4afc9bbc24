//! The driver of flips: makes one step of one tenant's flip at a time. Whoever asked for it calls it, or a thread of the engine.
//!
//! In the order of the house: persist (step 4), publish (the barrier was put up before, so that nothing comes between), wait (5), act (6 and 7).
//! Steps 1 to 3 change memory only. Their lines are durable before the barrier goes up, and those of 5 to 7 are written with the
//! acknowledgement, after it has come down: nobody waits for a line.

use std::time::Duration;

use cutover_formats::access::{AccessRecord, HandoverPhase, HandoverRecord, Seat};

use super::access::{self, Change};
use super::backoff::Backoff;
use super::flip::{self, FlipStep, Next, Went};
use super::{held, named};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::sync::Instant;
use crate::tenant::Inner;
use crate::tenant::access::{AccessControl, Asked, Flip, Flipped, Ruled, Ruling, Told};
use crate::tenant::seats::Queued;

/// How long one step waits for pins before it turns to other tenants.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// How long to wait after a failure.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// How long to wait before a flip that came to nothing is tried again in the background.
const AGAIN: Backoff = Backoff { first: RETRY, most: Duration::from_secs(30), tries: u32::MAX };
/// How long to wait for a tenant's access that somebody has, and for what ought to be over.
pub(super) const SHORT: Duration = Duration::from_millis(100);

/// Makes the step that it is time for, and says when to look again.
pub(crate) fn step(tenant: &Inner) -> Option<Duration> {
    let Some(mut control) = tenant.access.try_lock_for(SHORT) else { return Some(SHORT) };
    // Under the lock: once closing has had it, nothing is written any more.
    if tenant.shared.is_closed() {
        return None;
    }
    step_locked(tenant, &mut control)
}

/// Makes steps as long as there is one to make at once: nobody waits for other tenants while a flip is on.
pub(crate) fn run(tenant: &Inner) -> Option<Duration> {
    loop {
        match step(tenant) {
            Some(next) if next.is_zero() => {}
            next => return next,
        }
    }
}

pub(super) fn step_locked(tenant: &Inner, control: &mut AccessControl) -> Option<Duration> {
    if let Some(flip) = control.flip.take() {
        return advance(tenant, control, flip);
    }
    match begin_if_due(tenant, control) {
        Ok(next) => next,
        Err(err) => {
            failed_to_begin(tenant, control, &err);
            Some(not_at_once(control))
        }
    }
}

/// A flip came to nothing: the next try in the background is not before the time that this returns, longer after each.
fn not_at_once(control: &mut AccessControl) -> Duration {
    control.failed = control.failed.saturating_add(1);
    let wait = AGAIN.after(control.failed, ErrorKind::Unavailable).unwrap_or(AGAIN.most);
    control.not_before = Some(clock::deadline(wait));
    wait
}

/// What a flip that could not begin came to.
fn failed_to_begin(tenant: &Inner, control: &mut AccessControl, err: &Error) {
    tenant.seats.unwant();
    let ruled =
        control.ruled.map(|Ruled { handover, ruling }| Asked { handover, back: ruling == Ruling::Goes });
    if let Some(Asked { handover, back }) = control.asked.or(ruled) {
        let undone = Some(err.to_string());
        control.last = Some(Flipped { handover, back, undone, ..Flipped::default() });
    }
    // Who goes back wants to be back: that is tried again.
    control.asked = control.asked.filter(|asked| asked.back);
    let error = err.to_string();
    tenant.shared.emit(|| Event::HandoverFailed { tenant: tenant.name.clone(), error });
}

/// While no flip is on: after a write that was in doubt the record may be ahead of what is published. It may be a primary that was terminated.
pub(super) fn settle(tenant: &Inner, control: &mut AccessControl) -> Result<()> {
    if control.settle()? {
        tenant.seats.show(control.record());
        control.ending = Some(tenant.shared.pins.begin_wait(tenant.id));
    }
    Ok(())
}

/// Begins a flip that was asked for, or for which it is time.
fn begin_if_due(tenant: &Inner, control: &mut AccessControl) -> Result<Option<Duration>> {
    let wanted = tenant.seats.wanted();
    if control.record().is_none() && wanted.is_none() {
        return Ok(None);
    }
    settle(tenant, control)?;
    held::carry_out(tenant, control)?;
    if let Some(runner) = wanted {
        let handover = super::prepare_for(tenant, control, &runner)?;
        control.asked = Some(Asked { handover, back: false });
    }
    let Some(handover) = control.record().and_then(|record| record.handover.clone()) else {
        return Ok(None);
    };
    let asked = control.asked.filter(|asked| asked.handover == handover.id);
    let left = handover.flip_at_ms.map(|at| at.saturating_sub(tenant.shared.clock.peek_ms()));
    let left = left.filter(|_| handover.phase == HandoverPhase::Prepare).map(Duration::from_millis);
    let again = control.not_before.map(|at| at.saturating_duration_since(Instant::now()));
    let nap = left.into_iter().chain(again.filter(|_| left.is_some())).max();
    let back = match (handover.phase, asked) {
        (HandoverPhase::Prepare, Some(Asked { back: false, .. })) => false,
        (HandoverPhase::Prepare, _) if nap.is_some_and(|nap| nap.is_zero()) => false,
        (HandoverPhase::Cleanup, Some(Asked { back: true, .. })) => match again {
            Some(again) if !again.is_zero() => return Ok(Some(again)),
            _ => true,
        },
        (phase, _) if flip::is_unfinished(phase) => {
            finish(tenant, control, "driver")?;
            // What was ruled waited for this.
            return Ok(control.ruled.map(|_| Duration::ZERO));
        }
        _ => return Ok(nap),
    };
    control.flip = Some(begin(tenant, control, &handover, back)?);
    Ok(Some(Duration::ZERO))
}

/// A flip about to make its first step.
fn begin(tenant: &Inner, control: &mut AccessControl, handover: &HandoverRecord, back: bool) -> Result<Flip> {
    let gone = || Error::new(ErrorKind::IllegalMove, "no runner was named for the tenant");
    let before = control.record().ok_or_else(gone)?.seats.clone();
    let epoch = control.next_epoch();
    let primary = control.record().and_then(AccessRecord::primary).map(|seat| seat.runner.clone());
    let (after, to) = if back {
        (seats_back(&before, handover)?, handover.from.clone())
    } else {
        let now_ms = tenant.shared.now_ms();
        (seats_after(&before, primary.as_deref(), &handover.to, epoch, now_ms)?, Some(handover.to.clone()))
    };
    let told = Flipped { handover: handover.id, back, epoch, ..Flipped::default() };
    let flip = Flip {
        back,
        step: FlipStep::Deactivate as u8,
        failed: None,
        before,
        after,
        from: primary,
        to,
        patience: Duration::from_millis(handover.patience_ms),
        wait: None,
        until: None,
        held: None,
        told,
    };
    // Before anything is told of it, and anybody waits.
    check_present(tenant, &flip)?;
    Ok(flip)
}

/// The seats after a flip from one runner to another.
fn seats_after(seats: &[Seat], from: Option<&str>, to: &str, epoch: u64, since_ms: u64) -> Result<Vec<Seat>> {
    let mut seats = seats.to_vec();
    for seat in &mut seats {
        let change = match seat.runner.as_str() {
            runner if runner == to => Change::Promote,
            runner if Some(runner) == from => Change::Deactivate,
            _ => continue,
        };
        let next = access::next(Some(seat.access), change);
        seat.access = next.map_err(|illegal| Error::new(ErrorKind::IllegalMove, illegal.to_string()))?;
        (seat.epoch, seat.since_ms) = (epoch, since_ms);
    }
    Ok(seats)
}

/// The seats after the roll-back of a flip: its two runners have those from before it, and what became of others since stays.
fn seats_back(seats: &[Seat], handover: &HandoverRecord) -> Result<Vec<Seat>> {
    let mut seats = seats.to_vec();
    for seat in &mut seats {
        let change = match seat.runner.as_str() {
            runner if runner == handover.to => Change::Demote,
            runner if Some(runner) == handover.from.as_deref() => Change::Reinstate,
            _ => continue,
        };
        let next = access::next(Some(seat.access), change);
        let next = next.map_err(|illegal| Error::new(ErrorKind::IllegalMove, illegal.to_string()))?;
        // What it is again it is since then.
        let earlier = handover.earlier.iter().find(|earlier| earlier.runner == seat.runner);
        let earlier = earlier.filter(|earlier| earlier.access == next).ok_or_else(|| {
            let message = format!("what the runner {:?} was before the flip is not known", seat.runner);
            Error::new(ErrorKind::IllegalMove, message)
        })?;
        seat.clone_from(earlier);
    }
    Ok(seats)
}

fn advance(tenant: &Inner, control: &mut AccessControl, mut flip: Flip) -> Option<Duration> {
    if flip.failed.is_some() {
        return take_back(tenant, control, flip);
    }
    let step = FlipStep::of_number(flip.step)?;
    let (went, error) = match make(tenant, control, &mut flip, step) {
        Ok(true) => (Went::Well, None),
        Ok(false) => (Went::NotYet, None),
        Err(err) => (Went::Badly, Some(err)),
    };
    match flip::next(step, went) {
        Next::Make(next) => {
            flip.step = next as u8;
            control.flip = Some(flip);
            Some(Duration::ZERO)
        }
        Next::Again => {
            control.flip = Some(flip);
            Some(if went == Went::NotYet { PATIENCE } else { RETRY })
        }
        Next::Forget => {
            let why = undone_because(error.as_ref());
            let runner = flip.from.clone().unwrap_or_default();
            let began = step != FlipStep::Deactivate;
            let nap = undone(tenant, control, flip, error);
            if began {
                // Its first steps are in the journal. If this line fails it is as with those: they tell of nothing that is durable.
                let told = Told { who: "driver", step: 0, runner: &runner, why: &why };
                drop(control.tell(tenant.shared.now_ms(), &[told]));
            }
            nap
        }
        Next::TakeBack => {
            flip.failed = error;
            take_back(tenant, control, flip)
        }
        Next::End => {
            ended(tenant, control, flip);
            Some(Duration::ZERO)
        }
    }
}

/// Makes one step. Says whether it is done; if not, it is tried again.
fn make(tenant: &Inner, control: &mut AccessControl, flip: &mut Flip, step: FlipStep) -> Result<bool> {
    let at_ms = tenant.shared.now_ms();
    match step {
        FlipStep::Deactivate => {
            let steps = [FlipStep::Deactivate, FlipStep::Hold, FlipStep::Promote];
            control.tell(at_ms, &steps.map(|step| line(flip, step, "driver")))?;
        }
        FlipStep::Hold => {
            tenant.sessions.stop(tenant.shared.clock.monotonic());
            tenant.seats.hold();
            flip.held = Some(Instant::now());
        }
        FlipStep::Promote => check_present(tenant, flip)?,
        FlipStep::Persist => {
            let (phase, epoch) = (phase_of(flip), flip.told.epoch);
            control.persist(at_ms, &[line(flip, step, "driver")], |record| {
                record.epoch = epoch;
                let earlier = std::mem::replace(&mut record.seats, flip.after.clone());
                if let Some(handover) = &mut record.handover {
                    handover.phase = phase;
                    if !flip.back {
                        handover.earlier = earlier;
                        handover.from.clone_from(&flip.from);
                    }
                }
            })?;
            flip.wait = Some(tenant.shared.pins.begin_wait(tenant.id));
            flip.until = Some(clock::deadline(flip.patience));
        }
        FlipStep::Drain => return drain(tenant, flip),
        FlipStep::Disconnect => {
            check_present(tenant, flip)?;
            flip.told.released = disconnect(tenant, flip.from.as_deref());
        }
        FlipStep::LetIn => {
            let queued = let_go(tenant, control);
            flip.told.paused = flip.held.map(|held| held.elapsed()).unwrap_or_default();
            (flip.told.queued, flip.told.refused) = (queued.queued, queued.refused);
            // Who waits for a step of the old runner is to find out.
            tenant.wake_callers();
        }
        FlipStep::Acknowledge => {
            let steps = [FlipStep::Drain, FlipStep::Disconnect, FlipStep::LetIn, FlipStep::Acknowledge];
            acknowledge(control, at_ms, &steps.map(|step| line(flip, step, "driver")))?;
        }
    }
    Ok(true)
}

const fn phase_of(flip: &Flip) -> HandoverPhase {
    if flip.back { HandoverPhase::Back } else { HandoverPhase::Flip }
}

/// The line of a step.
fn line<'l>(flip: &'l Flip, step: FlipStep, who: &'l str) -> Told<'l> {
    let about_old =
        matches!(step, FlipStep::Deactivate | FlipStep::Hold | FlipStep::Drain | FlipStep::Disconnect);
    let runner = if about_old { &flip.from } else { &flip.to };
    let why = if flip.back { back_in_words(step) } else { step.name() };
    Told { who, step: step as u8, runner: runner.as_deref().unwrap_or(""), why }
}

/// The names of the steps on the way back, where they are others.
const fn back_in_words(step: FlipStep) -> &'static str {
    match step {
        FlipStep::Deactivate => "standby again",
        FlipStep::Promote => "primary again",
        step => step.name(),
    }
}

/// A new runner that is gone gets nothing. Back to the old one it goes in any case.
fn check_present(tenant: &Inner, flip: &Flip) -> Result<()> {
    match &flip.to {
        Some(to) if !flip.back && tenant.seats.number_of(to).is_none() => {
            let message = format!("the runner {to:?} is not attached any more");
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        _ => Ok(()),
    }
}

/// Waits a little for what was admitted before. Says whether that is over.
fn drain(tenant: &Inner, flip: &mut Flip) -> Result<bool> {
    let wait = flip.wait.get_or_insert_with(|| tenant.shared.pins.begin_wait(tenant.id));
    let left = flip.until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
    let Err(holders) = wait.wait(left.min(PATIENCE)) else { return Ok(true) };
    if left > PATIENCE {
        return Ok(false);
    }
    let message = format!("what was admitted before the flip has not ended in time: {}", named(&holders));
    Err(Error::new(ErrorKind::TimedOut, message))
}

/// The workers of a runner that has left are gone. Says how many steps they held.
fn disconnect(tenant: &Inner, runner: Option<&str>) -> usize {
    let Some(number) = runner.and_then(|runner| tenant.seats.number_of(runner)) else { return 0 };
    let released = tenant.sessions.close_of(number);
    tenant.requeue_released();
    released
}

/// Makes durable that a flip is over.
fn acknowledge(control: &mut AccessControl, at_ms: u64, told: &[Told<'_>]) -> Result<()> {
    let phase = |control: &AccessControl| {
        control.record().and_then(|record| record.handover.as_ref()).map(|handover| handover.phase)
    };
    // An earlier try may have come so far without knowing it.
    control.settle()?;
    if !phase(control).is_some_and(flip::is_unfinished) {
        return Ok(());
    }
    control.persist(at_ms, told, |record| match &mut record.handover {
        Some(handover) if handover.phase == HandoverPhase::Flip => handover.phase = HandoverPhase::Cleanup,
        _ => record.handover = None,
    })
}

/// The flip has failed after its change may have become durable: makes the earlier seats durable again, and only then lets the old one go on.
fn take_back(tenant: &Inner, control: &mut AccessControl, mut flip: Flip) -> Option<Duration> {
    // The write that failed may have happened all the same.
    let settled = control.settle();
    let is_back = |control: &AccessControl| {
        control.record().is_some_and(|record| {
            record.seats == flip.before
                && record.handover.as_ref().is_none_or(|handover| !flip::is_unfinished(handover.phase))
        })
    };
    if settled.is_ok() && !is_back(control) {
        let why = undone_because(flip.failed.as_ref());
        let runner = flip.from.clone().unwrap_or_default();
        let told = Told { who: "driver", step: 0, runner: &runner, why: &why };
        let epoch = control.next_epoch();
        // If this fails it is looked again what is there.
        drop(control.persist(tenant.shared.now_ms(), &[told], |record| {
            record.epoch = epoch;
            record.seats.clone_from(&flip.before);
            if let Some(handover) = &mut record.handover {
                match flip.back {
                    true => handover.phase = HandoverPhase::Cleanup,
                    false => (handover.phase, handover.earlier) = (HandoverPhase::Prepare, Vec::new()),
                }
            }
        }));
    }
    if control.settle().is_ok() && is_back(control) {
        let error = flip.failed.take();
        return undone(tenant, control, flip, error);
    }
    control.flip = Some(flip);
    Some(RETRY)
}

/// The line of a flip that is undone.
fn undone_because(error: Option<&Error>) -> String {
    format!("undone: {}", error.map(Error::to_string).unwrap_or_default())
}

/// Nobody is kept waiting any more. Leases go on after that, so none runs out before whoever waited has acted under it.
fn let_go(tenant: &Inner, control: &AccessControl) -> Queued {
    let queued = tenant.seats.let_go(control.record());
    tenant.sessions.go_on(tenant.shared.clock.monotonic());
    queued
}

/// The flip is undone, durably: the old runner goes on.
fn undone(tenant: &Inner, control: &mut AccessControl, flip: Flip, error: Option<Error>) -> Option<Duration> {
    let queued = let_go(tenant, control);
    let error = error.map(|err| err.to_string()).unwrap_or_default();
    let paused = flip.held.map(|held| held.elapsed()).unwrap_or_default();
    let (queued, refused) = (queued.queued, queued.refused);
    let undone = Some(error.clone());
    control.last = Some(Flipped { paused, queued, refused, undone, ..flip.told });
    // Who goes back wants to be back: that is tried again.
    control.asked = control.asked.filter(|asked| asked.back);
    tenant.shared.emit(|| Event::HandoverFailed { tenant: tenant.name.clone(), error });
    Some(not_at_once(control))
}

fn ended(tenant: &Inner, control: &mut AccessControl, flip: Flip) {
    let name = || tenant.name.clone();
    for seat in flip.after.iter().filter(|seat| !flip.before.contains(seat)) {
        let (runner, access, epoch) = (seat.runner.clone(), seat.access, flip.told.epoch);
        tenant.shared.emit(|| Event::Access { tenant: name(), runner, access, epoch });
    }
    let (paused, queued) = (flip.told.paused, flip.told.queued);
    let (from, to) = (flip.from, flip.to);
    tenant.shared.emit(|| Event::HandedOver { tenant: name(), from, to, paused, queued });
    (control.last, control.asked) = (Some(flip.told), None);
    control.retry_at_once();
}

/// Finishes a flip whose change was durable when the process ended: nothing that was admitted is left, and no worker.
fn finish(tenant: &Inner, control: &mut AccessControl, who: &str) -> Result<()> {
    let Some(handover) = control.record().and_then(|record| record.handover.clone()) else { return Ok(()) };
    let back = handover.phase == HandoverPhase::Back;
    let names = [handover.from.clone().unwrap_or_default(), handover.to.clone()];
    let [old, new] = if back { [&names[1], &names[0]] } else { [&names[0], &names[1]] };
    let told = [
        (FlipStep::Drain, old),
        (FlipStep::Disconnect, old),
        (FlipStep::LetIn, new),
        (FlipStep::Acknowledge, new),
    ]
    .map(|(step, runner)| Told { who, step: step as u8, runner, why: step.name() });
    acknowledge(control, tenant.shared.now_ms(), &told)?;
    tenant.seats.show(control.record());
    Ok(())
}

/// Finishes what a crash has interrupted, before the first call is served, and lets the journal tell what of its files was lost.
pub(crate) fn recover(tenant: &Inner) -> Result<()> {
    let mut control = tenant.access.lock();
    let phase = control.record().and_then(|record| record.handover.as_ref()).map(|handover| handover.phase);
    if phase.is_some_and(flip::is_unfinished) {
        finish(tenant, &mut control, "recovery")?;
    }
    held::release(tenant, &mut control)?;
    let said = std::mem::take(&mut control.said).join("; ");
    if !said.is_empty() {
        let told = Told { who: "recovery", step: 0, runner: "", why: &said };
        control.persist(tenant.shared.now_ms(), &[told], |_| {})?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_that_comes_to_nothing_is_tried_more_and_more_rarely() {
        let waits = [1, 2, 3, 6, 7, 1 << 30].map(|failed| AGAIN.after(failed, ErrorKind::Unavailable));
        let ms = [500, 1000, 2000, 16_000, 30_000, 30_000].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(waits, ms);
    }
}
