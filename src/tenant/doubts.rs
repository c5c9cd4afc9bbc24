//! Rows of which nobody knows whether they are there: their commit failed with an I/O error.
//!
//! A store may show such rows and lose them when it is opened again, or the other way round. So nothing is answered from them, and nothing
//! is decided by them in the other store, until the store was opened again and what opening has to finish is finished. Once it has
//! failed it takes no writes, so there are never more of them than commits were under way when it failed.
//!
//! What is in doubt is noted before the locks of the failed commit are let go of, and looked up under the same locks. It belongs to the
//! opening of the store that failed: only when that handle is closed is anything about it settled.

use std::collections::{HashMap, HashSet};

use cutover_formats::RowId;

use crate::error::{Error, ErrorKind, Result};
use crate::store::space::Space;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The rows of a tenant that are in doubt, in whichever store.
#[derive(Default)]
pub(crate) struct Doubts {
    /// Whether there are any: all that the usual case has to ask.
    any: AtomicBool,
    /// By the opening of the store that failed.
    rows: Mutex<HashMap<u64, HashSet<RowId<'static>>>>,
}

impl Doubts {
    /// The commit of these rows failed, in this store or because of it.
    pub(super) fn add<'r>(&self, space: &Space, rows: impl Iterator<Item = &'r RowId<'static>>) {
        let mut doubts = self.rows.lock();
        doubts.entry(space.opening).or_default().extend(rows.filter_map(guarded));
        // Under the mutex, as in `settle`. Whoever looks holds a lock that the caller has held meanwhile.
        self.any.store(true, Ordering::Release);
    }

    /// Refuses to answer from a row that is in doubt. The caller holds its lock.
    pub(super) fn check(&self, row: &RowId<'_>) -> Result<()> {
        if !self.has(row) {
            return Ok(());
        }
        let message = "a commit of it failed, and whether it happened is known when the engine has opened its store again";
        Err(Error::new(ErrorKind::Indeterminate, message))
    }

    pub(super) fn has(&self, row: &RowId<'_>) -> bool {
        self.any.load(Ordering::Acquire) && self.rows.lock().values().any(|rows| rows.contains(row))
    }

    /// The openings of stores that failed and left something in doubt.
    pub(super) fn openings(&self) -> Vec<u64> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.rows.lock().keys().copied().collect()
    }

    /// What these openings left in doubt is known now.
    pub(super) fn settle(&self, openings: &[u64]) {
        let mut rows = self.rows.lock();
        rows.retain(|opening, _| !openings.contains(opening));
        self.any.store(!rows.is_empty(), Ordering::Release);
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
