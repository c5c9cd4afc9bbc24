//! What the tenant model knows: the catalog, the files, and who uses what.

use std::fmt;

/// The number of a store: never used again.
pub type Id = u8;

/// Tenants of the model.
pub const TENANTS: usize = 2;
/// Most stores that are ever made.
pub const STORES: usize = 7;

/// What the catalog says about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Line {
    /// It was never made.
    #[default]
    Absent,
    /// It is at this path.
    Listed(u8),
    /// It was.
    Retired,
}

/// What the driver or the operator of a tenant is doing. Gone with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Step {
    /// Nothing.
    #[default]
    Rest,
    /// The catalog has the line of a new store, the files are not made. Holds the catalog's lock.
    Placing(Id),
    /// The store is open; the tenant counts among its users; the record does not name it.
    Placed(Id),
    /// A store is being removed. Holds the catalog's lock.
    Removing,
    /// Its files are. Holds the lock.
    Destroyed,
    /// Its line is, and the files are not: only where that rule is left out.
    Struck,
    /// Others use the store: the tenant's rows are to be removed.
    Sharing,
    /// They are.
    RowsRemoved,
    /// The store is released.
    Released,
}

/// A tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant {
    /// The store that it is in.
    pub home: Id,
    /// The store that it moves to.
    pub target: Option<Id>,
    /// The stores that it has left, a bit each.
    pub retire: u8,
    /// What is being done.
    pub step: Step,
    /// The stores that an operation of it holds, a bit each; none if there is no operation.
    pub holds: u8,
    /// The operation acts on an earlier status.
    pub awaited: bool,
    /// The stores that have rows of it, a bit each.
    pub rows: u8,
}

impl Tenant {
    const fn new() -> Self {
        Self { home: 0, target: None, retire: 0, step: Step::Rest, holds: 0, awaited: false, rows: 1 }
    }

    /// Whether its record names the store as one that it uses.
    #[must_use]
    pub fn uses(&self, id: Id) -> bool {
        self.home == id || self.target == Some(id)
    }

    /// Whether its record names the store, to retire it perhaps.
    #[must_use]
    pub fn names(&self, id: Id) -> bool {
        self.uses(id) || self.retire & 1 << id != 0
    }

    /// The store that it is leaving: the first of those.
    #[must_use]
    pub fn leaving(&self) -> Option<Id> {
        (self.retire != 0).then(|| self.retire.trailing_zeros() as Id)
    }

    /// Whether it is about to name it.
    #[must_use]
    pub fn is_placing(&self, id: Id) -> bool {
        matches!(self.step, Step::Placing(placed) | Step::Placed(placed) if placed == id)
    }
}

/// Whether the engine is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Up {
    /// It is not.
    Down,
    /// Stores without users are being removed.
    Opening,
    /// It is.
    Serving,
}

/// What has gone wrong, if something has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Wrongs {
    /// Files or rows were removed that a tenant uses.
    pub lost: bool,
    /// A store was removed under an operation.
    pub pulled: bool,
    /// A target had rows from before.
    pub stale: bool,
    /// A place was not free.
    pub blocked: bool,
}

/// A state of the tenant model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The catalog, durable.
    pub lines: [Line; STORES],
    /// Whose files are at each path, durable.
    pub files: [Option<Id>; 2],
    /// Who uses each store, a bit for each tenant: what the process knows.
    pub users: [u8; STORES],
    /// The tenants.
    pub tenants: [Tenant; TENANTS],
    /// Whether the engine is open.
    pub up: Up,
    /// The files of the store that opening is removing are gone.
    pub orphan_destroyed: bool,
    /// Crashes so far.
    pub crashes: u8,
    /// What has gone wrong.
    pub wrongs: Wrongs,
}

impl State {
    /// Both tenants in one store at the first path.
    #[must_use]
    pub fn new() -> Self {
        let mut state = Self {
            lines: Default::default(),
            files: [Some(0), None],
            users: Default::default(),
            tenants: [Tenant::new(); TENANTS],
            up: Up::Serving,
            orphan_destroyed: false,
            crashes: 0,
            wrongs: Wrongs::default(),
        };
        state.set_line(0, Line::Listed(0));
        state.count_users();
        state
    }

