//! A directory on the memory store, which survives the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover::store::Driver;
use cutover::store::memory::MemoryDriver;
use cutover::{Builder, Durability, Engine, StoreSpec};
use cutover_oracle::{After, Line, Options, Script, Setup, Verdict, reopen};
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Home {
    dir: TempDir,
    pub(crate) driver: Arc<MemoryDriver>,
    durability: Durability,
}

impl Home {
    pub(crate) fn new(durability: Durability) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), driver: Arc::new(MemoryDriver::default()), durability }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn builder(&self) -> Builder {
        let driver: Arc<dyn Driver> = self.driver.clone();
        Engine::builder(self.data()).durability(self.durability).driver(driver).background(false)
    }

    pub(crate) fn setup(&self, seed: u64, session: u64) -> Setup {
        Setup { durability: self.durability, threads: 3, from: store("a"), ..Setup::new(seed, session) }
    }

    pub(crate) fn crash(&self, engine: Engine, after: After) {
        for path in ["a", "b"].map(|path| self.data().join(path)) {
            match after {
                After::Kill => self.driver.kill(&path),
                After::PowerCut => self.driver.power_cut(&path),
            }
        }
        // The stores are gone under it, so it cannot close in order.
        drop(engine.close(LONG));
    }

    pub(crate) fn check(&self, lines: &[Line], after: After) -> (Verdict, Engine) {
        let options = Options { cut: false, ..Options::after(after) };
        let drivers: [Arc<dyn Driver>; 1] = [self.driver.clone()];
        reopen(lines, &self.data(), self.builder(), &drivers, Path::new("unused"), &options).unwrap()
    }
}

pub(crate) fn store(path: &str) -> StoreSpec {
    StoreSpec::driver("memory").path(path)
}

/// So many operations, and the engine's own work between them.
pub(crate) fn work(script: &mut Script, engine: &Engine, operations: usize) {
    for at in 0..operations {
        script.step().unwrap();
        if at % 5 == 0 {
            engine.step().unwrap();
        }
    }
}

/// The seeds of a test: the first few, or as many as `CUTOVER_SEEDS` says.
pub(crate) fn seeds(few: u64) -> std::ops::Range<u64> {
    let asked =
        std::env::var("CUTOVER_SEEDS").ok().map(|number| number.parse().expect("CUTOVER_SEEDS is a number"));
    0..asked.unwrap_or(few)
}
