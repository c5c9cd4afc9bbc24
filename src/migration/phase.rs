//! Which moves are legal, and what the status is after each: pure, and the one place of both rules.

use std::fmt;

use cutover_formats::{Phase, Role, Status, StoreId, StoreStatus};

/// A move of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Move {
    /// Begin: open the target and copy definitions into it.
    Start,
    /// Send launches to the store that the migration works towards.
    Switch,
    /// Make that store the primary. The engine's own move, once everybody has seen the switch.
    Designate,
    /// Give up the store that has drained.
    Complete,
    /// Call it off before launches were switched.
    Cancel,
    /// Work towards the other store from now on.
    Reverse,
}

impl Move {
    /// Every move.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Switch, Self::Designate, Self::Complete, Self::Cancel, Self::Reverse];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Switch => "switch",
            Self::Designate => "designate",
            Self::Complete => "complete",
            Self::Cancel => "cancel",
            Self::Reverse => "reverse",
        }
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A move that is not legal in this phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Illegal {
    /// The phase.
    pub phase: Phase,
    /// The move.
    pub tried: Move,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legal = legal_in_words(self.phase);
        write!(f, "{} is not legal in phase {}; legal now: {legal}", self.tried, self.phase)
    }
}

/// The phase after a move.
///
/// # Errors
/// If the move is not legal in this phase.
pub const fn next(phase: Phase, tried: Move) -> Result<Phase, Illegal> {
    Ok(match (phase, tried) {
        (Phase::Stable, Move::Start) => Phase::PreMigration,
        (Phase::PreMigration, Move::Switch) | (Phase::PostRollback, Move::Reverse) => Phase::Migration,
        (Phase::Migration, Move::Designate) | (Phase::PreRollback, Move::Reverse) => Phase::PostMigration,
        (Phase::PostMigration, Move::Reverse) => Phase::PreRollback,
        (Phase::PreRollback, Move::Switch) | (Phase::Migration, Move::Reverse) => Phase::RollingBack,
        (Phase::RollingBack, Move::Designate) => Phase::PostRollback,
        (Phase::PostMigration | Phase::PostRollback, Move::Complete)
        | (Phase::PreMigration, Move::Cancel) => Phase::Stable,
        _ => return Err(Illegal { phase, tried }),
    })
}

/// The moves that an operator may make in this phase.
#[must_use]
pub fn legal(phase: Phase) -> Vec<Move> {
    Move::ALL.into_iter().filter(|tried| *tried != Move::Designate && next(phase, *tried).is_ok()).collect()
}

/// The same for a sentence.
pub(crate) fn legal_in_words(phase: Phase) -> String {
    let legal: Vec<&str> = legal(phase).into_iter().map(Move::name).collect();
    if legal.is_empty() { "nothing, the engine goes on by itself".to_owned() } else { legal.join(", ") }
}

/// Who is primary and which store takes launches: (primary, initial, target).
const fn shape(phase: Phase) -> (Role, StoreStatus, StoreStatus) {
    use StoreStatus::{Closed, Open};
    match phase {
        Phase::Stable => (Role::Initial, Open, Closed),
        Phase::PreMigration => (Role::Initial, Open, Open),
        Phase::Migration => (Role::Initial, Closed, Open),
        Phase::PostMigration => (Role::Target, Closed, Open),
        Phase::PreRollback => (Role::Target, Open, Open),
        Phase::RollingBack => (Role::Target, Open, Closed),
        Phase::PostRollback => (Role::Initial, Open, Closed),
    }
}

/// The status after a move; `target` is for [`Move::Start`].
///
/// # Errors
/// If the move is not legal in the status's phase.
pub fn after(status: &Status, tried: Move, target: Option<StoreId>, epoch: u64) -> Result<Status, Illegal> {
    let phase = next(status.phase, tried)?;
    if phase == Phase::Stable {
        let survivor = match status.target {
            Some(target) if status.phase == Phase::PostMigration => target,
            _ => status.initial,
        };
        return Ok(Status::stable(epoch, survivor));
    }
    let (primary, initial_status, target_status) = shape(phase);
    let target = if tried == Move::Start { target } else { status.target };
    Ok(Status { epoch, phase, primary, initial_status, target_status, target, ..*status })
}

