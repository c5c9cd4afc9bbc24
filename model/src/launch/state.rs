//! What the launch model knows: rows of keys, clients, stores, and the tenant's control.

use std::fmt;

use crate::control::Control;
use crate::moves::Stores;
use crate::status::{Compact, Store};

/// Most clients of a model.
pub const CLIENTS: usize = 3;
/// Most keys of a model.
pub const KEYS: usize = 2;

/// What the row of a key says in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Kind {
    /// There is none.
    #[default]
    None,
    /// A live instance of this store holds it.
    Live,
    /// Its instance has ended; the key is in scope.
    Ended,
    /// The same, ended to make room for a later launch.
    Replaced,
    /// Out of scope, not collected yet.
    Expired,
    /// Two live instances of this store hold it: what must never be.
    Twice,
    /// The row is gone and its instance lives: what must never be either. Nobody finds it.
    Orphan,
}

/// The row of a key in one store, and with it the instance that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Row {
    /// What it says.
    pub kind: Kind,
    /// The epoch of the launch.
    pub epoch: u8,
    /// 2 for the last launch of the key over both stores, 1 for an earlier one: the truth, which the engine does not know.
    pub order: u8,
}

impl Row {
    /// Whether a live instance holds the key.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self.kind, Kind::Live | Kind::Twice)
    }

    /// How many live instances of this store have the key.
    #[must_use]
    pub const fn living(self) -> u8 {
        match self.kind {
            Kind::Live | Kind::Orphan => 1,
            Kind::Twice => 2,
            Kind::None | Kind::Ended | Kind::Replaced | Kind::Expired => 0,
        }
    }

    /// Whether its instance has ended and it is in scope.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self.kind, Kind::Ended | Kind::Replaced)
    }

    /// What a lookup takes it for: out of scope is judged by time, so such a row counts for nothing.
    #[must_use]
    pub const fn in_scope(self) -> Self {
        if self.is_live() || self.is_ended() { self } else { Self { kind: Kind::None, epoch: 0, order: 0 } }
    }
}

/// A row, and the intent to replace that may stand beside it: as seen by readers, and as a power cut would leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Cell {
    /// What readers see.
    pub seen: Row,
    /// What is durable.
    pub disk: Row,
    /// The epoch of the launch that is intended; 0 for none. As readers see it.
    pub intent: u8,
    /// The same, durable.
    pub intent_disk: u8,
}

impl Cell {
    /// Makes durable what readers see.
    pub const fn flush(&mut self) {
        (self.disk, self.intent_disk) = (self.seen, self.intent);
    }

    /// What a power cut leaves.
    pub const fn cut(&mut self) {
        (self.seen, self.intent) = (self.disk, self.intent_disk);
    }

    /// Whether something is not durable.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.seen != self.disk || self.intent != self.intent_disk
    }

    /// Whether the store has no row of the key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.seen.kind, Kind::None | Kind::Orphan) && self.intent == 0
    }
}

/// Where a client stands. The steps of a launch are those of `tenant::launch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum At {
    /// Nowhere.
    #[default]
    Idle,
    /// Pinned; the status is not read.
    Pinned,
    /// The status is read and the stores are looked up. What it will do is open.
    Entered,
    /// A launch that holds the key's lock.
    LaunchLocked,
    /// It has looked at home.
    LaunchLooked,
    /// It is to start.
    LaunchDecided,
    /// The status is still the one that it read.
    LaunchChecked,
    /// Its rows are visible and not durable.
    LaunchApplied,
    /// The intent to replace is visible.
    Intended,
    /// The intent is durable.
    IntentDurable,
    /// The end of the old instance is visible.
    OldEnded,
    /// That end is durable.
    OldEndDurable,
    /// An end that holds the key's lock.
    EndLocked,
    /// The instance lives.
    EndChecked,
    /// The end is visible and not durable.
    EndApplied,
    /// The collector holds the key's lock.
    CollectLocked,
    /// It has found the row out of scope.
    CollectChecked,
}

/// How a launch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Plan {
    /// Nobody holds the key.
    #[default]
    Fresh,
    /// In the place of an instance at home, in one commit.
    ReplaceHome,
    /// In the place of an instance in the other store.
    ReplaceOther,
}

/// A client: a thread that launches and ends, or the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Client {
    /// Where it stands.
    pub at: At,
    /// The key it works on.
    pub key: u8,
    /// The store whose row it works on, where that is not home.
    pub store: Store,
    /// The epoch that it read.
    pub epoch: u8,
    /// The status that it read.
    pub status: Compact,
    /// What it saw at home.
    pub saw: Row,
    /// How it starts.
    pub plan: Plan,
    /// A transition waits for it.
    pub awaited: bool,
}

impl Client {
    /// Whether it has looked the stores up, and so holds handles.
    #[must_use]
    pub fn has_handles(&self) -> bool {
        !matches!(self.at, At::Idle | At::Pinned)
    }

    /// Whether what it does is about a key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        !matches!(self.at, At::Idle | At::Pinned | At::Entered)
    }
}

/// What has gone wrong, if something has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Wrongs {
    /// An operation did not find a store that its status names.
    pub failed: bool,
    /// A launch took another holder for the key's last one than it was.
    pub misjudged: bool,
    /// A store was removed with rows that somebody still needs.
    pub lost: bool,
}

