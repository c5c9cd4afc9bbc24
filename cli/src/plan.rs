//! What a run is to do: the command line, checked and with its defaults worked out. Goes to the child process as it is.

use std::path::PathBuf;
use std::time::Duration;

use cutover::Heartbeats;
use cutover_formats::Phase;
use serde::{Deserialize, Serialize};

use crate::args::{Dwell, Level, ReverseAt, RunArgs};
use crate::failure::{Failure, Result};

/// The drivers that a run can use: those that are still there when the process is not.
pub(crate) const DRIVERS: [&str; 2] = ["rocksdb", "sled"];
/// A phase that was dwelt in must have seen this many launches, or nothing was measured.
pub(crate) const MIN_LAUNCHES: u64 = 200;
/// How long the load goes on after the move.
pub(crate) const TAIL: Duration = Duration::from_secs(2);
/// How long after a cutover a long-lived instance ends.
pub(crate) const LONG_LIFE: Duration = Duration::from_secs(5);

/// What a run is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Directory of workflows.
    pub workflows: PathBuf,
    /// Bad ones are skipped.
    pub skip_bad: bool,
    /// The engine's directory.
    pub data: PathBuf,
    /// The tenant's name in it.
    pub tenant: String,
    /// Seed of all choices.
    pub seed: u64,
    /// Instances to launch at least.
    pub instances: u64,
    /// Threads that launch.
    pub launchers: u16,
    /// Launches per second at fixed times; none for a closed loop.
    pub rate: Option<f64>,
    /// Threads that work.
    pub workers: u16,
    /// Recorded runtimes times this are how long leases are held.
    pub time_scale: f64,
    /// Fraction of instances that outlive the cutover.
    pub long_lived: f64,
    /// Fraction of steps whose worker freezes past its lease.
    pub stall_rate: f64,
    /// Fraction of launches that repeat a live key.
    pub duplicate_rate: f64,
    /// Definitions that are there before the load.
    pub definitions: u64,
    /// Definitions per second during the load.
    pub define_rate: f64,
    /// Driver of the initial store.
    pub from: String,
    /// Driver of the target.
    pub to: String,
    /// Whether acknowledged means on disk.
    pub synced: bool,
    /// When the migration starts, in microseconds of the load.
    pub migrate_at_us: u64,
    /// Time to stay in each phase, in microseconds, in the order of [`Phase::ALL`]; none where nothing was said.
    pub dwell_us: [Option<u64>; 7],
    /// Which way it goes.
    pub way: Way,
    /// How often the process is killed.
    pub crash: u32,
    /// When the tenant is handed to the next runner, in microseconds of the load, in order.
    pub handover_at_us: Vec<u64>,
    /// What is older than so many microseconds is moved out of a store that drains.
    pub move_older_us: Option<u64>,
}

/// Which way a move goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Through to the target.
    Forward,
    /// Back from this phase.
    Back(Phase),
    /// Called off so many microseconds after its start.
    Cancelled(u64),
}

impl Way {
    /// The phases between the two stable ones, in order.
    pub(crate) const fn passes(self) -> &'static [Phase] {
        match self {
            Way::Cancelled(_) => &[Phase::PreMigration],
            Way::Forward => &[Phase::PreMigration, Phase::Migration, Phase::PostMigration],
            Way::Back(Phase::Migration) => {
                &[Phase::PreMigration, Phase::Migration, Phase::RollingBack, Phase::PostRollback]
            }
            Way::Back(_) => &[
                Phase::PreMigration,
                Phase::Migration,
                Phase::PostMigration,
                Phase::PreRollback,
                Phase::RollingBack,
                Phase::PostRollback,
            ],
        }
    }
}

