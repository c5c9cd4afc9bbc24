//! A tenant's record, its register, and the order of every transition: persist in two steps, publish, wait, act.
//!
//! | here | in the engine |
//! |---|---|
//! | [`Control::begin`] | the first half of `transition::make` and `start`: the decision is made, nothing is written |
//! | [`Step::Sync`] | `transition::make`: both stores' `sync` |
//! | [`Step::WriteFirst`], [`Step::WriteSecond`] | `meta::slot::Slots::write`: one slot, then the other |
//! | [`Step::Publish`] | `transition::publish`: the register, then `Pins::begin_wait` |
//! | [`Step::FailWrite`], [`Step::Settle`] | a write of the record that fails; `Control::settle` |
//! | [`Step::Wait`] | `driver::wait`, when nobody is waited for any more |
//! | [`Control::crash`], [`Control::open`] | `Slots::open`, `Control::open`, `engine::open::open_tenant` |
//!
//! Publishing and beginning to wait are one step here and two there. Who pins between the two reads the new status, and is waited for without need.
//! A counter of the slots is not kept: which of the two records is the later one follows from the stage.

use std::fmt;

use cutover::{Move, Phase, Role};

use crate::status::{Compact, Statuses, Store};

/// What is durable of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// Rises with every status.
    pub epoch: u8,
    /// The status.
    pub status: Compact,
    /// Whether the migration works towards the target.
    pub to_target: bool,
    /// A store that was left and is not removed yet.
    pub retire: Option<Store>,
}

impl Record {
    /// The store that the migration works towards, as the engine calls it.
    #[must_use]
    pub const fn goal(&self) -> Role {
        if self.to_target { Role::Target } else { Role::Initial }
    }
}

/// How far the writing of a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Both slots hold the record.
    Settled,
    /// Decided; the stores are not synced yet.
    Begun,
    /// Nothing is written yet.
    Ready,
    /// The first slot holds it.
    First,
    /// Both hold it; it is not published.
    Both,
    /// A write failed. Whether the first slot holds it is not known to the engine.
    Doubtful {
        /// Whether it does.
        happened: bool,
    },
}

/// A step of whoever holds the control lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Sync both stores.
    Sync,
    /// Write the first slot.
    WriteFirst,
    /// Write the second slot.
    WriteSecond,
    /// Tell the register, and begin to wait.
    Publish,
    /// The write of the first slot fails.
    FailWrite {
        /// It is there nevertheless.
        happened: bool,
    },
    /// Read back what is there after a failed write.
    Settle,
    /// Nobody is left who acted on an earlier status.
    Wait,
}

/// What breaks the order of a transition on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weakened {
    /// The register is told before anything is written.
    pub publish_first: bool,
    /// The register is told when one slot is written.
    pub publish_after_one_slot: bool,
    /// Nobody is waited for.
    pub no_wait: bool,
}

/// The record and the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Control {
    /// Whether the engine is open.
    pub up: bool,
    /// What is durable, or is being written.
    pub record: Record,
    /// What was durable before; the same as `record` when settled.
    pub before: Record,
    /// How far the writing has come.
    pub stage: Stage,
    /// The published epoch and status.
    pub register: (u8, Compact),
    /// Every operation under an earlier status has ended.
    pub waited: bool,
    /// The highest epoch that was ever tried to be written by this process.
    pub highest: u8,
    /// A status was published twice under one epoch, or an earlier one after a later one.
    pub went_back: bool,
}

impl Control {
    /// A tenant that is stable in the first store.
    #[must_use]
    pub const fn new() -> Self {
        let status = Compact::stable(0);
        let record = Record { epoch: 1, status, to_target: false, retire: None };
        Self {
            up: true,
            record,
            before: record,
            stage: Stage::Settled,
            register: (1, status),
            waited: true,
            highest: 1,
            went_back: false,
        }
    }

