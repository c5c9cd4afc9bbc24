//! A service over HTTP, with the credentials that the engine puts on each call.

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use cutover_formats::limits::MAX_PAYLOAD;

use super::beside::Turns;
use super::{MOMENT, headers};
use crate::error::{Error, ErrorKind, Result};
use crate::service::signature::{RequestDigest, SIGNATURE_HEADER, Signed, TOKEN_HEADER, token_text};
use crate::service::too_long;

/// Most searches for the name of a service's host at a time; others wait.
const MOST_SEARCHES: usize = 4;

/// The methods that are handed on, for those who ask for another one: any but these two kinds.
pub(super) const HANDED_ON: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whether a child's request with this method may be handed on. One that is answered with the request itself would show it the credentials
/// that were put on it, in whatever case a service reads the name; and another one asks for a connection and no answer.
pub(super) fn is_handed_on(method: &Method) -> bool {
    !["CONNECT", "TRACE", "TRACK"].iter().any(|no| method.as_str().eq_ignore_ascii_case(no))
}

/// A service that speaks HTTP/1.1, without TLS, under a base URL.
///
/// Every call is made on a connection of its own, with the service's credentials and with the headers
/// [`cutover-token`](crate::service::signature::TOKEN_HEADER) and [`cutover-signature`](crate::service::signature::SIGNATURE_HEADER), whose
/// digest is [`RequestDigest::of_http`]. It lasts for as long as the lease is renewed, and is cut off when that has ended. Requests and
/// answers have at most [`MAX_PAYLOAD`] bytes; redirections are not followed.
pub struct HttpService {
    /// Host and port as the header `Host` has them.
    authority: String,
    host: String,
    port: u16,
    /// Path of the base, without a slash at its end.
    base: String,
    credentials: HeaderMap,
    /// For finding its host, if that has a name.
    searches: Turns,
}

/// What a child asks for, or a worker.
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl HttpService {
    /// A service at this URL: `http://host`, with a port and a path if need be.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other URL. It is not repeated: it may have a password in it.
    pub fn new(base: &str) -> Result<Self> {
        let wrong =
            || Error::new(ErrorKind::InvalidInput, "the base of a service is to be http://host:port/path");
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong());
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // An empty one or one that is no number is no port.
            None if authority.as_str() == authority.host() => 80,
            None => return Err(wrong()),
        };
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            base: uri.path().trim_end_matches('/').to_owned(),
            credentials: HeaderMap::new(),
            searches: Turns::new(MOST_SEARCHES),
        })
    }

    /// Puts a header on every call, in the place of what a worker may have sent under this name: an `Authorization`, say.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if name or value are not those of a header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let wrong =
            |what| Error::new(ErrorKind::InvalidInput, format!("{what} of a service is not one of HTTP"));
        let name: HeaderName = name.parse().map_err(|_| wrong("the name of a header"))?;
        let mut value: HeaderValue = value.parse().map_err(|_| wrong("the value of a header"))?;
        value.set_sensitive(true);
        self.credentials.insert(name, value);
        Ok(self)
    }

    /// Most threads that it uses at a time.
    pub(in crate::service) const fn threads(&self) -> usize {
        self.searches.most()
    }

    /// Path and query of a request for what is at `rest` below the base: empty, or with `/` or `?` in front.
    pub(super) fn target(&self, rest: &str) -> String {
        let slash = if self.base.is_empty() && !rest.starts_with('/') { "/" } else { "" };
        format!("{}{slash}{rest}", self.base)
    }

    pub(in crate::service) fn digest_of_post(&self, body: &[u8]) -> RequestDigest {
        RequestDigest::of_http(Method::POST.as_str(), &self.target(""), body)
    }

    /// What [`digest_of_post`](Self::digest_of_post) is the digest of.
    pub(super) async fn post(
        &self,
        name: &str,
        signed: &Signed,
        body: Bytes,
        lasts: impl Fn() -> Option<Duration>,
    ) -> Result<Vec<u8>> {
        let (method, target, headers) = (Method::POST, self.target(""), HeaderMap::new());
        let outgoing = Outgoing { method, target, headers, body };
        let answer = self.exchange(name, signed, outgoing, lasts).await?;
        if !answer.status().is_success() {
            let message = format!("the service {name:?} answered with status {}", answer.status().as_u16());
            return Err(Error::new(ErrorKind::Service, message));
        }
        Ok(answer.into_body().into())
    }

    /// Makes a call, whose digest was signed, and waits for the whole answer, until the lease runs out. The caller looks after it if it is
    /// taken away before that.
    pub(super) async fn exchange(
        &self,
        name: &str,
        signed: &Signed,
        outgoing: Outgoing,
        lasts: impl Fn() -> Option<Duration>,
    ) -> Result<Response<Bytes>> {
        let mut answer = pin!(self.exchange_for_ever(name, signed, outgoing));
        while let Some(left) = lasts() {
            if let Ok(answer) = timeout(left.max(MOMENT), &mut answer).await {
                return answer;
            }
            // Perhaps it was renewed.
        }
        let message = format!("the service {name:?} had not answered when the lease ended");
        Err(Error::new(ErrorKind::TimedOut, message))
    }

    /// A connection to it. Its name is searched for on another thread.
    async fn connect(&self) -> Result<TcpStream, io::Error> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return TcpStream::connect((address, self.port)).await;
        }
        let (host, port) = (self.host.clone(), self.port);
        let turn = self.searches.next().await.map_err(io::Error::other)?;
        let search = turn.take(move || Ok((host.as_str(), port).to_socket_addrs().map(Vec::from_iter)));
        let found = search.await.map_err(io::Error::other)??;
        TcpStream::connect(found.as_slice()).await
    }

    async fn exchange_for_ever(
        &self,
        name: &str,
        signed: &Signed,
        outgoing: Outgoing,
    ) -> Result<Response<Bytes>> {
        let failed = |doing: &str| format!("the service {name:?}: {doing}");
        let broken =
            |doing: &str, err: hyper::Error| Error::with_source(ErrorKind::Service, failed(doing), err);
        let stream = self
            .connect()
            .await
            .map_err(|err| Error::with_source(ErrorKind::Service, failed("connecting"), err))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|err| broken("connecting", err))?;
        // Ends with this call, also if it is cut off.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let request = self.request(signed, outgoing)?;
        let answer = sender.send_request(request).await.map_err(|err| broken("sending", err))?;
        let (mut parts, body) = answer.into_parts();
        if parts.status.is_informational() {
            return Err(Error::new(ErrorKind::Service, failed("it wants to speak another protocol")));
        }
        let body = Limited::new(body, MAX_PAYLOAD).collect().await.map_err(|err| {
            match err.downcast::<hyper::Error>() {
                Ok(err) => broken("receiving", *err),
                Err(_) => too_long(name),
            }
        })?;
        parts.headers = headers::of_answer(&parts.headers);
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    fn request(&self, signed: &Signed, outgoing: Outgoing) -> Result<Request<Full<Bytes>>> {
        // Neither is repeated: a name may be part of a path, and a path part of a payload.
        let wrong = |_| Error::new(ErrorKind::InvalidInput, "the request cannot be handed on over HTTP");
        let token = token_text(signed.claims().token).parse().map_err(wrong)?;
        let signature = signed.to_string().parse().map_err(wrong)?;
        let host = self.authority.parse().map_err(wrong)?;
        let uri: Uri = outgoing.target.parse().map_err(|_| {
            Error::new(ErrorKind::InvalidInput, "the request's path cannot be handed on over HTTP")
        })?;
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        *headers = outgoing.headers;
        for (name, value) in &self.credentials {
            headers.insert(name, value.clone());
        }
        headers.insert(header::HOST, host);
        headers.insert(TOKEN_HEADER, token);
        headers.insert(SIGNATURE_HEADER, signature);
        Ok(request)
    }
}

