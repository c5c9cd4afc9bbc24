//! Steps that fail: when they are tried again, when somebody has to decide, and what a decision does.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::formats::limits::MAX_HISTORY;
use cutover::formats::{Family, Layout as _, Record, RowId, V1};
use cutover::{
    Again, Beat, Completion, Decided, Decision, Ended, Ending, Engine, ErrorKind, Failure, Gate, InstanceId,
    Launch, Launched, MigrationOptions, NewStep, Phase, Retry, Settled, Task, Tenant, Undecided,
};

use crate::common::{DROP, Home, KEEP, PATIENT, keyed, many, memory, reach, settle, started, tenant, work};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);
const BEGIN: u64 = 1_800_000_000_000;

/// Two attempts.
const TWICE: Retry =
    Retry { first: SECOND, most: Duration::from_secs(10), attempts: 2, within: Duration::MAX };
/// Nobody tries again without being told to.
const ONCE: Retry = Retry { attempts: 1, ..TWICE };

fn by(policy: Retry) -> NewStep {
    NewStep::new("s").retry(policy)
}

fn at_a_moment(home: &Home) -> (Engine, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(BEGIN));
    (home.builder().clock(clock.clone()).background(false).open().unwrap(), clock)
}

fn claim(worker: &Gate) -> Option<Task> {
    worker.claim("default", Duration::ZERO).unwrap()
}

fn failure(again: Again) -> Failure {
    Failure { reason: "no luck".into(), again }
}

fn fail(worker: &Gate, again: Again) {
    let task = claim(worker).expect("it is ready");
    assert_eq!(worker.fail(&task, &failure(again)).unwrap(), Settled::Done { ended: None });
}

