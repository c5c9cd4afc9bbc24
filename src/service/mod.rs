//! Services outside of the engine, which workers call through their gates.
//!
//! A service is registered with the engine under a name, and holds its own credentials: a worker names it, hands over a request, and sees
//! neither. The engine calls on the worker's behalf while its lease holds, with the fencing token of the step and a signature over both and
//! the request, so that a service elsewhere can refuse the late one as well: see [`signature`] and [`Fence`].

mod fence;
mod percent;
#[cfg(feature = "proxy")]
pub(crate) mod proxy;
pub mod signature;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::limits::{self, MAX_PAYLOAD};
use cutover_formats::record::Token;
use cutover_formats::{Hidden, InstanceId};

pub use self::fence::Fence;
#[cfg(feature = "proxy")]
pub use self::proxy::{HttpService, Proxy};
use self::signature::{Claims, RequestDigest, Signed, SigningKey};
use crate::error::{Error, ErrorKind, Result, short_reason};

/// A service in this process.
pub trait Service: Send + Sync + 'static {
    /// Does what is asked for and answers, with at most [`MAX_PAYLOAD`] bytes. Called from many threads at once; nothing of the engine
    /// waits for it but the worker, and the closing of an engine that was asked through a port. A call that panics is an error of that
    /// call.
    ///
    /// # Errors
    /// Says why it failed. What was done by then is the service's affair.
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, ServiceError>;
}

/// A call to a service. The worker held the step when it was made; it may have lost it by the time that it is looked at.
#[derive(Clone)]
#[non_exhaustive]
pub struct Call<'c> {
    /// Name of the tenant.
    pub tenant: &'c str,
    /// The instance.
    pub instance: InstanceId,
    /// The step of it that the worker holds.
    pub step: &'c str,
    /// Its fencing token: what a [`Fence`] compares.
    pub token: Token,
    /// When the lease ends at the latest unless it is renewed, in milliseconds since 1970 by the wall clock as it was when the call was
    /// made. That is [`Clock::wall_ms`](crate::clock::Clock::wall_ms) of the clock that the engine was given, or else the operating
    /// system's: a service in this process compares it with the same.
    pub expires_ms: u64,
    /// What is asked for; up to [`MAX_PAYLOAD`] bytes.
    pub request: &'c [u8],
    /// All of this under the engine's key, to be handed on to whoever acts on it elsewhere.
    pub signature: &'c Signed,
}

impl<'c> Call<'c> {
    fn new(signature: &'c Signed, request: &'c [u8]) -> Self {
        let Claims { tenant, instance, step, token, expires_ms, .. } = signature.claims();
        Self { tenant, instance: *instance, step, token: *token, expires_ms: *expires_ms, request, signature }
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("tenant", &self.tenant)
            .field("instance", &self.instance)
            .field("step", &self.step)
            .field("token", &self.token)
            .field("expires_ms", &self.expires_ms)
            .field("request", &Hidden(self.request))
            .finish_non_exhaustive()
    }
}

/// Why a service failed. The worker is told, and logs may: no payload and no credentials belong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError(String);

