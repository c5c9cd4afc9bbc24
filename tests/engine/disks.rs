//! Stores in memory on disks that fail, fill up, hang and are slow, as each test asks for.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cutover::formats::{Family, Layout as _, RowId, TenantId, V1};
use cutover::store::memory::MemoryDriver;
use cutover::store::{Batch, Driver, Store, Write};
use cutover::{Builder, Engine, Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

use crate::common::PATIENT;

/// What is wrong with one disk.
#[derive(Clone, Default)]
struct Faults {
    /// Durable commits fail with this: the rows are visible then and not durable, as after a failed `fsync`.
    failing: Option<io::ErrorKind>,
    /// It says that it can be opened, and cannot.
    deceiving: bool,
    /// Closing it loses what is not durable.
    loses: bool,
    /// From the next read on the handle that is open fails in everything, as sled's does after some errors.
    dead: bool,
    /// Commits and openings wait.
    hanging: bool,
}

/// The disks of a machine, by path.
#[derive(Clone, Default)]
pub(crate) struct Disks {
    memory: MemoryDriver,
    faults: Arc<Mutex<HashMap<PathBuf, Faults>>>,
    changed: Arc<Condvar>,
    opened: Arc<Mutex<Vec<PathBuf>>>,
    /// The store of each path that was opened last, as it is below its faults.
    below: Arc<Mutex<HashMap<PathBuf, Weak<dyn Store>>>>,
    syncs: Arc<AtomicU64>,
}

struct Disk {
    path: PathBuf,
    disks: Disks,
    inner: Arc<dyn Store>,
    broken: Mutex<bool>,
}

impl Disks {
    fn faults(&self, path: &Path) -> Faults {
        self.faults.lock().get(path).cloned().unwrap_or_default()
    }

    fn openings(&self, path: &Path) -> usize {
        self.opened.lock().iter().filter(|opened| *opened == path).count()
    }

    fn wait_while_hanging(&self, path: &Path) {
        let mut faults = self.faults.lock();
        while faults.get(path).is_some_and(|faults| faults.hanging) {
            self.changed.wait(&mut faults);
        }
    }
}

impl Driver for Disks {
    fn name(&self) -> &str {
        "memory"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        self.wait_while_hanging(path);
        let faults = self.faults(path);
        if faults.deceiving {
            return Err(Error::new(ErrorKind::Io, "the disk cannot be read"));
        }
        let (path, inner) = (path.to_owned(), self.memory.open(path)?);
        self.opened.lock().push(path.clone());
        self.below.lock().insert(path.clone(), Arc::downgrade(&inner));
        Ok(Arc::new(Disk { path, disks: self.clone(), inner, broken: Mutex::new(false) }))
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        self.memory.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }

    fn may_reopen(&self, path: &Path) -> Result<()> {
        let faults = self.faults(path);
        match faults.failing {
            _ if faults.deceiving => Ok(()),
            Some(kind) => Err(Error::io("writing", io::Error::from(kind))),
            None => Ok(()),
        }
    }
}

impl Disk {
    fn live(&self) -> Result<()> {
        if self.disks.openings(&self.path) == 1 && self.disks.faults(&self.path).dead {
            return Err(Error::new(ErrorKind::Io, "it failed before"));
        }
        Ok(())
    }
}

impl Store for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.live()?;
        self.inner.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.live()?;
        self.inner.scan(family, from, to, visit)
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        self.disks.wait_while_hanging(&self.path);
        if write == Write::Synced && batch.is_empty() {
            self.disks.syncs.fetch_add(1, Ordering::SeqCst);
        }
        let mut broken = self.broken.lock();
        if *broken {
            return Err(Error::new(ErrorKind::Unavailable, "it takes no writes"));
        }
        self.live()?;
        if let Some(kind) = self.disks.faults(&self.path).failing.filter(|_| write != Write::Relaxed) {
            *broken = true;
            self.inner.commit(batch, Write::Relaxed)?;
            return Err(Error::io("writing the log", io::Error::from(kind)));
        }
        drop(broken);
        self.inner.commit(batch, write)
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        self.inner.remove_range(family, from, to)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.disks.faults(&self.path).loses {
            self.disks.memory.kill(&self.path);
        }
    }
}

/// A data directory and its disks.
pub(crate) struct Machine {
    dir: TempDir,
    disks: Disks,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), disks: Disks::default() }
    }

    pub(crate) fn builder(&self) -> Builder {
        let builder = Engine::builder(self.dir.path().join("data")).driver(Arc::new(self.disks.clone()));
        builder.heartbeats(PATIENT)
    }

    pub(crate) fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    fn path(&self, store: &str) -> PathBuf {
        self.dir.path().join("data").join(store)
    }

    fn change(&self, store: &str, change: impl FnOnce(&mut Faults)) {
        change(self.disks.faults.lock().entry(self.path(store)).or_default());
        self.disks.changed.notify_all();
    }

    /// From now on the next durable commit to this store fails, and everything after it is refused.
    pub(crate) fn fail(&self, store: &str) {
        self.change(store, |faults| faults.failing = Some(io::ErrorKind::Other));
    }

    /// The same because the disk is full.
    pub(crate) fn fill(&self, store: &str) {
        self.change(store, |faults| faults.failing = Some(io::ErrorKind::StorageFull));
    }

    /// It says that it can be opened again, and cannot. What was not durable when it failed is there in the end if `kept`.
    pub(crate) fn deceive(&self, store: &str, kept: bool) {
        self.change(store, |faults| (faults.deceiving, faults.loses) = (true, !kept));
    }

    /// It works again. What was not durable when it failed is there if `kept`.
    pub(crate) fn mend(&self, store: &str, kept: bool) {
        self.change(store, |faults| *faults = Faults { loses: !kept, ..Faults::default() });
    }

    /// Overwrites a row with bytes that are no record.
    pub(crate) fn damage(&self, store: &str, tenant: TenantId, row: &RowId<'_>) {
        let store = self.disks.below.lock()[&self.path(store)].upgrade().unwrap();
        let (mut batch, mut key) = (Batch::new(), Vec::new());
        V1.key(tenant, row, &mut key);
        batch.put(row.family(), &key, b"no record");
        store.commit(&batch, Write::Synced).unwrap();
    }

    /// The handle that was opened first fails in everything from now on.
    pub(crate) fn die(&self, store: &str) {
        self.change(store, |faults| faults.dead = true);
    }

    /// Calls of this store hang until told otherwise.
    pub(crate) fn hang(&self, store: &str, on: bool) {
        self.change(store, |faults| faults.hanging = on);
    }

    /// How often the store was opened.
    pub(crate) fn openings(&self, store: &str) -> usize {
        self.disks.openings(&self.path(store))
    }

    /// How often any store was asked to sync with nothing to write.
    pub(crate) fn syncs(&self) -> u64 {
        self.disks.syncs.load(Ordering::SeqCst)
    }

    /// What power loss leaves of a store.
    pub(crate) fn power_cut(&self, store: &str) {
        self.disks.memory.power_cut(&self.path(store));
    }

    /// What a kill of the process leaves of all stores.
    pub(crate) fn kill(&self) {
        for path in self.disks.opened.lock().iter() {
            self.disks.memory.kill(path);
        }
    }

    /// Every disk works.
    pub(crate) fn mend_all(&self) {
        self.disks.faults.lock().clear();
        self.disks.changed.notify_all();
    }
}
