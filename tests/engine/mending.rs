//! A store that fails is opened again while the engine runs: what was in doubt is known then, and nothing else has changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::clock::ManualClock;
use cutover::formats::RowId;
use cutover::{
    Completion, ConflictPolicy, Durability, Ended, Ending, Engine, ErrorKind, Event, Filter, Hold,
    InstanceId, Launched, MigrationOptions, NewStep, Observer, Phase, Result, Retention, Settled, Tenant,
};
use parking_lot::Mutex;

use crate::common::{DROP, KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step, work};
use crate::disks::Machine;

/// Calls until it is answered without an error that says "not now".
fn at_last<T>(mut call: impl FnMut() -> Result<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(err) => {
                let later = [ErrorKind::Unavailable, ErrorKind::NoSpace, ErrorKind::Indeterminate]
                    .contains(&err.kind());
                assert!(later, "{err:?}");
                assert!(Instant::now() < until, "still {err:?}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> String {
    let err = result.unwrap_err();
    assert_eq!(err.kind(), kind, "{err}");
    err.to_string()
}

fn live(tenant: &Tenant) -> Vec<InstanceId> {
    let filter = Filter { live: Some(true), ..Filter::default() };
    tenant.list(&filter, None, 100).unwrap().instances.iter().map(|instance| instance.id).collect()
}

/// Launches go to store b; `k` was launched in store a and lives.
fn moved(engine: &Engine) -> (Tenant, InstanceId) {
    let tenant = tenant(engine, memory("a"), KEEP);
    let old = started(tenant.launch(&with_step("k")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    reach(&tenant, Phase::PostMigration);
    (tenant, old)
}

#[test]
fn a_full_disk_is_said_and_launches_go_on_when_there_is_space() {
    for kept in [true, false] {
        let machine = Machine::new();
        let engine = machine.open();
        let tenant = tenant(&engine, memory("a"), KEEP);
        let before = started(tenant.launch(&with_step("before").request_id("before")).unwrap());
        let worker = tenant.register(many("w")).unwrap();
        // From here on the engine knows in memory that no other step is ready.
        let held = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        assert_eq!((held.instance, worker.claim("default", Duration::ZERO).unwrap()), (before, None));
        machine.fill("a");
        let doubtful = with_step("doubtful").request_id("doubtful");
        let said = refused(tenant.launch(&doubtful), ErrorKind::Indeterminate);
        assert!(said.contains("no storage space"), "{said}");
        let said = refused(tenant.launch(&keyed("next")), ErrorKind::NoSpace);
        assert!(said.contains("no space left on its disk"), "{said}");
        // Reads go on, and what is in doubt stays in doubt.
        assert_eq!(tenant.launch(&keyed("before")).unwrap(), Launched::Conflict { instance: before });
        refused(tenant.launch(&doubtful), ErrorKind::Indeterminate);
        refused(tenant.launch(&keyed("doubtful")), ErrorKind::Indeterminate);
        refused(tenant.instance_by_key("scope", b"doubtful"), ErrorKind::Indeterminate);
        assert_eq!(machine.openings("a"), 1, "it is not closed before that can help");
        machine.mend("a", kept);
        let there = at_last(|| tenant.instance_by_key("scope", b"doubtful"));
        assert_eq!(there.is_some(), kept);
        let id = started(at_last(|| tenant.launch(&doubtful)));
        assert!(there.is_none_or(|there| there.id == id), "the same answer as the first time");
        started(tenant.launch(&keyed("next")).unwrap());
        assert_eq!(machine.openings("a"), 2);
        // The doubtful one's step is given out, and the lease from before is good.
        let given = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        assert_eq!(given.instance, id);
        for task in [held, given] {
            let settled = worker.complete(&task, Completion::default()).unwrap();
            assert_eq!(settled, Settled::Done { ended: Some(Ending::Completed) });
        }
        assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None);
        engine.close(LONG).unwrap();
    }
}

#[test]
fn a_store_that_cannot_be_opened_yet_is_tried_until_it_can() {
    let machine = Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let other = engine.create_tenant("other", cutover::TenantOptions::new(memory("b"))).unwrap();
    other.define("work", 1, "t", b"").unwrap();
    machine.fail("a");
    machine.deceive("a", true);
    refused(tenant.launch(&keyed("k")), ErrorKind::Indeterminate);
    let until = Instant::now() + LONG;
    while tenant.definition("nothing", 1).is_ok() {
        assert!(Instant::now() < until, "it is still open");
        std::thread::sleep(Duration::from_millis(1));
    }
    refused(tenant.launch(&work()), ErrorKind::Unavailable);
    refused(tenant.register(many("w")).unwrap().claim("default", Duration::ZERO), ErrorKind::Unavailable);
    started(other.launch(&keyed("k")).unwrap());
    assert!(engine.close(LONG).is_err(), "what it closes is not whole");
    machine.mend_all();
    let engine = machine.open();
    started(engine.tenant("acme").unwrap().launch(&work()).unwrap());
}

#[test]
fn a_lease_from_before_is_good_for_one_result() {
    for kept in [true, false] {
        let machine = Machine::new();
        let engine = machine.open();
        let tenant = tenant(&engine, memory("a"), KEEP);
        let id = started(tenant.launch(&with_step("k")).unwrap());
        let worker = tenant.register(many("w")).unwrap();
        let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        machine.fail("a");
        refused(worker.complete(&task, Completion::default()), ErrorKind::Indeterminate);
        machine.mend("a", kept);
        let settled = at_last(|| worker.complete(&task, Completion::default()));
        assert_eq!(matches!(settled, Settled::Done { .. }), !kept, "{settled:?}");
        assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), Some(Ending::Completed));
        assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None);
    }
}

