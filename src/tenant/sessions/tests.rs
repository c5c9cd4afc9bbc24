use cutover_formats::StoreId;

use super::*;

const LENGTH: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_nanos(1);
const EPOCH: u64 = 7;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn instance(n: u64) -> InstanceId {
    InstanceId::new(StoreId(1), n, n)
}

fn token(counter: u64) -> Token {
    Token { incarnation: 1, counter }
}

fn terms(limit: usize) -> Terms {
    Terms { worker: "w".into(), limit, keeps_status: false, length: LENGTH, runner: 0 }
}

fn lease(session: SessionId, n: u64, now: Duration) -> Lease {
    let entry =
        Entry { at_ms: 0, instance: instance(n), step: "s".into(), queue: "q".into(), store: StoreId(1) };
    Lease {
        token: token(n),
        session,
        worker: "w".into(),
        length: LENGTH,
        expires: now + LENGTH,
        from_ms: 0,
        cancel_requested: false,
        key: None,
        lost: 0,
        entry,
    }
}

/// A worker that holds the step of instance 1 since time zero.
fn holding(limit: usize) -> (Sessions, SessionId) {
    let sessions = Sessions::default();
    let id = sessions.open(terms(limit), EPOCH, Duration::ZERO);
    sessions.give(lease(id, 1, Duration::ZERO), Duration::ZERO).unwrap();
    (sessions, id)
}

fn beat(n: Option<u64>, sequence: u64) -> Heartbeat {
    Heartbeat { step: n.map(|n| (instance(n), "s".to_owned(), token(n))), sequence, epoch: EPOCH }
}

fn held(n: u64) -> (InstanceId, &'static str, Token) {
    (instance(n), "s", token(n))
}

fn released(sessions: &Sessions, now: Duration) -> Vec<InstanceId> {
    sessions.take_released(now).0.into_iter().map(|entry| entry.instance).collect()
}

#[test]
fn a_lease_is_valid_up_to_its_last_tick_and_counts_from_the_receipt_of_a_heartbeat() {
    let (sessions, id) = holding(1);
    assert!(sessions.current(id, held(1), LENGTH - TICK).is_ok());
    assert_eq!(sessions.beat(id, &beat(Some(1), 1), LENGTH - TICK), Ok(false));
    let end = LENGTH - TICK + LENGTH;
    assert_eq!(sessions.take_released(end - TICK), (vec![], Some(end)));
    assert!(sessions.current(id, held(1), end - TICK).is_ok());
    assert_eq!(sessions.current(id, held(1), end).err(), Some(Refusal::LeaseExpired));
    assert_eq!(released(&sessions, end), [instance(1)]);
    assert_eq!(released(&sessions, end), [], "once");
}

#[test]
fn who_has_run_out_is_refused_everything_also_when_its_clock_goes_on() {
    let (sessions, id) = holding(2);
    // Nobody has looked between the end and the call: it is over all the same.
    assert_eq!(sessions.beat(id, &beat(Some(1), 1), LENGTH), Err(Refusal::LeaseExpired));
    for now in [LENGTH, LENGTH + TICK, LENGTH * 5] {
        assert_eq!(sessions.current(id, held(1), now).err(), Some(Refusal::LeaseExpired));
        assert_eq!(sessions.may_claim(id, now), Err(Refusal::LeaseExpired));
        assert_eq!(sessions.beat(id, &beat(None, 2), now), Err(Refusal::LeaseExpired));
        assert_eq!(sessions.give(lease(id, 2, now), now), Err(Refusal::LeaseExpired));
    }
    assert!(!sessions.is_held(instance(2), "s", LENGTH));
    sessions.close(id, LENGTH);
    let anew = sessions.open(terms(2), EPOCH, LENGTH);
    assert!(anew > id);
    assert_eq!(sessions.may_claim(anew, LENGTH), Ok(()));
    assert_eq!(sessions.current(anew, held(1), LENGTH).err(), Some(Refusal::NotHeld), "it held it before");
    assert_eq!(sessions.current(id, held(1), LENGTH).err(), Some(Refusal::LeaseExpired));
}

#[test]
fn heartbeats_that_are_dropped_reordered_or_repeated_renew_nothing() {
    let (sessions, id) = holding(1);
    let [first, second, third] = [1, 2, 3].map(|sequence| beat(Some(1), sequence));
    assert_eq!(sessions.beat(id, &second, ms(10)), Ok(false), "the first one was dropped on the way");
    for old in [&first, &second] {
        assert_eq!(sessions.beat(id, old, ms(50)), Err(Refusal::OldSequence { seen: 2 }));
    }
    assert_eq!(sessions.take_released(ms(50)).1, Some(ms(110)), "counted from the one that was taken");
    assert_eq!(sessions.beat(id, &third, ms(109)), Ok(false));
    assert_eq!(sessions.take_released(ms(110)).1, Some(ms(209)));
}

