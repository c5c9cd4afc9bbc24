//! Many tenants: isolation, shared stores, deletion, and what a thousand of them cost.

use std::sync::atomic::{AtomicBool, Ordering};

use cutover::{Ending, Engine, ErrorKind, MigrationOptions, Phase, StoreSpec, Tenant, TenantOptions};

use crate::common::{DROP, Home, KEEP, keyed, memory, settle, started, tenant};

fn named(engine: &Engine, name: &str, store: StoreSpec) -> Tenant {
    let tenant = engine.create_tenant(name, TenantOptions::new(store).retention(DROP)).unwrap();
    tenant.define("work", 1, "t", name.as_bytes()).unwrap();
    tenant
}

#[test]
fn tenants_share_a_store_and_see_nothing_of_each_other() {
    let home = Home::new();
    let engine = home.open();
    let (a, b) = (named(&engine, "a", memory("s")), named(&engine, "b", memory("s")));
    assert_eq!(a.status().initial, b.status().initial);
    let (one, other) = (started(a.launch(&keyed("k")).unwrap()), started(b.launch(&keyed("k")).unwrap()));
    assert_eq!(a.instance_by_key("scope", b"k").unwrap().unwrap().id, one);
    assert_eq!(b.instance(one).unwrap(), None);
    assert_eq!(b.definition("work", 1).unwrap().unwrap().body, b"b");
    assert_eq!(a.list(&Default::default(), None, 9).unwrap().instances.len(), 1);
    engine.delete_tenant("a").unwrap();
    assert_eq!(a.launch(&keyed("x")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.tenant("a").err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(b.instance_by_key("scope", b"k").unwrap().unwrap().id, other);
    let again = named(&engine, "a", memory("s"));
    assert!(again.id() > b.id(), "a tenant's number is never used again");
    assert_eq!(again.instance_by_key("scope", b"k").unwrap(), None);
}

#[test]
fn a_store_goes_with_its_last_tenant() {
    let home = Home::new();
    let engine = home.open();
    let (a, b) = (named(&engine, "a", memory("s")), named(&engine, "b", memory("s")));
    let shared = a.status().initial;
    a.migration().start(memory("t"), MigrationOptions::default()).unwrap();
    settle(&a);
    assert!(engine.store_path(shared).is_some(), "b still uses it");
    b.migration().start(memory("t"), MigrationOptions::default()).unwrap();
    settle(&b);
    assert!(engine.store_path(shared).is_none());
    assert_eq!(a.status().initial, b.status().initial);
    engine.delete_tenant("a").unwrap();
    engine.delete_tenant("b").unwrap();
    assert!(engine.store_path(a.status().initial).is_none());
}

#[test]
fn a_dedicated_store_is_not_shared() {
    let home = Home::new();
    let engine = home.open();
    let a = named(&engine, "a", StoreSpec::driver("memory").dedicated());
    let b = named(&engine, "b", StoreSpec::driver("memory").dedicated());
    assert_ne!(a.status().initial, b.status().initial);
    let path = engine.store_path(a.status().initial).unwrap();
    let err = engine.create_tenant("c", TenantOptions::new(memory(path.to_str().unwrap()))).err();
    // The catalog knows the place by another name; the driver refuses the second opening.
    assert!(err.is_some());
}

#[test]
fn a_deleted_tenant_stays_deleted_also_in_the_middle_of_a_migration() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let a = tenant(&engine, memory("a"), KEEP);
    started(a.launch(&keyed("k")).unwrap());
    a.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    while a.status().phase != Phase::PostMigration {
        engine.step().unwrap();
    }
    engine.delete_tenant("acme").unwrap();
    home.kill(engine);
    let engine = home.open();
    assert!(engine.tenants().is_empty());
    assert!(
        engine.store_path(cutover::StoreId(1)).is_none() && engine.store_path(cutover::StoreId(2)).is_none()
    );
}

fn threads_and_files() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Threads and files do not follow the number of tenants. Other tests run beside this one only under `cargo test`, so the bound leaves
/// room for them; a thread or file per tenant would still be far above it.
#[test]
fn a_thousand_tenants_of_which_twenty_migrate_at_once() {
    let home = Home::new();
    let engine = home.open();
    let first = named(&engine, "tenant 0", memory("s"));
    let before = threads_and_files();
    let mut tenants: Vec<Tenant> = vec![first];
    tenants.extend((1..1_000).map(|n| named(&engine, &format!("tenant {n}"), memory("s"))));
    let launch = |tenant: &Tenant, key: &str| {
        let id = started(tenant.launch(&keyed(key)).unwrap());
        tenant.end(id, Ending::Completed, b"", "").unwrap();
    };
    for tenant in &tenants {
        launch(tenant, "k");
    }
    for tenant in &tenants[..20] {
        tenant.migration().start(memory("t"), MigrationOptions::default()).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let launching = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                tenants.iter().step_by(7).for_each(|tenant| launch(tenant, "during"));
                rounds += 1;
            }
            rounds
        });
        let during = threads_and_files();
        tenants[..20].iter().for_each(settle);
        done.store(true, Ordering::Relaxed);
        assert!(launching.join().unwrap() > 0);
        assert!(during.0 <= before.0 + 60 && during.1 <= before.1 + 200, "{before:?} {during:?}");
    });
    for (n, tenant) in tenants.iter().enumerate() {
        assert_eq!(tenant.status().initial.0, if n < 20 { 2 } else { 1 }, "each in its own phase");
    }
    engine.close(crate::common::LONG).unwrap();
    let begun = std::time::Instant::now();
    let engine = home.open();
    assert_eq!(engine.tenants().len(), 1_000);
    eprintln!("opened 1,000 tenants in {:?}", begun.elapsed());
}
