//! The RocksDB driver: a column family for each family, one write-ahead log over all of them.
//!
//! What carries the contract:
//!
//! - A batch is one record of the log, so it is atomic over the column families without atomic flush.
//! - `Synced` writes with `sync`, which RocksDB groups by itself: writers that queue up behind a sync share the
//!   next one. A sync covers the older logs that are not synced yet, and so every earlier commit.
//! - `Buffered` and `Relaxed` write the log without a sync: the bytes are in the operating system when the
//!   call returns, which survives a kill, and the log is a prefix after a power cut.
//! - The recovery mode is RocksDB's default, point in time: it ends before the first record that is not whole, so what
//!   is left has no holes.
//!
//! What damage to its files comes to. Blocks of tables, the manifest and records of the log have checksums, which are always verified: a byte
//! that is not the one that was written gives an error, or what was written, never another value. One thing cannot be told from a
//! power cut: a log that is damaged or cut off. Recovery ends there and keeps what comes before, so the rows of the last moments
//! (those that no table holds yet) may be missing without an error here. The engine sees it if the store had been closed in order: it
//! counts the closes, in the store and beside it.
//!
//! Absent, on purpose: RocksDB's own recovery from write errors. After the first one nothing is written until
//! the store is opened again. And its waiting when writes are stalled: it would not end as long as tables cannot be written, on a full disk say,
//! though there is room in the log. So it is told not to wait, and the waiting is done here ([`patiently`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::Family;
use rocksdb::properties::BACKGROUND_ERRORS;
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType, DBWithThreadMode,
    LogLevel, Options, ReadOptions, SingleThreaded, WriteBatch, WriteOptions,
};

use super::group::Poison;
use super::{Batch, Change, Driver, Stats, Store, Visit, Write, files};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;

/// How long to wait before a write that was refused because writes are stalled is tried again: at first, and at most.
const STALLED: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(16)];

/// The families are fixed, so nothing ever changes the map of column families. Named with its thread mode, because
/// the crate's alias changes its meaning with a feature that another crate may switch on.
type Db = DBWithThreadMode<SingleThreaded>;

/// How much a RocksDB store may use. The defaults suit a service that shares its machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RocksDbOptions {
    /// Bytes of the block cache, which all stores of one driver value share. It holds index and filter blocks too.
    pub block_cache: usize,
    /// Bytes of rows a store keeps in memory before it writes them to tables, over all families.
    pub write_buffers: usize,
    /// Most table files a store keeps open.
    pub max_open_files: i32,
    /// Most threads that flush and compact. RocksDB's stores share them in a process.
    pub background_jobs: i32,
    /// Counts syncs for [`Store::stats`]. Costs a few percent.
    pub statistics: bool,
}

impl Default for RocksDbOptions {
    fn default() -> Self {
        Self {
            block_cache: 64 << 20,
            write_buffers: 64 << 20,
            max_open_files: 256,
            background_jobs: 2,
            statistics: false,
        }
    }
}

/// Opens RocksDB databases.
#[derive(Clone)]
pub struct RocksDbDriver {
    options: RocksDbOptions,
    cache: Cache,
}

impl RocksDbDriver {
    /// A driver with options of its own.
    #[must_use]
    pub fn new(options: RocksDbOptions) -> Self {
        let cache = Cache::new_lru_cache(options.block_cache);
        Self { options, cache }
    }

    fn store(&self, db: Db, path: &Path, options: Options) -> RocksDbStore {
        let (mut synced, mut unsynced) = (WriteOptions::default(), WriteOptions::default());
        synced.set_sync(true);
        synced.set_no_slowdown(true);
        unsynced.set_no_slowdown(true);
        RocksDbStore {
            db,
            path: path.to_owned(),
            write_buffers: self.options.write_buffers as u64,
            options,
            unsynced,
            synced,
            poison: Poison::default(),
            commits: AtomicU64::new(0),
            statistics: self.options.statistics,
        }
    }

    fn db_options(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_open_files(self.options.max_open_files);
        options.set_max_file_opening_threads(2);
        options.set_max_background_jobs(self.options.background_jobs);
        options.set_db_write_buffer_size(self.options.write_buffers);
        options.set_max_total_wal_size(self.options.write_buffers as u64);
        options.set_skip_stats_update_on_db_open(true);
        // The info log is for the authors of RocksDB; ours is elsewhere.
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(1 << 20);
        options.set_keep_log_file_num(2);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        if self.options.statistics {
            options.enable_statistics();
            options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
        }
        options
    }

    fn family_options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // Most launches look for a key that is in neither store.
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(self.options.write_buffers / 4);
        options
    }
}

impl Default for RocksDbDriver {
    fn default() -> Self {
        Self::new(RocksDbOptions::default())
    }
}

