//! The checker can refuse, and it refuses for the right reasons: histories written by hand.

use cutover::{ConflictPolicy, Ending, InstanceId, Launched, ReusePolicy};
use cutover_formats::StoreId;

use crate::checker::Call;
use crate::history::History;
use crate::spec::{Clock, EndAnswer, Op, What};

const A: InstanceId = InstanceId::new(StoreId(1), 1, 1);
const B: InstanceId = InstanceId::new(StoreId(2), 2, 2);
const C: InstanceId = InstanceId::new(StoreId(2), 3, 3);
/// How long what has ended is kept, in milliseconds.
const KEPT: u64 = 100;
const AT_0: Clock = (0, 0);

/// Calls with their moments.
struct Lines(History);

fn lines() -> Lines {
    Lines(History::default())
}

impl Lines {
    fn at(self, called: u64, returned: u64, what: What) -> Self {
        self.by_clock(called, returned, AT_0, what)
    }

    fn by_clock(mut self, called: u64, returned: u64, clock: Clock, what: What) -> Self {
        // Calls are even and returns odd, so that no two moments are the same.
        let call = Call { called: called * 2, returned: returned * 2 + 1, op: Op { clock, what } };
        self.0.add(0, call);
        self
    }

    fn never(mut self, called: u64, what: What) -> Self {
        self.0.add(0, Call { called: called * 2, returned: u64::MAX, op: Op { clock: AT_0, what } });
        self
    }

    #[track_caller]
    fn holds(self) {
        self.0.check(|_| KEPT).unwrap_or_else(|said| panic!("{said}"));
    }

    #[track_caller]
    fn refused(self) {
        let said = self.0.check(|_| KEPT).expect_err("it was not refused");
        assert!(said.contains("is not linearizable"), "{said}");
    }
}

fn launch_with(
    conflict: ConflictPolicy,
    reuse: ReusePolicy,
    request: Option<u64>,
    answer: Option<Launched>,
) -> What {
    What::Launch { conflict, reuse, request, last_of_request: false, answer }
}

fn launch(answer: Launched) -> What {
    launch_with(ConflictPolicy::Fail, ReusePolicy::AllowDuplicate, None, Some(answer))
}

fn lost_launch() -> What {
    launch_with(ConflictPolicy::Fail, ReusePolicy::AllowDuplicate, None, None)
}

fn replace(answer: Launched) -> What {
    launch_with(ConflictPolicy::TerminateExisting, ReusePolicy::AllowDuplicate, None, Some(answer))
}

fn requested(request: u64, answer: Option<Launched>) -> What {
    launch_with(ConflictPolicy::Fail, ReusePolicy::AllowDuplicate, Some(request), answer)
}

fn reuse(policy: ReusePolicy, answer: Launched) -> What {
    launch_with(ConflictPolicy::Fail, policy, None, Some(answer))
}

fn conflict(instance: InstanceId) -> Launched {
    Launched::Conflict { instance }
}

fn end(id: InstanceId, answer: EndAnswer) -> What {
    What::End { id, ending: Ending::Completed, answer: Some(answer) }
}

fn by_key(answer: Option<(InstanceId, Option<Ending>)>) -> What {
    What::ByKey { answer: Some(answer) }
}

fn by_id(id: InstanceId, answer: Option<Option<Ending>>) -> What {
    What::ById { id, answer: Some(answer) }
}

#[test]
fn what_one_store_could_have_answered_holds() {
    lines()
        .at(1, 2, by_key(None))
        .at(3, 4, launch(Launched::Started(A)))
        .at(5, 6, launch(conflict(A)))
        .at(7, 8, by_id(A, Some(None)))
        .at(9, 10, end(A, EndAnswer::Now))
        .at(11, 12, end(A, EndAnswer::Before(Ending::Completed)))
        .at(13, 14, by_key(Some((A, Some(Ending::Completed)))))
        .at(15, 16, launch(Launched::Started(B)))
        .at(17, 18, by_id(A, Some(Some(Ending::Completed))))
        .at(19, 20, by_key(Some((B, None))))
        .holds();
}

#[test]
fn a_key_that_is_live_twice_is_refused() {
    lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, launch(Launched::Started(B))).refused();
    // Also if both were under way at once.
    lines().at(1, 4, launch(Launched::Started(A))).at(2, 3, launch(Launched::Started(B))).refused();
    // Not if the first was ended meanwhile.
    lines()
        .at(1, 4, launch(Launched::Started(A)))
        .at(2, 6, launch(Launched::Started(B)))
        .at(3, 5, end(A, EndAnswer::Now))
        .holds();
}

