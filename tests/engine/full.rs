//! Disks that really are full, and disks whose writes really fail, under RocksDB and sled. They are mounted here, which only root may do.
//!
//! Three kinds: a small tmpfs, filled with a file; the same with the whole data directory on it; and a *thin* disk, a file system on a loop
//! device whose own file is sparse and lies on a tmpfs that is filled: writes go to the page cache and fail when they
//! are synced, as on a disk that breaks.

use std::time::{Duration, Instant};

use cutover::{
    Completion, Durability, Engine, ErrorKind, Filter, Hold, InstanceId, Launch, Launched, MigrationOptions,
    NewStep, Phase, Retention, StoreSpec, Tenant, TenantOptions,
};

use crate::common::{KEEP, LONG, many, started, work};
use crate::mounts::Disk;

const STORES: [&str; 2] = ["rocksdb", "sled"];

fn large(key: String) -> Launch {
    // Random, so that nothing makes it smaller; the same for the same key, so that it can be asked for again.
    let seed = key.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    let mut random = fastrand::Rng::with_seed(seed);
    let input: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4096).collect();
    work().key("scope", key.as_str()).request_id(key).step(NewStep::new("only")).input(input)
}

fn make(engine: &Engine, name: &str, store: StoreSpec) -> Tenant {
    let tenant = engine.create_tenant(name, TenantOptions::new(store).retention(KEEP)).unwrap();
    tenant.define("work", 1, "t", b"do it").unwrap();
    tenant
}

/// Launches until it fails, and says what was acknowledged and how the first failure looked.
fn launch_until_it_fails(tenant: &Tenant, acknowledged: &mut Vec<(String, InstanceId)>) -> cutover::Error {
    let from = acknowledged.len();
    for n in from..from + 100_000 {
        let key = format!("{n}");
        match tenant.launch(&large(key.clone())) {
            Ok(answer) => acknowledged.push((key, started(answer))),
            Err(err) => return err,
        }
    }
    panic!("the disk never became full");
}

fn all_there(tenant: &Tenant, acknowledged: &[(String, InstanceId)]) {
    for (key, id) in acknowledged {
        let found = tenant.instance_by_key("scope", key.as_bytes()).unwrap();
        assert_eq!(found.map(|found| found.id), Some(*id), "{key}");
        assert!(tenant.input(*id).unwrap().is_some_and(|input| input.len() == 4096));
    }
}

