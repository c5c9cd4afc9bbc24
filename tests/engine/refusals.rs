//! What is refused: in one sentence that names the culprit and, for a move, what is legal now and what is in the way. And
//! that nothing has changed then, down to the bytes of the metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover::formats::meta::Outcome;
use cutover::migration::phase;
use cutover::{
    Completion, Ending, Engine, ErrorKind, Hold, Launch, MigrationOptions, Move, NewStep, Phase, StoreSpec,
    Tenant, TenantOptions,
};

use crate::common::{DROP, Home, KEEP, LONG, keyed, many, memory, started, tenant, with_step, work};

/// Every file of the metadata, with its bytes.
fn metadata(home: &Home) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(home.path().join("data/meta")).unwrap();
    files
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// The sentence with which it is refused, after a look at whether anything has changed.
fn refused<T: std::fmt::Debug>(
    home: &Home,
    kind: ErrorKind,
    call: impl FnOnce() -> cutover::Result<T>,
) -> String {
    let before = metadata(home);
    let err = call().unwrap_err();
    assert_eq!(err.kind(), kind, "{err}");
    assert!(metadata(home) == before, "{err}: the metadata has changed");
    let text = err.to_string();
    assert!(!text.contains('\n') && !text.ends_with([' ', ':', ';']), "{text:?}");
    text
}

#[cfg(target_os = "linux")]
#[test]
fn no_move_begins_onto_a_disk_with_too_little_room() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    let Some(disk) = crate::mounts::Disk::small(63) else { return };
    let start = || tenant.migration().start(disk.store("memory"), MigrationOptions::default());
    let text = refused(&home, ErrorKind::Io, start);
    let said = format!("{} has 63 MiB free, less than the 64 MiB", disk.path.display());
    assert!(text.contains(&said), "{text}");
    let Some(disk) = crate::mounts::Disk::small(64) else { return };
    tenant.migration().start(disk.store("memory"), MigrationOptions::default()).unwrap();
}

fn make(tenant: &Tenant, tried: Move) -> cutover::Result<()> {
    let migration = tenant.migration();
    match tried {
        Move::Start => migration.start(memory("elsewhere"), MigrationOptions::default()).map(drop),
        Move::Switch => migration.switch(),
        Move::Complete => migration.complete(),
        Move::Cancel => migration.cancel(),
        Move::Reverse => migration.reverse(),
        Move::Designate => unreachable!("the engine's own"),
    }
}

fn step_until(engine: &Engine, tenant: &Tenant, phase: Phase) {
    for _ in 0..10_000 {
        if tenant.status().phase == phase {
            return;
        }
        engine.step().unwrap();
    }
    panic!("still in {}: {:?}", tenant.status().phase, tenant.migration().progress());
}

fn step_until_it_waits_for(engine: &Engine, tenant: &Tenant, what: &str) {
    for _ in 0..10_000 {
        if tenant.migration().progress().waiting_for.contains(what) {
            return;
        }
        engine.step().unwrap();
    }
    panic!("{:?}", tenant.migration().progress());
}

/// Tries every move that is not legal here, and says how many those were.
fn every_illegal_move(home: &Home, tenant: &Tenant, phase: Phase) -> usize {
    assert_eq!(tenant.status().phase, phase);
    let status = tenant.status();
    let legal = phase::legal(phase);
    let words: Vec<&str> = legal.iter().map(|legal| legal.name()).collect();
    let words =
        if words.is_empty() { "nothing, the engine goes on by itself".to_owned() } else { words.join(", ") };
    let illegal = Move::ALL.into_iter().filter(|tried| *tried != Move::Designate && !legal.contains(tried));
    illegal
        .map(|tried| {
            let text = refused(home, ErrorKind::IllegalMove, || make(tenant, tried));
            assert_eq!(text, format!("{tried} is not legal in phase {phase}; legal now: {words}"));
            assert_eq!(tenant.status(), status);
        })
        .count()
}

#[test]
fn an_illegal_move_in_any_phase_says_what_is_legal_and_changes_nothing() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("k")).unwrap());
    let mut tried = every_illegal_move(&home, &tenant, Phase::Stable);
    let options = MigrationOptions::default().hold_switch(true).hold_complete(true);
    tenant.migration().start(memory("b"), options.dwell(Phase::PreRollback, LONG)).unwrap();
    tried += every_illegal_move(&home, &tenant, Phase::PreMigration);
    step_until_it_waits_for(&engine, &tenant, "being released");
    tenant.migration().switch().unwrap();
    tried += every_illegal_move(&home, &tenant, Phase::Migration);
    step_until(&engine, &tenant, Phase::PostMigration);
    tried += every_illegal_move(&home, &tenant, Phase::PostMigration);
    tenant.migration().reverse().unwrap();
    step_until(&engine, &tenant, Phase::PreRollback);
    tried += every_illegal_move(&home, &tenant, Phase::PreRollback);
    step_until_it_waits_for(&engine, &tenant, "dwell");
    tenant.migration().switch().unwrap();
    tried += every_illegal_move(&home, &tenant, Phase::RollingBack);
    step_until(&engine, &tenant, Phase::PostRollback);
    tried += every_illegal_move(&home, &tenant, Phase::PostRollback);
    // Five moves an operator can try in seven phases, of which ten are legal.
    assert_eq!(tried, 5 * 7 - 10);
}

