//! Closing and opening again, in every phase; what a kill and a power cut leave.

use std::time::Duration;

use cutover::formats::Family;
use cutover::formats::marker;
use cutover::store::Store;
use cutover::{
    Completion, Defined, Durability, Ending, Engine, ErrorKind, Launched, MigrationOptions, Phase, Settled,
    StoreSpec, Tenant,
};

use crate::common::{DROP, Home, KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step};

fn close(engine: Engine) {
    engine.close(LONG).unwrap();
}

fn drive_to(engine: &Engine, tenant: &Tenant, phase: Phase) {
    let until = std::time::Instant::now() + LONG;
    while tenant.status().phase != phase {
        engine.step().unwrap();
        assert!(std::time::Instant::now() < until, "{:?}", tenant.migration().progress());
    }
}

#[test]
fn everything_is_there_after_closing_and_opening_again() {
    let home = Home::new();
    let engine = home.open();
    let before = tenant(&engine, memory("a"), KEEP);
    let live = started(before.launch(&with_step("live").request_id("r")).unwrap());
    let ended = started(before.launch(&keyed("ended")).unwrap());
    before.end(ended, Ending::Failed, b"out", "why").unwrap();
    let task = before.register(many("w")).unwrap().claim("default", Duration::ZERO).unwrap().unwrap();
    close(engine);
    assert_eq!(before.launch(&keyed("late")).unwrap_err().kind(), ErrorKind::Unavailable);
    let engine = home.open();
    let after = engine.tenant("acme").unwrap();
    assert_eq!(after.instance(ended).unwrap().unwrap().output, b"out");
    assert_eq!(started(after.launch(&with_step("live").request_id("r")).unwrap()), live);
    let worker = after.register(many("w")).unwrap();
    assert!(matches!(worker.complete(&task, Completion::default()).unwrap(), Settled::Refused(_)));
    let again = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    assert!(again.token > task.token, "tokens rise across restarts");
    assert_eq!((again.instance, again.step.as_str()), (live, "only"));
}

/// In each phase: launch, kill, open; the phase is the same, both launches are there, the migration goes on to its end.
#[test]
fn a_kill_in_every_phase_leaves_the_last_recorded_phase_and_goes_on() {
    let through = [Phase::PreMigration, Phase::Migration, Phase::PostMigration];
    let back = [Phase::PreRollback, Phase::RollingBack, Phase::PostRollback];
    for phase in through.into_iter().chain(back) {
        let home = Home::new();
        let engine = home.builder().background(false).open().unwrap();
        let before = tenant(&engine, memory("a"), DROP);
        let first = started(before.launch(&with_step("first")).unwrap());
        let options = Phase::ALL.iter().fold(MigrationOptions::default(), |options, other| {
            options.dwell(*other, if *other == phase { Duration::from_millis(300) } else { Duration::ZERO })
        });
        before.migration().start(memory("b"), options).unwrap();
        if back.contains(&phase) {
            drive_to(&engine, &before, Phase::PostMigration);
            before.migration().reverse().unwrap();
        }
        drive_to(&engine, &before, phase);
        let second = started(before.launch(&with_step("second")).unwrap());
        let status = before.status();
        home.kill(engine);
        let engine = home.open();
        let after = engine.tenant("acme").unwrap();
        assert!(after.status().epoch >= status.epoch);
        for (id, key) in [(first, "first"), (second, "second")] {
            assert_eq!(after.instance(id).unwrap().unwrap().ending(), None, "{phase}");
            assert_eq!(after.launch(&keyed(key)).unwrap(), Launched::Conflict { instance: id }, "{phase}");
        }
        let worker = after.register(many("w")).unwrap();
        for _ in 0..2 {
            let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
            worker.complete(&task, Completion::default()).unwrap();
        }
        settle(&after);
        let expected = if back.contains(&phase) { 1 } else { 2 };
        assert_eq!(after.status().initial.0, expected, "{phase}");
        assert!(after.definition("work", 1).unwrap().is_some());
    }
}

#[test]
fn a_copy_goes_on_where_it_was() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let before = tenant(&engine, memory("a"), DROP);
    for n in 0..1_000 {
        before.define(&format!("d{n:04}"), 1, "t", b"x").unwrap();
    }
    before.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    while before.migration().progress().copy.copied < 300 {
        engine.step().unwrap();
    }
    close(engine);
    let engine = home.builder().background(false).open().unwrap();
    let after = engine.tenant("acme").unwrap();
    while after.migration().progress().copy.copied == 0 {
        engine.step().unwrap();
    }
    assert!(after.migration().progress().copy.copied >= 300 + 128, "{:?}", after.migration().progress());
    drive_to(&engine, &after, Phase::Stable);
}

