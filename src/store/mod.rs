//! Stores: what the engine asks of an embedded key-value store, and the drivers that give it.
//!
//! A [`Driver`] opens directories as [`Store`]s. A store keeps eight [families](Family) of byte keys and values
//! apart, applies [`Batch`]es atomically over all of them, and is exact about what survives what. To bring a
//! store of your own, implement both traits and hold them against [`contract::check`].

pub mod batch;
mod closed;
pub mod contract;
#[cfg(any(feature = "rocksdb", feature = "sled"))]
mod files;
pub mod group;
pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
#[cfg(feature = "sled")]
pub mod sled;
pub(crate) mod space;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cutover_formats::Family;

pub use self::batch::{Batch, Change};
use crate::error::Result;

/// What a commit promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Write {
    /// Nothing yet: it survives what the next stronger commit or sync survives. For work that can be done again.
    Relaxed,
    /// It survives a kill of the process. Power loss may take the last moments: what is left is a prefix of the
    /// commits, without holes.
    Buffered,
    /// It survives power loss, and so does every commit that returned before it.
    Synced,
}

/// What a scan calls for every row, with its key and value, until it breaks.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Opens directories as stores.
pub trait Driver: Send + Sync + 'static {
    /// Its name in the catalog and on the command line: lower case, no spaces.
    fn name(&self) -> &str;

    /// Opens the store in `path`, creating it if nothing is there. When it returns, the store's own files are durable.
    ///
    /// # Errors
    /// If the directory is in use, damaged or not a store of this driver. A panic of the underlying library is an
    /// error too.
    fn open(&self, path: &Path) -> Result<Arc<dyn Store>>;

    /// Opens the store in `path` to read it, without changing a byte there; it refuses writes. `None`, unless a driver says
    /// otherwise, if it cannot: whoever wants to leave the store as it is reads a copy.
    ///
    /// # Errors
    /// As [`open`](Self::open); also if nothing is there.
    fn open_read_only(&self, path: &Path) -> Result<Option<Arc<dyn Store>>> {
        let _ = path;
        Ok(None)
    }

    /// Removes the store in `path` with everything in it. Nobody has it open. Missing already is success.
    ///
    /// # Errors
    /// If a file cannot be removed.
    fn destroy(&self, path: &Path) -> Result<()>;

    /// Whether a store of this driver is in `path`.
    fn exists(&self, path: &Path) -> bool;

    /// Whether the stores of this driver end with the process, whatever they promised. They do not unless a driver says otherwise.
    fn is_volatile(&self) -> bool {
        false
    }

    /// Whether what made the store in `path` fail may be over, so that closing it and opening it again is worth a try. Until then it stays
    /// open and can be read. It is always worth one unless a driver says otherwise.
    ///
    /// # Errors
    /// What is still in the way: the disk is full, or takes no writes.
    fn may_reopen(&self, path: &Path) -> Result<()> {
        let _ = path;
        Ok(())
    }
}

/// One opened store.
///
/// # Contract
///
/// - **Atomic**: a batch is visible, and survives, as a whole or not at all, over all families.
/// - **Ordered**: commits that one thread makes after another returned are later; what survives a crash is a prefix of
///   that order.
/// - **Durable** as [`Write`] says, when `commit` returns; so is an empty batch, for all commits before it. Concurrent
///   callers share a sync.
/// - **Visible** at the latest when `commit` returns, to every thread. It may be visible earlier, before it is
///   durable: the engine's locks keep anybody from acting on that.
/// - After an error from `commit` or `sync` the outcome is *unknown*, and the store refuses every further write
///   with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) until it is opened again. Reads go on. The engine asks
///   for no write after an error, drops the store when nobody uses it any more, and opens it again.
/// - Keys of up to 8 KiB and values of up to 17 MiB are stored as they are, empty values included.
/// - No call panics on damaged files: it returns [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt).
pub trait Store: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Shows `visit` the rows from `from` (included) up to `to` (excluded; no bound if empty) in ascending order of
    /// keys until it breaks. Rows that change during the scan may be seen before or after the change. `visit` must not call
    /// the store.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;

    /// Applies the batch: later changes of the same key win.
    ///
    /// # Errors
    /// Whether it was applied is unknown then; see the contract.
    fn commit(&self, batch: &Batch, write: Write) -> Result<()>;

    /// Removes the rows from `from` (included) up to `to` (excluded). Not atomic, and no more durable than
    /// [`Write::Relaxed`]; may be repeated.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()>;

    /// Makes everything committed before it survive power loss.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn sync(&self) -> Result<()> {
        self.commit(&Batch::new(), Write::Synced)
    }

    /// What it has done since it was opened, as far as it counts.
    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Counters of a store since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commits that asked for durability.
    pub commits: u64,
    /// Syncs (or, for `Buffered`, flushes) that served them.
    pub syncs: u64,
}

/// The first key behind all keys that start with `prefix`; empty if there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return end;
        }
    }
    end
}