/// The cancel waits for the lease of a step whose report was lost and had happened: nobody else would end the instance.
#[test]
fn a_cancel_that_waits_for_a_report_that_had_happened_is_carried_out() {
    let machine = Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k").step(NewStep::new("second"))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    machine.fail("a");
    refused(worker.complete(&task, Completion::default()), ErrorKind::Indeterminate);
    machine.mend("a", true);
    assert_eq!(at_last(|| tenant.cancel(id, "enough")), Ended::Asked);
    let other = tenant.register(many("other")).unwrap();
    assert_eq!(other.claim("default", Duration::ZERO).unwrap(), None, "it is cancelled");
    assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), None, "one holds a lease");
    assert!(matches!(worker.complete(&task, Completion::default()).unwrap(), Settled::Refused(_)));
    assert_eq!(other.claim("default", Duration::ZERO).unwrap(), None);
    assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), Some(Ending::Cancelled));
}

/// Whether a damaged instance was dropped is not answered from a commit that failed.
#[test]
fn what_a_failed_drop_of_damage_removed_is_in_doubt() {
    for kept in [true, false] {
        let machine = Machine::new();
        let engine = machine.builder().background(false).open().unwrap();
        let tenant = tenant(&engine, memory("a"), KEEP);
        let id = started(tenant.launch(&with_step("k")).unwrap());
        machine.damage("a", tenant.id(), &RowId::Instance { id });
        let worker = tenant.register(many("w")).unwrap();
        assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None);
        let migration = tenant.migration();
        let entry = migration.quarantine().unwrap().pop().unwrap();
        machine.fail("a");
        refused(migration.drop_quarantined(&entry, "lost"), ErrorKind::Indeterminate);
        refused(tenant.instance(id), ErrorKind::Indeterminate);
        machine.mend("a", kept);
        engine.step().unwrap();
        match kept {
            true => assert_eq!(tenant.instance(id).unwrap(), None),
            false => drop(refused(tenant.instance(id), ErrorKind::Corrupt)),
        }
    }
}

/// What is found after opening again is collected, although nobody was told its deadline.
#[test]
fn what_turns_out_to_have_happened_is_collected() {
    let machine = Machine::new();
    let clock = Arc::new(ManualClock::at(1_000_000));
    let engine = machine.builder().background(false).clock(clock.clone()).open().unwrap();
    let short = Retention { instance_ms: 1_000, key_ms: 1_000, request_ms: 1_000 };
    let tenant = tenant(&engine, memory("a"), short);
    let id = started(tenant.launch(&keyed("k")).unwrap());
    engine.step().unwrap();
    machine.fail("a");
    refused(tenant.end(id, Ending::Completed, b"", ""), ErrorKind::Indeterminate);
    machine.mend("a", true);
    engine.step().unwrap();
    assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), Some(Ending::Completed));
    engine.step().unwrap();
    clock.advance(Duration::from_secs(1));
    engine.step().unwrap();
    assert!(tenant.instance(id).unwrap().is_none(), "it was never collected");
}