#[test]
fn a_launch_that_is_lost_or_found_too_early_is_refused() {
    lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, by_key(None)).refused();
    lines().at(1, 4, launch(Launched::Started(A))).at(2, 3, by_key(None)).holds();
    lines().at(1, 2, by_key(Some((A, None)))).at(3, 4, launch(Launched::Started(A))).refused();
    lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, by_id(A, None)).refused();
}

#[test]
fn a_conflict_with_somebody_who_does_not_live_is_refused() {
    lines().at(1, 2, launch(conflict(A))).at(3, 4, launch(Launched::Started(A))).refused();
    let ended = || lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, end(A, EndAnswer::Now));
    ended().at(5, 6, launch(conflict(A))).refused();
    ended().at(5, 6, by_id(A, Some(None))).refused();
    ended().at(5, 6, by_key(Some((A, None)))).refused();
}

#[test]
fn an_end_that_is_lost_or_happens_twice_is_refused() {
    let ended = || lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, end(A, EndAnswer::Now));
    ended().at(5, 6, end(A, EndAnswer::Now)).refused();
    ended().at(5, 6, end(A, EndAnswer::Before(Ending::Failed))).refused();
    lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, end(A, EndAnswer::NotFound)).refused();
}

#[test]
fn an_older_holder_that_comes_back_is_refused() {
    let twice = || {
        lines()
            .at(1, 2, launch(Launched::Started(A)))
            .at(3, 4, end(A, EndAnswer::Now))
            .at(5, 6, launch(Launched::Started(B)))
            .at(7, 8, end(B, EndAnswer::Now))
    };
    twice().at(9, 10, by_key(Some((B, Some(Ending::Completed))))).holds();
    twice().at(9, 10, by_key(Some((A, Some(Ending::Completed))))).refused();
    let rejected = |instance| {
        reuse(ReusePolicy::RejectDuplicate, Launched::Rejected { instance, ending: Ending::Completed })
    };
    twice().at(9, 10, rejected(B)).holds();
    twice().at(9, 10, rejected(A)).refused();
}

#[test]
fn the_policies_are_held_to() {
    let ended = |ending| {
        let end = What::End { id: A, ending, answer: Some(EndAnswer::Now) };
        lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, end)
    };
    let failed_only = ReusePolicy::AllowDuplicateFailedOnly;
    ended(Ending::Failed).at(5, 6, reuse(failed_only, Launched::Started(B))).holds();
    ended(Ending::Completed).at(5, 6, reuse(failed_only, Launched::Started(B))).refused();
    ended(Ending::Failed).at(5, 6, reuse(ReusePolicy::RejectDuplicate, Launched::Started(B))).refused();
    let replaced = || lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, replace(Launched::Started(B)));
    replaced().at(5, 6, by_id(A, Some(Some(Ending::Terminated)))).at(7, 8, by_key(Some((B, None)))).holds();
    replaced().at(5, 6, by_id(A, Some(None))).refused();
    replaced().at(5, 6, end(A, EndAnswer::Now)).refused();
    let existing = launch_with(
        ConflictPolicy::UseExisting,
        ReusePolicy::AllowDuplicate,
        None,
        Some(Launched::Existing(A)),
    );
    lines().at(1, 2, launch(Launched::Started(A))).at(3, 4, existing.clone()).holds();
    lines().at(1, 2, existing).at(3, 4, launch(Launched::Started(A))).refused();
}

#[test]
fn what_is_kept_for_a_time_goes_after_it_and_not_before() {
    let ended = || {
        lines()
            .by_clock(1, 2, (0, 0), launch(Launched::Started(A)))
            // The end read the clock at some time from 10 to 20.
            .by_clock(3, 4, (10, 20), end(A, EndAnswer::Now))
    };
    let rejected = Launched::Rejected { instance: A, ending: Ending::Completed };
    let reject = |answer| reuse(ReusePolicy::RejectDuplicate, answer);
    for (clock, there, gone) in [
        ((109, 109), true, false),
        ((110, 110), true, true),
        ((119, 130), true, true),
        ((120, 120), false, true),
    ] {
        for (what, possible) in [
            (reject(rejected), there),
            (reject(Launched::Started(B)), gone),
            (by_key(Some((A, Some(Ending::Completed)))), there),
            (by_key(None), gone),
            // The instance itself is there until somebody has collected it.
            (by_id(A, Some(Some(Ending::Completed))), true),
            (by_id(A, None), gone),
            (end(A, EndAnswer::Before(Ending::Completed)), true),
            (end(A, EndAnswer::NotFound), gone),
        ] {
            let history = ended().by_clock(5, 6, clock, what);
            if possible { history.holds() } else { history.refused() }
        }
    }
}

