//! A store in memory: the model the other stores are held against, and the one for quick tests.
//!
//! The [`MemoryDriver`] value is the disk: closing a store and opening it again through the same driver (or a clone)
//! finds its rows. What a commit was not promised to survive can be taken away by [`MemoryDriver::kill`] and
//! [`MemoryDriver::power_cut`]: the rows stand in their newest state, beside a log of how to undo each commit that is
//! not durable yet. A sync cuts the log at its old end; a power cut undoes from its new end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::Family;

use super::group::{GroupSync, Level};
use super::{Batch, Change, Driver, Stats, Store, Visit, Write};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Mutex, RwLock, thread};

/// Commits that may stay without a sync; older ones become durable by themselves, as on a real disk.
const MAX_UNSYNCED: usize = 1 << 20;

/// Opens stores in memory. Clones share their contents.
#[derive(Clone, Default)]
pub struct MemoryDriver {
    disks: Arc<Mutex<HashMap<PathBuf, Arc<Disk>>>>,
    sync_takes: Duration,
}

impl MemoryDriver {
    /// A driver in which no store exists.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every sync and flush take this long, as it would on a disk.
    #[must_use]
    pub fn with_sync_time(mut self, sync_takes: Duration) -> Self {
        self.sync_takes = sync_takes;
        self
    }

    /// What a kill of the process does: takes away the commits that were only [`Write::Relaxed`]. A store that is open
    /// there gives [`ErrorKind::Unavailable`] from now on, and the path can be opened again.
    pub fn kill(&self, path: &Path) {
        self.crash(path, Level::Buffered);
    }

    /// What a power cut does: takes away the commits after the last [`Write::Synced`]. Otherwise as
    /// [`kill`](Self::kill).
    pub fn power_cut(&self, path: &Path) {
        self.crash(path, Level::Synced);
    }

    /// What another power cut might do: of the commits after the last [`Write::Synced`] it leaves the first `commits`, as many as there
    /// are at most; what is left is on the disk. Otherwise as [`kill`](Self::kill).
    pub fn power_cut_leaving(&self, path: &Path, commits: usize) {
        self.crash_leaving(path, |data| {
            let keep = data.synced.saturating_add(commits as u64).min(data.applied);
            data.make_durable(Level::Synced, keep);
            keep
        });
    }

    /// How many commits there are after the last [`Write::Synced`].
    #[must_use]
    pub fn unsynced(&self, path: &Path) -> usize {
        self.disks.lock().get(path).map_or(0, |disk| disk.data.read().undo.len())
    }

    /// Where stores exist.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.disks.lock().keys().cloned().collect();
        paths.sort_unstable();
        paths
    }

    /// A driver with stores of its own, which hold what these do now; none of them is open.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disks = self.disks.lock();
        let copies = disks.iter().map(|(path, disk)| {
            let data = Data { user: User::None, ..disk.data.read().clone() };
            (path.clone(), Arc::new(Disk { data: RwLock::new(data) }))
        });
        Self { disks: Arc::new(Mutex::new(copies.collect())), sync_takes: self.sync_takes }
    }

    fn crash(&self, path: &Path, survives: Level) {
        self.crash_leaving(path, |data| match survives {
            Level::Buffered => data.buffered,
            Level::Synced => data.synced,
        });
    }

    /// Leaves the commits up to the number that `keep` says.
    fn crash_leaving(&self, path: &Path, keep: impl FnOnce(&mut Data) -> u64) {
        let Some(disk) = self.disks.lock().get(path).cloned() else { return };
        let mut data = disk.data.write();
        let keep = keep(&mut data);
        data.undo_after(keep);
        data.user = User::None;
    }
}

impl std::fmt::Debug for MemoryDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stores = self.disks.lock().len();
        f.debug_struct("MemoryDriver").field("stores", &stores).finish_non_exhaustive()
    }
}

impl Driver for MemoryDriver {
    fn name(&self) -> &str {
        "memory"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        let disk = Arc::clone(self.disks.lock().entry(path.to_owned()).or_default());
        let opening = {
            let mut data = disk.data.write();
            if matches!(data.user, User::Opening(_)) {
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!("the memory store {} is open already", path.display()),
                ));
            }
            data.openings += 1;
            data.user = User::Opening(data.openings);
            data.user
        };
        let group = GroupSync::new();
        Ok(Arc::new(MemoryStore { disk, opening, group, sync_takes: self.sync_takes }))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        self.disks.lock().remove(path);
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.disks.lock().contains_key(path)
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// How to take back one commit: the rows it changed, as they were before it, in the order in which it changed them.
#[derive(Clone)]
struct Undo {
    commit: u64,
    before: Vec<(Family, Vec<u8>, Option<Vec<u8>>)>,
}

/// What one path holds, open or not.
#[derive(Default)]
struct Disk {
    data: RwLock<Data>,
}

