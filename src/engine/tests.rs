//! Launches and flips stopped on their way, at a point that only the engine's own locks can reach.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cutover_formats::access::HandoverPhase;
use cutover_formats::{Family, InstanceId, Phase, Prefix};

use super::{Builder, Engine, TenantOptions};
use crate::catalog::StoreSpec;
use crate::clock::ManualClock;
use crate::error::ErrorKind;
use crate::files::MemoryFiles;
use crate::handover::attach::Attached;
use crate::handover::{Handover, HandoverOptions, HandoverReport};
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
    let held = tenant.0.locks.instances.lock_all(0..100_000);
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

/// Opens the directory on the same memory disks again.
fn open_on(dir: &std::path::Path, driver: &MemoryDriver) -> Engine {
    Engine::builder(dir.join("data")).driver(Arc::new(driver.clone())).background(false).open().unwrap()
}

fn tenant_in(engine: &Engine, name: &str, store: &str) -> Tenant {
    let tenant = engine.create_tenant(name, TenantOptions::new(memory(store))).unwrap();
    tenant.define("work", 1, "t", name.as_bytes()).unwrap();
    tenant
}

/// As if the process had died while the tenant was being deleted: it is marked, and no more.
fn mark_as_deleted(tenant: &Tenant) {
    tenant.0.control.lock().persist(1, "test", "deleted", |record| record.deleting = true).unwrap();
}

#[test]
fn finishing_a_delete_at_opening_takes_nothing_from_who_shares_the_store() {
    for deleted in ["one", "two"] {
        let dir = tempfile::tempdir().unwrap();
        let driver = MemoryDriver::new();
        let engine = open_on(dir.path(), &driver);
        let tenants = [tenant_in(&engine, "one", "a"), tenant_in(&engine, "two", "a")];
        tenants.iter().filter(|tenant| tenant.name() == deleted).for_each(mark_as_deleted);
        engine.close(LONG).unwrap();
        drop((engine, tenants));
        let engine = open_on(dir.path(), &driver);
        let kept = if deleted == "one" { "two" } else { "one" };
        assert_eq!(engine.tenants(), [kept]);
        let found = engine.tenant(kept).unwrap().definition("work", 1).unwrap().unwrap();
        assert_eq!(found.body, kept.as_bytes());
    }
}

#[test]
fn a_delete_that_had_removed_the_store_already_is_finished_at_opening() {
    let dir = tempfile::tempdir().unwrap();
    let driver = MemoryDriver::new();
    let engine = open_on(dir.path(), &driver);
    let tenant = tenant_in(&engine, "one", "a");
    mark_as_deleted(&tenant);
    let store = tenant.status().initial;
    tenant.0.forget_space(store);
    crate::migration::driver::leave_store(&tenant.0, store).unwrap();
    assert!(engine.store_path(store).is_none());
    drop((tenant, engine));
    let engine = open_on(dir.path(), &driver);
    assert!(engine.tenants().is_empty());
}

#[test]
fn a_deleted_tenant_is_not_brought_back_by_who_still_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let driver = MemoryDriver::new();
    let engine = open_on(dir.path(), &driver);
    let tenant = tenant_in(&engine, "one", "a");
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    while tenant.status().phase != Phase::Migration {
        engine.step().unwrap();
    }
    engine.delete_tenant("one").unwrap();
    // The driver's thread may have been waiting for it, and a program may ask it for anything.
    for _ in 0..3 {
        crate::migration::driver::step(&tenant.0);
    }
    let migration = tenant.migration();
    for refused in [migration.hold(Hold::All), migration.reverse(), migration.switch()] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let start = migration.start(memory("c"), MigrationOptions::default());
    assert_eq!(start.unwrap_err().kind(), ErrorKind::NotFound);
    let files: Vec<_> = std::fs::read_dir(dir.path().join("data/meta"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("tenant-"))
        .collect();
    assert!(files.is_empty(), "{files:?}");
    drop((tenant, migration, engine));
    assert!(open_on(dir.path(), &driver).tenants().is_empty());
}

#[test]
fn closing_twice_does_not_let_go_of_a_directory_that_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let tenant = tenant_in(&engine, "one", "a");
    let (held, end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _op = tenant.0.enter("a long operation").unwrap();
            held.wait();
            end.wait();
        });
        held.wait();
        for _ in 0..2 {
            let err = engine.close(Duration::from_millis(20)).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
            let second = Engine::builder(dir.path().join("data")).open();
            assert_eq!(second.err().unwrap().kind(), ErrorKind::Locked);
        }
        end.wait();
    });
    engine.close(LONG).unwrap();
}