    /// A tenant.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "tenants are made by the model, below its bounds")]
    pub const fn tenant(&self, n: u8) -> Tenant {
        self.tenants[n as usize]
    }

    /// The same, to change it.
    #[expect(clippy::indexing_slicing, reason = "tenants are made by the model, below its bounds")]
    pub const fn tenant_mut(&mut self, n: u8) -> &mut Tenant {
        &mut self.tenants[n as usize]
    }

    fn line(&self, id: Id) -> Line {
        self.lines.get(usize::from(id)).copied().unwrap_or_default()
    }

    /// Changes the line of a store.
    pub fn set_line(&mut self, id: Id, line: Line) {
        if let Some(slot) = self.lines.get_mut(usize::from(id)) {
            *slot = line;
        }
    }

    /// Whether the catalog has the store.
    #[must_use]
    pub fn is_listed(&self, id: Id) -> bool {
        matches!(self.line(id), Line::Listed(_))
    }

    /// Where a store is.
    #[must_use]
    pub fn path(&self, id: Id) -> Option<u8> {
        match self.line(id) {
            Line::Listed(path) => Some(path),
            Line::Absent | Line::Retired => None,
        }
    }

    /// The store that the catalog has at a path.
    #[must_use]
    pub fn listed_at(&self, path: u8) -> Option<Id> {
        (0..STORES as u8).find(|id| self.path(*id) == Some(path))
    }

    /// Whose files are at a path.
    #[must_use]
    pub fn files_at(&self, path: u8) -> Option<Id> {
        self.files.get(usize::from(path)).copied().flatten()
    }

    /// Changes what is at a path.
    pub fn set_files(&mut self, path: u8, files: Option<Id>) {
        if let Some(slot) = self.files.get_mut(usize::from(path)) {
            *slot = files;
        }
    }

    /// Whether the store is in the catalog and has its files.
    #[must_use]
    pub fn is_whole(&self, id: Id) -> bool {
        self.path(id).is_some_and(|path| self.files_at(path) == Some(id))
    }

    /// The number of the next store.
    #[must_use]
    pub fn next_id(&self) -> Id {
        (0..STORES as u8).find(|id| self.line(*id) == Line::Absent).unwrap_or(STORES as u8)
    }

    /// Who uses a store.
    #[must_use]
    pub fn users(&self, id: Id) -> u8 {
        self.users.get(usize::from(id)).copied().unwrap_or_default()
    }

    /// Changes who uses a store.
    pub fn change_users(&mut self, id: Id, change: impl FnOnce(u8) -> u8) {
        if let Some(users) = self.users.get_mut(usize::from(id)) {
            *users = change(*users);
        }
    }

    /// Counts anew who uses which store.
    pub fn count_users(&mut self) {
        let tenants = self.tenants;
        for (id, users) in (0..).zip(&mut self.users) {
            *users = (0..)
                .zip(&tenants)
                .filter(|(_, tenant)| tenant.names(id))
                .fold(0, |all, (n, _)| all | 1 << n);
        }
    }

    /// The same state whatever the tenants are called: no step and no property tells them apart.
    #[must_use]
    pub fn canonical(self) -> Self {
        let mut other = self;
        other.tenants.reverse();
        for users in &mut other.users {
            *users = (*users & 1) << 1 | *users >> 1;
        }
        self.min(other)
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, files", self.up)?;
        for (path, files) in ["A", "B"].into_iter().zip(self.files) {
            match files {
                Some(id) => write!(f, " {path}:{id}")?,
                None => write!(f, " {path}:-")?,
            }
        }
        write!(f, ", listed")?;
        (0..STORES as u8).filter(|id| self.is_listed(*id)).try_for_each(|id| write!(f, " {id}"))?;
        for (n, tenant) in self.tenants.iter().enumerate() {
            write!(f, " | tenant {n} in {}", tenant.home)?;
            if let Some(target) = tenant.target {
                write!(f, " to {target}")?;
            }
            (0..STORES as u8)
                .filter(|id| tenant.retire & 1 << id != 0)
                .try_for_each(|id| write!(f, " retiring {id}"))?;
            if tenant.step != Step::Rest {
                write!(f, " {:?}", tenant.step)?;
            }
        }
        Ok(())
    }
}
