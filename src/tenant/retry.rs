//! Whether a step that failed is tried again, and when: decided from numbers, and from nothing else.
//!
//! The pause doubles from the first one up to the longest. Half of it is left to chance, so that steps that failed together, because what they
//! all need was down, do not come back together: *equal jitter*, after Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture
//! Blog, 2015). *Full jitter*, which leaves all of the pause to chance, spreads a crowd somewhat better; there, a client tries for as long as it
//! takes. Here attempts are counted, and one that comes at once would meet what the last one met and be used up for nothing. So half
//! of the pause is certain.
//!
//! Whether there is another attempt does not depend on chance, only when it is: if the shortest pause ends within the budget of time, a
//! longer one is cut to it.

use std::time::Duration;

use cutover_formats::record::{RetryRecord, StepRecord};

use crate::clock::millis;

/// How a step that fails is tried again: after a pause that doubles with each failure and is partly left to chance, up to a budget of attempts and
/// one of time. When one of them is used up the step waits for somebody who decides; see [`Tenant::decide`](crate::Tenant::decide).
///
/// A lease that runs out is an attempt too: a step that hangs or kills whoever has it is not tried for ever. There is no pause after it. It writes
/// nothing, so those that have run out are counted in memory: from the start when the process starts, and for the 65,536 steps of a tenant that were
/// lost last. Together with one lease all of its worker's run out, and count. A lease that ends otherwise does not: when its
/// [`Gate`](crate::Gate) is dropped, its instance moves, or its runner hands the tenant over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The pause after the first failure. After each further one it is twice as long; at least half of it passes.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// Most attempts. There is always a first one.
    pub attempts: u32,
    /// No other attempt begins later than this after the step was ready for the first time, or after it was decided to try it again. The time that it waits
    /// for a worker is part of that: one that nobody has claimed by then waits for a decision when somebody would.
    pub within: Duration,
}

impl Default for Retry {
    /// Three attempts, with a second before the second one and two before the third, at whatever time.
    fn default() -> Self {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(60));
        Self { first, most, attempts: 3, within: Duration::MAX }
    }
}

impl Retry {
    /// As it is stored. What is longer than a record can say is cut to that.
    pub(super) fn record(&self) -> RetryRecord {
        RetryRecord {
            first_ms: millis(self.first),
            most_ms: millis(self.most),
            attempts: self.attempts,
            within_ms: millis(self.within),
        }
    }
}

/// What a step has used of its budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    /// Attempts that failed, and those whose lease ran out.
    pub(super) attempts: u32,
    /// When time began to count, in milliseconds since 1970.
    pub(super) since_ms: u64,
}

impl Used {
    /// Of a step that nobody has, whose leases have run out so many times.
    pub(super) fn by(step: &StepRecord, lost: u32) -> Self {
        Self { attempts: step.attempts_counted().saturating_add(lost), since_ms: step.counted_ms }
    }

    /// The same with an attempt that fails now.
    pub(super) fn and_one(self) -> Self {
        Self { attempts: self.attempts.saturating_add(1), ..self }
    }
}

/// What comes after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
    /// Another attempt.
    Again {
        /// From when on, in milliseconds since 1970.
        at_ms: u64,
    },
    /// A budget is used up.
    Exhausted,
}

/// What comes after a failure at `now_ms`, with a pause as the policy says. `random` may be any number.
pub(super) fn next(policy: &RetryRecord, used: Used, now_ms: u64, random: u64) -> Next {
    let doublings = used.attempts.saturating_sub(1);
    let pause = policy.first_ms.saturating_mul(2u64.saturating_pow(doublings)).min(policy.most_ms);
    let (soonest, latest) = (now_ms.saturating_add(pause - pause / 2), now_ms.saturating_add(pause));
    let latest = latest.min(end_ms(policy, used)).max(soonest);
    at(policy, used, soonest + share(latest - soonest, random))
}

/// The same if another attempt is to come at `at_ms`.
pub(super) fn at(policy: &RetryRecord, used: Used, at_ms: u64) -> Next {
    if used.attempts >= policy.attempts || at_ms > end_ms(policy, used) {
        return Next::Exhausted;
    }
    Next::Again { at_ms }
}

/// Whether an attempt may begin at `now_ms`, of a step that is ready. The first one always may.
pub(super) fn may_begin(policy: &RetryRecord, used: Used, now_ms: u64) -> bool {
    used.attempts == 0 || at(policy, used, now_ms) != Next::Exhausted
}

/// The last moment at which an attempt may begin.
fn end_ms(policy: &RetryRecord, used: Used) -> u64 {
    used.since_ms.saturating_add(policy.within_ms)
}

