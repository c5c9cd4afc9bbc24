use super::*;

const S: u64 = 1_000_000;

fn sample(at: u64, took: u32) -> Sample {
    Sample { at, took }
}

fn plan() -> Plan {
    let mut plan = Plan::for_tests();
    plan.dwell_us[Phase::Migration as usize] = Some(3 * S);
    plan
}

fn look(now: u64, phases: &[(Phase, u64)]) -> Look {
    Look { now, began: S, phases: phases.to_vec(), working: true, ..Look::default() }
}

#[test]
fn a_phase_that_was_left_says_what_happened_in_it() {
    let mut gauge = Gauge::new(plan());
    let stable = [(Phase::Stable, S)];
    let first = Look { samples: vec![sample(S + 1, 100), sample(S + 2, 300)], ..look(2 * S, &stable) };
    assert_eq!(gauge.take(first), ["   0.0 s  stable"]);
    assert_eq!(gauge.seen(), 2);
    // Noted after the phase was entered, answered before.
    let late = vec![sample(3 * S - 1, 900), sample(3 * S + 1, 5_000)];
    let both = [(Phase::Stable, S), (Phase::PreMigration, 3 * S)];
    let lines = gauge.take(Look { samples: late, ..look(3 * S + 5, &both) });
    assert_eq!(lines, ["   2.0 s  pre_migration    after 2.0 s of stable: 3 launches, p99 900 us"]);
    assert_eq!(gauge.take(look(4 * S, &both)), Vec::<String>::new(), "told once");
    let last = gauge.last_line().unwrap();
    assert!(last.ends_with("after 1.0 s of pre_migration: 1 launches, p99 5.0 ms"), "{last}");
}

#[test]
fn rates_are_those_of_the_last_second() {
    let mut gauge = Gauge::new(plan());
    let samples = (0..30).map(|n| sample(S + n * S / 10, 10 + n as u32)).collect();
    gauge.take(Look { samples, ..look(4 * S, &[(Phase::Stable, S)]) });
    let view = gauge.view();
    assert_eq!((view.per_second, view.p99), (10, 39));
    gauge.take(look(9 * S, &[(Phase::Stable, S)]));
    assert_eq!((gauge.view().per_second, gauge.view().p99), (0, 0));
}

#[test]
fn what_drains_is_counted_from_the_close() {
    let mut gauge = Gauge::new(plan());
    let phases = [(Phase::Stable, S), (Phase::PreMigration, S + 1), (Phase::Migration, S + 2)];
    let tally = |started, ended, collected| Tally { started, ended, collected };
    gauge.take(Look { tallies: vec![tally(50, 20, 10)], ..look(2 * S, &phases[..2]) });
    assert_eq!(gauge.view().drained, None);
    gauge.take(Look { tallies: vec![tally(52, 20, 10), tally(1, 0, 0)], ..look(3 * S, &phases) });
    assert_eq!(gauge.view().drained, Some(("rocksdb".to_owned(), 0, 42)));
    gauge.take(Look { tallies: vec![tally(52, 50, 40), tally(9, 0, 0)], ..look(4 * S, &phases) });
    let view = gauge.view();
    assert_eq!(view.drained, Some(("rocksdb".to_owned(), 30, 42)));
    assert_eq!((view.open, view.stores[0].1, view.stores[1].1), (11, 12, 9));
    let back = [&phases[..], &[(Phase::RollingBack, 5 * S)]].concat();
    gauge.take(Look { tallies: vec![tally(52, 50, 40), tally(9, 3, 2)], ..look(5 * S, &back) });
    assert_eq!(gauge.view().drained, Some(("sled".to_owned(), 0, 7)), "the other one from now on");
}

#[test]
fn the_time_left_follows_the_plan() {
    let mut gauge = Gauge::new(Plan { instances: 1, ..plan() });
    gauge.take(look(S, &[(Phase::Stable, S)]));
    // 2 s stable, 3 s migration, 6.5 s until the last long-lived instance is collected, 2 s more.
    assert_eq!(gauge.view().left, "about 14 s");
    let phases = [(Phase::Stable, S), (Phase::PreMigration, 3 * S), (Phase::Migration, 3 * S + 1)];
    gauge.take(look(5 * S, &phases));
    assert_eq!(gauge.view().left, "about 10 s");
    assert_eq!(gauge.view().place, Some(2));
    gauge.take(Look { working: false, ..look(5 * S, &phases) });
    assert_eq!(gauge.view().left, "the engine was killed and is opened again");
    gauge = Gauge::new(Plan { instances: 20_000, rate: Some(1_000.0), ..plan() });
    gauge.take(look(S, &[(Phase::Stable, S)]));
    assert_eq!(gauge.view().left, "about 20 s", "the load takes longer than the move");
}

#[test]
fn a_way_that_was_left_is_found_by_its_phase() {
    let way = way(&plan());
    assert_eq!(place(&way, &[]), None);
    assert_eq!(place(&way, &[(Phase::Stable, 0), (Phase::PostMigration, 1)]), Some(3));
}
