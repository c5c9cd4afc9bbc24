//! Ports for steps that run as child processes: the gate's word for [`crate::service::proxy`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::gate::{Gate, refused};
use super::outside::Holding;
use super::sessions::Refusal;
use super::types::Task;
use crate::error::{Error, ErrorKind, Result};
use crate::service::proxy::{Holder, Proxy};
use crate::service::signature::{RequestDigest, Signed};

/// What became of asking for a port.
#[derive(Debug)]
pub enum Proxied {
    /// It is open.
    Open(Proxy),
    /// It was not opened.
    Refused(Refusal),
}

enum NotAttached {
    Refused(Refusal),
    Taken,
}

impl Holder for Holding {
    fn left(&self) -> Option<Duration> {
        let left = self.left().ok()?;
        (!self.tenant.0.seats.is_deleted()).then_some(left)
    }

    fn admit(&self, request: RequestDigest) -> Result<Option<Signed>> {
        match self.admit_at_once(request)? {
            Some(signed) => signed.map(Some).map_err(refused),
            // It may have ended by the flip.
            None => self.left().map(|_| None).map_err(refused),
        }
    }
}

impl Gate {
    /// Opens a port on 127.0.0.1 through which a child process that works on `task` calls these services, in the place of
    /// [`call`](Self::call): each request is made under the same rule. The port goes with the lease, when that runs out (within
    /// milliseconds), is given up, or ends with the step, the instance or the engine; and when the [`Proxy`] is dropped.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if one of the services is not registered; [`InvalidInput`](ErrorKind::InvalidInput) if none is
    /// named; [`AlreadyExists`](ErrorKind::AlreadyExists) if the step has a port; or if the operating system gives none.
    pub fn proxy(&self, task: &Task, services: &[&str]) -> Result<Proxied> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        let registered = &tenant.shared.services;
        let allowed = services.iter().map(|name| Ok(((*name).to_owned(), registered.get(name)?.clone())));
        let allowed = allowed.collect::<Result<BTreeMap<_, _>>>()?;
        let Some(host) = registered.host.as_ref().filter(|_| !allowed.is_empty()) else {
            return Err(Error::new(ErrorKind::InvalidInput, "a port is opened for one service at least"));
        };
        let holding = Arc::new(Holding::new(self, task));
        let step = Arc::clone(&holding);
        let opened = host.open(holding, allowed, |port| {
            let now = tenant.shared.clock.monotonic();
            match tenant.sessions.attach(step.session, step.held(), port, now) {
                Ok(true) => Ok(()),
                Ok(false) => Err(NotAttached::Taken),
                Err(refusal) => Err(NotAttached::Refused(refusal)),
            }
        })?;
        match opened {
            Ok(proxy) => Ok(Proxied::Open(proxy)),
            Err(NotAttached::Refused(refusal)) => Ok(Proxied::Refused(refusal)),
            Err(NotAttached::Taken) => {
                let message = format!("the step {:?} has a port already", task.step);
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }
}