/// A number from 0 to `most`, each for as many of all random numbers as the others, but for one.
fn share(most: u64, random: u64) -> u64 {
    ((u128::from(random) * (u128::from(most) + 1)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryRecord = RetryRecord { first_ms: 100, most_ms: 1_000, attempts: 10, within_ms: 5_000 };
    const NOW: u64 = 1_800_000_000_000;

    fn used(attempts: u32) -> Used {
        Used { attempts, since_ms: NOW }
    }

    /// The shortest and the longest pause, from `now_ms` on; `None` if there is no other attempt.
    fn pauses(policy: &RetryRecord, used: Used, now_ms: u64) -> Option<(u64, u64)> {
        let pause = |random| match next(policy, used, now_ms, random) {
            Next::Again { at_ms } => Some(at_ms.checked_sub(now_ms).expect("time does not go back")),
            Next::Exhausted => None,
        };
        let (short, long) = (pause(0), pause(u64::MAX));
        for random in [1, 1 << 32, 1 << 63, u64::MAX - 1] {
            let between = pause(random);
            assert!(short <= between && between <= long, "{between:?} with {random}");
            assert_eq!(between.is_some(), short.is_some(), "chance decides whether there is one");
        }
        assert_eq!(short.is_some(), long.is_some(), "chance decides whether there is one");
        short.zip(long)
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_at_least_half_of_it_passes() {
        let found: Vec<_> = (1..=6).map(|attempts| pauses(&POLICY, used(attempts), NOW)).collect();
        let due = [(50, 100), (100, 200), (200, 400), (400, 800), (500, 1_000), (500, 1_000)];
        assert_eq!(found, due.map(Some));
        assert_eq!(pauses(&POLICY, used(0), NOW), Some((50, 100)), "as if it had failed once");
    }

    #[test]
    fn every_pause_between_the_shortest_and_the_longest_comes_up() {
        let policy = RetryRecord { first_ms: 7, ..POLICY };
        let mut seen = std::collections::BTreeSet::new();
        for random in (0..=63).map(|sixtyfourth| sixtyfourth << 58) {
            seen.insert(next(&policy, used(1), NOW, random));
        }
        let due: Vec<_> = (4..=7).map(|pause| Next::Again { at_ms: NOW + pause }).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), due);
    }

    #[test]
    fn attempts_are_used_up_with_the_last_one() {
        assert!(pauses(&POLICY, used(9), NOW).is_some());
        for attempts in [10, 11, u32::MAX] {
            assert_eq!(pauses(&POLICY, used(attempts), NOW), None, "{attempts}");
            assert_eq!(at(&POLICY, used(attempts), NOW), Next::Exhausted);
        }
        for attempts in [0, 1] {
            assert_eq!(pauses(&RetryRecord { attempts, ..POLICY }, used(1), NOW), None, "of {attempts}");
        }
    }

    #[test]
    fn no_attempt_begins_after_the_time_is_over() {
        let end = NOW + POLICY.within_ms;
        assert_eq!(pauses(&POLICY, used(5), end - 1_000), Some((500, 1_000)));
        assert_eq!(pauses(&POLICY, used(5), end - 700), Some((500, 700)), "cut to it");
        assert_eq!(pauses(&POLICY, used(5), end - 500), Some((500, 500)), "to the tick");
        assert_eq!(pauses(&POLICY, used(5), end - 499), None);
        assert_eq!(pauses(&POLICY, used(5), end + 1), None);
        assert_eq!(at(&POLICY, used(5), end), Next::Again { at_ms: end });
        assert_eq!(at(&POLICY, used(5), end + 1), Next::Exhausted);
        let now = RetryRecord { within_ms: 0, ..POLICY };
        assert_eq!(pauses(&now, used(1), NOW), None, "its pause ends later");
        assert_eq!(
            pauses(&RetryRecord { first_ms: 0, ..now }, used(1), NOW),
            Some((0, 0)),
            "at the same tick"
        );
    }

    #[test]
    fn the_first_attempt_begins_whatever_the_budgets_say_and_others_within_them() {
        let end = NOW + POLICY.within_ms;
        let none = RetryRecord { attempts: 0, within_ms: 0, ..POLICY };
        assert!(may_begin(&none, used(0), end));
        assert!(!may_begin(&none, used(1), NOW));
        assert!(may_begin(&POLICY, used(9), end));
        assert!(!may_begin(&POLICY, used(9), end + 1));
        assert!(!may_begin(&POLICY, used(10), NOW));
    }

    #[test]
    fn a_longest_pause_below_the_first_one_holds_and_none_at_all_is_one() {
        let policy = RetryRecord { most_ms: 3, ..POLICY };
        assert_eq!(pauses(&policy, used(1), NOW), Some((2, 3)));
        assert_eq!(pauses(&RetryRecord { most_ms: 1, ..POLICY }, used(4), NOW), Some((1, 1)));
        assert_eq!(pauses(&RetryRecord { most_ms: 0, ..POLICY }, used(4), NOW), Some((0, 0)));
    }

    #[test]
    fn nothing_overflows() {
        let large = [0, 1, 2, u64::from(u32::MAX), u64::MAX / 2, u64::MAX - 1, u64::MAX];
        let counts = [0, 1, 2, 63, 64, 65, u32::MAX - 1, u32::MAX];
        for (first_ms, most_ms, within_ms) in
            large.iter().flat_map(|a| large.iter().flat_map(move |b| large.map(|c| (*a, *b, c))))
        {
            for (limit, attempts) in counts.iter().flat_map(|a| counts.map(|b| (*a, b))) {
                let policy = RetryRecord { first_ms, most_ms, attempts: limit, within_ms };
                for (since_ms, now_ms) in [(0, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (NOW, NOW), (NOW, 0)]
                {
                    let used = Used { attempts, since_ms };
                    let end = since_ms.saturating_add(within_ms);
                    if let Some((_, long)) = pauses(&policy, used, now_ms) {
                        assert!(attempts < limit && now_ms + long <= end && long <= most_ms, "{policy:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_record_can_hold_is_cut() {
        let forever = Retry { within: Duration::MAX, ..Retry::default() }.record();
        assert_eq!((forever.first_ms, forever.within_ms), (1_000, u64::MAX));
        assert_eq!(at(&forever, used(1), u64::MAX), Next::Again { at_ms: u64::MAX });
    }
}
