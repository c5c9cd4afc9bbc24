//! Killed and cut in every phase: nothing is found to be wrong.

use cutover::{Durability, MigrationOptions, Phase};
use cutover_oracle::{Ack, After, Script};

use crate::common::{Home, LONG, seeds, store, work};

/// One seed: a session in each phase of a migration there and back, killed in each, checked after each.
fn rounds(seed: u64, durability: Durability, after: After) -> u64 {
    let home = Home::new(durability);
    let mut engine = home.builder().open().unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut seen, mut launches, mut lost) = (Vec::new(), 0, 0);
    for session in 0..10 {
        let mut script = Script::begin(&engine, home.setup(seed, session)).unwrap();
        work(&mut script, &engine, rng.usize(..200));
        let tenant = script.tenant().clone();
        let status = tenant.status();
        if status.phase == Phase::Stable && rng.bool() {
            let now = engine.store_path(status.initial).unwrap();
            let to = if now.ends_with("a") { "b" } else { "a" };
            drop(tenant.migration().start(store(to), MigrationOptions::default()));
        } else if rng.u8(..3) == 0 {
            drop(tenant.migration().reverse());
        }
        work(&mut script, &engine, rng.usize(..300));
        script.look();
        seen.push(tenant.status().phase);
        let lines = script.lines();
        drop((script, tenant));
        home.crash(engine, after);
        let (verdict, again) = home.check(&lines, after);
        assert!(verdict.ok, "seed {seed}, session {session}, phases {seen:?}: {verdict:#?}");
        launches += verdict.launches;
        lost += verdict.lost;
        engine = again;
    }
    assert!(launches > 100, "seed {seed}: {launches} launches");
    lost
}

#[test]
fn killed_in_all_phases_nothing_is_missing() {
    for seed in seeds(6) {
        assert_eq!(rounds(seed, Durability::Buffered, After::Kill), 0);
        assert_eq!(rounds(seed, Durability::Synced, After::Kill), 0);
    }
}

#[test]
fn power_loss_takes_nothing_that_was_synced_and_a_tail_of_what_was_buffered() {
    let mut lost = 0;
    for seed in seeds(6) {
        assert_eq!(rounds(seed, Durability::Synced, After::PowerCut), 0);
        lost += rounds(seed, Durability::Buffered, After::PowerCut);
    }
    assert!(lost > 0, "a power cut that takes nothing shows nothing");
}

#[test]
fn a_load_that_was_killed_while_it_said_what_it_has_found_has_lost_nothing() {
    let home = Home::new(Durability::Synced);
    let begin = |session| {
        let engine = home.builder().open().unwrap();
        let script = Script::begin(&engine, home.setup(5, session)).unwrap();
        (engine, script)
    };
    let (engine, mut script) = begin(1);
    work(&mut script, &engine, 300);
    drop(script);
    home.crash(engine, After::Kill);
    let (engine, script) = begin(2);
    let lines = script.lines();
    drop(script);
    home.crash(engine, After::Kill);
    let found = lines.iter().filter(|line| matches!(line.ack, Ack::Found { .. })).count();
    assert!(found > 1, "{found}");
    for said in 0..=lines.len() {
        let (verdict, engine) = home.check(&lines[..said], After::Kill);
        assert!(verdict.ok, "{said} of {} lines: {verdict:#?}", lines.len());
        engine.close(LONG).unwrap();
    }
}
