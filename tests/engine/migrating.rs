//! Migrations: through all phases, held, reversed, cancelled; what stays true in each.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::{
    Completion, ConflictPolicy, Defined, Ending, ErrorKind, Event, Hold, Launched, MigrationOptions, Move,
    Observer, Phase, Role, Settled, StoreStatus, Tenant,
};
use parking_lot::Mutex;

use crate::common::{
    DROP, Home, KEEP, LONG, keyed, many, memory, reach, settle, started, tenant, with_step, work,
};

fn held() -> MigrationOptions {
    MigrationOptions::default().hold_switch(true).hold_complete(true)
}

fn store(tenant: &Tenant) -> u32 {
    let status = tenant.status();
    status.store(status.home()).unwrap().0
}

/// Launches one instance with a step and ends it, so that nothing is left to drain.
fn launch_and_end(tenant: &Tenant, key: &str) {
    let id = started(tenant.launch(&keyed(key)).unwrap());
    assert_eq!(id.store(), tenant.status().store(tenant.status().home()).unwrap());
    tenant.end(id, Ending::Completed, b"", "").unwrap();
}

#[test]
fn forward_by_itself() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    for n in 0..1_000 {
        tenant.define(&format!("d{n}"), 1, "t", format!("body {n}").as_bytes()).unwrap();
    }
    launch_and_end(&tenant, "before");
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    settle(&tenant);
    let status = tenant.status();
    assert_eq!((status.phase, status.initial.0, status.target), (Phase::Stable, 2, None));
    for n in 0..1_000 {
        let body = tenant.definition(&format!("d{n}"), 1).unwrap().unwrap().body;
        assert_eq!(body, format!("body {n}").as_bytes());
    }
    launch_and_end(&tenant, "after");
    let phases: Vec<Phase> = tenant.migration().journal().unwrap().iter().map(|line| line.to).collect();
    let through = [Phase::Stable, Phase::PreMigration, Phase::Migration, Phase::PostMigration, Phase::Stable];
    assert_eq!(phases[..5], through);
    assert!(engine.store_path(cutover::StoreId(1)).is_none(), "the initial store is gone");
}

#[test]
fn running_work_goes_on_where_it_is_and_holds_the_store_back() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    let worker = tenant.register(many("w")).unwrap();
    let old = started(tenant.launch(&with_step("old")).unwrap());
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    let new = started(tenant.launch(&with_step("new")).unwrap());
    assert_eq!((old.store().0, new.store().0), (1, 2));
    assert_eq!(tenant.launch(&keyed("old")).unwrap(), Launched::Conflict { instance: old });
    assert_eq!(tenant.launch(&keyed("new")).unwrap(), Launched::Conflict { instance: new });
    assert_eq!(tenant.instance_by_key("scope", b"old").unwrap().unwrap().id, old);
    let err = tenant.migration().complete().unwrap_err();
    assert_eq!(err.kind(), ErrorKind::IllegalMove);
    // It may not have been compared yet; then that is what is in the way.
    let named = err.to_string().contains(&old.to_string()) || err.to_string().contains("compared");
    assert!(named, "{err}");
    assert_eq!(
        worker.complete(&task, Completion::default()).unwrap(),
        Settled::Done { ended: Some(Ending::Completed) }
    );
    settle(&tenant);
    assert_eq!(tenant.instance(new).unwrap().unwrap().id, new);
    assert!(tenant.instance(old).unwrap().is_none());
}

