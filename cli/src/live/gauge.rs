//! What is shown, worked out from looks at the books. Pure: it is told the time.

use std::collections::VecDeque;
use std::time::Duration;

use cutover_formats::Phase;

use crate::ledger::{Launches, Tally};
use crate::measure::{Quantiles, Sample};
use crate::plan::{LONG_LIFE, Plan, TAIL, Way, micros};
use crate::report::time;

/// Figures are of so long a time, in microseconds.
const RECENT: u64 = 1_000_000;
/// How long a store takes to drain when its last instance has ended: retention, and a pass of the collector.
const SWEEP: Duration = Duration::from_millis(1_500);

/// What the books said at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// When.
    pub now: u64,
    /// When the load began; 0 if it has not.
    pub began: u64,
    /// Phases entered so far.
    pub phases: Vec<(Phase, u64)>,
    /// Launches answered since the last look.
    pub samples: Vec<Sample>,
    /// Definitions copied, of how many.
    pub copied: (u64, u64),
    /// Launchers are at work.
    pub working: bool,
    /// Counts of launches.
    pub launches: Launches,
    /// Counts of instances by store.
    pub tallies: Vec<Tally>,
}

/// What is shown on a terminal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// The phases of the way.
    pub way: Vec<Phase>,
    /// Which of them it is in; none before the load.
    pub place: Option<usize>,
    /// Launches answered in the last second.
    pub per_second: usize,
    /// Of these.
    pub p99: u64,
    /// Counts of launches.
    pub launches: Launches,
    /// Instances that have not ended.
    pub open: u64,
    /// Names of the stores, each with the instances that it keeps.
    pub stores: Vec<(String, u64)>,
    /// Definitions copied, of how many.
    pub copied: (u64, u64),
    /// The store that drains: its name, how many have left it, of how many.
    pub drained: Option<(String, u64, u64)>,
    /// What there is to say about the time left.
    pub left: String,
}

/// A store that was closed for launches.
#[derive(Debug, Clone, Copy)]
struct Closed {
    store: usize,
    /// How many had been collected by then.
    collected: u64,
}

/// Works out what is shown.
#[derive(Debug)]
pub(super) struct Gauge {
    plan: Plan,
    look: Look,
    seen: usize,
    recent: VecDeque<Sample>,
    /// Latencies by phase; emptied when the phase has had its line.
    inside: Vec<Vec<u64>>,
    told: usize,
    closed: Option<Closed>,
}

impl Gauge {
    /// For a run of this plan.
    pub(super) fn new(plan: Plan) -> Self {
        let (recent, inside) = (VecDeque::new(), Vec::new());
        Self { plan, look: Look::default(), seen: 0, recent, inside, told: 0, closed: None }
    }

    /// Launches taken so far.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    /// Takes a look and gives a line for each phase that was entered since the last.
    pub(super) fn take(&mut self, mut look: Look) -> Vec<String> {
        self.seen += look.samples.len();
        for sample in look.samples.drain(..) {
            let phase = look.phases.partition_point(|(_, at)| *at <= sample.at).saturating_sub(1);
            self.inside.resize_with(self.inside.len().max(phase + 1), Vec::new);
            if let Some(inside) = self.inside.get_mut(phase) {
                inside.push(u64::from(sample.took));
            }
            self.recent.push_back(sample);
        }
        self.look = look;
        let from = self.look.now.saturating_sub(RECENT);
        while self.recent.front().is_some_and(|sample| sample.at < from) {
            self.recent.pop_front();
        }
        let first = self.told;
        self.told = self.look.phases.len();
        (first..self.told).map(|place| self.entered(place)).collect()
    }

    fn entered(&mut self, place: usize) -> String {
        let (phase, at) = self.look.phases.get(place).copied().unwrap_or((Phase::Stable, 0));
        // A migration goes from the store that was made first, and back from the other.
        let closed = match phase {
            Phase::Migration => Some(0),
            Phase::RollingBack => Some(1),
            Phase::Stable => None,
            _ => self.closed.map(|closed| closed.store),
        };
        if closed != self.closed.map(|closed| closed.store) {
            self.closed = closed.map(|store| Closed { store, collected: self.tally(store).collected });
        }
        let line = self.line(phase.name(), at);
        let left = place.checked_sub(1).and_then(|before| self.left(before, at));
        left.map_or(line.clone(), |left| format!("{line:<27}{left}"))
    }

    /// The line of the phase that the run ended in.
    pub(super) fn last_line(&mut self) -> Option<String> {
        let last = self.look.phases.len().checked_sub(1)?;
        let left = self.left(last, self.look.now)?;
        Some(format!("{:<27}{left}", self.line("all ended", self.look.now)))
    }