/// Shows which credentials there are, and none of them.
impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService")
            .field("authority", &self.authority)
            .field("base", &self.base)
            .field("headers", &self.credentials.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_host_a_port_and_a_path() {
        let read = |base: &str| {
            let service = HttpService::new(base).unwrap();
            (service.host, service.port, service.base)
        };
        assert_eq!(read("http://localhost"), ("localhost".into(), 80, String::new()));
        assert_eq!(read("http://127.0.0.1:8080/"), ("127.0.0.1".into(), 8080, String::new()));
        assert_eq!(read("http://[::1]:81/v1/mail/"), ("::1".into(), 81, "/v1/mail".into()));
    }

    #[test]
    fn any_other_base_is_refused_and_not_repeated() {
        let wrong = [
            "",
            "/path",
            "localhost:80",
            "https://localhost",
            "http://user:hunter2@localhost",
            "http://localhost?key=hunter2",
            "http://localhost:hunter2",
            "http://localhost:99999",
            "http://",
        ];
        for base in wrong {
            let err = HttpService::new(base).expect_err(base);
            assert_eq!(err.kind(), ErrorKind::InvalidInput);
            assert!(!err.to_string().contains("hunter2"), "{err}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let service = HttpService::new("http://localhost/v1").unwrap();
        let service = service.header("Authorization", "Bearer hunter2").unwrap();
        let shown = format!("{service:?}");
        assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
        let err = service.header("x-key", "hunter2\n").unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidInput);
        assert!(!err.to_string().contains("hunter2"), "{err}");
    }

    #[test]
    fn a_rest_is_put_behind_the_base() {
        let with = HttpService::new("http://h/v1/").unwrap();
        let without = HttpService::new("http://h").unwrap();
        for (rest, behind, alone) in
            [("", "/v1", "/"), ("/", "/v1/", "/"), ("/a?b", "/v1/a?b", "/a?b"), ("?b", "/v1?b", "/?b")]
        {
            assert_eq!((with.target(rest), without.target(rest)), (behind.to_owned(), alone.to_owned()));
        }
    }
}
