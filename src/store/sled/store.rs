//! One opened sled database as a store.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use cutover_formats::Family;

use super::rows::{self, Chunks, Stored};
use super::{Closing, Handle, SledOptions, shielded};
use crate::error::{Error, ErrorKind, Result};
use crate::store::group::{GroupSync, Level};
use crate::store::{Batch, Stats, Store, Visit, Write, files};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Rows that one batch of [`Store::remove_range`] removes, chunks included, unless one value alone has more.
const REMOVED_AT_ONCE: usize = 1024;

pub(super) struct SledStore {
    // Before `closing`: fields are dropped in order.
    db: Handle<sled::Db>,
    /// Our own handle to sled's data file, opened before anything was written through `db`: an error of writing back
    /// is reported to every handle that was open then.
    file: File,
    blobs: Blobs,
    group: GroupSync,
    /// Held from reading which chunks a batch replaces until it is applied.
    applying: Mutex<()>,
    next_id: AtomicU64,
    /// The families that have had chunks: in the others no change needs to look for old ones. Set before the batch is
    /// applied and read under `applying`.
    chunked: [AtomicBool; Family::ALL.len()],
    unflushed: Unflushed,
    /// A read failed. With a full disk sled may refuse all of them for good and still say that everything is flushed, if nothing is to be: so
    /// the next commit writes something, even if it is empty.
    suspect: AtomicBool,
    options: SledOptions,
    _closing: Closing,
}

#[derive(Debug, Default)]
struct Unflushed {
    commits: AtomicUsize,
    bytes: AtomicUsize,
}

impl SledStore {
    pub(super) fn new(db: Handle<sled::Db>, path: &Path, options: SledOptions) -> Result<Self> {
        let data = path.join("db");
        let file =
            File::open(&data).map_err(|err| Error::io(format!("cannot open {}", data.display()), err))?;
        let mut next_id = 1;
        let chunked: [AtomicBool; Family::ALL.len()] = Default::default();
        for (family, chunked) in Family::ALL.into_iter().zip(&chunked) {
            if let Some(last) = Chunks::last(&db, family)? {
                chunked.store(true, Ordering::Relaxed);
                next_id = next_id.max(last.saturating_add(1));
            }
        }
        Ok(Self {
            db,
            file,
            blobs: Blobs::new(path)?,
            group: GroupSync::new(),
            applying: Mutex::new(()),
            next_id: AtomicU64::new(next_id),
            chunked,
            unflushed: Unflushed::default(),
            suspect: AtomicBool::new(false),
            options,
            _closing: Closing(path.to_owned()),
        })
    }

    fn chunked(&self, family: Family) -> Option<&AtomicBool> {
        self.chunked.get(usize::from(family as u8) - 1)
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            let suspect = self.suspect.swap(false, Ordering::AcqRel);
            return if suspect { self.apply_rows(rows::unchanged(), 0) } else { Ok(()) };
        }
        let mut encoded = rows::encode(batch, || self.next_id.fetch_add(1, Ordering::Relaxed))?;
        for family in &encoded.chunked {
            if let Some(chunked) = self.chunked(*family) {
                chunked.store(true, Ordering::Relaxed);
            }
        }
        let _applying = self.applying.lock();
        for (family, key) in &encoded.keys {
            if !self.chunked(*family).is_some_and(|chunked| chunked.load(Ordering::Relaxed)) {
                continue;
            }
            let Some(old) = shielded("read what is replaced", || self.db.get(key))? else { continue };
            if let Stored::Chunked(chunks) = Stored::decode(*family, &old)? {
                chunks.keys().for_each(|key| encoded.batch.remove(&key));
            }
        }
        self.apply_rows(encoded.batch, batch.size())
    }

    fn suspected<T>(&self, read: Result<T>) -> Result<T> {
        read.inspect_err(|err| {
            if err.kind() == ErrorKind::Io {
                self.suspect.store(true, Ordering::Release);
            }
        })
    }

    fn apply_rows(&self, rows: sled::Batch, bytes: usize) -> Result<()> {
        self.unflushed.commits.fetch_add(1, Ordering::Relaxed);
        self.unflushed.bytes.fetch_add(bytes, Ordering::Relaxed);
        shielded("apply a batch", || self.db.apply_batch(rows))
    }

    /// A commit of so many bytes that would leave too much unflushed becomes a flush.
    fn at_least(&self, write: Write, bytes: usize) -> Write {
        let commits = self.unflushed.commits.load(Ordering::Relaxed).saturating_add(1);
        let bytes = self.unflushed.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        let behind = commits >= self.options.unflushed_commits || bytes >= self.options.unflushed_bytes;
        if behind { write.max(Write::Buffered) } else { write }
    }

    fn make_durable(&self, level: Level) -> Result<()> {
        // Before the flush: what is applied during it counts for the next.
        self.unflushed.commits.store(0, Ordering::Relaxed);
        self.unflushed.bytes.store(0, Ordering::Relaxed);
        shielded("flush", || self.db.flush())?;
        if level == Level::Synced {
            self.blobs.sync_new()?;
            self.file.sync_all().map_err(|err| Error::io("sled: cannot sync its data file", err))?;
        }
        Ok(())
    }

    /// Removes the first rows of a range, and says whether there were any. The inner error is one of reading them: nothing was written then.
    fn remove_some(&self, family: Family, range: std::ops::Range<Vec<u8>>) -> Result<Result<bool>> {
        let _applying = self.applying.lock();
        let (batch, removed, bytes) = match self.removals(family, range) {
            Ok(removals) => removals,
            Err(err) => return Ok(Err(err)),
        };
        if removed > 0 {
            self.apply_rows(batch, bytes)?;
        }
        Ok(Ok(removed > 0))
    }

    /// The removal of the first rows of a range, chunks included; how many they are, and the bytes of their keys.
    fn removals(
        &self,
        family: Family,
        range: std::ops::Range<Vec<u8>>,
    ) -> Result<(sled::Batch, usize, usize)> {
        let mut batch = sled::Batch::default();
        let (mut removed, mut bytes) = (0, 0);
        let mut rows = self.db.range(range);
        while removed < REMOVED_AT_ONCE {
            let Some((key, value)) = shielded("read what is removed", || rows.next().transpose())? else {
                break;
            };
            if let Stored::Chunked(chunks) = Stored::decode(family, &value)? {
                chunks.keys().for_each(|key| batch.remove(&key));
                removed += chunks.count() as usize;
            }
            bytes += key.len();
            batch.remove(key);
            removed += 1;
        }
        Ok((batch, removed, bytes))
    }

    /// The value behind a row that was just read; if it has been replaced since, the one of now.
    fn value(&self, family: Family, key: &[u8], mut row: sled::IVec) -> Result<Option<Vec<u8>>> {
        loop {
            let chunks = match Stored::decode(family, &row)? {
                Stored::Inline(value) => return Ok(Some(value.to_vec())),
                Stored::Chunked(chunks) => chunks,
            };
            if let Some(value) = chunks.read(&self.db)? {
                return Ok(Some(value));
            }
            match shielded("get", || self.db.get(key))? {
                None => return Ok(None),
                // The head is still there, and batches are atomic: the chunks are lost.
                Some(again) if again == row => return Err(rows::corrupt(family)),
                Some(again) => row = again,
            }
        }
    }
}