#[test]
fn a_heartbeat_for_another_step_or_token_renews_nothing_and_uses_up_no_number() {
    let (sessions, id) = holding(1);
    let other = sessions.open(terms(1), EPOCH, Duration::ZERO);
    assert_eq!(sessions.beat(id, &beat(Some(2), 1), ms(50)), Err(Refusal::NotHeld));
    let mut old_token = beat(Some(1), 1);
    old_token.step.as_mut().unwrap().2 = token(0);
    assert_eq!(sessions.beat(id, &old_token, ms(50)), Err(Refusal::NotHeld));
    assert_eq!(sessions.beat(id, &beat(None, 1), ms(50)), Err(Refusal::NotHeld), "it has a step");
    assert_eq!(sessions.beat(other, &beat(Some(1), 1), ms(50)), Err(Refusal::NotHeld), "somebody else's");
    assert_eq!(sessions.beat(id, &beat(Some(1), 1), ms(50)), Ok(false));
}

#[test]
fn a_worker_that_holds_nothing_is_to_be_heard_of_too() {
    let sessions = Sessions::default();
    let id = sessions.open(terms(1), EPOCH, Duration::ZERO);
    assert_eq!(sessions.beat(id, &beat(None, 1), ms(99)), Ok(false));
    assert_eq!(sessions.may_claim(id, ms(198)), Ok(()));
    sessions.give(lease(id, 1, ms(198)), ms(198)).unwrap();
    sessions.end(instance(1), "s", ms(290));
    assert_eq!(sessions.may_claim(id, ms(390) - TICK), Ok(()), "it was heard of when it settled the step");
    assert_eq!(sessions.may_claim(id, ms(490)), Err(Refusal::LeaseExpired));
}

#[test]
fn a_worker_has_as_many_steps_as_it_may_and_loses_all_of_them_with_the_first_lease() {
    let (sessions, id) = holding(2);
    assert_eq!(sessions.may_claim(id, ms(50)), Ok(()));
    sessions.give(lease(id, 2, ms(50)), ms(50)).unwrap();
    assert_eq!(sessions.may_claim(id, ms(50)), Err(Refusal::AtLimit));
    assert_eq!(
        sessions.give(lease(id, 3, ms(50)), ms(50)),
        Err(Refusal::AtLimit),
        "it was let through before"
    );
    assert!(!sessions.is_held(instance(3), "s", ms(50)));
    // It says nothing of the first one.
    assert_eq!(sessions.beat(id, &beat(Some(2), 1), ms(90)), Ok(false));
    assert_eq!(released(&sessions, LENGTH - TICK), []);
    let mut all = released(&sessions, LENGTH);
    all.sort_unstable();
    assert_eq!(all, [instance(1), instance(2)]);
    assert_eq!(sessions.current(id, held(2), LENGTH).err(), Some(Refusal::LeaseExpired));
}

#[test]
fn one_that_is_settled_leaves_the_others_with_their_own_end() {
    let (sessions, id) = holding(2);
    sessions.give(lease(id, 2, ms(50)), ms(50)).unwrap();
    sessions.end(instance(1), "s", ms(60));
    assert_eq!(sessions.take_released(ms(60)), (vec![], Some(ms(150))));
    sessions.end_instance(instance(2));
    assert_eq!(sessions.take_released(ms(60)).1, Some(ms(160)), "as one that holds nothing");
}

/// Whoever asks about a step learns of the end of its lease, though nobody has taken notice of it before.
#[test]
fn no_look_sees_a_lease_that_is_over() {
    let looks: [fn(&Sessions, Duration) -> usize; 3] = [
        |sessions, now| usize::from(sessions.is_held(instance(1), "s", now)),
        |sessions, now| sessions.holders(instance(1), now),
        |sessions, now| sessions.ask_to_stop(instance(1), now),
    ];
    for look in looks {
        let (sessions, _) = holding(1);
        assert_eq!(look(&sessions, LENGTH - TICK), 1);
        assert_eq!(look(&sessions, LENGTH), 0);
    }
}

#[test]
fn what_a_worker_does_elsewhere_holds_as_long_as_the_first_of_its_leases() {
    let (sessions, id) = holding(2);
    sessions.give(lease(id, 2, ms(40)), ms(40)).unwrap();
    for n in [1, 2] {
        assert_eq!(sessions.until(id, held(n), ms(50)), Ok(LENGTH), "of step {n}");
    }
    sessions.beat(id, &beat(Some(1), 1), ms(60)).unwrap();
    assert_eq!(sessions.until(id, held(1), ms(60)), Ok(ms(140)), "now the second lease ends first");
    let foreign = (instance(1), "s", token(2));
    assert_eq!(sessions.until(id, foreign, ms(60)), Err(Refusal::NotHeld), "another token");
    assert_eq!(sessions.until(id, held(1), ms(140) - TICK), Ok(ms(140)));
    assert_eq!(sessions.until(id, held(1), ms(140)), Err(Refusal::LeaseExpired));
}

