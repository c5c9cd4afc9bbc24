//! The tenant model: two tenants that share stores, move between two places, and leave; the catalog, and what a crash leaves of it.
//!
//! | action | in the engine |
//! |---|---|
//! | [`Action::Enter`], [`Action::Write`], [`Action::Leave`] | an operation of the tenant: it pins and holds handles of the stores that its status names |
//! | [`Action::Place`] | `Catalog::place`, under the catalog's lock: a store that is there, or a new line in the catalog |
//! | [`Action::Create`] | the rest of it: the driver makes the files |
//! | [`Action::Start`] | `transition::start`: the record names the target |
//! | [`Action::Finish`] | `transition::make` to `Stable`, by `complete`, `cancel` or the end of a roll-back: the store that is left goes on the list to retire |
//! | [`Action::Release`] | `Catalog::release` without rows removed: done, busy, shared, or the removal begins |
//! | [`Action::Destroy`], [`Action::Strike`] | `Catalog::remove`, under its lock: the files, then the line in the catalog |
//! | [`Action::RemoveRows`], [`Action::ReleaseShared`] | `driver::leave_store` from a store that others use |
//! | [`Action::Retired`] | `driver::retire`: the record forgets the store |
//! | [`Action::Crash`], [`Action::Open`], [`Action::Serve`] | `engine::open`: users are counted, stores nobody uses are removed, then calls are served |
//!
//! What is left out: the phases (the other models have them; here a move starts and ends), how a record is written (one step here), and what is in the
//! rows. An operation writes to any store that it holds.

pub mod state;
mod step;

use std::fmt;

use stateright::{Model, Property};

use state::{Id, STORES, State, Step, TENANTS};

/// How large the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Stores that are ever made, up to [`STORES`].
    pub stores: u8,
    /// Crashes.
    pub crashes: u8,
    /// Whether tenants are interchangeable, so that states which differ only in their names are one.
    pub symmetric: bool,
}

/// A rule of the protocol that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Whether anyone uses a store is decided under the catalog's lock, and it is removed after letting go of it.
    RemovedUnlocked,
    /// A store that a tenant is leaving may be its target.
    OwnRetired,
    /// The line in the catalog is struck before the files are removed.
    StruckFirst,
    /// The files are made before the catalog has the line.
    CreatedFirst,
    /// The record forgets a store before the tenant's rows are removed.
    ForgottenFirst,
    /// A store that is left is not put on the list to retire.
    NoList,
    /// Nobody waits for operations, nor asks whether they hold the store.
    NoWait,
    /// A store is removed though other tenants use it.
    OthersNotCounted,
}

/// The model.
#[derive(Debug, Clone)]
pub struct Tenants {
    /// How large it is.
    pub bounds: Bounds,
    /// What is left out.
    pub mutant: Option<Mutant>,
    /// Check only the property of this name.
    pub only: Option<&'static str>,
}

/// A step of the model. The first number is the tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An operation begins.
    Enter(u8),
    /// It writes to a store.
    Write(u8, Id),
    /// It ends.
    Leave(u8),
    /// A store is placed at this path, for a migration.
    Place(u8, u8),
    /// Its files are made.
    Create(u8),
    /// The record names it.
    Start(u8),
    /// The migration ends in the target, or not.
    Finish(u8, bool),
    /// The store that was left is released.
    Release(u8),
    /// Its files are removed.
    Destroy(u8),
    /// Its line in the catalog is struck.
    Strike(u8),
    /// The tenant's rows are removed from a store that others use.
    RemoveRows(u8),
    /// And it is released again.
    ReleaseShared(u8),
    /// The record forgets it.
    Retired(u8),
    /// Power is cut.
    Crash,
    /// The engine opens: it counts who uses what.
    Open,
    /// A store that nobody uses loses its files.
    DestroyOrphan(Id),
    /// And its line.
    StrikeOrphan(Id),
    /// Calls are served from now on.
    Serve,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Tenants {
    /// A model of this size.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, mutant: None, only: None }
    }

    /// With this rule left out; only the property that this is expected to break is checked.
    #[must_use]
    pub const fn mutant(mut self, mutant: Mutant, breaks: &'static str) -> Self {
        (self.mutant, self.only) = (Some(mutant), Some(breaks));
        self
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// What a tenant's operations, its driver and its operator can do.
    fn tenant_actions(&self, state: &State, n: u8, out: &mut Vec<Action>) {
        let tenant = state.tenant(n);
        if tenant.holds == 0 {
            out.push(Action::Enter(n));
        } else {
            out.extend(
                (0..self.bounds.stores)
                    .filter(|id| tenant.holds & 1 << id != 0)
                    .map(|id| Action::Write(n, id)),
            );
            out.push(Action::Leave(n));
        }
        let free = self.is_free(state);
        match tenant.step {
            Step::Rest => {
                if tenant.target.is_some() {
                    [false, true].into_iter().for_each(|there| out.push(Action::Finish(n, there)));
                } else if free {
                    self.places(state, n, out);
                }
                self.retirement(state, n, out);
            }
            Step::Placing(_) => out.push(Action::Create(n)),
            Step::Placed(_) => out.push(Action::Start(n)),
            Step::Removing if self.is(Mutant::StruckFirst) => out.push(Action::Strike(n)),
            Step::Removing if free || !self.is(Mutant::RemovedUnlocked) => out.push(Action::Destroy(n)),
            Step::Destroyed => out.push(Action::Strike(n)),
            Step::Struck => out.push(Action::Destroy(n)),
            Step::Sharing => out.push(Action::RemoveRows(n)),
            Step::RowsRemoved if free => out.push(Action::ReleaseShared(n)),
            Step::Released => out.push(Action::Retired(n)),
            Step::Removing | Step::RowsRemoved => {}
        }
    }

    /// Whether nobody holds the catalog's lock.
    fn is_free(&self, state: &State) -> bool {
        let holds = |step| match step {
            Step::Placing(_) | Step::Destroyed | Step::Struck => true,
            Step::Removing => !self.is(Mutant::RemovedUnlocked),
            _ => false,
        };
        !state.tenants.iter().any(|tenant| holds(tenant.step))
    }

    fn places(&self, state: &State, n: u8, out: &mut Vec<Action>) {
        let tenant = state.tenant(n);
        for path in [0, 1] {
            match state.listed_at(path) {
                Some(id) if id == tenant.home => {}
                Some(id) if tenant.retire & 1 << id != 0 && !self.is(Mutant::OwnRetired) => {}
                Some(_) => out.push(Action::Place(n, path)),
                None if state.next_id() < self.bounds.stores => out.push(Action::Place(n, path)),
                None => {}
            }
        }
    }

    fn retirement(&self, state: &State, n: u8, out: &mut Vec<Action>) {
        let tenant = state.tenant(n);
        let waited = !tenant.awaited || self.is(Mutant::NoWait);
        let Some(id) = tenant.leaving().filter(|_| waited && self.is_free(state)) else { return };
        if self.is(Mutant::ForgottenFirst) {
            out.push(Action::Retired(n));
        } else if !self.is_busy(state, n, id) {
            out.push(Action::Release(n));
        }
    }

    /// Whether a release would say that somebody still holds a handle.
    pub(crate) fn is_busy(&self, state: &State, n: u8, id: Id) -> bool {
        let others = state.users(id) & !(1 << n) != 0;
        let held = state.tenants.iter().any(|tenant| tenant.holds & 1 << id != 0);
        !others && held && !self.is(Mutant::NoWait)
    }

    fn opening(&self, state: &State, out: &mut Vec<Action>) {
        let orphan = |id: &Id| state.is_listed(*id) && state.users(*id) == 0;
        match (0..self.bounds.stores).find(orphan) {
            Some(id) if state.orphan_destroyed => out.push(Action::StrikeOrphan(id)),
            Some(id) => out.push(Action::DestroyOrphan(id)),
            None => out.push(Action::Serve),
        }
    }
}

