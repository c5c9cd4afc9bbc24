//! Statuses in one byte.
//!
//! Which moves are legal, what the status is after each and where launches go is not modelled: it is asked of the engine's own functions
//! (`migration::phase::next`, `after`, `left_behind`, `Status::home`), once for every status that two stores can have.

use std::fmt;

use cutover::migration::phase;
use cutover::{Move, Phase, Role, Status, StoreId, StoreStatus};

/// One of the two stores.
pub type Store = u8;

/// A tenant's status without its epoch: the phase, and which of the two stores is the initial one.
///
/// The default stands for none having been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Compact(u8);

const PHASES: usize = 7;

impl Compact {
    /// Stable in a store.
    #[must_use]
    pub const fn stable(store: Store) -> Self {
        Self(store * PHASES as u8)
    }
}

/// What the engine says about one status.
#[derive(Debug, Clone, Copy)]
struct Row {
    phase: Phase,
    home: Store,
    other: Option<Store>,
    closed: Option<Store>,
    left: Option<Store>,
    roles: [Option<Store>; 2],
    next: [Option<Compact>; Move::ALL.len()],
}

/// The engine's answers for every status.
#[derive(Debug, Clone)]
pub struct Statuses {
    rows: Vec<Row>,
}

impl Default for Statuses {
    fn default() -> Self {
        Self::new()
    }
}

impl Statuses {
    /// Asks the engine.
    #[must_use]
    pub fn new() -> Self {
        let mut known: Vec<Option<Status>> = vec![None; 2 * PHASES];
        let mut open: Vec<Status> = (0..2).map(|store| Status::stable(1, id(store))).collect();
        while let Some(status) = open.pop() {
            let Some(slot) = known.get_mut(usize::from(compact(&status).0)) else { continue };
            if slot.is_some() {
                continue;
            }
            *slot = Some(status);
            open.extend(Move::ALL.into_iter().filter_map(|made| after(&status, made)));
        }
        let rows = known.into_iter().flatten().map(|status| Row::of(&status)).collect();
        Self { rows }
    }

    fn row(&self, status: Compact) -> &Row {
        #[expect(clippy::indexing_slicing, reason = "only `new` makes statuses, and it has a row for each")]
        &self.rows[usize::from(status.0)]
    }

    /// Its phase.
    #[must_use]
    pub fn phase(&self, status: Compact) -> Phase {
        self.row(status).phase
    }

    /// Where launches go.
    #[must_use]
    pub fn home(&self, status: Compact) -> Store {
        self.row(status).home
    }

    /// The other store, while there are two.
    #[must_use]
    pub fn other(&self, status: Compact) -> Option<Store> {
        self.row(status).other
    }

    /// The store that is closed for launches, if there are two and one is.
    #[must_use]
    pub fn closed(&self, status: Compact) -> Option<Store> {
        self.row(status).closed
    }

    /// The store that the phase leaves behind when it ends.
    #[must_use]
    pub fn left(&self, status: Compact) -> Option<Store> {
        self.row(status).left
    }

    /// The store in a role.
    #[must_use]
    pub fn store(&self, status: Compact, role: Role) -> Option<Store> {
        let [initial, target] = self.row(status).roles;
        if role == Role::Initial { initial } else { target }
    }

    /// Whether the status names the store.
    #[must_use]
    pub fn names(&self, status: Compact, store: Store) -> bool {
        self.home(status) == store || self.other(status) == Some(store)
    }

    /// The status after a move, if it is legal.
    #[must_use]
    pub fn after(&self, status: Compact, made: Move) -> Option<Compact> {
        self.row(status).next.get(made as usize).copied().flatten()
    }
}

impl Row {
    fn of(status: &Status) -> Self {
        let store = |role: Role| status.store(role).map(number);
        let home = store(status.home()).unwrap_or(0);
        let other = store(status.home().other());
        let closed = [Role::Initial, Role::Target]
            .into_iter()
            .find(|role| status.status_of(*role) == StoreStatus::Closed)
            .and_then(store);
        Self {
            phase: status.phase,
            home,
            other,
            closed,
            left: phase::left_behind(status.phase).and_then(store),
            roles: [Role::Initial, Role::Target].map(store),
            next: Move::ALL.map(|made| after(status, made).map(|status| compact(&status))),
        }
    }
}

fn id(store: Store) -> StoreId {
    StoreId(u32::from(store) + 1)
}

fn number(id: StoreId) -> Store {
    (id.0 - 1) as Store
}

/// The target of a start is the store that the tenant is not in.
fn after(status: &Status, made: Move) -> Option<Status> {
    let target = id(1 - number(status.initial));
    phase::after(status, made, Some(target), 1).ok()
}

fn compact(status: &Status) -> Compact {
    let at = Phase::ALL.iter().position(|phase| *phase == status.phase).unwrap_or(0);
    Compact(number(status.initial) * PHASES as u8 + at as u8)
}

/// What the two stores are called.
#[must_use]
pub const fn name(store: Store) -> &'static str {
    if store == 0 { "A" } else { "B" }
}

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = usize::from(self.0) % PHASES;
        let phase = Phase::ALL.get(at).copied().unwrap_or(Phase::Stable);
        let initial = self.0 / PHASES as u8;
        match phase {
            Phase::Stable => write!(f, "{phase} in {}", name(initial)),
            _ => write!(f, "{phase} {} to {}", name(initial), name(1 - initial)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_row_and_comes_from_the_engine() {
        let statuses = Statuses::new();
        assert_eq!(statuses.rows.len(), 14);
        let stable = Compact::stable(1);
        assert_eq!(
            (statuses.phase(stable), statuses.home(stable), statuses.other(stable)),
            (Phase::Stable, 1, None)
        );
        let started = statuses.after(stable, Move::Start).unwrap();
        let switched = statuses.after(started, Move::Switch).unwrap();
        assert_eq!(statuses.phase(switched), Phase::Migration);
        assert_eq!(
            (statuses.home(switched), statuses.other(switched), statuses.closed(switched)),
            (0, Some(1), Some(1))
        );
        assert_eq!(statuses.left(switched), Some(1));
        assert_eq!(statuses.after(switched, Move::Cancel), None);
    }
}
