//! The largest and the smallest that a caller can ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutover::{
    Again, Completion, Ending, Event, Failure, Filter, InstanceState, MigrationOptions, NewStep, Observer,
    Phase, Retention, Settled,
};

use crate::common::{DROP, Home, LONG, keyed, many, memory, reach, started, tenant, work};

const FOREVER: Retention = Retention { instance_ms: u64::MAX, key_ms: u64::MAX, request_ms: u64::MAX };

#[test]
fn what_is_kept_for_ever_is_kept() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), FOREVER);
    let id = started(tenant.launch(&keyed("k").request_id("r")).unwrap());
    tenant.end(id, Ending::Completed, b"out", "").unwrap();
    while engine.step().unwrap() {}
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap().unwrap().output, b"out");
    assert_eq!(started(tenant.launch(&keyed("k").request_id("r")).unwrap()), id);
}

/// How many instances were collected.
#[derive(Default)]
struct Collected(AtomicU64);

impl Observer for Collected {
    fn on_event(&self, event: &Event) {
        if matches!(event, Event::Collecting { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn more_than_one_look_at_the_deadlines_has_room_for_goes_in_one_go() {
    const MANY: u64 = 600;
    let (home, collected) = (Home::new(), Arc::new(Collected::default()));
    let engine = home.builder().observer(collected.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    for _ in 0..MANY {
        let id = started(tenant.launch(&work()).unwrap());
        tenant.end(id, Ending::Completed, b"", "").unwrap();
    }
    while engine.step().unwrap() {}
    assert_eq!(collected.0.load(Ordering::Relaxed), MANY);
}

#[test]
fn what_starts_in_a_million_years_is_scheduled() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), FOREVER);
    let id = started(tenant.launch(&work().step(NewStep::new("s")).start_in(Duration::MAX)).unwrap());
    assert_eq!(tenant.instance(id).unwrap().unwrap().state, InstanceState::Scheduled);
    assert_eq!(tenant.register(many("w")).unwrap().claim("default", Duration::ZERO).unwrap(), None);
}

#[test]
fn leases_and_delays_may_be_of_any_length() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), FOREVER);
    let worker = tenant.register(many("w")).unwrap();
    let id = started(tenant.launch(&work().step(NewStep::new("s")).step(NewStep::new("t"))).unwrap());
    let claim = || worker.claim("default", Duration::ZERO).unwrap();
    let (one, other) = (claim().unwrap(), claim().unwrap());
    let never = Failure { reason: String::new(), again: Again::After(Duration::MAX) };
    assert_eq!(worker.fail(&one, &never).unwrap(), Settled::Done { ended: None });
    assert_eq!(worker.complete(&other, Completion::default()).unwrap(), Settled::Done { ended: None });
    assert_eq!(claim(), None);
    assert_eq!(tenant.instance(id).unwrap().unwrap().open_steps, 1);
}

#[test]
fn a_dwell_without_end_ends_when_it_is_told_to() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), FOREVER);
    // Held at the end: nothing is in the way, and a phase that is over at once may be missed.
    let options = MigrationOptions::default().dwell(Phase::PreMigration, Duration::MAX).hold_complete(true);
    tenant.migration().start(memory("b"), options).unwrap();
    let until = std::time::Instant::now() + LONG;
    while tenant.migration().progress().waiting_for != "the dwell of the phase to pass" {
        assert!(std::time::Instant::now() < until, "{:?}", tenant.migration().progress());
        std::thread::sleep(Duration::from_millis(1));
    }
    tenant.migration().switch().unwrap();
    reach(&tenant, Phase::PostMigration);
}

#[test]
fn a_page_of_nothing_is_not_the_end() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), FOREVER);
    let ids = [(); 2].map(|()| started(tenant.launch(&work()).unwrap()));
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = tenant.list(&Filter::default(), after, 0).unwrap();
        found.extend(page.instances.iter().map(|instance| instance.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.sort_unstable();
    assert!(ids.iter().all(|id| found.contains(id)) && found.len() == 2, "{found:?}");
    assert!(tenant.launch_batch(&[]).0.is_empty());
}
