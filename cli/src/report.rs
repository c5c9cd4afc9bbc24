//! The report of a run, as JSON and in a few lines, and what it means for the exit code.

use serde::Serialize;

use crate::environment::Environment;
use crate::failure::{FAILED, NOTHING_MEASURED};
use crate::ledger::{Instances, Launches, Steps};
use crate::measure::{CutoverReport, HandoverReport, Measured, PhaseReport, StableGap, StragglerReport};
use crate::plan::{MIN_LAUNCHES, Plan};
use cutover_formats::Phase;

/// The report of a run. Fields may be added; those that are there keep their meaning.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// `cutover.run/1`.
    pub schema: &'static str,
    /// The machine.
    pub environment: Environment,
    /// Drivers.
    pub stores: Stores,
    /// `synced` or `buffered`.
    pub durability: &'static str,
    /// Workflows read.
    pub workflows: usize,
    /// Their tasks.
    pub tasks: usize,
    /// Bad workflow files that were skipped, each with its sentence.
    pub skipped: Vec<String>,
    /// Counts of launches.
    pub launches: Launches,
    /// Counts of instances.
    pub instances: Instances,
    /// Counts of steps.
    pub steps: Steps,
    /// Counts of definitions.
    pub definitions: Definitions,
    /// Visits of phases, in order.
    pub phases: Vec<PhaseReport>,
    /// Cutovers, in order.
    pub cutovers: Vec<CutoverReport>,
    /// Gaps of the first stable phase.
    pub stable_gap_us: StableGap,
    /// Hand-overs to other runners; null if there were none.
    pub handover: Option<HandoverReport>,
    /// Instances moved out of the store that was left; null if there were none.
    pub stragglers: Option<StragglerReport>,
    /// From the start of the load to the end of the last instance.
    pub elapsed_us: u64,
    /// Times that the engine's process was killed.
    pub kills: u32,
    /// What was asked for.
    pub plan: Plan,
    /// What is wrong, in words; the first of them.
    pub problems: Vec<String>,
    /// What stood in the move's way for a time, as the engine tells it.
    pub obstacles: Vec<String>,
    /// Why nothing was measured; empty if something was.
    pub too_little: Vec<String>,
    /// The exit code.
    pub exit: u8,
}

/// Drivers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stores {
    /// Of the store that it started in.
    pub initial: String,
    /// Of the store that it was moved to.
    pub target: String,
}

/// Counts of definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Definitions {
    /// Stored and acknowledged.
    pub created: u64,
    /// Copied by the replicator; the others were stored while both stores were in use.
    pub copied: u64,
    /// In the initial store: at the end, or, if it was left, when both were last compared.
    pub initial: u64,
    /// The same for the target.
    pub target: u64,
    /// Missing or different when the engine was opened again at the end.
    pub mismatched: u64,
}

/// Why too little was seen to say anything; empty if enough was.
pub(crate) fn too_little(
    plan: &Plan,
    measured: &Measured,
    launches: &Launches,
    steps: &Steps,
) -> Vec<String> {
    let mut why = Vec::new();
    for phase in Phase::ALL {
        let dwelt = plan.dwell(phase).is_some_and(|dwell| !dwell.is_zero());
        let visits = measured.phases.iter().filter(|visit| visit.phase == phase.name());
        let seen: Vec<u64> = visits.map(|visit| visit.launches).collect();
        let total: u64 = seen.iter().sum();
        if dwelt && !seen.is_empty() && total < MIN_LAUNCHES {
            why.push(format!("{phase} was dwelt in and saw {total} launches, fewer than {MIN_LAUNCHES}"));
        }
    }
    if plan.stall_rate > 0.0 && steps.stalled == 0 {
        why.push("no worker was stalled".to_owned());
    }
    let made = measured.handover.map_or(0, |handover| handover.made);
    let asked = plan.handover_at_us.len() as u64;
    // A hand-over that a killed process has made and not told is not counted.
    if made < asked && plan.crash == 0 {
        why.push(format!("{made} of {asked} hand-overs were made"));
    }
    if plan.move_older_us.is_some() && measured.stragglers.is_none() {
        why.push("no instance was moved".to_owned());
    }
    if launches.repeats_tried * 2 < launches.repeats_drawn {
        why.push(format!(
            "{} of {} duplicates were tried, less than half",
            launches.repeats_tried, launches.repeats_drawn
        ));
    }
    why
}

/// The exit code.
pub(crate) fn exit_code(kept: bool, definitions: &Definitions, too_little: &[String]) -> u8 {
    match (kept && definitions.mismatched == 0, too_little.is_empty()) {
        (false, _) => FAILED,
        (true, false) => NOTHING_MEASURED,
        (true, true) => 0,
    }
}

