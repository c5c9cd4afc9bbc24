//! How a migration goes, and where it can be held.

use std::time::Duration;

use cutover_formats::meta::{MigrationRecord, RunId};
use cutover_formats::{Phase, Role};

use crate::clock;
use crate::plan::Plan;

/// How a migration goes. Durable with the migration.
#[derive(Debug, Clone, Default)]
pub struct MigrationOptions {
    pub(super) hold_switch: bool,
    hold_complete: bool,
    rate: u64,
    move_rate: Option<u32>,
    dwell_ms: [u64; 7],
    plan: Option<Plan>,
}

/// Most instances and keys that are moved a second, unless told otherwise: their locks and commits leave room for everybody else's.
const MOVE_RATE: u32 = 1000;

impl MigrationOptions {
    /// Wait before launches are switched until [`Migration::switch`](super::Migration::switch) or [`Migration::release`](super::Migration::release).
    #[must_use]
    pub fn hold_switch(mut self, hold: bool) -> Self {
        self.hold_switch = hold;
        self
    }

    /// Wait before the store that has drained is given up until [`Migration::complete`](super::Migration::complete) or [`Migration::release`](super::Migration::release).
    #[must_use]
    pub fn hold_complete(mut self, hold: bool) -> Self {
        self.hold_complete = hold;
        self
    }

    /// Copy and compare at most so many bytes a second; 0 for no limit.
    #[must_use]
    pub fn rate(mut self, bytes_a_second: u64) -> Self {
        self.rate = bytes_a_second;
        self
    }

    /// Refuse to begin if, since this plan was made, a tenant or a store came or went, or a tenant moved to another store.
    #[must_use]
    pub fn planned(mut self, plan: Plan) -> Self {
        self.plan = Some(plan);
        self
    }

    /// Let [`Migration::move_stragglers`](super::Migration::move_stragglers) move at most so many instances, and keys that have outlived theirs, a second; 0 for no limit, 1,000
    /// unless told otherwise.
    #[must_use]
    pub fn move_rate(mut self, a_second: u32) -> Self {
        self.move_rate = Some(a_second);
        self
    }

    /// Stay in this phase for at least so long.
    #[must_use]
    pub fn dwell(mut self, phase: Phase, time: Duration) -> Self {
        let at = Phase::ALL.iter().position(|other| *other == phase);
        if let Some(dwell) = at.and_then(|at| self.dwell_ms.get_mut(at)) {
            *dwell = clock::millis(time);
        }
        self
    }

    /// For who holds the plan against what there is before several begin.
    pub(crate) const fn take_plan(&mut self) -> Option<Plan> {
        self.plan.take()
    }

    pub(super) const fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What is written down when a migration begins so.
    pub(super) fn record(&self, id: u64, now_ms: u64, run: Option<RunId>) -> MigrationRecord {
        MigrationRecord {
            id,
            goal: Role::Target,
            hold_switch: self.hold_switch,
            hold_complete: self.hold_complete,
            paused: false,
            rate: self.rate,
            dwell_ms: self.dwell_ms,
            abandon: false,
            started_ms: now_ms,
            move_older_ms: None,
            move_rate: self.move_rate.unwrap_or(MOVE_RATE),
            run,
        }
    }
}

/// A point at which a migration can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Before launches are switched.
    Switch,
    /// Before the store that has drained is given up.
    Complete,
    /// Everywhere: nothing is copied, compared or moved.
    All,
}