/// And how it ended is told as it was.
#[test]
fn a_reverse_of_a_reverse_ends_in_the_target_and_one_reverse_where_it_began() {
    for (reverses, outcome) in [(0, Outcome::Completed), (1, Outcome::RolledBack), (2, Outcome::Completed)] {
        let home = Home::new();
        let engine = home.builder().background(false).open().unwrap();
        let tenant = tenant(&engine, memory("a"), DROP);
        let before = tenant.status().initial;
        tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
        step_until(&engine, &tenant, Phase::PostMigration);
        for phase in [Phase::PostRollback, Phase::PostMigration].into_iter().take(reverses) {
            tenant.migration().reverse().unwrap();
            step_until(&engine, &tenant, phase);
        }
        step_until_it_waits_for(&engine, &tenant, "being released");
        assert_eq!(tenant.status().phase == Phase::PostRollback, reverses == 1);
        tenant.migration().complete().unwrap();
        assert_eq!(tenant.migration().progress().last.unwrap().outcome, outcome);
        assert_eq!(tenant.status().initial == before, outcome == Outcome::RolledBack);
    }
}

#[test]
fn of_what_a_store_still_holds_five_are_named() {
    for (live, named) in [(1, 2), (7, 5)] {
        let home = Home::new();
        let engine = home.builder().background(false).open().unwrap();
        let tenant = tenant(&engine, memory("a"), KEEP);
        assert_eq!(tenant.migration().progress().waiting_for, "", "it is stable, and waits for nothing");
        for number in 0..live {
            started(tenant.launch(&keyed(&format!("{number}"))).unwrap());
        }
        tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
        step_until(&engine, &tenant, Phase::PostMigration);
        step_until_it_waits_for(&engine, &tenant, "drain");
        let said = refused(&home, ErrorKind::IllegalMove, || tenant.migration().complete());
        let left = said.split("still holds ").nth(1).and_then(|left| left.split("; legal now").next());
        assert_eq!(left.unwrap().split("; ").count(), named, "{said}");
    }
}

/// Whoever asks for a move gets that one or none, also when it is time for another.
#[test]
fn on_the_way_back_to_complete_is_refused_and_does_not_reverse_instead() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    step_until(&engine, &tenant, Phase::PostMigration);
    step_until_it_waits_for(&engine, &tenant, "being released");
    tenant.migration().reverse().unwrap();
    let mut said = Vec::new();
    while tenant.status().phase == Phase::PostMigration {
        said.push(refused(&home, ErrorKind::IllegalMove, || tenant.migration().complete()));
        assert_eq!(tenant.status().phase, Phase::PostMigration);
        engine.step().unwrap();
    }
    assert!(said.iter().any(|text| text.contains("it works towards the other store")), "{said:?}");
}

#[test]
fn a_move_that_comes_too_early_says_what_it_waits_for() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k").request_id("r")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    tenant.migration().hold(Hold::Switch).unwrap();
    let switch = || refused(&home, ErrorKind::IllegalMove, || tenant.migration().switch());
    let early = "cannot switch yet, in phase pre_migration: ";
    assert_eq!(switch(), format!("{early}operations under the earlier status; legal now: switch, cancel"));
    step_until_it_waits_for(&engine, &tenant, "copied");
    assert_eq!(switch(), format!("{early}definitions are still being copied; legal now: switch, cancel"));
    let progress = || tenant.migration().progress().waiting_for;
    let mut compared = false;
    while progress() != "being released" {
        if progress().contains("compared") {
            let text = switch();
            assert_eq!(
                text,
                format!("{early}the stores are still being compared; legal now: switch, cancel")
            );
            compared = true;
        }
        engine.step().unwrap();
    }
    assert!(compared, "it was never seen comparing");
    tenant.migration().switch().unwrap();
    step_until(&engine, &tenant, Phase::PostMigration);
    step_until_it_waits_for(&engine, &tenant, "drain");
    let text = refused(&home, ErrorKind::IllegalMove, || tenant.migration().complete());
    for named in [
        "cannot complete yet, in phase post_migration: the store that is left still holds ",
        &format!("instance {id}"),
        "key \"k\" in scope \"scope\"",
        "request \"r\"",
        &format!("step \"only\" of instance {id}"),
        "; legal now: complete, reverse",
    ] {
        assert!(text.contains(named), "{named:?} is not in {text:?}");
    }
    tenant.migration().reverse().unwrap();
    step_until_it_waits_for(&engine, &tenant, "compared");
    let text = refused(&home, ErrorKind::IllegalMove, || tenant.migration().complete());
    assert!(text.contains("the stores are still being compared; legal now: complete, reverse"), "{text}");
}