#[test]
fn complete_before_drained_names_what_is_in_the_way() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    tenant.migration().start(memory("b"), held()).unwrap();
    let until = std::time::Instant::now() + LONG;
    while tenant.migration().switch().is_err() {
        assert!(std::time::Instant::now() < until, "{:?}", tenant.migration().progress());
    }
    reach(&tenant, Phase::PostMigration);
    while !tenant.migration().progress().waiting_for.contains("drain") {
        assert!(std::time::Instant::now() < until, "{:?}", tenant.migration().progress());
    }
    let err = tenant.migration().complete().unwrap_err();
    assert_eq!(err.kind(), ErrorKind::IllegalMove);
    let text = err.to_string();
    assert!(text.contains(&id.to_string()) && text.contains("legal now: complete, reverse"), "{text}");
    let lost = tenant.migration().complete_abandoning().unwrap();
    assert!(lost.iter().any(|what| what.contains(&id.to_string())), "{lost:?}");
    settle(&tenant);
    assert!(tenant.instance(id).unwrap().is_none());
    assert!(tenant.definition("work", 1).unwrap().is_some());
}

#[test]
fn every_illegal_move_says_what_is_legal() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    let migration = tenant.migration();
    for refused in [migration.switch(), migration.complete(), migration.cancel(), migration.reverse()] {
        let err = refused.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::IllegalMove);
        assert!(err.to_string().ends_with("in phase stable; legal now: start"), "{err}");
    }
    assert_eq!(migration.hold(Hold::All).unwrap_err().kind(), ErrorKind::IllegalMove);
    assert_eq!(migration.start(memory("a"), held()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let unknown = migration.start(cutover::StoreSpec::driver("tape"), held()).unwrap_err();
    assert!(
        unknown.to_string().starts_with("there is no driver \"tape\"; this build has memory"),
        "{unknown}"
    );
    migration.start(memory("b"), held()).unwrap();
    assert_eq!(migration.start(memory("c"), held()).unwrap_err().kind(), ErrorKind::IllegalMove);
    let before = tenant.status();
    assert_eq!(migration.reverse().unwrap_err().kind(), ErrorKind::IllegalMove);
    assert_eq!(tenant.status(), before, "nothing changed");
    assert_eq!(migration.progress().legal, [Move::Switch, Move::Cancel]);
}

#[test]
fn cancel_leaves_the_tenant_as_it_was() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    tenant.migration().start(memory("b"), held()).unwrap();
    tenant.define("during", 1, "t", b"x").unwrap();
    tenant.migration().cancel().unwrap();
    settle(&tenant);
    assert_eq!((tenant.status().phase, store(&tenant)), (Phase::Stable, 1));
    assert!(tenant.instance(id).unwrap().is_some());
    assert!(tenant.definition("during", 1).unwrap().is_some());
    assert!(engine.store_path(cutover::StoreId(2)).is_none());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    assert_eq!(store(&tenant), 3, "a store id is never used again");
}

#[test]
fn reverse_from_post_migration_and_back_again() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    let old = started(tenant.launch(&with_step("old")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    let new = started(tenant.launch(&with_step("new")).unwrap());
    tenant.define("late", 1, "t", b"x").unwrap();
    tenant.migration().reverse().unwrap();
    reach(&tenant, Phase::PostRollback);
    assert_eq!(store(&tenant), 1);
    for id in [old, new] {
        assert!(tenant.instance(id).unwrap().unwrap().ending().is_none());
    }
    assert_eq!(tenant.launch(&keyed("new")).unwrap(), Launched::Conflict { instance: new });
    tenant.migration().reverse().unwrap();
    reach(&tenant, Phase::PostMigration);
    assert_eq!(store(&tenant), 2);
    assert_eq!(tenant.launch(&keyed("new")).unwrap(), Launched::Conflict { instance: new });
    tenant.migration().reverse().unwrap();
    reach(&tenant, Phase::PostRollback);
    tenant.terminate(new, "").unwrap();
    settle(&tenant);
    assert_eq!((store(&tenant), tenant.status().phase), (1, Phase::Stable));
    assert!(tenant.instance(old).unwrap().is_some());
    assert_eq!(tenant.define("late", 1, "t", b"x").unwrap(), Defined::Unchanged);
}

#[test]
fn reverse_from_migration_while_the_wait_of_the_close_is_pending() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    tenant.migration().start(memory("b"), held().hold_switch(true)).unwrap();
    while engine.step().unwrap() || tenant.migration().progress().waiting_for != "being released" {}
    tenant.migration().switch().unwrap();
    assert_eq!((tenant.status().phase, store(&tenant)), (Phase::Migration, 2));
    let in_target = started(tenant.launch(&with_step("k")).unwrap());
    tenant.migration().reverse().unwrap();
    assert_eq!((tenant.status().phase, store(&tenant)), (Phase::RollingBack, 1));
    assert_eq!(tenant.launch(&keyed("k")).unwrap(), Launched::Conflict { instance: in_target });
    while tenant.status().phase != Phase::PostRollback {
        engine.step().unwrap();
    }
    assert_eq!(tenant.instance(in_target).unwrap().unwrap().ending(), None);
}

