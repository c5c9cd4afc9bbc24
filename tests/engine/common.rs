//! An engine in a temporary directory, and what most tests do with it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::fault::{Act, Effect, Fault, Faults};
use cutover::store::memory::MemoryDriver;
use cutover::store::{Driver as _, Store};
use cutover::{
    Builder, Durability, Engine, Heartbeats, InstanceId, Launch, Launched, NewStep, Phase, Retention,
    StoreSpec, Tenant, TenantOptions, WorkerOptions,
};
use tempfile::TempDir;

/// Longer than anything in these tests takes, unless it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Nothing goes away by itself.
pub(crate) const KEEP: Retention =
    Retention { instance_ms: 3_600_000, key_ms: 3_600_000, request_ms: 3_600_000 };
/// Everything goes as soon as it has ended.
pub(crate) const DROP: Retention = Retention { instance_ms: 0, key_ms: 0, request_ms: 0 };

/// No lease runs out in a test that does not say so.
pub(crate) const PATIENT: Heartbeats = Heartbeats { every: LONG, intervals: 1 };

/// A worker with any number of steps at a time.
pub(crate) fn many(name: &str) -> WorkerOptions {
    WorkerOptions::new(name).limit(usize::MAX)
}

pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) durability: Durability,
    disks: MemoryDriver,
    faults: Faults,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            durability: Durability::Synced,
            disks: MemoryDriver::new(),
            faults: Faults::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn builder(&self) -> Builder {
        let driver = self.faults.driver(Arc::new(self.disks.clone()));
        let builder = Engine::builder(self.path().join("data")).durability(self.durability);
        builder.driver(driver).heartbeats(PATIENT)
    }

    pub(crate) fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    /// What a kill of the process leaves: stores without what was only relaxed, and a directory that was not closed.
    pub(crate) fn kill(&self, engine: Engine) {
        self.disks.paths().iter().for_each(|path| self.disks.kill(path));
        // The stores are gone under it, so it cannot close in order; it does end its threads.
        drop(engine.close(LONG));
    }

    /// What a power cut takes from the memory store at this path, after a kill.
    pub(crate) fn power_cut(&self, path: &str) {
        self.disks.power_cut(&self.path().join("data").join(path));
    }

    /// The memory store at this path, while no engine has it open.
    pub(crate) fn store(&self, path: &str) -> Arc<dyn Store> {
        self.disks.open(&self.path().join("data").join(path)).unwrap()
    }

    /// The memory store at this path does not open any more.
    pub(crate) fn break_store(&self, path: &str) {
        let broken = self.path().join("data").join(path);
        self.faults.script(move |step| match step.act {
            Act::Open if step.path == broken => Fault::Fail(Effect::Nothing),
            _ => Fault::None,
        });
    }
}

/// A store of the memory driver.
pub(crate) fn memory(path: &str) -> StoreSpec {
    StoreSpec::driver("memory").path(path)
}

/// A tenant with one definition, `work` version 1.
pub(crate) fn tenant(engine: &Engine, store: StoreSpec, retention: Retention) -> Tenant {
    let tenant = engine.create_tenant("acme", TenantOptions::new(store).retention(retention)).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    tenant
}

pub(crate) fn work() -> Launch {
    Launch::new("work", 1)
}

pub(crate) fn keyed(key: &str) -> Launch {
    work().key("scope", key)
}

pub(crate) fn with_step(key: &str) -> Launch {
    keyed(key).step(NewStep::new("only"))
}

pub(crate) fn started(answer: Launched) -> InstanceId {
    match answer {
        Launched::Started(id) => id,
        other => panic!("not started: {other:?}"),
    }
}

pub(crate) fn reach(tenant: &Tenant, phase: Phase) {
    let there = tenant.migration().wait_for(phase, LONG).unwrap();
    assert!(there, "still in {}: {:?}", tenant.status().phase, tenant.migration().progress());
}

pub(crate) fn settle(tenant: &Tenant) {
    let settled = tenant.migration().wait_settled(LONG).unwrap();
    assert!(settled, "{:?}", tenant.migration().progress());
}

/// A call hangs where a script said so. It is let go of with this, also when a test fails: else the thread that made it would be waited
/// for, for ever.
pub(crate) struct Hanging<'f>(&'f Faults);

pub(crate) fn wait_for_hang(faults: &Faults) -> Hanging<'_> {
    let until = Instant::now() + LONG;
    while faults.hanging() == 0 {
        assert!(Instant::now() < until, "nothing hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
    Hanging(faults)
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