fn launch_at_last(tenant: &Tenant, key: &str) -> InstanceId {
    let until = Instant::now() + LONG;
    loop {
        match tenant.launch(&large(key.to_owned())) {
            Ok(answer) => return started(answer),
            Err(err) => {
                let later = [ErrorKind::Indeterminate, ErrorKind::NoSpace, ErrorKind::Unavailable];
                assert!(later.contains(&err.kind()), "{err:?}");
                assert!(Instant::now() < until, "still {err:?}");
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The store of a tenant is on the disk, the data directory is not.
fn home_on(disk: &Disk, driver: &str, durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let open = || Engine::builder(dir.path().join("data")).durability(durability).open().unwrap();
    let engine = open();
    let tenant = make(&engine, "acme", disk.store(driver));
    let elsewhere = make(&engine, "elsewhere", StoreSpec::driver("memory"));
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        acknowledged.push((format!("{n}"), started(tenant.launch(&large(format!("{n}"))).unwrap())));
    }
    disk.fill();
    let first = launch_until_it_fails(&tenant, &mut acknowledged);
    assert!(
        [ErrorKind::Indeterminate, ErrorKind::NoSpace, ErrorKind::Unavailable].contains(&first.kind()),
        "{first:?}"
    );
    let key = format!("{}", acknowledged.len());
    // The second one is refused, clearly, before anything is done.
    let second = tenant.launch(&large("refused".into())).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::NoSpace, "{driver}: {first:?}, then {second:?}");
    assert!(second.to_string().contains("no space left on its disk"), "{second}");
    assert!(second.to_string().contains(driver), "{second}");
    started(elsewhere.launch(&work()).unwrap());
    // Reads go on, or are refused as clearly: sled refuses them after some errors.
    for (key, id) in acknowledged.iter().take(20) {
        match tenant.instance_by_key("scope", key.as_bytes()) {
            Ok(found) => assert_eq!(found.map(|found| found.id), Some(*id), "{key}"),
            Err(err) => assert_eq!((driver, err.kind()), ("sled", ErrorKind::NoSpace), "{err}"),
        }
    }
    disk.make_room();
    let doubtful = launch_at_last(&tenant, &key);
    acknowledged.push((key, doubtful));
    all_there(&tenant, &acknowledged);
    let refused = launch_at_last(&tenant, "refused");
    acknowledged.push(("refused".into(), refused));
    // Everything that was acknowledged is given out once.
    let worker = tenant.register(many("w")).unwrap();
    let mut given: Vec<InstanceId> = Vec::new();
    while let Some(task) = worker.claim("default", Duration::ZERO).unwrap() {
        given.push(task.instance);
    }
    given.sort_unstable();
    let mut ids: Vec<InstanceId> = acknowledged.iter().map(|(_, id)| *id).collect();
    ids.sort_unstable();
    assert_eq!(given, ids, "{driver}");
    println!("{driver}, {durability:?}: {} launches acknowledged; first {first}; then {second}", ids.len());
    engine.close(LONG).unwrap();
    drop((tenant, elsewhere, worker, engine));
    let engine = open();
    all_there(&engine.tenant("acme").unwrap(), &acknowledged);
}

#[test]
fn launches_on_a_full_disk_are_refused_clearly_and_go_on_when_there_is_room() {
    for driver in STORES {
        for durability in [Durability::Synced, Durability::Buffered] {
            let Some(disk) = Disk::small(64) else { return };
            home_on(&disk, driver, durability);
        }
    }
}

/// The error comes with the sync, not with the write: only at `Synced` is a launch told.
#[test]
fn a_disk_whose_syncs_fail_loses_nothing_that_was_acknowledged() {
    for driver in STORES {
        let Some(disk) = Disk::thin() else { return };
        home_on(&disk, driver, Durability::Synced);
    }
}

#[test]
fn a_full_target_pauses_the_move_and_no_launch_notices() {
    for (from, to) in [("rocksdb", "sled"), ("sled", "rocksdb")] {
        let Some(disk) = Disk::small(160) else { return };
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::builder(dir.path().join("data")).open().unwrap();
        let tenant = make(&engine, "acme", StoreSpec::driver(from));
        let body = |n: u32| -> Vec<u8> {
            let mut random = fastrand::Rng::with_seed(u64::from(n));
            std::iter::repeat_with(|| random.u8(..)).take(150_000).collect()
        };
        for n in 0..300 {
            tenant.define(&format!("large {n}"), 1, "t", &body(n)).unwrap();
        }
        // More than the log that RocksDB reserves room for; slowly, so that the disk fills up under it.
        tenant.migration().start(disk.store(to), MigrationOptions::default().rate(1_000)).unwrap();
        disk.fill();
        tenant.migration().throttle(0).unwrap();
        let until = Instant::now() + LONG;
        let mut launched = 0;
        loop {
            started(tenant.launch(&work().key("during", format!("{launched}"))).unwrap());
            launched += 1;
            let said = tenant.migration().progress();
            // A read of sled that has to write says it in the system's words.
            let full = ["no space left on its disk", "No space left on device"];
            if said.error.as_ref().is_some_and(|error| full.iter().any(|words| error.contains(words))) {
                break;
            }
            assert!(Instant::now() < until, "{said:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        for n in 0..50 {
            started(tenant.launch(&work().key("full", format!("{n}"))).unwrap());
            tenant.define(&format!("gap {n}"), 1, "t", b"x").unwrap();
        }
        assert_eq!(tenant.status().phase, Phase::PreMigration, "it waits");
        disk.make_room();
        assert!(
            tenant.migration().wait_for(Phase::PostMigration, LONG).unwrap(),
            "{:?}",
            tenant.migration().progress()
        );
        started(tenant.launch(&work().key("after", "k")).unwrap());
        let again = tenant.launch(&work().key("full", "7")).unwrap();
        assert!(matches!(again, Launched::Conflict { .. }), "{again:?}");
        tenant.migration().hold(Hold::Complete).unwrap();
        drop(tenant);
        engine.close(LONG).unwrap();
        drop(engine);
        // Given up as it is: what it holds of the definitions is what was to be shown.
        let engine = Engine::builder(dir.path().join("data")).open().unwrap();
        let tenant = engine.tenant("acme").unwrap();
        tenant.migration().release(Hold::Complete).unwrap();
        let live = tenant.list(&Filter { live: Some(true), ..Filter::default() }, None, 10_000).unwrap();
        assert_eq!(live.instances.len(), launched + 50 + 1);
        for n in 0..300 {
            assert_eq!(tenant.definition(&format!("large {n}"), 1).unwrap().unwrap().body, body(n));
        }
    }
}

/// Stores and metadata on one disk: nothing can be written at all, and everything goes on afterwards.
#[test]
fn metadata_on_a_full_disk_is_what_it_was_and_moves_go_on_when_there_is_room() {
    let Some(disk) = Disk::small(256) else { return };
    let open = || Engine::builder(disk.path.join("data")).open().unwrap();
    let engine = open();
    let options = TenantOptions::new(StoreSpec::driver("rocksdb"));
    let short = Retention { instance_ms: 0, key_ms: 0, request_ms: 0 };
    let tenant = engine.create_tenant("acme", options.retention(short)).unwrap();
    tenant.define("work", 1, "t", b"do it").unwrap();
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        acknowledged.push((format!("{n}"), started(tenant.launch(&large(format!("{n}"))).unwrap())));
    }
    tenant
        .migration()
        .start(StoreSpec::driver("sled"), MigrationOptions::default().hold_switch(true))
        .unwrap();
    disk.fill();
    let phase = tenant.status();
    launch_until_it_fails(&tenant, &mut acknowledged);
    // What the stores give back in the background is taken at once.
    let refused = (0..100).find_map(|_| {
        disk.fill();
        tenant.migration().hold(Hold::Complete).err()
    });
    let refused = refused.unwrap();
    assert!(refused.to_string().contains("No space left on device"), "{refused}");
    let refused = (0..100).find_map(|n| {
        disk.fill();
        engine.create_tenant(&format!("another {n}"), TenantOptions::new(StoreSpec::driver("memory"))).err()
    });
    assert!(refused.is_some_and(|err| err.to_string().contains("No space left")));
    assert_eq!(tenant.status(), phase);
    disk.make_room();
    launch_at_last(&tenant, "after");
    let until = Instant::now() + LONG;
    // The write that failed is read back first, and may have happened.
    while let Err(err) = tenant.migration().release(Hold::All) {
        assert!(Instant::now() < until, "{err}");
    }
    tenant.migration().release(Hold::Switch).unwrap();
    tenant.migration().release(Hold::Complete).unwrap();
    assert!(tenant.migration().wait_for(Phase::PostMigration, LONG).unwrap());
    all_there(&tenant, &acknowledged);
    let worker = tenant.register(many("w")).unwrap();
    while let Some(task) = worker.claim("default", Duration::ZERO).unwrap() {
        worker.complete(&task, Completion::default()).unwrap();
    }
    assert!(tenant.migration().wait_settled(LONG).unwrap(), "{:?}", tenant.migration().progress());
    let seqs: Vec<u64> = tenant.migration().journal().unwrap().iter().map(|line| line.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a line is missing: {seqs:?}");
    engine.close(LONG).unwrap();
    drop((tenant, worker, engine));
    let engine = open();
    started(engine.tenant("acme").unwrap().launch(&large("reopened".into())).unwrap());
}