#[test]
fn a_repeated_request_is_answered_as_before() {
    let first = || lines().at(1, 2, requested(7, Some(Launched::Started(A))));
    first().at(3, 4, requested(7, Some(Launched::Started(A)))).holds();
    first().at(3, 4, requested(7, Some(conflict(A)))).refused();
    first().at(3, 4, requested(8, Some(conflict(A)))).holds();
    // Also after its instance has ended and another has the key.
    let later = || first().at(3, 4, end(A, EndAnswer::Now)).at(5, 6, launch(Launched::Started(B)));
    later().at(7, 8, requested(7, Some(Launched::Started(A)))).at(9, 10, by_key(Some((B, None)))).holds();
    later().at(7, 8, requested(7, Some(Launched::Started(C)))).refused();
    // Until its time is over.
    later()
        .at(7, 8, end(B, EndAnswer::Now))
        .by_clock(9, 10, (200, 200), requested(7, Some(Launched::Started(C))))
        .holds();
}

#[test]
fn a_launch_without_an_answer_happened_or_not_at_any_time_later() {
    lines().never(1, lost_launch()).at(2, 3, by_key(None)).at(4, 5, launch(Launched::Started(A))).holds();
    // It would have been a conflict at first.
    lines()
        .at(1, 2, launch(Launched::Started(A)))
        .never(3, lost_launch())
        .at(4, 5, by_key(Some((A, None))))
        .at(6, 7, end(A, EndAnswer::Now))
        .at(8, 9, by_key(Some((B, None))))
        .holds();
    // Late: nothing is there, and then an instance that nobody was told of.
    lines().never(1, lost_launch()).at(2, 3, by_key(None)).at(4, 5, launch(conflict(B))).holds();
    // It has one instance, once.
    lines()
        .never(1, lost_launch())
        .at(2, 3, launch(conflict(B)))
        .at(4, 5, end(B, EndAnswer::Now))
        .at(6, 7, launch(conflict(C)))
        .refused();
    lines()
        .never(1, lost_launch())
        .at(2, 3, launch(conflict(B)))
        .at(4, 5, end(B, EndAnswer::Now))
        .at(6, 7, launch(conflict(B)))
        .refused();
    // Not before it was called, and not after it had been settled.
    lines().at(1, 2, launch(conflict(B))).never(3, lost_launch()).refused();
    lines().at(1, 3, lost_launch()).at(4, 5, by_key(None)).at(6, 7, launch(conflict(B))).refused();
}

#[test]
fn a_repeat_settles_a_request_without_an_answer() {
    let lost = || lines().at(1, 2, requested(7, None));
    // It had happened: the repeat names its instance.
    lost().at(3, 4, by_key(Some((A, None)))).at(5, 6, requested(7, Some(Launched::Started(A)))).holds();
    lost().at(3, 4, by_key(Some((A, None)))).at(5, 6, requested(7, Some(Launched::Started(B)))).refused();
    // It had not: the repeat does it.
    lost().at(3, 4, by_key(None)).at(5, 6, requested(7, Some(Launched::Started(A)))).holds();
}

#[test]
fn an_end_without_an_answer_happened_or_not() {
    let lost = What::End { id: A, ending: Ending::Failed, answer: None };
    let begun = || lines().at(1, 2, launch(Launched::Started(A))).at(3, 6, lost.clone());
    begun().at(4, 5, by_key(Some((A, None)))).at(7, 8, by_key(Some((A, Some(Ending::Failed))))).holds();
    begun().at(7, 8, by_key(Some((A, None)))).at(9, 10, launch(conflict(A))).holds();
    begun().at(7, 8, by_key(Some((A, None)))).at(9, 10, by_key(Some((A, Some(Ending::Failed))))).refused();
}
