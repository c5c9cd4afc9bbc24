//! Runners: who acts for tenants, by name.

use std::sync::Arc;

use cutover_formats::limits;

use super::{Core, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::handover::attach::{self, Attached};
use crate::handover::backoff::Backoff;
use crate::sync::thread;
use crate::tenant::seats::{Caller, RunnerId};
use crate::tenant::{Inner, Tenant};

/// A runner: somebody who acts for tenants with threads of its own, and can hand a tenant to another one. Its name is its identity, also after a restart. Cheap to
/// clone; all clones, and all runners of this name, are the same one.
#[derive(Clone)]
pub struct Runner {
    engine: Engine,
    id: Arc<RunnerId>,
}

impl Engine {
    /// The runner of this name. It has no access to any tenant before it [attaches](Runner::attach).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a name that is empty or longer than [`limits::MAX_NAME`].
    pub fn runner(&self, name: &str) -> Result<Runner> {
        limits::check_name("the name of the runner", name)?;
        self.0.core.shared.check()?;
        let mut runners = self.0.core.runners.lock();
        let number = runners.len() as u32 + 1;
        let id = runners
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(RunnerId { number, name: name.to_owned() }));
        Ok(Runner { engine: self.clone(), id: Arc::clone(id) })
    }
}

impl Core {
    pub(super) fn inner(&self, name: &str) -> Result<Arc<Inner>> {
        let tenant = self.tenants.read().get(name).cloned();
        tenant.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no tenant {name:?}")))
    }
}

impl Runner {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.id.name
    }

    /// A tenant as this runner may use it: while it is the primary, and attached. Every request through it, reads included, is refused otherwise, with
    /// the name of the one that is; so is whatever steers a migration or a hand-over. Only how these two stand, and their journals, are shown to everybody.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such tenant.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        let Tenant(inner, _) = self.engine.tenant(name)?;
        Ok(Tenant(inner, Caller::runner(Arc::clone(&self.id))))
    }

    /// Comes to a tenant to act for it: if nobody does, or this runner did already, in an earlier process perhaps. Durable when it returns; who is back
    /// keeps the epoch.
    ///
    /// # Errors
    /// [`Deactivated`](ErrorKind::Deactivated) if it has handed the tenant over: it has to stop. [`NotPrimary`](ErrorKind::NotPrimary) if another one
    /// acts, which the error names.
    pub fn attach(&self, tenant: &str) -> Result<Attached> {
        self.engine.0.core.shared.check()?;
        attach::attach(&self.engine.0.core.inner(tenant)?, &self.id, false)
    }

    /// Comes to a tenant to be ready: its stores are read from and definitions made known, and it has no access to data before a flip brings the tenant to
    /// it. One that acts already is taken as such. Durable when it returns.
    ///
    /// # Errors
    /// [`Deactivated`](ErrorKind::Deactivated) as for [`attach`](Self::attach); or if a store cannot be read.
    pub fn attach_standby(&self, tenant: &str) -> Result<Attached> {
        self.engine.0.core.shared.check()?;
        attach::attach(&self.engine.0.core.inner(tenant)?, &self.id, true)
    }

    /// [`attach`](Self::attach), or [`attach_standby`](Self::attach_standby) where `standby` says so, again and again until it succeeds, with longer
    /// and longer waits between the tries.
    ///
    /// # Errors
    /// [`Deactivated`](ErrorKind::Deactivated) at once; else the last error when the tries are used up or the engine is closed.
    pub fn attach_with_retries(&self, tenant: &str, standby: bool, backoff: &Backoff) -> Result<Attached> {
        let mut tried = 0;
        loop {
            let failed = match if standby { self.attach_standby(tenant) } else { self.attach(tenant) } {
                Ok(attached) => return Ok(attached),
                Err(err) => err,
            };
            tried += 1;
            let wait = backoff.after(tried, failed.kind());
            let Some(wait) = wait.filter(|_| self.engine.0.core.shared.check().is_ok()) else {
                return Err(failed);
            };
            thread::sleep(wait);
        }
    }
}
