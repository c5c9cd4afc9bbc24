//! Gaps, phases and cutovers on runs that are written out by hand.

use super::*;
use cutover_formats::{InstanceId, StoreId};

const MS: u64 = 1000;

struct Run(Measure);

impl Run {
    fn began(at: u64) -> Self {
        let mut measure = Measure::default();
        measure.note(&Entry::Began { at });
        measure.note(&Entry::Phase { phase: Phase::Stable, at });
        measure.note(&Entry::Up { at });
        Self(measure)
    }

    fn note(mut self, entry: Entry) -> Self {
        self.0.note(&entry);
        self
    }

    fn phase(self, phase: Phase, at: u64) -> Self {
        self.note(Entry::Phase { phase, at })
    }

    /// A launch answered every `step`, each after `took`.
    fn launches(mut self, from: u64, to: u64, step: u64, took: u64) -> Self {
        let answer = Answer::Started(InstanceId::new(StoreId(1), 1, 1));
        for at in (from..to).step_by(step as usize) {
            self.0.note(&Entry::Ack { launch: 0, answer: answer.clone(), at, took, again: false });
        }
        self
    }
}

#[test]
fn quantiles_are_exact() {
    assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    assert_eq!(Quantiles::of(vec![7]), Quantiles { p50: 7, p99: 7, p999: 7, max: 7 });
    let quantiles = Quantiles::of((1..=1000).rev().collect());
    assert_eq!(quantiles, Quantiles { p50: 500, p99: 990, p999: 999, max: 1000 });
}

#[test]
fn launches_count_where_they_are_answered() {
    let measured = Run::began(1_000)
        .launches(1_000, 101_000, MS, 5)
        .phase(Phase::PreMigration, 101_000)
        .launches(101_000, 151_000, MS, 9)
        .phase(Phase::PreMigration, 120_000)
        .0
        .report();
    let seen: Vec<_> =
        measured.phases.iter().map(|p| (p.phase.as_str(), p.at_us, p.launches, p.latency_us.max)).collect();
    assert_eq!(seen, [("stable", 0, 100, 5), ("pre_migration", 100_000, 50, 9)]);
}

#[test]
fn a_stall_shows_in_its_second_only() {
    let measured = Run::began(0)
        .launches(0, 1_300 * MS, 10 * MS, 1)
        .launches(1_700 * MS, 3_500 * MS, 10 * MS, 1)
        .phase(Phase::PreMigration, 3_400 * MS)
        .0
        .report();
    let gap = measured.stable_gap_us;
    // The last launch before the stall was answered at 1,290 ms.
    assert_eq!((gap.seconds, gap.p50, gap.max), (3, 10 * MS, 410 * MS));
}

#[test]
fn a_stall_over_an_edge_counts_whole_on_both_sides() {
    let run = Run::began(0).launches(0, 900 * MS, 10 * MS, 1).launches(1_200 * MS, 2_000 * MS, 10 * MS, 1);
    let mut measure = run.0;
    measure.report();
    assert_eq!(measure.longest_gap(0, SECOND), 310 * MS);
    assert_eq!(measure.longest_gap(SECOND, 2 * SECOND), 310 * MS);
    assert_eq!(measure.longest_gap(1_200 * MS, 2 * SECOND), 310 * MS, "it ends where the window starts");
    assert_eq!(measure.longest_gap(1_210 * MS, 1_900 * MS), 10 * MS);
}

#[test]
fn time_without_launchers_is_no_gap() {
    let mut measure = Run::began(0)
        .launches(0, 400 * MS, 10 * MS, 1)
        .note(Entry::Down { at: 395 * MS })
        .note(Entry::Up { at: 800 * MS })
        .launches(820 * MS, 1_000 * MS, 10 * MS, 1)
        .0;
    let measured = measure.report();
    assert_eq!(measure.longest_gap(0, SECOND), 20 * MS);
    assert_eq!(measured.at_work_us, 395 * MS + 190 * MS);
}

#[test]
fn an_error_does_not_end_a_gap() {
    let failed = Answer::Failed("no".to_owned());
    let mut measure = Run::began(0)
        .launches(0, 100 * MS, 10 * MS, 1)
        .note(Entry::Ack { launch: 1, answer: failed, at: 200 * MS, took: 1, again: false })
        .launches(300 * MS, 400 * MS, 10 * MS, 1)
        .0;
    measure.report();
    assert_eq!(measure.longest_gap(0, 400 * MS), 210 * MS);
}

#[test]
fn cutovers_there_and_back() {
    let second = SECOND;
    let measured = Run::began(0)
        .launches(0, 10 * second, 10 * MS, 1)
        .phase(Phase::PreMigration, second)
        .phase(Phase::Migration, 2 * second)
        .note(Entry::Waited { phase: Phase::Migration, took: 11 })
        .phase(Phase::PostMigration, 4 * second)
        .note(Entry::Waited { phase: Phase::PostMigration, took: 12 })
        .phase(Phase::PreRollback, 5 * second)
        .phase(Phase::RollingBack, 6 * second)
        .note(Entry::Waited { phase: Phase::RollingBack, took: 13 })
        .phase(Phase::PostRollback, 7 * second)
        .note(Entry::Waited { phase: Phase::PostRollback, took: 14 })
        .phase(Phase::Stable, 8 * second)
        .0
        .report();
    let seen: Vec<_> = measured
        .cutovers
        .iter()
        .map(|c| {
            (c.direction, c.completed, c.close_wait_us, c.designate_wait_us, c.total_us, c.longest_gap_us)
        })
        .collect();
    assert_eq!(
        seen,
        [("forward", true, 11, 12, 2 * second, 10 * MS), ("reverse", true, 13, 14, second, 10 * MS)]
    );
}

#[test]
fn a_cutover_that_was_taken_back_is_said_to_be() {
    let measured = Run::began(0)
        .launches(0, 5 * SECOND, 10 * MS, 1)
        .phase(Phase::PreMigration, SECOND)
        .phase(Phase::Migration, 2 * SECOND)
        .phase(Phase::RollingBack, 3 * SECOND)
        .phase(Phase::PostRollback, 4 * SECOND)
        .0
        .report();
    let seen: Vec<_> = measured.cutovers.iter().map(|c| (c.direction, c.completed)).collect();
    assert_eq!(seen, [("forward", false), ("reverse", true)]);
}

#[test]
fn the_gap_of_a_cutover_is_that_around_its_two_moments() {
    // A stall of 300 ms long after the close and long before the designation is not the cutover's.
    let run = |stall: u64| {
        let run =
            Run::began(0).launches(0, stall, 10 * MS, 1).launches(stall + 300 * MS, 9 * SECOND, 10 * MS, 1);
        run.phase(Phase::Migration, 2 * SECOND).phase(Phase::PostMigration, 6 * SECOND).0.report()
    };
    let gap = |stall| run(stall).cutovers.first().map(|cutover| cutover.longest_gap_us);
    assert_eq!(gap(2_100 * MS), Some(310 * MS));
    assert_eq!(gap(5_900 * MS), Some(310 * MS));
    assert_eq!(gap(3_500 * MS), Some(10 * MS));
}
