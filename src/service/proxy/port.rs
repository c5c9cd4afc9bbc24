//! The listening side: one port, for the time of one lease.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::limits::MAX_PAYLOAD;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::guests::{Guests, Known};
use super::route::Route;
use super::upstream::{HANDED_ON, HttpService, Outgoing, is_handed_on};
use super::{Holder, MOMENT, Target, headers};
use crate::error::{Error, ErrorKind, Result};
use crate::service::signature::RequestDigest;
use crate::service::{InProcess, random};

/// How long a machine that takes no more connections is left alone, and a tenant that changes hands.
const WHILE: Duration = Duration::from_millis(20);
/// How long a request may take to begin and to come to the end of its head, and then how long for its body.
const PATIENCE: Duration = Duration::from_secs(10);

/// What keeps out who was not told: only its digest, so that the time that a comparison takes says nothing of it.
pub(super) struct Secret([u8; 32]);

impl Secret {
    /// A new one, and its text, which is kept nowhere.
    pub(super) fn new() -> Result<(String, Self)> {
        let bytes: [u8; 16] = random()?;
        let text = format!("{:032x}", u128::from_be_bytes(bytes));
        let secret = Self::of(&text);
        Ok((text, secret))
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    fn is(&self, text: &str) -> bool {
        self.0 == Self::of(text).0
    }
}

/// A port that is open.
pub(super) struct Port {
    listener: TcpListener,
    told: watch::Receiver<bool>,
    door: Arc<Door>,
}

/// What all of its connections need.
struct Door {
    secret: Secret,
    services: BTreeMap<String, Target>,
    holder: Arc<dyn Holder>,
}

impl Port {
    pub(super) fn new(
        listener: TcpListener,
        secret: Secret,
        services: BTreeMap<String, Target>,
        holder: Arc<dyn Holder>,
        told: watch::Receiver<bool>,
    ) -> Self {
        Self { listener, told, door: Arc::new(Door { secret, services, holder }) }
    }

    /// Serves until the lease is over or somebody says so. With this the port is gone, and so is what is under way on it.
    pub(super) async fn serve(mut self) {
        let mut guests = Guests::default();
        // Who came last, while there is no room.
        let mut waits = None;
        while let Some(left) = self.door.holder.left() {
            let mut look = left.max(MOMENT);
            if let Some(stream) = waits.take() {
                match guests.make_room() {
                    Ok(()) => guests.take(|known| Arc::clone(&self.door).connection(stream, known)),
                    Err(again) => {
                        look = look.min(again.unwrap_or(look));
                        waits = Some(stream);
                    }
                }
            }
            tokio::select! {
                () = async { drop(self.told.wait_for(|shut| *shut).await) } => break,
                // Perhaps it was renewed.
                () = sleep(look) => {}
                () = guests.one_goes() => {}
                accepted = self.listener.accept(), if waits.is_none() => match accepted {
                    Ok((stream, _)) => waits = Some(stream),
                    // The process may have too many files open: not for us to end it.
                    Err(_) => sleep(WHILE).await,
                },
            }
        }
        // First nobody comes in any more.
        drop((self.listener, waits));
        guests.send_away().await;
    }
}

/// An answer of the port itself.
struct Refused {
    status: StatusCode,
    why: String,
    /// Where it is for its method: those that there are.
    allow: Option<&'static str>,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), allow: None }
    }

    fn method(allow: &'static str, why: String) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, why, allow: Some(allow) }
    }
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        let status = match err.kind() {
            // The tenant may have been deleted.
            ErrorKind::LeaseExpired | ErrorKind::NotFound => StatusCode::GONE,
            ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorKind::Service => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, err.to_string())
    }
}

type Answer = Response<Full<Bytes>>;

