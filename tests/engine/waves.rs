//! Waves: eight tenants change hands, or begin to move, as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover::fault::{Act, Effect, Fault};
use cutover::{
    Access, Attached, Engine, ErrorKind, Event, HandoverOptions, HandoverPhase, HandoverRecord, InWave,
    MigrationOptions, Observer, Outcome, Phase, RunId, Seat, StoreSpec, Tenant, TenantOptions, Verdict, Wave,
    WaveReport,
};

use crate::common::{LONG, keyed, memory, wait_for_hang};
use crate::runners::{Machine, steps};

const TENANTS: [&str; 8] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"];

/// Eight tenants, each with a primary and another runner on standby.
struct Eight {
    doors: Vec<Tenant>,
    old: Vec<Attached>,
    new: Vec<Attached>,
}

fn eight(engine: &Engine) -> Eight {
    let mut eight = Eight { doors: Vec::new(), old: Vec::new(), new: Vec::new() };
    for name in TENANTS {
        let door = engine.create_tenant(name, TenantOptions::new(memory("a"))).unwrap();
        door.define("work", 1, "t", b"").unwrap();
        eight.doors.push(door);
        eight.old.push(engine.runner("old").unwrap().attach(name).unwrap());
        eight.new.push(engine.runner("new").unwrap().attach_standby(name).unwrap());
    }
    eight
}

impl Eight {
    fn seats(&self) -> Vec<Vec<Seat>> {
        self.doors.iter().map(|door| door.handover().progress().seats).collect()
    }

    fn handover(&self, at: usize) -> Option<HandoverRecord> {
        self.doors[at].handover().progress().handover
    }

    /// Which of them the new runner acts for; for all others the old one does.
    fn moved(&self) -> Vec<&str> {
        let acts = self.old.iter().zip(&self.new).zip(TENANTS);
        acts.filter_map(|((old, new), name)| {
            assert_ne!(old.acts(), new.acts(), "{name}");
            new.acts().then_some(name)
        })
        .collect()
    }
}

/// Files of these tenants whose names begin so take so many more additions each, and then none.
fn fail(machine: &Machine, stem: &str, doors: &[&Tenant], healthy: u32) {
    let name = |door: &&Tenant| (format!("{stem}-{}.jsonl", door.id().0), healthy);
    let mut left: BTreeMap<String, u32> = doors.iter().map(name).collect();
    machine.faults.script(move |step| {
        let file = step.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match left.get_mut(&file).filter(|_| step.act == Act::Append) {
            Some(0) => Fault::Fail(Effect::Nothing),
            Some(left) => {
                *left -= 1;
                Fault::None
            }
            None => Fault::None,
        }
    });
}

fn now() -> Wave {
    Wave { between: Duration::ZERO, retries: 1, ..Wave::default() }
}

/// What the engine's threads would do, until it has come to that.
fn step_until(engine: &Engine, mut there: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + LONG;
    while !there() {
        engine.step().unwrap();
        std::thread::sleep(Duration::from_millis(1));
        assert!(std::time::Instant::now() < until, "it does not come to that");
    }
}

/// Runs a wave while every new runner says that it serves as soon as it is let in, as runners do.
fn wave_of_eager_runners(engine: &Engine, all: &Eight, wave: &Wave) -> WaveReport {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for new in &all.new {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    // It may be taken back between the two.
                    if new.wait_to_act(Duration::from_millis(1)).unwrap() {
                        drop(new.serving());
                    }
                }
            });
        }
        let report = engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), wave).unwrap();
        over.store(true, Ordering::Release);
        report
    })
}

