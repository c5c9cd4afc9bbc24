//! What cannot be read is set aside: it keeps nobody else waiting, is listed, holds back what must not go on, and never vanishes.

use std::time::Duration;

use cutover::formats::{Family, NoteId, RowId};
use cutover::{
    Completion, ConflictPolicy, Defined, Ending, Engine, ErrorKind, Failure, Hold, InstanceId, Launch,
    Launched, MigrationOptions, Move, NewStep, Phase, Quarantined, Retry, Tenant,
};

use crate::tap::{DROP, HOUR, Home, KEEP, keyed, many, memory, started, tenant, work_off};

fn definition(name: &str) -> RowId<'static> {
    RowId::Definition { name: name.to_owned().into(), version: 1 }
}

fn name(number: usize) -> String {
    format!("flow-{number:03}")
}

/// Three hundred definitions, some of which are damaged.
fn with_damaged(home: &Home, engine: &Engine, damaged: &[usize]) -> (Tenant, Vec<Vec<u8>>) {
    let tenant = tenant(engine, "a", DROP);
    for number in 0..300 {
        tenant.define(&name(number), 1, "text/plain", format!("body {number}").as_bytes()).unwrap();
    }
    let whole =
        damaged.iter().map(|number| home.damage("a", tenant.id(), &definition(&name(*number)))).collect();
    (tenant, whole)
}

fn definitions(home: &Home, path: &str) -> usize {
    home.rows(path, Family::Definitions).len()
}

fn whats(tenant: &Tenant) -> Vec<String> {
    tenant.migration().quarantine().unwrap().into_iter().map(|entry| entry.what).collect()
}

#[test]
fn definitions_that_cannot_be_read_hold_the_switch_and_nothing_else() {
    let home = Home::new();
    let engine = home.open();
    let (tenant, whole) = with_damaged(&home, &engine, &[0, 150, 299]);
    let migration = tenant.migration();
    migration.start(memory("b"), MigrationOptions::default()).unwrap();
    work_off(&engine);
    assert_eq!(definitions(&home, "b"), 298, "all the others were copied");
    let entries = migration.quarantine().unwrap();
    let expected = ["flow-000", "flow-150", "flow-299"]
        .map(|name| format!("definition {name:?} version 1, in store 1 (memory), family definitions"));
    assert_eq!(whats(&tenant), expected);
    assert!(entries.iter().all(|entry| entry.reason.contains("checksum") && entry.at_ms > 0), "{entries:?}");
    let progress = migration.progress();
    assert_eq!((progress.quarantined, progress.status.phase), (3, Phase::PreMigration));
    assert!(progress.waiting_for.contains("cannot be read") && progress.waiting_for.contains("flow-150"));
    let err = migration.switch().unwrap_err();
    assert_eq!(err.kind(), ErrorKind::IllegalMove);
    assert!(err.to_string().contains("flow-150"), "{err}");
    started(tenant.launch(&keyed("meanwhile")).unwrap());
    assert_eq!(tenant.define("late", 1, "", b"").unwrap(), Defined::Created);

    // A restart forgets nothing.
    drop((migration, tenant, engine));
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    let migration = tenant.migration();
    work_off(&engine);
    assert_eq!(whats(&tenant), expected);
    assert_eq!(tenant.status().phase, Phase::PreMigration);
    let retried = migration.retry().unwrap();
    assert_eq!((retried.readable, retried.left), (0, 3));

    // One is readable again, one is dropped and defined anew, one is only dropped.
    home.put("a", tenant.id(), &definition("flow-000"), &whole[0]);
    let retried = migration.retry().unwrap();
    assert_eq!((retried.readable, retried.left), (1, 2));
    let err = tenant.define("flow-150", 1, "text/plain", b"body 150").unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Corrupt, "nobody can tell whether these are the same bytes: {err}");
    assert_eq!(migration.drop_quarantined(&entries[1], "").unwrap_err().kind(), ErrorKind::InvalidInput);
    migration.drop_quarantined(&entries[1], "torn in the fire").unwrap();
    assert_eq!(migration.drop_quarantined(&entries[1], "again").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tenant.definition("flow-150", 1).unwrap(), None);
    assert_eq!(tenant.define("flow-150", 1, "text/plain", b"another").unwrap(), Defined::Created);
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PreMigration, "one is left");
    migration.drop_quarantined(&entries[2], "not needed").unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PostMigration);
    let journal = migration.journal().unwrap();
    assert!(
        journal.iter().any(|line| line.why.contains("flow-150") && line.why.contains("torn in the fire"))
    );
    assert_eq!(tenant.definition("flow-000", 1).unwrap().unwrap().body, b"body 0");
    assert_eq!(tenant.definition("flow-150", 1).unwrap().unwrap().body, b"another");
    assert_eq!(tenant.definition("flow-299", 1).unwrap(), None);
}

