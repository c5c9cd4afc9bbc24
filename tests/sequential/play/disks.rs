//! Stores in memory, of which one call can be made to fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cutover::formats::Family;
use cutover::store::memory::MemoryDriver;
use cutover::store::{Batch, Driver, Store, Visit, Write};
use cutover::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::ops::{Fault, Gone};

/// The driver. Clones share everything.
#[derive(Clone, Default)]
pub struct Disks {
    memory: MemoryDriver,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    used: Vec<PathBuf>,
    armed: Option<(Fault, u8)>,
    /// How many calls have failed.
    fired: u64,
    /// Opened stores of which a call has failed.
    broken: Vec<PathBuf>,
    /// Those of them that were opened again since somebody asked.
    mended: Vec<PathBuf>,
    /// All of them that somebody has tried to open again under this engine.
    reopened: Vec<PathBuf>,
}

impl Disks {
    /// The call after `skip` others of its kind fails.
    pub fn arm(&self, fault: Fault, skip: u8) {
        self.state.lock().armed = Some((fault, skip));
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        self.state.lock().armed = None;
    }

    /// How many calls have failed so far.
    pub fn fired(&self) -> u64 {
        self.state.lock().fired
    }

    /// Whether a call of the store at this path has failed since it was opened, or with `None` of any store.
    pub fn is_broken(&self, path: Option<&Path>) -> bool {
        let broken = &self.state.lock().broken;
        path.map_or(!broken.is_empty(), |path| broken.iter().any(|other| other == path))
    }

    /// Whether somebody has tried to open the store again under this engine. Until that succeeds it cannot even be read, and it is not in
    /// use before its tenant has looked at its other store too.
    pub fn was_reopened(&self, path: &Path) -> bool {
        self.state.lock().reopened.iter().any(|other| other == path)
    }

    /// The stores that had failed and were opened again since this was asked last.
    pub fn take_mended(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.state.lock().mended)
    }

    /// Lets nothing fail while `act` is under way.
    pub fn spared<T>(&self, act: impl FnOnce() -> T) -> T {
        let armed = self.state.lock().armed.take();
        let done = act();
        self.state.lock().armed = armed;
        done
    }

    /// How many stores hold something.
    pub fn count(&self) -> usize {
        self.state.lock().used.iter().filter(|path| self.memory.exists(path)).count()
    }

    /// The process that has them open is gone.
    pub fn crash(&self, gone: Gone) {
        let mut state = self.state.lock();
        state.reopened.clear();
        for path in &state.used {
            match gone {
                Gone::Closed => {}
                Gone::Killed => self.memory.kill(path),
                Gone::PowerCut => self.memory.power_cut(path),
            }
        }
    }

    fn fails(&self, is: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut state = self.state.lock();
        let (fault, skip) = state.armed.filter(|(fault, _)| is(*fault))?;
        if skip > 0 {
            state.armed = Some((fault, skip - 1));
            return None;
        }
        state.armed = None;
        state.fired += 1;
        Some(fault)
    }
}

fn failure() -> Error {
    Error::new(ErrorKind::Io, "the disk has failed")
}

impl Driver for Disks {
    fn name(&self) -> &str {
        "memory"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        if self.is_broken(Some(path)) {
            self.state.lock().reopened.push(path.to_owned());
        }
        if self.fails(|fault| fault == Fault::Open).is_some() {
            return Err(failure());
        }
        let inner = self.memory.open(path)?;
        let mut state = self.state.lock();
        if state.broken.iter().any(|other| other == path) {
            state.mended.push(path.to_owned());
        }
        state.broken.retain(|other| other != path);
        if !state.used.iter().any(|other| other == path) {
            state.used.push(path.to_owned());
        }
        let (path, disks) = (path.to_owned(), self.clone());
        Ok(Arc::new(Disk { path, disks, inner, broken: AtomicBool::new(false) }))
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        self.state.lock().broken.retain(|other| other != path);
        self.memory.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }
}

struct Disk {
    path: PathBuf,
    disks: Disks,
    inner: Arc<dyn Store>,
    broken: AtomicBool,
}

impl Disk {
    fn check(&self) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the disk takes no more writes"));
        }
        Ok(())
    }

    fn read(&self) -> Result<()> {
        self.disks.fails(|fault| fault == Fault::Read).map_or(Ok(()), |_| Err(self.fail()))
    }

    /// A call has failed. Whoever is called so may want to be opened again.
    fn fail(&self) -> Error {
        self.disks.state.lock().broken.push(self.path.clone());
        failure()
    }

    fn break_it(&self) -> Error {
        self.broken.store(true, Ordering::SeqCst);
        self.fail()
    }
}

impl Store for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read()?;
        self.inner.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.read()?;
        self.inner.scan(family, from, to, visit)
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        self.check()?;
        let fails = |fault| match fault {
            Fault::CommitNot | Fault::CommitSeen | Fault::CommitMade => write != Write::Relaxed,
            Fault::AnyCommit => true,
            _ => false,
        };
        match self.disks.fails(fails) {
            None => return self.inner.commit(batch, write),
            Some(Fault::CommitSeen) => self.inner.commit(batch, Write::Relaxed)?,
            Some(Fault::CommitMade) => self.inner.commit(batch, write)?,
            Some(_) => {}
        }
        Err(self.break_it())
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        self.check()?;
        if self.disks.fails(|fault| fault == Fault::Remove).is_some() {
            return Err(self.break_it());
        }
        self.inner.remove_range(family, from, to)
    }
}
