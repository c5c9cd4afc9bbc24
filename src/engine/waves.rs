//! Waves: a hand-over, or the start of a migration, for a set of tenants as one.

use std::time::Duration;

use cutover_formats::access::HandoverPhase;

use super::{Core, Engine};
use crate::catalog::StoreSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::handover::wave::{self, Member, Wave, WaveReport};
use crate::handover::{HandoverOptions, HandoverReport};
use crate::migration::{Hold, MigrationOptions};
use crate::shared::Thread;
use crate::sync::Instant;
use crate::tenant::Tenant;

/// How long to wait before a migration that could not be started is tried again.
const RETRY: Duration = Duration::from_millis(500);

impl Engine {
    /// Hands several tenants over to a runner that is on standby for each of them, as one wave. Those left behind are named and flip in the background once they
    /// can, or at the wave's deadline, also after a restart.
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
        let by_itself = wave.deadline.is_some();
        let all = tenants.iter().map(|name| self.tenant(name)).collect::<Result<Vec<_>>>()?;
        let flips: Vec<_> =
            all.into_iter().map(|tenant| Flip { tenant, to, options: &options, by_itself }).collect();
        // All of them get ready before the first one flips. One that cannot is tried again when it is its turn.
        flips.iter().for_each(|flip| drop(flip.prepare()));
        wave::run(wave, &flips)
    }

    /// Starts the migrations of several tenants, each to its own target, as one wave: launches are switched nowhere before it is known that the wave goes on. Those left behind
    /// are named and started in the background once they can, as long as the engine is open. The wave's deadline says nothing here.
    ///
    /// # Errors
    /// As [`hand_over_wave`](Self::hand_over_wave).
    pub fn migration_wave(
        &self,
        targets: &[(&str, StoreSpec)],
        options: &MigrationOptions,
        wave: &Wave,
    ) -> Result<WaveReport> {
        let start = |(name, target): &(&str, StoreSpec)| {
            let (target, options) = (target.clone(), options.clone());
            Ok(Start {
                engine: self,
                left: Left { tenant: self.tenant(name)?, target, options, not_before: None },
            })
        };
        let starts = targets.iter().map(start).collect::<Result<Vec<_>>>()?;
        wave::run(wave, &starts)
    }
}

/// A hand-over as part of a wave.
struct Flip<'w> {
    tenant: Tenant,
    to: &'w str,
    options: &'w HandoverOptions,
    /// It is flipped at its time.
    by_itself: bool,
}

impl Flip<'_> {
    fn phase(&self) -> Option<HandoverPhase> {
        let handover = self.tenant.handover().progress().handover;
        handover.filter(|handover| handover.to == self.to).map(|handover| handover.phase)
    }

    fn prepare(&self) -> Result<()> {
        match self.phase() {
            None => self.tenant.handover().prepare(self.to, self.options).map(drop),
            Some(_) => Ok(()),
        }
    }
}

fn well(report: HandoverReport) -> Result<()> {
    report.undone.map_or(Ok(()), |why| Err(Error::new(ErrorKind::Unavailable, why)))
}

impl Member for Flip<'_> {
    fn name(&self) -> &str {
        self.tenant.name()
    }

    fn attempt(&self) -> Result<()> {
        self.prepare()?;
        match self.phase() {
            // A try whose end was not known has come to one.
            Some(HandoverPhase::Cleanup) => Ok(()),
            _ => well(self.tenant.handover().flip()?),
        }
    }

    fn roll_back(&self) -> Result<()> {
        well(self.tenant.handover().roll_back()?)
    }

    fn forget(&self) -> Result<()> {
        match self.phase() {
            Some(HandoverPhase::Prepare) => self.tenant.handover().cancel(),
            Some(HandoverPhase::Cleanup) => self.roll_back(),
            _ => Ok(()),
        }
    }

    fn repair(&self) -> Result<()> {
        match self.phase() {
            Some(HandoverPhase::Prepare) if !self.by_itself => self.tenant.handover().flip_later(),
            _ => Ok(()),
        }
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// A migration that is to be started.
#[derive(Clone)]
pub(super) struct Left {
    tenant: Tenant,
    target: StoreSpec,
    options: MigrationOptions,
    not_before: Option<Instant>,
}

/// The start of a migration as part of a wave.
struct Start<'w> {
    engine: &'w Engine,
    left: Left,
}

impl Member for Start<'_> {
    fn name(&self) -> &str {
        self.left.tenant.name()
    }

    fn attempt(&self) -> Result<()> {
        let options = self.left.options.clone().hold_switch(true);
        self.left.tenant.migration().start(self.left.target.clone(), options).map(drop)
    }

    fn roll_back(&self) -> Result<()> {
        self.left.tenant.migration().cancel()
    }

    fn forget(&self) -> Result<()> {
        Ok(())
    }

    fn repair(&self) -> Result<()> {
        let core = &self.engine.0.core;
        core.left.lock().push(Left { not_before: Some(Instant::now() + RETRY), ..self.left.clone() });
        core.shared.wake(Thread::Driver);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        match self.left.options.holds_switch() {
            true => Ok(()),
            false => self.left.tenant.migration().release(Hold::Switch),
        }
    }
}

impl Core {
    /// Starts migrations that a wave has left behind, if it is time. Says when to look again.
    pub(super) fn start_left(&self) -> Option<Duration> {
        let mut left = self.left.lock();
        let now = Instant::now();
        left.retain_mut(|one| {
            if one.not_before.is_some_and(|at| at > now) {
                return true;
            }
            one.not_before = Some(now + RETRY);
            let started = one.tenant.migration().try_start(one.target.clone(), one.options.clone());
            // Another one runs, or the tenant is gone: it is not for us to bring about any more.
            started.is_err_and(|err| !matches!(err.kind(), ErrorKind::IllegalMove | ErrorKind::NotFound))
        });
        (!left.is_empty()).then_some(RETRY)
    }
}