/// The store that a phase leaves behind when it completes or is called off.
#[must_use]
pub const fn left_behind(phase: Phase) -> Option<Role> {
    match phase {
        Phase::Stable => None,
        Phase::PreMigration | Phase::PreRollback | Phase::RollingBack | Phase::PostRollback => {
            Some(Role::Target)
        }
        Phase::Migration | Phase::PostMigration => Some(Role::Initial),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of phase and move, written out: the table that the code has to agree with.
    #[test]
    fn all_pairs() {
        use Phase::{Migration, PostMigration, PostRollback, PreMigration, PreRollback, RollingBack, Stable};
        let legal = [
            (Stable, Move::Start, PreMigration),
            (PreMigration, Move::Switch, Migration),
            (PreMigration, Move::Cancel, Stable),
            (Migration, Move::Designate, PostMigration),
            (Migration, Move::Reverse, RollingBack),
            (PostMigration, Move::Complete, Stable),
            (PostMigration, Move::Reverse, PreRollback),
            (PreRollback, Move::Switch, RollingBack),
            (PreRollback, Move::Reverse, PostMigration),
            (RollingBack, Move::Designate, PostRollback),
            (PostRollback, Move::Complete, Stable),
            (PostRollback, Move::Reverse, Migration),
        ];
        let mut pairs = 0;
        for phase in Phase::ALL {
            for tried in Move::ALL {
                let found = legal.iter().find(|(from, with, _)| (*from, *with) == (phase, tried));
                assert_eq!(next(phase, tried), found.map(|(.., to)| *to).ok_or(Illegal { phase, tried }));
                pairs += 1;
            }
        }
        assert_eq!(pairs, 42);
    }

    /// Every status that can be reached, from every other, over all moves.
    #[test]
    fn every_reachable_status_keeps_the_rules() {
        let mut seen = vec![Status::stable(1, StoreId(1))];
        let mut at = 0;
        while at < seen.len() {
            let status = seen[at];
            at += 1;
            for tried in Move::ALL {
                let Ok(mut next) = after(&status, tried, Some(StoreId(2)), status.epoch + 1) else {
                    continue;
                };
                assert_eq!(next.epoch, status.epoch + 1);
                assert_ne!(
                    (next.initial_status, next.target_status),
                    (StoreStatus::Closed, StoreStatus::Closed),
                    "both closed is illegal"
                );
                assert_eq!(next.status_of(next.home()), StoreStatus::Open, "{next:?}");
                assert_eq!(next.target.is_none(), next.phase == Phase::Stable);
                assert!(next.store(next.home()).is_some());
                next.epoch = 0;
                if !seen.iter().any(|other| Status { epoch: 0, ..*other } == next) {
                    seen.push(next);
                }
            }
        }
        // Stable in either store; from a stable target the other five phases between 2 and 2.
        let between_1_and_2 = seen.iter().filter(|status| status.initial == StoreId(1)).count();
        assert_eq!(between_1_and_2, 7);
    }

    #[test]
    fn launches_change_sides_at_a_switch_and_at_nothing_else() {
        for phase in Phase::ALL {
            let (primary, initial_status, target_status) = shape(phase);
            let status = Status {
                phase,
                primary,
                initial_status,
                target_status,
                target: (phase != Phase::Stable).then_some(StoreId(2)),
                ..Status::stable(5, StoreId(1))
            };
            for tried in Move::ALL {
                let Ok(next) = after(&status, tried, Some(StoreId(2)), 6) else { continue };
                let moved = status.store(status.home()) != next.store(next.home());
                let switches = tried == Move::Switch
                    || (tried == Move::Reverse && matches!(phase, Phase::Migration | Phase::PostRollback));
                assert_eq!(moved, switches, "{phase} {tried}");
            }
        }
    }
}