/// So many of them fail, and how: after so many additions to their journal. At none nothing can be prepared; at one no flip can begin, at two none
/// can be made durable, and at three it is made and cannot be acknowledged, so that it is not known how it ends.
fn of_eight(wave: &Wave, failing: usize, healthy: u32) {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let before = all.seats();
    let fails: BTreeSet<usize> = [5, 2, 7, 0, 3, 6, 1, 4][..failing].iter().copied().collect();
    let of = |fail: bool| -> Vec<&str> {
        (0..8).filter(|at| fails.contains(at) == fail).map(|at| TENANTS[at]).collect()
    };
    fail(&machine, "access", &fails.iter().map(|at| &all.doors[*at]).collect::<Vec<_>>(), healthy);
    let report = wave_of_eager_runners(&engine, &all, wave);
    let verdict = report.verdict;
    assert_eq!(verdict, wave.judge(8, failing), "{failing}: {report:?}");
    assert_eq!(report.failed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), of(true));
    // What no disk takes back or lets go of is named; where nothing was begun there is nothing to take back.
    let stuck: Vec<&str> = report.stuck.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(stuck, if healthy == 0 && verdict == Verdict::Aborted { vec![] } else { of(true) });
    if verdict == Verdict::Aborted {
        assert_eq!(report.rolled_back, of(false));
        assert!(report.done.is_empty());
    } else {
        assert_eq!(report.done, of(false));
    }
    machine.faults.clear();
    let moves = |at: &usize| verdict != Verdict::Aborted && (healthy > 0 || !fails.contains(at));
    let moved: Vec<&str> = (0..8).filter(moves).map(|at| TENANTS[at]).collect();
    let seems_over = || {
        let over = |(at, new): (usize, &Attached)| match moves(&at) {
            true => new.acts() && new.serving().is_ok() && all.handover(at).is_none(),
            false => all.handover(at).is_none(),
        };
        all.new.iter().enumerate().all(over)
    };
    step_until(&engine, seems_over);
    steps(&engine, 20);
    assert_eq!(all.moved(), moved, "{failing} after {healthy}");
    for (at, (now, before)) in all.seats().iter().zip(&before).enumerate() {
        match moves(&at) {
            true => assert_eq!(now[0].access, Access::Terminated),
            false => assert_eq!(now, before, "{failing} after {healthy}: exactly as before"),
        }
        all.doors[at].launch(&keyed("k")).unwrap();
    }
}

#[test]
fn of_eight_tenants_any_number_may_fail_to_flip() {
    for wave in [now(), Wave { proceed_fraction: 0.75, abort_fraction: 0.25, ..now() }] {
        (0..=8).for_each(|failing| of_eight(&wave, failing, 1));
    }
}

#[test]
fn they_may_fail_at_any_point_of_a_hand_over() {
    for healthy in [0, 2, 3] {
        [1, 4, 5, 8].into_iter().for_each(|failing| of_eight(&now(), failing, healthy));
    }
}

/// Runs `then` while a wave hangs before the flip of the third tenant, with two that have flipped. What the wave says, if it comes to that.
fn while_a_wave_hangs(
    machine: &Machine,
    engine: &Engine,
    all: &Eight,
    then: impl FnOnce(),
) -> cutover::Result<WaveReport> {
    let third = format!("access-{}.jsonl", all.doors[2].id().0);
    let mut additions = 0;
    machine.faults.script(move |step| {
        let adds = step.act == Act::Append && step.path.ends_with(&third);
        additions += u32::from(adds);
        if adds && additions == 2 { Fault::Hang } else { Fault::None }
    });
    std::thread::scope(|scope| {
        let wave =
            scope.spawn(|| engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), &now()));
        let hanging = wait_for_hang(&machine.faults);
        then();
        drop(hanging);
        wave.join().unwrap()
    })
}