/// An instance whose step `s` waits for a decision.
fn stuck(tenant: &Tenant, launch: Launch) -> InstanceId {
    let id = started(tenant.launch(&launch.step(by(ONCE))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    fail(&worker, Again::AsPlanned);
    id
}

/// All that wait for a decision, in pages of two.
fn undecided(tenant: &Tenant) -> Vec<Undecided> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = tenant.undecided(after.as_ref(), 2).unwrap();
        assert!(page.steps.len() <= 2);
        found.extend(page.steps);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn instances(of: &[Undecided]) -> Vec<InstanceId> {
    of.iter().map(|one| one.instance).collect()
}

fn abort(why: &str) -> Decision {
    Decision::Abort { reason: why.into() }
}

#[test]
fn a_failed_step_pauses_as_planned_until_its_attempts_are_used_up() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let policy = Retry { attempts: 3, ..TWICE };
    let id = started(tenant.launch(&keyed("k").step(by(policy))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    for pause in [SECOND, 2 * SECOND] {
        fail(&worker, Again::AsPlanned);
        clock.advance(pause / 2 - TICK);
        assert_eq!(claim(&worker), None, "at least half of {pause:?} passes");
        clock.advance(pause / 2 + TICK);
        assert!(undecided(&tenant).is_empty());
    }
    let task = claim(&worker).unwrap();
    assert_eq!(task.attempt, 3);
    assert_eq!(worker.fail(&task, &failure(Again::AsPlanned)).unwrap(), Settled::Done { ended: None });
    assert_eq!(claim(&worker), None);
    let due = Undecided {
        instance: id,
        step: "s".into(),
        queue: "default".into(),
        since_ms: BEGIN + 3_000,
        attempts: 3,
        reason: "no luck".into(),
    };
    assert_eq!(undecided(&tenant), [due]);
    let instance = tenant.instance(id).unwrap().unwrap();
    assert_eq!((instance.ending(), instance.open_steps), (None, 1), "it lives on");
}

#[test]
fn a_worker_may_say_when_to_try_again_and_that_is_to_the_tick() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&work().step(by(TWICE))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    fail(&worker, Again::After(5 * SECOND));
    clock.advance(5 * SECOND - TICK);
    assert_eq!(claim(&worker), None);
    clock.advance(TICK);
    fail(&worker, Again::After(5 * SECOND));
    assert_eq!(instances(&undecided(&tenant)), [id], "within the same budget of attempts");
}

#[test]
fn a_worker_that_gives_up_ends_the_instance_whatever_is_left() {
    let home = Home::new();
    let (engine, _) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&work().step(by(TWICE))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let task = claim(&worker).unwrap();
    let ended = Some(Ending::Failed);
    assert_eq!(worker.fail(&task, &failure(Again::Never)).unwrap(), Settled::Done { ended });
    let instance = tenant.instance(id).unwrap().unwrap();
    assert_eq!((instance.reason.as_str(), instance.open_steps), ("step \"s\" failed: no luck", 0));
    assert!(undecided(&tenant).is_empty());
}

#[test]
fn no_attempt_begins_after_the_budget_of_time() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let policy = Retry { attempts: u32::MAX, within: 10 * SECOND, ..TWICE };
    let worker = tenant.register(many("w")).unwrap();
    for (late, undecided_then) in [(Duration::ZERO, false), (TICK, true)] {
        let id = started(tenant.launch(&work().step(by(policy)).start_in(SECOND)).unwrap());
        // It counts from when the step was ready.
        clock.advance(SECOND);
        fail(&worker, Again::After(4 * SECOND));
        clock.advance(4 * SECOND + late);
        fail(&worker, Again::After(6 * SECOND));
        assert_eq!(!undecided(&tenant).is_empty(), undecided_then, "{late:?} late");
        clock.advance(6 * SECOND);
        assert_eq!(claim(&worker).is_none(), undecided_then, "{late:?} late");
        tenant.terminate(id, "").unwrap();
    }
}

/// Its instance may be much older than its budget of time.
#[test]
fn the_time_of_a_step_counts_from_its_last_parent() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let parents = work().step(NewStep::new("one")).step(NewStep::new("other"));
    started(tenant.launch(&parents).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    for _ in 0..2 {
        clock.advance(30 * SECOND);
        let parent = claim(&worker).unwrap();
        let next = vec![by(Retry { within: 10 * SECOND, ..TWICE }).parents(2)];
        worker.complete(&parent, Completion { next, ..Completion::default() }).unwrap();
    }
    fail(&worker, Again::After(10 * SECOND));
    assert!(undecided(&tenant).is_empty());
    clock.advance(10 * SECOND);
    assert_eq!(claim(&worker).unwrap().attempt, 2);
}

/// A worker is given the step and not heard of again.
fn lose(tenant: &Tenant, clock: &ManualClock) -> Task {
    let lost = tenant.register(many("lost")).unwrap();
    let task = claim(&lost).expect("it is ready");
    clock.advance(PATIENT.lease());
    task
}

#[test]
fn a_lease_that_runs_out_is_an_attempt_and_one_that_is_given_back_is_not() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&work().step(by(Retry { attempts: 3, ..TWICE }))).unwrap());
    for _ in 0..5 {
        let back = tenant.register(many("back")).unwrap();
        assert_eq!(claim(&back).unwrap().attempt, 1);
    }
    assert_eq!(lose(&tenant, &clock).attempt, 1);
    let worker = tenant.register(many("w")).unwrap();
    let task = claim(&worker).expect("at once");
    assert_eq!(task.attempt, 2);
    worker.fail(&task, &failure(Again::After(Duration::ZERO))).unwrap();
    let task = claim(&worker).unwrap();
    assert_eq!(task.attempt, 3);
    worker.fail(&task, &failure(Again::After(Duration::ZERO))).unwrap();
    let [found] = undecided(&tenant).try_into().unwrap();
    assert_eq!((found.attempts, found.reason.as_str()), (3, "no luck"));
}

/// It hangs whoever has it, or kills it.
#[test]
fn a_step_whose_workers_are_never_heard_of_again_waits_for_a_decision_in_the_end() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let before = tenant(&engine, memory("a"), KEEP);
    let id = started(before.launch(&keyed("k").step(by(TWICE))).unwrap());
    clock.advance(TICK);
    let beside = started(before.launch(&work().step(by(TWICE))).unwrap());
    assert_eq!([1, 2].map(|_| lose(&before, &clock).instance), [id, id]);
    let worker = before.register(many("w")).unwrap();
    assert_eq!(claim(&worker).unwrap().instance, beside, "it keeps nobody from the others");
    assert_eq!(claim(&worker), None);
    let due = Undecided {
        instance: id,
        step: "s".into(),
        queue: "default".into(),
        since_ms: BEGIN + 120_001,
        attempts: 2,
        reason: "its worker was not heard of".into(),
    };
    assert_eq!(undecided(&before), std::slice::from_ref(&due));
    home.kill(engine);
    let (engine, clock) = at_a_moment(&home);
    let tenant = engine.tenant("acme").unwrap();
    assert_eq!(undecided(&tenant), [due]);
    tenant.terminate(beside, "").unwrap();
    for round in 0..2 {
        assert_eq!(tenant.decide(id, "s", &Decision::Retry).unwrap(), Decided::Retried);
        assert_eq!([1, 2].map(|_| lose(&tenant, &clock).attempt), [3, 4].map(|n| n + 2 * round));
        let worker = tenant.register(many("w")).unwrap();
        assert_eq!(claim(&worker), None);
        let [found] = undecided(&tenant).try_into().unwrap();
        assert_eq!(found.attempts, 2, "of fresh budgets");
    }
}

