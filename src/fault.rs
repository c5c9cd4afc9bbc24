//! Faults on purpose: drivers and files that count what they do and fail where a script says so.
//!
//! [`Faults`] wraps any [`Driver`](crate::store::Driver) and any [`Files`](crate::files::Files). Every call that changes what is on the
//! disk is a step with a number, the same one in every run of the same program on one thread; so is every call that reads. A script
//! looks at each step and says what becomes of it: it goes well, it fails with or without having happened, it hangs, or
//! the process dies there. A process that has died reads and writes nothing any more: every later call fails.
//!
//! The way of a crash test: run once and count the steps; then run once for each step, crash there, drop the engine, take from the
//! disks what a crash takes ([`MemoryDriver::kill`](crate::store::memory::MemoryDriver::kill) and its like), open again, and look.

mod driver;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::files::Files;
use crate::store::{Driver, Write};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, thread};

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Opens a store.
    Open,
    /// Removes a store.
    Destroy,
    /// Commits a batch to a store.
    Commit(Write),
    /// Makes everything committed to a store survive power loss.
    Sync,
    /// Removes a range of rows from a store.
    RemoveRange,
    /// Reads a row, or some, from a store.
    ReadStore,
    /// Makes a directory.
    MakeDir,
    /// Writes a file.
    Write,
    /// Adds to the end of a file.
    Append,
    /// Cuts off the end of a file.
    Truncate,
    /// Gives a file another name.
    Rename,
    /// Removes a file.
    Remove,
    /// Makes the names in a directory survive power loss.
    SyncDir,
    /// Locks a file.
    Lock,
    /// Reads a file or the names in a directory.
    ReadFile,
}

impl Act {
    /// Whether it changes nothing on the disk.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::ReadStore | Self::ReadFile | Self::Lock)
    }

    /// Whether a crash in the middle can leave a part of it: only files are written piece by piece, stores are atomic.
    #[must_use]
    pub const fn can_tear(self) -> bool {
        matches!(self, Self::Write | Self::Append)
    }

    /// Whether it is done to a store.
    #[must_use]
    pub const fn is_of_store(self) -> bool {
        matches!(
            self,
            Self::Open | Self::Destroy | Self::Commit(_) | Self::Sync | Self::RemoveRange | Self::ReadStore
        )
    }
}

/// A step that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1 on; steps that read are counted apart from those that change something.
    pub number: u64,
    /// What it does.
    pub act: Act,
    /// The store, the file or the directory. The new name, where there are two.
    pub path: PathBuf,
}

/// How much of a step happens although it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The first half of the bytes, where it [can tear](Act::can_tear); else nothing.
    Half,
    /// All of the bytes, but zeros in the second half, where it [can tear](Act::can_tear); else nothing.
    Holes,
    /// A commit is visible, and not durable, as after a failed `fsync`; else all of it.
    Visible,
    /// All of it.
    Whole,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It goes well.
    None,
    /// It fails with an I/O error.
    Fail(Effect),
    /// The process dies there.
    Crash(Effect),
    /// It goes well, after this time.
    Delay(Duration),
    /// It goes well, after [`Faults::release`].
    Hang,
}

type Script = Box<dyn FnMut(&Step) -> Fault + Send>;

/// What happens to drivers and files that were wrapped by it. Clones are the same.
#[derive(Clone, Default)]
pub struct Faults(Arc<State>);

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    released: Condvar,
    /// Apart from the rest: a row is seen while a store is locked.
    rows: AtomicU64,
}

#[derive(Default)]
struct Inner {
    script: Option<Script>,
    at_crash: Option<Box<dyn FnMut() + Send>>,
    writes: u64,
    reads: u64,
    dead: bool,
    hanging: u64,
    releases: u64,
    trace: Option<Vec<Step>>,
}

/// How a step is to go.
enum Way {
    Well,
    Fails(Effect),
    /// No step is made any more.
    Dead,
}

impl Faults {
    /// Counts, and lets everything go well.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A driver whose stores are those of `driver`, with faults.
    #[must_use]
    pub fn driver(&self, driver: Arc<dyn Driver>) -> Arc<dyn Driver> {
        Arc::new(driver::FaultDriver::new(driver, self.clone()))
    }