#[test]
fn of_many_definitions_that_cannot_be_read_five_are_named_and_the_others_counted() {
    for (damaged, more) in [(5, None), (7, Some("; and 2 more"))] {
        let home = Home::new();
        let engine = home.open();
        let (tenant, _) = with_damaged(&home, &engine, &(0..damaged).collect::<Vec<_>>());
        tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
        work_off(&engine);
        let said = tenant.migration().progress().waiting_for;
        assert_eq!(said.matches("definition \"flow-").count(), 5, "{said}");
        assert_eq!(said.find("more").is_some(), more.is_some(), "{said}");
        assert!(more.is_none_or(|more| said.ends_with(more)), "{said}");
    }
}

/// Both stores had been compared, and the target lacks what could not be read then.
#[test]
fn a_definition_that_can_be_read_again_is_in_both_stores_at_the_switch() {
    let home = Home::new();
    let engine = home.open();
    let (tenant, whole) = with_damaged(&home, &engine, &[150]);
    let migration = tenant.migration();
    migration.start(memory("b"), MigrationOptions::default().dwell(Phase::Migration, HOUR)).unwrap();
    work_off(&engine);
    assert_eq!((tenant.status().phase, definitions(&home, "b")), (Phase::PreMigration, 300));
    home.put("a", tenant.id(), &definition("flow-150"), &whole[0]);
    assert_eq!(migration.retry().unwrap().readable, 1);
    work_off(&engine);
    assert_eq!((tenant.status().phase, definitions(&home, "b")), (Phase::Migration, 301));
}

#[test]
fn a_definition_that_is_whole_in_the_other_store_is_written_again() {
    for (path, by) in [("a", "compare"), ("b", "compare"), ("a", "define"), ("a", "read"), ("b", "define")] {
        let home = Home::new();
        let engine = home.open();
        let (tenant, _) = with_damaged(&home, &engine, &[]);
        let migration = tenant.migration();
        migration.start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
        work_off(&engine);
        assert_eq!(migration.progress().waiting_for, "being released");
        let row = definition("flow-007");
        let whole = home.damage(path, tenant.id(), &row);
        match by {
            "define" => {
                assert_eq!(
                    tenant.define("flow-007", 1, "x", b"other").unwrap_err().kind(),
                    ErrorKind::AlreadyExists
                );
                assert_eq!(tenant.define("flow-007", 1, "x", b"body 7").unwrap(), Defined::Unchanged);
            }
            "read" => assert_eq!(tenant.definition("flow-007", 1).unwrap().unwrap().body, b"body 7"),
            _ => {
                // The comparison before the end; the switch has been decided.
                migration.release(Hold::Switch).unwrap();
                work_off(&engine);
            }
        }
        if by == "compare" {
            assert_eq!(tenant.status().phase, Phase::Stable, "{path}: {:?}", migration.progress());
            let left = home.value("b", tenant.id(), &row);
            assert_eq!(left.as_ref(), Some(&whole), "{path} by {by}");
        } else {
            assert_eq!(home.value(path, tenant.id(), &row).as_ref(), Some(&whole), "{path} by {by}");
        }
        assert!(whats(&tenant).is_empty());
    }
}

#[test]
fn cancel_and_reverse_are_open_whatever_cannot_be_read() {
    let home = Home::new();
    let engine = home.open();
    let (tenant, _) = with_damaged(&home, &engine, &[5]);
    let migration = tenant.migration();
    migration.start(memory("b"), MigrationOptions::default()).unwrap();
    work_off(&engine);
    assert_eq!(migration.progress().legal, [Move::Switch, Move::Cancel]);
    migration.cancel().unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::Stable);
    assert_eq!(whats(&tenant).len(), 1, "it is still to be seen to");

    // Damage in both stores behind the switch: nothing is in the way back.
    let entry = migration.quarantine().unwrap().remove(0);
    migration.drop_quarantined(&entry, "test").unwrap();
    migration.start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PostMigration);
    for path in ["a", "b"] {
        home.damage(path, tenant.id(), &definition("flow-008"));
    }
    migration.reverse().unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PostRollback, "{:?}", migration.progress());
    assert_eq!(whats(&tenant).len(), 2, "one in each store");
    let err = migration.complete().unwrap_err();
    assert!(err.to_string().contains("flow-008"), "{err}");
    for entry in migration.quarantine().unwrap() {
        migration.drop_quarantined(&entry, "lost").unwrap();
    }
    migration.release(Hold::Complete).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::Stable, "{:?}", migration.progress());
}