#[test]
fn a_failed_target_keeps_no_launch_from_the_initial_store_and_the_move_goes_on() {
    let machine = Machine::new();
    let engine = machine.open();
    let retention = Retention { request_ms: 3_600_000, ..DROP };
    let tenant = tenant(&engine, memory("a"), retention);
    let first = started(tenant.launch(&with_step("k").request_id("r")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    machine.fill("b");
    tenant.define("gap", 1, "t", b"x").unwrap();
    machine.deceive("b", false);
    // Failed, then closed, and nobody sees it.
    let until = Instant::now() + LONG;
    let mut n = 0;
    while machine.openings("b") < 2 && n < 200 {
        started(tenant.launch(&keyed(&format!("{n}")).request_id(format!("{n}"))).unwrap());
        assert_eq!(tenant.launch(&keyed("k")).unwrap(), Launched::Conflict { instance: first });
        assert_eq!(started(tenant.launch(&with_step("k").request_id("r")).unwrap()), first);
        assert!(tenant.instance(first).unwrap().is_some());
        assert!(tenant.instance_by_key("scope", b"k").unwrap().is_some());
        assert_eq!(
            tenant.launch(&cutover::Launch::new("undefined", 1)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        tenant.define(&format!("during {n}"), 1, "t", b"y").unwrap();
        n += 1;
        std::thread::sleep(Duration::from_millis(2));
        assert!(Instant::now() < until);
    }
    assert_eq!(tenant.status().phase, Phase::PreMigration);
    let said = tenant.migration().progress();
    assert!(said.error.is_some(), "{said:?}");
    machine.mend("b", false);
    tenant.migration().release(Hold::Switch).unwrap();
    reach(&tenant, Phase::PostMigration);
    for n in 0..n {
        let id = at_last(|| tenant.instance_by_key("scope", format!("{n}").as_bytes())).unwrap().id;
        tenant.end(id, Ending::Completed, b"", "").unwrap();
        assert!(tenant.definition(&format!("during {n}"), 1).unwrap().is_some());
    }
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    worker.complete(&task, Completion::default()).unwrap();
    settle(&tenant);
    assert!(tenant.definition("gap", 1).unwrap().is_some());
    assert_eq!(tenant.migration().progress().error, None);
}

/// The store that is left fails: what needs only the other one goes on, and the move waits.
#[test]
fn a_store_that_is_left_and_fails_stops_only_what_needs_it() {
    for kept in [true, false] {
        let machine = Machine::new();
        let engine = machine.open();
        let (tenant, old) = moved(&engine);
        let new = started(tenant.launch(&with_step("new")).unwrap());
        machine.fail("a");
        refused(tenant.end(old, Ending::Completed, b"", ""), ErrorKind::Indeterminate);
        machine.deceive("a", kept);
        let until = Instant::now() + LONG;
        while tenant.instance(old).is_err_and(|err| err.kind() == ErrorKind::Indeterminate)
            && tenant.list(&Filter::default(), None, 10).is_ok()
        {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        started(tenant.launch(&work()).unwrap());
        assert!(tenant.instance(new).unwrap().is_some());
        refused(tenant.launch(&keyed("another")), ErrorKind::Unavailable);
        let worker = tenant.register(many("w")).unwrap();
        let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
        assert_eq!(task.instance, new, "steps of the store that is open are given out");
        worker.complete(&task, Completion::default()).unwrap();
        assert_eq!(tenant.status().phase, Phase::PostMigration);
        machine.mend("a", kept);
        let answer = at_last(|| tenant.launch(&keyed("k")));
        if kept {
            started(answer);
        } else {
            assert_eq!(answer, Launched::Conflict { instance: old });
            tenant.end(old, Ending::Completed, b"", "").unwrap();
        }
    }
}

/// The end of the old instance fails: whether it happened or not, the replacement that was begun is finished without a restart.
#[test]
fn a_replacement_over_two_stores_is_finished_when_either_store_is_back() {
    for (failing, kept) in [("a", true), ("a", false), ("b", true), ("b", false)] {
        let machine = Machine::new();
        let engine = machine.open();
        let (tenant, old) = moved(&engine);
        machine.fail(failing);
        let replace = keyed("k").on_conflict(ConflictPolicy::TerminateExisting).request_id("r");
        refused(tenant.launch(&replace), ErrorKind::Indeterminate);
        refused(tenant.launch(&keyed("k")), ErrorKind::Indeterminate);
        machine.mend(failing, kept);
        let now = at_last(|| tenant.instance_by_key("scope", b"k")).unwrap().id;
        let done = failing == "a" || kept;
        assert_eq!(now != old, done, "{failing} {kept}");
        let answer = started(at_last(|| tenant.launch(&replace)));
        assert_eq!(answer == now, done, "the same answer if it was begun");
        assert_eq!(live(&tenant), [answer]);
        assert_eq!(tenant.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
    }
}

/// What mending finishes in one store, because the other one had failed, may make steps ready in it: they are given out.
#[test]
fn the_step_of_a_replacement_that_was_finished_by_mending_is_given_out() {
    for both in [false, true] {
        let machine = Machine::new();
        let engine = machine.open();
        let (tenant, _) = moved(&engine);
        let worker = tenant.register(many("w")).unwrap();
        let claim = || worker.claim("default", Duration::ZERO);
        // Nothing is left to be read in either queue.
        assert!(claim().unwrap().is_some() && claim().unwrap().is_none());
        machine.fail("a");
        let replace = with_step("k").on_conflict(ConflictPolicy::TerminateExisting).request_id("r");
        refused(tenant.launch(&replace), ErrorKind::Indeterminate);
        if both {
            machine.fail("b");
            refused(tenant.launch(&work()), ErrorKind::Indeterminate);
            machine.mend("b", true);
            started(at_last(|| tenant.launch(&work())));
            // What is in doubt is passed over, for now.
            assert_eq!(claim().unwrap(), None);
        }
        machine.mend("a", false);
        let new = started(at_last(|| tenant.launch(&replace)));
        let until = Instant::now() + LONG;
        let task = loop {
            if let Some(task) = claim().unwrap() {
                break task;
            }
            assert!(Instant::now() < until, "its step is given to nobody");
        };
        assert_eq!(task.instance, new);
    }
}

/// Both stores fail in the middle of a replacement. The first that is back serves what needs only it.
#[test]
fn what_needs_both_stores_stays_in_doubt_until_both_are_back() {
    let machine = Machine::new();
    let engine = machine.open();
    let (tenant, old) = moved(&engine);
    machine.fail("a");
    let replace = keyed("k").on_conflict(ConflictPolicy::TerminateExisting).request_id("r");
    refused(tenant.launch(&replace), ErrorKind::Indeterminate);
    machine.fail("b");
    refused(tenant.launch(&work()), ErrorKind::Indeterminate);
    machine.mend("b", true);
    started(at_last(|| tenant.launch(&work())));
    refused(tenant.launch(&keyed("k")), ErrorKind::Indeterminate);
    refused(tenant.launch(&replace), ErrorKind::Indeterminate);
    machine.mend("a", false);
    let new = started(at_last(|| tenant.launch(&replace)));
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap().unwrap().id, new);
    assert_eq!(tenant.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
}

/// At `Buffered` a failed disk may take what was acknowledged, as power loss may. A key is then live twice, and the later stays.
#[test]
fn a_key_that_is_live_twice_after_a_loss_is_resolved_before_it_is_answered() {
    let machine = Machine::new();
    let engine = machine.builder().durability(Durability::Buffered).open().unwrap();
    let (tenant, old) = moved(&engine);
    // No background sync may come between the end and the cut, so the cut is made at once.
    tenant.end(old, Ending::Completed, b"", "").unwrap();
    let new = started(tenant.launch(&keyed("k")).unwrap());
    machine.power_cut("a");
    let until = Instant::now() + LONG;
    // The next write finds the failure.
    while tenant.define("finds it", 1, "t", b"").is_err() {
        assert!(Instant::now() < until);
    }
    assert_eq!(at_last(|| tenant.instance_by_key("scope", b"k")).unwrap().id, new);
    let ending = at_last(|| tenant.instance(old)).unwrap().ending();
    assert!(matches!(ending, Some(Ending::Terminated | Ending::Completed)), "{ending:?}");
    assert_eq!(
        at_last(|| tenant.list(&Filter { live: Some(true), ..Filter::default() }, None, 10)).instances.len(),
        1
    );
}

#[test]
fn a_definition_that_a_lost_copy_took_along_is_copied_again_before_the_switch() {
    let machine = Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    for n in 0..50 {
        tenant.define(&format!("definition {n}"), 1, "t", b"x").unwrap();
    }
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    let until = Instant::now() + LONG;
    while tenant.migration().progress().waiting_for != "being released" {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    // Copies are not synced before the switch: what is lost with the target's failure is all of them.
    machine.fail("b");
    tenant.define("breaks it", 1, "t", b"x").unwrap();
    machine.mend("b", false);
    while machine.openings("b") < 2 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    tenant.migration().release(Hold::Switch).unwrap();
    settle(&tenant);
    assert_eq!(tenant.status().initial.0, 2, "it was not called off");
    for n in 0..50 {
        assert!(tenant.definition(&format!("definition {n}"), 1).unwrap().is_some(), "{n}");
    }
    started(tenant.launch(&cutover::Launch::new("definition 7", 1)).unwrap());
}

/// Without threads, and with a clock that only the test drives.
#[test]
fn step_mends_too_and_keeps_to_its_pauses() {
    let machine = Machine::new();
    let clock = Arc::new(ManualClock::at(1_000_000));
    let engine = machine.builder().background(false).clock(clock.clone()).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    machine.fill("a");
    refused(tenant.launch(&keyed("k")), ErrorKind::Indeterminate);
    engine.step().unwrap();
    machine.mend("a", true);
    engine.step().unwrap();
    refused(tenant.launch(&keyed("l")), ErrorKind::NoSpace);
    clock.advance(Duration::from_millis(100));
    engine.step().unwrap();
    started(tenant.launch(&keyed("l")).unwrap());
    assert!(tenant.instance_by_key("scope", b"k").unwrap().is_some());
}

#[test]
fn at_buffered_what_was_written_is_synced_within_a_second_and_at_synced_never_besides() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let machine = Machine::new();
        let clock = Arc::new(ManualClock::at(1_000_000));
        let builder = machine.builder().background(false).clock(clock.clone()).durability(durability);
        let engine = builder.open().unwrap();
        let tenant = tenant(&engine, memory("a"), KEEP);
        engine.step().unwrap();
        let before = machine.syncs();
        for _ in 0..5 {
            started(tenant.launch(&work()).unwrap());
            engine.step().unwrap();
        }
        assert_eq!(machine.syncs(), before, "not more often than once a second");
        clock.advance(Duration::from_secs(1));
        engine.step().unwrap();
        clock.advance(Duration::from_secs(1));
        engine.step().unwrap();
        let synced = machine.syncs() - before;
        assert_eq!(
            synced,
            u64::from(durability == Durability::Buffered),
            "once, and not with nothing to sync"
        );
    }
}

/// Whoever launches reads first, and never comes to the write that would find out.
#[test]
fn a_handle_in_which_even_reads_fail_is_opened_again() {
    let machine = Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&keyed("k")).unwrap());
    machine.die("a");
    let until = Instant::now() + LONG;
    while let Err(err) = tenant.instance_by_key("scope", b"k") {
        assert!([ErrorKind::Io, ErrorKind::Unavailable].contains(&err.kind()), "{err:?}");
        assert!(Instant::now() < until, "{err}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(machine.openings("a"), 2);
    assert_eq!(tenant.launch(&keyed("k")).unwrap(), Launched::Conflict { instance: id });
}

/// Events as they came.
#[derive(Default)]
struct Seen(Mutex<Vec<Event>>);

impl Observer for Seen {
    fn on_event(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

/// Both stores were compared, and then the target loses what it had: they are compared again before the switch.
#[test]
fn what_was_compared_before_a_store_failed_does_not_count() {
    let machine = Machine::new();
    let seen = Arc::new(Seen::default());
    let engine = machine.builder().observer(seen.clone()).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    tenant
        .migration()
        .start(memory("b"), MigrationOptions::default().hold_switch(true).hold_complete(true))
        .unwrap();
    let until = Instant::now() + LONG;
    while tenant.migration().progress().waiting_for != "being released" {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    // The sync before the switch fails, and takes the copies along.
    machine.fail("b");
    tenant.migration().release(Hold::Switch).unwrap();
    while tenant.migration().progress().error.is_none() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    machine.mend("b", false);
    reach(&tenant, Phase::PostMigration);
    let events = seen.0.lock();
    let at = |what: &dyn Fn(&Event) -> bool| events.iter().position(what).unwrap();
    let mended = at(&|event| matches!(event, Event::StoreMended { .. }));
    let switched = at(&|event| matches!(event, Event::Phase { to: Phase::Migration, .. }));
    let compared = &events[mended..switched];
    let copied = |event: &Event| matches!(event, Event::Verified { compared: 1, .. });
    assert!(compared.iter().any(copied), "{events:?}");
}
