//! What a migration does next: a pure decision from facts.
//!
//! The driver makes the moves and waits for pins, the replicator copies and compares; both ask here what it is time for, and each does
//! only what is its own.

use cutover_formats::{Phase, Role};

use super::phase::Move;

/// What is known about a tenant's migration at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) phase: Phase,
    /// The store it works towards.
    pub(crate) goal: Role,
    pub(crate) paused: bool,
    /// Every operation under an earlier status has ended.
    pub(crate) waited: bool,
    /// The definitions were copied once.
    pub(crate) copied: bool,
    /// Both stores were compared in full, and no gap is noted.
    pub(crate) verified: bool,
    /// The shortest time in this phase is over.
    pub(crate) dwelt: bool,
    pub(crate) hold_switch: bool,
    pub(crate) hold_complete: bool,
    /// The store that is being left holds nothing of this tenant but definitions.
    pub(crate) drained: bool,
    /// A definition is set aside because it cannot be read in either store.
    pub(crate) unreadable: bool,
    /// What is in it is given up.
    pub(crate) abandon: bool,
}

/// What it is time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Rest,
    /// The operations under an earlier status have to end.
    Wait,
    /// Copy definitions.
    Copy,
    /// Compare both stores.
    Verify,
    /// Somebody has to retry or drop definitions that cannot be read.
    Quarantine,
    /// The store that is being left has to drain.
    Drain,
    /// The shortest time in this phase has to pass.
    Dwell,
    /// Somebody has to let it go on.
    Hold,
    /// Make this move.
    Move(Move),
}

/// What it is time for.
pub(crate) fn decide(facts: &Facts) -> Next {
    if facts.phase == Phase::Stable {
        return Next::Rest;
    }
    if !facts.waited {
        return Next::Wait;
    }
    if facts.paused {
        return Next::Rest;
    }
    let ready = match (facts.phase, facts.goal) {
        (Phase::PreMigration, _) if !facts.copied => return Next::Copy,
        (Phase::PreMigration, _) => Move::Switch,
        (Phase::Migration | Phase::RollingBack, _) => return after_dwell(facts, Move::Designate),
        // Launches were switched over to the other store's side while definitions went to both.
        (Phase::PreRollback, _) => Move::Switch,
        (Phase::PostMigration, Role::Target) | (Phase::PostRollback, Role::Initial) => Move::Complete,
        (Phase::PostMigration, Role::Initial) | (Phase::PostRollback, Role::Target) => Move::Reverse,
        (Phase::Stable, _) => return Next::Rest,
    };
    let abandon = facts.abandon && ready == Move::Complete;
    if !facts.verified && !abandon {
        return Next::Verify;
    }
    // Nothing is lost by going back: what cannot be read is lost in both stores.
    let forward = ready == Move::Complete || (ready, facts.phase) == (Move::Switch, Phase::PreMigration);
    if facts.unreadable && forward && !abandon {
        return Next::Quarantine;
    }
    match ready {
        Move::Complete if !facts.drained && !abandon => Next::Drain,
        Move::Complete if facts.hold_complete => after_dwell(facts, Move::Complete).or_hold(),
        Move::Switch if facts.hold_switch && facts.phase == Phase::PreMigration => {
            after_dwell(facts, Move::Switch).or_hold()
        }
        // Whoever reverses has waited for no dwell: he wants to be out.
        Move::Reverse => Next::Move(Move::Reverse),
        other => after_dwell(facts, other),
    }
}

fn after_dwell(facts: &Facts, then: Move) -> Next {
    if facts.dwelt { Next::Move(then) } else { Next::Dwell }
}

impl Next {
    fn or_hold(self) -> Self {
        match self {
            Self::Move(_) => Self::Hold,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Facts = Facts {
        phase: Phase::Stable,
        goal: Role::Target,
        paused: false,
        waited: true,
        copied: true,
        verified: true,
        dwelt: true,
        hold_switch: false,
        hold_complete: false,
        drained: true,
        unreadable: false,
        abandon: false,
    };

    fn in_phase(phase: Phase, goal: Role) -> Facts {
        Facts { phase, goal, ..READY }
    }

    #[test]
    fn a_ready_migration_goes_through_by_itself_in_both_directions() {
        let expect = [
            (Phase::Stable, Role::Target, Next::Rest),
            (Phase::PreMigration, Role::Target, Next::Move(Move::Switch)),
            (Phase::Migration, Role::Target, Next::Move(Move::Designate)),
            (Phase::PostMigration, Role::Target, Next::Move(Move::Complete)),
            (Phase::PostMigration, Role::Initial, Next::Move(Move::Reverse)),
            (Phase::PreRollback, Role::Initial, Next::Move(Move::Switch)),
            (Phase::RollingBack, Role::Initial, Next::Move(Move::Designate)),
            (Phase::PostRollback, Role::Initial, Next::Move(Move::Complete)),
            (Phase::PostRollback, Role::Target, Next::Move(Move::Reverse)),
        ];
        for (phase, goal, next) in expect {
            assert_eq!(decide(&in_phase(phase, goal)), next, "{phase} {goal:?}");
        }
    }

    /// Over all facts: nothing moves before the wait, a pause stops everything but the wait, and no move that gives up or
    /// switches a store is made without the comparison.
    #[test]
    fn no_combination_of_facts_skips_a_condition() {
        let both = [false, true];
        let mut combinations = 0;
        for bits in 0..1_u32 << 10 {
            for phase in Phase::ALL {
                for goal in [Role::Initial, Role::Target] {
                    let bit = |n: u32| both[(bits >> n & 1) as usize];
                    let facts = Facts {
                        phase,
                        goal,
                        paused: bit(0),
                        waited: bit(1),
                        copied: bit(2),
                        verified: bit(3),
                        dwelt: bit(4),
                        hold_switch: bit(5),
                        hold_complete: bit(6),
                        drained: bit(7),
                        abandon: bit(8),
                        unreadable: bit(9),
                    };
                    combinations += 1;
                    let Next::Move(made) = decide(&facts) else { continue };
                    assert!(facts.waited && !facts.paused, "{facts:?}");
                    assert!(super::super::phase::next(phase, made).is_ok(), "{facts:?} {made}");
                    assert!(made == Move::Reverse || facts.dwelt, "{facts:?}");
                    if made != Move::Designate {
                        let abandoned = facts.abandon && made == Move::Complete;
                        assert!(facts.verified || abandoned, "{facts:?}");
                    }
                    if made == Move::Complete {
                        assert!((facts.drained || facts.abandon) && !facts.hold_complete, "{facts:?}");
                        assert!(!facts.unreadable || facts.abandon, "{facts:?}");
                    }
                    if made == Move::Switch && phase == Phase::PreMigration {
                        assert!(facts.copied && !facts.hold_switch && !facts.unreadable, "{facts:?}");
                    }
                }
            }
        }
        assert_eq!(combinations, 1024 * 14);
    }
}
