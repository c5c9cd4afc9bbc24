//! Calls to the outside: what a worker does elsewhere it does through its gate as well.
//!
//! The lease is looked at as for a report, at the moment of the call and then once more: between the two nothing of the engine is held, so
//! a service may take as long as it likes, and a move or a close waits for none of it. What a call cannot give is the certainty of a
//! commit. It may be under way when the lease ends, so it carries the token and the end of the lease under the engine's signature for the
//! service to look at.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::limits::{self, MAX_PAYLOAD};
use cutover_formats::record::Token;
use cutover_formats::{Hidden, InstanceId};

use super::Tenant;
use super::gate::Gate;
use super::sessions::{Refusal, SessionId};
use super::types::Task;
use crate::clock;
use crate::error::Result;
use crate::service::signature::{Claims, RequestDigest, Signed};

/// What keeps a flip waiting, for as long as it takes to sign.
const CALLS: &str = "call a service";

/// What became of a call to a service.
#[derive(Clone, PartialEq, Eq)]
pub enum Called {
    /// The service answered.
    Answered {
        /// What.
        answer: Vec<u8>,
        /// Why the worker cannot go on, if it lost the lease during the call. What the service did is done all the same.
        lost: Option<Refusal>,
    },
    /// The service was not called.
    Refused(Refusal),
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { answer, lost } => {
                f.debug_struct("Answered").field("answer", &Hidden(answer)).field("lost", lost).finish()
            }
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
        }
    }
}

/// A step that a worker holds, for as long as it does.
pub(super) struct Holding {
    pub(super) tenant: Tenant,
    pub(super) session: SessionId,
    instance: InstanceId,
    step: String,
    token: Token,
}

impl Holding {
    pub(super) fn new(gate: &Gate, task: &Task) -> Self {
        let (instance, step, token) = task.held();
        let (tenant, session) = (gate.tenant.clone(), gate.session());
        Self { tenant, session, instance, step: step.to_owned(), token }
    }

    pub(super) fn held(&self) -> (InstanceId, &str, Token) {
        (self.instance, &self.step, self.token)
    }

    /// How long the lease lasts unless it is renewed.
    pub(super) fn left(&self) -> Result<Duration, Refusal> {
        self.left_at(self.tenant.0.shared.clock.monotonic())
    }

    fn left_at(&self, now: Duration) -> Result<Duration, Refusal> {
        Ok(self.tenant.0.sessions.until(self.session, self.held(), now)?.saturating_sub(now))
    }

    /// Signs a call that is to be made now, if the lease holds. For those who were let in.
    fn sign(&self, request: RequestDigest) -> Result<Signed, Refusal> {
        let tenant = &*self.tenant.0;
        // Whoever checks the end goes by a clock of their own, which knows nothing of the engine's.
        let (wall_ms, now) = tenant.shared.clock.wall();
        let left = self.left_at(now)?;
        let claims = Claims {
            tenant: tenant.name.clone(),
            instance: self.instance,
            step: self.step.clone(),
            token: self.token,
            expires_ms: wall_ms.saturating_add(clock::millis(left)),
            request,
        };
        Ok(tenant.shared.services.sign(claims))
    }

    /// Signs a call that is to be made now, if the lease holds. Waits for the end of a flip.
    fn admit(&self, request: RequestDigest) -> Result<Result<Signed, Refusal>> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        // Is the tenant there, and who acts for it? The pin is let go before the call.
        let _pin = tenant.pin_for(Some(&self.tenant.1), CALLS)?;
        Ok(self.sign(request))
    }

    /// The same, and while a flip is on `None`.
    #[cfg(feature = "proxy")]
    pub(super) fn admit_at_once(&self, request: RequestDigest) -> Result<Option<Result<Signed, Refusal>>> {
        let tenant = &*self.tenant.0;
        tenant.shared.check()?;
        let pin = tenant.pin_at_once(Some(&self.tenant.1), CALLS)?;
        Ok(pin.map(|_pin| self.sign(request)))
    }
}

impl Gate {
    /// Calls a service on behalf of the worker, which holds `task`, and waits for its answer. The service is told the task's token, when
    /// the lease ends, and a signature over both and the request.
    ///
    /// Nothing is durable by it: a call that was made before a crash is made again by whoever is given the step then, with a higher token.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if no service of this name is registered, or the tenant was deleted;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the request has more than [`MAX_PAYLOAD`] bytes: then the service was not
    /// called. [`Service`](crate::ErrorKind::Service) if it failed, or panicked, and [`TimedOut`](crate::ErrorKind::TimedOut) if one over
    /// HTTP was too slow: what it has done is not known.
    pub fn call(&self, task: &Task, service: &str, request: &[u8]) -> Result<Called> {
        limits::check_size("the request to the service", request.len(), MAX_PAYLOAD)?;
        let services = &self.tenant.0.shared.services;
        let target = services.get(service)?;
        let holding = Arc::new(Holding::new(self, task));
        let signed = match holding.admit(target.digest(request))? {
            Ok(signed) => signed,
            Err(refusal) => return Ok(Called::Refused(refusal)),
        };
        let lease = Arc::clone(&holding);
        let answer = services.call(service, target, signed, request, move || lease.left().ok())?;
        Ok(Called::Answered { answer, lost: holding.left().err() })
    }
}