impl ServiceError {
    /// Why; cut to [`limits::MAX_REASON`] bytes.
    pub fn new(reason: impl AsRef<str>) -> Self {
        Self(short_reason(reason.as_ref()))
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for ServiceError {}

/// What is registered under a name.
#[derive(Clone)]
pub(crate) enum Target {
    InProcess(InProcess),
    #[cfg(feature = "proxy")]
    Http(Arc<HttpService>),
}

/// A service in this process.
#[derive(Clone)]
pub(crate) struct InProcess {
    service: Arc<dyn Service>,
    /// For calls that come through ports: a worker that calls it waits on its own thread.
    #[cfg(feature = "proxy")]
    turns: Arc<proxy::Turns>,
}

impl InProcess {
    pub(crate) fn new(service: Arc<dyn Service>) -> Self {
        Self {
            service,
            #[cfg(feature = "proxy")]
            turns: Arc::new(proxy::Turns::new(proxy::MOST_CALLS)),
        }
    }

    /// Calls it. What it says in a panic may be anything, so it is not repeated.
    fn call(&self, name: &str, signed: &Signed, request: &[u8]) -> Result<Vec<u8>> {
        match catch_unwind(AssertUnwindSafe(|| self.service.call(&Call::new(signed, request)))) {
            Ok(Ok(answer)) if answer.len() > MAX_PAYLOAD => Err(too_long(name)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(err)) => {
                let message = format!("the service {name:?} failed");
                Err(Error::with_source(ErrorKind::Service, message, err))
            }
            Err(_) => Err(Error::new(ErrorKind::Service, format!("the service {name:?} panicked"))),
        }
    }
}

impl Target {
    /// Most threads that calls to it through ports use at a time.
    #[cfg(feature = "proxy")]
    fn threads(&self) -> usize {
        match self {
            Self::InProcess(service) => service.turns.most(),
            Self::Http(service) => service.threads(),
        }
    }

    /// Of what a worker asks for without a child process in between.
    pub(crate) fn digest(&self, request: &[u8]) -> RequestDigest {
        match self {
            Self::InProcess(_) => RequestDigest::of(request),
            #[cfg(feature = "proxy")]
            Self::Http(service) => service.digest_of_post(request),
        }
    }
}

/// What a builder was told of services.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) named: BTreeMap<String, Target>,
    pub(crate) key: Option<SigningKey>,
}

/// The services of an engine, and what it takes to call them.
pub(crate) struct Services {
    named: BTreeMap<String, Target>,
    key: SigningKey,
    /// Where there are services.
    #[cfg(feature = "proxy")]
    pub(crate) host: Option<proxy::Host>,
}

impl Services {
    /// Without a key it makes one that nobody else knows.
    pub(crate) fn new(registry: Registry) -> Result<Self> {
        for name in registry.named.keys() {
            limits::check_name("the name of the service", name)?;
        }
        let key = registry.key.map_or_else(SigningKey::random, Ok)?;
        Ok(Self {
            #[cfg(feature = "proxy")]
            host: proxy::Host::of(registry.named.values().map(Target::threads).sum())?,
            named: registry.named,
            key,
        })
    }

    /// The service of this name.
    pub(crate) fn get(&self, name: &str) -> Result<&Target> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no service {name:?}"));
        self.named.get(name).ok_or_else(missing)
    }

    pub(crate) fn sign(&self, claims: Claims) -> Signed {
        self.key.sign(claims)
    }

    /// Calls the service, one over HTTP for as long as the lease lasts. Nothing of the engine is held meanwhile.
    #[cfg_attr(
        not(feature = "proxy"),
        expect(unused_variables, reason = "a service in this process has no time limit")
    )]
    pub(crate) fn call(
        &self,
        name: &str,
        target: &Target,
        signed: Signed,
        request: &[u8],
        lasts: impl Fn() -> Option<Duration> + Send + 'static,
    ) -> Result<Vec<u8>> {
        match target {
            Target::InProcess(service) => service.call(name, &signed, request),
            #[cfg(feature = "proxy")]
            Target::Http(service) => match &self.host {
                Some(host) => host.post(name, service, signed, request, lasts),
                None => Err(Error::new(ErrorKind::Unavailable, "the engine is closed")),
            },
        }
    }

    /// Makes no more calls for others, and ends those over HTTP that are under way.
    pub(crate) fn close(&self) {
        #[cfg(feature = "proxy")]
        if let Some(host) = &self.host {
            host.stop();
        }
    }
}

fn too_long(name: &str) -> Error {
    let message = format!("the answer of the service {name:?} has more than {MAX_PAYLOAD} bytes");
    Error::new(ErrorKind::Service, message)
}

/// Bytes from the operating system that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|err| Error::io("asking the operating system for random bytes", err))?;
    Ok(bytes)
}
