//! Workers: claims, leases, fencing, joins.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::fault::{Act, Fault, Faults};
use cutover::store::memory::MemoryDriver;
use cutover::{
    Beat, Completion, Ended, Ending, Engine, ErrorKind, Gate, Heartbeats, Launched, MigrationOptions,
    NewStep, Phase, Refusal, Settled, Task, Tenant, WorkerOptions,
};

use crate::common::{
    Home, KEEP, LONG, PATIENT, keyed, many, memory, started, tenant, wait_for_hang, with_step,
};

const LEASE: Duration = Duration::from_secs(10);

fn claim(worker: &Gate) -> Option<cutover::Task> {
    worker.claim("default", Duration::ZERO).unwrap()
}

fn done(ended: Option<Ending>) -> Settled {
    Settled::Done { ended }
}

fn worker(tenant: &Tenant) -> Gate {
    tenant.register(many("w")).unwrap()
}

#[test]
fn a_fork_and_a_join_run_in_order_and_end_the_instance() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&keyed("k").step(NewStep::new("root"))).unwrap());
    let worker = worker(&tenant);
    let root = claim(&worker).unwrap();
    let next = vec![NewStep::new("left").parents(1), NewStep::new("right").parents(1)];
    assert_eq!(worker.complete(&root, Completion { next, ..Completion::default() }).unwrap(), done(None));
    let join = || Completion { next: vec![NewStep::new("join").parents(2)], ..Completion::default() };
    let (one, other) = (claim(&worker).unwrap(), claim(&worker).unwrap());
    assert_eq!(claim(&worker), None);
    assert_eq!(worker.complete(&one, join()).unwrap(), done(None));
    assert_eq!(claim(&worker), None, "the join waits for both");
    assert_eq!(worker.complete(&other, join()).unwrap(), done(None));
    let last = claim(&worker).unwrap();
    assert_eq!(last.step, "join");
    let completion = Completion { output: b"out".to_vec(), result: b"res".to_vec(), ..Completion::default() };
    assert_eq!(worker.complete(&last, completion).unwrap(), done(Some(Ending::Completed)));
    assert_eq!(tenant.instance(id).unwrap().unwrap().output, b"out");
    assert_eq!(tenant.step_result(id, "join").unwrap().unwrap(), b"res");
    assert!(matches!(worker.complete(&last, Completion::default()).unwrap(), Settled::Refused(_)));
}

#[test]
fn a_step_offered_too_often_is_refused_and_changes_nothing() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&keyed("k").step(NewStep::new("a")).step(NewStep::new("b"))).unwrap());
    let worker = worker(&tenant);
    let (a, b) = (claim(&worker).unwrap(), claim(&worker).unwrap());
    let next = || Completion { next: vec![NewStep::new("c").parents(1)], ..Completion::default() };
    assert_eq!(worker.complete(&a, next()).unwrap(), done(None));
    let err = worker.complete(&b, next()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InvalidInput, "{err}");
    assert_eq!(worker.heartbeat(&b).unwrap(), Beat::Renewed, "the lease is still held");
    assert_eq!(worker.complete(&b, Completion::default()).unwrap(), done(None));
}

#[test]
fn a_lease_is_valid_before_its_end_and_not_at_it() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let builder = home.builder().heartbeats(Heartbeats { every: LEASE, intervals: 1 });
    let engine = builder.clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("k")).unwrap());
    let (early, late) = (tenant.register(many("early")).unwrap(), tenant.register(many("late")).unwrap());
    let first = claim(&early).unwrap();
    clock.advance(LEASE - Duration::from_millis(1));
    assert_eq!(early.heartbeat(&first).unwrap(), Beat::Renewed);
    assert_eq!(late.idle().unwrap(), Beat::Renewed);
    clock.advance(LEASE - Duration::from_millis(1));
    assert_eq!(claim(&late), None, "still held");
    clock.advance(Duration::from_millis(1));
    assert_eq!(early.heartbeat(&first).unwrap(), Beat::Refused(Refusal::LeaseExpired));
    let refused = Settled::Refused(Refusal::LeaseExpired);
    assert_eq!(early.complete(&first, Completion::default()).unwrap(), refused);
    let second = claim(&late).unwrap();
    assert!(second.token > first.token);
    assert!(matches!(early.complete(&first, Completion::default()).unwrap(), Settled::Refused(_)));
    assert_eq!(late.complete(&second, Completion::default()).unwrap(), done(Some(Ending::Completed)));
}

