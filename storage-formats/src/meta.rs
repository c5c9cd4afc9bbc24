//! The records of the engine's own metadata, which lies beside the stores: the catalog of stores and, per
//! tenant, the status that decides where it is in a migration.
//!
//! What a status *means* and which moves are legal is the engine's business; here is only what is written.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{StoreId, TenantId};

/// Where a tenant is in a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// One store.
    Stable,
    /// The target is open and definitions are copied into it; launches go to the initial store.
    PreMigration,
    /// The initial store is closed; launches go to the target.
    Migration,
    /// The target is primary; the initial store drains.
    PostMigration,
    /// On the way back: the initial store is open again, launches still go to the target.
    PreRollback,
    /// On the way back: the target is closed; launches go to the initial store.
    RollingBack,
    /// On the way back: the initial store is primary; the target drains.
    PostRollback,
}

impl Phase {
    /// Every phase, in the order of a migration and then of a roll-back.
    pub const ALL: [Self; 7] = [
        Self::Stable,
        Self::PreMigration,
        Self::Migration,
        Self::PostMigration,
        Self::PreRollback,
        Self::RollingBack,
        Self::PostRollback,
    ];

    /// Its name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::PreMigration => "pre_migration",
            Self::Migration => "migration",
            Self::PostMigration => "post_migration",
            Self::PreRollback => "pre_rollback",
            Self::RollingBack => "rolling_back",
            Self::PostRollback => "post_rollback",
        }
    }

    /// The phase of this name; `-` and `_` are the same.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether a store takes launches. A closed store still serves the instances in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StoreStatus {
    /// Launches may go there.
    Open,
    /// Launches may not go there.
    Closed,
}

/// One of the two stores of a tenant that migrates. A stable tenant's one store is its `Initial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The store that the migration started from.
    Initial,
    /// The store that it goes to.
    Target,
}

impl Role {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initial => Self::Target,
            Self::Target => Self::Initial,
        }
    }
}

/// How transient data gets from one store to the other. Room is reserved for a second strategy that
/// writes to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// Transient data stays where it was born and drains away.
    #[default]
    Drain,
}

/// What a tenant's status register publishes, as it is made durable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Number of this status: every change has a higher one, also across restarts.
    pub epoch: u64,
    /// Where the tenant is.
    pub phase: Phase,
    /// How it gets there.
    pub strategy: Strategy,
    /// Which store is designated for launches. It takes them while it is open; else the other one does.
    pub primary: Role,
    /// The store that the migration started from, or the only one.
    pub initial: StoreId,
    /// The store that it goes to; none when stable.
    pub target: Option<StoreId>,
    /// Whether the initial store takes launches.
    pub initial_status: StoreStatus,
    /// Whether the target takes launches; `Closed` when there is none.
    pub target_status: StoreStatus,
}

impl Status {
    /// The status of a tenant with one store.
    #[must_use]
    pub const fn stable(epoch: u64, store: StoreId) -> Self {
        Self {
            epoch,
            phase: Phase::Stable,
            strategy: Strategy::Drain,
            primary: Role::Initial,
            initial: store,
            target: None,
            initial_status: StoreStatus::Open,
            target_status: StoreStatus::Closed,
        }
    }

    /// The store in this role, if there is one.
    #[must_use]
    pub const fn store(&self, role: Role) -> Option<StoreId> {
        match role {
            Role::Initial => Some(self.initial),
            Role::Target => self.target,
        }
    }

    /// Whether the store in this role takes launches.
    #[must_use]
    pub const fn status_of(&self, role: Role) -> StoreStatus {
        match role {
            Role::Initial => self.initial_status,
            Role::Target => self.target_status,
        }
    }

    /// Where launches go: the primary while it is open, else the other one. This is the one place of
    /// that rule.
    #[must_use]
    pub const fn home(&self) -> Role {
        match self.status_of(self.primary) {
            StoreStatus::Open => self.primary,
            StoreStatus::Closed => self.primary.other(),
        }
    }
}

