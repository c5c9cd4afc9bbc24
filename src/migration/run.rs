//! Run or skip: a migration that is asked for again is not made twice.
//!
//! Whoever automates migrations asks again when he does not know how the last call went. So a piece of work has an id and each try at it
//! another one, both in his own words and durable with the migration, and what asking again comes to is decided here, purely. The idea is that
//! of request ids, as launches have them.

use std::fmt;

use cutover_formats::Role;
use cutover_formats::meta::{EndedMigration, MigrationRecord, Outcome, RunId};

/// What asking for a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// A new migration of this number has begun, durably.
    Began(u64),
    /// The run is under way as the migration of this number: an earlier attempt at it goes on as this one.
    GoesOn(u64),
    /// Nothing happened: the run has succeeded, or this attempt at it has ended otherwise, for good.
    Skipped(EndedMigration),
}

/// What is to be done about a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Begin,
    /// It is under way. `anew`: as another attempt than the one before.
    GoOn {
        number: u64,
        anew: bool,
    },
    Skip(EndedMigration),
    /// Another one is under way, or this one on its way back: which, in words, and what can be done.
    Conflict(String),
}

/// Decides, from what is under way and what has ended, oldest first.
pub(super) fn judge(asked: &RunId, under_way: Option<&MigrationRecord>, ended: &[EndedMigration]) -> Verdict {
    if let Some(migration) = under_way {
        let number = migration.id;
        let Some(run) = &migration.run else {
            return Verdict::Conflict(format!("migration {number}, which belongs to no run"));
        };
        let named = format!("migration {number}, run {:?}, attempt {:?}", run.id, run.attempt);
        return match migration.goal {
            Role::Target if run.id == asked.id => {
                Verdict::GoOn { number, anew: run.attempt != asked.attempt }
            }
            // What it comes to is that it is taken back, so no other attempt is made of it.
            Role::Initial if run.id == asked.id => Verdict::Conflict(format!(
                "{named}, which is on its way back: ask again when it is back, or reverse it"
            )),
            _ => Verdict::Conflict(named),
        };
    }
    let mut earlier = ended.iter().rev().filter(|one| one.run.as_ref().is_some_and(|run| run.id == asked.id));
    // What was taken back by a later attempt has not succeeded any more; the last word counts.
    let settles = |one: &&EndedMigration| {
        one.outcome == Outcome::Completed || one.run.as_ref().is_some_and(|run| run.attempt == asked.attempt)
    };
    earlier.find(settles).map_or(Verdict::Begin, |one| Verdict::Skip(one.clone()))
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began(number) => write!(f, "migration {number} has begun"),
            Self::GoesOn(number) => write!(f, "migration {number} goes on"),
            Self::Skipped(EndedMigration { id, outcome, .. }) => {
                let how = match outcome {
                    Outcome::Completed => "completed",
                    Outcome::Cancelled => "was cancelled",
                    Outcome::RolledBack => "was rolled back",
                };
                write!(f, "nothing to do: migration {id} {how} before")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, attempt: &str) -> RunId {
        RunId { id: id.into(), attempt: attempt.into() }
    }

    fn under_way(run: Option<RunId>) -> MigrationRecord {
        MigrationRecord {
            id: 7,
            goal: Role::Target,
            hold_switch: false,
            hold_complete: false,
            paused: false,
            rate: 0,
            dwell_ms: [0; 7],
            abandon: false,
            started_ms: 1,
            move_older_ms: None,
            move_rate: 0,
            run,
        }
    }

    fn ended(id: u64, run: Option<RunId>, outcome: Outcome) -> EndedMigration {
        EndedMigration { id, run, outcome, at_ms: id }
    }

    #[test]
    fn a_new_id_is_a_new_run_whatever_ended_before() {
        let earlier = [
            ended(2, Some(run("a", "1")), Outcome::Completed),
            ended(4, None, Outcome::Completed),
            ended(6, Some(run("b", "1")), Outcome::Cancelled),
        ];
        assert_eq!(judge(&run("c", "1"), None, &earlier), Verdict::Begin);
        assert_eq!(judge(&run("c", "1"), None, &[]), Verdict::Begin);
    }

    #[test]
    fn a_run_that_succeeded_is_skipped_in_every_attempt() {
        let done = ended(4, Some(run("a", "2")), Outcome::Completed);
        let earlier = [ended(2, Some(run("a", "1")), Outcome::Cancelled), done.clone()];
        for attempt in ["2", "3"] {
            assert_eq!(judge(&run("a", attempt), None, &earlier), Verdict::Skip(done.clone()));
        }
    }

    #[test]
    fn an_attempt_that_was_taken_back_is_not_repeated_but_another_one_begins() {
        for outcome in [Outcome::Cancelled, Outcome::RolledBack] {
            let taken_back = ended(4, Some(run("a", "1")), outcome);
            let earlier = [taken_back.clone()];
            assert_eq!(judge(&run("a", "1"), None, &earlier), Verdict::Skip(taken_back));
            assert_eq!(judge(&run("a", "2"), None, &earlier), Verdict::Begin);
        }
    }

    #[test]
    fn one_that_is_under_way_goes_on_and_every_other_one_is_a_conflict_that_names_it() {
        let mine = under_way(Some(run("a", "1")));
        let again = judge(&run("a", "1"), Some(&mine), &[]);
        assert_eq!(again, Verdict::GoOn { number: 7, anew: false });
        assert_eq!(judge(&run("a", "2"), Some(&mine), &[]), Verdict::GoOn { number: 7, anew: true });
        let Verdict::Conflict(said) = judge(&run("b", "1"), Some(&mine), &[]) else { panic!("no conflict") };
        assert_eq!(said, r#"migration 7, run "a", attempt "1""#);
        let Verdict::Conflict(said) = judge(&run("b", "1"), Some(&under_way(None)), &[]) else {
            panic!("no conflict")
        };
        assert!(said.starts_with("migration 7"), "{said}");
    }

    #[test]
    fn one_that_is_on_its_way_back_does_not_go_on_in_any_attempt() {
        let back = MigrationRecord { goal: Role::Initial, ..under_way(Some(run("a", "1"))) };
        for attempt in ["1", "2"] {
            let Verdict::Conflict(said) = judge(&run("a", attempt), Some(&back), &[]) else {
                panic!("it goes on")
            };
            assert!(
                said.starts_with(r#"migration 7, run "a", attempt "1", which is on its way back"#),
                "{said}"
            );
        }
        let Verdict::Conflict(said) = judge(&run("b", "1"), Some(&back), &[]) else { panic!("no conflict") };
        assert_eq!(said, r#"migration 7, run "a", attempt "1""#);
    }
}
