//! What the definition model knows: records of definitions in two stores, gaps, clients, the replicator.

use std::fmt;

use crate::control::Control;
use crate::moves::Stores;
use crate::status::{Compact, Store, name};

/// Most clients of a model.
pub const CLIENTS: usize = 3;
/// Most definitions of a model.
pub const DEFINITIONS: usize = 2;

/// A record of a definition: 0 for none, else which bytes it has and when it was made. The same bytes made twice are two
/// records, which the comparison of both stores would find different.
pub type Value = u8;

/// The record with these bytes (0 or 1), made now: other than every record in `there`.
#[must_use]
pub fn fresh(bytes: u8, there: impl IntoIterator<Item = Value>) -> Value {
    let first = 1 + 2 * bytes;
    if there.into_iter().any(|value| value == first) { first + 1 } else { first }
}

/// The bytes of a record.
#[must_use]
pub const fn bytes(value: Value) -> u8 {
    (value.wrapping_sub(1)) / 2
}

/// Something in a store: as seen by readers, and as a power cut would leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Cell<T> {
    /// What readers see.
    pub seen: T,
    /// What is durable.
    pub disk: T,
}

impl<T: Copy + PartialEq> Cell<T> {
    const fn flush(&mut self) {
        self.disk = self.seen;
    }

    const fn cut(&mut self) {
        self.seen = self.disk;
    }

    fn is_dirty(&self) -> bool {
        self.seen != self.disk
    }
}

/// What a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Side {
    /// Its definitions.
    pub records: [Cell<Value>; DEFINITIONS],
    /// Whether a gap is noted: the other store lacks the definition.
    pub gaps: [Cell<bool>; DEFINITIONS],
    /// The position of the copy into it: how many definitions are behind it.
    pub position: Cell<u8>,
}

impl Side {
    /// Makes durable what readers see.
    pub fn flush(&mut self) {
        self.records.iter_mut().for_each(Cell::flush);
        self.gaps.iter_mut().for_each(Cell::flush);
        self.position.flush();
    }

    /// What a power cut leaves.
    pub fn cut(&mut self) {
        self.records.iter_mut().for_each(Cell::cut);
        self.gaps.iter_mut().for_each(Cell::cut);
        self.position.cut();
    }

    /// Whether something is not durable.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.records.iter().any(Cell::is_dirty)
            || self.gaps.iter().any(Cell::is_dirty)
            || self.position.is_dirty()
    }
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Op {
    /// `Tenant::define` with these bytes.
    Define(u8),
    /// `Tenant::definition`: it reads, and brings what one store lacks.
    Read,
    /// `Inner::is_defined`, as a launch asks it.
    #[default]
    Look,
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum At {
    /// Nowhere.
    #[default]
    Idle,
    /// Pinned; the status is not read.
    Pinned,
    /// The status is read. What it will do is open.
    Entered,
    /// It holds the definition's lock.
    Locked,
    /// It has looked at home and found nothing there.
    LookedHome,
    /// It has found nothing, and is to create it.
    Absent,
    /// A new record is visible at home.
    Created,
    /// The definition exists; both stores are to have it.
    Bringing,
    /// The record is visible in this store, which lacked it.
    Brought(Store),
    /// A gap is to be noted at home: the other store took nothing.
    Failed,
    /// The gap is visible at home.
    Noted,
}

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Client {
    /// Where it stands.
    pub at: At,
    /// What it wants.
    pub op: Op,
    /// The definition.
    pub definition: u8,
    /// The status that it read.
    pub status: Compact,
    /// A transition waits for it.
    pub awaited: bool,
}

/// What the replicator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Task {
    /// Nothing.
    #[default]
    Rest,
    /// It is to copy the definitions from here on.
    Copy(u8),
    /// Pinned, with what it read of that definition.
    Copying(u8, Value),
    /// It is to mend the gaps from here on: by definition, and the store that the note is in.
    Mend(u8, Store),
    /// The record is visible where it lacked; the lock is held until it is durable.
    Mended(u8, Store),
    /// It is durable.
    MendSynced(u8, Store),
    /// It is to compare from here on.
    Compare(u8),
    /// The record is visible in this store, which lacked it; the lock is held until it is durable.
    Levelled(u8, Store),
    /// Done; the control is to be told.
    Done {
        /// What: the comparison, and not the copy.
        compared: bool,
    },
}

/// The replicator, and the job that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Replicator {
    /// What it does.
    pub task: Task,
    /// The epoch in which it was asked to.
    pub epoch: u8,
    /// The status then.
    pub status: Compact,
    /// It holds a pin.
    pub pinned: bool,
    /// A transition waits for it.
    pub awaited: bool,
}