#[test]
fn whoever_goes_gives_back_what_he_holds() {
    let (sessions, id) = holding(1);
    sessions.close(id, Duration::ZERO);
    assert!(!sessions.is_held(instance(1), "s", Duration::ZERO));
    assert_eq!(released(&sessions, Duration::ZERO), [instance(1)]);
    assert_eq!(sessions.take_released(LENGTH).1, None);
}

#[test]
fn only_valid_workers_that_keep_a_status_are_waited_for() {
    let sessions = Sessions::default();
    let keeps = |name: &str| Terms { worker: name.into(), keeps_status: true, ..terms(1) };
    let [late, here] = ["late", "here"].map(|name| sessions.open(keeps(name), EPOCH, Duration::ZERO));
    sessions.open(terms(1), EPOCH, Duration::ZERO);
    assert!(sessions.behind(EPOCH, ms(1)).is_empty());
    assert_eq!(sessions.behind(EPOCH + 1, ms(1)), ["late", "here"]);
    sessions.beat(here, &beat(None, 1).seen(EPOCH + 1), ms(50)).unwrap();
    assert_eq!(sessions.behind(EPOCH + 1, ms(50)), ["late"]);
    sessions.beat(late, &beat(None, 1), ms(50)).unwrap();
    assert_eq!(sessions.behind(EPOCH + 1, ms(149)), ["late"], "it is alive and has not seen it");
    assert!(sessions.behind(EPOCH + 1, ms(150)).is_empty(), "it can do nothing with what it knows");
    // An old heartbeat takes nothing back.
    let anew = sessions.open(keeps("anew"), EPOCH + 1, ms(150));
    sessions.beat(anew, &beat(None, 1).seen(EPOCH), ms(160)).unwrap();
    assert!(sessions.behind(EPOCH + 1, ms(160)).is_empty());
}

#[test]
fn a_revoked_lease_is_told_as_such_and_takes_nothing_else_from_its_worker() {
    let (sessions, id) = holding(2);
    sessions.give(lease(id, 2, Duration::ZERO), Duration::ZERO).unwrap();
    let revoked = sessions.revoke(instance(1), ms(10));
    assert_eq!(revoked.iter().map(|lease| lease.token).collect::<Vec<_>>(), [token(1)]);
    assert!(sessions.revoke(instance(1), ms(10)).is_empty());
    assert!(!sessions.is_held(instance(1), "s", ms(10)));
    assert!(released(&sessions, ms(10)).is_empty(), "whoever revokes it offers it");
    for sequence in 1..3 {
        assert_eq!(sessions.beat(id, &beat(Some(1), sequence), ms(20)), Err(Refusal::Moved));
        assert_eq!(sessions.current(id, held(1), ms(20)).err(), Some(Refusal::Moved));
    }
    assert!(sessions.current(id, held(2), ms(20)).is_ok());
    assert_eq!(sessions.beat(id, &beat(Some(2), 1), ms(20)), Ok(false));
    let never = (instance(1), "s", token(9));
    assert_eq!(sessions.current(id, never, ms(20)).err(), Some(Refusal::NotHeld));
    assert_eq!(sessions.current(id, held(1), ms(120)).err(), Some(Refusal::LeaseExpired));
}

#[test]
fn so_many_revoked_leases_of_a_worker_are_remembered_and_no_more() {
    let (sessions, id) = holding(usize::MAX);
    let many = REVOKED as u64 + 10;
    for n in 2..=many {
        sessions.give(lease(id, n, Duration::ZERO), Duration::ZERO).unwrap();
    }
    for n in 1..=many {
        sessions.revoke(instance(n), Duration::ZERO);
    }
    assert_eq!(sessions.current(id, held(10), Duration::ZERO).err(), Some(Refusal::NotHeld));
    assert_eq!(sessions.current(id, held(11), Duration::ZERO).err(), Some(Refusal::Moved));
    assert_eq!(sessions.0.lock().sessions[&id].revoked.len(), REVOKED);
}

