//! Many threads on few keys while a tenant goes to and fro: no launch fails, no key is live twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutover::{
    Completion, Ending, InstanceId, Launched, MigrationOptions, NewStep, Phase, StoreSpec, Tenant,
};
use parking_lot::Mutex;

use crate::common::{DROP, Home, LONG, keyed, memory, tenant};

const KEYS: usize = 100;

/// Who holds each key, as the callers know it: from when a launch returned until before the end is asked for. A key that is held and started
/// again is live twice.
struct Ledger {
    held: Vec<Mutex<Option<InstanceId>>>,
    launches: AtomicU64,
    conflicts: AtomicU64,
    /// Launches from which on the threads go slower: a closed loop on memory is quicker than any collector, and what waits to be
    /// collected is what a migration waits for.
    fast_until: AtomicU64,
}

impl Ledger {
    fn new() -> Self {
        let held = (0..KEYS).map(|_| Mutex::new(None)).collect();
        let fast_until = AtomicU64::new(u64::MAX);
        Self { held, launches: AtomicU64::new(0), conflicts: AtomicU64::new(0), fast_until }
    }
}

/// Launches random keys and ends what it has started, until told to stop.
fn hammer(tenant: &Tenant, ledger: &Ledger, seed: u64, stop: &AtomicBool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        if ledger.launches.load(Ordering::Relaxed) > ledger.fast_until.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let n = rng.usize(..KEYS);
        let known = *ledger.held[n].lock();
        match tenant.launch(&keyed(&n.to_string())).unwrap() {
            Launched::Started(id) => {
                let before = ledger.held[n].lock().replace(id);
                assert_eq!(before, None, "key {n} is live as {before:?} and as {id}");
                ledger.launches.fetch_add(1, Ordering::Relaxed);
                if rng.bool() {
                    let found = tenant.instance_by_key("scope", n.to_string().as_bytes()).unwrap().unwrap();
                    assert_eq!(found.id, id);
                }
                *ledger.held[n].lock() = None;
                tenant.end(id, Ending::Completed, b"", "").unwrap();
            }
            Launched::Conflict { instance } => {
                ledger.conflicts.fetch_add(1, Ordering::Relaxed);
                let now = *ledger.held[n].lock();
                if known.is_some() && known == now {
                    assert_eq!(
                        Some(instance),
                        known,
                        "the conflict names another instance than the one that is live"
                    );
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs eight threads while `moves` moves the tenant.
fn while_hammered(tenant: &Tenant, moves: impl FnOnce(&Ledger)) -> Ledger {
    let (ledger, stop) = (Ledger::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (ledger, stop) = (&ledger, &stop);
            scope.spawn(move || {
                // A thread that panics must not leave the others running.
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    hammer(tenant, ledger, seed, stop)
                }));
                stop.store(true, Ordering::Relaxed);
                if let Err(panic) = ended {
                    std::panic::resume_unwind(panic);
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        moves(&ledger);
    });
    ledger
}

fn to_stable(tenant: &Tenant) {
    let settled = tenant.migration().wait_settled(LONG).unwrap();
    assert!(settled, "{:?}", tenant.migration().progress());
}

/// One migration: forward, cancelled, or reversed once or twice, by turns.
fn one_migration(tenant: &Tenant, round: usize, target: StoreSpec) {
    let migration = tenant.migration();
    let options = MigrationOptions::default().hold_complete(!round.is_multiple_of(4)).move_rate(0);
    migration.start(target, options).unwrap();
    let move_all = || drop(migration.move_stragglers(Duration::ZERO));
    match round % 4 {
        0 => {}
        1 => {
            assert!(migration.wait_for(Phase::PostMigration, LONG).unwrap(), "{:?}", migration.progress());
            migration.reverse().unwrap();
            assert!(migration.wait_for(Phase::PostRollback, LONG).unwrap(), "{:?}", migration.progress());
            // What still runs there comes back, instead of being waited for.
            move_all();
            migration.release(cutover::Hold::Complete).unwrap();
        }
        2 => {
            // The switch may be quicker; then it goes back another way.
            while migration.cancel().is_err() && migration.reverse().is_err() {}
            drop(migration.release(cutover::Hold::Complete));
        }
        _ => {
            assert!(migration.wait_for(Phase::PostMigration, LONG).unwrap(), "{:?}", migration.progress());
            move_all();
            migration.reverse().unwrap();
            assert!(migration.wait_for(Phase::PostRollback, LONG).unwrap(), "{:?}", migration.progress());
            migration.reverse().unwrap();
            assert!(migration.wait_for(Phase::PostMigration, LONG).unwrap(), "{:?}", migration.progress());
            migration.release(cutover::Hold::Complete).unwrap();
        }
    }
    to_stable(tenant);
}

#[test]
fn a_million_launches_through_a_hundred_migrations_on_memory() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("s0"), DROP);
    let mut rounds = 0;
    let ledger = while_hammered(&tenant, |ledger| {
        while rounds < 100 || ledger.launches.load(Ordering::Relaxed) < 1_000_000 {
            rounds += 1;
            ledger.fast_until.store(rounds as u64 * 10_000, Ordering::Relaxed);
            one_migration(&tenant, rounds, memory(&format!("s{rounds}")));
        }
    });
    let (launches, conflicts) = (ledger.launches.into_inner(), ledger.conflicts.into_inner());
    eprintln!("{launches} launches, {conflicts} conflicts, {rounds} migrations");
    assert!(conflicts > 1_000, "the keys overlapped {conflicts} times");
}

#[cfg(all(feature = "rocksdb", feature = "sled"))]
#[test]
fn to_and_fro_between_rocksdb_and_sled() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, StoreSpec::driver("rocksdb"), DROP);
    let ledger = while_hammered(&tenant, |_| {
        for round in 0..8 {
            let now = engine.store_driver(tenant.status().initial).unwrap();
            let target = if now == "rocksdb" { "sled" } else { "rocksdb" };
            one_migration(&tenant, round, StoreSpec::driver(target));
        }
    });
    eprintln!("{:?} launches, {:?} conflicts", ledger.launches, ledger.conflicts);
    assert!(ledger.launches.into_inner() > 500);
}

