//! A panic in a thread of the engine is an error that the next call reports, and the directory opens again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::{Ending, ErrorKind, Event, MigrationOptions, Observer, Phase};

use crate::common::{DROP, Home, LONG, keyed, memory, settle, started, tenant};

/// Panics in the thread that tells it of what it is armed for.
struct Trap(fn(&Event) -> bool);

impl Observer for Trap {
    fn on_event(&self, event: &Event) {
        assert!(!(self.0)(event), "the trap was sprung");
    }
}

fn is_reported_by_the_next_call(armed: fn(&Event) -> bool, thread: &str) {
    let home = Home::new();
    let engine = home.builder().observer(Arc::new(Trap(armed))).open().unwrap();
    let before = tenant(&engine, memory("a"), DROP);
    let id = started(before.launch(&keyed("k")).unwrap());
    before.end(id, Ending::Completed, b"", "").unwrap();
    // Where the thread is quick, the start itself is the next call.
    let mut told = before.migration().start(memory("b"), MigrationOptions::default()).map(drop);
    let until = Instant::now() + LONG;
    while told.is_ok() {
        assert!(Instant::now() < until, "no call reported it");
        told = before.launch(&keyed("k").on_conflict(cutover::ConflictPolicy::UseExisting)).map(drop);
    }
    let err = told.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Panicked, "{err}");
    assert!(err.to_string().contains(thread) && err.to_string().contains("the trap was sprung"), "{err}");
    assert_eq!(engine.close(Duration::from_secs(10)).unwrap_err().kind(), ErrorKind::Panicked);
    drop((before, engine));
    let engine = home.open();
    let after = engine.tenant("acme").unwrap();
    if let Some(live) = after.instance_by_key("scope", b"k").unwrap().filter(|found| found.ending().is_none())
    {
        after.end(live.id, Ending::Completed, b"", "").unwrap();
    }
    settle(&after);
    assert!(after.definition("work", 1).unwrap().is_some());
}

#[test]
fn a_panic_of_the_collector_is_reported_by_the_next_call() {
    is_reported_by_the_next_call(|event| matches!(event, Event::Collecting { .. }), "cutover-collect");
}

#[test]
fn a_panic_of_the_replicator_is_reported_by_the_next_call() {
    is_reported_by_the_next_call(|event| matches!(event, Event::Verified { .. }), "cutover-copy");
}

#[test]
fn a_panic_of_the_driver_is_reported_by_the_next_call() {
    let armed = |event: &Event| matches!(event, Event::Phase { to: Phase::PostMigration, .. });
    is_reported_by_the_next_call(armed, "cutover-drive");
}
