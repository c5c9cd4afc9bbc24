//! The eight steps of a flip and what comes after each: pure.
//!
//! Up to the fourth, which makes the change durable, a crash or a failure leaves the old runner as it was. From the fourth on a crash leaves a
//! flip that opening finishes; a failure up to the sixth takes it back, with a record of its own. From the sixth on it is only finished.

use std::fmt;

use cutover_formats::access::HandoverPhase;

/// A step of a flip, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FlipStep {
    /// The old runner is to be deactivated.
    Deactivate = 1,
    /// Its new requests are refused; while the flip is on they wait.
    Hold = 2,
    /// The new runner is to be primary.
    Promote = 3,
    /// Both are durable.
    Persist = 4,
    /// What was admitted before has ended, committed or certainly refused.
    Drain = 5,
    /// The old runner's workers are disconnected; what they held is ready again.
    Disconnect = 6,
    /// The new runner is let in, and the requests that waited go on.
    LetIn = 7,
    /// It is acknowledged, durably.
    Acknowledge = 8,
}

impl FlipStep {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Deactivate,
        Self::Hold,
        Self::Promote,
        Self::Persist,
        Self::Drain,
        Self::Disconnect,
        Self::LetIn,
        Self::Acknowledge,
    ];

    /// Its name in the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivated",
            Self::Hold => "new requests wait",
            Self::Promote => "primary",
            Self::Persist => "durable",
            Self::Drain => "what was admitted before has ended",
            Self::Disconnect => "disconnected",
            Self::LetIn => "let in",
            Self::Acknowledge => "acknowledged",
        }
    }

    /// The step of this number, from 1 on.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }
}

impl fmt::Display for FlipStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Went {
    /// It is made.
    Well,
    /// It is not done yet.
    NotYet,
    /// It failed, or took too long, or the new runner is gone.
    Badly,
}

/// What comes after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Next {
    /// This step.
    Make(FlipStep),
    /// The same one again, in a while.
    Again,
    /// Nothing durable was changed: as if it had not begun.
    Forget,
    /// The earlier seats are made durable again.
    TakeBack,
    /// It is over.
    End,
}

/// What comes after a step.
pub(crate) fn next(step: FlipStep, went: Went) -> Next {
    match (step, went) {
        (_, Went::NotYet) => Next::Again,
        (FlipStep::Acknowledge, Went::Well) => Next::End,
        (_, Went::Well) => FlipStep::of_number(step as u8 + 1).map_or(Next::End, Next::Make),
        (FlipStep::Deactivate | FlipStep::Hold | FlipStep::Promote, Went::Badly) => Next::Forget,
        // The write may have happened all the same.
        (FlipStep::Persist | FlipStep::Drain | FlipStep::Disconnect, Went::Badly) => Next::TakeBack,
        (FlipStep::LetIn | FlipStep::Acknowledge, Went::Badly) => Next::Again,
    }
}

/// Whether a crash has left a flip to be finished when its record is read.
pub(crate) const fn is_unfinished(phase: HandoverPhase) -> bool {
    matches!(phase, HandoverPhase::Flip | HandoverPhase::Back)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every step and how it went, written out.
    #[test]
    fn all_pairs() {
        let mut pairs = 0;
        for (at, step) in FlipStep::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, at + 1, "numbered in their order");
            assert_eq!(FlipStep::of_number(step as u8), Some(step));
            let after = FlipStep::ALL.get(at + 1).map_or(Next::End, |next| Next::Make(*next));
            let badly = match at + 1 {
                1..=3 => Next::Forget,
                4..=6 => Next::TakeBack,
                _ => Next::Again,
            };
            for (went, expected) in [(Went::Well, after), (Went::NotYet, Next::Again), (Went::Badly, badly)] {
                assert_eq!(next(step, went), expected, "{step} {went:?}");
                pairs += 1;
            }
        }
        assert_eq!(pairs, 24);
        assert_eq!((FlipStep::of_number(0), FlipStep::of_number(9)), (None, None));
    }

    #[test]
    fn what_is_not_durable_before_the_fourth_step_is_finished_after_it() {
        let all = [HandoverPhase::Prepare, HandoverPhase::Flip, HandoverPhase::Cleanup, HandoverPhase::Back];
        assert_eq!(all.map(is_unfinished), [false, true, false, true]);
    }
}