impl std::fmt::Debug for RocksDbDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksDbDriver").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Driver for RocksDbDriver {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        let opening = |err| open_error(path, &err);
        files::create_dir(path)?;
        let options = self.db_options();
        if self.exists(path) {
            let families = Db::list_cf(&options, path).map_err(opening)?;
            refuse_families(path, &families)?;
        } else {
            files::refuse_foreign(path, is_ours)?;
        }
        let families =
            Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), self.family_options()));
        let db = Db::open_cf_descriptors(&options, path, families).map_err(opening)?;
        // RocksDB syncs the entries it makes in its directory, but not the directory's own.
        files::sync_dirs(path)?;
        files::make_private(path)?;
        Ok(Arc::new(self.store(db, path, options)))
    }

    /// Rows of the log are read into memory, all of them, and stay there: RocksDB writes them to tables only when it may write.
    fn open_read_only(&self, path: &Path) -> Result<Option<Arc<dyn Store>>> {
        let opening = |err| open_error(path, &err);
        let mut options = self.db_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let families = Db::list_cf(&options, path).map_err(opening)?;
        refuse_families(path, &families)?;
        if let Some(missing) =
            Family::ALL.iter().find(|family| !families.iter().any(|name| name == family.name()))
        {
            let message = format!(
                "the RocksDB database in {} was never finished: it has no column family {:?} yet",
                path.display(),
                missing.name()
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let families =
            Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), self.family_options()));
        let db = Db::open_cf_descriptors_read_only(&options, path, families, false).map_err(opening)?;
        let store = self.store(db, path, options);
        store.poison.set(&Error::new(ErrorKind::Unavailable, "it is open for reading only"));
        Ok(Some(Arc::new(store)))
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        Db::destroy(&Options::default(), path).map_err(|err| open_error(path, &err))?;
        // What RocksDB leaves: its own lock file, in some versions its info log.
        for leftover in files::paths(path, is_ours)? {
            files::remove_file(&leftover)?;
        }
        files::remove_empty_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.join("CURRENT").is_file()
    }

    fn may_reopen(&self, path: &Path) -> Result<()> {
        files::probe(path)
    }
}

/// Whether RocksDB makes files of this name. Only these are in a directory where creating a database was cut short.
fn is_ours(name: &str) -> bool {
    const NAMES: [&str; 5] = ["CURRENT", "LOCK", "IDENTITY", "LOG", files::PROBE];
    const STARTS: [&str; 3] = ["LOG.old.", "MANIFEST-", "OPTIONS-"];
    const ENDS: [&str; 3] = [".log", ".sst", ".dbtmp"];
    NAMES.contains(&name)
        || STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// Refuses a database that has other column families than ours: it is another program's. One that lacks some was cut
/// short while it was created.
fn refuse_families(path: &Path, found: &[String]) -> Result<()> {
    let foreign = |name: &&String| *name != "default" && Family::from_name(name).is_none();
    match found.iter().find(foreign) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Foreign,
            format!(
                "the RocksDB database in {} is not ours: it has a column family {name:?}",
                path.display()
            ),
        )),
    }
}

fn open_error(path: &Path, err: &rocksdb::Error) -> Error {
    let text = err.to_string();
    // RocksDB has no kind for it: one text is from `fcntl`, the other from its own list of open directories.
    let kind = if text.contains("While lock file") || text.contains("lock hold by current process") {
        ErrorKind::Locked
    } else {
        kind(err)
    };
    Error::with_source(kind, format!("RocksDB in {}", path.display()), text)
}

fn kind(err: &rocksdb::Error) -> ErrorKind {
    match err.kind() {
        rocksdb::ErrorKind::Corruption => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    }
}

fn error(doing: &'static str, err: rocksdb::Error) -> Error {
    Error::with_source(kind(&err), format!("RocksDB: {doing}"), err)
}

/// Whether a write was made; not if writes are stalled.
fn made(doing: &'static str, written: Result<(), rocksdb::Error>) -> Result<bool> {
    match written {
        Err(err) if err.kind() == rocksdb::ErrorKind::Incomplete => Ok(false),
        written => written.map(|()| true).map_err(|err| error(doing, err)),
    }
}

/// Makes a write, again and again while it says that it was not made because writes are stalled. Gives up if `broken` says why the stall will not end.
fn patiently(mut write: impl FnMut() -> Result<bool>, broken: impl Fn() -> Result<()>) -> Result<()> {
    let [mut nap, longest] = STALLED;
    while !write()? {
        broken()?;
        thread::sleep(nap);
        nap = (nap * 2).min(longest);
    }
    Ok(())
}

