//! A migration that is asked for again is made once.

use cutover::formats::meta::Outcome;
use cutover::{ErrorKind, Migration, MigrationOptions, Phase, Ran, RunId, Tenant, TenantOptions};

use crate::common::{Home, KEEP, memory, reach, settle, tenant};

fn run(id: &str, attempt: &str) -> RunId {
    RunId { id: id.into(), attempt: attempt.into() }
}

fn ask(migration: &Migration, id: &str, attempt: &str, to: &str) -> cutover::Result<Ran> {
    migration.run(&run(id, attempt), memory(to), MigrationOptions::default().hold_switch(true))
}

fn begun(ran: Ran) -> u64 {
    match ran {
        Ran::Began(number) => number,
        other => panic!("not begun: {other}"),
    }
}

/// How many lines there are in its journal: nothing happens without one.
fn lines(tenant: &Tenant) -> usize {
    tenant.migration().journal().unwrap().len()
}

#[test]
fn one_that_succeeded_is_not_made_again_also_after_a_restart_and_after_others() {
    let home = Home::new();
    let engine = home.open();
    let site = tenant(&engine, memory("a"), KEEP);
    let migration = site.migration();
    let number = begun(migration.run(&run("up", "1"), memory("b"), MigrationOptions::default()).unwrap());
    settle(&site);
    migration.start(memory("c"), MigrationOptions::default()).unwrap();
    settle(&site);
    let before = (site.status(), lines(&site));
    for attempt in ["1", "2"] {
        let Ran::Skipped(ended) = ask(&migration, "up", attempt, "b").unwrap() else { panic!("made again") };
        assert_eq!((ended.id, ended.outcome), (number, Outcome::Completed));
    }
    assert_eq!((site.status(), lines(&site)), before);
    engine.close(crate::common::LONG).unwrap();
    let engine = home.open();
    let site = engine.tenant("acme").unwrap();
    let said = ask(&site.migration(), "up", "1", "b").unwrap().to_string();
    assert_eq!(said, format!("nothing to do: migration {number} completed before"));
    begun(ask(&site.migration(), "down", "1", "d").unwrap());
}

#[test]
fn one_that_a_kill_interrupted_goes_on_as_the_attempt_that_asks_and_another_one_is_a_conflict() {
    let home = Home::new();
    let engine = home.open();
    let site = tenant(&engine, memory("a"), KEEP);
    let number = begun(ask(&site.migration(), "up", "1", "b").unwrap());
    home.kill(engine);
    let engine = home.open();
    let site = engine.tenant("acme").unwrap();
    let migration = site.migration();
    let before = lines(&site);
    assert_eq!(ask(&migration, "up", "1", "b").unwrap(), Ran::GoesOn(number));
    assert_eq!(lines(&site), before, "the same attempt: nothing is new");
    assert_eq!(ask(&migration, "up", "2", "b").unwrap(), Ran::GoesOn(number));
    let journal = migration.journal().unwrap();
    assert!(journal.last().unwrap().why.contains("attempt \"2\""), "{:?}", journal.last());
    let other = ask(&migration, "down", "1", "b").unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
    let said = format!("the tenant \"acme\" is in migration {number}, run \"up\", attempt \"2\"");
    assert_eq!(other.to_string(), said);
    let elsewhere = ask(&migration, "up", "3", "c").unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::Conflict, "{elsewhere}");
    migration.switch().ok();
    migration.release(cutover::Hold::Switch).unwrap();
    settle(&site);
    assert!(matches!(ask(&migration, "up", "3", "b").unwrap(), Ran::Skipped(ended) if ended.id == number));
}

#[test]
fn an_attempt_that_was_cancelled_stays_so_and_the_next_one_begins_anew() {
    let home = Home::new();
    let engine = home.open();
    let site = tenant(&engine, memory("a"), KEEP);
    let migration = site.migration();
    let number = begun(ask(&migration, "up", "1", "b").unwrap());
    migration.cancel().unwrap();
    settle(&site);
    let Ran::Skipped(ended) = ask(&migration, "up", "1", "b").unwrap() else { panic!("begun again") };
    assert_eq!((ended.id, ended.outcome), (number, Outcome::Cancelled));
    assert_eq!(site.status().phase, Phase::Stable);
    assert!(begun(ask(&migration, "up", "2", "b").unwrap()) > number);
    // One that nobody named is under way for nobody.
    migration.cancel().unwrap();
    settle(&site);
    migration.start(memory("c"), MigrationOptions::default().hold_switch(true)).unwrap();
    assert_eq!(ask(&migration, "up", "3", "c").unwrap_err().kind(), ErrorKind::Conflict);
}

