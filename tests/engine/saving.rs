//! What a worker saves of a step, and who finds it.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::formats::{Layout as _, Record, RowId, V1};
use cutover::{
    Again, Completion, Decision, Ended, Ending, Failure, Gate, Heartbeats, NewStep, Refusal, Retry, Saved,
    Settled, Task, Tenant,
};

use crate::common::{Home, KEEP, LONG, keyed, many, memory, started, tenant, with_step};

const LEASE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);

fn claim(worker: &Gate) -> Task {
    worker.claim("default", Duration::ZERO).unwrap().expect("it is ready")
}

fn worker(tenant: &Tenant) -> Gate {
    tenant.register(many("w")).unwrap()
}

#[test]
fn what_was_saved_last_is_found_after_a_failure_and_after_a_kill() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("k")).unwrap());
    let gate = worker(&tenant);
    let task = claim(&gate);
    assert_eq!(task.saved, b"");
    for state in [&b"one"[..], b"two"] {
        assert_eq!(gate.save(&task, state).unwrap(), Saved::Done);
    }
    let again = Failure { again: Again::After(Duration::ZERO), ..Failure::default() };
    gate.fail(&task, &again).unwrap();
    let task = claim(&gate);
    assert_eq!((task.saved.as_slice(), task.attempt), (&b"two"[..], 2));
    assert_eq!(gate.save(&task, b"three").unwrap(), Saved::Done);
    home.kill(engine);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    let gate = worker(&tenant);
    let task = claim(&gate);
    assert_eq!((task.saved.as_slice(), task.attempt), (&b"three"[..], 2), "it was no report");
    assert_eq!(gate.save(&task, b"").unwrap(), Saved::Done);
    gate.fail(&task, &again).unwrap();
    assert_eq!(claim(&gate).saved, b"", "nothing may be saved in the place of something");
}

/// The step is not the worker's any more between two writes of it. Validity is before the end of the lease, and not at it.
#[test]
fn of_two_writes_the_one_after_the_lease_is_refused_to_the_tick() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let builder = home.builder().heartbeats(Heartbeats { every: LEASE, intervals: 1 });
    let engine = builder.clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("k")).unwrap());
    let early = worker(&tenant);
    let task = claim(&early);
    clock.advance(LEASE - TICK);
    assert_eq!(early.save(&task, b"in time").unwrap(), Saved::Done);
    clock.advance(TICK);
    // To save is not to be heard of: the lease is as long as it was.
    assert_eq!(early.save(&task, b"late").unwrap(), Saved::Refused(Refusal::LeaseExpired));
    let late = worker(&tenant);
    let next = claim(&late);
    assert_eq!(next.saved, b"in time");
    assert!(next.token > task.token);
    early.register_anew().unwrap();
    assert_eq!(early.save(&task, b"later").unwrap(), Saved::Refused(Refusal::NotHeld));
    assert_eq!(late.save(&next, b"its own").unwrap(), Saved::Done);
    let (refused, ended) = (Refusal::NotHeld, Some(Ending::Completed));
    assert_eq!(early.complete(&task, Completion::default()).unwrap(), Settled::Refused(refused));
    assert_eq!(late.complete(&next, Completion::default()).unwrap(), Settled::Done { ended });
}

#[test]
fn a_step_that_is_settled_or_whose_instance_has_ended_is_not_saved() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let two = keyed("k").step(NewStep::new("a")).step(NewStep::new("b"));
    let id = started(tenant.launch(&two).unwrap());
    let gate = worker(&tenant);
    let (a, b) = (claim(&gate), claim(&gate));
    gate.complete(&a, Completion::default()).unwrap();
    assert_eq!(gate.save(&a, b"late").unwrap(), Saved::Refused(Refusal::NotHeld));
    assert_eq!(tenant.cancel(id, "enough").unwrap(), Ended::Asked);
    assert_eq!(gate.save(&b, b"as it stops").unwrap(), Saved::Done);
    tenant.terminate(id, "").unwrap();
    assert_eq!(gate.save(&b, b"late").unwrap(), Saved::Refused(Refusal::NotHeld));
}

#[test]
fn nothing_is_kept_of_what_was_saved_of_a_completed_step() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    let gate = worker(&tenant);
    let task = claim(&gate);
    gate.save(&task, b"half").unwrap();
    gate.complete(&task, Completion { result: b"whole".to_vec(), ..Completion::default() }).unwrap();
    let row = RowId::Step { instance: id, step: "only".into() };
    let mut key = Vec::new();
    V1.key(tenant.id(), &row, &mut key);
    drop((gate, tenant));
    engine.close(LONG).unwrap();
    let value = home.store("a").get(row.family(), &key).unwrap().unwrap();
    let Ok(Record::Step(step)) = V1.read_value(&row, &value) else { panic!("{value:?}") };
    assert_eq!((step.saved.as_slice(), step.result.as_slice()), (&b""[..], &b"whole"[..]));
}

#[test]
fn what_was_saved_is_there_after_a_decision() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let step = NewStep::new("s").retry(Retry { attempts: 1, ..Retry::default() });
    let id = started(tenant.launch(&keyed("k").step(step)).unwrap());
    let gate = worker(&tenant);
    let task = claim(&gate);
    gate.save(&task, b"half").unwrap();
    gate.fail(&task, &Failure::default()).unwrap();
    tenant.decide(id, "s", &Decision::Retry).unwrap();
    assert_eq!(claim(&gate).saved, b"half");
}
