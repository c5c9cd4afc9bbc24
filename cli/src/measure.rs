//! Measures: latencies by phase, gaps between answered launches, cutovers. Pure, from entries.

use cutover_formats::Phase;
use serde::Serialize;

use crate::entry::{Answer, Entry};

/// A second, in microseconds.
const SECOND: u64 = 1_000_000;

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    /// The median.
    pub p50: u64,
    /// 99 % took no longer.
    pub p99: u64,
    /// 99.9 % took no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Quantiles {
    /// Of these values, in any order. Exact: the least value that is not below so many of them.
    pub(crate) fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |share: f64| {
            let rank = (values.len() as f64 * share).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// What was measured in one visit of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PhaseReport {
    /// Its name.
    pub phase: String,
    /// When it was entered, since the start of the load.
    pub at_us: u64,
    /// Launches answered in it.
    pub launches: u64,
    /// How long they took.
    pub latency_us: Quantiles,
}

/// What was measured of one cutover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CutoverReport {
    /// `forward` or `reverse`.
    pub direction: &'static str,
    /// False if it was taken back between the close and the designation.
    pub completed: bool,
    /// When the close was published, since the start of the load.
    pub at_us: u64,
    /// The wait for everybody who may have read the store as open.
    pub close_wait_us: u64,
    /// The wait for everybody who may have read the old primary.
    pub designate_wait_us: u64,
    /// From the close to the new primary, with the time that it was told to dwell.
    pub total_us: u64,
    /// The longest gap in the second around the close and the second around the designation.
    pub longest_gap_us: u64,
}

/// Gaps of the first stable phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StableGap {
    /// Whole seconds measured.
    pub seconds: u64,
    /// Median over them of the longest gap of each.
    pub p50: u64,
    /// 99 % of them had none that was longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// What was measured of hand-overs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct HandoverReport {
    /// How many there were.
    pub made: u64,
    /// Flips that were undone, and tried again.
    pub undone: u64,
    /// The longest time for which requests could have had to wait.
    pub paused_us: u64,
    /// Requests that waited, in all of them.
    pub queued: u64,
    /// Requests that were refused, in all of them.
    pub refused: u64,
    /// How long requests could have had to wait.
    pub pause_us: Quantiles,
}

/// What was measured of instances that were moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct StragglerReport {
    /// How many.
    pub moved: u64,
    /// The longest time for which one was locked.
    pub pause_us_max: u64,
    /// For how long they were locked.
    pub pause_us: Quantiles,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Measured {
    /// Visits of phases, in order.
    pub phases: Vec<PhaseReport>,
    /// Cutovers, in order.
    pub cutovers: Vec<CutoverReport>,
    /// Gaps of the first stable phase.
    pub stable_gap_us: StableGap,
    /// Definitions copied by the replicator.
    pub copied: u64,
    /// Time that launchers were at work.
    pub at_work_us: u64,
    /// Hand-overs, if there were any.
    pub handover: Option<HandoverReport>,
    /// Instances moved, if there were any.
    pub stragglers: Option<StragglerReport>,
}

/// One answered launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it was answered.
    pub at: u64,
    /// How long it took, in microseconds.
    pub took: u32,
}

/// One flip.
#[derive(Debug, Clone, Copy)]
struct Handover {
    paused: u64,
    queued: u64,
    refused: u64,
    undone: bool,
}

/// Collects what is to be measured.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    /// Time zero of the report.
    began: u64,
    samples: Vec<Sample>,
    phases: Vec<(Phase, u64)>,
    waits: Vec<(Phase, u64)>,
    /// Times at which launchers started and stopped being at work, in turn.
    work: Vec<(u64, bool)>,
    handovers: Vec<Handover>,
    /// For how long each instance was locked that was moved.
    moves: Vec<u64>,
    copied: u64,
    /// Definitions that there were to copy.
    to_copy: u64,
    end: u64,
}