#[test]
fn that_a_runner_serves_does_not_end_a_hand_over_before_its_wave_ends() {
    for aborted in [false, true] {
        let machine = Machine::new();
        let engine = machine.open();
        let all = eight(&engine);
        let before = all.seats();
        let report = while_a_wave_hangs(&machine, &engine, &all, || {
            all.new[0].serving().unwrap();
            let lines = all.doors[0].handover().journal().unwrap().len();
            all.new[0].serving().unwrap();
            assert_eq!(all.doors[0].handover().journal().unwrap().len(), lines, "it was said");
            assert_eq!(all.handover(0).unwrap().wave, Some(InWave::Serves));
            assert_eq!(all.handover(1).unwrap().wave, Some(InWave::Silent));
            let old = &all.doors[0].handover().progress().seats[0];
            assert_eq!(old.access, Access::Deactivated, "not terminated yet");
            let failing: Vec<&Tenant> = all.doors[3..].iter().collect();
            fail(&machine, "access", if aborted { &failing } else { &[] }, 0);
        });
        let report = report.unwrap();
        machine.faults.clear();
        if aborted {
            assert_eq!((report.verdict, report.rolled_back.len()), (Verdict::Aborted, 3));
            step_until(&engine, || (0..8).all(|at| all.handover(at).is_none()));
            assert_eq!(all.seats(), before);
        } else {
            assert_eq!((report.verdict, report.stuck.len()), (Verdict::Proceeded, 0));
            assert_eq!(all.handover(0), None, "it was said");
            assert_eq!(all.seats()[0][0].access, Access::Terminated);
            let other = all.handover(1).unwrap();
            assert_eq!((other.phase, other.wave), (HandoverPhase::Cleanup, None));
            all.new[1].serving().unwrap();
            assert_eq!(all.seats()[1][0].access, Access::Terminated);
        }
    }
}

#[test]
fn a_wave_that_a_crash_interrupts_holds_nothing_any_more() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let interrupted = while_a_wave_hangs(&machine, &engine, &all, || {
        all.new[0].serving().unwrap();
        machine.faults.die();
    });
    assert!(interrupted.unwrap().stuck.len() > 1, "nothing can be taken back or let go of");
    drop(all);
    let (_machine, engine) = machine.crash(engine);
    let handover = |name: &str| engine.tenant(name).unwrap().handover().progress().handover;
    assert_eq!(handover("t0"), None, "its new runner serves");
    let phases = ["t1", "t2"].map(|name| handover(name).map(|one| (one.phase, one.wave, one.flip_at_ms)));
    assert_eq!(
        phases,
        [Some((HandoverPhase::Cleanup, None, None)), Some((HandoverPhase::Prepare, None, None))]
    );
    let new = engine.runner("new").unwrap().attach("t1").unwrap();
    new.serving().unwrap();
    assert_eq!(handover("t1"), None);
    engine.tenant("t2").unwrap().handover().cancel().unwrap();
}

#[test]
fn hand_overs_that_others_have_prepared_are_none_of_a_waves_business() {
    for (abort_fraction, deadline) in [(0.0, None), (1.0, None), (1.0, Some(Duration::from_secs(5)))] {
        let machine = Machine::new();
        let engine = machine.open();
        let all = eight(&engine);
        all.doors[0].handover().run("new", &HandoverOptions::default()).unwrap();
        all.doors[1].handover().prepare("new", &HandoverOptions::default()).unwrap();
        let before = (all.handover(0), all.handover(1), all.seats());
        let wave = Wave { abort_fraction, deadline, ..now() };
        let report = engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), &wave).unwrap();
        assert_eq!(report.failed.len(), 2, "{report:?}");
        assert!(report.failed[1].1.contains("hand-over") && report.failed[1].1.contains("is under way"));
        machine.clock.advance(Duration::from_secs(9));
        steps(&engine, 20);
        assert_eq!((all.handover(0), all.handover(1)), (before.0, before.1));
        if report.verdict == Verdict::Aborted {
            assert_eq!(all.seats(), before.2);
        } else {
            assert_eq!(all.seats()[..2], before.2[..2]);
            assert_eq!(report.done, TENANTS[2..]);
            assert_eq!(report.stuck.len(), 2, "nothing of them goes on in the background: {report:?}");
        }
    }
}

#[test]
fn after_an_aborted_wave_no_deadline_flips_anything() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let before = all.seats();
    fail(&machine, "access", &all.doors.iter().collect::<Vec<_>>(), 1);
    let wave = Wave { deadline: Some(Duration::from_secs(5)), ..now() };
    let report = engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), &wave).unwrap();
    assert_eq!((report.verdict, report.stuck.len()), (Verdict::Aborted, 8));
    machine.clock.advance(Duration::from_secs(9));
    steps(&engine, 20);
    let refused = all.doors[0].handover().flip().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IllegalMove, "{refused}");
    machine.faults.clear();
    steps(&engine, 20);
    assert_eq!(all.seats(), before);
    assert!((0..8).all(|at| all.handover(at).is_none()));
}

