//! The sled driver: the one place that knows sled 0.34.7 and what it does not do.
//!
//! - **`flush` is not durable.** It writes and calls `sync_file_range`. So `Synced` is a flush and then an `fsync` on a
//!   handle of our own to the data file; the files around it are synced once, after opening. `Buffered` is a flush:
//!   what is not flushed is in this process's memory. Both are shared between callers ([`GroupSync`]).
//! - **Large pages become files that it never syncs.** A page is rewritten with all its rows, up to 17 in a leaf,
//!   and goes to `blobs/` when it is larger than a quarter of a segment. So values are cut into chunks
//!   ([`rows`]) and segments are large enough for pages of the longest keys that the engine makes. If such a file
//!   appears nevertheless, a sync includes it.
//! - **It falls behind without telling** when nobody flushes: a bound on what is unflushed, per [`SledOptions`].
//! - **It can refuse to open for ever** after being killed while it opens: the torn file is removed first.
//! - **It panics** on some damaged files: a panic is an error here. It also panics when its last handle is dropped and the
//!   data file cannot be synced: by then nobody relies on that sync ([`Handle`]).
//! - **It ends at damage to its log** as after a power cut: a damaged configuration or snapshot is an error, and so is a damaged page that
//!   the snapshot names; but of what was written behind the snapshot (it makes one when it opens), a damaged record takes everything
//!   after it, without an error here. What is left is a prefix, as it was written. The engine sees the loss if the store had been
//!   closed in order: it counts the closes, in the store and beside it.
//! - **It closes late**: its own threads may hold the lock for a moment after the last handle is gone, so dropping
//!   the store waits for them.

mod rows;
mod store;

use std::fs::{File, TryLockError};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[expect(unused_imports, reason = "named in the documentation above")]
use super::group::GroupSync;
use super::{Driver, Store, files};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Instant, thread};

/// Four times the largest page that stays in the log. A leaf has at most some 18 rows of 4 KiB and their keys; an inner
/// page has up to 257 keys, cut after the first byte that tells them apart. 512 KiB holds both for keys of up
/// to 2,000 bytes. Part of the format: sled refuses to open with another.
const SEGMENT: usize = 2 << 20;

/// How long a dropped store waits for sled's threads to let go of its files.
const CLOSING: Duration = Duration::from_secs(5);

/// How much a sled store may use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SledOptions {
    /// Bytes of its page cache. sled takes more than is set, up to some twice as much.
    pub cache: u64,
    /// Most [`Relaxed`](super::Write::Relaxed) commits that stay unflushed.
    pub unflushed_commits: usize,
    /// Most bytes of them.
    pub unflushed_bytes: usize,
}

impl Default for SledOptions {
    fn default() -> Self {
        // The less sled has to write at a time, the more rarely all threads of its pool wait while its file is being cut off, when it waits
        // for itself (upstream pull request 1269). With 4 MiB the contract suite met that.
        Self { cache: 32 << 20, unflushed_commits: 1024, unflushed_bytes: 1 << 20 }
    }
}

/// Opens sled databases.
#[derive(Debug, Clone, Default)]
pub struct SledDriver {
    options: SledOptions,
}

impl SledDriver {
    /// A driver with options of its own.
    #[must_use]
    pub fn new(options: SledOptions) -> Self {
        Self { options }
    }
}

impl Driver for SledDriver {
    fn name(&self) -> &str {
        "sled"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        files::create_dir(path)?;
        remove_torn(path)?;
        let config = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT)
            .cache_capacity(self.options.cache)
            .flush_every_ms(None);
        let db = Handle::new(shielded("open", || config.open()).map_err(|err| at_open(path, err))?);
        drop(config);
        rows::check_format(&db).map_err(|err| at_open(path, err))?;
        sync_files(path)?;
        files::make_private(path)?;
        let store = store::SledStore::new(db, path, self.options.clone())?;
        Ok(Arc::new(store))
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        if is_locked(path)? {
            return Err(locked(path));
        }
        // The data first: what a crash leaves of the rest, opening takes for a store that was never finished.
        files::remove_file(&path.join("db"))?;
        let blobs = path.join("blobs");
        for blob in files::paths(&blobs, |_| true)? {
            files::remove_file(&blob)?;
        }
        files::remove_empty_dir(&blobs)?;
        for file in files::paths(path, is_ours)? {
            if file != blobs {
                files::remove_file(&file)?;
            }
        }
        files::remove_empty_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.join("conf").is_file() && path.join("db").is_file()
    }

    fn may_reopen(&self, path: &Path) -> Result<()> {
        files::probe(path)
    }
}

