//! Instances that are moved out of the store that launches have left, while they run.

use std::time::{Duration, Instant};

use cutover::fault::{Act, Effect};
use cutover::formats::RowId;
use cutover::{
    Again, Beat, Completion, ConflictPolicy, Durability, Ended, Ending, Engine, ErrorKind, Failure, Filter,
    Gate, InstanceId, Launched, MigrationOptions, MoveProgress, NewStep, Phase, Refusal, Retention, Retry,
    ReusePolicy, Settled, Task, Tenant,
};

use crate::common::{DROP, KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step};
use crate::disks;
use crate::swept::{Machine, go_to, step_until};

/// As fast as it goes, and nothing is given up before the test has looked.
pub(crate) fn options() -> MigrationOptions {
    MigrationOptions::default().move_rate(0).hold_complete(true)
}

/// Launches go to store b from now on.
pub(crate) fn leave(engine: &Engine, tenant: &Tenant) {
    tenant.migration().start(memory("b"), options()).unwrap();
    go_to(engine, tenant, Phase::PostMigration);
}

pub(crate) fn move_all(engine: &Engine, tenant: &Tenant) {
    tenant.migration().move_stragglers(Duration::ZERO).unwrap();
    drained(engine, tenant);
}

pub(crate) fn drained(engine: &Engine, tenant: &Tenant) {
    step_until(engine, || tenant.migration().progress().waiting_for == "being released");
}

/// The store that was left is given up: what is found afterwards is in the other one.
pub(crate) fn complete(engine: &Engine, tenant: &Tenant) {
    tenant.migration().complete().unwrap();
    step_until(engine, || tenant.migration().wait_settled(Duration::ZERO).unwrap());
    assert_eq!(tenant.status().initial.0, 2);
}

pub(crate) fn claim(worker: &Gate) -> Task {
    worker.claim("default", Duration::ZERO).unwrap().unwrap()
}

pub(crate) fn live(tenant: &Tenant) -> Vec<InstanceId> {
    let filter = Filter { live: Some(true), ..Filter::default() };
    tenant.list(&filter, None, 10_000).unwrap().instances.iter().map(|instance| instance.id).collect()
}

pub(crate) fn holder(tenant: &Tenant, key: &str) -> Option<InstanceId> {
    tenant.instance_by_key("scope", key.as_bytes()).unwrap().map(|found| found.id)
}

pub(crate) fn done() -> Completion {
    Completion { result: b"done".to_vec(), ..Completion::default() }
}

pub(crate) fn refused(refusal: Refusal) -> Settled {
    Settled::Refused(refusal)
}

pub(crate) fn until(so: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < until, "it does not get there");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_running_instance_goes_with_its_key_its_input_and_its_steps() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), Retention { request_ms: 3_600_000, ..DROP });
    let launch = keyed("k").request_id("r").input(b"input".to_vec());
    let launch = launch.step(NewStep::new("first").input(b"one".to_vec()));
    let id = started(tenant.launch(&launch).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let next = NewStep::new("second").input(b"two".to_vec());
    let completion = Completion { next: vec![next, NewStep::new("last").parents(2)], ..done() };
    worker.complete(&claim(&worker), completion).unwrap();
    let before = tenant.instance(id).unwrap().unwrap();
    leave(&engine, &tenant);
    move_all(&engine, &tenant);
    assert!(tenant.instance(id).unwrap().unwrap() == before, "nobody can tell");
    assert_eq!(tenant.migration().progress().moves.moved, 1);
    complete(&engine, &tenant);
    assert!(tenant.instance(id).unwrap().unwrap() == before);
    assert_eq!((id.store().0, holder(&tenant, "k")), (1, Some(id)));
    assert_eq!(tenant.launch(&keyed("k")).unwrap(), Launched::Conflict { instance: id });
    assert_eq!(tenant.launch(&launch).unwrap(), Launched::Started(id), "its request");
    assert_eq!(tenant.input(id).unwrap().unwrap(), b"input");
    assert_eq!(tenant.step_result(id, "first").unwrap().unwrap(), b"done");
    let task = claim(&worker);
    assert_eq!((task.step.as_str(), task.input.as_slice()), ("second", &b"two"[..]));
    let last = NewStep::new("last").parents(2);
    worker.complete(&task, Completion { next: vec![last], ..done() }).unwrap();
    let ended = worker.complete(&claim(&worker), Completion { output: b"out".to_vec(), ..done() }).unwrap();
    assert_eq!(ended, Settled::Done { ended: Some(Ending::Completed) });
    assert_eq!(started(tenant.launch(&keyed("k")).unwrap()).store().0, 2);
}

