//! Flips that fail, hang or are cut short by a crash, in each of their steps.

use std::path::Path;
use std::time::{Duration, Instant};

use cutover::fault::{Act, Effect, Fault};
use cutover::store::Write;
use cutover::{
    Access, Completion, Ending, ErrorKind, FlipStep, HandoverOptions, HandoverPhase, Launched, Seat, Settled,
};

use crate::common::{LONG, keyed, many, started, wait_for_hang, with_step};
use crate::runners::{Machine, kind, named, seats, steps, steps_of_flips, two_runners};

/// Stopped after each of its eight steps, by a process that dies and takes everything with it that is not durable.
#[test]
fn a_crash_after_each_step_of_a_flip_leaves_one_primary() {
    for stopped in 0..=8_usize {
        let machine = Machine::new();
        let engine = machine.open();
        let (door, old, new) = two_runners(&engine);
        let id = started(old.tenant().launch(&with_step("k")).unwrap());
        door.handover().prepare("new", &HandoverOptions::default()).unwrap();
        let before = door.handover().progress().seats;
        door.handover().ask_to_flip().unwrap();
        // The first one only begins it.
        steps(&engine, stopped + 1);
        if stopped < 8 {
            assert_eq!(door.handover().progress().step.map(|step| step as usize), Some(stopped + 1));
        }
        drop((old, new, door));
        let (_machine, engine) = machine.crash(engine);
        let door = engine.tenant("acme").unwrap();
        let progress = door.handover().progress();
        let primary = if stopped < 4 { "old" } else { "new" };
        if stopped < 4 {
            assert_eq!(progress.seats, before, "as if it had not begun");
            assert_eq!(progress.handover.unwrap().phase, HandoverPhase::Prepare);
            assert!(steps_of_flips(&door).is_empty());
            assert_eq!(kind(engine.runner("new").unwrap().attach("acme")), ErrorKind::NotPrimary);
        } else {
            assert_eq!(seats(&door), named(&[("old", Access::Deactivated), ("new", Access::Primary)]));
            assert_eq!(progress.handover.unwrap().phase, HandoverPhase::Cleanup);
            assert_eq!(steps_of_flips(&door), [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(kind(engine.runner("old").unwrap().attach("acme")), ErrorKind::Deactivated);
        }
        let goes_on = engine.runner(primary).unwrap().attach("acme").unwrap();
        let gate = goes_on.tenant().register(many("w")).unwrap();
        let task = gate.claim("default", Duration::ZERO).unwrap().unwrap();
        assert_eq!(task.instance, id);
        gate.complete(&task, Completion::default()).unwrap();
        assert!(gate.claim("default", Duration::ZERO).unwrap().is_none(), "once");
    }
}

/// Every step on the disk of a hand-over from beginning to end, at each of which the process dies in one of four ways.
#[test]
fn a_crash_at_each_write_of_a_hand_over_leaves_one_primary() {
    let run = |at: Option<(u64, Effect)>| {
        let machine = Machine::new();
        let engine = machine.open();
        let (door, old, new) = two_runners(&engine);
        let first = machine.faults.steps();
        if let Some((at, effect)) = at {
            machine.faults.at(first + at, Fault::Crash(effect));
        }
        let done = door.handover().run("new", &HandoverOptions::default()).map(|report| report.undone);
        let served = new.serving();
        let (count, primary_was_told) = (machine.faults.steps() - first, matches!(done, Ok(None)));
        drop((old, new, door));
        if at.is_none() {
            assert!(primary_was_told && served.is_ok());
            return count;
        }
        let (_machine, engine) = machine.crash(engine);
        let door = engine.tenant("acme").unwrap();
        let seats = seats(&door);
        let primaries = seats.iter().filter(|(_, access)| *access == Access::Primary).count();
        assert_eq!(primaries, 1, "{at:?}: {seats:?}");
        assert_eq!(seats.len(), 2, "{at:?}: {seats:?}");
        let (primary, other) = match seats[1].1 {
            Access::Primary => ("new", "old"),
            _ => ("old", "new"),
        };
        assert!(!primary_was_told || primary == "new", "{at:?}: acknowledged and gone");
        assert!(served.is_err() || seats[0].1 == Access::Terminated, "{at:?}");
        let attached = engine.runner(primary).unwrap().attach("acme").unwrap();
        attached.tenant().launch(&keyed("k")).unwrap();
        assert!(engine.runner(other).unwrap().attach("acme").is_err());
        count
    };
    let count = run(None);
    assert!(count > 20, "{count}");
    for at in 1..=count {
        for effect in [Effect::Nothing, Effect::Half, Effect::Whole] {
            run(Some((at, effect)));
        }
    }
}

/// Every step on the disk fails once, and nothing dies: the flip comes to be or the old one goes on, and nobody waits for ever.
#[test]
fn an_error_at_each_write_of_a_flip_leaves_the_old_one_or_the_new_one() {
    let run = |at: Option<(u64, Effect)>| {
        let machine = Machine::new();
        let engine = machine.open();
        let (door, old, new) = two_runners(&engine);
        door.handover().prepare("new", &HandoverOptions::default()).unwrap();
        let before = door.handover().progress().seats;
        let first = machine.faults.steps();
        if let Some((at, effect)) = at {
            machine.faults.at(first + at, Fault::Fail(effect));
        }
        let report = door.handover().flip().unwrap();
        let count = machine.faults.steps() - first;
        machine.faults.clear();
        let (acts, other) = if report.undone.is_none() { (&new, &old) } else { (&old, &new) };
        assert!(acts.acts() && !other.acts(), "{at:?}: {report:?}");
        acts.tenant().launch(&keyed("k")).unwrap();
        door.launch(&keyed("door")).unwrap();
        assert!(other.tenant().launch(&keyed("other")).is_err());
        if report.undone.is_some() {
            assert_eq!(door.handover().progress().seats, before, "{at:?}");
            assert!(door.handover().flip().unwrap().undone.is_none(), "and then it does");
        }
        let lines = door.handover().journal().unwrap();
        assert!(lines.windows(2).all(|pair| pair[0].seq < pair[1].seq), "{lines:?}");
        count
    };
    for at in 1..=run(None) {
        for effect in [Effect::Nothing, Effect::Half, Effect::Whole] {
            run(Some((at, effect)));
        }
    }
}

#[test]
fn what_does_not_end_in_time_lets_the_old_one_go_on_and_its_requests_succeed() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    let before = door.handover().progress().seats;
    machine.faults.script(|step| match step.act {
        Act::Commit(Write::Synced) => Fault::Hang,
        _ => Fault::None,
    });
    door.handover().prepare("new", &HandoverOptions::default().patience(Duration::ZERO)).unwrap();
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| old.tenant().launch(&keyed("hangs")));
        let until = Instant::now() + LONG;
        let hanging = wait_for_hang(&machine.faults);
        machine.faults.clear();
        door.handover().ask_to_flip().unwrap();
        // Up to the wait: begun, and four steps.
        steps(&engine, 5);
        assert_eq!(door.handover().progress().step, Some(FlipStep::Drain));
        let holders = door.handover().progress().holders.join("; ");
        assert!(holders.contains("launch"), "{holders}");
        let waits = scope.spawn(|| old.tenant().launch(&keyed("waits")));
        let at_the_door = scope.spawn(|| door.launch(&keyed("door")));
        while door.handover().progress().waiting < 2 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        engine.step().unwrap();
        let report = door.handover().progress().last.unwrap();
        let undone = report.undone.unwrap();
        assert!(undone.contains("has not ended in time") && undone.contains("launch"), "{undone}");
        assert_eq!((report.queued, report.refused), (2, 0));
        assert!(matches!(waits.join().unwrap(), Ok(Launched::Started(_))), "as if nothing had been");
        assert!(matches!(at_the_door.join().unwrap(), Ok(Launched::Started(_))));
        drop(hanging);
        assert!(matches!(hangs.join().unwrap(), Ok(Launched::Started(_))));
    });
    assert_eq!(door.handover().progress().seats, before, "exactly as before");
    let lines = door.handover().journal().unwrap();
    assert!(lines.last().unwrap().why.starts_with("undone: "), "{lines:?}");
    assert!(door.handover().flip().unwrap().undone.is_none());
    assert!(new.acts() && !old.acts());
}