#[test]
fn a_reverse_in_pre_rollback_goes_forward_again() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&keyed("old")).unwrap());
    let options = MigrationOptions::default().dwell(Phase::PreRollback, LONG);
    tenant.migration().start(memory("b"), options).unwrap();
    while tenant.status().phase != Phase::PostMigration {
        engine.step().unwrap();
    }
    tenant.migration().reverse().unwrap();
    while tenant.status().phase != Phase::PreRollback {
        engine.step().unwrap();
    }
    let status = tenant.status();
    assert_eq!((status.initial_status, status.target_status), (StoreStatus::Open, StoreStatus::Open));
    assert_eq!((status.primary, store(&tenant)), (Role::Target, 2));
    tenant.migration().reverse().unwrap();
    assert_eq!((tenant.status().phase, store(&tenant)), (Phase::PostMigration, 2));
}

#[test]
fn a_replacement_across_stores_ends_the_one_and_starts_the_other() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let old = started(tenant.launch(&with_step("k")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    let replace = with_step("k").on_conflict(ConflictPolicy::TerminateExisting).request_id("r");
    let new = started(tenant.launch(&replace).unwrap());
    assert_eq!((old.store().0, new.store().0), (1, 2));
    assert_eq!(tenant.instance(old).unwrap().unwrap().ending(), Some(Ending::Terminated));
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap().unwrap().id, new);
    assert_eq!(started(tenant.launch(&replace).unwrap()), new);
}

#[test]
fn a_request_repeated_after_the_cutover_gets_the_answer_from_before_it() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let request = work().request_id("r");
    let id = started(tenant.launch(&request).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    assert_eq!(started(tenant.launch(&request).unwrap()), id);
}

/// Ended keys are looked up in both stores, and the later epoch decides, also where "home first" would be wrong.
#[test]
fn after_a_reverse_the_later_end_of_a_key_decides() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let failed = started(tenant.launch(&keyed("k")).unwrap());
    tenant.end(failed, Ending::Failed, b"", "").unwrap();
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    let completed = started(tenant.launch(&keyed("k")).unwrap());
    tenant.end(completed, Ending::Completed, b"", "").unwrap();
    tenant.migration().reverse().unwrap();
    reach(&tenant, Phase::PostRollback);
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap().unwrap().id, completed);
    let failed_only = keyed("k").reuse(cutover::ReusePolicy::AllowDuplicateFailedOnly);
    let rejected = Launched::Rejected { instance: completed, ending: Ending::Completed };
    assert_eq!(tenant.launch(&failed_only).unwrap(), rejected);
}

#[test]
fn a_paused_migration_does_nothing_until_it_is_resumed() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    tenant.migration().hold(Hold::All).unwrap();
    for _ in 0..20 {
        engine.step().unwrap();
    }
    assert_eq!(tenant.status().phase, Phase::PreMigration);
    assert_eq!(tenant.migration().progress().waiting_for, "being resumed");
    tenant.migration().release(Hold::All).unwrap();
    while tenant.status().phase != Phase::Stable {
        engine.step().unwrap();
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<Event>>);

