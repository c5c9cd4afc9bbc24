//! Steps that are completed and instances that are ended, while what has ended is collected and stores drain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover::{
    Completion, Ended, Ending, ErrorKind, Gate, Hold, InstanceId, Launch, Launched, NewStep, Refusal,
    Settled, Tenant,
};
use shuttle::rand::{Rng as _, thread_rng};

use crate::schedules::{run, run_whatever_they_meet};

const WORKERS: usize = 2;
/// Most instances that are there at the beginning, half of them with a key.
const INSTANCES: usize = 3;

/// What the callers know.
#[derive(Default)]
struct Books {
    launched: BTreeSet<InstanceId>,
    /// By whom each instance was ended, as he was told.
    ended: BTreeMap<InstanceId, &'static str>,
    /// Ended from outside, so that its steps may be left undone.
    stopped: BTreeSet<InstanceId>,
    done: BTreeMap<(InstanceId, String), u32>,
}

type Shared = Arc<Mutex<Books>>;

#[test]
fn steps_and_ends_against_collection_and_drains() {
    run("steps and ends", |world| {
        let books = Shared::default();
        let first = thread_rng().gen_range(0..=INSTANCES);
        (0..first).for_each(|number| launch(&world.tenant, &books, number));
        world.begin_in_some_phase();
        let mut threads = vec![world.driver(), world.operator()];
        for _ in 0..WORKERS {
            let (tenant, pairs, books) = (world.tenant.clone(), world.pairs.clone(), books.clone());
            threads.push(shuttle::thread::spawn(move || {
                let worker = tenant.register("worker").unwrap();
                for _ in 0..3 {
                    pairs.around(&tenant, || work(&worker, &books));
                }
            }));
        }
        let (tenant, pairs, theirs) = (world.tenant.clone(), world.pairs.clone(), books.clone());
        threads.push(shuttle::thread::spawn(move || {
            pairs.around(&tenant, || launch(&tenant, &theirs, first));
            for _ in 0..2 {
                pairs.around(&tenant, || stop(&tenant, &theirs));
            }
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        // What is left is done now: nothing may be lost on the way.
        let worker = world.tenant.register("last").unwrap();
        while work(&worker, &books) {}
        check(&world.tenant, &books.lock().unwrap());
    });
}

/// An end reads the clock, and is committed when others have long collected what ended after it.
#[test]
fn deadlines_that_come_late_are_collected() {
    run_whatever_they_meet("late deadlines", |world| {
        let ids: Vec<InstanceId> = (0..3)
            .map(|_| match world.tenant.launch(&Launch::new("work", 1)).unwrap() {
                Launched::Started(id) => id,
                other => panic!("{other:?} without a key"),
            })
            .collect();
        let collector = |times| {
            let engine = world.engine.clone();
            shuttle::thread::spawn(move || (0..times).for_each(|_| _ = engine.step().unwrap()))
        };
        let enders = ids.iter().map(|id| {
            let (id, tenant, clock) = (*id, world.tenant.clone(), world.clock.clone());
            shuttle::thread::spawn(move || {
                assert_eq!(tenant.end(id, Ending::Completed, b"", "").unwrap(), Ended::Now);
                clock.advance(Duration::from_millis(1));
            })
        });
        let threads: Vec<_> = enders.chain([collector(3)]).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        collector(4).join().unwrap();
        for id in ids {
            assert!(world.tenant.instance(id).unwrap().is_none(), "{id} was never collected");
        }
    });
}

/// A collector that began before the switch does not look at the target: what ended there is for the next one, not for nobody.
#[test]
fn deadlines_that_come_with_the_switch_are_collected() {
    run_whatever_they_meet("deadlines at the switch", |world| {
        world.begin_before_the_switch();
        let tenant = world.tenant.clone();
        let worker = shuttle::thread::spawn(move || {
            (0..3)
                .map(|_| {
                    let Launched::Started(id) = tenant.launch(&Launch::new("work", 1)).unwrap() else {
                        panic!("a launch without a key starts something")
                    };
                    assert_eq!(tenant.end(id, Ending::Completed, b"", "").unwrap(), Ended::Now);
                    id
                })
                .collect::<Vec<_>>()
        });
        let threads = [world.driver(), world.driver()];
        world.tenant.migration().release(Hold::Switch).unwrap();
        let ids = worker.join().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        (0..4).for_each(|_| _ = world.engine.step().unwrap());
        for id in ids {
            assert!(world.tenant.instance(id).unwrap().is_none(), "{id} was never collected");
        }
    });
}

fn launch(tenant: &Tenant, books: &Shared, number: usize) {
    let mut launch = Launch::new("work", 1).step(NewStep::new("a")).step(NewStep::new("b"));
    if number.is_multiple_of(2) {
        // Some are kept for a while after their end, some are collected at once.
        launch = launch.key(if number == 0 { "keep" } else { "drop" }, number.to_string());
    }
    match tenant.launch(&launch).unwrap() {
        Launched::Started(id) => assert!(books.lock().unwrap().launched.insert(id)),
        other => panic!("{other:?}, and nobody else has its key"),
    }
}

/// Takes a step and completes it; says whether there was one. Both first steps offer the last one.
fn work(worker: &Gate, books: &Shared) -> bool {
    let Some(task) = worker.claim("default", Duration::ZERO).unwrap() else { return false };
    let next = if task.step == "last" { Vec::new() } else { vec![NewStep::new("last").parents(2)] };
    let settled = worker.complete(&task, Completion { next, ..Completion::default() }).unwrap();
    let books = &mut *books.lock().unwrap();
    match settled {
        Settled::Done { ended } => {
            let times = books.done.entry((task.instance, task.step.clone())).or_default();
            *times += 1;
            assert_eq!(*times, 1, "the step {} of {} was done twice", task.step, task.instance);
            if ended.is_some() {
                note_end(books, task.instance, "its worker");
            }
        }
        // Its instance went to the other store: it is done again.
        Settled::Refused(Refusal::Moved) => {}
        // Somebody has ended its instance, or is about to be told so; looked at in the end.
        Settled::Refused(_) => {
            books.stopped.insert(task.instance);
        }
    }
    true
}

fn stop(tenant: &Tenant, books: &Shared) {
    let mut rng = thread_rng();
    let launched: Vec<_> = books.lock().unwrap().launched.iter().copied().collect();
    let id = launched[rng.gen_range(0..launched.len())];
    let ended = match rng.gen_range(0..3) {
        0 => tenant.end(id, Ending::Failed, b"", "stopped"),
        1 => tenant.cancel(id, "stopped"),
        _ => tenant.terminate(id, "stopped"),
    };
    if let Err(err) = &ended {
        assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
        assert!(tenant.instance(id).unwrap().is_none(), "{id} was said not to be there");
    }
    let books = &mut *books.lock().unwrap();
    match ended {
        Ok(Ended::Now) => {
            books.stopped.insert(id);
            note_end(books, id, "a call");
        }
        // Its workers end it, with whatever they hold.
        Ok(Ended::Asked) => {
            books.stopped.insert(id);
        }
        Ok(Ended::Before(_)) | Err(_) => {}
    }
}

fn note_end(books: &mut Books, id: InstanceId, who: &'static str) {
    let before = books.ended.insert(id, who);
    assert_eq!(before, None, "{id} was ended twice");
}

/// Every instance was ended once, by somebody who knows it, and unless it was stopped all its steps were done.
fn check(tenant: &Tenant, books: &Books) {
    for id in &books.launched {
        let found = tenant.instance(*id).unwrap();
        assert!(found.is_none_or(|found| found.ending().is_some()), "{id} has nothing left to do and lives");
        assert!(books.ended.contains_key(id), "{id} has ended and nobody was told");
        if books.stopped.contains(id) {
            continue;
        }
        for step in ["a", "b", "last"] {
            assert!(books.done.contains_key(&(*id, step.to_owned())), "the step {step} of {id} was lost");
        }
    }
    let stale_only: Vec<_> = books.stopped.iter().filter(|id| !books.ended.contains_key(id)).collect();
    assert!(stale_only.is_empty(), "refused as stale, and not ended: {stale_only:?}");
}