#[test]
fn a_worker_is_told_that_its_step_was_taken_and_does_nothing_late() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    let (old, new) = (tenant.register(many("old")).unwrap(), tenant.register(many("new")).unwrap());
    let taken = claim(&old);
    started(tenant.launch(&keyed("another").step(NewStep::new("other").queue("other"))).unwrap());
    let kept = old.claim("other", Duration::ZERO).unwrap().unwrap();
    leave(&engine, &tenant);
    assert_eq!(old.heartbeat(&taken).unwrap(), Beat::Renewed);
    move_all(&engine, &tenant);
    assert_eq!(old.heartbeat(&taken).unwrap(), Beat::Refused(Refusal::Moved));
    assert_eq!(old.heartbeat(&kept).unwrap(), Beat::Refused(Refusal::Moved));
    assert_eq!(old.complete(&taken, done()).unwrap(), refused(Refusal::Moved));
    let again = claim(&new);
    assert_eq!((again.instance, again.attempt), (id, 1), "what was revoked is no attempt");
    assert!(again.token > taken.token);
    assert_eq!(old.complete(&taken, done()).unwrap(), refused(Refusal::Moved));
    assert_eq!(old.fail(&taken, &Failure::default()).unwrap(), refused(Refusal::Moved));
    assert_eq!(new.complete(&again, done()).unwrap(), Settled::Done { ended: Some(Ending::Completed) });
    assert_eq!(old.complete(&taken, done()).unwrap(), refused(Refusal::Moved));
}

/// What a lease held is offered where the instance is now, when the lease that came after the move runs out.
#[test]
fn a_step_that_was_taken_is_given_again_and_again_until_its_attempts_are_over() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let step = NewStep::new("only").retry(Retry { attempts: 2, ..Retry::default() });
    let id = started(tenant.launch(&keyed("k").step(step)).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    drop(claim(&worker));
    leave(&engine, &tenant);
    move_all(&engine, &tenant);
    complete(&engine, &tenant);
    for attempt in [1, 1, 1] {
        let worker = tenant.register(many("w")).unwrap();
        assert_eq!(claim(&worker).attempt, attempt, "its worker went away");
    }
    let again = Failure { reason: "again".into(), again: Again::After(Duration::ZERO) };
    let moved = Failure { reason: "the instance was moved".into(), again: Again::After(Duration::ZERO) };
    assert_eq!(worker.fail(&claim(&worker), &moved).unwrap(), Settled::Done { ended: None });
    let last = claim(&worker);
    assert_eq!(last.attempt, 2, "a worker that says so has had its attempt");
    assert_eq!(worker.fail(&last, &again).unwrap(), Settled::Done { ended: None });
    let undecided = tenant.undecided(None, 9).unwrap().steps;
    assert_eq!(undecided.iter().map(|one| (one.instance, one.attempts)).collect::<Vec<_>>(), [(id, 2)]);
}

/// Entries of the queue of the store that was left must not send anybody there.
#[test]
fn a_step_that_was_offered_before_the_move_is_claimed_once_after_it() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let worker = tenant.register(many("w")).unwrap();
    assert!(worker.claim("default", Duration::ZERO).unwrap().is_none(), "the lanes are in memory");
    let ids: Vec<_> = (0..20).map(|n| started(tenant.launch(&with_step(&format!("{n}"))).unwrap())).collect();
    leave(&engine, &tenant);
    assert!(worker.claim("none", Duration::ZERO).unwrap().is_none());
    move_all(&engine, &tenant);
    let mut tasks: Vec<_> = (0..20).map(|_| claim(&worker)).collect();
    assert!(worker.claim("default", Duration::ZERO).unwrap().is_none());
    drop(worker);
    complete(&engine, &tenant);
    let worker = tenant.register(many("w")).unwrap();
    for task in &mut tasks {
        *task = claim(&worker);
        assert!(ids.contains(&task.instance));
        worker.complete(task, done()).unwrap();
    }
    assert!(live(&tenant).is_empty());
}

#[test]
fn a_move_in_a_phase_without_a_store_that_drains_is_illegal_and_says_which_it_is() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let illegal = || {
        let err = tenant.migration().move_stragglers(Duration::ZERO).unwrap_err();
        let named = err.to_string().contains(tenant.status().phase.name());
        assert!(named && err.kind() == ErrorKind::IllegalMove, "{err}");
    };
    illegal();
    tenant.migration().start(memory("b"), options()).unwrap();
    illegal();
    for phase in [Phase::Migration, Phase::PostMigration] {
        go_to(&engine, &tenant, phase);
        if phase == Phase::Migration {
            illegal();
        }
    }
    tenant.migration().move_stragglers(LONG).unwrap();
    tenant.migration().reverse().unwrap();
    for phase in [Phase::PreRollback, Phase::RollingBack] {
        go_to(&engine, &tenant, phase);
        illegal();
    }
    go_to(&engine, &tenant, Phase::PostRollback);
    tenant.migration().move_stragglers(LONG).unwrap();
}