impl Plan {
    /// Checks what the command line cannot check by itself.
    pub(crate) fn new(args: &RunArgs) -> Result<Self> {
        let (load, moving) = (&args.load, &args.r#move);
        for driver in [&moving.from, &moving.to] {
            if !DRIVERS.contains(&driver.as_str()) {
                return Err(Failure::bad_input(format!(
                    "the driver `{driver}` is unknown; the drivers are {}",
                    DRIVERS.join(" and ")
                )));
            }
        }
        let way = match (moving.reverse_at, moving.cancel_at) {
            (Some(ReverseAt::PostMigration), _) => Way::Back(Phase::PostMigration),
            (Some(ReverseAt::Migration), _) => Way::Back(Phase::Migration),
            (None, Some(after)) => Way::Cancelled(micros(after)),
            (None, None) => Way::Forward,
        };
        let mut handover_at_us: Vec<u64> = load.handover_at.iter().copied().map(micros).collect();
        handover_at_us.sort_unstable();
        let dwell_us = dwells(&moving.dwell, way);
        let stable = dwell_us.first().copied().flatten().unwrap_or(0);
        let migrate_at_us = micros(moving.migrate_at).max(stable);
        Ok(Self {
            workflows: args.workflows.clone(),
            skip_bad: args.skip_bad,
            data: args.data.clone(),
            tenant: String::new(),
            seed: args.seed,
            instances: load.instances,
            launchers: load.launchers,
            rate: load.rate,
            workers: load.workers,
            time_scale: load.time_scale,
            long_lived: load.long_lived,
            stall_rate: load.stall_rate,
            duplicate_rate: load.duplicate_rate,
            definitions: load.definitions,
            define_rate: load.define_rate,
            from: moving.from.clone(),
            to: moving.to.clone(),
            synced: moving.durability == Level::Synced,
            migrate_at_us,
            dwell_us,
            way,
            crash: moving.crash,
            handover_at_us,
            move_older_us: moving.move_stragglers.map(micros),
        })
    }

    /// How often workers are to be heard of. Short where some of them freeze past it, so that they are many.
    pub(crate) fn heartbeats(&self) -> Heartbeats {
        match self.stall_rate > 0.0 {
            true => Heartbeats { every: Duration::from_millis(200), intervals: 3 },
            false => Heartbeats::default(),
        }
    }

    /// What was launched longer ago is moved out of a store that drains; none if everything is waited for.
    pub(crate) fn move_older_than(&self) -> Option<Duration> {
        self.move_older_us.map(Duration::from_micros)
    }

    /// The time to stay in a phase, if one was told.
    pub(crate) fn dwell(&self, phase: Phase) -> Option<Duration> {
        self.dwell_us.get(phase as usize).copied().flatten().map(Duration::from_micros)
    }

    /// Cutovers after which launches stay where they are for the rest of the run.
    pub(crate) fn cutovers(&self) -> usize {
        match self.way {
            Way::Cancelled(_) => 0,
            Way::Forward | Way::Back(Phase::Migration) => 1,
            Way::Back(_) => 2,
        }
    }

    /// Launches per second that all launchers together aim at in a closed loop.
    ///
    /// Every launched instance is worked off step by step, which takes far longer than launching it; flat out, the
    /// launchers would leave hours of work behind. So they share a pace, quick enough to spread the instances over a usual run and
    /// to see a gap of a few milliseconds, and to see enough launches in the shortest dwell.
    pub(crate) fn pace(&self) -> f64 {
        const USUAL_RUN_S: f64 = 20.0;
        const LEAST: f64 = 200.0;
        let shortest = self.dwell_us.iter().flatten().filter(|us| **us > 0).min();
        let for_dwell = shortest.map_or(0.0, |us| 2.0 * MIN_LAUNCHES as f64 * 1e6 / *us as f64);
        (self.instances as f64 / USUAL_RUN_S).max(LEAST).max(for_dwell.min(2000.0))
    }

    /// A plan for tests to change.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        use clap::Parser;
        let words = ["cutover", "run", "--workflows", "w", "--data", "d"];
        match crate::args::Cli::parse_from(words).command {
            crate::args::Command::Run(args) => Self::new(&args).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The tenant's store is moved to another directory of the same driver.
    pub(crate) fn same_driver(&self) -> bool {
        self.from == self.to
    }
}

fn dwells(told: &[(Dwell, Duration)], way: Way) -> [Option<u64>; 7] {
    let mut out = [None; 7];
    for (which, time) in told {
        for phase in Phase::ALL {
            let meant = match which {
                Dwell::All => way.passes().contains(&phase),
                Dwell::One(one) => *one == phase,
            };
            if let Some(slot) = out.get_mut(phase as usize).filter(|_| meant) {
                *slot = Some(micros(*time));
            }
        }
    }
    out
}

/// A time in microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