/// What has gone wrong, if something has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Wrongs {
    /// An operation did not find a store that its status names.
    pub failed: bool,
    /// A definition was answered with one record and later with another.
    pub changed: bool,
}

/// A state of the definition model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The tenant's record and register.
    pub control: Control,
    /// What is in the stores.
    pub sides: [Side; 2],
    /// In no order.
    pub clients: [Client; CLIENTS],
    /// The replicator.
    pub replicator: Replicator,
    /// The definitions were copied once in this phase, by this process.
    pub copied: bool,
    /// They were compared.
    pub verified: bool,
    /// Which stores there are.
    pub stores: Stores,
    /// What somebody was told: by an acknowledgement, a conflict or an answer.
    pub told: [Value; DEFINITIONS],
    /// Which of these were acknowledged to who defined or read them.
    pub acknowledged: [bool; DEFINITIONS],
    /// Crashes so far.
    pub crashes: u8,
    /// Failed writes of a definition so far.
    pub failures: u8,
    /// What has gone wrong.
    pub wrongs: Wrongs,
}

impl State {
    /// Stable in the first store, and nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            control: Control::new(),
            sides: Default::default(),
            clients: Default::default(),
            replicator: Replicator::default(),
            copied: false,
            verified: false,
            stores: Stores::FIRST,
            told: [0; DEFINITIONS],
            acknowledged: [false; DEFINITIONS],
            crashes: 0,
            failures: 0,
            wrongs: Wrongs::default(),
        }
    }

    /// What is in a store.
    #[expect(clippy::indexing_slicing, reason = "stores are made by the model, below its bounds")]
    pub const fn side(&mut self, store: Store) -> &mut Side {
        &mut self.sides[store as usize]
    }

    /// The record of a definition in a store.
    #[expect(
        clippy::indexing_slicing,
        reason = "stores and definitions are made by the model, below its bounds"
    )]
    pub const fn record(&mut self, store: Store, definition: u8) -> &mut Cell<Value> {
        &mut self.sides[store as usize].records[definition as usize]
    }

    /// The gap of a definition that is noted in a store.
    #[expect(
        clippy::indexing_slicing,
        reason = "stores and definitions are made by the model, below its bounds"
    )]
    pub const fn gap(&mut self, store: Store, definition: u8) -> &mut Cell<bool> {
        &mut self.sides[store as usize].gaps[definition as usize]
    }

    /// What readers see of a definition in a store.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "stores and definitions are made by the model, below its bounds"
    )]
    pub const fn seen(&self, store: Store, definition: u8) -> Value {
        self.sides[store as usize].records[definition as usize].seen
    }

    /// Whether a gap is noted, in either store.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.sides.iter().any(|side| side.gaps.iter().any(|gap| gap.seen))
    }

    /// Somebody is told that the definition is this record.
    pub fn tell(&mut self, definition: u8, value: Value, acknowledged: bool) {
        if let Some(told) = self.told.get_mut(usize::from(definition)) {
            self.wrongs.changed |= *told != 0 && *told != value;
            *told = value;
        }
        if let Some(before) = self.acknowledged.get_mut(usize::from(definition)) {
            *before |= acknowledged;
        }
    }

    /// A power cut: what is not durable is gone, and with it the process.
    pub fn crash(&mut self, lose_slot: bool) {
        self.control.crash(lose_slot);
        self.sides.iter_mut().for_each(Side::cut);
        self.clients = Default::default();
        self.replicator = Replicator::default();
        (self.copied, self.verified) = (false, false);
        self.stores.open = 0;
        self.crashes += 1;
    }

    /// The same state for any naming of clients: no step and no property tells them apart.
    #[must_use]
    pub fn canonical(mut self, clients: usize) -> Self {
        if let Some(clients) = self.clients.get_mut(..clients) {
            clients.sort_unstable();
        }
        self
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for State {
    /// The control, then what each store has; `*` marks what is not durable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.control)?;
        for (store, side) in (0..).zip(&self.sides) {
            write!(f, " | {}:", name(store))?;
            for (n, cell) in
                side.records.iter().enumerate().filter(|(_, cell)| cell.seen != 0 || cell.is_dirty())
            {
                write!(f, " def{n}={}{}", cell.seen, if cell.is_dirty() { "*" } else { "" })?;
            }
            for (n, gap) in side.gaps.iter().enumerate().filter(|(_, gap)| gap.seen) {
                write!(f, " gap{n}{}", if gap.is_dirty() { "*" } else { "" })?;
            }
        }
        write!(f, " | told {:?}{}", self.told, if self.verified { ", verified" } else { "" })
    }
}