fn is_ours(name: &str) -> bool {
    matches!(name, "conf" | "db" | "blobs" | files::PROBE) || name.starts_with("snap.")
}

/// Removes what a crash while opening or removing leaves and sled trips over, unless somebody has the store open.
fn remove_torn(path: &Path) -> Result<()> {
    if is_locked(path)? {
        return Err(locked(path));
    }
    let complete = path.join("db").is_file();
    if !complete {
        files::refuse_foreign(path, is_ours)?;
    }
    // A snapshot describes a data file; without one it is left over from another.
    let torn = |name: &str| name.starts_with("snap.") && (!complete || name.ends_with(".generating"));
    for snapshot in files::paths(path, torn)? {
        files::remove_file(&snapshot)?;
    }
    Ok(())
}

/// Makes everything durable that sled makes when it opens and never syncs, down to the directory's own name.
fn sync_files(path: &Path) -> Result<()> {
    let blobs = path.join("blobs");
    for file in files::paths(&blobs, |_| true)?.into_iter().chain(files::paths(path, is_ours)?) {
        files::sync(&file)?;
    }
    files::sync_dirs(path)
}

fn locked(path: &Path) -> Error {
    Error::new(ErrorKind::Locked, format!("the sled database in {} is in use", path.display()))
}

/// Whether anybody has the database open.
fn is_locked(path: &Path) -> Result<bool> {
    let db = path.join("db");
    let file = match File::open(&db) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(Error::io(format!("cannot open {}", db.display()), err)),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(err)) => Err(Error::io(format!("cannot lock {}", db.display()), err)),
    }
}

/// Waits, when it is dropped, until the files are free. The last field of a store, so that sled's own are gone.
#[derive(Debug)]
struct Closing(PathBuf);

impl Drop for Closing {
    fn drop(&mut self) {
        let deadline = Instant::now() + CLOSING;
        while matches!(is_locked(&self.0), Ok(true)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What may panic when it is dropped, and here does not.
#[derive(Debug)]
struct Handle<T>(Option<T>);

impl<T> Handle<T> {
    fn new(inner: T) -> Self {
        Self(Some(inner))
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(inner) => inner,
            None => unreachable!("it is taken when it is dropped"),
        }
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        // Whatever was promised was synced before. Who drops it has nobody to tell.
        let _ = shielded("close", || {
            drop(inner);
            Ok(())
        });
    }
}

/// Calls sled and makes an error of its errors and panics.
fn shielded<T>(doing: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|err| error(doing, err)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Error::new(ErrorKind::Corrupt, format!("sled: {doing}: it panicked: {text}")))
        }
    }
}

fn error(doing: &'static str, err: sled::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let kind = match &err {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => ErrorKind::Corrupt,
        sled::Error::Io(io) if matches!(io.kind(), UnexpectedEof | InvalidData) => ErrorKind::Corrupt,
        // sled has no kind for it.
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => ErrorKind::Locked,
        // Other parameters or another version than ours.
        sled::Error::Unsupported(_) => ErrorKind::Foreign,
        _ => ErrorKind::Io,
    };
    Error::with_source(kind, format!("sled: {doing}"), err)
}

fn at_open(path: &Path, err: Error) -> Error {
    err.context(format!("the sled database in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_panics_when_it_is_dropped_takes_nobody_with_it() {
        struct Panics {
            _held: Arc<()>,
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("the disk is gone");
            }
        }
        let held = Arc::new(());
        let handle = Handle::new(Panics { _held: Arc::clone(&held) });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(handle);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