/// Ended instances, some of which cannot be read any more.
fn ended(tenant: &Tenant, count: usize) -> Vec<InstanceId> {
    (0..count)
        .map(|number| {
            let launch =
                keyed(&format!("k{number}")).request_id(format!("r{number}")).step(NewStep::new("s"));
            let id = started(tenant.launch(&launch).unwrap());
            tenant.end(id, Ending::Completed, b"out", "").unwrap();
            id
        })
        .collect()
}

fn entry(tenant: &Tenant, what: &str) -> Quarantined {
    let entries = tenant.migration().quarantine().unwrap();
    let found = entries.iter().find(|entry| entry.what.starts_with(what));
    found.unwrap_or_else(|| panic!("{what} is not among {entries:?}")).clone()
}

#[test]
fn the_collector_passes_over_what_it_cannot_read_and_the_store_is_not_given_up() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", DROP);
    let ids = ended(&tenant, 60);
    let id = tenant.id();
    let head = RowId::Instance { id: ids[0] };
    let step = RowId::Step { instance: ids[1], step: "s".into() };
    let key = RowId::Key { scope: "scope".into(), key: b"k2".as_slice().into() };
    let request = RowId::Request { id: b"r3".as_slice().into() };
    let whole: Vec<Vec<u8>> = [&head, &step, &key, &request].map(|row| home.damage("a", id, row)).to_vec();
    work_off(&engine);
    let left = |family| home.rows("a", family).len();
    assert_eq!(left(Family::Expiry), 0, "the index is worked off");
    assert_eq!((left(Family::Keys), left(Family::Requests)), (1, 1));
    // The heads of the damaged one and of the one whose step is; the first one's output too.
    assert_eq!((left(Family::Instances), left(Family::Steps)), (4, 2));
    assert_eq!(tenant.migration().progress().quarantined, 4);
    let before = home.files();
    assert!(!engine.step().unwrap(), "nothing is tried over and over");
    assert_eq!(before, home.files());

    let migration = tenant.migration();
    migration.start(memory("b"), MigrationOptions::default()).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PostMigration, "{:?}", migration.progress());
    let err = migration.complete().unwrap_err();
    assert!(err.to_string().contains("still holds"), "{err}");
    // One is whole again, and collected then.
    home.put("a", id, &step, &whole[1]);
    assert_eq!(migration.retry().unwrap().readable, 1);
    work_off(&engine);
    assert_eq!(left(Family::Steps), 1, "that of the damaged head");
    for what in ["instance ", "key ", "request "] {
        migration.drop_quarantined(&entry(&tenant, what), "worn out").unwrap();
    }
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::Stable, "{:?}", migration.progress());
    let journal = migration.journal().unwrap();
    assert_eq!(journal.iter().filter(|line| line.why.contains("worn out")).count(), 3);
}

#[test]
fn workers_go_on_beside_a_step_that_cannot_be_read() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", KEEP);
    let worker = tenant.register(many("w")).unwrap();
    let launch = |key: &str| started(tenant.launch(&keyed(key).step(NewStep::new("s"))).unwrap());
    let [first, second, third] = ["1", "2", "3"].map(|key| {
        home.clock.advance(Duration::from_millis(10));
        launch(key)
    });
    let step = RowId::Step { instance: first, step: "s".into() };
    let head = RowId::Instance { id: second };
    let whole = [&step, &head].map(|row| home.damage("a", tenant.id(), row));
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    assert_eq!(task.instance, third);
    assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None);
    assert_eq!(whats(&tenant).len(), 2, "{:?}", whats(&tenant));
    worker.complete(&task, Completion::default()).unwrap();

    home.put("a", tenant.id(), &step, &whole[0]);
    assert_eq!(tenant.migration().retry().unwrap().readable, 1);
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    assert_eq!(task.instance, first, "it is given again");
    worker.complete(&task, Completion::default()).unwrap();

    // The other one is given up: with it goes its key.
    assert_eq!(tenant.launch(&keyed("2")).unwrap(), Launched::Conflict { instance: second });
    tenant.migration().drop_quarantined(&entry(&tenant, "instance "), "lost").unwrap();
    assert_eq!(tenant.instance(second).unwrap(), None);
    started(tenant.launch(&keyed("2")).unwrap());
    let of_second = |row: &RowId<'_>| matches!(row, RowId::Step { instance, .. } | RowId::Ready { instance, .. } if *instance == second);
    for family in [Family::Steps, Family::Ready] {
        assert!(home.rows("a", family).iter().all(|(row, _)| !of_second(row)));
    }
}