#[derive(Clone, Default)]
struct Data {
    rows: [Rows; Family::ALL.len()],
    /// Commits newer than `synced`, oldest first.
    undo: VecDeque<Undo>,
    /// The newest commit.
    applied: u64,
    /// The newest commit that survives a kill. Never behind `synced`.
    buffered: u64,
    /// The newest commit that survives power loss.
    synced: u64,
    user: User,
    openings: u64,
}

/// Who may use a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum User {
    #[default]
    None,
    /// The opening of this number: handles from before a crash carry an older one.
    Opening(u64),
}

impl Data {
    fn rows(&self, family: Family) -> Result<&Rows> {
        self.rows.get(index(family)).ok_or_else(no_family)
    }

    fn rows_mut(&mut self, family: Family) -> Result<&mut Rows> {
        self.rows.get_mut(index(family)).ok_or_else(no_family)
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut before = Vec::with_capacity(batch.len());
        for change in batch.changes() {
            let (family, key, old) = match change {
                Change::Put(family, key, value) => {
                    (family, key, self.rows_mut(family)?.insert(key.to_vec(), value.to_vec()))
                }
                Change::Delete(family, key) => (family, key, self.rows_mut(family)?.remove(key)),
            };
            before.push((family, key.to_vec(), old));
        }
        self.log(before);
        Ok(())
    }

    fn remove_range(&mut self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        let rows = self.rows_mut(family)?;
        let keys: Vec<_> = range(rows, from, to).map(|(key, _)| key.clone()).collect();
        let mut before = Vec::with_capacity(keys.len());
        for key in keys {
            let old = rows.remove(&key);
            before.push((family, key, old));
        }
        self.log(before);
        Ok(())
    }

    fn log(&mut self, before: Vec<(Family, Vec<u8>, Option<Vec<u8>>)>) {
        self.applied += 1;
        self.undo.push_back(Undo { commit: self.applied, before });
        if self.undo.len() > MAX_UNSYNCED {
            self.make_durable(Level::Synced, self.synced + 1);
        }
    }

    fn make_durable(&mut self, level: Level, upto: u64) {
        self.buffered = self.buffered.max(upto);
        if level == Level::Synced {
            self.synced = self.synced.max(upto);
            let durable = self.undo.partition_point(|undo| undo.commit <= self.synced);
            self.undo.drain(..durable);
        }
    }