/// A state of the launch model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The tenant's record and register.
    pub control: Control,
    /// By store and key.
    pub cells: [[Cell; KEYS]; 2],
    /// In no order.
    pub clients: [Client; CLIENTS],
    /// Which stores there are.
    pub stores: Stores,
    /// Crashes so far.
    pub crashes: u8,
    /// Failed writes of the record so far.
    pub failures: u8,
    /// Failed commits so far.
    pub faults: u8,
    /// Stores that take no writes until the engine opens again, a bit each.
    pub broken: u8,
    /// Keys that nothing is answered about until then, a bit each.
    pub doubts: u8,
    /// What has gone wrong.
    pub wrongs: Wrongs,
}

impl State {
    /// Stable in the first store, and nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            control: Control::new(),
            cells: Default::default(),
            clients: Default::default(),
            stores: Stores::FIRST,
            crashes: 0,
            failures: 0,
            faults: 0,
            broken: 0,
            doubts: 0,
            wrongs: Wrongs::default(),
        }
    }

    /// Whether a store takes no writes.
    #[must_use]
    pub const fn is_broken(&self, store: Store) -> bool {
        self.broken & 1 << store != 0
    }

    /// Whether a commit of a key's rows has failed.
    #[must_use]
    pub const fn is_doubtful(&self, key: u8) -> bool {
        self.doubts & 1 << key != 0
    }

    /// The cell of a key in a store.
    #[expect(clippy::indexing_slicing, reason = "stores and keys are made by the model, below its bounds")]
    pub fn cell(&mut self, store: Store, key: u8) -> &mut Cell {
        &mut self.cells[usize::from(store)][usize::from(key)]
    }

    /// What readers see of a key in a store.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "stores and keys are made by the model, below its bounds")]
    pub const fn row(&self, store: Store, key: u8) -> Row {
        self.cells[store as usize][key as usize].seen
    }

    /// The cells of a store.
    pub fn cells_of(&mut self, store: Store) -> impl Iterator<Item = &mut Cell> {
        self.cells.get_mut(usize::from(store)).into_iter().flatten()
    }

    /// Makes everything in a store durable: a sync covers what was written before, by whomever.
    pub fn flush(&mut self, store: Store) {
        self.cells_of(store).for_each(Cell::flush);
    }

    /// A new instance takes the key: earlier rows of it, in both stores, are earlier from now on.
    pub fn launch(&mut self, store: Store, key: u8, epoch: u8) {
        for side in [0, 1] {
            let cell = self.cell(side, key);
            cell.seen.order = cell.seen.order.min(1);
            cell.disk.order = cell.disk.order.min(1);
        }
        let cell = self.cell(store, key);
        let kind = if cell.seen.living() > 0 { Kind::Twice } else { Kind::Live };
        cell.seen = Row { kind, epoch, order: 2 };
    }

    /// Whether the order of what a crash left is still known; else the later epoch stands for it.
    fn settle_order(&mut self, key: u8) {
        let [mut one, mut two] = [self.row(0, key), self.row(1, key)];
        if one.kind != Kind::None && two.kind != Kind::None && one.order == two.order {
            (one.order, two.order) = if one.epoch < two.epoch { (1, 2) } else { (2, 1) };
        } else if two.kind == Kind::None && one.kind != Kind::None {
            one.order = 2;
        } else if one.kind == Kind::None && two.kind != Kind::None {
            two.order = 2;
        }
        for (store, row) in [(0, one), (1, two)] {
            let cell = self.cell(store, key);
            (cell.seen, cell.disk) = (row, row);
        }
    }

    /// A power cut: what is not durable is gone, and with it the process.
    pub fn crash(&mut self, lose_slot: bool) {
        self.control.crash(lose_slot);
        for key in 0..KEYS as u8 {
            for store in [0, 1] {
                self.cell(store, key).cut();
            }
            self.settle_order(key);
        }
        self.clients = Default::default();
        (self.stores.open, self.broken, self.doubts) = (0, 0, 0);
        self.crashes += 1;
    }

    /// The same state for any naming of clients, and of keys if they are interchangeable: clients are sorted, and of the two orders
    /// of the keys the lesser is taken. Sound because no step and no property tells clients or keys apart.
    #[must_use]
    pub fn canonical(mut self, clients: usize, keys: bool) -> Self {
        self.sort_clients(clients);
        if !keys {
            return self;
        }
        let mut other = self;
        for [one, two] in &mut other.cells {
            std::mem::swap(one, two);
        }
        other.doubts = (other.doubts & 1) << 1 | other.doubts >> 1;
        for client in other.clients.iter_mut().filter(|client| client.has_key()) {
            client.key = 1 - client.key;
        }
        other.sort_clients(clients);
        self.min(other)
    }

    fn sort_clients(&mut self, clients: usize) {
        if let Some(clients) = self.clients.get_mut(..clients) {
            clients.sort_unstable();
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for State {
    /// The control, then for each store what its keys' rows say; `*` marks what is not durable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.control)?;
        for (name, cells) in ["A", "B"].into_iter().zip(&self.cells) {
            write!(f, " | {name}:")?;
            for (key, cell) in
                cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty() || cell.is_dirty())
            {
                let Row { kind, epoch, .. } = cell.seen;
                write!(f, " key{key} {kind:?}@{epoch}{}", if cell.is_dirty() { "*" } else { "" })?;
                if cell.intent != 0 {
                    write!(f, " intent@{}", cell.intent)?;
                }
            }
        }
        Ok(())
    }
}
