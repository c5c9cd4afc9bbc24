//! Waves: a hand-over, or the start of a migration, for a set of tenants as one.

use std::time::Duration;

use cutover_formats::access::HandoverPhase;
use cutover_formats::limits;
use cutover_formats::meta::RunId;
use cutover_formats::record::Token;

use super::{Core, Engine};
use crate::catalog::StoreSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::handover::HandoverOptions;
use crate::handover::wave::{self, Member, Wave, WaveReport};
use crate::migration::wave::{Start, is_final};
use crate::migration::{MigrationOptions, driver};
use crate::shared::Thread;
use crate::sync::{Instant, Mutex};
use crate::tenant::Tenant;
use crate::tenant::access::Ruling;

/// How long to wait before something that could not be done is tried again.
const RETRY: Duration = Duration::from_millis(500);

impl Engine {
    /// Hands several tenants over to a runner that is on standby for each of them, as one wave. Those left behind are named and flip in the background once they
    /// can, or at the wave's deadline, also after a restart; one for which not even a hand-over can be prepared is [stuck](WaveReport::stuck) and left
    /// alone. A hand-over that somebody else has prepared is none of the wave's: it is left as it is, and the tenant counts as failed.
    ///
    /// No hand-over of the wave ends before the wave does, whatever its new runner [says](crate::Attached::serving), so that each can be taken back. If the
    /// process ends before the wave does, opening lets go of them: what has flipped stays, what has not flips at the deadline if there is one.
    /// Likewise what is still stuck then.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if one of them does not exist, [`InvalidInput`](ErrorKind::InvalidInput) for a fraction that is none:
    /// nothing has changed. What becomes of each tenant is in the report.
    pub fn hand_over_wave(
        &self,
        tenants: &[&str],
        to: &str,
        options: &HandoverOptions,
        wave: &Wave,
    ) -> Result<WaveReport> {
        wave.check()?;
        let options = match wave.deadline {
            Some(time) => options.clone().flip_in(time),
            None => options.clone(),
        };
        let all = tenants.iter().map(|name| self.tenant(name)).collect::<Result<Vec<_>>>()?;
        let flips: Vec<_> = all
            .into_iter()
            .map(|tenant| Flip { tenant, to, options: &options, own: Mutex::default() })
            .collect();
        // All of them get ready before the first one flips. One that cannot is tried again when it is its turn.
        flips.iter().for_each(|flip| drop(flip.prepare()));
        wave::run(wave, &flips)
    }

    /// Starts the migrations of several tenants, each to its own target, as one wave: launches are switched nowhere before it is known that the wave goes on. Those left behind
    /// are named and started in the background once they can, as long as the engine is open; if that turns out to be of no use it is told as
    /// [`WaveGaveUp`](crate::Event::WaveGaveUp). The wave's deadline says nothing here. A plan in the options is held against what there is before the first
    /// migration begins.
    ///
    /// If the process ends before the wave does, what has begun waits before its switch. Give the wave an id to have it go on:
    /// [`run_migration_wave`](Self::run_migration_wave).
    ///
    /// # Errors
    /// As [`hand_over_wave`](Self::hand_over_wave); [`Drift`](ErrorKind::Drift) if the plan does not fit any more.
    pub fn migration_wave(
        &self,
        targets: &[(&str, StoreSpec)],
        options: &MigrationOptions,
        wave: &Wave,
    ) -> Result<WaveReport> {
        let Token { incarnation, counter } = self.0.core.shared.next_token();
        let id = format!("wave {incarnation}.{counter}");
        self.run_migration_wave(&RunId { id, attempt: "1".to_owned() }, targets, options, wave)
    }

    /// The same as an attempt at a run, which is each tenant's: see [`Migration::run`](crate::Migration::run). A wave that is asked for again goes on. A
    /// tenant whose migration has completed has succeeded, one that is under way does, and one that this attempt called off or rolled back before has
    /// failed. If the wave is aborted, what has switched or completed since an earlier call cannot be called off and is
    /// [stuck](WaveReport::stuck). The plan is not looked at if the run has begun for any of the tenants.
    ///
    /// # Errors
    /// As [`migration_wave`](Self::migration_wave); [`InvalidInput`](ErrorKind::InvalidInput) also for an id or attempt that is empty or longer than
    /// [`limits::MAX_NAME`].
    pub fn run_migration_wave(
        &self,
        run: &RunId,
        targets: &[(&str, StoreSpec)],
        options: &MigrationOptions,
        wave: &Wave,
    ) -> Result<WaveReport> {
        wave.check()?;
        limits::check_name("the id of the run", &run.id)?;
        limits::check_name("the name of the attempt", &run.attempt)?;
        let mut options = options.clone();
        let plan = options.take_plan();
        let start = |(name, target): &(&str, StoreSpec)| {
            let (run, target, options) = (run.clone(), target.clone(), options.clone());
            Ok(Starting { engine: self, start: Start { tenant: self.tenant(name)?, run, target, options } })
        };
        let tenants: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
        let starts = targets.iter().map(start).collect::<Result<Vec<_>>>()?;
        if let Some(plan) = plan {
            let known = starts.iter().map(Starting::is_known).collect::<Result<Vec<_>>>()?;
            if !known.contains(&true) {
                plan.check(&self.plan())?;
            }
        }
        // What an earlier call has left to the background is this one's now.
        let again = |owed: &Owed| owed.start.run.id == run.id && tenants.contains(&owed.start.tenant.name());
        self.0.core.owed.lock().retain(|owed| !again(owed));
        wave::run(wave, &starts)
    }
}

