//! Ports on loopback, through which a step that runs as a child process calls services.
//!
//! A child has no gate. It is told a URL instead, with a port that is there for its step alone and a secret that keeps out whoever guesses
//! the port. Each request is looked at as a call through the gate is, under the lease of the step at that moment; and with the lease the
//! port is gone, whatever the child does.
//!
//! One thread of the engine serves all ports and speaks with all services over HTTP; it never waits in a lock for more than a moment, nor
//! for a disk or a service. A service in this process, and the operating system's search for a name, may wait: they run on threads beside
//! it, which end with it, so many for each service and none for anything else. So a service that hangs holds up those who call it, and no
//! other call and no look at a lease.
//!
//! [`Port`](port::Port) is the listening side, [`HttpService`] the other. Only plain HTTP/1.1 is spoken on both: a service that is not on
//! this machine, or not behind something here that speaks TLS for it, is better registered as a [`Service`](super::Service).

mod beside;
mod guests;
mod headers;
mod port;
mod route;
mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

pub(super) use self::beside::Turns;
use self::port::{Port, Secret};
pub use self::upstream::HttpService;
use super::Target;
use super::signature::{RequestDigest, Signed};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;
use crate::sync::channel::{Receiver, bounded};

/// Most calls to a service in this process that are under way for child processes. Others wait.
pub(super) const MOST_CALLS: usize = 16;
/// Shortest time after which a lease is looked at again.
const MOMENT: Duration = Duration::from_millis(1);
/// How long dropping a [`Proxy`] waits for its port, which is closed at once unless the machine is busy.
const CLOSING: Duration = Duration::from_secs(5);

/// What a port asks of the lease that it is there for.
pub(crate) trait Holder: Send + Sync + 'static {
    /// How long it lasts from now on unless it is renewed; `None` if it is over. Waits for nothing but a lock.
    fn left(&self) -> Option<Duration>;

    /// Signs a call that is to be made now; `None` while the tenant changes hands: then it is to be asked again. Waits for nothing but a
    /// lock.
    ///
    /// # Errors
    /// If the lease is over, with a sentence that says why.
    fn admit(&self, request: RequestDigest) -> Result<Option<Signed>>;
}

/// Where ports are opened.
pub(crate) struct Host {
    handle: Handle,
    stop: watch::Sender<bool>,
    /// Taken by the thread that runs it.
    runner: Mutex<Option<Runner>>,
}

/// What the thread of the ports does.
pub(crate) struct Runner {
    runtime: Runtime,
    stopped: watch::Receiver<bool>,
}

impl Host {
    /// With so many threads for what may wait, which services use and nobody else; none without a service.
    pub(crate) fn of(threads: usize) -> Result<Option<Self>> {
        if threads == 0 {
            return Ok(None);
        }
        let mut builder = Builder::new_current_thread();
        builder.enable_io().enable_time().max_blocking_threads(threads).thread_name("cutover-call");
        let runtime = builder.build().map_err(|err| Error::io("making ready to open ports", err))?;
        let (stop, stopped) = watch::channel(false);
        let handle = runtime.handle().clone();
        Ok(Some(Self { handle, stop, runner: Mutex::new(Some(Runner { runtime, stopped })) }))
    }

    /// For the thread that is to serve the ports; once.
    pub(crate) fn runner(&self) -> Option<Runner> {
        self.runner.lock().take()
    }