struct RocksDbStore {
    db: Db,
    path: PathBuf,
    write_buffers: u64,
    /// Holds the statistics.
    options: Options,
    unsynced: WriteOptions,
    synced: WriteOptions,
    poison: Poison,
    commits: AtomicU64,
    statistics: bool,
}

impl RocksDbStore {
    /// A search in a map of nine names that never changes: no lock, no count of references.
    fn family(&self, family: Family) -> Result<&ColumnFamily> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "RocksDB: a column family is missing"))
    }

    fn write(
        &self,
        doing: &'static str,
        mut write: impl FnMut() -> Result<Result<(), rocksdb::Error>>,
    ) -> Result<()> {
        self.poison.check()?;
        patiently(|| made(doing, write()?), || self.check_background())
            .inspect_err(|err| self.poison.set(err))
    }

    /// Whether tables could be written so far. If not, says why, as far as that can be known.
    fn check_background(&self) -> Result<()> {
        let errors = self.db.property_int_value(BACKGROUND_ERRORS).map_err(|err| error("look at it", err))?;
        if errors.unwrap_or(0) == 0 {
            return Ok(());
        }
        // Those that it could not write for lack of space it has removed. All that is in memory may go into one.
        files::has_room(&self.path, self.write_buffers)?;
        Err(Error::new(ErrorKind::Io, "RocksDB: it could not write its tables, and takes no rows"))
    }

    fn rows(&self, batch: &Batch) -> Result<WriteBatch> {
        // 32: more than the head of a batch and of a row.
        let mut rows = WriteBatch::with_capacity_bytes(batch.size() + 32 * (batch.len() + 1));
        for change in batch.changes() {
            match change {
                Change::Put(family, key, value) => rows.put_cf(self.family(family)?, key, value),
                Change::Delete(family, key) => rows.delete_cf(self.family(family)?, key),
            }
        }
        Ok(rows)
    }

    /// The last key of a family.
    fn last(&self, family: Family) -> Result<Option<Vec<u8>>> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(family)?, ReadOptions::default());
        rows.seek_to_last();
        let last = rows.key().map(<[u8]>::to_vec);
        rows.status().map_err(|err| error("seek", err))?;
        Ok(last)
    }
}

impl Store for RocksDbStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(self.family(family)?, key).map_err(|err| error("get", err))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let mut options = ReadOptions::default();
        if !to.is_empty() {
            if from >= to {
                return Ok(());
            }
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        // It ends at a damaged block as it does at the last row; the status tells them apart.
        rows.status().map_err(|err| error("scan", err))
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        if write != Write::Relaxed {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        if batch.is_empty() {
            return match write {
                Write::Synced => self.write("sync", || Ok(self.db.flush_wal(true))),
                // Every commit is in the operating system when it returns.
                Write::Relaxed | Write::Buffered => self.poison.check(),
            };
        }
        let options = if write == Write::Synced { &self.synced } else { &self.unsynced };
        // After a stall it is encoded again, which costs less than the stall.
        self.write("commit", || Ok(self.db.write_opt(self.rows(batch)?, options)))
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        let end = if to.is_empty() {
            // There is no largest key: the end is just behind the last one.
            let Some(mut last) = self.last(family)? else { return self.poison.check() };
            last.push(0);
            last
        } else {
            to.to_vec()
        };
        // RocksDB refuses bounds in the wrong order.
        if from >= end.as_slice() {
            return self.poison.check();
        }
        let rows = self.family(family)?;
        self.write("remove a range", || Ok(self.db.delete_range_cf_opt(rows, from, &end, &self.unsynced)))
    }

    fn stats(&self) -> Stats {
        if !self.statistics {
            return Stats::default();
        }
        Stats {
            commits: self.commits.load(Ordering::Relaxed),
            syncs: self.options.get_ticker_count(Ticker::WalFileSynced),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_write_is_made_when_the_stall_is_over_and_given_up_if_it_will_not_be() {
        let (tries, looks) = (Cell::new(0), Cell::new(0));
        let count = |counter: &Cell<u32>| {
            counter.set(counter.get() + 1);
            counter.get()
        };
        let on_the_third = || Ok(count(&tries) == 3);
        patiently(on_the_third, || Ok(_ = count(&looks))).unwrap();
        assert_eq!((tries.take(), looks.take()), (3, 2));
        let full = || Error::new(ErrorKind::NoSpace, "the disk is full");
        let given_up =
            patiently(|| Ok(count(&tries) == 9), || if count(&looks) == 2 { Err(full()) } else { Ok(()) });
        assert_eq!(given_up.unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!((tries.take(), looks.take()), (2, 2));
        let failed = patiently(|| Err(full()), || Ok(_ = count(&looks)));
        assert_eq!((failed.unwrap_err().kind(), looks.take()), (ErrorKind::NoSpace, 0));
    }
}
