//! Files with faults, around others.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Act, DEAD, Effect, FAILED, Faults, Way};
use crate::files::{Files, Held};

pub(super) struct FaultFiles {
    inner: Arc<dyn Files>,
    faults: Faults,
}

impl FaultFiles {
    pub(super) fn new(inner: Arc<dyn Files>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// Makes a step that happens as a whole or not at all.
    fn run<T>(&self, act: Act, path: &Path, step: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match self.faults.begin(act, path) {
            Way::Well => step(),
            Way::Dead => Err(io::Error::other(DEAD)),
            Way::Fails(effect) => {
                if matches!(effect, Effect::Whole | Effect::Visible) && !act.is_read() {
                    // What failed by itself has failed as it was to.
                    drop(step());
                }
                Err(self.failed())
            }
        }
    }

    /// Makes a step that may leave a part of the bytes.
    fn put(
        &self,
        act: Act,
        path: &Path,
        bytes: &[u8],
        step: impl Fn(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (half, _) = bytes.split_at_checked(bytes.len() / 2).unwrap_or_default();
        match self.faults.begin(act, path) {
            Way::Well => step(bytes),
            Way::Dead => Err(io::Error::other(DEAD)),
            Way::Fails(effect) => {
                drop(match effect {
                    Effect::Nothing => Ok(()),
                    Effect::Half => step(half),
                    Effect::Holes => {
                        let mut holes = half.to_vec();
                        holes.resize(bytes.len(), 0);
                        step(&holes)
                    }
                    Effect::Visible | Effect::Whole => step(bytes),
                });
                Err(self.failed())
            }
        }
    }

    fn failed(&self) -> io::Error {
        self.faults.failed();
        io::Error::other(FAILED)
    }
}

impl Files for FaultFiles {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.run(Act::ReadFile, dir, || self.inner.list(dir))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.run(Act::ReadFile, file, || self.inner.read(file))
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Act::MakeDir, dir, || self.inner.make_dir(dir))
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put(Act::Write, file, bytes, |bytes| self.inner.write(file, bytes))
    }

    fn append(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put(Act::Append, file, bytes, |bytes| self.inner.append(file, bytes))
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        self.run(Act::Truncate, file, || self.inner.truncate(file, len))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Act::Rename, to, || self.inner.rename(from, to))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.run(Act::Remove, file, || self.inner.remove(file))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Act::SyncDir, dir, || self.inner.sync_dir(dir))
    }

    fn lock(&self, file: &Path) -> io::Result<Held> {
        self.run(Act::Lock, file, || self.inner.lock(file))
    }

    fn share(&self, file: &Path) -> io::Result<Held> {
        self.run(Act::Lock, file, || self.inner.share(file))
    }
}
