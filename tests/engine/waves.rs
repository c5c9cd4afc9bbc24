//! Waves: eight tenants change hands, or begin to move, as one.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover::fault::{Act, Effect, Fault};
use cutover::{
    Attached, Engine, ErrorKind, HandoverOptions, MigrationOptions, Phase, Seat, Tenant, TenantOptions,
    Verdict, Wave,
};

use crate::common::{LONG, keyed, memory};
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

/// Who acts for these tenants cannot be changed durably.
fn fail(machine: &Machine, doors: &[Tenant]) {
    let failing: BTreeSet<String> =
        doors.iter().map(|door| format!("access-{}.jsonl", door.id().0)).collect();
    machine.faults.script(move |step| {
        let file = step.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if step.act == Act::Append && failing.contains(&file) {
            Fault::Fail(Effect::Nothing)
        } else {
            Fault::None
        }
    });
}

fn now() -> Wave {
    Wave { between: Duration::ZERO, retries: 1, ..Wave::default() }
}

#[test]
fn of_eight_tenants_any_number_may_fail_to_flip() {
    let waves = [now(), Wave { proceed_fraction: 0.75, abort_fraction: 0.25, ..now() }];
    for wave in waves {
        for failing in 0..=8 {
            let machine = Machine::new();
            let engine = machine.open();
            let all = eight(&engine);
            let before = all.seats();
            for door in &all.doors {
                door.handover().prepare("new", &HandoverOptions::default()).unwrap();
            }
            fail(&machine, &all.doors[..failing]);
            let report = engine.hand_over_wave(&TENANTS, "new", &HandoverOptions::default(), &wave).unwrap();
            assert_eq!(report.verdict, wave.judge(8, failing), "{failing}: {report:?}");
            let named: Vec<&str> = report.failed.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(named, TENANTS[..failing]);
            machine.faults.clear();
            if report.verdict == Verdict::Aborted {
                assert_eq!(all.seats(), before, "{failing}: exactly as before");
                assert_eq!(report.rolled_back, TENANTS[failing..]);
                assert!(all.moved().is_empty() && report.done.is_empty());
            } else {
                assert_eq!(report.done, TENANTS[failing..]);
                assert_eq!(all.moved(), TENANTS[failing..]);
            }
            for door in &all.doors {
                door.launch(&keyed("k")).unwrap();
            }
        }
    }
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
