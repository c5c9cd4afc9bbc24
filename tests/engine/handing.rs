//! Runners: who may act for a tenant, and how it changes hands while work goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutover::fault::{Act, Effect, Fault};
use cutover::store::Write;
use cutover::{
    Access, Attached, Backoff, Completion, Ending, ErrorKind, FlipStep, Gate, HandoverOptions, HandoverPhase,
    Hold, MigrationOptions, Phase, RunId, Settled,
};

use crate::common::{
    DROP, Home, KEEP, LONG, keyed, many, memory, settle, started, tenant, wait_for_hang, with_step,
};
use crate::runners::{Machine, kind, named, seats, steps, steps_of_flips, two_runners};

#[test]
fn the_first_runner_is_primary_and_others_are_refused_with_its_name() {
    let home = Home::new();
    let engine = home.open();
    let door = tenant(&engine, memory("a"), KEEP);
    assert!(door.handover().progress().seats.is_empty(), "a tenant needs no runner");
    started(door.launch(&keyed("without")).unwrap());
    let (one, two) = (engine.runner("one").unwrap(), engine.runner("two").unwrap());
    assert_eq!(kind(one.tenant("acme").unwrap().launch(&keyed("k"))), ErrorKind::NotPrimary);
    let attached = one.attach("acme").unwrap();
    assert_eq!((attached.access(), attached.acts()), (Access::Primary, true));
    let again = one.attach("acme").unwrap();
    assert_eq!((again.access(), again.epoch()), (Access::Primary, attached.epoch()), "taken as such");
    drop(again);
    let id = started(attached.tenant().launch(&keyed("k")).unwrap());
    let err = two.attach("acme").err().unwrap();
    assert_eq!(err.kind(), ErrorKind::NotPrimary);
    assert!(err.to_string().contains("\"one\""), "{err}");
    let standby = two.attach_standby("acme").unwrap();
    assert_eq!((standby.access(), standby.acts()), (Access::Standby, false));
    let foreign = standby.tenant();
    for refused in [
        kind(foreign.launch(&keyed("x"))),
        kind(foreign.instance(id)),
        kind(foreign.instance_by_key("scope", b"k")),
        kind(foreign.definition("work", 1)),
        kind(foreign.list(&cutover::Filter::default(), None, 1)),
        kind(foreign.end(id, Ending::Completed, b"", "")),
        kind(foreign.register(many("w"))),
        kind(foreign.define("other", 1, "t", b"")),
        kind(foreign.migration().quarantine()),
    ] {
        assert_eq!(refused, ErrorKind::NotPrimary);
    }
    assert_eq!(
        seats(&door),
        named(&[("one", Access::Primary), ("two", Access::Standby)]),
        "no implicit flip"
    );
    assert!(door.instance(id).unwrap().is_some());
    drop(attached);
    assert_eq!(kind(one.tenant("acme").unwrap().instance(id)), ErrorKind::NotPrimary, "it is gone");
    assert!(door.instance(id).unwrap().is_some(), "clients are served all the same");
    assert_eq!(kind(two.attach("acme")), ErrorKind::NotPrimary, "its access stays");
    assert_eq!(kind(one.attach("nobody")), ErrorKind::NotFound);
}