/// The names of the properties.
pub mod property {
    /// I6, the files.
    pub const KEPT: &str = "I6: no store is removed that a tenant uses, and no row of it";
    /// I6, the handles.
    pub const HELD: &str = "I6: no store is removed while an operation holds it";
    /// What a tenant left does not meet it again.
    pub const FRESH: &str = "a target has no rows of the tenant from before";
    /// Opening works.
    pub const OPENS: &str = "every store that a tenant's record names is in the catalog and has its files";
    /// So does placing.
    pub const ROOM: &str = "what was removed leaves its place free";
    /// Nothing stays for ever.
    pub const GONE: &str = "a store that no tenant names, nor is leaving, is gone when calls are served";
}

impl Model for Tenants {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.up {
            state::Up::Down => actions.push(Action::Open),
            state::Up::Opening => self.opening(state, actions),
            state::Up::Serving => (0..TENANTS as u8).for_each(|n| self.tenant_actions(state, n, actions)),
        }
        if state.up != state::Up::Down && state.crashes < self.bounds.crashes {
            actions.push(Action::Crash);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.after(state, action);
        Some(if self.bounds.symmetric { next.canonical() } else { next })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        use property::{FRESH, GONE, HELD, KEPT, OPENS, ROOM};
        let mut all = vec![
            Property::always(KEPT, |_, state: &State| !state.wrongs.lost),
            Property::always(HELD, |_, state: &State| !state.wrongs.pulled),
            Property::always(FRESH, |_, state: &State| !state.wrongs.stale),
            Property::always(OPENS, |_, state: &State| {
                state.tenants.iter().all(|tenant| {
                    [Some(tenant.home), tenant.target].into_iter().flatten().all(|id| state.is_whole(id))
                })
            }),
            Property::always(ROOM, |_, state: &State| !state.wrongs.blocked),
            Property::always(GONE, |_: &Self, state: &State| {
                let named = |id| state.tenants.iter().any(|tenant| tenant.names(id) || tenant.is_placing(id));
                state.up != state::Up::Serving
                    || (0..STORES as u8).all(|id| !state.is_listed(id) || named(id))
            }),
        ];
        match self.only {
            Some(only) => all.retain(|property| property.name == only),
            None => all.extend([
                Property::sometimes("a store is shared", |_, state: &State| {
                    state.tenants.iter().all(|tenant| tenant.names(1))
                }),
                Property::sometimes("rows are removed from a shared store", |_, state: &State| {
                    state.tenants.iter().any(|tenant| tenant.step == Step::RowsRemoved)
                }),
                Property::sometimes("the last tenant leaves a store", |_, state: &State| {
                    state.tenants.iter().any(|tenant| tenant.step == Step::Destroyed)
                }),
                Property::sometimes("a crash in the middle of a removal", |_, state: &State| {
                    state.up == state::Up::Opening
                        && (0..STORES as u8).any(|id| state.is_listed(id) && !state.is_whole(id))
                }),
            ]),
        }
        all
    }
}