#[test]
fn no_time_passes_for_leases_while_everybody_is_kept_waiting() {
    let (sessions, id) = holding(1);
    let idle = sessions.open(terms(1), EPOCH, ms(20));
    sessions.stop(ms(60));
    sessions.stop(ms(70));
    let during = LENGTH * 5;
    assert!(sessions.current(id, held(1), during).is_ok());
    assert_eq!(sessions.until(id, held(1), during), Ok(during + ms(40)), "if it went on now");
    assert_eq!(sessions.take_released(during), (vec![], Some(during + ms(40))));
    sessions.go_on(during);
    let end = during + ms(40);
    assert_eq!(sessions.until(id, held(1), during), Ok(end));
    assert!(sessions.current(id, held(1), end - TICK).is_ok());
    assert_eq!(sessions.current(id, held(1), end).err(), Some(Refusal::LeaseExpired), "as much as was left");
    assert!(sessions.may_claim(idle, end).is_ok(), "and so for who holds nothing");
    sessions.go_on(end * 2);
    assert_eq!(sessions.may_claim(idle, end + LENGTH), Err(Refusal::LeaseExpired), "it was over already");
}

#[test]
fn who_is_heard_of_while_everybody_waits_has_a_full_lease_afterwards_and_who_had_run_out_stays_so() {
    let (sessions, id) = holding(1);
    let late = sessions.open(Terms { length: ms(10), ..terms(1) }, EPOCH, Duration::ZERO);
    sessions.stop(ms(50));
    assert_eq!(sessions.beat(id, &beat(Some(1), 1), ms(70)), Ok(false));
    sessions.go_on(ms(80));
    let end = ms(80) + LENGTH;
    assert!(sessions.current(id, held(1), end - TICK).is_ok());
    assert_eq!(sessions.current(id, held(1), end).err(), Some(Refusal::LeaseExpired));
    assert_eq!(sessions.may_claim(late, ms(80)), Err(Refusal::LeaseExpired));
}

fn times(sessions: &Sessions, n: u64, now: Duration) -> u32 {
    sessions.lost(instance(n), "s", now).map_or(0, |lost| lost.times)
}

#[test]
fn a_lease_that_ran_out_is_counted_with_all_others_of_its_worker() {
    let (sessions, id) = holding(3);
    for n in [2, 3] {
        sessions.give(lease(id, n, ms(50)), ms(50)).unwrap();
    }
    sessions.end(instance(3), "s", ms(60));
    assert_eq!([1, 2, 3].map(|n| times(&sessions, n, LENGTH - TICK)), [0, 0, 0]);
    assert_eq!([1, 2, 3].map(|n| times(&sessions, n, LENGTH)), [1, 1, 0], "the third was settled");
    let anew = sessions.open(terms(1), EPOCH, LENGTH);
    sessions.give(Lease { lost: 1, ..lease(anew, 1, LENGTH) }, LENGTH).unwrap();
    // Nobody has looked between the end and the call.
    sessions.close(anew, 2 * LENGTH);
    let due = Lost { times: 2, worker: "w".into(), token: token(1), from_ms: 0 };
    assert_eq!(sessions.lost(instance(1), "s", 2 * LENGTH), Some(due));
    sessions.forget_lost(instance(1), "s");
    assert_eq!([1, 2].map(|n| times(&sessions, n, 2 * LENGTH)), [0, 1]);
    sessions.end_instance(instance(2));
    assert_eq!(times(&sessions, 2, 2 * LENGTH), 0);
}

#[test]
fn a_lease_that_ends_otherwise_is_not_counted() {
    let ends: [fn(&Sessions, SessionId); 4] = [
        |sessions, id| sessions.close(id, LENGTH - TICK),
        |sessions, _| assert_eq!(sessions.close_of(0), 1),
        |sessions, _| drop(sessions.revoke(instance(1), LENGTH - TICK)),
        |sessions, _| sessions.end(instance(1), "s", LENGTH - TICK),
    ];
    for end in ends {
        let (sessions, id) = holding(1);
        end(&sessions, id);
        assert!(!sessions.is_held(instance(1), "s", LENGTH - TICK));
        assert_eq!(times(&sessions, 1, 5 * LENGTH), 0);
    }
}

#[test]
fn so_many_steps_are_counted_and_those_that_were_lost_last() {
    let (_, id) = holding(1);
    let mut unheard = Unheard::default();
    let most = unheard::MOST as u64;
    let key = |n| (instance(n), "s".to_owned());
    (0..most).for_each(|n| unheard.note(lease(id, n, Duration::ZERO)));
    unheard.note(lease(id, 0, Duration::ZERO));
    unheard.note(lease(id, most, Duration::ZERO));
    let counted = |unheard: &Unheard, n| unheard.of(&key(n)).is_some();
    assert_eq!([0, 1, 2, most].map(|n| counted(&unheard, n)), [true, false, true, true]);
    for n in 0..=most {
        unheard.forget(&key(n));
        assert!(!counted(&unheard, n));
    }
    unheard.note(lease(id, 1, Duration::ZERO));
    unheard.forget_instance(instance(1));
    assert!(!counted(&unheard, 1));
}