    /// Closes all ports and ends the thread.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Opens a port for the time of a lease. Of what it is to do nothing has begun before `attach`, which ties it to the lease, has agreed.
    pub(crate) fn open<E>(
        &self,
        holder: Arc<dyn Holder>,
        services: BTreeMap<String, Target>,
        attach: impl FnOnce(Shut) -> Result<(), E>,
    ) -> Result<Result<Proxy, E>> {
        const DOING: &str = "opening a port on loopback";
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|err| Error::io(DOING, err))?;
        listener.set_nonblocking(true).map_err(|err| Error::io(DOING, err))?;
        let port = listener.local_addr().map_err(|err| Error::io(DOING, err))?.port();
        let listener = {
            // It is registered with the runtime that will serve it.
            let _runtime = self.handle.enter();
            tokio::net::TcpListener::from_std(listener).map_err(|err| Error::io(DOING, err))?
        };
        let (text, secret) = Secret::new()?;
        let (shut, told) = watch::channel(false);
        let shut = Shut(Arc::new(shut));
        if let Err(refused) = attach(shut.clone()) {
            return Ok(Err(refused));
        }
        let (ends, ended) = bounded(0);
        let port_of_step = Port::new(listener, secret, services, holder, told);
        self.handle.spawn(async move {
            // Dropped when the port is gone, also if it goes with the runtime.
            let _ends = ends;
            port_of_step.serve().await;
        });
        Ok(Ok(Proxy { url: format!("http://127.0.0.1:{port}/{text}"), port, shut, ended }))
    }

    /// Calls a service over HTTP with a `POST` of the request to its base, and waits for the answer, for as long as the lease lasts. A status
    /// other than of success is a failure.
    pub(super) fn post(
        &self,
        name: &str,
        service: &Arc<HttpService>,
        signed: Signed,
        request: &[u8],
        lasts: impl Fn() -> Option<Duration> + Send + 'static,
    ) -> Result<Vec<u8>> {
        let (answer, answered) = bounded(1);
        let (service, named, body) = (Arc::clone(service), name.to_owned(), Bytes::copy_from_slice(request));
        self.handle.spawn(async move {
            // Nobody else waits for it.
            drop(answer.send(service.post(&named, &signed, body, lasts).await));
        });
        // The channel ends without an answer if the thread of the ports does.
        answered.recv().unwrap_or_else(|_| {
            let message = format!("the engine was closed during a call to the service {name:?}");
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It was never run, so there is nothing to wait for; and who drops an engine may be where waiting is not allowed.
        if let Some(runner) = self.runner.lock().take() {
            runner.runtime.shutdown_background();
        }
    }
}

impl Runner {
    /// Serves ports until it is told to stop. Then it closes them, and waits for the calls to services in this process that are under way.
    pub(crate) fn run(mut self) {
        self.runtime.block_on(async {
            // Its sender is gone only together with the engine.
            drop(self.stopped.wait_for(|stop| *stop).await);
        });
    }
}

/// Closes a port when it is told to, or dropped, whichever comes first. Waits for nothing.
#[derive(Clone)]
pub(crate) struct Shut(Arc<watch::Sender<bool>>);

impl Shut {
    pub(crate) fn close(&self) {
        self.0.send_replace(true);
    }

    /// Whether the port is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_closed()
    }
}

/// The port of a step. It goes with the lease of the step, and when this is dropped; then the port refuses connections, and what is under
/// way on it is cut off: a service may have done what it was asked for all the same.
pub struct Proxy {
    url: String,
    port: u16,
    shut: Shut,
    /// Disconnected when the port is gone.
    ended: Receiver<()>,
}

impl Proxy {
    /// What the child is to be told and nobody else: the URL under which it finds each service by its name, `POST {url}/{service}`. A
    /// service over HTTP is handed any method but `CONNECT` and those that answer with the request (`TRACE`, `TRACK`), and whatever comes
    /// after its name: `GET {url}/{service}/path?query`. Characters of a name other than ASCII letters, digits, `-` and `_` are
    /// percent-encoded.
    ///
    /// A refusal by the port itself has a sentence for its body: status 404 for the wrong secret, 403 for a service that the step may not
    /// call, 405 for a method that is not handed on, 400 or 413 for what cannot be, 408 for a body that was not there within 10 seconds,
    /// 410 if the lease is over, and 502 to 504 for a service that failed or was too slow.
    ///
    /// A connection on which no request has begun for 10 seconds is closed. There are 16 at a time, and others wait; who has not sent a
    /// request with the right secret makes room for them.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the port is still there.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.shut.is_over()
    }
}

/// Shows nothing of the secret.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shut.close();
        // Nothing is ever sent: this is the end of the port, or of our patience.
        let _ = self.ended.recv_timeout(CLOSING);
    }
}