impl Store for SledStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = rows::key(family, key);
        match self.suspected(shielded("get", || self.db.get(&key)))? {
            Some(row) => self.value(family, &key, row),
            None => Ok(None),
        }
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let Some(range) = rows::range(family, from, to) else { return Ok(()) };
        let mut rows = self.db.range(range);
        while let Some((key, row)) = self.suspected(shielded("scan", || rows.next().transpose()))? {
            let Some((_, name)) = key.split_first() else { return Err(rows::corrupt(family)) };
            let flow = if let Stored::Inline(value) = Stored::decode(family, &row)? {
                visit(name, value)
            } else {
                // Removed since: as if it had been removed before.
                let Some(value) = self.value(family, &key, row)? else { continue };
                visit(name, &value)
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        self.group.commit(
            self.at_least(write, batch.size()),
            || self.apply(batch),
            |level| self.make_durable(level),
        )
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        let Some(range) = rows::range(family, from, to) else { return self.group.poison().check() };
        let mut more = Ok(true);
        while matches!(more, Ok(true)) {
            let apply = || {
                more = self.remove_some(family, range.clone())?;
                Ok(())
            };
            self.group.commit(self.at_least(Write::Relaxed, 0), apply, |level| self.make_durable(level))?;
        }
        more.map(drop)
    }

    fn stats(&self) -> Stats {
        self.group.stats()
    }
}

/// The files of pages that were too large for the log. There should be none; if there are, they hold acknowledged rows.
struct Blobs {
    dir: PathBuf,
    synced: Mutex<HashSet<String>>,
}

impl Blobs {
    /// With those that opening has synced.
    fn new(path: &Path) -> Result<Self> {
        let dir = path.join("blobs");
        let synced = files::names(&dir)?.into_iter().collect();
        Ok(Self { dir, synced: Mutex::new(synced) })
    }

    fn sync_new(&self) -> Result<()> {
        let names = files::names(&self.dir)?;
        let mut synced = self.synced.lock();
        if names.is_empty() {
            // A name is a position in the log and comes back only after its file was removed.
            synced.clear();
            return Ok(());
        }
        let mut any = false;
        for name in names.iter().filter(|name| !synced.contains(*name)) {
            files::sync(&self.dir.join(name))?;
            any = true;
        }
        if any {
            files::sync(&self.dir)?;
        }
        *synced = names.into_iter().collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_read_that_failed_an_empty_commit_writes() {
        let dir = tempfile::tempdir().unwrap();
        let db = Handle::new(sled::open(dir.path()).unwrap());
        rows::check_format(&db).unwrap();
        let store = SledStore::new(db, dir.path(), SledOptions::default()).unwrap();
        let written = || store.unflushed.commits.load(Ordering::Relaxed);
        store.apply(&Batch::new()).unwrap();
        assert_eq!(written(), 0);
        let harmless = Err::<(), _>(Error::new(ErrorKind::Corrupt, "one row"));
        store.suspected(harmless).unwrap_err();
        store.apply(&Batch::new()).unwrap();
        assert_eq!(written(), 0);
        store.suspected(Err::<(), _>(Error::new(ErrorKind::Io, "no page can be read"))).unwrap_err();
        for _ in 0..2 {
            store.apply(&Batch::new()).unwrap();
        }
        assert_eq!(written(), 1, "once");
        rows::check_format(&store.db).unwrap();
    }
}