#[test]
fn undecided_steps_are_listed_beside_one_that_cannot_be_read() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", KEEP);
    let worker = tenant.register(many("w")).unwrap();
    let once = || NewStep::new("s").retry(Retry { attempts: 1, ..Retry::default() });
    let [first, second, third] = ["1", "2", "3"].map(|key| {
        home.clock.advance(Duration::from_millis(10));
        let id = started(tenant.launch(&keyed(key).step(once())).unwrap());
        let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        worker.fail(&task, &Failure::default()).unwrap();
        id
    });
    let listed = || -> Vec<InstanceId> {
        tenant.undecided(None, 10).unwrap().steps.iter().map(|step| step.instance).collect()
    };
    let of = |id| RowId::Step { instance: id, step: "s".into() };
    let whole = home.damage("a", tenant.id(), &of(second));
    assert_eq!(listed(), [first, third]);
    assert_eq!(whats(&tenant).len(), 1, "{:?}", whats(&tenant));
    home.put("a", tenant.id(), &of(second), &whole);
    assert_eq!(tenant.migration().retry().unwrap().readable, 1);
    assert_eq!(listed(), [first, second, third], "its row was not touched");

    // It is given up: with it goes its row, and with the end of another one, of which only the step is damaged, too.
    home.damage("a", tenant.id(), &of(second));
    assert_eq!(listed(), [first, third]);
    tenant.migration().drop_quarantined(&entry(&tenant, "step "), "worn out").unwrap();
    home.damage("a", tenant.id(), &of(third));
    tenant.terminate(third, "enough").unwrap();
    assert_eq!(listed(), [first]);
    assert_eq!(home.rows("a", Family::Ready).len(), 1);
}

