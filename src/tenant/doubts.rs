//! Rows of which nobody knows whether they are there: their commit failed with an I/O error.
//!
//! A store may show such rows and lose them when it is opened again, or the other way round. So nothing is answered from them, and nothing
//! is decided by them in the other store, until the engine is opened again and has read what is really there. The store takes
//! no writes until then, so there are never more of them than commits were under way when it failed.
//!
//! What is in doubt is noted before the locks of the failed commit are let go of, and looked up under the same locks.

use std::collections::HashSet;

use cutover_formats::RowId;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The rows of a tenant that are in doubt, in whichever store.
#[derive(Default)]
pub(crate) struct Doubts {
    /// Whether there are any: all that the usual case has to ask.
    any: AtomicBool,
    rows: Mutex<HashSet<RowId<'static>>>,
}

impl Doubts {
    /// The commit of these rows failed.
    pub(super) fn add<'r>(&self, rows: impl Iterator<Item = &'r RowId<'static>>) {
        self.rows.lock().extend(rows.filter_map(guarded));
        // Whoever looks holds a lock that the caller has held meanwhile.
        self.any.store(true, Ordering::Release);
    }

    /// Refuses to answer from a row that is in doubt. The caller holds its lock.
    pub(super) fn check(&self, row: &RowId<'_>) -> Result<()> {
        if !self.has(row) {
            return Ok(());
        }
        let message =
            "a commit of it failed, and whether it happened is known when the engine is opened again";
        Err(Error::new(ErrorKind::Indeterminate, message))
    }

    pub(super) fn has(&self, row: &RowId<'_>) -> bool {
        self.any.load(Ordering::Acquire) && self.rows.lock().contains(row)
    }
}

/// The row that stands for what a row belongs to: the one whose lock guards it.
fn guarded(row: &RowId<'static>) -> Option<RowId<'static>> {
    match row {
        RowId::Key { .. } | RowId::Request { .. } | RowId::Instance { .. } | RowId::Definition { .. } => {
            Some(row.clone())
        }
        RowId::Input { id } | RowId::Output { id } => Some(RowId::Instance { id: *id }),
        RowId::Step { instance, .. } | RowId::Ready { instance, .. } => {
            Some(RowId::Instance { id: *instance })
        }
        // Found only by way of the others.
        RowId::Expiry { .. } | RowId::Note(_) => None,
    }
}
