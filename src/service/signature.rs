//! What a service can check: who calls, for which step, with which token, and until when.
//!
//! A worker that was held up may make its call after its step has gone to somebody else. The engine lets no such call out, but one may be
//! on its way for long, and a service elsewhere cannot ask the engine. So every call carries [`Claims`] under a signature: HMAC-SHA-256 by
//! the engine's [`SigningKey`]. A service that has the key checks it with [`verify`], and refuses what is older than what it has seen with
//! a [`Fence`](super::Fence).
//!
//! Signed is this sequence of parts, each as its length in bytes (8 bytes, big-endian) and its bytes: the text `cutover/call/1`; the
//! tenant's name; the instance's id as text; the step's name; the token's incarnation and its counter, the moment of expiry (each a number
//! of 8 bytes, big-endian); the digest of the request (32 bytes). A later version has another text in front.
//!
//! As text, for a header of HTTP ([`SIGNATURE_HEADER`]), a signature is `1` and the same fields and then the code, with dots between them:
//! names with everything but ASCII letters, digits, `-` and `_` percent-encoded, numbers in decimal, digest and code in lower-case
//! hexadecimal. There is one text for each signature, and no other is read.

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use cutover_formats::InstanceId;
use cutover_formats::limits;
use cutover_formats::record::Token;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::percent;
use crate::error::{Error, ErrorKind, Result};

/// The header of HTTP that carries a [`Signed`].
pub const SIGNATURE_HEADER: &str = "cutover-signature";
/// The header of HTTP that carries the token alone, as incarnation, dot, counter. Nothing protects it.
pub const TOKEN_HEADER: &str = "cutover-token";

/// Longer than the text of any signature, in bytes: two names whose every byte is escaped, and the rest.
pub const MAX_TEXT: usize = 2 * 3 * limits::MAX_NAME + 512;

const CALL: &str = "cutover/call/1";
const HTTP: &str = "cutover/http/1";
const VERSION: &str = "1";
/// Block of SHA-256, in bytes. HMAC fills a shorter key up with zeros to it.
const BLOCK: usize = 64;

/// The key with which an engine signs calls, and services check them: 32 bytes that nobody can guess. Whoever has it can sign too.
#[derive(Clone)]
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// A key that engine and services were given by somebody else.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key from the operating system's source of randomness.
    ///
    /// # Errors
    /// If that source fails.
    pub fn random() -> Result<Self> {
        super::random().map(Self)
    }

    /// Signs these claims. The engine does it for each call; elsewhere it is of use to test a service.
    #[must_use]
    pub fn sign(&self, claims: Claims) -> Signed {
        let code = self.code(&claims).finalize().into_bytes().into();
        Signed { claims, code }
    }

    fn code(&self, claims: &Claims) -> Hmac<Sha256> {
        let block: [u8; BLOCK] = std::array::from_fn(|at| self.0.get(at).copied().unwrap_or(0));
        let mut code = Hmac::<Sha256>::new(&block.into());
        let instance = claims.instance.to_string();
        let number = |number: u64| number.to_be_bytes();
        let parts: [&[u8]; 8] = [
            CALL.as_bytes(),
            claims.tenant.as_bytes(),
            instance.as_bytes(),
            claims.step.as_bytes(),
            &number(claims.token.incarnation),
            &number(claims.token.counter),
            &number(claims.expires_ms),
            &claims.request.0,
        ];
        each_with_length(&parts, |bytes| code.update(bytes));
        code
    }
}

/// Shows nothing of it.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// With its length in front no part can be taken for the end of the one before it.
fn each_with_length(parts: &[&[u8]], mut put: impl FnMut(&[u8])) {
    for part in parts {
        put(&(part.len() as u64).to_be_bytes());
        put(part);
    }
}

/// SHA-256 of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    /// Of the bytes that a service in this process is handed.
    #[must_use]
    pub fn of(request: &[u8]) -> Self {
        Self(Sha256::digest(request).into())
    }

    /// Of a request over HTTP: of the parts `cutover/http/1`, method, target (path and query as the service gets them) and body, each with
    /// its length in front as in a signature. Headers are not part of it.
    #[must_use]
    pub fn of_http(method: &str, target: &str, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        let parts = [HTTP.as_bytes(), method.as_bytes(), target.as_bytes(), body];
        each_with_length(&parts, |bytes| digest.update(bytes));
        Self(digest.finalize().into())
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What a call says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Name of the tenant.
    pub tenant: String,
    /// The instance.
    pub instance: InstanceId,
    /// The step of it that its worker held when the call was made.
    pub step: String,
    /// Its fencing token: whoever held the step later has a higher one.
    pub token: Token,
    /// The call is void from this moment on, in milliseconds since 1970: when it was made, the worker's lease was to run out then, by the
    /// wall clock of the engine's machine as it was set at that moment.
    pub expires_ms: u64,
    /// What is asked for.
    pub request: RequestDigest,
}