/// I1: whoever drops the damaged key of a live instance does not let a second one in.
#[test]
fn the_key_of_a_live_instance_is_written_again_and_not_dropped() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", DROP);
    let live = started(tenant.launch(&keyed("k")).unwrap());
    let gone = started(tenant.launch(&keyed("gone")).unwrap());
    tenant.end(gone, Ending::Completed, b"", "").unwrap();
    let row = |key: &'static str| RowId::Key { scope: "scope".into(), key: key.as_bytes().into() };
    home.damage("a", tenant.id(), &row("gone"));
    let whole = home.damage("a", tenant.id(), &row("k"));
    assert_eq!(tenant.launch(&keyed("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    let replacing = keyed("k").on_conflict(ConflictPolicy::TerminateExisting);
    assert_eq!(tenant.launch(&replacing).unwrap_err().kind(), ErrorKind::Corrupt);
    work_off(&engine);
    tenant.migration().drop_quarantined(&entry(&tenant, "key \"gone\""), "test").unwrap();
    started(tenant.launch(&keyed("gone")).unwrap());
    tenant.migration().drop_quarantined(&entry(&tenant, "key \"k\""), "test").unwrap();
    assert_eq!(tenant.launch(&keyed("k")).unwrap(), Launched::Conflict { instance: live });
    assert_eq!(home.value("a", tenant.id(), &row("k")).map(|value| value.len()), Some(whole.len()));
    // An end knows the key from its instance, and mends it.
    home.damage("a", tenant.id(), &row("k"));
    assert_eq!(tenant.launch(&keyed("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    tenant.end(live, Ending::Completed, b"", "").unwrap();
    assert!(whats(&tenant).is_empty());
    started(tenant.launch(&keyed("k")).unwrap());
}

/// I1: an instance that cannot be read may be the one that holds a damaged key.
#[test]
fn a_damaged_key_is_not_dropped_before_the_damaged_instance_that_may_hold_it() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", KEEP);
    let id = started(tenant.launch(&keyed("k").step(NewStep::new("s"))).unwrap());
    home.damage("a", tenant.id(), &RowId::Key { scope: "scope".into(), key: b"k".as_slice().into() });
    home.damage("a", tenant.id(), &RowId::Instance { id });
    // Either is met by who needs it.
    assert_eq!(tenant.register(many("w")).unwrap().claim("default", Duration::ZERO).unwrap(), None);
    assert_eq!(tenant.launch(&keyed("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    work_off(&engine);
    let (key, instance) = (entry(&tenant, "key "), entry(&tenant, "instance "));
    let err = tenant.migration().drop_quarantined(&key, "lost").unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Corrupt);
    assert!(err.to_string().contains("drop that first"), "{err}");
    assert_eq!(tenant.launch(&keyed("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    tenant.migration().drop_quarantined(&instance, "lost").unwrap();
    tenant.migration().drop_quarantined(&key, "lost").unwrap();
    started(tenant.launch(&keyed("k")).unwrap());
}

/// One row that cannot be read, of a key or of what a replacement was to do, is not in the way of opening after a crash.
#[test]
fn a_key_that_cannot_be_read_keeps_no_engine_from_opening() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", KEEP);
    let [live, other] = ["k", "other"].map(|key| started(tenant.launch(&keyed(key)).unwrap()));
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PostMigration);
    let row = RowId::Key { scope: "scope".into(), key: b"k".as_slice().into() };
    home.damage("a", tenant.id(), &row);
    let intent = RowId::Note(NoteId::Replace { old: other });
    home.put("a", tenant.id(), &intent, b"no record");
    // What a crash at this moment leaves.
    let files = home.files();
    drop((tenant, engine));
    home.restore(&files);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    assert_eq!(whats(&tenant).len(), 2, "{:?}", whats(&tenant));
    assert_eq!(tenant.launch(&keyed("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(tenant.launch(&keyed("other")).unwrap(), Launched::Conflict { instance: other });
    tenant.end(live, Ending::Completed, b"", "").unwrap();
    started(tenant.launch(&keyed("k")).unwrap());
}

/// A definition that is damaged in the store of the launches and whole in the other one is written again by the launch that needs it.
#[test]
fn a_launch_finds_its_definition_in_the_other_store() {
    let home = Home::new();
    let engine = home.open();
    let made = tenant(&engine, "a", KEEP);
    made.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    work_off(&engine);
    let row = definition("work");
    let whole = home.damage("a", made.id(), &row);
    drop((made, engine));
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    started(tenant.launch(&keyed("k")).unwrap());
    assert_eq!(home.value("a", tenant.id(), &row), Some(whole));
}

/// What cannot be read in a target, and is not in the initial store, is seen before anybody is sent there.
#[test]
fn what_is_set_aside_in_the_target_is_listed_before_the_switch() {
    let home = Home::new();
    let engine = home.open();
    let (tenant, _) = with_damaged(&home, &engine, &[]);
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    home.put("b", tenant.id(), &definition("stray"), b"no record");
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PreMigration, "{:?}", tenant.migration().progress());
    let stray = entry(&tenant, "definition \"stray\" version 1");
    assert!(stray.what.contains("store 2"), "{}", stray.what);
    tenant.migration().drop_quarantined(&stray, "test").unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::Stable, "{:?}", tenant.migration().progress());
}

/// Rows first, then what is to be finished, then what is set aside; and never more than five.
#[test]
fn of_what_holds_a_store_back_five_things_are_named() {
    for (instances, set_aside) in
        (0..=6).map(|count| (count, false)).chain((0..=4).map(|count| (count, true)))
    {
        let home = Home::new();
        let engine = home.open();
        let tenant = tenant(&engine, "a", KEEP);
        for _ in 0..instances {
            started(tenant.launch(&Launch::new("work", 1)).unwrap());
        }
        if set_aside {
            started(tenant.launch(&keyed("k")).unwrap());
        }
        let rows = if set_aside { instances + 2 } else { instances };
        tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
        work_off(&engine);
        assert_eq!(tenant.status().phase, Phase::PostMigration, "{:?}", tenant.migration().progress());
        let last = if set_aside {
            home.damage("a", tenant.id(), &RowId::Key { scope: "scope".into(), key: b"k".as_slice().into() });
            assert_eq!(tenant.launch(&keyed("k")).unwrap_err().kind(), ErrorKind::Corrupt);
            "in store 1 (memory)"
        } else {
            let intent = RowId::Note(NoteId::Replace { old: InstanceId::new(tenant.status().initial, 1, 1) });
            home.put("a", tenant.id(), &intent, b"");
            "an intent to finish"
        };
        let said = tenant.migration().progress().waiting_for;
        let left = said.strip_prefix("the store that is left to drain: ").unwrap();
        let named: Vec<&str> = left.split("; ").collect();
        assert_eq!(named.len(), (rows + 1).min(5), "{said}");
        assert_eq!(named.iter().any(|name| name.contains(last)), rows < 5, "{said}");
    }
}
