//! The runs: clients, somebody who lets the engine work, somebody who moves the tenant, and somebody who closes or kills the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutover::clock::ManualClock;
use cutover::store::memory::MemoryDriver;
use cutover::store::{Batch, Driver, Store, Visit, Write};
use cutover::{
    Durability, Engine, Event, Hold, MigrationOptions, Observer, Phase, Retention, StoreSpec, Tenant,
    TenantOptions,
};
use cutover_formats::Family;
use parking_lot::{Mutex, RwLock};

use crate::history::{Checked, History, Moments};
use crate::load::{Client, KEYS, LONG_RETENTION, Mix, retention_of};

const LONG: Duration = Duration::from_secs(60);
const CLIENTS: u64 = 8;
/// Wall time at the beginning.
const BEGIN: u64 = 1_700_000_000_000;

const MIX: Mix = Mix { keys: KEYS, ends: 25, queries: 25, replacing: 20, requests: 12, request_spread: 256 };

/// How long each run takes, in seconds.
fn seconds(quick: u64) -> u64 {
    std::env::var("CUTOVER_LINEAR_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(quick)
}

fn seed() -> u64 {
    std::env::var("CUTOVER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

/// What a run is like.
struct Setup {
    durability: Durability,
    /// Drivers of the stores that the tenant goes to in turn.
    drivers: Vec<&'static str>,
    /// Reads of keys in a store that is not the newest find nothing: as if launches did not look into the other store.
    blind: bool,
    seconds: u64,
}

/// The memory driver, which remembers what it was asked to open.
#[derive(Default)]
struct Disks {
    memory: MemoryDriver,
    used: Mutex<Vec<PathBuf>>,
    blind: bool,
    openings: Arc<AtomicU64>,
}

impl Driver for Disks {
    fn name(&self) -> &str {
        self.memory.name()
    }

    fn open(&self, path: &Path) -> cutover::Result<Arc<dyn Store>> {
        let store = self.memory.open(path)?;
        self.used.lock().push(path.to_owned());
        if !self.blind {
            return Ok(store);
        }
        let opening = self.openings.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Arc::new(Blind { store, opening, openings: Arc::clone(&self.openings) }))
    }

    fn destroy(&self, path: &Path) -> cutover::Result<()> {
        self.memory.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }
}

/// See [`Setup::blind`].
struct Blind {
    store: Arc<dyn Store>,
    opening: u64,
    openings: Arc<AtomicU64>,
}

impl Store for Blind {
    fn get(&self, family: Family, key: &[u8]) -> cutover::Result<Option<Vec<u8>>> {
        if family == Family::Keys && self.opening < self.openings.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.store.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> cutover::Result<()> {
        self.store.scan(family, from, to, visit)
    }

    fn commit(&self, batch: &Batch, write: Write) -> cutover::Result<()> {
        self.store.commit(batch, write)
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> cutover::Result<()> {
        self.store.remove_range(family, from, to)
    }
}

/// Counts the phases that were entered, and the instances that were moved.
#[derive(Default)]
struct Seen {
    phases: [AtomicU64; 7],
    moved: AtomicU64,
}

impl Observer for Seen {
    fn on_event(&self, event: &Event) {
        match event {
            Event::Phase { to, .. } => self.phases[*to as usize].fetch_add(1, Ordering::Relaxed),
            Event::Moved { .. } => self.moved.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

impl Seen {
    fn phases(&self) -> [u64; 7] {
        self.phases.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// The engine that is open now; the number says how many there were before it.
#[derive(Clone)]
struct Current {
    number: u64,
    /// When it was open. Whatever had begun before it has ended, in one way or the other.
    opened: u64,
    engine: Engine,
    tenant: Tenant,
}

struct World {
    setup: Setup,
    dir: tempfile::TempDir,
    disks: Arc<Disks>,
    clock: Arc<ManualClock>,
    seen: Arc<Seen>,
    moments: Moments,
    current: RwLock<Option<Current>>,
    stop: AtomicBool,
}

/// Every move is made durable twice: in memory that takes no time, so that there are many.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl World {
    fn new(setup: Setup) -> Self {
        let world = Self {
            dir: directory(),
            disks: Arc::new(Disks { blind: setup.blind, ..Disks::default() }),
            clock: Arc::new(ManualClock::at(BEGIN)),
            seen: Arc::default(),
            moments: Moments::default(),
            current: RwLock::new(None),
            stop: AtomicBool::new(false),
            setup,
        };
        let engine = world.open();
        let keep = LONG_RETENTION.as_millis() as u64;
        let options = TenantOptions::new(world.store(0))
            .retention(Retention { instance_ms: 0, key_ms: 0, request_ms: 0 })
            .scope_retention("keep", Retention { instance_ms: keep, key_ms: keep, request_ms: keep });
        let tenant = engine.create_tenant("acme", options).unwrap();
        tenant.define("work", 1, "text/plain", b"do it").unwrap();
        *world.current.write() = Some(Current { number: 0, opened: world.moments.next(), engine, tenant });
        world
    }

    fn open(&self) -> Engine {
        Engine::builder(self.dir.path().join("data"))
            .driver(self.disks.clone())
            .clock(self.clock.clone())
            .observer(self.seen.clone())
            .durability(self.setup.durability)
            .background(false)
            .open()
            .unwrap()
    }

    fn store(&self, number: usize) -> StoreSpec {
        let driver = self.setup.drivers[number % self.setup.drivers.len()];
        StoreSpec::driver(driver).path(format!("{driver}-{number}"))
    }

    fn now(&self) -> Current {
        self.current.read().clone().unwrap()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Closes the engine, or lets it be killed or the power fail, while everybody goes on; then opens it again.
    fn restart(&self, rng: &mut fastrand::Rng) {
        let Current { number, engine, tenant, .. } = self.now();
        let memory_only = self.setup.drivers == ["memory"];
        let power_cut = self.setup.durability == Durability::Synced && rng.bool();
        if memory_only && rng.u32(..3) != 0 {
            for path in self.disks.used.lock().iter() {
                match power_cut {
                    true => self.disks.memory.power_cut(path),
                    false => self.disks.memory.kill(path),
                }
            }
            // Its stores are gone, so it cannot close in order.
            drop(engine.close(LONG));
        } else {
            engine.close(LONG).unwrap();
        }
        drop((engine, tenant));
        let engine = self.open();
        let tenant = engine.tenant("acme").unwrap();
        *self.current.write() =
            Some(Current { number: number + 1, opened: self.moments.next(), engine, tenant });
    }

    fn client(&self, seed: u64) -> Vec<(usize, crate::checker::Call<crate::spec::Op>)> {
        let mut client = Client::new(seed, &self.clock, &self.moments, MIX);
        let mut calls = Vec::new();
        while !self.stopped() {
            let current = self.now();
            let (key, mut call) = client.call(&current.tenant);
            if call.op.is_unknown() {
                let asked_late = self.moments.next();
                while self.now().number == current.number && !self.stopped() {
                    std::thread::sleep(Duration::from_micros(200));
                }
                let next = self.now();
                if next.number != current.number {
                    // The old engine may also have been asked when it was closed already.
                    call.returned = if call.called < next.opened { next.opened } else { asked_late };
                }
            }
            calls.push((key, call));
        }
        calls
    }

    /// Lets every phase be entered, makes a move in some of them, and lets time pass now and then.
    fn mover(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut stores = 0;
        let mut acted = (u64::MAX, 0);
        let mut looks = 0;
        while !self.stopped() {
            let Current { number, tenant, .. } = self.now();
            let status = tenant.status();
            looks += 1;
            // Once in each phase; again after a restart, or if it does not go on.
            if acted != (number, status.epoch) || looks > 100 {
                (acted, looks) = ((number, status.epoch), 0);
                std::thread::sleep(Duration::from_micros(rng.u64(..2_000)));
                self.act(&tenant, status.phase, &mut stores, &mut rng);
            }
            if rng.u32(..30) == 0 {
                // What has ended so far is forgotten, and a store may have drained.
                self.clock.advance(LONG_RETENTION * 2);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What is refused is not legal any more, or the engine is closed: neither matters here.
    fn act(&self, tenant: &Tenant, phase: Phase, stores: &mut usize, rng: &mut fastrand::Rng) {
        let migration = tenant.migration();
        match (phase, rng.u32(..4)) {
            (Phase::Stable, _) => {
                let options =
                    MigrationOptions::default().hold_switch(rng.u32(..4) == 0).hold_complete(rng.bool());
                if migration.start(self.store(*stores + 1), options).is_ok() {
                    *stores += 1;
                }
            }
            (Phase::PreMigration, 0) => drop(migration.cancel()),
            (Phase::PreMigration, 1) => drop(migration.switch()),
            (Phase::PreMigration, _) => drop(migration.release(Hold::Switch)),
            (Phase::RollingBack, _) => {}
            (Phase::PostMigration | Phase::PostRollback, _) if rng.u32(..3) == 0 => {
                drop(migration.move_stragglers(Duration::ZERO));
            }
            (_, 0) => drop(migration.reverse()),
            (Phase::PostMigration, 1) => drop(migration.reverse()),
            (_, 2) => drop(migration.complete()),
            _ => drop(migration.release(Hold::Complete)),
        }
    }

    fn worker(&self) {
        while !self.stopped() {
            // Closed now and then.
            if !self.now().engine.step().unwrap_or(false) {
                std::thread::yield_now();
            }
        }
    }
}

/// Stops everybody, also when somebody has panicked.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs, and checks what was answered.
fn run(name: &str, setup: Setup) -> Result<Checked, String> {
    let seed = seed();
    let world = World::new(setup);
    let mut rng = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut restarts = 0;
    let calls = std::thread::scope(|scope| {
        let world = &world;
        let guarded = |body: fn(&World, u64), seed: u64| {
            move || {
                let _stop = StopOnDrop(&world.stop);
                body(world, seed);
            }
        };
        scope.spawn(guarded(|world, _| world.worker(), 0));
        scope.spawn(guarded(World::mover, rng.u64(..)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let seed = rng.u64(..);
                scope.spawn(move || {
                    let _stop = StopOnDrop(&world.stop);
                    world.client(seed)
                })
            })
            .collect();
        let _stop = StopOnDrop(&world.stop);
        let saw_all = || world.seen.phases().iter().all(|count| *count > 0) && world.seen.moved() > 0;
        while !world.stopped() {
            std::thread::sleep(Duration::from_millis(rng.u64(20..200)));
            let enough = world.setup.blind || (saw_all() && restarts >= 3);
            if begun.elapsed() >= Duration::from_secs(world.setup.seconds) && enough {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(world.setup.seconds) + LONG,
                "{:?}, {} moved",
                world.seen.phases(),
                world.seen.moved()
            );
            world.restart(&mut rng);
            restarts += 1;
        }
        world.stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let mut history = History::default();
    calls.into_iter().flatten().for_each(|(key, call)| history.add(key, call));
    let mut last = Client::new(seed, &world.clock, &world.moments, MIX);
    for key in 0..KEYS {
        let (key, call) = last.ask(&world.now().tenant, key);
        history.add(key, call);
    }
    let checking = Instant::now();
    let checked = history.check(retention_of).map_err(|said| format!("seed {seed}: {said}"));
    let phases: Vec<String> =
        Phase::ALL.iter().zip(world.seen.phases()).map(|(phase, count)| format!("{phase} {count}")).collect();
    eprintln!(
        "{name}: seed {seed}, {restarts} restarts, phases entered: {}; {} instances moved; {checked:?} in {:.1?}",
        phases.join(", "),
        world.seen.moved(),
        checking.elapsed()
    );
    checked
}

fn memory(durability: Durability) -> Setup {
    Setup { durability, drivers: vec!["memory"], blind: false, seconds: seconds(3) }
}

#[test]
fn two_stores_look_like_one_through_moves_kills_and_power_cuts() {
    let checked = run("synced", memory(Durability::Synced)).unwrap_or_else(|said| panic!("{said}"));
    assert!(checked.calls > 1_000 && checked.unknown > 0, "{checked:?}");
}

#[test]
fn two_stores_look_like_one_through_moves_and_kills() {
    let checked = run("buffered", memory(Durability::Buffered)).unwrap_or_else(|said| panic!("{said}"));
    assert!(checked.calls > 1_000 && checked.unknown > 0, "{checked:?}");
}

#[cfg(all(feature = "rocksdb", feature = "sled"))]
#[test]
fn rocksdb_and_sled_look_like_one_through_moves_and_closings() {
    let setup = Setup { drivers: vec!["rocksdb", "sled"], ..memory(Durability::Buffered) };
    let checked = run("rocksdb and sled", setup).unwrap_or_else(|said| panic!("{said}"));
    assert!(checked.calls > 500, "{checked:?}");
}

/// The whole of it can fail.
#[test]
fn an_engine_that_does_not_look_into_the_other_store_is_refused() {
    let setup = Setup { blind: true, seconds: 2, ..memory(Durability::Synced) };
    let said = run("blind", setup).expect_err("nothing was refused");
    assert!(said.contains("is not linearizable"), "{said}");
}