/// Standby, and then deactivated: what it asks for is refused whatever it is, and changes nothing.
#[test]
fn a_runner_that_does_not_act_steers_nothing() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    let id = door.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    let refused = |by: &Attached, expected: ErrorKind| {
        let (migration, handover) = (by.tenant().migration(), by.tenant().handover());
        let (journals, status) = (door.migration().journal().unwrap().len(), door.status());
        let lines = door.handover().journal().unwrap().len();
        let (options, run) = (HandoverOptions::default(), RunId { id: "r".into(), attempt: "1".into() });
        for (call, found) in [
            kind(migration.start(memory("c"), MigrationOptions::default())),
            kind(migration.run(&run, memory("c"), MigrationOptions::default())),
            kind(migration.switch()),
            kind(migration.complete()),
            kind(migration.complete_abandoning()),
            kind(migration.cancel()),
            kind(migration.reverse()),
            kind(migration.hold(Hold::All)),
            kind(migration.release(Hold::Switch)),
            kind(migration.throttle(1)),
            kind(migration.move_stragglers(Duration::ZERO)),
            kind(migration.retry()),
            kind(handover.prepare("new", &options)),
            kind(handover.run("new", &options)),
            kind(handover.flip()),
            kind(handover.ask_to_flip()),
            kind(handover.roll_back()),
            kind(handover.ask_to_roll_back()),
            kind(handover.cancel()),
            kind(handover.terminate("old")),
            kind(handover.forget("old")),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(found, expected, "call {call}");
        }
        assert_eq!(door.migration().journal().unwrap().len(), journals);
        assert_eq!(door.handover().journal().unwrap().len(), lines);
        assert_eq!((door.status(), by.tenant().migration().progress().id), (status, Some(id)), "it may look");
    };
    refused(&new, ErrorKind::NotPrimary);
    // The one that acts may, and so may operators whoever acts.
    old.tenant().handover().prepare("new", &HandoverOptions::default()).unwrap();
    refused(&new, ErrorKind::NotPrimary);
    assert_eq!(old.tenant().handover().flip().unwrap().undone, None);
    refused(&old, ErrorKind::Deactivated);
    new.tenant().migration().throttle(1 << 20).unwrap();
    door.migration().cancel().unwrap();
    assert_eq!(new.tenant().handover().roll_back().unwrap().undone, None);
    assert!(old.acts());
}

#[test]
fn who_asks_again_for_a_hand_over_that_was_made_is_told_so() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    let options = HandoverOptions::default();
    let made = door.handover().run("new", &options).unwrap();
    assert!(!made.already);
    let again = || {
        let before = (door.handover().progress().seats, door.handover().journal().unwrap());
        let report = door.handover().run("new", &options).unwrap();
        assert_eq!((report.already, report.undone, report.epoch), (true, None, before.0[1].epoch));
        assert_eq!((door.handover().progress().seats, door.handover().journal().unwrap()), before);
        assert!(new.acts() && !old.acts());
        report.id
    };
    assert_eq!(again(), made.id);
    new.serving().unwrap();
    assert_eq!(again(), 0, "that hand-over is over");
    assert_eq!(kind(door.handover().prepare("new", &options)), ErrorKind::IllegalMove);
}

/// A launch of the old primary hangs in its commit while that is terminated: nobody is let in before it has ended.
#[test]
fn what_a_terminated_primary_was_admitted_to_ends_before_another_one_comes() {
    let machine = Machine::new();
    let engine = machine.open();
    let door = tenant(&engine, memory("a"), KEEP);
    let old = engine.runner("old").unwrap().attach("acme").unwrap();
    let two = engine.runner("two").unwrap();
    machine.faults.script(|step| match step.act {
        Act::Commit(Write::Synced) => Fault::Hang,
        _ => Fault::None,
    });
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| old.tenant().launch(&keyed("hangs")));
        let until = Instant::now() + LONG;
        let hanging = wait_for_hang(&machine.faults);
        machine.faults.clear();
        let terminates = scope.spawn(|| door.handover().terminate("old"));
        while seats(&door) != named(&[("old", Access::Terminated)]) {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        let early = two.attach("acme").map(drop);
        let waited = !terminates.is_finished();
        drop(hanging);
        assert_eq!(kind(early), ErrorKind::Unavailable);
        assert!(waited, "for what is under way");
        terminates.join().unwrap().unwrap();
        started(hangs.join().unwrap().unwrap());
    });
    assert_eq!(kind(old.tenant().launch(&keyed("late"))), ErrorKind::Deactivated);
    assert!(two.attach("acme").unwrap().acts());
}