impl Report {
    /// A few lines for a person.
    pub(crate) fn summary(&self) -> String {
        let (launches, instances, steps) = (&self.launches, &self.instances, &self.steps);
        let mut lines = vec![
            format!(
                "{} launches: {} started, {} conflicts ({} expected), {} failed, {} called again after a kill",
                launches.attempted,
                launches.started,
                launches.conflicts,
                launches.expected_conflicts,
                launches.failed,
                launches.relaunched
            ),
            format!(
                "{} instances completed in {} steps, {} failed, {} twice, {} lost; {} were live at the cutover",
                instances.completed,
                steps.completed,
                instances.failed,
                instances.duplicates,
                instances.lost,
                instances.live_at_cutover
            ),
            format!(
                "{} definitions, {} copied, {} mismatched",
                self.definitions.created, self.definitions.copied, self.definitions.mismatched
            ),
        ];
        if steps.stalled > 0 {
            lines.push(format!(
                "{} workers froze past their lease; {} steps took effect twice, {} not at all",
                steps.stalled, steps.repeated, steps.skipped
            ));
        }
        lines.extend(self.handover.map(|handover| {
            format!(
                "{} hand-overs: {} requests waited, {} were refused; pause p50 {}, p99 {}, longest {}",
                handover.made,
                handover.queued,
                handover.refused,
                time(handover.pause_us.p50),
                time(handover.pause_us.p99),
                time(handover.paused_us)
            )
        }));
        lines.extend(self.stragglers.map(|stragglers| {
            format!(
                "{} instances moved: each locked for p50 {}, p99 {}, longest {}",
                stragglers.moved,
                time(stragglers.pause_us.p50),
                time(stragglers.pause_us.p99),
                time(stragglers.pause_us_max)
            )
        }));
        lines.extend(self.cutovers.iter().map(|cutover| {
            let state = if cutover.completed { "" } else { ", taken back" };
            format!(
                "cutover {}{state}: close wait {}, designation wait {}, longest gap {}",
                cutover.direction,
                time(cutover.close_wait_us),
                time(cutover.designate_wait_us),
                time(cutover.longest_gap_us)
            )
        }));
        let gap = &self.stable_gap_us;
        lines.push(format!(
            "gaps before the move, over {} s: p50 {}, p99 {}, longest {}",
            gap.seconds,
            time(gap.p50),
            time(gap.p99),
            time(gap.max)
        ));
        lines.extend(self.problems.iter().map(|problem| format!("problem: {problem}")));
        lines.extend(self.too_little.iter().map(|why| format!("nothing was measured: {why}")));
        lines.join("\n")
    }
}

/// Microseconds, readable.
pub(crate) fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Quantiles;

    fn measured(phases: &[(&str, u64)]) -> Measured {
        let phase = |(name, launches): &(&str, u64)| PhaseReport {
            phase: (*name).to_owned(),
            at_us: 0,
            launches: *launches,
            latency_us: Quantiles::default(),
        };
        Measured {
            phases: phases.iter().map(phase).collect(),
            cutovers: Vec::new(),
            stable_gap_us: StableGap::default(),
            copied: 0,
            at_work_us: 0,
            handover: None,
            stragglers: None,
        }
    }

    #[test]
    fn a_phase_that_was_dwelt_in_needs_its_launches() {
        let mut plan = Plan::for_tests();
        let launches = Launches::default();
        let seen = measured(&[("stable", 900), ("pre_migration", 3), ("migration", 199), ("stable", 1)]);
        assert_eq!(
            too_little(&plan, &seen, &launches, &Steps::default()),
            Vec::<String>::new(),
            "dwelt in none"
        );
        plan.dwell_us[Phase::Migration as usize] = Some(1);
        plan.dwell_us[Phase::PostRollback as usize] = Some(1);
        let why = too_little(&plan, &seen, &launches, &Steps::default());
        assert_eq!(why, ["migration was dwelt in and saw 199 launches, fewer than 200"]);
    }

    #[test]
    fn half_of_the_duplicates_must_have_been_tried() {
        let plan = Plan::for_tests();
        let with =
            |drawn, tried| Launches { repeats_drawn: drawn, repeats_tried: tried, ..Default::default() };
        assert!(too_little(&plan, &measured(&[]), &with(10, 5), &Steps::default()).is_empty());
        assert_eq!(too_little(&plan, &measured(&[]), &with(10, 4), &Steps::default()).len(), 1);
        assert!(too_little(&plan, &measured(&[]), &with(0, 0), &Steps::default()).is_empty());
    }

    #[test]
    fn stalls_that_were_asked_for_must_have_been() {
        let plan = Plan { stall_rate: 0.01, ..Plan::for_tests() };
        let after = |stalled| {
            let steps = Steps { stalled, ..Steps::default() };
            too_little(&plan, &measured(&[]), &Launches::default(), &steps)
        };
        assert_eq!(after(0), ["no worker was stalled"]);
        assert_eq!(after(1), Vec::<String>::new());
    }

    #[test]
    fn hand_overs_and_moves_that_were_asked_for_must_have_been() {
        let plan = Plan { handover_at_us: vec![1, 2], move_older_us: Some(0), ..Plan::for_tests() };
        let why = |measured: &Measured| too_little(&plan, measured, &Launches::default(), &Steps::default());
        let nothing = measured(&[]);
        assert_eq!(why(&nothing), ["0 of 2 hand-overs were made", "no instance was moved"]);
        let pause_us = Quantiles::default();
        let handover = HandoverReport { made: 2, undone: 1, paused_us: 0, queued: 0, refused: 0, pause_us };
        let stragglers = StragglerReport { moved: 1, pause_us_max: 0, pause_us };
        let all = Measured { handover: Some(handover), stragglers: Some(stragglers), ..nothing };
        assert_eq!(why(&all), Vec::<String>::new());
    }

    #[test]
    fn a_broken_promise_weighs_more_than_too_little() {
        let good = Definitions { created: 1, copied: 1, initial: 1, target: 1, mismatched: 0 };
        let bad = Definitions { mismatched: 1, ..good };
        let why = ["too little".to_owned()];
        assert_eq!(exit_code(true, &good, &[]), 0);
        assert_eq!(exit_code(true, &good, &why), 5);
        assert_eq!(exit_code(false, &good, &why), 1);
        assert_eq!(exit_code(true, &bad, &[]), 1);
    }
}