#[test]
fn nothing_is_there_to_steer_while_a_tenant_is_stable() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    let migration = tenant.migration();
    for text in [
        refused(&home, ErrorKind::IllegalMove, || migration.hold(Hold::Switch)),
        refused(&home, ErrorKind::IllegalMove, || migration.release(Hold::All)),
        refused(&home, ErrorKind::IllegalMove, || migration.throttle(1)),
    ] {
        assert_eq!(text, "the tenant is stable: there is no migration to steer; legal now: start");
    }
    let text = refused(&home, ErrorKind::IllegalMove, || migration.complete_abandoning());
    assert_eq!(text, "complete is not legal in phase stable; legal now: start");
}

#[test]
fn a_target_that_cannot_be_is_refused_by_name() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), DROP);
    std::fs::create_dir_all(home.path().join("data/full")).unwrap();
    std::fs::write(home.path().join("data/full/thesis.txt"), "x").unwrap();
    for (target, kind, sentence) in [
        (
            StoreSpec::driver("tape"),
            ErrorKind::InvalidInput,
            "there is no driver \"tape\"; this build has memory",
        ),
        (StoreSpec::driver(""), ErrorKind::InvalidInput, "there is no driver \"\"; this build has memory"),
        (memory("b").layout("v9"), ErrorKind::InvalidInput, "there is no layout \"v9\" in this engine"),
        (memory("a"), ErrorKind::InvalidInput, "store 1 cannot be the target: the tenant is in it already"),
        (memory(&"x".repeat(4097)), ErrorKind::InvalidInput, "the path of a store has 4097 bytes, more than"),
        (memory("full"), ErrorKind::Foreign, "full is not empty and not a store of this engine"),
    ] {
        let start = || tenant.migration().start(target, MigrationOptions::default());
        let text = refused(&home, kind, start);
        assert!(text.contains(sentence), "{text}");
    }
    assert_eq!(tenant.status().phase, Phase::Stable);
}

#[test]
fn names_and_sizes_over_their_limits_are_named_and_change_nothing() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    let (long, large) = ("x".repeat(256), vec![0; (4 << 20) + 1]);
    let options = || TenantOptions::new(memory("a"));
    let complete = |completion: Completion| worker.complete(&task, completion).map(drop);
    let launch = |launch: Launch| tenant.launch(&launch).map(drop);
    let steps = (0..4097).fold(work(), |launch, n| launch.step(NewStep::new(n.to_string())));
    let calls: Vec<(cutover::Result<()>, &str)> = vec![
        (engine.create_tenant("", options()).map(drop), "the name of the tenant is empty"),
        (engine.create_tenant(&long, options()).map(drop), "the name of the tenant has 256 bytes"),
        (
            engine.create_tenant("b", options().scope_retention("", KEEP)).map(drop),
            "the scope of a retention is empty",
        ),
        (
            engine.create_tenant("b", TenantOptions::new(StoreSpec::driver("tape"))).map(drop),
            "there is no driver \"tape\"; this build has memory",
        ),
        (tenant.register("").map(drop), "the name of the worker is empty"),
        (tenant.register(&*long).map(drop), "the name of the worker has 256 bytes"),
        (worker.claim("", Duration::ZERO).map(drop), "the name of the queue is empty"),
        (tenant.define("", 1, "t", b"").map(drop), "the name of the definition is empty"),
        (tenant.define(&long, 1, "t", b"").map(drop), "the name of the definition has 256 bytes"),
        (tenant.define("d", 1, &long, b"").map(drop), "the content type has 256 bytes"),
        (
            tenant.define("d", 1, "t", &vec![0; (16 << 20) + 1]).map(drop),
            "the body of the definition has 16777217 bytes, more than the 16777216 that are allowed",
        ),
        (launch(work().request_id([7; 256])), "the request id has 256 bytes"),
        (launch(work().key(&*long, "k")), "the scope of the key has 256 bytes"),
        (launch(work().input(large.clone())), "the input of the instance has 4194305 bytes"),
        (launch(work().step(NewStep::new(&*long))), "the name of a step has 256 bytes"),
        (launch(work().step(NewStep::new("s").queue(""))), "the name of a queue is empty"),
        (
            launch(work().step(NewStep::new("s").input(large.clone()))),
            "the step \"s\": the input of a step has 4194305 bytes",
        ),
        (launch(steps), "the list of steps has 4097"),
        (
            complete(Completion { result: large.clone(), ..Completion::default() }),
            "the result of the step has 4194305 bytes",
        ),
        (
            complete(Completion { next: vec![NewStep::new("")], ..Completion::default() }),
            "the name of a step is empty",
        ),
        (
            tenant.end(id, Ending::Completed, &large, "").map(drop),
            "the output of the instance has 4194305 bytes",
        ),
    ];
    for (answer, sentence) in calls {
        let err = answer.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidInput, "{err}");
        assert!(err.to_string().starts_with(sentence), "{err}");
    }
    assert_eq!(engine.tenants(), ["acme"]);
    assert_eq!(tenant.definition("d", 1).unwrap(), None);
    let instances = tenant.list(&Default::default(), None, 10).unwrap().instances;
    assert!(instances.len() == 1 && instances[0].ending().is_none(), "{instances:?}");
    // The step is still held under the same lease.
    complete(Completion::default()).unwrap();
    let next = engine.create_tenant("next", options()).unwrap();
    assert_eq!(next.id().0, tenant.id().0 + 1, "not even a number was used up");
}