/// At `Buffered` power loss takes a different tail of each store. The key below is then live in both; opening keeps the later launch.
#[test]
fn a_key_live_in_both_after_a_loss_of_power_keeps_the_later_launch() {
    let mut home = Home::new();
    home.durability = Durability::Buffered;
    let engine = home.builder().background(false).open().unwrap();
    let before = tenant(&engine, memory("a"), KEEP);
    let old = started(before.launch(&with_step("k")).unwrap());
    before.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    drive_to(&engine, &before, Phase::PostMigration);
    // The end in the initial store is lost, the launch in the target is kept.
    before.terminate(old, "").unwrap();
    let new = started(before.launch(&with_step("k")).unwrap());
    home.kill(engine);
    home.power_cut("a");
    let engine = home.open();
    let after = engine.tenant("acme").unwrap();
    assert_eq!(after.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
    assert_eq!(after.instance_by_key("scope", b"k").unwrap().unwrap().id, new);
    let why = after.migration().journal().unwrap().pop().unwrap().why;
    assert!(why.contains(&old.to_string()), "{why}");
}

#[test]
fn a_target_that_does_not_open_is_dropped_before_the_switch() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let before = tenant(&engine, memory("a"), DROP);
    before.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    home.kill(engine);
    home.break_store("b");
    let engine = home.open();
    let after = engine.tenant("acme").unwrap();
    settle(&after);
    assert_eq!((after.status().phase, after.status().initial.0), (Phase::Stable, 1));
    let journal = after.migration().journal().unwrap();
    assert!(journal.iter().any(|line| line.who == "recovery" && line.why.contains("does not open")));
}

/// Found by the model: the comparison copied with no durability, a repeat of the define found the definition in both stores and was acknowledged,
/// and a power cut took it from the store that launches go to, with no gap noted.
#[test]
fn what_a_comparison_copies_is_durable_before_anyone_is_told_that_both_stores_have_it() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let before = tenant(&engine, memory("a"), DROP);
    before.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    drive_to(&engine, &before, Phase::PostMigration);
    close(engine);
    let b = home.store("b");
    b.remove_range(Family::Definitions, &[], &[u8::MAX; 64]).unwrap();
    b.sync().unwrap();
    assert_eq!(definitions(&*b), 0);
    drop(b);
    let engine = home.builder().background(false).open().unwrap();
    let after = engine.tenant("acme").unwrap();
    let until = std::time::Instant::now() + LONG;
    while after.migration().progress().waiting_for != "being released" {
        engine.step().unwrap();
        assert!(std::time::Instant::now() < until, "{:?}", after.migration().progress());
    }
    assert_eq!(after.define("work", 1, "text/plain", b"do it").unwrap(), Defined::Unchanged);
    drop(after);
    home.kill(engine);
    home.power_cut("b");
    assert_eq!(definitions(&*home.store("b")), 1);
}

fn definitions(store: &dyn Store) -> usize {
    let mut rows = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.scan(Family::Definitions, &[], &[], count).unwrap();
    rows
}

#[test]
fn a_directory_is_held_by_one_engine_and_must_be_ours() {
    let home = Home::new();
    let engine = home.open();
    let second = home.builder().open().err().unwrap();
    assert_eq!(second.kind(), ErrorKind::Locked, "{second}");
    close(engine);
    drop(home.open());
    let foreign = home.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "x").unwrap();
    let err = Engine::builder(&foreign).open().err().unwrap();
    assert_eq!(err.kind(), ErrorKind::Foreign);
    assert!(err.to_string().contains("\"thesis.txt\""), "{err}");
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "unchanged");
    let path = home.path().join("data/CUTOVER");
    // A newer program writes the copy first: it has a checksum, so it decides.
    std::fs::write(home.path().join("data/meta/marker"), marker::copy(2)).unwrap();
    std::fs::write(&path, marker::text(2)).unwrap();
    let err = home.builder().open().err().unwrap();
    assert_eq!(err.kind(), ErrorKind::Foreign);
    assert!(err.to_string().contains("newer version: its format is 2"), "{err}");
}

#[test]
fn a_store_that_is_not_of_this_engine_is_not_taken() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    std::fs::create_dir(home.path().join("data/taken")).unwrap();
    std::fs::write(home.path().join("data/taken/file"), "x").unwrap();
    let err = tenant.migration().start(memory("taken"), MigrationOptions::default()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Foreign, "{err}");
    assert_eq!(tenant.status().phase, Phase::Stable);
    let err = tenant
        .migration()
        .start(StoreSpec::driver("memory").path("b").layout("json"), MigrationOptions::default());
    assert_eq!(err.unwrap_err().kind(), ErrorKind::InvalidInput);
    reach(&tenant, Phase::Stable);
}
