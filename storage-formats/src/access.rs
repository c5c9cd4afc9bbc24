//! Who may act for a tenant: the record of its runners, which lies beside the tenant's own record and says nothing of where data is.
//!
//! What an access *means* and which changes are legal is the engine's business; here is only what is written. A tenant for which no runner
//! was ever named has no such record.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::RecordType;
use crate::error::{FormatError, Result};
use crate::id::TenantId;
use crate::journal::Line;

/// What a runner may do for a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// It acts. There is at most one.
    Primary,
    /// It is ready to, and has no access to data.
    Standby,
    /// It was primary and handed the tenant over. It does not come back.
    Deactivated,
    /// It has nothing to do with the tenant any more.
    Terminated,
}

impl Access {
    /// Every access.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Standby, Self::Deactivated, Self::Terminated];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Deactivated => "deactivated",
            Self::Terminated => "terminated",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A runner and its access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Name of the runner: its identity, also after a restart.
    pub runner: String,
    /// What it may do.
    pub access: Access,
    /// Number of the change by which it came to that. A runner that is back after a restart keeps it.
    pub epoch: u64,
    /// When that was, in milliseconds since 1970.
    pub since_ms: u64,
}

/// How far a hand-over has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HandoverPhase {
    /// The new runner gets ready; the old one works.
    Prepare,
    /// The new one is primary, durably, and has not been let in for sure.
    Flip,
    /// The new one is let in and has not said yet that it serves.
    Cleanup,
    /// The old one is primary again, durably, and has not been let in for sure.
    Back,
}

impl HandoverPhase {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Flip => "flip",
            Self::Cleanup => "cleanup",
            Self::Back => "back",
        }
    }
}

impl fmt::Display for HandoverPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// That a hand-over is part of a wave which has not decided yet what becomes of it: until then it does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InWave {
    /// The new runner has not said that it serves.
    Silent,
    /// It has: the hand-over ends with the wave, unless that takes it back.
    Serves,
}

/// A hand-over under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverRecord {
    /// Its number, unique for the tenant: the epoch in which it began.
    pub id: u64,
    /// The runner that hands over; none if there was no primary.
    pub from: Option<String>,
    /// The runner that takes over.
    pub to: String,
    /// How far it has come.
    pub phase: HandoverPhase,
    /// When it flips without being asked again, in milliseconds since 1970.
    pub flip_at_ms: Option<u64>,
    /// How long a flip waits for what was admitted before it, in milliseconds.
    pub patience_ms: u64,
    /// The seats before the flip, for its roll-back; empty before.
    pub earlier: Vec<Seat>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// It is part of a wave that has not decided yet.
    pub wave: Option<InWave>,
}

/// What is written, in turn, to the two slots of a tenant's access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRecord {
    /// The tenant.
    pub tenant: TenantId,
    /// Number of the last change: every change has a higher one, also across restarts and roll-backs.
    pub epoch: u64,
    /// All runners that were named, each once.
    pub seats: Vec<Seat>,
    /// The hand-over under way.
    pub handover: Option<HandoverRecord>,
    /// The line that the journal must end with.
    pub journal: AccessLine,
}

impl AccessRecord {
    /// The primary, if there is one.
    #[must_use]
    pub fn primary(&self) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.access == Access::Primary)
    }

    /// The seat of a runner.
    #[must_use]
    pub fn seat(&self, runner: &str) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.runner == runner)
    }
}

/// One line of the journal of a tenant's access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLine {
    /// Counter of the lines.
    pub seq: u64,
    /// The epoch after the change.
    pub epoch: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked: an operator, a runner, the driver, recovery.
    pub who: String,
    /// Number of the hand-over; 0 outside of one.
    pub handover: u64,
    /// Which of the eight steps of a flip; 0 outside of one.
    pub step: u8,
    /// The runner that it is about.
    pub runner: String,
    /// What happened, in words.
    pub why: String,
}

/// The fields as they are written, in this order.
#[derive(Serialize, Deserialize)]
struct Text<'l> {
    seq: u64,
    epoch: u64,
    at_ms: u64,
    who: Cow<'l, str>,
    handover: u64,
    step: u8,
    runner: Cow<'l, str>,
    why: Cow<'l, str>,
}

impl Line for AccessLine {
    type Record = AccessRecord;

    const KIND: RecordType = RecordType::Access;

    fn of(record: AccessRecord) -> Self {
        record.journal
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn text(&self) -> Result<String> {
        let text = Text {
            seq: self.seq,
            epoch: self.epoch,
            at_ms: self.at_ms,
            who: self.who.as_str().into(),
            handover: self.handover,
            step: self.step,
            runner: self.runner.as_str().into(),
            why: self.why.as_str().into(),
        };
        serde_json::to_string(&text).map_err(|_| malformed())
    }

    fn read(text: &[u8]) -> Result<Self> {
        let text: Text<'_> = serde_json::from_slice(text).map_err(|_| malformed())?;
        Ok(Self {
            seq: text.seq,
            epoch: text.epoch,
            at_ms: text.at_ms,
            who: text.who.into_owned(),
            handover: text.handover,
            step: text.step,
            runner: text.runner.into_owned(),
            why: text.why.into_owned(),
        })
    }
}

fn malformed() -> FormatError {
    FormatError::Malformed { what: "a line of the journal of access" }
}