#[test]
fn requests_that_wait_go_on_with_the_new_one_within_bounds() {
    let machine = Machine::new();
    let engine = machine.builder().handover_queue(2, LONG).open().unwrap();
    let (door, old, new) = two_runners(&engine);
    door.handover().prepare("new", &HandoverOptions::default()).unwrap();
    door.handover().ask_to_flip().unwrap();
    steps(&engine, 5);
    std::thread::scope(|scope| {
        let of_old = scope.spawn(|| old.tenant().launch(&keyed("old")));
        let at_the_door = scope.spawn(|| door.launch(&keyed("door")));
        let until = Instant::now() + LONG;
        while door.handover().progress().waiting < 2 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        assert_eq!(kind(door.launch(&keyed("third"))), ErrorKind::AtLimit);
        while door.handover().progress().last.is_none() {
            engine.step().unwrap();
        }
        assert_eq!(kind(of_old.join().unwrap()), ErrorKind::Deactivated);
        assert!(matches!(at_the_door.join().unwrap(), Ok(Launched::Started(_))));
    });
    let report = door.handover().progress().last.unwrap();
    assert_eq!((report.queued, report.refused, report.undone), (2, 1, None));
    assert!(new.acts());
}

#[test]
fn a_request_that_waited_in_vain_says_so() {
    let machine = Machine::new();
    let engine = machine.builder().handover_queue(9, Duration::from_millis(1)).open().unwrap();
    let (door, _old, _new) = two_runners(&engine);
    door.handover().prepare("new", &HandoverOptions::default()).unwrap();
    door.handover().ask_to_flip().unwrap();
    steps(&engine, 4);
    assert_eq!(kind(door.launch(&keyed("k"))), ErrorKind::TimedOut);
    while door.handover().progress().last.is_none() {
        engine.step().unwrap();
    }
    assert_eq!(door.handover().progress().last.unwrap().refused, 1);
    assert!(matches!(door.launch(&keyed("k")).unwrap(), Launched::Started(_)));
}

