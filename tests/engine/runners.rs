//! A tenant between two runners, and what most tests of that do with it.

use std::sync::Arc;

use cutover::clock::ManualClock;
use cutover::fault::Faults;
use cutover::files::MemoryFiles;
use cutover::store::memory::MemoryDriver;
use cutover::{Access, Attached, Builder, Engine, ErrorKind, Tenant};

use crate::common::{KEEP, LONG, memory, tenant};

/// A machine without threads, all in memory.
pub(crate) struct Machine {
    pub(crate) disks: MemoryDriver,
    pub(crate) files: MemoryFiles,
    pub(crate) faults: Faults,
    pub(crate) clock: Arc<ManualClock>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        Self { disks: MemoryDriver::new(), files: MemoryFiles::new(), faults: Faults::new(), clock }
    }

    pub(crate) fn builder(&self) -> Builder {
        Engine::builder("/data")
            .driver(self.faults.driver(Arc::new(self.disks.clone())))
            .files(self.faults.files(Arc::new(self.files.clone())))
            .clock(self.clock.clone())
            .background(false)
    }

    pub(crate) fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    /// The process dies here, and power with it; what is left is opened by another one.
    pub(crate) fn crash(self, engine: Engine) -> (Self, Engine) {
        let again = self.die(engine);
        let engine = again.open();
        (again, engine)
    }

    /// The process dies here, and power with it.
    pub(crate) fn die(self, engine: Engine) -> Self {
        self.faults.die();
        self.disks.paths().iter().for_each(|path| self.disks.kill(path));
        drop(engine.close(LONG));
        drop(engine);
        self.files.power_cut();
        Self { faults: Faults::new(), ..self }
    }
}

pub(crate) fn seats(tenant: &Tenant) -> Vec<(String, Access)> {
    let seats = tenant.handover().progress().seats;
    seats.into_iter().map(|seat| (seat.runner, seat.access)).collect()
}

pub(crate) fn named(expected: &[(&str, Access)]) -> Vec<(String, Access)> {
    expected.iter().map(|(runner, access)| ((*runner).to_owned(), *access)).collect()
}

pub(crate) fn kind<T>(result: cutover::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

/// A tenant whose primary is "old", with "new" on standby.
pub(crate) fn two_runners(engine: &Engine) -> (Tenant, Attached, Attached) {
    let door = tenant(engine, memory("a"), KEEP);
    let old = engine.runner("old").unwrap().attach("acme").unwrap();
    let new = engine.runner("new").unwrap().attach_standby("acme").unwrap();
    (door, old, new)
}

pub(crate) fn steps_of_flips(tenant: &Tenant) -> Vec<u8> {
    tenant.handover().journal().unwrap().iter().map(|line| line.step).filter(|step| *step > 0).collect()
}

/// What the engine's threads would do, so many times.
pub(crate) fn steps(engine: &Engine, times: usize) {
    for _ in 0..times {
        engine.step().unwrap();
    }
}
