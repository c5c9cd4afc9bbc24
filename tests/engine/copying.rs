//! The replicator's pace and what it tells of it, on a clock that the test drives; and what it does again.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::store::memory::MemoryDriver;
use cutover::{CopyProgress, Engine, Hold, MigrationOptions, Phase, Tenant, TenantOptions};
use tempfile::TempDir;

use crate::common::{DROP, memory};
use crate::disks::Machine;

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

/// The target fails while both stores are compared, and loses what had been compared already: all of it is compared again.
#[test]
fn what_was_compared_before_the_target_lost_it_is_compared_again() {
    let machine = Machine::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = machine.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = large(&engine, 8);
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    tenant.migration().throttle(8 * MIB).unwrap();
    let mut steps = 0;
    while copy(&tenant).compared < 48 {
        clock.advance(Duration::from_millis(20));
        engine.step().unwrap();
        steps += 1;
        assert!(steps < 10_000, "{:?}", tenant.migration().progress());
    }
    assert!(copy(&tenant).compared < 128, "it is under way");
    machine.fail("b");
    tenant.define("late", 1, "t", b"late").unwrap();
    machine.mend("b", false);
    while tenant.migration().progress().waiting_for != "being released" {
        clock.advance(Duration::from_millis(20));
        engine.step().unwrap();
        steps += 1;
        assert!(steps < 10_000, "{:?}", tenant.migration().progress());
    }
    tenant.migration().release(Hold::Switch).unwrap();
    while tenant.status().phase != Phase::Stable {
        clock.advance(Duration::from_millis(20));
        engine.step().unwrap();
        steps += 1;
        assert!(steps < 10_000, "{:?}", tenant.migration().progress());
    }
    for n in 0..128_u64 {
        let found = tenant.definition(&format!("d{n:03}"), 1).unwrap();
        assert!(found.is_some_and(|found| found.body[0] == n as u8), "definition {n} was lost");
    }
    assert_eq!(tenant.definition("late", 1).unwrap().unwrap().body, b"late");
}

/// A store may have lost what was not durable when it failed: a comparison that this interrupts begins again, and not where it was.
#[test]
fn a_store_that_was_opened_again_is_compared_from_its_beginning() {
    let machine = Machine::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = machine.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = large(&engine, 8);
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true).rate(MIB)).unwrap();
    let until = |there: &dyn Fn() -> bool, pause: Duration| {
        let mut steps = 0;
        while !there() {
            clock.advance(pause);
            engine.step().unwrap();
            steps += 1;
            assert!(steps < 10_000, "{:?}", tenant.migration().progress());
        }
    };
    let half = || tenant.status().phase == Phase::PostMigration && (32..96).contains(&copy(&tenant).compared);
    until(&half, SECOND / 20);
    machine.fail("a");
    tenant.define("late", 1, "t", b"late").unwrap();
    machine.mend("a", true);
    until(&|| copy(&tenant).compared < 32, SECOND / 100);
    assert_eq!(copy(&tenant).compared, 16, "one batch");
}