/// Claims and the code that protects them. What it claims is told by [`verify`] only.
#[derive(Clone)]
pub struct Signed {
    claims: Claims,
    code: [u8; 32],
}

impl Signed {
    /// For those who have made them.
    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// Shows the claims, and not what would let others repeat the call.
impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// Why a service refuses a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// It was not signed with this key, or was changed since.
    Forged,
    /// It was signed for another request.
    OtherRequest,
    /// Its lease may have run out.
    Expired {
        /// When, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// Somebody who held the step later has called before it.
    Late {
        /// The token of that call.
        newest: Token,
    },
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged => f.write_str("the call was not signed with this key, or was changed since"),
            Self::OtherRequest => f.write_str("the call was signed for another request"),
            Self::Expired { expires_ms } => write!(f, "the call is void since {expires_ms} ms"),
            Self::Late { newest } => {
                write!(f, "the step was given to another worker, whose token is {}", token_text(*newest))
            }
        }
    }
}

impl StdError for Rejected {}

/// Checks a call that asks for `request` at `now_ms`, in milliseconds since 1970, and says what it claims. The code is compared in a time
/// that does not depend on where it differs.
///
/// `now_ms` is by the wall clock of whoever checks: if that is behind the one of the engine's machine, calls are taken for that much
/// longer, and if it is ahead, refused that much earlier. So both are to be kept in time. A token that is older
/// than one that was seen is not noticed here, but by a [`Fence`](super::Fence).
///
/// # Errors
/// Why the call is to be refused.
pub fn verify<'s>(
    key: &SigningKey,
    signed: &'s Signed,
    request: RequestDigest,
    now_ms: u64,
) -> Result<&'s Claims, Rejected> {
    let claims = &signed.claims;
    key.code(claims).verify_slice(&signed.code).map_err(|_| Rejected::Forged)?;
    if claims.request != request {
        return Err(Rejected::OtherRequest);
    }
    if now_ms >= claims.expires_ms {
        return Err(Rejected::Expired { expires_ms: claims.expires_ms });
    }
    Ok(claims)
}

/// A token as [`TOKEN_HEADER`] has it.
pub(crate) fn token_text(token: Token) -> String {
    format!("{}.{}", token.incarnation, token.counter)
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claims { tenant, instance, step, token, expires_ms, request } = &self.claims;
        write!(f, "{VERSION}.{}.{instance}.{}.", percent::encode(tenant), percent::encode(step))?;
        write!(f, "{}.{expires_ms}.{}.{}", token_text(*token), hex(&request.0), hex(&self.code))
    }
}

impl FromStr for Signed {
    type Err = Error;

    /// Reads the one text of a signature.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for every other text.
    fn from_str(text: &str) -> Result<Self> {
        let read = if text.len() > MAX_TEXT { None } else { read(text) };
        // Whatever can be written in two ways is read in one.
        read.filter(|signed| signed.to_string() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "the text is not that of a signature of version 1")
        })
    }
}

fn read(text: &str) -> Option<Signed> {
    let mut fields = text.split('.');
    let mut field = || fields.next();
    if field()? != VERSION {
        return None;
    }
    let claims = Claims {
        tenant: name(field()?)?,
        instance: field()?.parse().ok()?,
        step: name(field()?)?,
        token: Token { incarnation: field()?.parse().ok()?, counter: field()?.parse().ok()? },
        expires_ms: field()?.parse().ok()?,
        request: RequestDigest(unhex(field()?)?),
    };
    let code = unhex(field()?)?;
    // A field too many would be missing from the text of what was read.
    Some(Signed { claims, code })
}

fn name(text: &str) -> Option<String> {
    percent::decode(text).filter(|name| limits::check_name("a name", name).is_ok())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut digits = text.chars().map(|digit| digit.to_digit(16));
    for byte in &mut bytes {
        // Two digits of base 16 are below 256.
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests;
