//! The replicator's pace and what it tells of it, on a clock that the test drives.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::store::memory::MemoryDriver;
use cutover::{CopyProgress, Engine, MigrationOptions, Phase, Tenant, TenantOptions};
use tempfile::TempDir;

use crate::common::{DROP, memory};

const MIB: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// Does what can be done without time passing.
fn work_off(engine: &Engine) {
    let mut quiet = 0;
    while quiet < 20 {
        quiet = if engine.step().unwrap() { 0 } else { quiet + 1 };
    }
}

struct Copying {
    dir: TempDir,
    disks: MemoryDriver,
    clock: Arc<ManualClock>,
}

impl Copying {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        Self { dir: tempfile::tempdir().unwrap(), disks: MemoryDriver::new(), clock }
    }

    fn open(&self) -> Engine {
        let builder = Engine::builder(self.dir.path().join("data")).driver(Arc::new(self.disks.clone()));
        builder.clock(self.clock.clone()).background(false).open().unwrap()
    }

    /// Seconds pass, and in each what can be done is done.
    fn pass(&self, engine: &Engine, seconds: u32) {
        for _ in 0..20 * seconds {
            self.clock.advance(SECOND / 20);
            work_off(engine);
        }
    }
}

/// A tenant with so many MiB of definitions, each of 64 KiB.
fn large(engine: &Engine, mib: u64) -> Tenant {
    let tenant = engine.create_tenant("acme", TenantOptions::new(memory("a")).retention(DROP)).unwrap();
    for n in 0..mib * 16 {
        tenant.define(&format!("d{n:03}"), 1, "t", &vec![n as u8; 64 << 10]).unwrap();
    }
    tenant
}

fn copy(tenant: &Tenant) -> CopyProgress {
    tenant.migration().progress().copy
}

/// The figure is right to the bytes around the bodies and to one batch.
#[track_caller]
fn about(figure: u64, right: u64, slack: u64) {
    assert!(figure.abs_diff(right) <= slack, "{figure}, and not about {right}");
}

#[test]
fn counting_takes_no_time_and_copying_and_comparing_keep_to_the_rate() {
    let copying = Copying::new();
    let engine = copying.open();
    let tenant = large(&engine, 8);
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_switch(true).rate(MIB)).unwrap();
    work_off(&engine);
    let begun = copy(&tenant);
    assert_eq!(begun.total, 128, "all are counted at once");
    about(begun.bytes, MIB, MIB / 8);
    work_off(&engine);
    assert_eq!(copy(&tenant).bytes, begun.bytes, "looking again is no time that passes");
    copying.pass(&engine, 3);
    let said = copy(&tenant);
    about(said.bytes, 3 * MIB, MIB / 8);
    // Three batches, the first of which is not paid for yet.
    about(said.rate, 3 * MIB * 10 / 21, MIB / 16);
    about(said.left_ms, (said.total_bytes - said.bytes) * 1000 / said.rate, 1);
    assert_eq!(said.compared, 0);
    copying.pass(&engine, 8);
    let said = copy(&tenant);
    assert_eq!((said.copied, said.left_ms), (128, 0));
    assert!((1..80).contains(&said.compared), "{said:?}");
    copying.pass(&engine, 14);
    assert_eq!(copy(&tenant).compared, 128);
}

#[test]
fn after_a_restart_the_rate_is_that_of_what_was_copied_since() {
    let copying = Copying::new();
    let engine = copying.open();
    let tenant = large(&engine, 24);
    tenant
        .migration()
        .start(memory("b"), MigrationOptions::default().hold_switch(true).rate(2 * MIB))
        .unwrap();
    work_off(&engine);
    copying.pass(&engine, 4);
    let before = copy(&tenant);
    engine.close(60 * SECOND).unwrap();
    drop((tenant, engine));
    let engine = copying.open();
    let tenant = engine.tenant("acme").unwrap();
    work_off(&engine);
    assert!(copy(&tenant).copied >= before.copied, "it goes on where it was");
    copying.pass(&engine, 4);
    let said = copy(&tenant);
    about(said.bytes, before.bytes + 8 * MIB, 2 * MIB);
    about(said.rate, 2 * MIB, MIB / 2);
}

#[test]
fn who_lifts_the_limit_does_not_wait_for_what_was_paused_for_under_it() {
    let copying = Copying::new();
    let engine = copying.open();
    let tenant = large(&engine, 4);
    tenant.migration().start(memory("b"), MigrationOptions::default().rate(1)).unwrap();
    work_off(&engine);
    copying.pass(&engine, 3);
    about(copy(&tenant).bytes, MIB, MIB / 8);
    tenant.migration().throttle(0).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::Stable, "{:?}", tenant.migration().progress());
}