    fn undo_after(&mut self, keep: u64) {
        while self.undo.back().is_some_and(|undo| undo.commit > keep) {
            let Some(undo) = self.undo.pop_back() else { break };
            for (family, key, old) in undo.before.into_iter().rev() {
                let Some(rows) = self.rows.get_mut(index(family)) else { continue };
                match old {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
        // The numbers go on from what is left: commits in the log stay consecutive.
        self.applied = self.applied.min(keep);
        self.buffered = self.buffered.min(keep);
    }
}

fn index(family: Family) -> usize {
    // Discriminants begin with 1 and have no holes.
    usize::from(family as u8) - 1
}

fn no_family() -> Error {
    Error::new(ErrorKind::InvalidInput, "the store has no such family")
}

fn range<'r>(rows: &'r Rows, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&'r Vec<u8>, &'r Vec<u8>)> {
    let end = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
    // `BTreeMap::range` panics on bounds in the wrong order; such a range is empty.
    let ordered = to.is_empty() || from < to;
    ordered.then(|| rows.range::<[u8], _>((Bound::Included(from), end))).into_iter().flatten()
}

struct MemoryStore {
    disk: Arc<Disk>,
    opening: User,
    group: GroupSync,
    sync_takes: Duration,
}

impl MemoryStore {
    fn check(&self, data: &Data) -> Result<()> {
        if data.user == self.opening {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the memory store has crashed; open it again"))
    }

    fn apply(&self, change: impl FnOnce(&mut Data) -> Result<()>) -> Result<()> {
        let mut data = self.disk.data.write();
        self.check(&data)?;
        change(&mut data)
    }

    fn sync_shared(&self, level: Level) -> Result<()> {
        let upto = self.disk.data.read().applied;
        if !self.sync_takes.is_zero() {
            thread::sleep(self.sync_takes);
        }
        let mut data = self.disk.data.write();
        self.check(&data)?;
        data.make_durable(level, upto);
        Ok(())
    }
}

impl Store for MemoryStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let data = self.disk.data.read();
        self.check(&data)?;
        Ok(data.rows(family)?.get(key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let data = self.disk.data.read();
        self.check(&data)?;
        for (key, value) in range(data.rows(family)?, from, to) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        self.group.commit(write, || self.apply(|data| data.apply(batch)), |level| self.sync_shared(level))
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        let apply = || self.apply(|data| data.remove_range(family, from, to));
        self.group.commit(Write::Relaxed, apply, |_| Ok(()))
    }

    fn stats(&self) -> Stats {
        self.group.stats()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let mut data = self.disk.data.write();
        if data.user == self.opening {
            // A store that is closed in order has handed everything to the operating system.
            data.buffered = data.applied;
            data.user = User::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &str, value: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(Family::Keys, key.as_bytes(), value.as_bytes());
        batch.put(Family::Instances, key.as_bytes(), value.as_bytes());
        batch
    }

    fn rows(store: &dyn Store) -> Vec<String> {
        let mut rows = Vec::new();
        for family in [Family::Keys, Family::Instances] {
            let mut visit = |key: &[u8], value: &[u8]| {
                rows.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
                std::ops::ControlFlow::Continue(())
            };
            store.scan(family, b"", b"", &mut visit).unwrap();
        }
        let half = rows.len() / 2;
        assert_eq!(rows[..half], rows[half..], "a batch is there in one family only");
        rows.truncate(half);
        rows
    }

    #[test]
    fn a_crash_takes_what_was_not_promised_and_nothing_else() {
        let driver = MemoryDriver::new();
        let path = Path::new("a");
        let store = driver.open(path).unwrap();
        store.commit(&batch("a", "1"), Write::Synced).unwrap();
        store.commit(&batch("a", "2"), Write::Relaxed).unwrap();
        store.commit(&batch("b", "1"), Write::Buffered).unwrap();
        store.commit(&batch("b", "2"), Write::Relaxed).unwrap();
        store.remove_range(Family::Keys, b"", b"").unwrap();
        driver.kill(path);
        assert_eq!(store.get(Family::Keys, b"a").unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.commit(&batch("c", "1"), Write::Synced).unwrap_err().kind(), ErrorKind::Unavailable);

        let again = driver.open(path).unwrap();
        drop(store);
        assert_eq!(
            driver.open(path).err().unwrap().kind(),
            ErrorKind::Locked,
            "the old handle opened the door"
        );
        assert_eq!(rows(&*again), ["a=2", "b=1"]);
        driver.power_cut(path);
        assert_eq!(rows(&*driver.open(path).unwrap()), ["a=1"]);
    }

    #[test]
    fn a_power_cut_leaves_any_prefix_and_a_copy_is_a_disk_of_its_own() {
        let driver = MemoryDriver::new();
        let path = Path::new("a");
        let store = driver.open(path).unwrap();
        store.commit(&batch("a", "1"), Write::Synced).unwrap();
        for key in ["b", "c", "d"] {
            store.commit(&batch(key, "1"), Write::Buffered).unwrap();
        }
        assert_eq!((driver.unsynced(path), driver.paths()), (3, vec![path.to_owned()]));
        for (commits, left) in [(0, 1), (1, 2), (2, 3), (3, 4), (usize::MAX, 4)] {
            let copy = driver.copy();
            copy.power_cut_leaving(path, commits);
            assert_eq!(rows(&*copy.open(path).unwrap()).len(), left);
            copy.power_cut(path);
            assert_eq!(rows(&*copy.open(path).unwrap()).len(), left, "what was left is on the disk");
        }
        assert_eq!(rows(&*store).len(), 4, "the copies were cut");
    }

    #[test]
    fn numbers_after_a_crash_do_not_confuse_the_next_sync() {
        let driver = MemoryDriver::new();
        let path = Path::new("a");
        let store = driver.open(path).unwrap();
        for key in ["a", "b", "c"] {
            store.commit(&batch(key, "1"), Write::Buffered).unwrap();
        }
        driver.power_cut(path);
        let store = driver.open(path).unwrap();
        store.commit(&batch("d", "1"), Write::Synced).unwrap();
        store.commit(&batch("e", "1"), Write::Buffered).unwrap();
        drop(store);
        driver.power_cut(path);
        assert_eq!(rows(&*driver.open(path).unwrap()), ["d=1"]);
    }

    #[test]
    fn closing_in_order_survives_a_kill_but_not_a_power_cut() {
        let driver = MemoryDriver::new();
        let path = Path::new("a");
        driver.open(path).unwrap().commit(&batch("a", "1"), Write::Relaxed).unwrap();
        driver.kill(path);
        assert_eq!(rows(&*driver.open(path).unwrap()), ["a=1"]);
        driver.power_cut(path);
        assert!(rows(&*driver.open(path).unwrap()).is_empty());
    }

    #[test]
    fn a_scan_with_bounds_in_the_wrong_order_is_empty() {
        let store = MemoryDriver::new().open(Path::new("a")).unwrap();
        store.commit(&batch("b", "1"), Write::Relaxed).unwrap();
        let mut visit = |_: &[u8], _: &[u8]| panic!("nothing is in an empty range");
        store.scan(Family::Keys, b"z", b"a", &mut visit).unwrap();
        store.scan(Family::Keys, b"b", b"b", &mut visit).unwrap();
    }
}