impl Measure {
    /// Takes an entry.
    pub(crate) fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Began { at } => self.began = *at,
            Entry::Up { at } => self.work.push((*at, true)),
            Entry::Down { at } => self.work.push((*at, false)),
            // A failed launch was answered too, but is no completed launch: it does not end a gap.
            Entry::Ack { answer: Answer::Failed(_), .. } => {}
            // A repeat after a kill is made before launchers are at work again.
            Entry::Ack { again: true, .. } => {}
            Entry::Ack { at, took, .. } => {
                self.end = self.end.max(*at);
                self.samples.push(Sample { at: *at, took: u32::try_from(*took).unwrap_or(u32::MAX) });
            }
            Entry::Phase { phase, at } => self.enter(*phase, *at),
            Entry::Waited { phase, took } => self.waits.push((*phase, *took)),
            Entry::HandedOver { paused, queued, refused, undone } => {
                let (paused, queued, refused, undone) = (*paused, *queued, *refused, undone.is_some());
                self.handovers.push(Handover { paused, queued, refused, undone });
            }
            Entry::Moved { pause, .. } => self.moves.push(*pause),
            Entry::Copied { definitions, of } => {
                self.copied = self.copied.max(*definitions);
                self.to_copy = self.to_copy.max(*of);
            }
            _ => {}
        }
    }

    fn enter(&mut self, phase: Phase, at: u64) {
        // A process that replaces a killed one says again where it is.
        if self.phases.last().is_none_or(|(last, _)| *last != phase) {
            self.phases.push((phase, at));
        }
    }

    /// Time zero of the report.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// Phases entered so far, each with the time.
    pub(crate) fn phases(&self) -> &[(Phase, u64)] {
        &self.phases
    }

    /// Answered launches from this place on: in the order in which they were noted, or, after the report, in that of their times.
    pub(crate) fn samples(&self, from: usize) -> &[Sample] {
        self.samples.get(from..).unwrap_or_default()
    }

    /// Definitions copied so far, and how many there are to copy.
    pub(crate) fn copied(&self) -> (u64, u64) {
        (self.copied, self.to_copy)
    }

    /// Whether launchers are at work.
    pub(crate) fn working(&self) -> bool {
        self.work.last().is_some_and(|(_, working)| *working)
    }

    /// Works everything out.
    pub(crate) fn report(&mut self) -> Measured {
        self.samples.sort_by_key(|sample| sample.at);
        Measured {
            phases: self.phase_reports(),
            cutovers: self.cutover_reports(),
            stable_gap_us: self.stable_gap(),
            copied: self.copied,
            at_work_us: self.at_work(),
            handover: self.handover(),
            stragglers: self.stragglers(),
        }
    }

    fn handover(&self) -> Option<HandoverReport> {
        let all = &self.handovers;
        let pause_us = Quantiles::of(all.iter().map(|one| one.paused).collect());
        let undone = all.iter().filter(|one| one.undone).count() as u64;
        (!all.is_empty()).then(|| HandoverReport {
            made: all.len() as u64 - undone,
            undone,
            paused_us: pause_us.max,
            queued: all.iter().map(|one| one.queued).sum(),
            refused: all.iter().map(|one| one.refused).sum(),
            pause_us,
        })
    }

    fn stragglers(&self) -> Option<StragglerReport> {
        let pause_us = Quantiles::of(self.moves.clone());
        let moved = self.moves.len() as u64;
        (moved > 0).then_some(StragglerReport { moved, pause_us_max: pause_us.max, pause_us })
    }

    /// When the phase at this place was left.
    fn left(&self, place: usize) -> u64 {
        self.phases.get(place + 1).map_or(u64::MAX, |(_, at)| *at)
    }

    fn phase_reports(&self) -> Vec<PhaseReport> {
        let report = |(place, (phase, at)): (usize, &(Phase, u64))| {
            let inside = self.between(*at, self.left(place));
            let latency_us = Quantiles::of(inside.iter().map(|sample| u64::from(sample.took)).collect());
            PhaseReport {
                phase: phase.name().to_owned(),
                at_us: at.saturating_sub(self.began),
                launches: inside.len() as u64,
                latency_us,
            }
        };
        self.phases.iter().enumerate().map(report).collect()
    }

    /// The launches answered from `from` until before `to`.
    fn between(&self, from: u64, to: u64) -> &[Sample] {
        let first = self.samples.partition_point(|sample| sample.at < from);
        let last = self.samples.partition_point(|sample| sample.at < to);
        self.samples.get(first..last).unwrap_or_default()
    }

    fn cutover_reports(&self) -> Vec<CutoverReport> {
        let mut waits = self.waits.clone();
        // The waits come in the order of the phases; one that a kill cut off is missing.
        let mut wait = |phase: Phase| {
            let found = waits.iter().position(|(of, _)| *of == phase);
            found.map_or(0, |place| waits.remove(place).1)
        };
        let mut found = Vec::new();
        for (place, (phase, at)) in self.phases.iter().enumerate() {
            let (direction, designation) = match phase {
                Phase::Migration => ("forward", Phase::PostMigration),
                Phase::RollingBack => ("reverse", Phase::PostRollback),
                _ => continue,
            };
            let next = self.phases.get(place + 1);
            let completed = next.is_some_and(|(next, _)| *next == designation);
            let until = next.map_or(*at, |(_, until)| *until);
            let around = |moment: u64| {
                self.longest_gap(moment.saturating_sub(SECOND / 2), moment.saturating_add(SECOND / 2))
            };
            found.push(CutoverReport {
                direction,
                completed,
                at_us: at.saturating_sub(self.began),
                close_wait_us: wait(*phase),
                designate_wait_us: if completed { wait(designation) } else { 0 },
                total_us: until - at,
                longest_gap_us: around(*at).max(around(until)),
            });
        }
        found
    }

    fn stable_gap(&self) -> StableGap {
        let until = if self.phases.len() > 1 { self.left(0) } else { self.end };
        let whole = until.saturating_sub(self.began) / SECOND;
        let gaps = (0..whole).map(|second| {
            let from = self.began + second * SECOND;
            self.longest_gap(from, from + SECOND)
        });
        let quantiles = Quantiles::of(gaps.collect());
        StableGap { seconds: whole, p50: quantiles.p50, p99: quantiles.p99, max: quantiles.max }
    }

    /// The longest time without a completed launch, while launchers were at work, that touches `[from, to)`. One that reaches
    /// over an edge counts whole.
    fn longest_gap(&self, from: u64, to: u64) -> u64 {
        let mut longest = 0;
        for (up, down) in self.shifts() {
            if down <= from || up >= to {
                continue;
            }
            let first = self.samples.partition_point(|sample| sample.at < from.max(up));
            let inside = self.samples.iter().skip(first).map(|sample| sample.at);
            let before = first.checked_sub(1).and_then(|place| self.samples.get(place));
            let mut last = before.map_or(up, |sample| sample.at.max(up));
            for at in inside.chain([u64::MAX]) {
                let at = at.min(down);
                longest = longest.max(at.saturating_sub(last));
                last = at;
                if at >= to.min(down) {
                    break;
                }
            }
        }
        longest
    }

    /// Stretches of time in which launchers were at work.
    pub(crate) fn shifts(&self) -> Vec<(u64, u64)> {
        let mut shifts = Vec::new();
        let mut up = None;
        for (at, working) in &self.work {
            match (working, up) {
                (true, None) => up = Some(*at),
                (false, Some(from)) => {
                    shifts.push((from, *at));
                    up = None;
                }
                _ => {}
            }
        }
        shifts.extend(up.map(|from| (from, self.end)));
        shifts
    }

    fn at_work(&self) -> u64 {
        self.shifts().iter().map(|(up, down)| down.saturating_sub(*up)).sum()
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
