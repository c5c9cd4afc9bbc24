//! A hand-over that is part of a wave: it does not end before the wave has ruled what becomes of it.
//!
//! That it is held is durable with it, and so is that its new runner has said that it serves meanwhile. A ruling is in memory until it is done: the
//! wave tries at once, the driver afterwards. Whoever runs a wave does so in memory too, so one that a crash has interrupted has not ruled
//! that anything goes: opening lets go of what it held.

use cutover_formats::access::{AccessRecord, HandoverPhase, InWave};
use cutover_formats::limits;

use super::access::Change;
use super::{
    Handover, HandoverOptions, HandoverReport, change_locked, change_seat, driver, illegal, prepare,
};
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Thread;
use crate::sync::thread;
use crate::tenant::Inner;
use crate::tenant::access::{AccessControl, Asked, Ruled, Ruling};

/// What a ruling comes to, by how far the hand-over is.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// First the flip that is under way comes to its end.
    Finish,
    /// It is held no longer.
    LetGo,
    /// It has not flipped and does not.
    CallOff,
    /// It has flipped and goes back.
    TakeBack,
}

const fn due(ruling: Ruling, phase: HandoverPhase) -> Due {
    match (phase, ruling) {
        (HandoverPhase::Flip | HandoverPhase::Back, _) => Due::Finish,
        (HandoverPhase::Prepare | HandoverPhase::Cleanup, Ruling::Stays) => Due::LetGo,
        (HandoverPhase::Prepare, Ruling::Goes) => Due::CallOff,
        (HandoverPhase::Cleanup, Ruling::Goes) => Due::TakeBack,
    }
}

/// Lets go of the hand-over of a record: if its new runner serves it ends.
fn let_go(record: &mut AccessRecord, now_ms: u64) -> Result<(), &'static str> {
    match record.handover.as_mut().and_then(|handover| handover.wave.take()) {
        Some(InWave::Serves) => serves(record, now_ms).map(drop),
        Some(InWave::Silent) | None => Ok(()),
    }
}

/// The new runner serves: the hand-over ends, or that is noted for the wave that holds it. Says which, in words.
pub(super) fn serves(record: &mut AccessRecord, now_ms: u64) -> Result<&'static str, &'static str> {
    if let Some(wave) = record.handover.as_mut().and_then(|handover| handover.wave.as_mut()) {
        *wave = InWave::Serves;
        return Ok("serves; the hand-over ends with its wave");
    }
    if let Some(old) = record.handover.take().and_then(|handover| handover.from) {
        change_seat(record, &old, Change::Terminate, now_ms)?;
    }
    Ok("serves")
}

/// Whether that was said before.
pub(super) fn knows_that_it_serves(control: &AccessControl) -> bool {
    let handover = control.record().and_then(|record| record.handover.as_ref());
    handover.is_some_and(|handover| handover.wave == Some(InWave::Serves))
}

/// Does what was ruled, as far as it can be done now.
pub(super) fn carry_out(tenant: &Inner, control: &mut AccessControl) -> Result<()> {
    let Some(Ruled { handover: id, ruling }) = control.ruled else { return Ok(()) };
    let handover = control.record().and_then(|record| record.handover.as_ref());
    // If somebody else has ended it or taken it back there is nothing left to do.
    if let Some(handover) = handover.filter(|handover| handover.id == id) {
        let (to, now_ms) = (handover.to.clone(), tenant.shared.now_ms());
        match due(ruling, handover.phase) {
            Due::Finish => return Ok(()),
            Due::TakeBack => {
                control.asked = Some(Asked { handover: id, back: true });
                return Ok(());
            }
            Due::CallOff => change_locked(tenant, control, "wave", |record| {
                record.handover = None;
                Ok((to, "the hand-over is called off".to_owned()))
            })?,
            Due::LetGo => change_locked(tenant, control, "wave", |record| {
                let_go(record, now_ms)?;
                if let Some(handover) = &mut record.handover
                    && handover.phase == HandoverPhase::Prepare
                {
                    handover.flip_at_ms.get_or_insert(now_ms);
                }
                Ok((to, "the wave is over".to_owned()))
            })?,
        }
    }
    control.ruled = None;
    Ok(())
}