    /// Whether nothing is being written.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.up && self.stage == Stage::Settled
    }

    /// Decides to make a move. `migrates` says whether it needs the stores to be synced, as every switch does.
    pub fn begin(&mut self, statuses: &Statuses, made: Move) {
        let before = self.record;
        let Some(status) = statuses.after(before.status, made) else { return };
        self.highest = self.highest.max(before.epoch) + 1;
        let mut record = Record { epoch: self.highest, status, ..before };
        let phase = statuses.phase(status);
        if phase == Phase::Stable {
            (record.retire, record.to_target) = (statuses.left(before.status), false);
        } else if made == Move::Start {
            record.to_target = true;
        } else if made == Move::Reverse {
            record.to_target = matches!(phase, Phase::Migration | Phase::PostMigration);
        }
        let syncs = matches!(made, Move::Switch | Move::Complete | Move::Reverse);
        self.write(record, if syncs { Stage::Begun } else { Stage::Ready });
    }

    /// Decides to change the record without the status.
    pub fn change(&mut self, change: impl FnOnce(&mut Record)) {
        let mut record = self.record;
        change(&mut record);
        self.write(record, Stage::Ready);
    }

    fn write(&mut self, record: Record, stage: Stage) {
        (self.before, self.record, self.stage) = (self.record, record, stage);
    }

    /// The steps that can be made now, the failing ones if `may_fail`. `waiting` says whether anybody is still waited for.
    pub fn steps(&self, weak: Weakened, may_fail: bool, waiting: bool, out: &mut impl FnMut(Step)) {
        if !self.up {
            return;
        }
        match self.stage {
            Stage::Settled if !self.waited && !waiting => out(Step::Wait),
            Stage::Settled => {}
            Stage::Begun => out(Step::Sync),
            Stage::Ready => {
                out(Step::WriteFirst);
                if may_fail {
                    [false, true].into_iter().for_each(|happened| out(Step::FailWrite { happened }));
                }
                if weak.publish_first && self.is_ahead() {
                    out(Step::Publish);
                }
            }
            Stage::First => {
                out(Step::WriteSecond);
                if weak.publish_after_one_slot && self.is_ahead() {
                    out(Step::Publish);
                }
            }
            Stage::Both => out(Step::Publish),
            Stage::Doubtful { .. } => out(Step::Settle),
        }
    }

    fn is_ahead(&self) -> bool {
        self.record.epoch != self.register.0
    }

    /// Makes a step. Says whether a new status was published: then everybody who is pinned is waited for.
    pub fn step(&mut self, step: Step, weak: Weakened) -> bool {
        match step {
            Step::Sync => self.stage = Stage::Ready,
            Step::WriteFirst => self.stage = Stage::First,
            Step::WriteSecond if self.is_ahead() => self.stage = Stage::Both,
            Step::WriteSecond => self.settled(),
            Step::Publish => return self.publish(weak),
            Step::FailWrite { happened } => self.stage = Stage::Doubtful { happened },
            Step::Settle => {
                if self.stage == (Stage::Doubtful { happened: false }) {
                    self.record = self.before;
                }
                // What is found is made sure of in both slots.
                if self.is_ahead() { self.stage = Stage::Both } else { self.settled() }
            }
            Step::Wait => self.waited = true,
        }
        false
    }

    /// A store cannot be synced: the move is not made. Its epoch is not used again.
    pub fn abandon(&mut self) {
        self.record = self.before;
        self.settled();
    }

    fn settled(&mut self) {
        (self.before, self.stage) = (self.record, Stage::Settled);
    }

    fn publish(&mut self, weak: Weakened) -> bool {
        self.went_back |= self.record.epoch <= self.register.0;
        self.register = (self.record.epoch, self.record.status);
        if self.stage == Stage::Both {
            self.settled();
        }
        self.waited = weak.no_wait;
        true
    }

    /// The records that a crash at this moment may leave.
    pub fn may_remain(&self) -> impl Iterator<Item = Record> {
        let before =
            matches!(self.stage, Stage::Begun | Stage::Ready | Stage::First | Stage::Doubtful { .. });
        let new = matches!(self.stage, Stage::Settled | Stage::First | Stage::Both)
            || self.stage == (Stage::Doubtful { happened: true });
        [before.then_some(self.before), new.then_some(self.record)].into_iter().flatten()
    }

    /// What a crash leaves. `lose_slot` says whether the slot that was written last turns out to be unreadable.
    pub fn crash(&mut self, lose_slot: bool) {
        let new = match self.stage {
            Stage::First | Stage::Doubtful { happened: true } => !lose_slot,
            Stage::Both | Stage::Settled => true,
            Stage::Begun | Stage::Ready | Stage::Doubtful { happened: false } => false,
        };
        if !new {
            self.record = self.before;
        }
        self.settled();
        // What the process knew is gone. The register stays here until opening compares with it.
        (self.up, self.waited, self.highest) = (false, false, 0);
    }

    /// Whether the last write is in one slot only, so that it can be lost with it.
    #[must_use]
    pub const fn in_one_slot(&self) -> bool {
        matches!(self.stage, Stage::First | Stage::Doubtful { happened: true })
    }

    /// Opens the engine again.
    pub fn open(&mut self, statuses: &Statuses) {
        let (epoch, status) = (self.record.epoch, self.record.status);
        self.went_back |= epoch < self.register.0 || (epoch == self.register.0 && status != self.register.1);
        self.register = (epoch, status);
        (self.up, self.highest) = (true, epoch);
        self.waited = statuses.phase(status) == Phase::Stable && self.record.retire.is_none();
    }

    /// I7: the register is not ahead of what a crash now would leave at worst, and epochs have not gone back.
    #[must_use]
    pub fn register_is_durable(&self) -> bool {
        let worst = match self.stage {
            Stage::Settled | Stage::Both => self.record,
            _ => self.before,
        };
        !self.went_back && (!self.up || self.register.0 <= worst.epoch)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Control {
    /// What is published, and what is being written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, status) = self.register;
        let up = if self.up { "" } else { "down, " };
        write!(f, "{up}{status} epoch {epoch}")?;
        if !self.waited && self.up {
            write!(f, ", waiting")?;
        }
        if self.stage != Stage::Settled {
            write!(f, ", {} epoch {} {:?}", self.record.status, self.record.epoch, self.stage)?;
        }
        if let Some(store) = self.record.retire {
            write!(f, ", to retire {}", crate::status::name(store))?;
        }
        Ok(())
    }
}
