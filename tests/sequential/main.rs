//! The engine against a plain sequential model of it, with random operations. The fuzz target `engine` does the same with operations that
//! it chooses; what it finds becomes a test here.

mod play;

use std::time::{Duration, Instant};

use cutover::{Again, ConflictPolicy, Ending, ReusePolicy};
use play::ops::{Fault, Gone, Launching, Op, Setup};
use play::{Seen, ops, play, play_bytes};

/// The first seed, and how many follow it at most.
fn seeds() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("CUTOVER_SEED").unwrap_or(1), number("CUTOVER_RUNS").unwrap_or(3_000))
}

fn add(total: &mut Seen, seen: Seen) {
    total.operations += seen.operations;
    total.launched += seen.launched;
    total.moves += seen.moves;
    total.relocated += seen.relocated;
    total.faults += seen.faults;
    total.openings += seen.openings;
    total.decided += seen.decided;
    total.in_doubt += seen.in_doubt;
}

#[test]
fn any_operations_are_answered_as_by_one_store_without_phases() {
    let (first, runs) = seeds();
    let (begun, mut total, mut done) = (Instant::now(), Seen::default(), 0);
    for seed in first..first + runs {
        // A busy machine does fewer; each of them counts.
        if done >= 200 && begun.elapsed() > Duration::from_secs(15) && runs <= 3_000 {
            break;
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = (0..rng.usize(..600)).map(|_| rng.u8(..)).collect();
        let seen = std::panic::catch_unwind(|| play_bytes(&bytes)).unwrap_or_else(|panic| {
            eprintln!("CUTOVER_SEED={seed} CUTOVER_RUNS=1 CUTOVER_TRACE=1 shows it");
            std::panic::resume_unwind(panic)
        });
        add(&mut total, seen);
        done += 1;
    }
    eprintln!("{done} runs in {:.1} s: {total:?}", begun.elapsed().as_secs_f64());
    // Per run on average, or the model has seen nothing worth seeing.
    assert!(total.operations > 20 * done && total.launched > 3 * done && total.moves > done, "{total:?}");
    assert!(total.relocated > done / 8, "{total:?}");
    assert!(total.faults > done / 8 && total.in_doubt > done / 20, "{total:?}");
}

/// Mostly workers that fail, and what comes of that: among everything else that can be done, it is rare.
#[expect(clippy::indexing_slicing, reason = "what is drawn is below the length")]
fn failing(rng: &mut fastrand::Rng) -> Op {
    let task = rng.u8(..3);
    match rng.u8(..24) {
        0..=3 => {
            // By its key an instance is known whose launch was not answered.
            let (key, delay) = (Some(rng.u8(..12)), [0, 0, 250][rng.usize(..3)]);
            Op::Launch(0, Launching { shape: rng.u8(..6), key, delay, ..UNKEYED })
        }
        4..=7 => Op::Claim(0, rng.u8(..2)),
        8..=11 => Op::Fail(task, ops::again(rng.u8(..))),
        12 => Op::Save(task, rng.u8(..)),
        13..=14 => Op::Decide(0, rng.u8(..), rng.u8(..4) > 0),
        15 => Op::Undecided(0, rng.u8(..4)),
        16 => Op::Complete(task, rng.u8(..6)),
        17..=18 => Op::Advance([1, 50, 150, 250, 1000][rng.usize(..5)]),
        19 => [Op::Cancel(0, rng.u8(..8)), Op::Terminate(0, rng.u8(..8)), Op::Beat(task)][rng.usize(..3)],
        20 => [Op::Start(0, 2, 0), Op::Move(0, rng.u8(..4)), Op::Drain][rng.usize(..3)],
        21 => Op::Step(rng.u8(1..4)),
        22 => {
            let faults = [Fault::CommitNot, Fault::CommitSeen, Fault::CommitMade, Fault::Read];
            Op::Fail1(faults[rng.usize(..4)], rng.u8(..8))
        }
        _ => Op::Reopen([Gone::Closed, Gone::Killed, Gone::PowerCut][rng.usize(..3)], 0),
    }
}

#[test]
fn any_failures_and_decisions_are_answered_as_by_one_store() {
    let (first, runs) = seeds();
    let (begun, mut total, mut done) = (Instant::now(), Seen::default(), 0);
    for seed in first..first + runs {
        // A busy machine does fewer; each of them counts.
        if done >= 100 && begun.elapsed() > Duration::from_secs(5) && runs <= 3_000 {
            break;
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let setup = Setup { buffered: rng.bool(), retention: rng.u8(..4), ..Setup::default() };
        let ops: Vec<Op> = (0..100).map(|_| failing(&mut rng)).collect();
        let seen = std::panic::catch_unwind(|| play(setup, &ops)).unwrap_or_else(|panic| {
            eprintln!("CUTOVER_SEED={seed} CUTOVER_RUNS=1 CUTOVER_TRACE=1 shows it");
            std::panic::resume_unwind(panic)
        });
        add(&mut total, seen);
        done += 1;
    }
    eprintln!("{done} runs in {:.1} s: {total:?}", begun.elapsed().as_secs_f64());
    assert!(total.decided > done && total.in_doubt > done / 10, "{total:?}");
}

// What was found.

/// Without a key, with one step.
const UNKEYED: Launching = Launching {
    definition: 0,
    key: None,
    request: None,
    conflict: ConflictPolicy::Fail,
    reuse: ReusePolicy::AllowDuplicate,
    shape: 1,
    delay: 0,
    input: 0,
};

/// A commit that failed was seen after the next opening, answered from, and lost by the power cut after that.
#[test]
fn what_is_answered_after_opening_survives_a_power_cut() {
    let ops = [
        Op::Fail1(Fault::CommitSeen, 0),
        Op::Define(0, 3, 0),
        Op::Reopen(Gone::Closed, 0),
        Op::Definition(0, 3),
        Op::Reopen(Gone::PowerCut, 0),
    ];
    play(Setup::default(), &ops);
}

/// Two tenants whose targets take no writes kept the replicator going in circles, each while the other one paused.
#[test]
fn failing_copies_pause_however_many_tenants_have_one() {
    let ops = [
        Op::Start(0, 3, 0),
        Op::Start(1, 3, 0),
        Op::Fail1(Fault::AnyCommit, 1),
        Op::Define(0, 3, 0),
        Op::Drain,
    ];
    play(Setup::default(), &ops);
}

/// A cancel that was refused, because the store took no writes, had told the workers to stop all the same.
#[test]
fn a_cancel_that_was_refused_tells_nobody_to_stop() {
    let ops = [
        Op::Launch(0, UNKEYED),
        Op::Claim(0, 0),
        Op::Fail1(Fault::CommitNot, 0),
        Op::Define(0, 3, 0),
        Op::Cancel(0, 0),
        Op::Beat(0),
    ];
    play(Setup::default(), &ops);
}

/// A store that was opened again is not used before the tenant's other store was read, and that read failed too. (The model was wrong: it took
/// the store for mended.)
#[test]
fn a_store_waits_to_be_used_again_until_the_other_one_can_be_read() {
    for skip in 0..6 {
        let ops = [
            Op::Start(0, 2, 8 + 4),
            Op::Drain,
            Op::Fail1(Fault::CommitSeen, 0),
            Op::Define(0, 3, 0),
            Op::Fail1(Fault::Read, skip),
            Op::Step(1),
            Op::Launch(0, UNKEYED),
            Op::Advance(1000),
            Op::Step(1),
            Op::Launch(0, UNKEYED),
        ];
        play(Setup::default(), &ops);
    }
}

/// While the store that a tenant is leaving is opened again it cannot be read, so nobody knows whether a key is live there. (The model thought
/// that only the store of the launches can be in the way of one.)
#[test]
fn a_launch_with_a_key_waits_for_both_stores() {
    let keyed = Launching { key: Some(0), ..UNKEYED };
    let ops = [
        // One launches into the store that the other one is leaving.
        Op::Start(0, 2, 8 + 4),
        Op::Start(1, 0, 8 + 4),
        Op::Drain,
        Op::Fail1(Fault::CommitNot, 0),
        Op::Launch(1, UNKEYED),
        Op::Fail1(Fault::Open, 0),
        Op::Step(1),
        Op::Launch(0, keyed),
        Op::Advance(1000),
        Op::Step(1),
        Op::Launch(0, keyed),
    ];
    play(Setup::default(), &ops);
}

/// The lease of a report that had happened without its worker knowing holds on, and so a cancel only asks. (The model thought it over.)
#[test]
fn a_cancel_waits_for_a_lease_whose_report_had_happened() {
    let ops = [
        Op::Launch(0, Launching { shape: 3, ..UNKEYED }),
        Op::Claim(0, 1),
        Op::Fail1(Fault::CommitMade, 0),
        Op::Complete(0, 0),
        Op::Step(2),
        Op::List(0, 0, 7),
        Op::Cancel(0, 0),
        Op::Complete(0, 0),
        Op::Claim(0, 1),
        Op::Reopen(Gone::Closed, 0),
    ];
    play(Setup::default(), &ops);
}

/// While a store is opened again, the steps in it are passed over. (The model gave them out.)
#[test]
fn steps_of_a_store_that_is_opened_again_keep_nobody_from_others() {
    let ops = [
        Op::Launch(0, UNKEYED),
        Op::Advance(1),
        Op::Launch(0, UNKEYED),
        Op::Start(0, 2, 8 + 4),
        Op::Drain,
        Op::Advance(1000),
        Op::Launch(0, UNKEYED),
        Op::Fail1(Fault::CommitNot, 0),
        Op::End(0, 2, Ending::Completed),
        Op::Fail1(Fault::Open, 0),
        Op::Step(1),
        Op::Claim(0, 0),
        Op::Advance(1000),
        Op::Step(1),
        Op::Claim(0, 0),
    ];
    play(Setup::default(), &ops);
}

/// A report may have happened also where an earlier call had left the instance in doubt. (The model took it for nothing.)
#[test]
fn a_report_in_doubt_about_an_instance_in_doubt_may_have_happened() {
    let ops = [
        Op::Fail1(Fault::CommitMade, 0),
        Op::Launch(0, Launching { shape: 3, ..UNKEYED }),
        Op::Step(2),
        Op::Claim(0, 1),
        Op::Fail1(Fault::CommitMade, 0),
        Op::Fail(0, Again::Never),
        Op::Step(2),
        Op::Cancel(0, 0),
    ];
    play(Setup::default(), &ops);
}

/// A launch whose outcome was unknown is answered when it is repeated, by then with launches going elsewhere. (The model took it for a new one.)
#[test]
fn a_repeated_launch_is_answered_with_the_instance_of_where_launches_went_then() {
    let requested = Op::Launch(0, Launching { request: Some(0), ..UNKEYED });
    let ops = [
        Op::Start(0, 2, 8 + 4),
        Op::Drain,
        Op::Fail1(Fault::CommitMade, 0),
        requested,
        Op::Step(2),
        Op::Move(0, 3),
        Op::Step(4),
        requested,
    ];
    play(Setup { retention: 2, ..Setup::default() }, &ops);
}