#[test]
fn closing_waits_for_a_move_that_is_under_way_and_no_move_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let driver = MemoryDriver::new();
    let engine = open_on(dir.path(), &driver);
    let tenant = tenant_in(&engine, "one", "a");
    let before = tenant.status();
    std::thread::scope(|scope| {
        // As a move does from before it writes until after it has published.
        let moving = tenant.0.control.lock();
        let late = scope.spawn(|| tenant.migration().start(memory("b"), MigrationOptions::default()));
        // It has time to come to the lock; what it is told does not depend on that.
        std::thread::sleep(Duration::from_millis(20));
        let err = engine.close(Duration::from_millis(20)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::TimedOut, "{err}");
        assert!(err.to_string().contains("a move of the tenant \"one\""), "{err}");
        let second = Engine::builder(dir.path().join("data")).open();
        assert_eq!(second.err().unwrap().kind(), ErrorKind::Locked);
        drop(moving);
        assert_eq!(late.join().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    });
    engine.close(LONG).unwrap();
    crate::migration::driver::step(&tenant.0);
    let again = open_on(dir.path(), &driver);
    assert_eq!(again.tenant("one").unwrap().status(), before);
}

/// Whoever began under the earlier status may still read the store that the present one does not name.
#[test]
fn nothing_is_removed_before_who_acted_on_the_earlier_status_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_on(dir.path(), &MemoryDriver::new());
    let tenant = tenant_in(&engine, "one", "a");
    // Shared: so it is rows that are removed, and not a store that knows who has it open.
    let _other = tenant_in(&engine, "two", "a");
    let left = tenant.status().initial;
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    while tenant.migration().progress().waiting_for != "being released" {
        engine.step().unwrap();
    }
    let (held, end) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let op = tenant.0.enter("a long operation").unwrap();
            let is_there = || {
                let left = op.other.as_ref().unwrap();
                left.first(tenant.id(), Prefix::All(Family::Definitions)).unwrap().is_some()
            };
            held.wait();
            end.wait();
            assert!(is_there(), "it is still read");
        });
        held.wait();
        tenant.migration().release(Hold::Complete).unwrap();
        for _ in 0..100 {
            engine.step().unwrap();
        }
        assert_eq!(tenant.status().phase, Phase::Stable, "{:?}", tenant.migration().progress());
        end.wait();
    });
    let until = Instant::now() + LONG;
    let rows = || {
        let space = tenant.0.shared.catalog.use_store(left, tenant.id()).unwrap();
        space.first(tenant.id(), Prefix::All(Family::Definitions)).unwrap()
    };
    while rows().is_some() {
        assert!(Instant::now() < until, "{:?}", tenant.migration().progress());
        engine.step().unwrap();
    }
}

/// Asks for a flip from this phase on, lets `between` come to pass, and makes the flip.
fn asked_then(
    phase: HandoverPhase,
    between: impl FnOnce(&Handover, &Attached) + Send + 'static,
) -> crate::error::Result<HandoverReport> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || {
        let builder = Engine::builder("/data").driver(Arc::new(MemoryDriver::new())).background(false);
        let builder = builder.files(Arc::new(MemoryFiles::new())).clock(Arc::new(ManualClock::at(1)));
        let engine = builder.open().unwrap();
        let handover = engine.create_tenant("acme", TenantOptions::new(memory("a"))).unwrap().handover();
        let _old = engine.runner("old").unwrap().attach("acme").unwrap();
        let new = engine.runner("new").unwrap().attach_standby("acme").unwrap();
        handover.prepare("new", &HandoverOptions::default()).unwrap();
        if phase == HandoverPhase::Cleanup {
            handover.flip().unwrap();
        }
        let (control, asked) = handover.ask(phase).unwrap();
        drop(control);
        between(&handover, &new);
        let made = handover.drive(handover.lock().unwrap(), asked);
        answer.send(made).unwrap();
    });
    answered.recv_timeout(LONG).expect("it goes on for ever, or has panicked")
}

#[test]
fn whoever_flips_what_was_called_off_meanwhile_is_told_so() {
    let made = asked_then(HandoverPhase::Prepare, |handover, _| handover.cancel().unwrap());
    assert_eq!(made.unwrap_err().kind(), ErrorKind::IllegalMove);
}

#[test]
fn whoever_flips_what_was_prepared_anew_meanwhile_does_not_flip_that() {
    let made = asked_then(HandoverPhase::Prepare, |handover, _| {
        handover.cancel().unwrap();
        handover.prepare("new", &HandoverOptions::default()).unwrap();
    });
    assert_eq!(made.unwrap_err().kind(), ErrorKind::IllegalMove);
}

#[test]
fn whoever_takes_back_what_serves_meanwhile_is_told_so() {
    let made = asked_then(HandoverPhase::Cleanup, |_, new| new.serving().unwrap());
    assert_eq!(made.unwrap_err().kind(), ErrorKind::IllegalMove);
}

#[test]
fn whoever_flips_what_another_call_has_flipped_meanwhile_is_told_what_it_came_to() {
    let made = asked_then(HandoverPhase::Prepare, |handover, _| {
        let other = handover.flip().unwrap();
        assert_eq!(other.undone, None);
    });
    assert_eq!(made.unwrap().undone, None);
}
