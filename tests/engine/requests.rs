//! Answered requests that outlast everything else: they do not hold a store back, and are answered as before.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::{
    Ending, Engine, Hold, InstanceId, Launch, Launched, MigrationOptions, Phase, Retention, Tenant,
};

use crate::common::{Home, LONG, keyed, memory, started, tenant};

/// Only requests are kept: an hour.
const REQUESTS: Retention = Retention { instance_ms: 0, key_ms: 0, request_ms: 3_600_000 };

fn requests() -> [Launch; 2] {
    [keyed("k").request_id("r"), keyed("k").request_id("refused")]
}

/// A request that started an instance, which has ended since, and one that was refused because of it.
fn answered(tenant: &Tenant) -> (InstanceId, Launched) {
    let [first, second] = requests();
    let id = started(tenant.launch(&first).unwrap());
    let refused = tenant.launch(&second).unwrap();
    assert_eq!(refused, Launched::Conflict { instance: id });
    tenant.end(id, Ending::Completed, b"", "").unwrap();
    (id, refused)
}

fn still_answered(tenant: &Tenant, (id, refused): (InstanceId, Launched)) {
    let [first, second] = requests();
    assert_eq!(tenant.launch(&first).unwrap(), Launched::Started(id));
    assert_eq!(tenant.launch(&second).unwrap(), refused);
}

fn step_until(engine: &Engine, tenant: &Tenant, there: impl Fn(&Tenant) -> bool) {
    for _ in 0..10_000 {
        if there(tenant) {
            return;
        }
        engine.step().unwrap();
        // The replicator's and the driver's naps are real time.
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{:?}", tenant.migration().progress());
}

fn drained(tenant: &Tenant) -> bool {
    tenant.migration().progress().waiting_for == "being released"
}

#[test]
fn requests_do_not_hold_a_store_back_and_outlast_it() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), REQUESTS);
    let answers = answered(&tenant);
    for target in ["b", "c"] {
        tenant.migration().start(memory(target), MigrationOptions::default().hold_complete(true)).unwrap();
        step_until(&engine, &tenant, drained);
        assert_eq!(tenant.status().phase, Phase::PostMigration);
        still_answered(&tenant, answers);
        tenant.migration().release(Hold::Complete).unwrap();
        step_until(&engine, &tenant, |tenant| tenant.migration().wait_settled(Duration::ZERO).unwrap());
        still_answered(&tenant, answers);
    }
    assert_eq!(engine.store_path(answers.0.store()), None, "the store of the answer is gone");
    // Its deadline went with it.
    clock.advance(Duration::from_secs(3_600));
    while engine.step().unwrap() {}
    let again = started(tenant.launch(&requests()[0]).unwrap());
    assert_ne!(again, answers.0);
}

#[test]
fn requests_are_answered_after_a_crash_on_their_way_and_after_a_way_back() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let first = tenant(&engine, memory("a"), REQUESTS);
    let answers = answered(&first);
    first.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    step_until(&engine, &first, drained);
    // The copies are durable and the removals are not: now both stores have them.
    drop(first);
    home.kill(engine);
    let engine = home.builder().background(false).open().unwrap();
    let again = engine.tenant("acme").unwrap();
    still_answered(&again, answers);
    step_until(&engine, &again, drained);
    still_answered(&again, answers);
    again.migration().reverse().unwrap();
    step_until(&engine, &again, |tenant| tenant.status().phase == Phase::PostRollback);
    still_answered(&again, answers);
    step_until(&engine, &again, drained);
    again.migration().complete().unwrap();
    step_until(&engine, &again, |tenant| tenant.migration().wait_settled(Duration::ZERO).unwrap());
    assert_eq!(again.status().initial, answers.0.store());
    still_answered(&again, answers);
    engine.close(LONG).unwrap();
}
