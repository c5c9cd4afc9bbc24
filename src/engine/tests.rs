//! Launches stopped on their way, at a point that only the engine's own locks can reach.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover_formats::{InstanceId, Phase};

use super::{Builder, Engine, TenantOptions};
use crate::catalog::StoreSpec;
use crate::error::ErrorKind;
use crate::migration::{Hold, MigrationOptions};
use crate::status::Waiting;
use crate::store::memory::MemoryDriver;
use crate::tenant::Tenant;
use crate::tenant::types::{Launch, Launched};

const LONG: Duration = Duration::from_secs(60);

fn open(dir: &std::path::Path) -> Engine {
    let builder: Builder = Engine::builder(dir.join("data")).driver(Arc::new(MemoryDriver::new()));
    builder.open().unwrap()
}

fn memory(path: &str) -> StoreSpec {
    StoreSpec::driver("memory").path(path)
}

/// A tenant that stays in the phase before one of the two closes until it is told to go on.
fn before_the_close(engine: &Engine, close: Phase) -> Tenant {
    let tenant = engine.create_tenant("acme", TenantOptions::new(memory("a"))).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    let migration = tenant.migration();
    match close {
        Phase::Migration => {
            migration.start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
            let until = Instant::now() + LONG;
            // Every definition is in both; only the hold is left.
            while migration.progress().waiting_for != "being released" {
                assert!(Instant::now() < until, "{:?}", migration.progress());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Phase::RollingBack => {
            let options = MigrationOptions::default()
                .hold_complete(true)
                .dwell(Phase::PreRollback, Duration::from_secs(1));
            migration.start(memory("b"), options).unwrap();
            assert!(migration.wait_for(Phase::PostMigration, LONG).unwrap());
            migration.reverse().unwrap();
            assert!(migration.wait_for(Phase::PreRollback, LONG).unwrap());
        }
        other => panic!("no store is closed by entering {other}"),
    }
    tenant
}

/// How a launch ended that was stopped on its way, in an engine that is still open.
struct Stopped {
    tenant: Tenant,
    launched: crate::error::Result<Launched>,
    _engine: Engine,
    _dir: tempfile::TempDir,
}

/// Runs `launch` in a thread of its own, lets it come to where its batch is built and its instance is to be locked, closes its
/// store meanwhile, and lets it go on.
fn stopped_before_its_check(close: Phase, launch: Launch) -> Stopped {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let tenant = before_the_close(&engine, close);
    let from = tenant.status().home();
    // Every stripe, whatever the new instance's number will be.
    let held = tenant.0.shared.locks.instances.lock_all(0..100_000);
    let launched = std::thread::scope(|scope| {
        let launching = scope.spawn(|| tenant.launch(&launch));
        let until = Instant::now() + LONG;
        while !matches!(tenant.0.shared.pins.begin_wait(tenant.id()).poll(), Waiting::On(_)) {
            assert!(Instant::now() < until && !launching.is_finished());
            std::thread::yield_now();
        }
        // From its pin to the lock it takes microseconds.
        std::thread::sleep(Duration::from_millis(20));
        if close == Phase::Migration {
            tenant.migration().release(Hold::Switch).unwrap();
        }
        assert!(tenant.migration().wait_for(close, LONG).unwrap(), "{:?}", tenant.migration().progress());
        assert_ne!(tenant.status().home(), from, "launches go to the other store now");
        assert!(!launching.is_finished(), "it is stopped");
        // While it is, nobody may rely on the close.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(tenant.status().phase, close, "the next step was taken before the launch had ended");
        drop(held);
        launching.join().unwrap()
    });
    Stopped { tenant, launched, _engine: engine, _dir: dir }
}

fn lands_in_the_other_store(close: Phase) {
    let stopped = stopped_before_its_check(close, Launch::new("work", 1).key("scope", "k"));
    let tenant = stopped.tenant;
    let Launched::Started(id) = stopped.launched.unwrap() else { panic!("nobody holds the key") };
    let status = tenant.status();
    assert_eq!(
        Some(id.store()),
        status.store(status.home()),
        "it came after the close and is where launches go"
    );
    let found: Option<InstanceId> = tenant.instance_by_key("scope", b"k").unwrap().map(|found| found.id);
    assert_eq!(found, Some(id));
    let op = tenant.0.enter("look").unwrap();
    let (space, _) = op.locate(tenant.id(), id).unwrap().unwrap();
    assert_eq!(space.id, id.store());
}

#[test]
fn a_launch_stopped_before_its_check_while_the_initial_store_closes_lands_in_the_target() {
    lands_in_the_other_store(Phase::Migration);
}

#[test]
fn a_launch_stopped_before_its_check_while_the_target_closes_lands_in_the_initial_store() {
    lands_in_the_other_store(Phase::RollingBack);
}

#[test]
fn who_asked_for_it_is_told_instead() {
    let launch = Launch::new("work", 1).key("scope", "k").abort_on_change();
    let stopped = stopped_before_its_check(Phase::Migration, launch);
    assert_eq!(stopped.launched.unwrap_err().kind(), ErrorKind::StatusChanged);
    assert!(stopped.tenant.instance_by_key("scope", b"k").unwrap().is_none(), "nothing happened");
}
