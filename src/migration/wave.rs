//! A migration as part of a wave: an attempt at a run that is held before launches are switched, until the wave has ruled what becomes of it.

use cutover_formats::meta::{Outcome, RunId};

use super::phase::Move;
use super::run::{self, Ran, Verdict};
use super::{MigrationOptions, transition};
use crate::catalog::StoreSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::tenant::Tenant;
use crate::tenant::access::Ruling;
use crate::tenant::control::Control;

/// What is to begin.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) tenant: Tenant,
    pub(crate) run: RunId,
    pub(crate) target: StoreSpec,
    pub(crate) options: MigrationOptions,
}

impl Start {
    /// Whether something came of the run before, by this wave or an earlier one.
    pub(crate) fn is_known(&self, control: &mut Control) -> Result<bool> {
        transition::settle(&self.tenant.0, control)?;
        Ok(matches!(self.judge(control), Verdict::GoOn { .. } | Verdict::Skip(_)))
    }

    /// Begins it, held before the switch. One that was written after all goes on.
    pub(crate) fn begin(&self, control: &mut Control) -> Result<()> {
        self.run(control, true)
    }

    /// Does what was ruled.
    pub(crate) fn rule(&self, control: &mut Control, ruling: Ruling) -> Result<()> {
        match ruling {
            Ruling::Stays => self.stay(control),
            Ruling::Goes => self.go(control),
        }
    }

    /// Begins it if that has not been done, and lets it switch.
    fn stay(&self, control: &mut Control) -> Result<()> {
        let hold = self.options.hold_switch;
        self.run(control, hold)?;
        let migration = control.record().migration.as_ref();
        if hold || migration.is_none_or(|migration| !migration.hold_switch) {
            return Ok(());
        }
        let why = "the wave goes on";
        transition::persist(&self.tenant.0, control, "wave", why, |record| {
            if let Some(migration) = &mut record.migration {
                migration.hold_switch = false;
            }
        })
    }

    /// Calls it off.
    fn go(&self, control: &mut Control) -> Result<()> {
        let tenant = &self.tenant.0;
        transition::settle(tenant, control)?;
        match self.judge(control) {
            Verdict::GoOn { .. } => {
                transition::make(tenant, control, Move::Cancel, "wave", "the wave is aborted")
            }
            Verdict::Skip(ended) if ended.outcome == Outcome::Completed => Err(over(&Ran::Skipped(ended))),
            Verdict::Skip(_) | Verdict::Begin | Verdict::Conflict(_) => Ok(()),
        }
    }

    fn judge(&self, control: &Control) -> Verdict {
        run::judge(&self.run, control.record().migration.as_ref(), &control.record().ended)
    }

    fn run(&self, control: &mut Control, hold_switch: bool) -> Result<()> {
        let options = self.options.clone().hold_switch(hold_switch);
        match self.tenant.migration().run_locked(control, &self.run, &self.target, options)? {
            Ran::Skipped(ended) if ended.outcome != Outcome::Completed => Err(over(&Ran::Skipped(ended))),
            Ran::Began(_) | Ran::GoesOn(_) | Ran::Skipped(_) => Ok(()),
        }
    }
}

fn over(ran: &Ran) -> Error {
    Error::new(ErrorKind::IllegalMove, ran.to_string())
}

/// Whether it is of no use to try again what has failed so: the tenant is gone, another migration is under way, or what was asked for is wrong.
pub(crate) fn is_final(err: &Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::NotFound
            | ErrorKind::IllegalMove
            | ErrorKind::Conflict
            | ErrorKind::Drift
            | ErrorKind::InvalidInput
    )
}