/// It was counted in memory.
#[test]
fn a_restart_counts_the_leases_that_run_out_anew() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let before = tenant(&engine, memory("a"), KEEP);
    started(before.launch(&work().step(by(TWICE))).unwrap());
    assert_eq!(lose(&before, &clock).attempt, 1);
    home.kill(engine);
    let (engine, clock) = at_a_moment(&home);
    let tenant = engine.tenant("acme").unwrap();
    assert_eq!([1, 2].map(|_| lose(&tenant, &clock).attempt), [1, 2]);
    let worker = tenant.register(many("w")).unwrap();
    assert_eq!(claim(&worker), None);
    assert_eq!(undecided(&tenant).len(), 1);
}

#[test]
fn a_step_that_no_worker_took_within_its_time_waits_for_a_decision_unless_it_was_never_tried() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let policy = Retry { attempts: u32::MAX, within: 10 * SECOND, ..TWICE };
    started(tenant.launch(&work().step(by(policy))).unwrap());
    clock.advance(30 * SECOND);
    let first = tenant.register(many("w")).unwrap();
    assert_eq!(claim(&first).map(|task| task.attempt), Some(1));
    let id = started(tenant.launch(&work().step(by(policy))).unwrap());
    fail(&first, Again::After(Duration::ZERO));
    clock.advance(10 * SECOND);
    let worker = tenant.register(many("w")).unwrap();
    assert_eq!(claim(&worker).map(|task| task.instance), Some(id), "to the tick");
    drop(worker);
    clock.advance(TICK);
    assert_eq!(claim(&first), None);
    let [found] = undecided(&tenant).try_into().unwrap();
    assert_eq!((found.instance, found.attempts, found.reason.as_str()), (id, 1, "no luck"));
}

/// Each failure is noted with its reason, and a step may fail for as long as it likes.
#[test]
fn the_history_of_a_step_is_bounded_and_its_attempts_are_counted_on() {
    let home = Home::new();
    let (engine, _) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let attempts = MAX_HISTORY as u32 + 10;
    let id = started(tenant.launch(&work().step(by(Retry { attempts, ..TWICE }))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let mut tokens = Vec::new();
    for round in 0..3 {
        for attempt in 1..=attempts {
            let task = claim(&worker).expect("its budget is not used up");
            assert_eq!(task.attempt, round * attempts + attempt);
            tokens.push(task.token);
            let reason = "x".repeat(2_000);
            worker.fail(&task, &Failure { reason, again: Again::After(Duration::ZERO) }).unwrap();
        }
        let [found] = undecided(&tenant).try_into().unwrap();
        assert_eq!(found.attempts, attempts);
        assert_eq!(tenant.decide(id, "s", &Decision::Retry).unwrap(), Decided::Retried);
    }
    let row = RowId::Step { instance: id, step: "s".into() };
    let mut key = Vec::new();
    V1.key(tenant.id(), &row, &mut key);
    drop((worker, tenant));
    engine.close(crate::common::LONG).unwrap();
    let value = home.store("a").get(row.family(), &key).unwrap().unwrap();
    assert!(value.len() < MAX_HISTORY * 1_200, "{} bytes", value.len());
    let Ok(Record::Step(step)) = V1.read_value(&row, &value) else { panic!("{value:?}") };
    let kept: Vec<_> = step.history.iter().map(|one| one.token).collect();
    assert_eq!(kept, tokens.split_off(tokens.len() - MAX_HISTORY));
    assert_eq!((step.attempts, step.counted_from), (3 * attempts, 3 * attempts));
}

#[test]
fn an_undecided_step_survives_a_kill_and_its_decision_too() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let (one, other) = (stuck(&tenant, keyed("k")), stuck(&tenant, work()));
    let before = undecided(&tenant);
    assert_eq!(before.len(), 2);
    home.kill(engine);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    assert_eq!(undecided(&tenant), before);
    let worker = tenant.register(many("w")).unwrap();
    assert_eq!(claim(&worker), None, "nobody is given it");
    assert_eq!(tenant.decide(one, "s", &Decision::Retry).unwrap(), Decided::Retried);
    let ended = Decided::Aborted(Ending::Failed);
    assert_eq!(tenant.decide(other, "s", &abort("hopeless")).unwrap(), ended);
    home.kill(engine);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    assert!(undecided(&tenant).is_empty());
    let worker = tenant.register(many("w")).unwrap();
    assert_eq!(claim(&worker).unwrap().instance, one);
    let other = tenant.instance(other).unwrap().unwrap();
    assert_eq!((other.ending(), other.open_steps), (Some(Ending::Failed), 0));
    assert_eq!(other.reason, "step \"s\" failed: hopeless");
}

#[test]
fn a_step_that_is_tried_again_by_decision_has_fresh_budgets() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let policy = Retry { within: 10 * SECOND, ..TWICE };
    let id = started(tenant.launch(&work().step(by(policy))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    for round in 0..3 {
        fail(&worker, Again::AsPlanned);
        clock.advance(SECOND);
        let task = claim(&worker).unwrap();
        assert_eq!(task.attempt, 2 * round + 2, "the history goes on");
        worker.fail(&task, &failure(Again::AsPlanned)).unwrap();
        let [found] = undecided(&tenant).try_into().unwrap();
        assert_eq!((found.attempts, found.reason.as_str()), (2, "no luck"));
        // Longer than the budget of time.
        clock.advance(30 * SECOND);
        assert_eq!(worker.idle().unwrap(), Beat::Renewed);
        assert_eq!(tenant.decide(id, "s", &Decision::Retry).unwrap(), Decided::Retried);
        assert!(undecided(&tenant).is_empty());
    }
    let task = claim(&worker).expect("it is ready at once");
    assert_eq!(task.attempt, 7);
    let ended = Some(Ending::Completed);
    assert_eq!(worker.complete(&task, Completion::default()).unwrap(), Settled::Done { ended });
}

#[test]
fn a_worker_that_waits_is_woken_by_a_decision() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = stuck(&tenant, work());
    let worker = tenant.register(many("w")).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| worker.claim("default", crate::common::LONG).unwrap().unwrap());
        assert_eq!(tenant.decide(id, "s", &Decision::Retry).unwrap(), Decided::Retried);
        assert_eq!(waiting.join().unwrap().instance, id);
    });
}