/// A name is bytes and nothing else: no end of a text, no path, no separator.
#[test]
fn names_with_any_characters_are_kept_apart_and_never_become_paths() {
    let home = Home::new();
    let names = ["a", "a\0", "a\0b", "\0", "\0\u{1}", "../../a", "/a", ".", "a/b", "ü", "a\n"];
    let open = || home.builder().background(false).open().unwrap();
    let engine = open();
    for name in names {
        let options = TenantOptions::new(memory("s")).retention(KEEP);
        let tenant = engine.create_tenant(name, options).unwrap();
        for inner in names {
            tenant.define(inner, 1, "t", format!("{name}|{inner}").as_bytes()).unwrap();
            let launch = Launch::new(inner, 1).key(inner, inner).request_id(inner);
            started(tenant.launch(&launch.step(NewStep::new(inner).queue(inner))).unwrap());
        }
    }
    let mut there: Vec<String> = metadata(&home).into_keys().collect();
    there.retain(|name| {
        !["tenant-", "store-", "engine.", "catalog."].iter().any(|start| name.starts_with(start))
    });
    assert_eq!(there, ["marker"]);
    let beside: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["data"]);
    engine.close(LONG).unwrap();
    let engine = open();
    assert_eq!(engine.tenants().len(), names.len());
    for name in names {
        let tenant = engine.tenant(name).unwrap();
        let worker = tenant.register(many(name)).unwrap();
        for inner in names {
            let found = tenant.definition(inner, 1).unwrap().unwrap();
            assert_eq!(found.body, format!("{name}|{inner}").as_bytes());
            let holder = tenant.instance_by_key(inner, inner.as_bytes()).unwrap().unwrap();
            assert_eq!(holder.definition, inner);
            let task = worker.claim(inner, Duration::ZERO).unwrap().unwrap();
            assert_eq!((task.instance, task.step.as_str()), (holder.id, inner));
            assert!(worker.claim(inner, Duration::ZERO).unwrap().is_none(), "one step in each queue");
        }
    }
    engine.delete_tenant("a").unwrap();
    assert!(engine.tenant("a\0").unwrap().definition("a", 1).unwrap().is_some());
}

#[test]
fn what_does_not_exist_is_named() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let text = refused(&home, ErrorKind::NotFound, || engine.tenant("acne").map(drop));
    assert_eq!(text, "there is no tenant \"acne\"");
    assert_eq!(refused(&home, ErrorKind::NotFound, || engine.delete_tenant("acne")), text);
    let text = refused(&home, ErrorKind::AlreadyExists, || {
        engine.create_tenant("acme", TenantOptions::new(memory("a"))).map(drop)
    });
    assert_eq!(text, "there is a tenant \"acme\" already");
    let text = refused(&home, ErrorKind::NotFound, || tenant.launch(&Launch::new("work", 2)));
    assert_eq!(text, "there is no definition \"work\" version 2");
    let gone = started(tenant.launch(&keyed("k")).unwrap());
    let unknown = cutover::InstanceId(gone.0 ^ 1);
    let text = refused(&home, ErrorKind::NotFound, || tenant.terminate(unknown, ""));
    assert!(text.contains(&unknown.to_string()), "{text}");
    let text = refused(&home, ErrorKind::AlreadyExists, || tenant.define("work", 1, "t", b"other"));
    assert_eq!(text, "the definition \"work\" version 1 exists with other bytes");
}