#[test]
fn a_new_runner_that_is_gone_gets_nothing() {
    for gone_after in [2, 5] {
        let machine = Machine::new();
        let engine = machine.open();
        let (door, old, new) = two_runners(&engine);
        let gate = old.tenant().register(many("w")).unwrap();
        door.launch(&with_step("k")).unwrap();
        let task = gate.claim("default", Duration::ZERO).unwrap().unwrap();
        door.handover().prepare("new", &HandoverOptions::default()).unwrap();
        let before = door.handover().progress().seats;
        door.handover().ask_to_flip().unwrap();
        steps(&engine, gone_after + 1);
        drop(new);
        while door.handover().progress().last.is_none() {
            engine.step().unwrap();
        }
        let undone = door.handover().progress().last.unwrap().undone.unwrap();
        assert!(undone.contains("not attached any more"), "{undone}");
        assert_eq!(door.handover().progress().seats, before);
        assert!(old.acts());
        let told = door.handover().journal().unwrap().pop().unwrap();
        assert!(told.why.starts_with("undone: "), "the journal tells of no flip that was not: {told:?}");
        let settled = gate.complete(&task, Completion::default()).unwrap();
        assert_eq!(
            settled,
            Settled::Done { ended: Some(Ending::Completed) },
            "its workers were not disturbed"
        );
    }
}

#[test]
fn a_flip_is_rolled_back_to_exactly_the_seats_before_it() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    let before = door.handover().progress().seats;
    door.handover().run("new", &HandoverOptions::default()).unwrap();
    let gate = new.tenant().register(many("w")).unwrap();
    door.launch(&with_step("k")).unwrap();
    let task = gate.claim("default", Duration::ZERO).unwrap().unwrap();
    let report = door.handover().roll_back().unwrap();
    assert!(report.back && report.undone.is_none() && report.released == 1, "{report:?}");
    assert_eq!(door.handover().progress().seats, before);
    assert!(door.handover().progress().handover.is_none());
    assert_eq!(kind(gate.complete(&task, Completion::default())), ErrorKind::NotPrimary);
    assert!(old.acts() && !new.acts());
    let hands = old.tenant().register(many("w")).unwrap();
    let again = hands.claim("default", Duration::ZERO).unwrap().unwrap();
    assert!(again.token > task.token);
    hands.complete(&again, Completion::default()).unwrap();
    assert_eq!(steps_of_flips(&door), [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
}

/// While the new one had not said that it serves, a third one was terminated, a fourth one came and a fifth one was forgotten.
#[test]
fn a_roll_back_leaves_what_became_of_others_as_it_is() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    let standby = |name: &str| engine.runner(name).unwrap().attach_standby("acme").unwrap();
    let (_third, fifth) = (standby("third"), standby("fifth"));
    door.handover().terminate("fifth").unwrap();
    let before = door.handover().progress().seats;
    door.handover().run("new", &HandoverOptions::default()).unwrap();
    door.handover().terminate("third").unwrap();
    door.handover().forget("fifth").unwrap();
    drop(fifth);
    let _fourth = standby("fourth");
    assert_eq!(door.handover().roll_back().unwrap().undone, None);
    let after = door.handover().progress().seats;
    let is = [("old", Access::Primary), ("new", Access::Standby), ("third", Access::Terminated)];
    assert_eq!(seats(&door), named(&[is[0], is[1], is[2], ("fourth", Access::Standby)]));
    assert_eq!(after[..2], before[..2], "the two are exactly what they were");
    assert!(old.acts() && !new.acts());
    assert_eq!(kind(engine.runner("third").unwrap().attach_standby("acme")), ErrorKind::Deactivated);
}