#[test]
fn those_left_behind_are_repaired_in_the_background() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let Eight { doors, old, mut new } = all;
    // The new runner is not there for the first two; it is prepared for all of them.
    new.drain(..2).for_each(drop);
    let report = engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), &now()).unwrap();
    assert_eq!((report.verdict, report.stuck.len()), (Verdict::FellShort, 0));
    assert!(report.failed.iter().all(|(_, why)| why.contains("not attached any more")), "{report:?}");
    assert_eq!(report.done, TENANTS[2..]);
    assert!(old[0].acts() && old[1].acts());
    let back: Vec<Attached> =
        TENANTS[..2].iter().map(|name| engine.runner("new").unwrap().attach_standby(name).unwrap()).collect();
    let until = std::time::Instant::now() + LONG;
    while !back.iter().all(Attached::acts) {
        engine.step().unwrap();
        assert!(std::time::Instant::now() < until, "{:?}", doors[0].handover().progress());
    }
    assert!(!old.iter().any(Attached::acts));
}

#[test]
fn a_wave_with_a_deadline_flips_without_whoever_ran_it() {
    let machine = Machine::new();
    let engine = machine.open();
    let Eight { doors, old, new } = eight(&engine);
    drop(new);
    let wave = Wave { deadline: Some(Duration::from_secs(5)), abort_fraction: 1.0, ..now() };
    let report = engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), &wave).unwrap();
    assert_eq!((report.verdict, report.failed.len()), (Verdict::FellShort, 8));
    drop((doors, old));
    let (machine, engine) = machine.crash(engine);
    let new: Vec<Attached> =
        TENANTS.iter().map(|name| engine.runner("new").unwrap().attach_standby(name).unwrap()).collect();
    steps(&engine, 20);
    assert!(!new.iter().any(Attached::acts), "it is not time");
    machine.clock.advance(Duration::from_secs(9));
    steps(&engine, 20);
    assert!(new.iter().all(Attached::acts));
}

#[test]
fn a_wave_of_nobody_or_with_strange_fractions_is_refused_or_nothing() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let options = HandoverOptions::default();
    let report = engine.hand_over_wave(&[], "new", &options, &now()).unwrap();
    assert_eq!(report.verdict, Verdict::Proceeded);
    let strange = Wave { abort_fraction: 1.5, ..now() };
    let err = engine.hand_over_wave(&TENANTS, "new", &options, &strange).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InvalidInput);
    let err = engine.hand_over_wave(&["t0", "t9"], "new", &options, &now()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert!(all.moved().is_empty());
}

#[test]
fn migrations_start_as_one_wave_or_not_at_all() {
    for failing in [0, 3, 5] {
        let machine = Machine::new();
        let engine = machine.open();
        let all = eight(&engine);
        // Some are on their way elsewhere already.
        for door in &all.doors[..failing] {
            door.migration().start(memory("c"), MigrationOptions::default().hold_switch(true)).unwrap();
        }
        let targets = TENANTS.map(|name| (name, memory("b")));
        let report = engine.migration_wave(&targets, &MigrationOptions::default(), &now()).unwrap();
        assert_eq!(report.verdict, now().judge(8, failing), "{report:?}");
        assert_eq!(report.failed.len(), failing);
        steps(&engine, 60);
        for door in &all.doors[failing..] {
            let status = door.status();
            let moved = status.initial.0 != 1 || status.phase != Phase::Stable;
            assert_eq!(moved, report.verdict != Verdict::Aborted, "{failing}: {status:?}");
        }
        assert!(all.doors[..failing].iter().all(|door| door.status().phase == Phase::PreMigration));
    }
}

