//! A tenant that goes from one runner to the next while clients launch, workers of either runner work, and the tenant moves to another store.
//!
//! Here a wait may end before its time whatever that is, so a request may be told that a hand-over takes too long, and a flip may be undone: both are
//! asked for again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::schedules::run_whatever_they_meet;
use cutover::{
    Attached, Completion, Ending, ErrorKind, HandoverOptions, InstanceId, Launch, Launched, NewStep, Refusal,
    Settled, Tenant,
};

const RUNNERS: usize = 3;
const LAUNCHES: usize = 3;

/// How often the result of each step was accepted.
type Done = Arc<Mutex<BTreeMap<(InstanceId, String), u32>>>;

#[test]
fn no_step_is_done_twice_or_lost_while_a_tenant_changes_hands() {
    run_whatever_they_meet("hand-overs", |world| {
        let (done, launched) = (Done::default(), Arc::new(Mutex::new(Vec::new())));
        launch(&world.tenant, &launched, 0);
        world.begin_in_some_phase();
        let first = Arc::new(world.engine.runner("runner 0").unwrap().attach("acme").unwrap());
        let mut threads = vec![world.driver(), world.operator(), employ(&first, &done)];
        let (tenant, theirs) = (world.tenant.clone(), Arc::clone(&launched));
        threads.push(shuttle::thread::spawn(move || {
            (1..LAUNCHES).for_each(|number| launch(&tenant, &theirs, number));
        }));
        let (engine, tenant, theirs) = (world.engine.clone(), world.tenant.clone(), Arc::clone(&done));
        let flips = shuttle::thread::spawn(move || {
            let mut acts = first;
            let mut workers = Vec::new();
            for number in 1..RUNNERS {
                let name = format!("runner {number}");
                let next = Arc::new(engine.runner(&name).unwrap().attach_standby("acme").unwrap());
                workers.push(employ(&next, &theirs));
                let handover = tenant.handover();
                handover.prepare(&name, &HandoverOptions::default()).unwrap();
                while handover.flip().unwrap().undone.is_some() {
                    assert!(acts.acts() && !next.acts(), "the old one goes on");
                }
                assert!(next.acts() && !acts.acts(), "one at a time");
                next.serving().unwrap();
                acts = next;
            }
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            acts
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let acts = flips.join().unwrap();
        // What is left is done now, by whoever acts.
        work(&acts.tenant(), &done);
        for id in &*launched.lock().unwrap() {
            for step in ["a", "b"] {
                let times = done.lock().unwrap().get(&(*id, step.to_owned())).copied();
                assert_eq!(times, Some(1), "the step {step} of {id}");
            }
        }
    });
}

fn launch(tenant: &Tenant, launched: &Mutex<Vec<InstanceId>>, number: usize) {
    let launch = Launch::new("work", 1).key("keep", number.to_string()).step(NewStep::new("a"));
    loop {
        match tenant.launch(&launch) {
            Ok(Launched::Started(id)) => return launched.lock().unwrap().push(id),
            Err(err) if err.kind() == ErrorKind::TimedOut => {}
            other => panic!("{other:?}, and nobody else has its key"),
        }
    }
}

/// A worker of this runner, from when it is let in until it acts no more or there is nothing to do.
fn employ(runner: &Arc<Attached>, done: &Done) -> shuttle::thread::JoinHandle<()> {
    let (runner, done) = (Arc::clone(runner), Arc::clone(done));
    shuttle::thread::spawn(move || work(&runner.tenant(), &done))
}

/// Works until there is nothing to do, or until it is told that its runner does not act.
fn work(tenant: &Tenant, done: &Done) {
    let Some(worker) = asked(|| tenant.register("worker")) else { return };
    while let Some(Some(task)) = asked(|| worker.claim("default", Duration::ZERO)) {
        let next = || if task.step == "a" { vec![NewStep::new("b")] } else { Vec::new() };
        match asked(|| worker.complete(&task, Completion { next: next(), ..Completion::default() })) {
            Some(Settled::Done { ended }) => {
                let times = &mut *done.lock().unwrap();
                let times = times.entry((task.instance, task.step.clone())).or_default();
                *times += 1;
                assert_eq!(*times, 1, "the step {} of {} was done twice", task.step, task.instance);
                assert_eq!(ended, (task.step == "b").then_some(Ending::Completed));
            }
            Some(Settled::Refused(Refusal::Moved | Refusal::LeaseExpired)) => {}
            Some(other) => panic!("{other:?}"),
            None => return,
        }
    }
}

/// Asks until there is an answer; none if the runner does not act any more.
fn asked<T>(mut call: impl FnMut() -> cutover::Result<T>) -> Option<T> {
    loop {
        match call() {
            Ok(answer) => return Some(answer),
            Err(err) => match err.kind() {
                ErrorKind::TimedOut => {}
                ErrorKind::NotPrimary | ErrorKind::Deactivated | ErrorKind::LeaseExpired => return None,
                _ => panic!("{err}"),
            },
        }
    }
}