#[test]
fn a_hand_over_lets_the_new_one_in_and_the_old_one_never_again() {
    let home = Home::new();
    let engine = home.open();
    let (door, old, new) = two_runners(&engine);
    let id = started(old.tenant().launch(&with_step("k")).unwrap());
    let gate = old.tenant().register(many("w")).unwrap();
    let task = gate.claim("default", Duration::ZERO).unwrap().unwrap();
    let report = door.handover().run("new", &HandoverOptions::default()).unwrap();
    assert_eq!((report.undone, report.released, report.back), (None, 1, false));
    assert_eq!(steps_of_flips(&door), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(FlipStep::ALL.map(|step| step as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(seats(&door), named(&[("old", Access::Deactivated), ("new", Access::Primary)]));
    assert!(new.wait_to_act(LONG).unwrap());
    // Whatever the old one still does is refused.
    let late = gate.complete(&task, Completion::default()).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Deactivated, "{late}");
    assert!(late.to_string().contains("\"new\""), "{late}");
    assert_eq!(kind(gate.register_anew()), ErrorKind::Deactivated);
    assert_eq!(kind(old.tenant().launch(&keyed("late"))), ErrorKind::Deactivated);
    assert_eq!(kind(engine.runner("old").unwrap().attach("acme")), ErrorKind::Deactivated);
    assert_eq!(kind(engine.runner("old").unwrap().attach_standby("acme")), ErrorKind::Deactivated);
    // The new one goes on at the last committed step.
    let hands = new.tenant().register(many("w")).unwrap();
    let again = hands.claim("default", Duration::ZERO).unwrap().unwrap();
    assert!(again.instance == id && again.token > task.token);
    let ended = Settled::Done { ended: Some(Ending::Completed) };
    assert_eq!(hands.complete(&again, Completion::default()).unwrap(), ended);
    assert_eq!(kind(door.handover().prepare("old", &HandoverOptions::default())), ErrorKind::IllegalMove);
    assert_eq!(door.handover().progress().handover.unwrap().phase, HandoverPhase::Cleanup);
    assert_eq!(kind(old.serving()), ErrorKind::Deactivated);
    new.serving().unwrap();
    assert_eq!(seats(&door), named(&[("old", Access::Terminated), ("new", Access::Primary)]));
    assert!(door.handover().progress().handover.is_none());
    assert_eq!(kind(door.handover().roll_back()), ErrorKind::IllegalMove);
    // The name may be used for another one when somebody says so.
    door.handover().forget("old").unwrap();
    assert_eq!(kind(door.handover().forget("new")), ErrorKind::IllegalMove);
    assert_eq!(engine.runner("old").unwrap().attach_standby("acme").unwrap().access(), Access::Standby);
}

#[test]
fn a_restart_keeps_epochs_and_who_was_deactivated() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    door.handover().run("new", &HandoverOptions::default()).unwrap();
    let before = door.handover().progress().seats;
    drop((old, new));
    let (machine, engine) = machine.crash(engine);
    let door = engine.tenant("acme").unwrap();
    assert_eq!(door.handover().progress().seats, before);
    assert_eq!(kind(engine.runner("old").unwrap().attach("acme")), ErrorKind::Deactivated);
    let err = engine.runner("old").unwrap().attach_with_retries("acme", true, &Backoff::default()).err();
    assert_eq!(err.unwrap().kind(), ErrorKind::Deactivated, "at once");
    let new = engine.runner("new").unwrap().attach("acme").unwrap();
    assert_eq!((new.access(), new.epoch()), (Access::Primary, before[1].epoch));
    new.tenant().launch(&keyed("k")).unwrap();
    new.serving().unwrap();
    engine.close(LONG).unwrap();
    drop((door, new));
    let engine = machine.open();
    let door = engine.tenant("acme").unwrap();
    assert_eq!(seats(&door), named(&[("old", Access::Terminated), ("new", Access::Primary)]));
    assert_eq!(kind(engine.runner("old").unwrap().attach("acme")), ErrorKind::Deactivated);
}

#[test]
fn attaching_is_tried_again_until_it_succeeds() {
    let machine = Machine::new();
    let engine = machine.open();
    let door = tenant(&engine, memory("a"), KEEP);
    let runner = engine.runner("one").unwrap();
    let failures = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&failures);
    machine.faults.script(move |step| match step.act {
        Act::Append if step.path.ends_with("access-0.jsonl") && seen.fetch_add(1, Ordering::Relaxed) < 3 => {
            Fault::Fail(Effect::Nothing)
        }
        _ => Fault::None,
    });
    let backoff = Backoff { first: Duration::from_micros(1), most: Duration::from_micros(4), tries: 9 };
    let attached = runner.attach_with_retries("acme", false, &backoff).unwrap();
    assert_eq!((attached.access(), failures.load(Ordering::Relaxed)), (Access::Primary, 4));
    let journal = door.handover().journal().unwrap();
    assert_eq!(journal.len(), 1, "what did not come to be is not told");
    let two = Backoff { tries: 2, ..backoff };
    let err = engine.runner("two").unwrap().attach_with_retries("acme", false, &two).err().unwrap();
    assert_eq!(err.kind(), ErrorKind::NotPrimary);
}

