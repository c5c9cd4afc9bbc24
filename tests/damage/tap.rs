//! The memory store with a way in beside the engine, and a data directory in memory if the machine has one.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::formats::{Family, Layout as _, RowId, TenantId, V1};
use cutover::store::memory::MemoryDriver;
use cutover::store::{Batch, Driver, Store, Write};
use cutover::{
    Builder, Engine, Heartbeats, InstanceId, Launch, Launched, Retention, StoreSpec, Tenant, TenantOptions,
    WorkerOptions,
};
use parking_lot::Mutex;
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Where every clock of these tests starts.
pub(crate) const START: u64 = 1_800_000_000_000;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// Everything goes as soon as it has ended.
pub(crate) const DROP: Retention = Retention { instance_ms: 0, key_ms: 0, request_ms: 0 };
/// Nothing goes away by itself.
pub(crate) const KEEP: Retention =
    Retention { instance_ms: u64::MAX, key_ms: u64::MAX, request_ms: u64::MAX };

/// The memory driver; the stores that it has open can be reached beside the engine.
#[derive(Default)]
pub(crate) struct Tap {
    memory: MemoryDriver,
    open: Mutex<HashMap<PathBuf, Weak<dyn Store>>>,
}

impl Driver for Tap {
    fn name(&self) -> &str {
        self.memory.name()
    }

    fn open(&self, path: &Path) -> cutover::Result<Arc<dyn Store>> {
        let store = self.memory.open(path)?;
        self.open.lock().insert(path.to_owned(), Arc::downgrade(&store));
        Ok(store)
    }

    fn destroy(&self, path: &Path) -> cutover::Result<()> {
        self.memory.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }
}

/// A data directory, its stores and its clock.
/// No lease runs out in a test that does not say so.
pub(crate) const PATIENT: Heartbeats = Heartbeats { every: HOUR, intervals: 1 };

/// A worker with any number of steps at a time.
pub(crate) fn many(name: &str) -> WorkerOptions {
    WorkerOptions::new(name).limit(usize::MAX)
}

pub(crate) struct Home {
    dir: TempDir,
    pub(crate) tap: Arc<Tap>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Thousands of openings, each with its syncs: in memory they cost nothing.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Self { dir: dir.unwrap(), tap: Arc::default(), clock: Arc::new(ManualClock::at(START)) }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn builder(&self) -> Builder {
        let builder = Engine::builder(self.data()).driver(self.tap.clone()).clock(self.clock.clone());
        builder.background(false).heartbeats(PATIENT)
    }

    pub(crate) fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    fn store(&self, path: &str) -> Arc<dyn Store> {
        self.tap.open.lock()[&self.data().join(path)].upgrade().expect("the engine has it open")
    }

    /// The value of a row of the store at `path`, as it stands there.
    pub(crate) fn value(&self, path: &str, tenant: TenantId, row: &RowId<'_>) -> Option<Vec<u8>> {
        self.store(path).get(row.family(), &key(tenant, row)).unwrap()
    }

    /// Puts a value where the engine finds it.
    pub(crate) fn put(&self, path: &str, tenant: TenantId, row: &RowId<'_>, value: &[u8]) {
        let mut batch = Batch::new();
        batch.put(row.family(), &key(tenant, row), value);
        self.store(path).commit(&batch, Write::Synced).unwrap();
    }

    /// Damages the value of a row, and gives back what it was.
    pub(crate) fn damage(&self, path: &str, tenant: TenantId, row: &RowId<'_>) -> Vec<u8> {
        let whole = self.value(path, tenant, row).unwrap_or_else(|| panic!("there is no {row:?}"));
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 0x40;
        self.put(path, tenant, row, &damaged);
        whole
    }

    /// Every row of a family in the store at `path`.
    pub(crate) fn rows(&self, path: &str, family: Family) -> Vec<(RowId<'static>, Vec<u8>)> {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((V1.read_key(family, key).unwrap().1, value.to_vec()));
            ControlFlow::Continue(())
        };
        self.store(path).scan(family, b"", b"", &mut visit).unwrap();
        rows
    }

    /// The files of the directory, by their names in it.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for dir in ["", "meta"] {
            for entry in fs::read_dir(self.data().join(dir)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let name = path.strip_prefix(self.data()).unwrap().to_string_lossy().into_owned();
                    files.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    /// Puts these files there and takes others away.
    pub(crate) fn restore(&self, files: &BTreeMap<String, Vec<u8>>) {
        let now = self.files();
        for name in now.keys().filter(|name| !files.contains_key(*name)) {
            fs::remove_file(self.data().join(name)).unwrap();
        }
        for (name, bytes) in files.iter().filter(|(name, bytes)| now.get(*name) != Some(*bytes)) {
            fs::write(self.data().join(name), bytes).unwrap();
        }
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.data().join(name), bytes).unwrap();
    }
}

pub(crate) fn key(tenant: TenantId, row: &RowId<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    V1.key(tenant, row, &mut key);
    key
}

pub(crate) fn memory(path: &str) -> StoreSpec {
    StoreSpec::driver("memory").path(path)
}

/// A tenant with one definition, `work` version 1.
pub(crate) fn tenant(engine: &Engine, store: &str, retention: Retention) -> Tenant {
    let options = TenantOptions::new(memory(store)).retention(retention);
    let tenant = engine.create_tenant("acme", options).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    tenant
}

pub(crate) fn keyed(key: &str) -> Launch {
    Launch::new("work", 1).key("scope", key)
}

pub(crate) fn started(answer: Launched) -> InstanceId {
    match answer {
        Launched::Started(id) => id,
        other => panic!("not started: {other:?}"),
    }
}

/// Steps until there is nothing left to do right now.
pub(crate) fn work_off(engine: &Engine) {
    let until = std::time::Instant::now() + LONG;
    let mut quiet = 0;
    // The driver comes back after a moment of its own, so one quiet step says nothing.
    while quiet < 20 {
        quiet = if engine.step().unwrap() { 0 } else { quiet + 1 };
        assert!(std::time::Instant::now() < until, "it never comes to rest");
    }
}