/// That it goes on would be said of a way back, and the attempt would be over before it had tried anything.
#[test]
fn one_that_was_reversed_is_a_conflict_until_it_is_back_and_costs_no_attempt() {
    let home = Home::new();
    let engine = home.open();
    let site = tenant(&engine, memory("a"), KEEP);
    let migration = site.migration();
    let held = || MigrationOptions::default().hold_complete(true);
    let number = begun(migration.run(&run("up", "1"), memory("b"), held()).unwrap());
    reach(&site, Phase::PostMigration);
    migration.reverse().unwrap();
    reach(&site, Phase::PostRollback);
    let before = lines(&site);
    for attempt in ["1", "2"] {
        let err = ask(&migration, "up", attempt, "b").unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Conflict);
        assert!(
            err.to_string().ends_with("on its way back: ask again when it is back, or reverse it"),
            "{err}"
        );
    }
    assert_eq!(lines(&site), before, "no attempt was noted");
    migration.reverse().unwrap();
    assert_eq!(ask(&migration, "up", "1", "b").unwrap(), Ran::GoesOn(number));
    reach(&site, Phase::PostMigration);
    migration.reverse().unwrap();
    migration.release(cutover::Hold::Complete).unwrap();
    settle(&site);
    let Ran::Skipped(ended) = ask(&migration, "up", "1", "b").unwrap() else { panic!("begun again") };
    assert_eq!((ended.id, ended.outcome), (number, Outcome::RolledBack));
    assert!(begun(ask(&migration, "up", "2", "b").unwrap()) > number);
}

#[test]
fn a_plan_does_not_fit_after_a_tenant_has_moved_between_stores_that_were_there() {
    let home = Home::new();
    let engine = home.open();
    let site = tenant(&engine, memory("a"), KEEP);
    let other = engine.create_tenant("other", TenantOptions::new(memory("a"))).unwrap();
    engine.create_tenant("third", TenantOptions::new(memory("b"))).unwrap();
    let plan = engine.plan();
    other.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    settle(&other);
    let options = || MigrationOptions::default().hold_switch(true).planned(plan.clone());
    let err = site.migration().start(memory("b"), options()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Drift);
    let said = format!("the plan does not fit any more: {} was in store 1 and is in store 2", other.id());
    assert_eq!(err.to_string(), said);
    other.migration().start(memory("a"), MigrationOptions::default()).unwrap();
    settle(&other);
    site.migration().start(memory("b"), options()).unwrap();
}

#[test]
fn a_plan_that_no_longer_fits_is_refused_and_nothing_changes() {
    let home = Home::new();
    let engine = home.open();
    let site = tenant(&engine, memory("a"), KEEP);
    let migration = site.migration();
    let plan = engine.plan();
    let newcomer = engine.create_tenant("newcomer", TenantOptions::new(memory("n"))).unwrap();
    let options = || MigrationOptions::default().hold_switch(true).planned(plan.clone());
    let before = (site.status(), lines(&site), engine.plan());
    let err = migration.run(&run("up", "1"), memory("b"), options()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Drift);
    let said = format!(
        "the plan does not fit any more: {} was added, {} (memory at n) was added",
        newcomer.id(),
        newcomer.status().initial
    );
    assert_eq!(err.to_string(), said);
    assert_eq!(migration.start(memory("b"), options()).unwrap_err().kind(), ErrorKind::Drift);
    assert_eq!((site.status(), lines(&site), engine.plan()), before);
    // A plan can be kept: it is a value that is written and read.
    let kept = serde_json::to_string(&engine.plan()).unwrap();
    let read: cutover::Plan = serde_json::from_str(&kept).unwrap();
    begun(migration.run(&run("up", "1"), memory("b"), MigrationOptions::default().planned(read)).unwrap());
    // Its own target came since, and it goes on all the same.
    assert!(matches!(
        migration.run(&run("up", "2"), memory("b"), options()).unwrap(),
        Ran::GoesOn(_) | Ran::Skipped(_)
    ));
}