#[test]
fn a_claim_that_waits_is_woken_by_a_launch() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let worker = worker(&tenant);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| worker.claim("q", LONG).unwrap().unwrap());
        let id = started(tenant.launch(&keyed("k").step(NewStep::new("s").queue("q"))).unwrap());
        assert_eq!(waiting.join().unwrap().instance, id);
    });
    assert_eq!(worker.claim("q", Duration::from_millis(5)).unwrap(), None);
}

#[test]
fn a_step_whose_worker_is_gone_is_given_to_one_that_waits() {
    let home = Home::new();
    let short = Heartbeats { every: Duration::from_millis(10), intervals: 2 };
    let engine = home.builder().heartbeats_of("default", short).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("k")).unwrap());
    let (gone, waiting) = (worker(&tenant), worker(&tenant));
    let lost = gone.claim("default", Duration::ZERO).unwrap().unwrap();
    let found = waiting.claim("default", LONG).unwrap().unwrap();
    assert_eq!(found.step, lost.step);
    assert!(found.token > lost.token);
}

/// More ready steps than a lane keeps in memory, in the order of their launches.
#[test]
fn a_long_queue_comes_out_whole_and_in_order() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let worker = worker(&tenant);
    assert_eq!(claim(&worker), None, "so that the lane is at its end");
    let launched: Vec<_> = (0..10_000)
        .map(|n| {
            clock.advance(Duration::from_millis(1));
            started(tenant.launch(&with_step(&n.to_string())).unwrap())
        })
        .collect();
    let claimed: Vec<_> = std::iter::from_fn(|| claim(&worker)).map(|task| task.instance).collect();
    assert!(launched == claimed, "{} launched, {} claimed", launched.len(), claimed.len());
}

/// Of a cancelled instance one step is held and another is ready: who claims gets the step of somebody else, or nothing, at once.
#[test]
fn a_cancelled_instance_does_not_keep_a_worker_from_other_work() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&keyed("k").step(NewStep::new("a")).step(NewStep::new("b"))).unwrap());
    let holder = worker(&tenant);
    let held = claim(&holder).unwrap();
    assert_eq!(tenant.cancel(id, "enough").unwrap(), Ended::Asked);
    let other = started(tenant.launch(&with_step("other")).unwrap());
    let (done_with, claimed) = std::sync::mpsc::channel();
    let claiming = tenant.clone();
    std::thread::spawn(move || {
        let worker = claiming.register(many("late")).unwrap();
        done_with.send([claim(&worker), claim(&worker)]).ok();
    });
    let [first, second] = claimed.recv_timeout(LEASE / 2).expect("a claim that does not wait returns");
    assert_eq!((first.unwrap().instance, second), (other, None));
    assert_eq!(holder.complete(&held, Completion::default()).unwrap(), done(Some(Ending::Cancelled)));
}

/// A worker with two steps may work on them in two threads.
#[test]
fn heartbeats_from_two_threads_of_a_worker_are_all_taken() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&keyed("k").step(NewStep::new("a")).step(NewStep::new("b"))).unwrap());
    let worker = worker(&tenant);
    let tasks = [claim(&worker).unwrap(), claim(&worker).unwrap()];
    std::thread::scope(|scope| {
        for task in &tasks {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    assert_eq!(worker.heartbeat(task).unwrap(), Beat::Renewed);
                }
            });
        }
    });
}