#[test]
fn a_decision_that_nobody_asked_for_changes_nothing() {
    let home = Home::new();
    let (engine, _) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = stuck(&tenant, work().step(NewStep::new("later").parents(1)));
    let decisions = [Decision::Retry, abort("no")];
    for decision in &decisions {
        assert_eq!(tenant.decide(id, "later", decision).unwrap(), Decided::NotAsked, "it waits for a parent");
        assert_eq!(tenant.decide(id, "none", decision).unwrap_err().kind(), ErrorKind::NotFound);
        let nobody = InstanceId::new(cutover::StoreId(1), 1, 1);
        assert_eq!(tenant.decide(nobody, "s", decision).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(tenant.decide(id, "s", &Decision::Retry).unwrap(), Decided::Retried);
    let worker = tenant.register(many("w")).unwrap();
    let task = claim(&worker).unwrap();
    for decision in &decisions {
        assert_eq!(tenant.decide(id, "s", decision).unwrap(), Decided::NotAsked, "it is being tried");
    }
    assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed);
    tenant.terminate(id, "").unwrap();
    for decision in &decisions {
        assert_eq!(tenant.decide(id, "s", decision).unwrap(), Decided::Ended(Ending::Terminated));
    }
}

#[test]
fn the_other_steps_of_an_instance_go_on_and_it_completes_with_the_undecided_one() {
    let home = Home::new();
    let (engine, _) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let launch = work().step(NewStep::new("beside").queue("q"));
    let id = stuck(&tenant, launch);
    let worker = tenant.register(many("w")).unwrap();
    let beside = worker.claim("q", Duration::ZERO).unwrap().unwrap();
    let next = vec![NewStep::new("after").queue("q")];
    worker.complete(&beside, Completion { next, ..Completion::default() }).unwrap();
    let after = worker.claim("q", Duration::ZERO).unwrap().unwrap();
    let done = Settled::Done { ended: None };
    assert_eq!(worker.complete(&after, Completion::default()).unwrap(), done, "one is open");
    tenant.decide(id, "s", &Decision::Retry).unwrap();
    let ended = Some(Ending::Completed);
    let last = claim(&worker).unwrap();
    assert_eq!(worker.complete(&last, Completion::default()).unwrap(), Settled::Done { ended });
}

#[test]
fn whatever_ends_an_instance_takes_its_undecided_step_along() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(BEGIN));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    let launches: Vec<_> = (0..4).map(|n| stuck(&tenant, keyed(&n.to_string()))).collect();
    let held = stuck(&tenant, work().step(NewStep::new("held").queue("q")));
    assert_eq!(instances(&undecided(&tenant)).len(), 5);
    assert_eq!(tenant.cancel(launches[0], "enough").unwrap(), Ended::Now, "nobody holds it");
    tenant.terminate(launches[1], "").unwrap();
    tenant.end(launches[2], Ending::Completed, b"", "").unwrap();
    let replace = keyed("3").on_conflict(cutover::ConflictPolicy::TerminateExisting);
    let new = tenant.launch(&replace).unwrap();
    assert!(matches!(new, Launched::Started(_)));
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("q", Duration::ZERO).unwrap().unwrap();
    assert_eq!(tenant.cancel(held, "enough").unwrap(), Ended::Asked, "its other step is held");
    assert_eq!(instances(&undecided(&tenant)), [held]);
    let ended = Some(Ending::Cancelled);
    assert_eq!(worker.complete(&task, Completion::default()).unwrap(), Settled::Done { ended });
    assert!(undecided(&tenant).is_empty());
    assert_eq!(tenant.terminate(started(new), "").unwrap(), Ended::Now);
    clock.advance(SECOND);
    while engine.step().unwrap() {}
    drop((worker, tenant));
    engine.close(crate::common::LONG).unwrap();
    let mut left = Vec::new();
    for family in [Family::Steps, Family::Ready, Family::Instances] {
        let mut visit = |key: &[u8], _: &[u8]| {
            left.push(cutover::formats::keys::decode(family, key).unwrap());
            std::ops::ControlFlow::Continue(())
        };
        home.store("a").scan(family, &[], &[0xFF; 16], &mut visit).unwrap();
    }
    let left: Vec<RowId<'_>> = left.into_iter().map(|(_, row)| row).collect();
    assert_eq!(left, []);
}