/// A hand-over as part of a wave.
struct Flip<'w> {
    tenant: Tenant,
    to: &'w str,
    options: &'w HandoverOptions,
    own: Mutex<Own>,
}

/// The hand-over that a wave has prepared. Every other one is somebody else's.
#[derive(Default)]
struct Own {
    /// Its number, as soon as something of it may be durable.
    id: Option<u64>,
    /// It is for sure. It is not prepared again, whoever calls it off.
    prepared: bool,
}

impl Flip<'_> {
    fn prepare(&self) -> Result<()> {
        let mut own = self.own.lock();
        if !own.prepared {
            self.tenant.handover().prepare_held(self.to, self.options, &mut own.id)?;
            own.prepared = true;
        }
        Ok(())
    }

    fn has_flipped(&self) -> bool {
        let id = self.own.lock().id;
        let handover = self.tenant.handover().progress().handover;
        handover.is_some_and(|handover| Some(handover.id) == id && handover.phase == HandoverPhase::Cleanup)
    }
}

impl Member for Flip<'_> {
    fn name(&self) -> &str {
        self.tenant.name()
    }

    fn attempt(&self) -> Result<()> {
        self.prepare()?;
        // At its deadline, or a try whose end was not known has come to one.
        if self.has_flipped() {
            return Ok(());
        }
        let id = self.own.lock().id.unwrap_or_default();
        let flipped = self.tenant.handover().flip_held(id);
        if self.has_flipped() {
            return Ok(());
        }
        let why = flipped?.undone.unwrap_or_else(|| "it was taken back at once".to_owned());
        Err(Error::new(ErrorKind::Unavailable, why))
    }

    fn rule(&self, ruling: Ruling) -> Result<()> {
        if ruling == Ruling::Stays {
            // The last chance: what is not prepared does not flip by itself.
            self.prepare().map_err(|err| err.context("no hand-over has begun, and none will"))?;
        }
        let id = self.own.lock().id;
        id.map_or(Ok(()), |id| self.tenant.handover().rule(id, ruling))
    }
}

/// The start of a migration as part of a wave.
struct Starting<'w> {
    engine: &'w Engine,
    start: Start,
}

impl Starting<'_> {
    fn is_known(&self) -> Result<bool> {
        self.start.is_known(&mut *self.start.tenant.0.steer()?)
    }
}

impl Member for Starting<'_> {
    fn name(&self) -> &str {
        self.start.tenant.name()
    }

    fn attempt(&self) -> Result<()> {
        self.start.begin(&mut *self.start.tenant.0.steer()?)
    }

    fn rule(&self, ruling: Ruling) -> Result<()> {
        let ruled = {
            let mut control = self.start.tenant.0.steer()?;
            self.start.rule(&mut control, ruling)
        };
        if ruled.as_ref().is_err_and(|err| !is_final(err)) {
            let core = &self.engine.0.core;
            let (start, not_before) = (self.start.clone(), Instant::now() + RETRY);
            core.owed.lock().push(Owed { start, ruling, not_before });
            core.shared.wake(Thread::Driver);
        }
        ruled
    }
}

/// What a wave has ruled about a migration and could not do at once.
pub(super) struct Owed {
    start: Start,
    ruling: Ruling,
    not_before: Instant,
}

impl Core {
    /// Does what is owed, if it is time. Says when to look again.
    pub(super) fn pay_owed(&self) -> Option<Duration> {
        let mut owed = self.owed.lock();
        let now = Instant::now();
        owed.retain_mut(|one| {
            if one.not_before > now {
                return true;
            }
            one.not_before = now + RETRY;
            let tenant = &one.start.tenant.0;
            // Somebody is at it, perhaps for long: the others do not wait for that, or not for long.
            let Some(mut control) = tenant.control.try_lock_for(driver::SHORT) else { return true };
            if self.shared.is_closed() {
                return false;
            }
            let Err(err) = one.start.rule(&mut control, one.ruling) else { return false };
            drop(control);
            let (name, error) = (|| tenant.name.clone(), err.to_string());
            let gave_up = is_final(&err);
            self.shared.emit(|| match gave_up {
                true => Event::WaveGaveUp { tenant: name(), error },
                false => Event::Failed { tenant: name(), error },
            });
            !gave_up
        });
        (!owed.is_empty()).then_some(RETRY)
    }
}