/// Retention of what has ended, per scope of keys or for the tenant as a whole. All in milliseconds of
/// the engine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How long an ended instance can be queried.
    pub instance_ms: u64,
    /// How long an ended key stays in scope, for the reuse policies.
    pub key_ms: u64,
    /// How long a request id is answered the same.
    pub request_ms: u64,
}

/// What is written, in turn, to the two slots of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Its number.
    pub id: TenantId,
    /// Its name, unique in the engine.
    pub name: String,
    /// Set once its rows are to be removed; it is not served any more.
    pub deleting: bool,
    /// The status. Decides; the journal only tells.
    pub status: Status,
    /// When the status was entered, in milliseconds since 1970.
    pub entered_ms: u64,
    /// The migration under way; `None` exactly when the phase is `Stable`.
    pub migration: Option<MigrationRecord>,
    /// How the latest migrations ended, newest last, for whoever asks.
    pub ended: Vec<EndedMigration>,
    /// Stores that hold rows of this tenant which nobody needs any more.
    pub retire: Vec<StoreId>,
    /// Retention where a scope has none of its own.
    pub retention: Retention,
    /// Retention by scope.
    pub scopes: Vec<(String, Retention)>,
    /// The line that the journal must end with.
    pub journal: JournalLine,
}

/// Which piece of somebody's work a migration is, in his words, so that he can ask for it again without doing it twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunId {
    /// The piece of work. Done once, whoever asks however often.
    pub id: String,
    /// Which try at it.
    pub attempt: String,
}

/// A migration under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// Its number, unique for the tenant: the epoch in which it started.
    pub id: u64,
    /// Which store it works towards.
    pub goal: Role,
    /// Do not switch launches over until released.
    pub hold_switch: bool,
    /// Do not complete until released.
    pub hold_complete: bool,
    /// Do nothing at all until resumed: copying, verifying and moving on stop.
    pub paused: bool,
    /// Most bytes copied or compared a second; 0 for no limit.
    pub rate: u64,
    /// Shortest time in each phase, in milliseconds, in the order of [`Phase::ALL`].
    pub dwell_ms: [u64; 7],
    /// Give up what is still in the store that is being left when completing.
    pub abandon: bool,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Move what was launched longer ago than this, in milliseconds, out of the store that is being left; `None` to let it end there.
    pub move_older_ms: Option<u64>,
    /// Most instances and keys moved a second; 0 for no limit.
    pub move_rate: u32,
    /// Whose work it is, if it was asked for so.
    pub run: Option<RunId>,
}

/// How a migration ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedMigration {
    /// Its number.
    pub id: u64,
    /// Whose work it was, if it was asked for so.
    pub run: Option<RunId>,
    /// How.
    pub outcome: Outcome,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// How a migration can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The tenant is in the target.
    Completed,
    /// It was called off before launches were switched.
    Cancelled,
    /// It was taken back; the tenant is in the initial store.
    RolledBack,
}

/// One line of a tenant's journal: what people and programs read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// The epoch after the change.
    pub epoch: u64,
    /// Counter of the lines of this tenant.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked: an operator, the driver, recovery.
    pub who: String,
    /// The phase before.
    pub from: Phase,
    /// The phase after; the same when only a hold or the goal changed.
    pub to: Phase,
    /// What happened, in words.
    pub why: String,
}

/// A store in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// Its number.
    pub id: StoreId,
    /// Name of its driver.
    pub driver: String,
    /// Its directory; relative ones start at the data directory.
    pub path: String,
    /// Name of its layout.
    pub layout: String,
    /// Belongs to the one tenant that asked for it.
    pub dedicated: bool,
    /// Removed, or about to be: a name that ids may still carry.
    pub retired: bool,
}

/// The catalog: every store that ever was, and the next numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CatalogRecord {
    /// All stores, retired ones as names.
    pub stores: Vec<StoreRecord>,
    /// The number that the next tenant gets.
    pub next_tenant: u32,
}

/// What the engine as a whole makes durable each time it opens, and now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EngineRecord {
    /// How often this directory was opened: the high half of every fencing token.
    pub incarnation: u64,
    /// The engine's clock never starts below this, in milliseconds since 1970.
    pub clock_ms: u64,
    /// It was closed in order: nothing that was acknowledged can be missing.
    pub clean: bool,
}