impl Door {
    async fn connection(self: Arc<Self>, stream: TcpStream, known: Known) {
        let answer = service_fn(|request| {
            let (door, known) = (Arc::clone(&self), known.clone());
            async move { Ok::<_, Infallible>(door.answer(request, &known).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        // A child that breaks off, or speaks something else, is its own affair.
        drop(http.serve_connection(TokioIo::new(stream), answer).await);
    }

    async fn answer(&self, request: Request<Incoming>, known: &Known) -> Answer {
        let answer = self.answer_or_refuse(request, known).await;
        answer.unwrap_or_else(|Refused { status, why, allow }| {
            let mut answer = Response::new(Full::new(Bytes::from(why)));
            *answer.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, plain);
            if let Some(allow) = allow {
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            // What was not read of the request is not read as another one.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        })
    }

    async fn answer_or_refuse(&self, request: Request<Incoming>, known: &Known) -> Result<Answer, Refused> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let route = Route::read(path).filter(|route| self.secret.is(route.secret));
        // Who was not told the secret is told nothing.
        let route = route.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, ""))?;
        known.show();
        let name = route.service.as_str();
        let target = self.services.get(name).ok_or_else(|| {
            Refused::new(StatusCode::FORBIDDEN, format!("the step may not call a service {name:?}"))
        })?;
        match target {
            Target::InProcess(service) => {
                if parts.method != Method::POST {
                    return Err(Refused::method("POST", format!("the service {name:?} is called with POST")));
                }
                let answer = self.call(name, service.clone(), whole(body).await?).await?;
                self.still_holds()?;
                let mut answer = Response::new(Full::new(Bytes::from(answer)));
                let bytes = HeaderValue::from_static("application/octet-stream");
                answer.headers_mut().insert(header::CONTENT_TYPE, bytes);
                Ok(answer)
            }
            Target::Http(service) => {
                if !is_handed_on(&parts.method) {
                    let why = format!("the method {} is not handed on", parts.method);
                    return Err(Refused::method(HANDED_ON, why));
                }
                if !route.stays_below() {
                    return Err(Refused::new(StatusCode::BAD_REQUEST, "the path leads out of the service"));
                }
                let outgoing = Outgoing {
                    target: service.target(route.rest),
                    headers: headers::of_request(&parts.headers),
                    method: parts.method,
                    body: whole(body).await?,
                };
                let answer = self.forward(name, service, outgoing).await?;
                self.still_holds()?;
                Ok(answer.map(Full::new))
            }
        }
    }

    async fn call(&self, name: &str, service: InProcess, request: Bytes) -> Result<Vec<u8>> {
        let (name, digest) = (name.to_owned(), RequestDigest::of(&request));
        loop {
            // It may wait for its turn, so the lease is looked at only after it.
            let turn = service.turns.next().await?;
            if let Some(signed) = self.holder.admit(digest)? {
                return turn.take(move || service.call(&name, &signed, &request)).await;
            }
            // Others may have theirs while this tenant changes hands.
            drop(turn);
            sleep(WHILE).await;
        }
    }

    async fn forward(
        &self,
        name: &str,
        service: &HttpService,
        outgoing: Outgoing,
    ) -> Result<Response<Bytes>> {
        let digest = RequestDigest::of_http(outgoing.method.as_str(), &outgoing.target, &outgoing.body);
        let signed = loop {
            match self.holder.admit(digest)? {
                Some(signed) => break signed,
                None => sleep(WHILE).await,
            }
        };
        service.exchange(name, &signed, outgoing, || self.holder.left()).await
    }

    /// The same look as after a call through the gate: the service has answered, and the child cannot go on all the same.
    fn still_holds(&self) -> Result<(), Refused> {
        let over = || Refused::new(StatusCode::GONE, "the lease ended during the call");
        self.holder.left().map(drop).ok_or_else(over)
    }
}

async fn whole(body: Incoming) -> Result<Bytes, Refused> {
    let body = timeout(PATIENCE, Limited::new(body, MAX_PAYLOAD).collect()).await;
    let body = body.map_err(|_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the request did not come"))?;
    body.map(|body| body.to_bytes()).map_err(|err| {
        if err.is::<LengthLimitError>() {
            let why = format!("the request has more than {MAX_PAYLOAD} bytes");
            return Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why);
        }
        Refused::new(StatusCode::BAD_REQUEST, "the request broke off")
    })
}
