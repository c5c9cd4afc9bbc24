//! What stands in for a store that has failed and is being opened again: it refuses everything and says why.

use cutover_formats::Family;

use super::{Batch, Store, Visit, Write};
use crate::error::{Error, ErrorKind, Result};

/// Why a store takes no writes.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// Its disk was full.
    full: bool,
    /// The error, in words.
    why: String,
}

impl Failure {
    pub(crate) fn of(err: &Error) -> Self {
        Self { full: err.says_full(), why: err.to_string() }
    }

    /// Refuses what `calls` names: nothing was done.
    pub(crate) fn refusal(&self, calls: &str) -> Error {
        let (kind, what) = match self.full {
            true => (ErrorKind::NoSpace, "there is no space left on its disk"),
            false => (ErrorKind::Unavailable, "it has failed"),
        };
        let then = "the engine opens it again by itself when that is over";
        Error::with_source(
            kind,
            format!("the store takes no {calls} because {what}; {then}. It said"),
            self.why.clone(),
        )
    }

    /// The error, in words.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }
}

/// A store whose handle is closed.
pub(super) struct Closed(pub(super) Failure);

impl Store for Closed {
    fn get(&self, _: Family, _: &[u8]) -> Result<Option<Vec<u8>>> {
        Err(self.0.refusal("calls"))
    }

    fn scan(&self, _: Family, _: &[u8], _: &[u8], _: Visit<'_>) -> Result<()> {
        Err(self.0.refusal("calls"))
    }

    fn commit(&self, _: &Batch, _: Write) -> Result<()> {
        Err(self.0.refusal("calls"))
    }

    fn remove_range(&self, _: Family, _: &[u8], _: &[u8]) -> Result<()> {
        Err(self.0.refusal("calls"))
    }
}