#[test]
fn an_instance_that_was_asked_to_stop_is_not_tried_again() {
    let home = Home::new();
    let (engine, _) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = stuck(&tenant, work().step(NewStep::new("held").queue("q")));
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("q", Duration::ZERO).unwrap().unwrap();
    assert_eq!(tenant.cancel(id, "enough").unwrap(), Ended::Asked);
    let cancelled = Decided::Aborted(Ending::Cancelled);
    assert_eq!(tenant.decide(id, "s", &abort("as well")).unwrap(), cancelled);
    assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Refused(cutover::Refusal::NotHeld));
}

#[test]
fn undecided_steps_are_found_and_decided_in_both_stores_while_a_tenant_moves() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    let old: Vec<_> = (0..3).map(|n| stuck(&tenant, keyed(&format!("old {n}")))).collect();
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    let new: Vec<_> = (0..3).map(|n| stuck(&tenant, keyed(&format!("new {n}")))).collect();
    assert!(old[0].store() != new[0].store());
    let mut found = instances(&undecided(&tenant));
    found.sort_unstable();
    let mut due = [old.clone(), new.clone()].concat();
    due.sort_unstable();
    assert_eq!(found, due);
    assert_eq!(tenant.decide(old[0], "s", &Decision::Retry).unwrap(), Decided::Retried);
    assert_eq!(tenant.decide(new[0], "s", &Decision::Retry).unwrap(), Decided::Retried);
    assert_eq!(tenant.status().phase, Phase::PostMigration, "an undecided step keeps its store");
    for id in old.iter().chain(&new).filter(|id| ![old[0], new[0]].contains(id)) {
        assert_eq!(tenant.decide(*id, "s", &abort("")).unwrap(), Decided::Aborted(Ending::Failed));
    }
    let worker = tenant.register(many("w")).unwrap();
    for _ in 0..2 {
        let task = claim(&worker).unwrap();
        worker.complete(&task, Completion::default()).unwrap();
    }
    assert!(undecided(&tenant).is_empty());
    settle(&tenant);
}

#[test]
fn the_list_is_in_the_order_of_waiting_and_its_pages_meet() {
    let home = Home::new();
    let (engine, clock) = at_a_moment(&home);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let ids: Vec<_> = (0..25)
        .map(|_| {
            clock.advance(TICK);
            stuck(&tenant, work())
        })
        .collect();
    assert_eq!(instances(&undecided(&tenant)), ids);
    let first = tenant.undecided(None, 0).unwrap();
    assert_eq!(instances(&first.steps), [ids[0]], "a page of nothing would not be the end");
    // What goes between two pages is not missed, and nothing is shown twice.
    tenant.terminate(ids[0], "").unwrap();
    tenant.terminate(ids[1], "").unwrap();
    let rest = tenant.undecided(first.next.as_ref(), 1_000).unwrap();
    assert_eq!((instances(&rest.steps), rest.next), (ids[2..].to_vec(), None));
}