fn to_b() -> [(&'static str, StoreSpec); 8] {
    TENANTS.map(|name| (name, memory("b")))
}

fn has_moved(door: &Tenant) -> bool {
    door.status().initial.0 != 1 && door.status().phase == Phase::Stable
}

#[test]
fn a_plan_is_held_against_what_there_is_before_the_first_migration_begins() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let planned = || MigrationOptions::default().planned(engine.plan());
    let run = RunId { id: "r".into(), attempt: "1".into() };
    let options = planned();
    // Each to a store of its own.
    let targets = TENANTS.map(|name| (name, memory(&format!("to-{name}"))));
    let report = engine.run_migration_wave(&run, &targets, &options, &now()).unwrap();
    assert_eq!((report.verdict, report.failed), (Verdict::Proceeded, vec![]));
    // It has begun, and the stores that the plan does not know are its own.
    let report = engine.run_migration_wave(&run, &targets, &options, &now()).unwrap();
    assert_eq!(report.verdict, Verdict::Proceeded);
    step_until(&engine, || all.doors.iter().all(has_moved));
    let stale = planned();
    engine.create_tenant("t8", TenantOptions::new(memory("a"))).unwrap();
    let err = engine.migration_wave(&to_b(), &stale, &now()).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Drift);
    assert!(all.doors.iter().all(has_moved), "nothing has begun");
}

#[test]
fn what_fails_once_is_tried_again_and_what_goes_on_failing_is_repaired_in_the_background() {
    // A disk that fails for as long, then how often it is tried again, and who is stuck.
    for (failing, retries, failed) in [(1, 1, 0), (1, 0, 1), (2, 1, 1), (5, 1, 1)] {
        let machine = Machine::new();
        let engine = machine.open();
        let all = eight(&engine);
        let journal = format!("tenant-{}.jsonl", all.doors[3].id().0);
        let mut left = failing;
        machine.faults.script(move |step| {
            if left == 0 || step.act != Act::Append || !step.path.ends_with(&journal) {
                return Fault::None;
            }
            left -= 1;
            Fault::Fail(Effect::Nothing)
        });
        let wave = Wave { retries, ..now() };
        let report = engine.migration_wave(&to_b(), &MigrationOptions::default(), &wave).unwrap();
        assert_eq!((report.verdict, report.failed.len()), (wave.judge(8, failed), failed), "{report:?}");
        // Once more when the wave is over.
        assert_eq!(report.stuck.len(), usize::from(failing > retries + 2), "{report:?}");
        step_until(&engine, || all.doors.iter().all(has_moved));
    }
}

#[test]
fn a_start_that_was_written_after_all_goes_on_or_is_called_off_with_the_rest() {
    for failing in [3, 5] {
        let machine = Machine::new();
        let engine = machine.open();
        let all = eight(&engine);
        let mut slots: BTreeSet<String> = [6, 0, 3, 5, 1][..failing]
            .iter()
            .map(|at| format!("tenant-{}.b", all.doors[*at].id().0))
            .collect();
        machine.faults.script(move |step| {
            let file = step.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match step.act == Act::Rename && slots.remove(&file) {
                true => Fault::Fail(Effect::Whole),
                false => Fault::None,
            }
        });
        let wave = Wave { retries: 0, ..now() };
        let report = engine.migration_wave(&to_b(), &MigrationOptions::default(), &wave).unwrap();
        assert_eq!((report.verdict, report.failed.len()), (wave.judge(8, failing), failing), "{report:?}");
        assert_eq!(report.stuck, []);
        if report.verdict == Verdict::Aborted {
            assert!(all.doors.iter().all(|door| door.status().phase == Phase::Stable));
            steps(&engine, 60);
            assert!(all.doors.iter().all(|door| door.status().initial.0 == 1));
        } else {
            step_until(&engine, || all.doors.iter().all(has_moved));
        }
    }
}

#[test]
fn who_cannot_be_let_go_of_at_once_is_later() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    fail(&machine, "tenant", &[&all.doors[2], &all.doors[7]], 1);
    let report = engine.migration_wave(&to_b(), &MigrationOptions::default(), &now()).unwrap();
    assert_eq!((report.verdict, report.failed.len()), (Verdict::Proceeded, 0));
    assert_eq!(report.stuck.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["t2", "t7"]);
    machine.faults.clear();
    step_until(&engine, || all.doors.iter().all(has_moved));
}