/// At opening: the wave that held it is gone and has not ruled.
pub(super) fn release(tenant: &Inner, control: &mut AccessControl) -> Result<()> {
    let handover = control.record().and_then(|record| record.handover.as_ref());
    let Some(handover) = handover.filter(|handover| handover.wave.is_some()) else { return Ok(()) };
    let (to, now_ms) = (handover.to.clone(), tenant.shared.now_ms());
    change_locked(tenant, control, "recovery", |record| {
        let_go(record, now_ms)?;
        Ok((to, "its wave was interrupted: it is held no longer".to_owned()))
    })
}

impl Handover {
    /// [`prepare`](Self::prepare) for a wave, which holds the hand-over until it has [ruled](Self::rule). `id` is its number from the moment on
    /// when something of it may be durable; if that is under way already nothing happens.
    pub(crate) fn prepare_held(
        &self,
        to: &str,
        options: &HandoverOptions,
        id: &mut Option<u64>,
    ) -> Result<()> {
        limits::check_name("the name of the runner", to)?;
        let tenant = &*self.tenant.0;
        tenant.warm()?;
        let mut control = self.lock()?;
        let under_way = control.record().and_then(|record| record.handover.as_ref());
        if id.is_some() && under_way.map(|handover| handover.id) == *id {
            return Ok(());
        }
        let mut number = 0;
        let prepared = prepare(tenant, &mut control, to, options, Some(InWave::Silent), &mut number);
        if number > 0 {
            *id = Some(number);
        }
        prepared
    }

    /// [`flip`](Self::flip) of the hand-over of this number, or the end of its flip if that is on.
    pub(crate) fn flip_held(&self, id: u64) -> Result<HandoverReport> {
        let tenant = &*self.tenant.0;
        let mut control = self.lock()?;
        let under_way = control.record().and_then(|record| record.handover.as_ref());
        if under_way.is_none_or(|handover| handover.id != id) {
            return Err(illegal(tenant, "the hand-over was called off or taken back"));
        }
        let asked = match control.flip {
            Some(_) => Asked { handover: id, back: false },
            None => Self::ask_locked(tenant, &mut control, HandoverPhase::Prepare)?,
        };
        self.drive(control, asked)
    }

    /// What becomes of a hand-over that was [prepared](Self::prepare_held) for a wave. If it cannot be done now, which is an error, it is tried again in
    /// the background.
    pub(crate) fn rule(&self, handover: u64, ruling: Ruling) -> Result<()> {
        let tenant = &*self.tenant.0;
        {
            let mut control = tenant.access.lock();
            tenant.shared.check()?;
            control.ruled = Some(Ruled { handover, ruling });
            control.retry_at_once();
        }
        tenant.shared.wake(Thread::Flipper);
        let mut failed = false;
        loop {
            let mut control = tenant.access.lock();
            tenant.shared.check()?;
            if control.ruled.is_none_or(|ruled| ruled.handover != handover) {
                return Ok(());
            }
            match driver::step_locked(tenant, &mut control) {
                Some(nap) if nap <= driver::PATIENCE => {
                    drop(control);
                    thread::sleep(nap);
                }
                _ if control.ruled.is_none() => {}
                _ if failed => {
                    let why = control.last.as_ref().and_then(|last| last.undone.clone()).unwrap_or_default();
                    let message = format!("it is tried again in the background: {why}");
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                // Once more at once: it may have been a moment's failure.
                _ => {
                    failed = true;
                    control.retry_at_once();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every ruling in every phase, written out.
    #[test]
    fn what_is_under_way_ends_first_and_then_goes_or_stays() {
        let phases =
            [HandoverPhase::Prepare, HandoverPhase::Flip, HandoverPhase::Cleanup, HandoverPhase::Back];
        let of = |ruling| phases.map(|phase| due(ruling, phase));
        assert_eq!(of(Ruling::Stays), [Due::LetGo, Due::Finish, Due::LetGo, Due::Finish]);
        assert_eq!(of(Ruling::Goes), [Due::CallOff, Due::Finish, Due::TakeBack, Due::Finish]);
    }
}