#[test]
fn only_what_is_old_enough_goes_and_the_rest_when_it_is() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("old")).unwrap());
    machine.clock.advance(Duration::from_secs(10));
    started(tenant.launch(&with_step("young")).unwrap());
    leave(&engine, &tenant);
    tenant.migration().move_stragglers(Duration::from_secs(5)).unwrap();
    let moves = || tenant.migration().progress().moves;
    step_until(&engine, || moves().moved == 1);
    for _ in 0..50 {
        engine.step().unwrap();
    }
    assert_eq!(moves().moved, 1);
    machine.clock.advance(Duration::from_secs(5));
    drained(&engine, &tenant);
    assert_eq!(moves().moved, 2);
    complete(&engine, &tenant);
    assert_eq!(live(&tenant).len(), 2);
}

#[test]
fn what_has_ended_goes_with_its_deadlines_and_its_key_stays_in_scope() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let retention = Retention { instance_ms: 10_000, key_ms: 60_000, request_ms: 0 };
    let tenant = tenant(&engine, memory("a"), retention);
    let end = |key: &str, ending| {
        let id = started(tenant.launch(&with_step(key)).unwrap());
        tenant.end(id, ending, b"out", "why").unwrap();
        id
    };
    let outlived = end("outlived", Ending::Completed);
    machine.clock.advance(Duration::from_secs(11));
    step_until(&engine, || tenant.instance(outlived).unwrap().is_none());
    let failed = end("failed", Ending::Failed);
    let used = end("used again", Ending::Completed);
    let again = started(tenant.launch(&with_step("used again")).unwrap());
    leave(&engine, &tenant);
    // Its later launch is in the other store.
    let later = started(tenant.launch(&keyed("failed")).unwrap());
    tenant.end(later, Ending::Completed, b"", "").unwrap();
    move_all(&engine, &tenant);
    complete(&engine, &tenant);
    assert_eq!(tenant.instance(failed).unwrap().unwrap().output, b"out");
    assert_eq!(tenant.instance(used).unwrap().unwrap().ending(), Some(Ending::Completed));
    assert_eq!((holder(&tenant, "failed"), holder(&tenant, "used again")), (Some(later), Some(again)));
    let reject = |key: &str| keyed(key).reuse(ReusePolicy::AllowDuplicateFailedOnly);
    let rejected = |instance| Launched::Rejected { instance, ending: Ending::Completed };
    assert_eq!(tenant.launch(&reject("outlived")).unwrap(), rejected(outlived));
    assert_eq!(tenant.launch(&reject("failed")).unwrap(), rejected(later));
    machine.clock.advance(Duration::from_secs(11));
    step_until(&engine, || [failed, used, later].iter().all(|id| tenant.instance(*id).unwrap().is_none()));
    assert_eq!(tenant.launch(&reject("outlived")).unwrap(), rejected(outlived), "in scope still");
    machine.clock.advance(Duration::from_secs(60));
    started(tenant.launch(&reject("outlived")).unwrap());
    assert_eq!(tenant.terminate(again, "").unwrap(), Ended::Now);
}

#[test]
fn an_instance_that_never_ends_does_not_hold_its_store_back() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.builder().background(true).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("for ever")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    tenant.migration().move_stragglers(Duration::ZERO).unwrap();
    settle(&tenant);
    assert_eq!((tenant.status().initial.0, live(&tenant)), (2, vec![id]));
}

#[test]
fn an_instance_larger_than_one_batch_goes_as_a_small_one_does() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let (id, input) = large(&tenant);
    leave(&engine, &tenant);
    move_all(&engine, &tenant);
    complete(&engine, &tenant);
    check_large(&tenant, id, &input);
}

pub(crate) fn large(tenant: &Tenant) -> (InstanceId, Vec<u8>) {
    let input = vec![7; 3 << 20];
    let launch = (0..9).fold(keyed("k").input(input.clone()), |launch, n| {
        launch.step(NewStep::new(format!("step {n}")).input(input.clone()))
    });
    (started(tenant.launch(&launch).unwrap()), input)
}

