//! A machine in memory: disks, files, a clock, and what a crash takes away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover::clock::{Clock as _, ManualClock};
use cutover::fault::{Act, Effect, Fault, Faults};
use cutover::files::{Files, MemoryFiles, SystemFiles};
use cutover::store::Driver;
use cutover::store::memory::MemoryDriver;
use cutover::{Durability, Engine, StoreSpec};
use parking_lot::Mutex;

/// Nothing waits for anything here; this is for calls that ask for a time.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Directories that do not exist, two deep: whoever makes them has to make both last.
pub(crate) const DATA: &str = "/disk/home/data";

/// How a process ends that does not end by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The operating system keeps what was handed to it, and of the stores nothing more than they promised.
    Kill,
    /// The same, and of the stores everything.
    Abort,
    /// Power loss: names of files that were not synced are gone, and of each store's commits since its last sync this many are left, by the
    /// order of its paths; nothing where none is said.
    PowerCut(Vec<usize>),
}

/// A directory, and the drivers of the stores in it: of the first path of a script, and of all others.
#[derive(Clone)]
pub(crate) struct Real {
    pub(crate) data: PathBuf,
    pub(crate) drivers: [Arc<dyn Driver>; 2],
}

pub(crate) struct Machine {
    pub(crate) disks: MemoryDriver,
    pub(crate) files: MemoryFiles,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) faults: Faults,
    pub(crate) durability: Durability,
    /// Disks and files that are not in memory, if they are not.
    pub(crate) real: Option<Real>,
    /// The next commit to the store at this path fails, once.
    failing: Arc<Mutex<Option<PathBuf>>>,
    /// Where the step was that was to end in a fault, once it was made.
    met: Arc<Mutex<Option<PathBuf>>>,
}

impl Machine {
    pub(crate) fn new(durability: Durability) -> Self {
        let (disks, files) = (MemoryDriver::new(), MemoryFiles::new());
        Self::of(disks, files, 1_700_000_000_000, durability)
    }

    fn of(disks: MemoryDriver, files: MemoryFiles, wall_ms: u64, durability: Durability) -> Self {
        let clock = Arc::new(ManualClock::at(wall_ms));
        let (failing, met) = (Arc::default(), Arc::default());
        let (faults, real) = (Faults::new(), None);
        let machine = Self { disks, files, clock, faults, durability, real, failing, met };
        machine.arm(0, false, Fault::None);
        machine
    }

    /// The same machine, beside this one, with nothing running on it.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::of(self.disks.copy(), self.files.copy(), self.clock.wall_ms(), self.durability);
        Self { real: self.real.clone(), ..copy }
    }

    /// The same moment, with these disks instead.
    #[cfg(all(feature = "rocksdb", feature = "sled"))]
    pub(crate) fn on(&self, real: Real) -> Self {
        Self { real: Some(real), ..self.copy() }
    }

    /// The store at this path of a script.
    pub(crate) fn store(&self, path: &'static str) -> StoreSpec {
        let driver = match &self.real {
            Some(real) => real.drivers[usize::from(path != "a")].name().to_owned(),
            None => "memory".to_owned(),
        };
        StoreSpec::driver(driver).path(path)
    }

    /// How many commits of each store would not survive power loss.
    pub(crate) fn tails(&self) -> Vec<usize> {
        self.disks.paths().iter().map(|path| self.disks.unsynced(path)).collect()
    }

    /// Another one, as a crash leaves this one.
    pub(crate) fn after(&self, crash: &Crash) -> Self {
        let after = self.copy();
        for (at, path) in after.disks.paths().iter().enumerate() {
            match crash {
                Crash::Kill => after.disks.kill(path),
                Crash::Abort => {}
                Crash::PowerCut(left) => {
                    after.disks.power_cut_leaving(path, left.get(at).copied().unwrap_or(0));
                }
            }
        }
        if matches!(crash, Crash::PowerCut(_)) {
            after.files.power_cut();
        }
        after
    }

    pub(crate) fn open(&self) -> cutover::Result<Engine> {
        let memory = || vec![Arc::new(self.disks.clone()) as Arc<dyn Driver>];
        let drivers = self.real.as_ref().map_or_else(memory, |real| real.drivers.to_vec());
        let data = self.real.as_ref().map_or(Path::new(DATA), |real| &real.data);
        let files: Arc<dyn Files> =
            if self.real.is_some() { Arc::new(SystemFiles) } else { Arc::new(self.files.clone()) };
        let builder = Engine::builder(data).durability(self.durability).files(self.faults.files(files));
        let builder =
            drivers.into_iter().fold(builder, |builder, one| builder.driver(self.faults.driver(one)));
        builder.clock(self.clock.clone()).background(false).open()
    }

    /// The step of this number is to end in `fault`: of those that change something, or of those that read.
    pub(crate) fn arm(&self, number: u64, reads: bool, fault: Fault) {
        let (failing, met) = (Arc::clone(&self.failing), Arc::clone(&self.met));
        self.faults.script(move |step| {
            if step.number == number && step.act.is_read() == reads {
                *met.lock() = Some(step.path.clone());
                return fault;
            }
            let mut failing = failing.lock();
            if matches!(step.act, Act::Commit(_)) && failing.as_deref() == Some(&*step.path) {
                *failing = None;
                return Fault::Fail(Effect::Nothing);
            }
            Fault::None
        });
    }

    /// Where the step was that was to end in a fault, once it was made.
    pub(crate) fn met(&self) -> Option<PathBuf> {
        self.met.lock().clone()
    }

    /// The next commit to this store fails; until it is opened again it takes no others.
    pub(crate) fn fail_next(&self, store: Option<PathBuf>) {
        *self.failing.lock() = store;
    }
}
