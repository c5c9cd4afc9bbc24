//! More load than a store can take: callers wait, memory does not grow, and when the load is gone everything is as quick as before.
//!
//! The load runs in a process of its own, this test binary again, which says what memory it takes.
//!
//! Quick by default; `CUTOVER_OVERLOAD_SECONDS` sets how long the load lasts.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutover::formats::Family;
use cutover::store::sled::SledDriver;
use cutover::store::{Batch, Driver, Store, Visit, Write};
use cutover::{
    Durability, Ending, Engine, Heartbeats, Launch, NewStep, Result, Retention, StoreSpec, Tenant,
    TenantOptions,
};
use parking_lot::Mutex;

use crate::common::{LONG, many, started};

const VARIABLE: &str = "CUTOVER_OVERLOAD_CHILD";
const LAUNCHERS: usize = 64;
/// Queues that a worker looked at before it stopped.
const QUEUES: usize = 200;
/// What a commit takes more when the store is slow: one after the other, some ten times what sled takes for one.
const SLOW: Duration = Duration::from_millis(2);
/// Bytes of an input.
const INPUT: usize = 64 << 10;
/// Launches at full speed before, so that the caches are full.
const WARM: u64 = 2_000;
/// How much more memory the process may take after the load than after a tenth of it.
const GROWTH_KIB: u64 = 48 << 10;

/// sled, one commit at a time and each of them slow, while it is told so.
#[derive(Clone)]
struct Slow {
    sled: SledDriver,
    on: Arc<AtomicBool>,
    one: Arc<Mutex<()>>,
}

struct SlowStore {
    sled: Arc<dyn Store>,
    slow: Slow,
}

impl Driver for Slow {
    fn name(&self) -> &str {
        "sled"
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(SlowStore { sled: self.sled.open(path)?, slow: self.clone() }))
    }

    fn destroy(&self, path: &Path) -> Result<()> {
        self.sled.destroy(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.sled.exists(path)
    }
}

impl Store for SlowStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.sled.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.sled.scan(family, from, to, visit)
    }

    fn commit(&self, batch: &Batch, write: Write) -> Result<()> {
        if self.slow.on.load(Ordering::SeqCst) {
            let _one = self.slow.one.lock();
            std::thread::sleep(SLOW);
        }
        self.sled.commit(batch, write)
    }

    fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        self.sled.remove_range(family, from, to)
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Launches and ends half of what it launches; its rows are due at once, and nobody collects them.
fn load(tenant: &Tenant, n: u64) -> bool {
    let launch = Launch::new("work", 1)
        .key("scope", format!("{n}"))
        .request_id(format!("{n}"))
        .input(vec![n as u8; INPUT])
        .step(NewStep::new("only").queue(format!("queue {}", n % QUEUES as u64)));
    let id = started(tenant.launch(&launch).unwrap());
    if n.is_multiple_of(2) {
        tenant.end(id, Ending::Completed, b"", "").unwrap();
    }
    !n.is_multiple_of(2)
}

/// The middle one of some launches of one caller.
fn usual(tenant: &Tenant) -> Duration {
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let began = Instant::now();
            started(tenant.launch(&Launch::new("work", 1)).unwrap());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[50]
}

#[test]
fn under_load() {
    let Ok(seconds) = std::env::var(VARIABLE) else { return };
    let lasts = Duration::from_secs(seconds.parse().unwrap());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let slow = Slow { sled: SledDriver::default(), on: Arc::default(), one: Arc::default() };
    // No threads of its own: nothing is collected.
    let builder = Engine::builder(dir.path().join("data")).driver(Arc::new(slow.clone())).background(false);
    // The worker that is stopped is not to be given up.
    let patient = Heartbeats { every: LONG * 60, intervals: 1 };
    let engine = builder.durability(Durability::Buffered).heartbeats(patient).open().unwrap();
    let retention = Retention { instance_ms: 0, key_ms: 0, request_ms: 0 };
    let tenant = engine
        .create_tenant("acme", TenantOptions::new(StoreSpec::driver("sled")).retention(retention))
        .unwrap();
    tenant.define("work", 1, "t", b"").unwrap();
    let worker = tenant.register(many("w")).unwrap();
    for queue in 0..QUEUES {
        assert!(worker.claim(&format!("queue {queue}"), Duration::ZERO).unwrap().is_none());
    }
    let before = usual(&tenant);
    let (next, waiting, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    // The caches fill up at full speed first.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= WARM {
                        return;
                    }
                    waiting.fetch_add(u64::from(load(&tenant, n)), Ordering::SeqCst);
                }
            });
        }
    });
    slow.on.store(true, Ordering::SeqCst);
    let (mut early, mut most) = (0, 0);
    let from = next.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..LAUNCHERS {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    waiting.fetch_add(u64::from(load(&tenant, n)), Ordering::SeqCst);
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < lasts {
            std::thread::sleep(lasts / 20);
            most = resident_kib().max(most);
            if began.elapsed() < lasts / 10 + lasts / 20 {
                early = most;
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let launched = next.load(Ordering::SeqCst) - from;
    slow.on.store(false, Ordering::SeqCst);
    let after = usual(&tenant);
    println!(
        "{launched} launches in {lasts:?} at 64 callers; memory {early} KiB early, {most} KiB at most; \
         a launch {before:?} before, {after:?} after"
    );
    let stored_kib = launched * INPUT as u64 / 1024;
    assert!(stored_kib > GROWTH_KIB, "{launched} launches are too few to show anything");
    assert!(most - early < GROWTH_KIB, "memory grew from {early} to {most} KiB");
    assert!(after < before * 10 + Duration::from_millis(50), "{before:?} before, {after:?} after");
    // Nothing of what waited was forgotten.
    let mut given = 0;
    for queue in 0..QUEUES {
        while worker.claim(&format!("queue {queue}"), Duration::ZERO).unwrap().is_some() {
            given += 1;
        }
    }
    assert_eq!(given, waiting.load(Ordering::SeqCst));
    engine.close(LONG).unwrap();
}

#[test]
fn more_load_than_a_store_takes_makes_callers_wait_and_memory_does_not_grow() {
    let seconds = std::env::var("CUTOVER_OVERLOAD_SECONDS").unwrap_or_else(|_| "6".into());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "overload::under_load", "--nocapture"]).env(VARIABLE, seconds);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{}", said.lines().filter(|line| line.contains("at 64 callers")).collect::<String>());
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("at 64 callers"), "it ran: {said}");
}