pub(crate) fn check_large(tenant: &Tenant, id: InstanceId, input: &[u8]) {
    assert_eq!((live(tenant), holder(tenant, "k")), (vec![id], Some(id)));
    assert!(tenant.input(id).unwrap().unwrap() == input);
    let worker = tenant.register(many("w")).unwrap();
    for _ in 0..9 {
        let task = claim(&worker);
        assert!((task.instance, task.input == input) == (id, true));
        worker.complete(&task, done()).unwrap();
    }
    assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), Some(Ending::Completed));
}

#[test]
fn a_cancelled_instance_ends_where_it_has_gone() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let held = claim(&worker);
    assert_eq!(tenant.cancel(id, "").unwrap(), Ended::Asked);
    leave(&engine, &tenant);
    move_all(&engine, &tenant);
    assert_eq!(worker.complete(&held, done()).unwrap(), refused(Refusal::Moved));
    assert!(worker.claim("default", Duration::ZERO).unwrap().is_none());
    assert_eq!(tenant.instance(id).unwrap().unwrap().ending(), Some(Ending::Cancelled));
}

#[test]
fn the_wish_outlives_a_restart_and_a_reverse() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let before = tenant(&engine, memory("a"), KEEP);
    let old: Vec<_> = (0..40).map(|n| started(before.launch(&with_step(&format!("{n}"))).unwrap())).collect();
    leave(&engine, &before);
    before.migration().move_stragglers(Duration::ZERO).unwrap();
    step_until(&engine, || before.migration().progress().moves.moved >= 10);
    let new = started(before.launch(&with_step("new")).unwrap());
    let (engine, after) = machine.reopen(engine, &[]);
    drained(&engine, &after);
    assert_eq!(live(&after).len(), old.len() + 1);
    after.migration().reverse().unwrap();
    go_to(&engine, &after, Phase::PostRollback);
    drained(&engine, &after);
    assert_eq!(live(&after).len(), old.len() + 1);
    after.migration().complete().unwrap();
    step_until(&engine, || after.migration().wait_settled(Duration::ZERO).unwrap());
    assert_eq!(after.status().initial.0, 1, "back where it began");
    assert_eq!(after.instance(new).unwrap().unwrap().ending(), None);
    let worker = after.register(many("w")).unwrap();
    for _ in 0..=old.len() {
        worker.complete(&claim(&worker), done()).unwrap();
    }
    assert!(live(&after).is_empty() && worker.claim("default", Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_replacement_ends_an_instance_where_it_has_gone() {
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let old = started(tenant.launch(&with_step("k")).unwrap());
    leave(&engine, &tenant);
    move_all(&engine, &tenant);
    let replacing = keyed("k").on_conflict(ConflictPolicy::TerminateExisting);
    let new = started(tenant.launch(&replacing).unwrap());
    assert_eq!(tenant.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
    assert_eq!((live(&tenant), holder(&tenant, "k")), (vec![new], Some(new)));
    assert!(tenant.register(many("w")).unwrap().claim("default", Duration::ZERO).unwrap().is_none());
}

#[test]
fn an_instance_that_cannot_be_read_stays_and_keeps_no_other_one() {
    let machine = disks::Machine::new();
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let ids: Vec<_> = (0..3).map(|n| started(tenant.launch(&with_step(&format!("{n}"))).unwrap())).collect();
    tenant.migration().start(memory("b"), options()).unwrap();
    reach(&tenant, Phase::PostMigration);
    machine.damage("a", tenant.id(), &RowId::Step { instance: ids[1], step: "only".into() });
    tenant.migration().move_stragglers(Duration::ZERO).unwrap();
    until(|| tenant.migration().progress().moves.moved == 2);
    until(|| tenant.migration().progress().quarantined == 1);
    let mut all = ids.clone();
    all.sort_unstable();
    assert_eq!(live(&tenant), all);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(holder(&tenant, &format!("{n}")), Some(*id));
    }
    let err = tenant.migration().complete().unwrap_err();
    assert!(err.to_string().contains(&ids[1].to_string()), "{err}");
    let worker = tenant.register(many("w")).unwrap();
    for _ in 0..2 {
        worker.complete(&claim(&worker), done()).unwrap();
    }
    tenant.terminate(ids[1], "damaged").unwrap();
    assert!(live(&tenant).is_empty());
}

/// A step looks at a page and then lets others go on; who is young is not looked at again before he can be old.
#[test]
fn a_store_full_of_what_is_young_is_gone_over_page_by_page_and_then_left_alone() {
    const YOUNG: u64 = 2_000;
    let machine = Machine::new(Durability::Buffered);
    let engine = machine.open();
    let tenant =
        tenant(&engine, memory("a"), Retention { instance_ms: 0, key_ms: 3 * HOUR_MS, request_ms: 0 });
    for n in 0..YOUNG {
        let id = started(tenant.launch(&keyed(&format!("{n}"))).unwrap());
        if n % 2 == 0 {
            tenant.end(id, Ending::Completed, b"", "").unwrap();
        }
    }
    machine.clock.advance(Duration::from_millis(1));
    while engine.step().unwrap() {}
    leave(&engine, &tenant);
    let hour = Duration::from_millis(HOUR_MS);
    tenant.migration().move_stragglers(hour).unwrap();
    // What a step shows of the stores, so long after the one before.
    let step = |after: Duration| {
        machine.clock.advance(after);
        let before = machine.faults.rows();
        engine.step().unwrap();
        machine.faults.rows() - before
    };
    let pass: Vec<u64> = (0..1_000).map(|_| step(Duration::from_millis(1))).collect();
    assert!(pass.iter().all(|rows| *rows < 300), "a page at most: {:?}", pass.iter().max());
    let busy = pass.iter().filter(|rows| **rows > 200).count();
    // Half of the instances have been collected, and the keys of all are there.
    assert!((10..=13).contains(&busy), "once over all of them, and others between: {busy} steps");
    let waiting: u64 = (0..3_000).map(|_| step(Duration::from_secs(1))).sum();
    assert!(waiting < 50_000, "nobody is old, and {waiting} rows were looked at");
    assert_eq!(tenant.migration().progress().moves, MoveProgress::default());
    machine.clock.advance(hour);
    for _ in 0..2_000 {
        step(Duration::from_millis(5));
    }
    drained(&engine, &tenant);
    let moves = tenant.migration().progress().moves;
    assert_eq!((moves.moved, moves.keys), (YOUNG / 2, YOUNG / 2));
}

const HOUR_MS: u64 = 3_600_000;

/// Instances at first, and then keys that have outlived theirs.
#[test]
fn no_more_goes_than_the_rate_says() {
    const RATE: u32 = 100;
    const EACH: u64 = 60;
    let machine = Machine::new(Durability::Synced);
    let engine = machine.open();
    let tenant = tenant(&engine, memory("a"), Retention { instance_ms: 0, key_ms: HOUR_MS, request_ms: 0 });
    for n in 0..2 * EACH {
        let id = started(tenant.launch(&keyed(&format!("{n}"))).unwrap());
        if n < EACH {
            tenant.end(id, Ending::Completed, b"", "").unwrap();
        }
    }
    machine.clock.advance(Duration::from_millis(1));
    while engine.step().unwrap() {}
    tenant.migration().start(memory("b"), options().move_rate(RATE)).unwrap();
    go_to(&engine, &tenant, Phase::PostMigration);
    tenant.migration().move_stragglers(Duration::ZERO).unwrap();
    let mut late = 0;
    for ms in 0..2_000 {
        engine.step().unwrap();
        let moves = tenant.migration().progress().moves;
        let (went, may) = (moves.moved + moves.keys, u64::from(RATE) * ms / 1_000);
        assert!(went <= may + 2, "{moves:?} after {ms} ms");
        late = if went < 2 * EACH { ms } else { late };
        machine.clock.advance(Duration::from_millis(1));
    }
    let moves = tenant.migration().progress().moves;
    assert_eq!((moves.moved, moves.keys), (EACH, EACH));
    assert!(late < 1_300, "and not much less: {late} ms");
    drained(&engine, &tenant);
}

/// Because of a later launch in the other store the key goes without a copy: that launch has to outlive it.
#[test]
fn a_key_is_not_removed_because_of_a_launch_that_power_loss_takes() {
    let machine = Machine::new(Durability::Buffered);
    let engine = machine.open();
    let before = tenant(&engine, memory("a"), Retention { instance_ms: 0, key_ms: HOUR_MS, request_ms: 0 });
    let first = started(before.launch(&keyed("k")).unwrap());
    before.end(first, Ending::Completed, b"", "").unwrap();
    machine.clock.advance(Duration::from_millis(1));
    while engine.step().unwrap() {}
    leave(&engine, &before);
    started(before.launch(&keyed("k")).unwrap());
    move_all(&engine, &before);
    assert_eq!(before.migration().progress().moves.keys, 1);
    // The store that was left is synced first, which makes the removal durable.
    machine.fail(Act::Sync, "b", Effect::Nothing);
    before.migration().complete().unwrap_err();
    let (_engine, after) = machine.reopen(engine, &["b"]);
    let again = after.launch(&keyed("k").reuse(ReusePolicy::RejectDuplicate)).unwrap();
    assert!(!matches!(again, Launched::Started(_)), "launched as if it had never been");
}
