//! One schedule's engine: brought into some phase, worked by a driver and an operator beside the scenario's own threads, and held
//! against the invariants at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::migration::phase;
use cutover::{
    Ended, Engine, ErrorKind, Event, Heartbeats, Hold, InstanceId, MigrationOptions, Move, Observer, Phase,
    Retention, StoreSpec, Tenant, TenantOptions,
};
use cutover_formats::record::NoteRecord;
use cutover_formats::{NoteId, Record, RowId};
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread::JoinHandle;

use crate::load::LONG_RETENTION;
use crate::pairs::Pairs;
use crate::stores::Disks;

const LONG: Duration = Duration::from_secs(60);
/// No lease runs out: time only passes in steps of hours.
const PATIENT: Heartbeats = Heartbeats { every: Duration::from_secs(1 << 30), intervals: 1 };
/// Wall time at the beginning.
const BEGIN: u64 = 1_700_000_000_000;
/// Steps that any migration takes to its end, and more.
const MANY: usize = 300;

/// Where a schedule may begin: more often where moves follow that are rare.
const BEGINNINGS: [Phase; 12] = [
    Phase::Stable,
    Phase::PreMigration,
    Phase::PreMigration,
    Phase::Migration,
    Phase::Migration,
    Phase::PostMigration,
    Phase::PostMigration,
    Phase::PreRollback,
    Phase::PreRollback,
    Phase::RollingBack,
    Phase::PostRollback,
    Phase::PostRollback,
];

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) tenant: Tenant,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pairs: Arc<Pairs>,
    /// Acknowledged definitions, with their bytes; version 1 all of them.
    defined: Mutex<BTreeMap<String, Vec<u8>>>,
    disks: Arc<Disks>,
    epochs: Arc<Epochs>,
    /// Removed with everything in it.
    dir: tempfile::TempDir,
}

/// The epochs as they were published.
#[derive(Default)]
struct Epochs(Mutex<Vec<u64>>);

impl Observer for Epochs {
    fn on_event(&self, event: &Event) {
        if let Event::Phase { epoch, .. } = event {
            self.0.lock().unwrap().push(*epoch);
        }
    }
}

fn store(number: u32) -> StoreSpec {
    StoreSpec::driver("memory").path(format!("store-{number}"))
}

/// Metadata is written through to the disk at every move: in memory that takes no time.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(path: &Path, disks: &Arc<Disks>, clock: &Arc<ManualClock>, epochs: &Arc<Epochs>) -> Engine {
    Engine::builder(path.join("data"))
        .driver(disks.clone())
        .clock(clock.clone())
        .observer(epochs.clone())
        .background(false)
        .heartbeats(PATIENT)
        .open()
        .unwrap()
}

impl World {
    /// A tenant in a phase that the schedule chooses.
    pub(crate) fn new(pairs: Arc<Pairs>) -> Self {
        let dir = directory();
        let (disks, epochs) = (Arc::new(Disks::default()), Arc::new(Epochs::default()));
        let clock = Arc::new(ManualClock::at(BEGIN));
        let engine = open(dir.path(), &disks, &clock, &epochs);
        let keep = LONG_RETENTION.as_millis() as u64;
        let options = TenantOptions::new(store(0))
            .retention(Retention { instance_ms: 0, key_ms: 0, request_ms: 0 })
            .scope_retention("keep", Retention { instance_ms: keep, key_ms: keep, request_ms: keep });
        let tenant = engine.create_tenant("acme", options).unwrap();
        tenant.define("work", 1, "text/plain", b"do it").unwrap();
        let world = Self { engine, tenant, clock, pairs, defined: Mutex::default(), disks, epochs, dir };
        world.note_defined("work", b"do it");
        world
    }

    /// Closes the engine under whoever is using it, after its stores were taken away if `kill` says so, and opens the directory again.
    pub(crate) fn restart(&mut self, kill: bool) {
        if kill {
            self.disks.kill();
        }
        loop {
            match self.engine.close(LONG) {
                Ok(()) => break,
                // A time that no machine needs may pass while another thread is held up.
                Err(err) if err.kind() == ErrorKind::TimedOut => {}
                Err(err) => {
                    assert!(kill, "{err}");
                    break;
                }
            }
        }
        let published = self.tenant.status();
        self.engine = open(self.dir.path(), &self.disks, &self.clock, &self.epochs);
        self.tenant = self.engine.tenant("acme").unwrap();
        assert_eq!(self.tenant.status(), published, "what was published last is what is durable");
    }