#[test]
fn a_foreign_request_brings_the_tenant_only_where_that_was_switched_on() {
    let home = Home::new();
    let engine = home.builder().flip_on_foreign_request(true).open().unwrap();
    let (door, old, new) = two_runners(&engine);
    let stranger = engine.runner("stranger").unwrap().tenant("acme").unwrap();
    assert_eq!(kind(stranger.launch(&keyed("k"))), ErrorKind::NotPrimary, "it is not on standby");
    started(new.tenant().launch(&keyed("k")).unwrap());
    assert_eq!(seats(&door), named(&[("old", Access::Deactivated), ("new", Access::Primary)]));
    assert_eq!(kind(old.tenant().launch(&keyed("late"))), ErrorKind::Deactivated, "it brings nothing back");
    assert!(new.acts());
}

#[test]
fn a_hand_over_with_a_time_flips_without_being_asked_again() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    door.handover().prepare("new", &HandoverOptions::default().flip_in(Duration::from_secs(5))).unwrap();
    steps(&engine, 20);
    assert!(old.acts(), "it is not time");
    drop((old, new, door));
    let (machine, engine) = machine.crash(engine);
    let old = engine.runner("old").unwrap().attach("acme").unwrap();
    let new = engine.runner("new").unwrap().attach_standby("acme").unwrap();
    steps(&engine, 20);
    assert!(old.acts(), "it is not time");
    machine.clock.advance(Duration::from_secs(9));
    steps(&engine, 20);
    assert!(new.acts() && !old.acts());
}

#[test]
fn a_hand_over_that_is_called_off_leaves_the_new_one_on_standby() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    let options = HandoverOptions::default();
    assert_eq!(kind(door.handover().flip()), ErrorKind::IllegalMove);
    assert_eq!(kind(door.handover().cancel()), ErrorKind::IllegalMove);
    assert_eq!(kind(door.handover().prepare("old", &options)), ErrorKind::IllegalMove);
    let before = door.handover().progress().seats;
    door.handover().prepare("new", &options).unwrap();
    assert_eq!(kind(door.handover().prepare("new", &options)), ErrorKind::IllegalMove);
    assert_eq!(kind(door.handover().terminate("new")), ErrorKind::IllegalMove);
    door.handover().cancel().unwrap();
    assert_eq!(door.handover().progress().seats, before);
    door.handover().terminate("old").unwrap();
    assert!(!old.acts());
    assert_eq!(kind(door.handover().terminate("nobody")), ErrorKind::NotFound);
    // Nobody acts now; the one on standby becomes primary by a flip, as ever.
    assert_eq!(kind(engine.runner("new").unwrap().attach("acme")), ErrorKind::NotPrimary);
    assert!(door.handover().run("new", &options).unwrap().undone.is_none());
    assert!(new.acts());
    new.serving().unwrap();
    assert_eq!(seats(&door), named(&[("old", Access::Terminated), ("new", Access::Primary)]));
}