impl Observer for Seen {
    fn on_event(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

#[test]
fn whoever_watches_sees_each_phase_and_each_wait_in_order() {
    let home = Home::new();
    let seen = Arc::new(Seen::default());
    let engine = home.builder().observer(seen.clone()).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    launch_and_end(&tenant, "k");
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    settle(&tenant);
    let seen = seen.0.lock();
    let epochs: Vec<(u64, bool)> = seen
        .iter()
        .filter_map(|event| match event {
            Event::Phase { epoch, .. } => Some((*epoch, false)),
            Event::Waited { epoch, .. } => Some((*epoch, true)),
            _ => None,
        })
        .collect();
    let expected: Vec<(u64, bool)> = (2..=5).flat_map(|epoch| [(epoch, false), (epoch, true)]).collect();
    assert_eq!(epochs, expected);
    assert!(seen.iter().any(|event| matches!(event, Event::Collecting { .. })));
}

/// What was compared before a close does not count after it: a definition may have come to one store only since.
#[test]
fn both_stores_are_compared_in_the_phase_that_gives_one_up() {
    let home = Home::new();
    let seen = Arc::new(Seen::default());
    let engine = home.builder().observer(seen.clone()).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    let live = started(tenant.launch(&keyed("k")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    tenant.migration().reverse().unwrap();
    settle(&tenant);
    tenant.migration().start(memory("c"), MigrationOptions::default()).unwrap();
    reach(&tenant, Phase::PostMigration);
    tenant.end(live, Ending::Completed, b"", "").unwrap();
    settle(&tenant);
    let (mut compared, mut left) = (false, Vec::new());
    for event in seen.0.lock().iter() {
        match event {
            Event::Waited { .. } => compared = false,
            Event::Verified { .. } => compared = true,
            Event::Phase { from, .. } => left.push((*from, compared)),
            _ => {}
        }
    }
    let expected = [
        (Phase::Stable, false),
        (Phase::PreMigration, true),
        (Phase::Migration, false),
        (Phase::PostMigration, true),
        // Definitions went to both throughout.
        (Phase::PreRollback, false),
        (Phase::RollingBack, false),
        (Phase::PostRollback, true),
        (Phase::Stable, false),
        (Phase::PreMigration, true),
        (Phase::Migration, false),
        (Phase::PostMigration, true),
    ];
    assert_eq!(left, expected);
}

/// Each phase dwells from its own beginning.
#[test]
fn the_dwells_of_two_phases_add_up() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    let minute = Duration::from_secs(60);
    let options =
        MigrationOptions::default().dwell(Phase::PreMigration, minute).dwell(Phase::PostMigration, minute);
    tenant.migration().start(memory("b"), options).unwrap();
    let short = Duration::from_millis(1);
    let expected = [
        (Duration::ZERO, Phase::PreMigration),
        (minute - short, Phase::PreMigration),
        (short, Phase::PostMigration),
        (minute - short, Phase::PostMigration),
        (short, Phase::Stable),
    ];
    for (passed, phase) in expected {
        clock.advance(passed);
        for _ in 0..20 {
            engine.step().unwrap();
        }
        assert_eq!(tenant.status().phase, phase, "{:?}", tenant.migration().progress());
    }
}

#[test]
fn a_rate_limit_holds_and_progress_counts() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    for n in 0..64 {
        tenant.define(&format!("d{n:03}"), 1, "t", &vec![n; 64 << 10]).unwrap();
    }
    let begun = std::time::Instant::now();
    // 4 MiB to copy, in batches of 1 MiB, at 8 MiB a second.
    tenant.migration().start(memory("b"), held().rate(8 << 20)).unwrap();
    let mut seen = Vec::new();
    while tenant.migration().progress().waiting_for != "being released" {
        let copy = tenant.migration().progress().copy;
        if seen.last() != Some(&copy.copied) {
            seen.push(copy.copied);
        }
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    let copy = tenant.migration().progress().copy;
    assert_eq!((copy.copied, copy.total, copy.compared), (65, 65, 65));
    assert!(seen.is_sorted() && seen.len() > 2, "{seen:?}");
    assert!(begun.elapsed() >= Duration::from_millis(375), "{:?}", begun.elapsed());
}