    /// The same files, with faults.
    #[must_use]
    pub fn files(&self, files: Arc<dyn Files>) -> Arc<dyn Files> {
        Arc::new(files::FaultFiles::new(files, self.clone()))
    }

    /// From now on `script` says what becomes of each step. It is called under a lock: it must not call the engine.
    pub fn script(&self, script: impl FnMut(&Step) -> Fault + Send + 'static) {
        self.0.inner.lock().script = Some(Box::new(script));
    }

    /// Lets the step of this number, of those that change something, end in `fault`, and everything else go well.
    pub fn at(&self, number: u64, fault: Fault) {
        self.script(
            move |step| if step.number == number && !step.act.is_read() { fault } else { Fault::None },
        );
    }

    /// Lets the step of this number, of those that read, fail, and everything else go well.
    pub fn at_read(&self, number: u64) {
        let fails = move |step: &Step| step.number == number && step.act.is_read();
        self.script(move |step| if fails(step) { Fault::Fail(Effect::Nothing) } else { Fault::None });
    }

    /// Everything goes well again; a process that has died stays dead, and what hangs goes on hanging.
    pub fn clear(&self) {
        self.0.inner.lock().script = None;
    }

    /// Is called at the moment of a crash, after what of the step there is to be: to abort a real process, say.
    pub fn at_crash(&self, call: impl FnMut() + Send + 'static) {
        self.0.inner.lock().at_crash = Some(Box::new(call));
    }

    /// How many steps there were that change something.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.inner.lock().writes
    }

    /// How many steps there were that read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.0.inner.lock().reads
    }

    /// How many rows the stores have shown to those who went over them.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    /// Whether the process has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.inner.lock().dead
    }

    /// The process dies now. What others have begun may still end.
    pub fn die(&self) {
        self.0.inner.lock().dead = true;
        self.0.released.notify_all();
    }

    /// Keeps every step that changes something from now on, for [`trace`](Self::trace).
    pub fn record(&self) {
        self.0.inner.lock().trace = Some(Vec::new());
    }

    /// The steps since [`record`](Self::record).
    #[must_use]
    pub fn trace(&self) -> Vec<Step> {
        self.0.inner.lock().trace.clone().unwrap_or_default()
    }

    /// How many steps hang.
    #[must_use]
    pub fn hanging(&self) -> u64 {
        self.0.inner.lock().hanging
    }

    /// Lets go of what hangs now.
    pub fn release(&self) {
        self.0.inner.lock().releases += 1;
        self.0.released.notify_all();
    }

    /// A step begins: what becomes of it.
    fn begin(&self, act: Act, path: &Path) -> Way {
        let mut inner = self.0.inner.lock();
        if inner.dead {
            return Way::Dead;
        }
        let count = if act.is_read() { &mut inner.reads } else { &mut inner.writes };
        *count += 1;
        let step = Step { number: *count, act, path: path.to_path_buf() };
        let fault = inner.script.as_mut().map_or(Fault::None, |script| script(&step));
        if let Some(trace) = inner.trace.as_mut().filter(|_| !act.is_read()) {
            trace.push(step);
        }
        match fault {
            Fault::None => Way::Well,
            Fault::Fail(effect) => Way::Fails(effect),
            Fault::Crash(effect) => {
                inner.dead = true;
                self.0.released.notify_all();
                Way::Fails(effect)
            }
            Fault::Delay(time) => {
                drop(inner);
                thread::sleep(time);
                Way::Well
            }
            Fault::Hang => {
                inner.hanging += 1;
                let seen = inner.releases;
                while inner.releases == seen && !inner.dead {
                    self.0.released.wait(&mut inner);
                }
                inner.hanging -= 1;
                if inner.dead { Way::Dead } else { Way::Well }
            }
        }
    }

    fn saw_row(&self) {
        self.0.rows.fetch_add(1, Ordering::Relaxed);
    }

    /// A step has failed, after what of it there was to be.
    fn failed(&self) {
        let call = {
            let mut inner = self.0.inner.lock();
            if inner.dead { inner.at_crash.take() } else { None }
        };
        if let Some(mut call) = call {
            call();
        }
    }
}

/// What a step says that fails on purpose.
const FAILED: &str = "it fails here on purpose";
/// What every step says after a crash on purpose.
const DEAD: &str = "the process has died on purpose";

#[cfg(test)]
mod tests;