#[test]
fn a_deleted_tenant_takes_who_may_act_with_it() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    engine.delete_tenant("acme").unwrap();
    assert_eq!(kind(old.tenant().launch(&keyed("k"))), ErrorKind::NotFound);
    assert!(door.handover().cancel().is_err());
    assert!(!new.acts());
    let left = cutover::files::Files::list(&machine.files, Path::new("/data/meta")).unwrap();
    let left: Vec<_> = left.iter().filter(|name| name.to_string_lossy().starts_with("access")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_hand_over_goes_on_while_a_migration_does() {
    let home = Home::new();
    let engine = home.open();
    let door = tenant(&engine, memory("a"), DROP);
    let old = engine.runner("old").unwrap().attach("acme").unwrap();
    let new = engine.runner("new").unwrap().attach_standby("acme").unwrap();
    let first = started(old.tenant().launch(&with_step("first")).unwrap());
    door.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    let until = Instant::now() + LONG;
    while door.status().phase != Phase::PostMigration {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    let status = door.status();
    assert!(door.handover().run("new", &HandoverOptions::default()).unwrap().undone.is_none());
    assert_eq!(door.status().epoch, status.epoch, "neither knows the other");
    let second = started(new.tenant().launch(&with_step("second")).unwrap());
    assert_ne!(first.store(), second.store());
    let gate = new.tenant().register(many("w")).unwrap();
    for _ in 0..2 {
        let task = gate.claim("default", LONG).unwrap().unwrap();
        gate.complete(&task, Completion::default()).unwrap();
    }
    settle(&door);
    assert!(new.acts() && !old.acts());
}

/// Four threads at the door and two for each runner, over twenty hand-overs to a new name each: every step takes effect once, and no
/// request at the door fails.
#[test]
fn hand_overs_under_load_lose_nothing_and_do_nothing_twice() {
    const ROUNDS: usize = 20;
    let home = Home::new();
    let engine = home.open();
    let door = tenant(&engine, memory("a"), KEEP);
    let done = AtomicBool::new(false);
    let completed = parking_lot::Mutex::new(BTreeMap::<String, u32>::new());
    let launched = AtomicU64::new(0);
    let work = |gate: &Gate| -> bool {
        loop {
            let task = match gate.claim("default", Duration::from_millis(5)) {
                Ok(Some(task)) => task,
                Ok(None) => return true,
                Err(err) => {
                    assert_eq!(err.kind(), ErrorKind::Deactivated, "{err}");
                    return false;
                }
            };
            match gate.complete(&task, Completion::default()) {
                Ok(Settled::Done { .. }) => {
                    *completed.lock().entry(task.instance.to_string()).or_default() += 1
                }
                Ok(Settled::Refused(_)) => {}
                Err(err) => {
                    assert_eq!(err.kind(), ErrorKind::Deactivated, "{err}");
                    return false;
                }
            }
        }
    };
    let serve = |attached: Arc<Attached>| {
        if let Ok(gate) = attached.tenant().register(many("w")) {
            loop {
                if !work(&gate) || done.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    };
    let mut paused = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (door, done, launched) = (&door, &done, &launched);
            scope.spawn(move || {
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    n += 1;
                    let id = started(door.launch(&with_step(&format!("{thread}-{n}"))).unwrap());
                    assert!(door.instance(id).unwrap().is_some());
                    launched.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
        let mut serving = Arc::new(engine.runner("r0").unwrap().attach("acme").unwrap());
        for round in 1..=ROUNDS {
            for _ in 0..2 {
                let attached = Arc::clone(&serving);
                scope.spawn(|| serve(attached));
            }
            std::thread::sleep(Duration::from_millis(5));
            let name = format!("r{round}");
            let next = Arc::new(engine.runner(&name).unwrap().attach_standby("acme").unwrap());
            let report = door.handover().run(&name, &HandoverOptions::default().patience(LONG)).unwrap();
            assert_eq!((report.undone, report.refused), (None, 0));
            paused.push(report.paused);
            next.serving().unwrap();
            serving = next;
        }
        done.store(true, Ordering::Relaxed);
    });
    // What is left is done by a client's worker.
    let gate = door.register(many("last")).unwrap();
    assert!(work(&gate));
    let completed = completed.into_inner();
    assert!(completed.values().all(|times| *times == 1), "a step was done twice");
    assert_eq!(completed.len() as u64, launched.load(Ordering::Relaxed), "a step was skipped");
    let seats = door.handover().progress().seats;
    assert_eq!(seats.iter().filter(|seat| seat.access == Access::Primary).count(), 1);
    assert_eq!(steps_of_flips(&door).len(), 8 * ROUNDS);
    assert!(paused.iter().all(|pause| *pause < Duration::from_secs(5)), "{paused:?}");
}