/// Workers and launchers at once: every step is done exactly once, whatever the phase.
#[test]
fn every_step_is_done_exactly_once_while_the_tenant_moves() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("s0"), DROP);
    let (stop, done) = (AtomicBool::new(false), Mutex::new(HashMap::<(InstanceId, String), u32>::new()));
    let launched = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..2 {
            let (tenant, launched, stop, done) = (&tenant, &launched, &stop, &done);
            scope.spawn(move || {
                let mut key = 0;
                while !stop.load(Ordering::Relaxed) {
                    key += 1;
                    let launch = keyed(&format!("{n}/{key}")).step(NewStep::new("a")).step(NewStep::new("b"));
                    assert!(matches!(tenant.launch(&launch).unwrap(), Launched::Started(_)));
                    launched.fetch_add(1, Ordering::Relaxed);
                    // Launching is quicker than working; what is live stays bounded.
                    while launched.load(Ordering::Relaxed) as usize * 3 > done.lock().len() + 600 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        for n in 0..3 {
            let (tenant, done, launched, stop) = (&tenant, &done, &launched, &stop);
            scope.spawn(move || {
                let worker = tenant.register(format!("w{n}")).unwrap();
                loop {
                    let Some(task) = worker.claim("default", Duration::from_millis(20)).unwrap() else {
                        let all = launched.load(Ordering::Relaxed) as usize * 3;
                        if stop.load(Ordering::Relaxed) && done.lock().len() == all {
                            return;
                        }
                        continue;
                    };
                    let next = match task.step.as_str() {
                        "a" | "b" => vec![NewStep::new("join").parents(2)],
                        _ => Vec::new(),
                    };
                    *done.lock().entry((task.instance, task.step.clone())).or_default() += 1;
                    let settled =
                        worker.complete(&task, Completion { next, ..Completion::default() }).unwrap();
                    assert!(matches!(settled, cutover::Settled::Done { .. }), "{settled:?}");
                }
            });
        }
        // Also when a migration below fails, so that the test does.
        let _stop = StopOnDrop(&stop);
        let begun = Instant::now();
        let mut round = 0;
        while round < 8 || begun.elapsed() < Duration::from_secs(2) {
            round += 1;
            let migration = tenant.migration();
            migration.start(memory(&format!("s{round}")), MigrationOptions::default()).unwrap();
            to_stable(&tenant);
        }
    });
    let done = done.into_inner();
    assert_eq!(done.len() as u64, launched.into_inner() * 3);
    assert!(done.values().all(|times| *times == 1));
}