    /// Goes to a phase that the schedule chooses, and there more or less far. Nobody else is there yet.
    pub(crate) fn begin_in_some_phase(&self) {
        let mut rng = thread_rng();
        if rng.gen_bool(0.5) {
            self.clock.advance(LONG_RETENTION * 2);
        }
        let phase = BEGINNINGS[rng.gen_range(0..BEGINNINGS.len())];
        if phase == Phase::Stable {
            return;
        }
        let migration = self.tenant.migration();
        migration.start(store(1), MigrationOptions::default().hold_switch(true).hold_complete(true)).unwrap();
        if phase != Phase::PreMigration {
            migration.release(Hold::Switch).unwrap();
        }
        if matches!(phase, Phase::PreRollback | Phase::RollingBack | Phase::PostRollback) {
            self.step_to(Phase::PostMigration);
            migration.reverse().unwrap();
        }
        self.step_to(phase);
        if matches!(phase, Phase::PreMigration | Phase::PostMigration | Phase::PostRollback) {
            // As far as the point where it is held.
            for _ in 0..rng.gen_range(0..12) {
                self.engine.step().unwrap();
            }
        }
        for hold in [Hold::Switch, Hold::Complete] {
            if rng.gen_bool(0.7) {
                migration.release(hold).unwrap();
            }
        }
    }

    /// Everything is copied and compared, and the switch is held.
    pub(crate) fn begin_before_the_switch(&self) {
        let options = MigrationOptions::default().hold_switch(true).hold_complete(true);
        self.tenant.migration().start(store(1), options).unwrap();
        (0..20).for_each(|_| _ = self.engine.step().unwrap());
        assert_eq!(self.tenant.status().phase, Phase::PreMigration);
    }

    /// Works until the tenant is in this phase.
    fn step_to(&self, phase: Phase) {
        for _ in 0..MANY {
            if self.tenant.status().phase == phase {
                return;
            }
            self.engine.step().unwrap();
        }
        panic!("it does not come there: {:?}", self.tenant.migration().progress());
    }

    /// What the engine's background threads would do, a few times.
    pub(crate) fn driver(&self) -> JoinHandle<()> {
        let engine = self.engine.clone();
        shuttle::thread::spawn(move || {
            for _ in 0..thread_rng().gen_range(4..16) {
                if let Err(err) = engine.step() {
                    assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
                }
            }
        })
    }

    /// Moves, as the schedule chooses them. What is refused is not legal at that moment.
    pub(crate) fn operator(&self) -> JoinHandle<()> {
        let (tenant, clock) = (self.tenant.clone(), Arc::clone(&self.clock));
        shuttle::thread::spawn(move || {
            for _ in 0..thread_rng().gen_range(2..7) {
                operate(&tenant, &clock);
            }
        })
    }

    /// What has to hold when everybody has stopped; then the migration goes to its end and it has to hold again.
    pub(crate) fn finish(&self) {
        self.check_rows();
        self.check_definitions();
        let live = self.live();
        let ended = self.settle();
        assert!(ended.is_subset(&live), "what was ended had lived");
        assert_eq!(self.live(), &live - &ended, "a migration ends or starts nothing");
        self.check_rows();
        self.check_definitions();
        assert_eq!(self.disks.rows().len(), 1, "one store is left");
        let epochs = self.epochs.0.lock().unwrap().clone();
        assert!(epochs.is_sorted_by(|a, b| a < b), "epochs went back: {epochs:?}");
        let journal = self.tenant.migration().journal().unwrap();
        assert!(journal.is_sorted_by(|a, b| a.epoch <= b.epoch && a.seq < b.seq), "{journal:?}");
        self.engine.close(LONG).unwrap();
    }

    /// The definition was acknowledged.
    pub(crate) fn note_defined(&self, name: &str, body: &[u8]) {
        self.defined.lock().unwrap().insert(name.to_owned(), body.to_vec());
    }

    /// The instances that live, as the rows say.
    fn live(&self) -> BTreeSet<InstanceId> {
        let rows = self.disks.rows();
        rows.iter().flatten().filter_map(live_instance).map(|(id, _)| id).collect()
    }

    /// I1 over the rows of both stores, and that rows which belong together are together (I5).
    fn check_rows(&self) {
        let stores = self.disks.rows();
        let mut holders = BTreeMap::new();
        for rows in &stores {
            let live: BTreeMap<InstanceId, Option<Key>> = rows.iter().filter_map(live_instance).collect();
            for (scope, key, instance) in rows.iter().filter_map(live_key) {
                let key = (scope, key);
                assert_eq!(live.get(&instance), Some(&Some(key.clone())), "{key:?} without {instance}");
                let before = holders.insert(key.clone(), instance);
                assert_eq!(before, None, "{key:?} is live twice, also as {instance}");
            }
            for (id, key) in live {
                assert!(key.is_none_or(|key| holders.get(&key) == Some(&id)), "{id} lives without its key");
            }
        }
        for (id, key) in stores.iter().flatten().filter_map(live_instance) {
            let found = self.tenant.instance(id).unwrap().unwrap_or_else(|| panic!("{id} is not found"));
            assert_eq!((found.ending(), &found.key), (None, &key));
            if let Some((scope, key)) = key {
                let by_key = self.tenant.instance_by_key(&scope, &key).unwrap().map(|found| found.id);
                assert_eq!(by_key, Some(id), "by its key {key:?}");
            }
        }
    }

