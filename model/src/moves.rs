//! Who decides to make which move, and how a store that was left goes: the same in every model.
//!
//! | here | in the engine |
//! |---|---|
//! | [`Turn::Move`] | `Migration::start`, `cancel` and `reverse` where they act at once, and `driver::try_step` where `decide` says so |
//! | [`Turn::AskReverse`] | `Migration::reverse` from a phase where definitions are compared first |
//! | [`Turn::Forget`], [`Turn::Remove`], [`Turn::Retired`] | `driver::retire`: the handle, the files, the record |
//!
//! Holds, pauses and dwells are moves that are not made yet; every move may be late here anyhow.

use cutover::{Move, Phase};

use crate::control::Control;
use crate::engine::decide::{Facts, Next, decide};
use crate::status::{Statuses, Store};

/// Something that whoever holds the control lock decides to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Turn {
    /// Make a move.
    Move(Move),
    /// Work towards the other store from now on.
    AskReverse,
    /// Take a store that was left out of use.
    Forget(Store),
    /// Remove it.
    Remove(Store),
    /// Begin to write that it is removed.
    Retired,
}

/// Which stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stores {
    /// Those that exist, a bit each.
    pub exist: u8,
    /// Those that operations find open, a bit each.
    pub open: u8,
}

impl Stores {
    /// Only the first.
    pub const FIRST: Self = Self { exist: 1, open: 1 };

    /// Whether it exists.
    #[must_use]
    pub const fn exists(self, store: Store) -> bool {
        self.exist & 1 << store != 0
    }

    /// Whether operations find it open.
    #[must_use]
    pub const fn is_open(self, store: Store) -> bool {
        self.open & 1 << store != 0
    }

    /// It is gone.
    pub const fn remove(&mut self, store: Store) {
        self.exist &= !(1 << store);
        self.open &= !(1 << store);
    }

    /// Opening the engine: opens what the status names, and returns the stores that a crash has left without a user.
    pub fn open(&mut self, control: &Control, statuses: &Statuses) -> Vec<Store> {
        let record = &control.record;
        let named = |store: &Store| statuses.names(record.status, *store);
        self.open = [0, 1].iter().filter(|store| named(store)).fold(0, |open, store| open | 1 << store);
        let orphan = |store: &Store| self.exists(*store) && !named(store) && record.retire != Some(*store);
        [0, 1].into_iter().filter(orphan).collect()
    }
}

/// What is known about a tenant, beside what its control knows.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The definitions were copied once.
    pub copied: bool,
    /// Both stores were compared, and no gap is noted.
    pub verified: bool,
    /// The store that is left has drained.
    pub drained: bool,
}

/// What the engine says that it is time for.
pub(crate) fn next(statuses: &Statuses, control: &Control, known: Known) -> Next {
    decide(&Facts {
        phase: statuses.phase(control.record.status),
        goal: control.record.goal(),
        paused: false,
        waited: control.waited,
        copied: known.copied,
        verified: known.verified,
        unreadable: false,
        dwelt: true,
        hold_switch: false,
        hold_complete: false,
        drained: known.drained,
        abandon: false,
    })
}

/// The moves that somebody may decide to make now.
pub fn moves(statuses: &Statuses, control: &Control, known: Known, mut out: impl FnMut(Turn)) {
    let record = &control.record;
    let phase = statuses.phase(record.status);
    match phase {
        Phase::Stable if record.retire.is_none() => out(Turn::Move(Move::Start)),
        Phase::PreMigration => out(Turn::Move(Move::Cancel)),
        Phase::Migration | Phase::PreRollback => out(Turn::Move(Move::Reverse)),
        Phase::PostMigration if record.to_target => out(Turn::AskReverse),
        Phase::PostRollback if !record.to_target => out(Turn::AskReverse),
        _ => {}
    }
    if let Next::Move(made) = next(statuses, control, known) {
        out(Turn::Move(made));
    }
}

/// The next step in removing a store that was left. `busy` says whether an operation still holds it.
pub fn retirement(control: &Control, stores: Stores, busy: impl FnOnce(Store) -> bool) -> Option<Turn> {
    let store = control.record.retire.filter(|_| control.is_settled() && control.waited)?;
    if stores.is_open(store) {
        return Some(Turn::Forget(store));
    }
    if !stores.exists(store) {
        return Some(Turn::Retired);
    }
    (!busy(store)).then_some(Turn::Remove(store))
}

/// Does it. What is in a store that is removed is the model's own business.
pub fn turn(statuses: &Statuses, control: &mut Control, stores: &mut Stores, turn: Turn) {
    match turn {
        Turn::Move(made) => {
            if made == Move::Start {
                // The target is made or opened before the record names it.
                (stores.exist, stores.open) = (3, 3);
            }
            control.begin(statuses, made);
        }
        Turn::AskReverse => control.change(|record| record.to_target = !record.to_target),
        Turn::Forget(store) => stores.open &= !(1 << store),
        Turn::Remove(store) => stores.remove(store),
        Turn::Retired => control.change(|record| record.retire = None),
    }
}