#[test]
fn a_worker_that_claims_in_two_threads_has_no_more_than_its_limit_and_nothing_is_lost() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let worker = tenant.register(WorkerOptions::new("w")).unwrap();
    let barrier = std::sync::Barrier::new(2);
    for n in 0..300 {
        let two = [0, 1].map(|of| started(tenant.launch(&with_step(&format!("{n} {of}"))).unwrap()));
        let claim_both = || {
            barrier.wait();
            worker.claim("default", Duration::ZERO)
        };
        let got = std::thread::scope(|scope| {
            [(), ()].map(|()| scope.spawn(claim_both)).map(|one| one.join().unwrap())
        });
        let (given, refused): (Vec<_>, Vec<_>) = got.into_iter().partition(Result::is_ok);
        assert_eq!(
            refused.into_iter().map(|err| err.unwrap_err().kind()).collect::<Vec<_>>(),
            [ErrorKind::AtLimit]
        );
        let first = given.into_iter().next().unwrap().unwrap().expect("one of two");
        assert_eq!(worker.complete(&first, Completion::default()).unwrap(), done(Some(Ending::Completed)));
        let second = claim(&worker).expect("the other one");
        assert!(two.contains(&first.instance) && two.contains(&second.instance));
        assert_eq!(worker.complete(&second, Completion::default()).unwrap(), done(Some(Ending::Completed)));
    }
}

/// Where the status went cannot be looked up: only the worker knows what is known there.
#[test]
fn a_phase_waits_until_a_kept_status_is_replaced_or_the_lease_of_its_keeper_is_over() {
    for confirms in [true, false] {
        let home = Home::new();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let builder = home.builder().heartbeats(Heartbeats { every: LEASE, intervals: 1 });
        let engine = builder.clock(clock.clone()).background(false).open().unwrap();
        let tenant = tenant(&engine, memory("a"), KEEP);
        let keeper = tenant.register(many("keeper").keeps_status()).unwrap();
        let asks = worker(&tenant);
        tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
        let phase_after = |beat: bool| {
            for _ in 0..50 {
                engine.step().unwrap();
                if beat {
                    assert_eq!([&keeper, &asks].map(|gate| gate.idle().unwrap()), [Beat::Renewed; 2]);
                }
            }
            tenant.status().phase
        };
        assert_eq!(phase_after(true), Phase::PreMigration, "to be heard of is not to have seen it");
        keeper.register_anew().unwrap();
        assert_eq!(phase_after(true), Phase::PreMigration, "nor is to register anew");
        if confirms {
            let seen = tenant.status().epoch;
            keeper.seen(seen);
            assert_eq!(phase_after(false), Phase::PreMigration, "it has not said so");
            // It cannot have seen what is still to come.
            keeper.seen(u64::MAX);
            keeper.seen(seen - 1);
            assert_eq!(phase_after(true), Phase::Migration);
            keeper.seen(tenant.status().epoch);
            assert_eq!(phase_after(true), Phase::PostMigration);
        } else {
            clock.advance(LEASE);
            assert_eq!(phase_after(false), Phase::PostMigration, "it can do nothing any more");
        }
    }
}

/// A worker may have put its task together again from what it had sent elsewhere.
#[test]
fn the_last_step_of_an_instance_is_settled_under_its_key_whatever_its_task_says() {
    let (home, faults) = (Home::new(), Faults::new());
    let builder = Engine::builder(home.path().join("data")).heartbeats(PATIENT).background(false);
    let engine = builder.driver(faults.driver(Arc::new(MemoryDriver::new()))).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    let worker = worker(&tenant);
    let task = Task { key: None, ..claim(&worker).unwrap() };
    let conflict =
        || assert_eq!(tenant.launch(&with_step("k")).unwrap(), Launched::Conflict { instance: id });
    conflict();
    let before = faults.reads();
    conflict();
    // The next one hangs in the last thing that it looks at, which it does with its key locked.
    let last = 2 * faults.reads() - before;
    let hangs = move |step: &cutover::fault::Step| step.act == Act::ReadStore && step.number == last;
    faults.script(move |step| if hangs(step) { Fault::Hang } else { Fault::None });
    std::thread::scope(|scope| {
        let launching = scope.spawn(conflict);
        let hanging = wait_for_hang(&faults);
        let report = scope.spawn(|| worker.complete(&task, Completion::default()).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        let waited = !report.is_finished();
        drop(hanging);
        launching.join().unwrap();
        assert_eq!(report.join().unwrap(), done(Some(Ending::Completed)));
        assert!(waited, "it ended while a launch was looking at its key");
    });
}