#[test]
fn a_wave_of_migrations_that_is_asked_for_again_goes_on() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let options = MigrationOptions::default();
    let run = |attempt: &str| RunId { id: "r".into(), attempt: attempt.into() };
    let ids = || all.doors.iter().map(|door| door.migration().progress().id).collect::<Vec<_>>();
    // Five fail, at the first addition to their journal: all is called off.
    fail(&machine, "tenant", &all.doors[..5].iter().collect::<Vec<_>>(), 0);
    let report = engine.run_migration_wave(&run("1"), &to_b(), &options, &now()).unwrap();
    assert_eq!((report.verdict, report.rolled_back.len()), (Verdict::Aborted, 3));
    machine.faults.clear();
    steps(&engine, 60);
    assert!(all.doors.iter().all(|door| door.status().phase == Phase::Stable));
    // What that attempt has called off it does not begin again.
    let report = engine.run_migration_wave(&run("1"), &to_b(), &options, &now()).unwrap();
    assert_eq!(report.done, TENANTS[..5], "{report:?}");
    let begun = ids();
    let report = engine.run_migration_wave(&run("2"), &to_b(), &options, &now()).unwrap();
    assert_eq!((report.verdict, report.failed), (Verdict::Proceeded, vec![]));
    assert_eq!(ids()[..5], begun[..5], "those go on");
    step_until(&engine, || all.doors.iter().all(has_moved));
    let report = engine.run_migration_wave(&run("3"), &to_b(), &options, &now()).unwrap();
    assert_eq!((report.verdict, report.done.len()), (Verdict::Proceeded, 8));
    assert!(all.doors.iter().all(has_moved), "and nothing happens");
    let last = all.doors[0].migration().progress().last.unwrap();
    assert_eq!((last.run, last.outcome), (Some(run("2")), Outcome::Completed));
}

/// Who the background gave up on.
#[derive(Default)]
struct GaveUp(Mutex<Vec<String>>);

impl Observer for GaveUp {
    fn on_event(&self, event: &Event) {
        if let Event::WaveGaveUp { tenant, .. } = event {
            self.0.lock().unwrap().push(tenant.clone());
        }
    }
}

#[test]
fn what_is_of_no_use_any_more_is_given_up_and_told() {
    let machine = Machine::new();
    let gave_up = Arc::new(GaveUp::default());
    let engine = machine.builder().observer(gave_up.clone()).open().unwrap();
    let all = eight(&engine);
    fail(&machine, "tenant", &[&all.doors[1]], 0);
    let report = engine.migration_wave(&to_b(), &MigrationOptions::default(), &now()).unwrap();
    assert_eq!((report.verdict, report.stuck.len()), (Verdict::FellShort, 1));
    machine.faults.clear();
    all.doors[1].migration().start(memory("c"), MigrationOptions::default().hold_switch(true)).unwrap();
    step_until(&engine, || !gave_up.0.lock().unwrap().is_empty());
    assert_eq!(*gave_up.0.lock().unwrap(), ["t1"]);
    assert_eq!(all.doors[1].status().phase, Phase::PreMigration, "the other one is left alone");
}

#[test]
fn a_roll_back_that_cannot_begin_at_once_is_not_forgotten() {
    let machine = Machine::new();
    let engine = machine.open();
    let all = eight(&engine);
    let before = all.seats();
    all.doors[0].handover().run("new", &HandoverOptions::default()).unwrap();
    all.doors[0].handover().ask_to_roll_back().unwrap();
    // Before it begins a change is in doubt, and cannot be looked at.
    machine.faults.script(|step| match step.act {
        Act::Rename | Act::ReadFile => Fault::Fail(Effect::Nothing),
        _ => Fault::None,
    });
    all.new[0].serving().unwrap_err();
    steps(&engine, 3);
    machine.faults.clear();
    step_until(&engine, || all.old[0].acts());
    assert_eq!(all.seats(), before);
}
