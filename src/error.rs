//! The one error of the library: a kind to act on, a sentence to read, and what lies beneath.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use cutover_formats::limits::MAX_REASON;

/// What a caller can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not allowed: a name too long, an unknown driver. Nothing changed.
    InvalidInput,
    /// The tenant, definition or instance named does not exist. Nothing changed.
    NotFound,
    /// It exists already, and differently: other bytes for a definition, other contents for a request id. Nothing changed.
    AlreadyExists,
    /// The move is not legal now; the sentence says which are and what is in the way. Nothing changed.
    IllegalMove,
    /// Another migration of the tenant is under way; the sentence names it. Nothing changed.
    Conflict,
    /// What was planned does not fit what is there any more; the sentence says what is new and what is gone. Nothing changed.
    Drift,
    /// The status changed between reading and committing, and the request asked to be told. Nothing changed.
    StatusChanged,
    /// Bytes in a store or in the metadata are not those that were written.
    Corrupt,
    /// Another process, or another engine of this one, has the directory open. Nothing changed.
    Locked,
    /// The directory holds something that is not ours, or that a newer version wrote. Nothing changed.
    Foreign,
    /// The engine is closed, or a store takes no calls until it was opened again, which a running engine does by itself. Nothing
    /// changed.
    Unavailable,
    /// A store takes no writes because its disk is full. Nothing changed. Once there is space the engine opens the store
    /// again by itself.
    NoSpace,
    /// The commit may or may not have happened. A repeat with the same request id settles it.
    Indeterminate,
    /// The worker was not heard of in time: it can do nothing until it registers anew. Nothing changed.
    LeaseExpired,
    /// The worker holds as many steps as it may, or as many requests wait for a hand-over as may. Nothing changed.
    AtLimit,
    /// A service that a worker called failed. What it did by then is not known here; nothing changed in the engine.
    Service,
    /// The runner may not act for the tenant; the sentence names the one that may. Nothing changed.
    NotPrimary,
    /// The runner handed the tenant over, or was terminated, and does not come back: it has to stop. Nothing changed.
    Deactivated,
    /// A deadline passed first.
    TimedOut,
    /// A thread of the engine panicked: a bug of ours.
    Panicked,
    /// The operating system or a store reported an error.
    Io,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. [`kind`](Self::kind) is for programs; the text, with its sources, is for people and never
/// carries a payload.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with nothing beneath it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// An error of the operating system or of a store, with what was being done.
    pub fn io(doing: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Box::new(Inner { kind: ErrorKind::Io, message: doing.into(), source: Some(source.into()) }))
    }

    /// An error of the given kind with another beneath it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    /// The same kind, with a sentence about what was being done on top.
    #[must_use]
    pub fn context(self, doing: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind: self.0.kind, message: doing.into(), source: Some(Box::new(self)) }))
    }

    /// What a caller can do something about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether a full disk, or a quota that is used up, lies beneath it. Stores that tell their errors as text use the
    /// operating system's words.
    pub(crate) fn says_full(&self) -> bool {
        let full =
            |err: &io::Error| matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(err) = next {
            if err.downcast_ref::<io::Error>().is_some_and(full) {
                return true;
            }
            next = err.source();
        }
        let text = self.to_string();
        self.0.kind == ErrorKind::NoSpace
            || ["No space left on device", "Disk quota exceeded"].iter().any(|words| text.contains(words))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut next = self.0.source.as_deref().map(|err| err as &dyn StdError);
        // Our own errors print their sources themselves; one level is enough for all of them.
        if let Some(err) = next.take() {
            write!(f, ": {err}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|err| err as &(dyn StdError + 'static))
    }
}

impl From<cutover_formats::FormatError> for Error {
    /// For what a caller gave. What was read from disk becomes [`ErrorKind::Corrupt`] where it is read.
    fn from(err: cutover_formats::FormatError) -> Self {
        Self::new(ErrorKind::InvalidInput, err.to_string())
    }
}

/// A reason, cut to [`MAX_REASON`] bytes at a character.
pub(crate) fn short_reason(reason: &str) -> String {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_beneath_any_context_and_in_words() {
        let full = Error::io("writing", io::Error::from(io::ErrorKind::StorageFull));
        assert!(full.context("one").context("two").says_full());
        assert!(Error::io("syncing", io::Error::from(io::ErrorKind::QuotaExceeded)).says_full());
        let words = "IO error: No space left on device: While appending to file: 000004.log";
        assert!(Error::with_source(ErrorKind::Io, "RocksDB: commit", words).says_full());
        assert!(!Error::io("writing", io::Error::from(io::ErrorKind::PermissionDenied)).says_full());
        assert!(!Error::new(ErrorKind::Io, "broken").says_full());
    }
}
