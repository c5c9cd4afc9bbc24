//! Calls to the outside: what a worker does elsewhere it does through its gate as well.
//!
//! The lease is looked at as for a report, at the moment of the call and then once more: between the two nothing of the engine is held, so
//! a service may take as long as it likes, and a move or a close waits for none of it. What a call cannot give is the certainty of a
//! commit. It may be under way when the lease ends, so it carries the token and the end of the lease under the engine's signature for the
//! service to look at.

use std::fmt;
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
use crate::service::Admitted;
use crate::service::signature::{Claims, RequestDigest};

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

    /// Signs a call that is to be made now, if the lease holds.
    pub(super) fn admit(&self, request: RequestDigest) -> Result<Result<Admitted, Refusal>> {
        let tenant = &*self.tenant.0;
        // Is it open, and is the tenant there? The pin is let go before the call.
        let _op = tenant.admit(&self.tenant.1, "call a service")?;
        // Whoever checks the end goes by a clock of their own, which knows nothing of the engine's.
        let (wall_ms, now) = tenant.shared.clock.wall();
        let left = match self.left_at(now) {
            Ok(left) => left,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let claims = Claims {
            tenant: tenant.name.clone(),
            instance: self.instance,
            step: self.step.clone(),
            token: self.token,
            expires_ms: wall_ms.saturating_add(clock::millis(left)),
            request,
        };
        Ok(Ok(Admitted { signed: tenant.shared.services.sign(claims), left }))
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
        let holding = Holding::new(self, task);
        let admitted = match holding.admit(target.digest(request))? {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Called::Refused(refusal)),
        };
        let answer = services.call(service, target, admitted, request)?;
        Ok(Called::Answered { answer, lost: holding.left().err() })
    }
}
