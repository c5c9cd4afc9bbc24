//! Commits that fail with an I/O error: nobody knows whether they happened until the store is opened again, and nobody is told
//! anything that would turn out wrong then.

use std::time::{Duration, Instant};

use cutover::{
    ConflictPolicy, Ending, Engine, ErrorKind, Filter, InstanceId, Launch, Launched, MigrationOptions,
    NewStep, Phase, Result, Retention, Tenant,
};

use crate::common::{KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step};
use crate::disks::Machine;

/// The process is killed, the disks are mended, and the engine is opened again.
fn reopen(machine: &Machine, engine: Engine) -> (Engine, Tenant) {
    machine.kill();
    drop(engine.close(LONG));
    drop(engine);
    machine.mend_all();
    let engine = machine.open();
    let tenant = engine.tenant("acme").unwrap();
    (engine, tenant)
}

fn replacing(key: &str) -> Launch {
    keyed(key).on_conflict(ConflictPolicy::TerminateExisting)
}

fn indeterminate<T: std::fmt::Debug>(result: Result<T>) {
    let err = result.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Indeterminate, "{err}");
}

fn holder(tenant: &Tenant, key: &str) -> Option<InstanceId> {
    tenant.instance_by_key("scope", key.as_bytes()).unwrap().map(|found| found.id)
}

fn live(tenant: &Tenant) -> Vec<InstanceId> {
    let filter = Filter { live: Some(true), ..Filter::default() };
    tenant.list(&filter, None, 100).unwrap().instances.iter().map(|instance| instance.id).collect()
}

/// Launches go to store b; `k` was launched in store a and lives.
fn moved(machine: &Machine) -> (Engine, Tenant, InstanceId) {
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let old = started(tenant.launch(&with_step("k")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    reach(&tenant, Phase::PostMigration);
    (engine, tenant, old)
}

#[test]
fn a_request_is_not_answered_from_a_row_that_may_be_lost() {
    let machine = Machine::new();
    let engine = machine.open();
    let first = tenant(&engine, memory("a"), KEEP);
    machine.fail("a");
    let launch = with_step("k").request_id("r");
    indeterminate(first.launch(&launch));
    indeterminate(first.launch(&launch));
    indeterminate(first.launch(&keyed("k")));
    indeterminate(first.instance_by_key("scope", b"k"));
    let worker = first.register(many("w")).unwrap();
    assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None, "it may never have been launched");
    // What the failure does not touch is answered.
    assert_eq!(holder(&first, "other"), None);
    let (_engine, again) = reopen(&machine, engine);
    assert_eq!(holder(&again, "k"), None, "it did not happen");
    let id = started(again.launch(&launch).unwrap());
    assert_eq!(again.launch(&launch).unwrap(), Launched::Started(id));
}

#[test]
fn a_definition_is_not_acknowledged_from_a_row_that_may_be_lost() {
    let machine = Machine::new();
    let engine = machine.open();
    let first = tenant(&engine, memory("a"), KEEP);
    machine.fail("a");
    indeterminate(first.define("new", 1, "t", b"x"));
    indeterminate(first.define("new", 1, "t", b"x"));
    indeterminate(first.definition("new", 1));
    assert!(first.definition("work", 1).unwrap().is_some());
    let (_engine, again) = reopen(&machine, engine);
    assert_eq!(again.definition("new", 1).unwrap(), None);
    again.define("new", 1, "t", b"y").unwrap();
}

#[test]
fn an_end_that_may_be_lost_does_not_make_room_in_the_other_store() {
    let machine = Machine::new();
    let (engine, first, old) = moved(&machine);
    machine.fail("a");
    indeterminate(first.end(old, Ending::Completed, b"", ""));
    indeterminate(first.launch(&keyed("k")));
    indeterminate(first.instance(old));
    started(first.launch(&keyed("another")).unwrap());
    let (_engine, again) = reopen(&machine, engine);
    assert_eq!(holder(&again, "k"), Some(old));
    assert_eq!(again.instance(old).unwrap().unwrap().ending(), None, "it goes on");
}

#[test]
fn a_replacement_that_was_interrupted_keeps_its_key_until_it_is_finished() {
    let machine = Machine::new();
    let (engine, first, old) = moved(&machine);
    machine.fail("a");
    indeterminate(first.launch(&replacing("k")));
    indeterminate(first.launch(&keyed("k")));
    indeterminate(first.launch(&replacing("k")));
    let (_engine, again) = reopen(&machine, engine);
    let now = holder(&again, "k").unwrap();
    assert_ne!(now, old);
    assert_eq!(live(&again), [now]);
}

/// The old store takes no writes any more and is given up. The replacement that it refused must not come back.
#[test]
fn a_replacement_that_was_refused_is_not_made_at_the_next_opening() {
    let machine = Machine::new();
    let (engine, first, old) = moved(&machine);
    let other = started(first.launch(&keyed("other")).unwrap());
    machine.fail("a");
    // Written to b and noted as missing in a, which takes no writes from now on.
    first.define("breaks it", 1, "t", b"").unwrap();
    let refused = first.launch(&replacing("k").request_id("r")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert_eq!(holder(&first, "k"), Some(old), "nothing changed");
    first.migration().complete_abandoning().unwrap();
    settle(&first);
    let new = started(first.launch(&keyed("k")).unwrap());
    let (_engine, again) = reopen(&machine, engine);
    assert_eq!(holder(&again, "k"), Some(new));
    let mut all = [new, other];
    all.sort_unstable();
    assert_eq!(live(&again), all);
}

#[test]
fn a_large_replacement_over_two_stores_is_made_as_in_one() {
    let machine = Machine::new();
    let (engine, first, old) = moved(&machine);
    let input = vec![7; 4 << 20];
    let launch = (0..5).fold(replacing("k").input(input.clone()), |launch, n| {
        launch.step(NewStep::new(format!("step {n}")).input(input.clone()))
    });
    let new = started(first.launch(&launch).unwrap());
    assert_eq!(first.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
    let (_engine, again) = reopen(&machine, engine);
    assert_eq!(live(&again), [new]);
    assert_eq!(again.input(new).unwrap().unwrap(), input);
    let worker = again.register(many("w")).unwrap();
    for _ in 0..5 {
        let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        assert_eq!((task.instance, task.input == input), (new, true));
    }
}

#[test]
fn a_store_that_takes_no_writes_does_not_keep_the_other_from_being_collected() {
    let machine = Machine::new();
    let engine = machine.open();
    let short = Retention { instance_ms: 300, key_ms: 300, request_ms: 300 };
    let tenant = tenant(&engine, memory("a"), short);
    let held = started(tenant.launch(&with_step("held")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    tenant.end(held, Ending::Completed, b"", "").unwrap();
    machine.fail("a");
    tenant.define("breaks it", 1, "t", b"").unwrap();
    let new = started(tenant.launch(&keyed("new")).unwrap());
    tenant.end(new, Ending::Completed, b"", "").unwrap();
    let until = Instant::now() + LONG / 3;
    while tenant.instance(new).unwrap().is_some() {
        assert!(Instant::now() < until, "it was never collected");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(tenant.instance(held).unwrap().is_some(), "what takes no writes keeps what it has");
}
