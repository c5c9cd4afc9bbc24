//! A driver with faults, around another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover_formats::Family;

use super::{Act, DEAD, Effect, FAILED, Faults, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::store::group::Poison;
use crate::store::{Batch, Driver, Stats, Store, Visit, Write};

pub(super) struct FaultDriver {
    inner: Arc<dyn Driver>,
    faults: Faults,
}

impl FaultDriver {
    pub(super) fn new(inner: Arc<dyn Driver>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

/// A store with faults. After the first one it refuses every write, as [`Store`] promises, although the one beneath would take it.
struct FaultStore {
    path: PathBuf,
    inner: Arc<dyn Store>,
    faults: Faults,
    poison: Poison,
}

fn failed() -> Error {
    Error::new(ErrorKind::Io, FAILED)
}

fn dead() -> Error {
    Error::new(ErrorKind::Unavailable, DEAD)
}

impl Driver for FaultDriver {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        let open = || self.inner.open(path);
        let inner = run(&self.faults, Act::Open, path, open, |effect| match effect {
            Effect::Whole | Effect::Visible => open().map(drop),
            _ => Ok(()),
        })?;
        let (path, faults) = (path.to_path_buf(), self.faults.clone());
        Ok(Arc::new(FaultStore { path, inner, faults, poison: Poison::default() }))
    }

    fn open_read_only(&self, path: &Path) -> Result<Option<Arc<dyn Store>>> {
        self.inner.open_read_only(path)
    }

    fn may_reopen(&self, path: &Path) -> Result<()> {
        self.inner.may_reopen(path)
    }

    fn is_volatile(&self) -> bool {
        self.inner.is_volatile()
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        let destroy = || self.inner.destroy(path);
        run(&self.faults, Act::Destroy, path, destroy, |effect| match effect {
            Effect::Whole | Effect::Visible => destroy(),
            _ => Ok(()),
        })
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }
}

/// Makes a step; if it is to fail, `partly` does what of it happens all the same.
fn run<T>(
    faults: &Faults,
    act: Act,
    path: &Path,
    step: impl FnOnce() -> Result<T>,
    partly: impl FnOnce(Effect) -> Result<()>,
) -> Result<T> {
    match faults.begin(act, path) {
        Way::Well => step(),
        Way::Dead => Err(dead()),
        Way::Fails(effect) => {
            // What failed by itself has failed as it was to.
            drop(partly(effect));
            faults.failed();
            Err(failed())
        }
    }
}

impl FaultStore {
    fn write(
        &self,
        act: Act,
        step: impl FnOnce() -> Result<()>,
        partly: impl FnOnce(Effect) -> Result<()>,
    ) -> Result<()> {
        self.poison.check()?;
        run(&self.faults, act, &self.path, step, partly).inspect_err(|err| self.poison.set(err))
    }

    fn read<T>(&self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        run(&self.faults, Act::ReadStore, &self.path, step, |_| Ok(()))
    }
}

impl Store for FaultStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read(|| self.inner.get(family, key))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.read(|| {
            self.inner.scan(family, from, to, &mut |key, value| {
                self.faults.saw_row();
                visit(key, value)
            })
        })
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        let act = if batch.is_empty() { Act::Sync } else { Act::Commit(write) };
        let commit = |write| self.inner.commit(batch, write);
        self.write(
            act,
            || commit(write),
            |effect| match effect {
                Effect::Whole => commit(write),
                Effect::Visible => commit(Write::Relaxed),
                _ => Ok(()),
            },
        )
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        let remove = || self.inner.remove_range(family, from, to);
        self.write(Act::RemoveRange, remove, |effect| match effect {
            Effect::Whole | Effect::Visible => remove(),
            _ => Ok(()),
        })
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}
