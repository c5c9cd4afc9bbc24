//! Wall clocks that jump, during a run and between runs.

use std::time::Duration;

use cutover::{Beat, Ending, InstanceState, Launched, NewStep, Retention, Settled};

use crate::tap::{HOUR, Home, KEEP, START, keyed, many, started, tenant, work_off};

/// Everything that has ended is kept for an hour.
const AN_HOUR: Retention = Retention { instance_ms: 3_600_000, key_ms: 3_600_000, request_ms: 3_600_000 };

#[test]
fn a_wall_clock_that_jumps_during_a_run_moves_no_lease_and_no_deadline() {
    for jump in [START + 10 * 3_600_000, START - 10 * 3_600_000, 0, u64::MAX] {
        let home = Home::new();
        let engine = home.open();
        let tenant = tenant(&engine, "a", AN_HOUR);
        let worker = tenant.register(many("w")).unwrap();
        let ended = started(tenant.launch(&keyed("ended")).unwrap());
        tenant.end(ended, Ending::Completed, b"", "").unwrap();
        let later = keyed("later").start_in(HOUR).step(NewStep::new("s").queue("later"));
        let later = started(tenant.launch(&later).unwrap());
        started(tenant.launch(&keyed("held").step(NewStep::new("s"))).unwrap());
        let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();

        home.clock.set_wall(jump);
        for passed in [Duration::from_secs(1), HOUR - Duration::from_secs(2)] {
            home.clock.advance(passed);
            work_off(&engine);
            assert!(tenant.instance(ended).unwrap().is_some(), "collected early");
            assert_eq!(tenant.instance(later).unwrap().unwrap().state, InstanceState::Scheduled);
            assert!(worker.claim("later", Duration::ZERO).unwrap().is_none(), "given early");
            assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None, "its lease holds");
        }
        assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed);
        home.clock.set_wall(START);
        home.clock.advance(Duration::from_secs(1));
        work_off(&engine);
        assert!(tenant.instance(ended).unwrap().is_none(), "its hour is over");
        assert!(worker.claim("later", Duration::ZERO).unwrap().is_some(), "its hour has come");
        let settled = worker.complete(&task, cutover::Completion::default()).unwrap();
        assert!(matches!(settled, Settled::Done { .. }));
        home.clock.advance(HOUR);
        assert!(matches!(worker.heartbeat(&task).unwrap(), Beat::Refused(_)));
    }
}

#[test]
fn a_wall_clock_set_back_between_runs_takes_nothing_back_and_one_set_forward_is_believed() {
    let home = Home::new();
    let engine = home.open();
    let before = tenant(&engine, "a", AN_HOUR);
    let ended = started(before.launch(&keyed("ended")).unwrap());
    before.end(ended, Ending::Completed, b"", "").unwrap();
    let told = before.instance(ended).unwrap().unwrap().ended_ms.unwrap();
    drop((before, engine));

    home.clock.set_wall(START - 5 * 3_600_000);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    let next = started(tenant.launch(&keyed("next")).unwrap());
    assert!(tenant.instance(next).unwrap().unwrap().launched_ms >= told, "time went back");
    home.clock.advance(HOUR - Duration::from_secs(1));
    work_off(&engine);
    assert!(tenant.instance(ended).unwrap().is_some(), "its hour is not over");
    drop((tenant, engine));

    // Nobody can tell a clock that was set forward from a machine that was off.
    home.clock.set_wall(START + 5 * 3_600_000);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    work_off(&engine);
    assert!(tenant.instance(ended).unwrap().is_none());
    assert!(tenant.instance(next).unwrap().is_some(), "it lives");
    assert_eq!(tenant.launch(&keyed("next")).unwrap(), Launched::Conflict { instance: next });
}

/// Engine time over many runs, most of which end in a crash: it never goes back, and after a crash it is ahead by two seconds at most.
#[test]
fn engine_time_never_goes_back_over_crashes_however_the_wall_clock_is_set() {
    let home = Home::new();
    drop(tenant(&home.open(), "a", KEEP));
    let mut random = fastrand::Rng::with_seed(5);
    let (mut last, mut reached, mut runs) = (0, 0, 0);
    for round in 0..60 {
        let wall = START + random.u64(0..20) * 60_000;
        home.clock.set_wall(wall);
        let engine = home.open();
        let tenant = engine.tenant("acme").unwrap();
        for at in 0..random.u32(1..6) {
            let id = started(tenant.launch(&keyed(&format!("{round}-{at}"))).unwrap());
            let now = tenant.instance(id).unwrap().unwrap().launched_ms;
            assert!(now >= last, "round {round}: {now} after {last}");
            assert!(
                at > 0 || now <= wall.max(reached) + 2_000,
                "round {round}: {now} is far ahead of {reached}"
            );
            last = now;
            let passed = random.u64(0..5_000);
            home.clock.advance(Duration::from_millis(passed));
            reached = now + passed;
            if random.bool() {
                engine.step().unwrap();
            }
        }
        // What a crash at this moment leaves.
        let files = home.files();
        drop((tenant, engine));
        if random.u8(..4) > 0 {
            home.restore(&files);
            runs += 1;
        }
    }
    assert!(runs > 20);
}