    fn line(&self, what: &str, at: u64) -> String {
        format!("{:6.1} s  {what}", at.saturating_sub(self.look.began) as f64 / 1e6)
    }

    /// What happened in a phase that was left then.
    fn left(&mut self, place: usize, at: u64) -> Option<String> {
        let (phase, since) = self.look.phases.get(place).copied()?;
        let values = self.inside.get_mut(place).map(std::mem::take).unwrap_or_default();
        let stayed = at.saturating_sub(since.max(self.look.began));
        let (launches, figures) = (values.len(), Quantiles::of(values));
        let (p99, stayed) = (time(figures.p99), time(stayed));
        Some(format!("after {stayed} of {phase}: {launches} launches, p99 {p99}"))
    }

    fn tally(&self, store: usize) -> Tally {
        self.look.tallies.get(store).copied().unwrap_or_default()
    }

    /// What to draw.
    pub(super) fn view(&self) -> View {
        let way = way(&self.plan);
        let place = place(&way, &self.look.phases);
        let open = self.look.tallies.iter().map(|tally| tally.started.saturating_sub(tally.ended)).sum();
        let names = names(&self.plan).into_iter();
        let kept = |store| {
            let tally: Tally = self.tally(store);
            tally.started.saturating_sub(tally.collected)
        };
        let stores: Vec<_> = names.enumerate().map(|(store, name)| (name, kept(store))).collect();
        let drained = self.closed.and_then(|closed| {
            let tally = self.tally(closed.store);
            let name = stores.get(closed.store)?.0.clone();
            let count = |counted: u64| counted.saturating_sub(closed.collected);
            Some((name, count(tally.collected), count(tally.started)))
        });
        View {
            left: self.time_left(&way, place),
            place: place.filter(|_| self.look.began > 0),
            way,
            per_second: self.recent.len(),
            p99: Quantiles::of(self.recent.iter().map(|sample| u64::from(sample.took)).collect()).p99,
            launches: self.look.launches,
            open,
            stores,
            copied: self.look.copied,
            drained,
        }
    }

    fn time_left(&self, way: &[Phase], place: Option<usize>) -> String {
        let Some(place) = place.filter(|_| self.look.began > 0) else {
            return "the load has not begun".to_owned();
        };
        let over = place + 1 == way.len() && !self.look.working;
        if over {
            return "the last instances end".to_owned();
        }
        if !self.look.working {
            return "the engine was killed and is opened again".to_owned();
        }
        let expected = |place: usize| way.get(place).map_or(0, |phase| expected(&self.plan, *phase, place));
        let since = self.look.phases.last().map_or(0, |(_, at)| (*at).max(self.look.began));
        let here = expected(place).saturating_sub(self.look.now.saturating_sub(since));
        let move_left = here + (place + 1..way.len()).map(expected).sum::<u64>();
        let launches = self.plan.instances.saturating_sub(self.look.launches.started) as f64;
        let load_left = launches / self.plan.rate.unwrap_or_else(|| self.plan.pace()) * 1e6;
        let seconds = (move_left as f64).max(load_left) / 1e6;
        format!("about {seconds:.0} s")
    }
}

/// The phases that a plan goes through.
fn way(plan: &Plan) -> Vec<Phase> {
    [&[Phase::Stable], plan.way.passes(), &[Phase::Stable]].concat()
}

/// Where on the way the run is. A way that the engine did not keep to is followed by the phase alone.
fn place(way: &[Phase], phases: &[(Phase, u64)]) -> Option<usize> {
    let (phase, _) = phases.last()?;
    let place = phases.len() - 1;
    if way.get(place) == Some(phase) { Some(place) } else { way.iter().rposition(|one| one == phase) }
}

fn names(plan: &Plan) -> [String; 2] {
    let target = if plan.same_driver() { format!("the other {}", plan.to) } else { plan.to.clone() };
    [plan.from.clone(), target]
}

/// How long a phase is likely to last, in microseconds.
fn expected(plan: &Plan, phase: Phase, place: usize) -> u64 {
    let dwell = plan.dwell(phase).unwrap_or_default();
    let drain = if plan.long_lived > 0.0 && plan.move_older_us.is_none() { LONG_LIFE + SWEEP } else { SWEEP };
    let by_hand = matches!(plan.way, Way::Back(from) if from == phase);
    match (phase, plan.way) {
        (Phase::Stable, _) if place == 0 => plan.migrate_at_us,
        (Phase::Stable, _) => micros(TAIL),
        (Phase::PreMigration, Way::Cancelled(at)) => at.saturating_sub(plan.migrate_at_us),
        (Phase::PostMigration | Phase::PostRollback, _) if !by_hand => micros(dwell.max(drain)),
        _ => micros(dwell),
    }
}

#[cfg(test)]
#[path = "gauge_tests.rs"]
mod tests;