    /// I4, and that every definition is found.
    fn check_definitions(&self) {
        let status = self.tenant.status();
        let stores = self.disks.rows();
        let switched = !matches!(status.phase, Phase::Stable | Phase::PreMigration);
        for (name, body) in &*self.defined.lock().unwrap() {
            let is_it = |(id, record): &(RowId<'_>, Record)| match (id, record) {
                (RowId::Definition { name: other, version: 1 }, Record::Definition(record)) => {
                    let same = **other == **name;
                    assert!(!same || record.body == *body, "the definition {name} was changed");
                    same
                }
                _ => false,
            };
            let is_gap = |(id, record): &(RowId<'_>, Record)| match (id, record) {
                (RowId::Note(NoteId::Gap { name: other, .. }), Record::Note(NoteRecord::Gap)) => {
                    **other == **name
                }
                _ => false,
            };
            let noted = stores.iter().flatten().any(is_gap);
            let has = stores.iter().filter(|rows| rows.iter().any(is_it)).count();
            assert!(has > 0, "the definition {name} is lost");
            assert!(
                !switched || noted || has == 2,
                "the definition {name} is in {has} stores in {}",
                status.phase
            );
            let found = self.tenant.definition(name, 1).unwrap();
            assert_eq!(found.map(|found| found.body).as_ref(), Some(body), "the definition {name}");
        }
    }

    /// Brings the migration to its end. What lives where launches do not go would hold it up: it is ended, and returned.
    fn settle(&self) -> BTreeSet<InstanceId> {
        let migration = self.tenant.migration();
        let mut ended = BTreeSet::new();
        for _ in 0..MANY {
            let status = self.tenant.status();
            if status.phase == Phase::Stable && migration.wait_settled(Duration::ZERO).unwrap() {
                return ended;
            }
            for hold in [Hold::Switch, Hold::Complete, Hold::All] {
                drop(migration.release(hold));
            }
            if matches!(status.phase, Phase::PostMigration | Phase::PostRollback) {
                // Some of them may have been moved to where they do not hold anything up.
                for id in self.live() {
                    assert_eq!(self.tenant.terminate(id, "").unwrap(), Ended::Now);
                    ended.insert(id);
                }
            }
            self.clock.advance(LONG_RETENTION);
            self.engine.step().unwrap();
        }
        panic!("it does not settle: {:?}", migration.progress());
    }
}

type Key = (String, Vec<u8>);

fn live_instance((id, record): &(RowId<'static>, Record)) -> Option<(InstanceId, Option<Key>)> {
    match (id, record) {
        (RowId::Instance { id }, Record::Instance(record)) if record.ended.is_none() => {
            Some((*id, record.key.clone()))
        }
        _ => None,
    }
}

fn live_key((id, record): &(RowId<'static>, Record)) -> Option<(String, Vec<u8>, InstanceId)> {
    match (id, record) {
        (RowId::Key { scope, key }, Record::Key(record)) if record.ended.is_none() => {
            Some((scope.to_string(), key.to_vec(), record.instance))
        }
        _ => None,
    }
}

fn options() -> MigrationOptions {
    let mut rng = thread_rng();
    MigrationOptions::default().hold_switch(rng.gen_bool(0.2)).hold_complete(rng.gen_bool(0.5))
}

/// Mostly a move that is legal at this moment; it may not be any more when it is made.
fn operate(tenant: &Tenant, clock: &ManualClock) {
    let mut rng = thread_rng();
    let migration = tenant.migration();
    let legal = phase::legal(tenant.status().phase);
    let tried = match rng.gen_range(0..10) {
        0..8 => legal.get(rng.gen_range(0..legal.len().max(1))).copied(),
        8 => Some(Move::ALL[rng.gen_range(0..Move::ALL.len())]),
        _ => None,
    };
    match (tried, rng.gen_range(0..4)) {
        (Some(Move::Start), _) => drop(migration.start(store(rng.gen_range(0..3)), options())),
        (Some(Move::Switch), _) => drop(migration.switch()),
        (Some(Move::Complete), _) => drop(migration.complete()),
        (Some(Move::Cancel), _) => drop(migration.cancel()),
        (Some(Move::Reverse), _) => drop(migration.reverse()),
        // Refused as illegal where no store drains.
        _ if rng.gen_bool(0.25) => drop(migration.move_stragglers(Duration::ZERO)),
        (_, 0) => drop(migration.release(Hold::Switch)),
        (_, 1) => drop(migration.release(Hold::Complete)),
        (_, 2) => drop(migration.hold(Hold::All)),
        _ => clock.advance(LONG_RETENTION * 2),
    }
}