/// A worker waits in its report while a flip is on, for longer than its lease is long: it could not be heard of.
#[test]
fn no_lease_runs_out_while_a_flip_keeps_its_worker_waiting() {
    for undone in [true, false] {
        let machine = Machine::new();
        let engine = machine.open();
        let (door, old, new) = two_runners(&engine);
        // The one goes on if the old runner does, the other one in any case.
        let (of_old, of_nobody) =
            (old.tenant().register(many("old")).unwrap(), door.register(many("nobody")).unwrap());
        let hold = |gate: &cutover::Gate, key: &str| {
            door.launch(&with_step(key)).unwrap();
            gate.claim("default", Duration::ZERO).unwrap().unwrap()
        };
        let (one, other) = (hold(&of_old, "one"), hold(&of_nobody, "other"));
        door.handover().prepare("new", &HandoverOptions::default()).unwrap();
        door.handover().ask_to_flip().unwrap();
        steps(&engine, 3);
        std::thread::scope(|scope| {
            let reports = [
                scope.spawn(|| of_old.complete(&one, Completion::default())),
                scope.spawn(|| of_nobody.complete(&other, Completion::default())),
            ];
            let until = Instant::now() + LONG;
            while door.handover().progress().waiting < 2 {
                assert!(Instant::now() < until);
                std::thread::yield_now();
            }
            machine.clock.advance(LONG);
            let new = (!undone).then_some(new);
            while door.handover().progress().last.is_none() {
                engine.step().unwrap();
            }
            let [of_old, of_nobody] = reports.map(|report| report.join().unwrap());
            let done = Settled::Done { ended: Some(Ending::Completed) };
            assert_eq!(of_nobody.unwrap(), done);
            match new {
                None => assert_eq!(of_old.unwrap(), done, "its runner goes on"),
                Some(_) => assert_eq!(kind(of_old), ErrorKind::Deactivated),
            }
        });
        machine.clock.advance(LONG);
        assert_eq!(kind(of_nobody.claim("default", Duration::ZERO)), ErrorKind::LeaseExpired, "time goes on");
    }
}

/// It is time for a flip, and the new runner is not there: nothing is told of it, nobody waits, and it is made when the runner comes.
#[test]
fn a_flip_whose_time_has_come_waits_for_the_new_runner_without_a_trace() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    door.handover().prepare("new", &HandoverOptions::default().flip_in(Duration::from_secs(1))).unwrap();
    drop(new);
    machine.clock.advance(Duration::from_secs(2));
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        engine.step().unwrap();
        started(old.tenant().launch(&cutover::Launch::new("work", 1)).unwrap());
        assert!(door.handover().progress().step.is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(steps_of_flips(&door).is_empty());
    let new = engine.runner("new").unwrap().attach_standby("acme").unwrap();
    steps(&engine, 20);
    assert!(new.acts(), "at once");
}

#[test]
fn a_crash_after_each_step_of_a_roll_back_leaves_one_primary() {
    for stopped in 0..=8_usize {
        let machine = Machine::new();
        let engine = machine.open();
        let (door, old, new) = two_runners(&engine);
        let before = door.handover().progress().seats;
        door.handover().run("new", &HandoverOptions::default()).unwrap();
        let after = door.handover().progress().seats;
        door.handover().ask_to_roll_back().unwrap();
        steps(&engine, stopped + 1);
        drop((old, new, door));
        let (_machine, engine) = machine.crash(engine);
        let progress = engine.tenant("acme").unwrap().handover().progress();
        assert_eq!(progress.seats, if stopped < 4 { after } else { before }, "{stopped}");
        let phase = progress.handover.map(|handover| handover.phase);
        assert_eq!(phase, (stopped < 4).then_some(HandoverPhase::Cleanup));
    }
}

#[test]
fn who_was_deactivated_is_known_when_both_slots_are_lost() {
    let machine = Machine::new();
    let engine = machine.open();
    let (door, old, new) = two_runners(&engine);
    door.handover().run("new", &HandoverOptions::default()).unwrap();
    let before: Vec<Seat> = door.handover().progress().seats;
    drop((door, old, new));
    engine.close(LONG).unwrap();
    drop(engine);
    for slot in ["access-0.a", "access-0.b"] {
        let path = Path::new("/data/meta").join(slot);
        cutover::files::Files::write(&machine.files, &path, b"nonsense").unwrap();
    }
    let engine = machine.open();
    let door = engine.tenant("acme").unwrap();
    assert_eq!(door.handover().progress().seats, before);
    let told = door.handover().journal().unwrap().pop().unwrap();
    assert!(told.who == "recovery" && told.why.contains("restored from the journal"), "{told:?}");
    engine.close(LONG).unwrap();
    drop((engine, door));
    for file in ["access-0.a", "access-0.b", "access-0.jsonl"] {
        let path = Path::new("/data/meta").join(file);
        cutover::files::Files::write(&machine.files, &path, b"nonsense").unwrap();
    }
    let err = machine.builder().open().err().unwrap();
    assert_eq!(err.kind(), ErrorKind::Corrupt, "{err}: not an engine that lets anybody in");
}
