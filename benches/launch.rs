//! How long one launch takes, seen from one thread: each store, each durability level.
//!
//! `cargo bench --profile dev --workspace --bench launch` (the profile that everything else is built with, so that RocksDB is not
//! compiled again); behind `--`, part of an id such as `launch/rocksdb/synced` picks cells.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench that meets something unexpected is to panic; criterion's macros document nothing"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use cutover::{Durability, Engine, Launch, Launched, NewStep, StoreSpec, TenantOptions};

const DRIVERS: &[&str] = &[
    "memory",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "sled")]
    "sled",
];

fn launch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("launch");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5)).sample_size(50);
    for driver in DRIVERS {
        cell(&mut group, driver, Durability::Synced, "synced");
        cell(&mut group, driver, Durability::Buffered, "buffered");
    }
    group.finish();
}

fn cell(group: &mut BenchmarkGroup<'_, WallTime>, driver: &str, durability: Durability, level: &str) {
    group.bench_function(BenchmarkId::new(driver, level), |bencher| {
        // Made only for the cells that are picked.
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::builder(dir.path().join("data")).durability(durability).open().unwrap();
        let options = TenantOptions::new(StoreSpec::driver(driver));
        let tenant = engine.create_tenant("bench", options).unwrap();
        tenant.define("work", 1, "text/plain", b"").unwrap();
        let mut key = 0_u64;
        bencher.iter(|| {
            key += 1;
            let launch = Launch::new("work", 1).key("bench", key.to_be_bytes()).step(NewStep::new("only"));
            let answer = tenant.launch(black_box(&launch)).unwrap();
            assert!(matches!(answer, Launched::Started(_)), "{answer:?}");
        });
        engine.close(Duration::from_secs(30)).unwrap();
    });
}

criterion_group!(benches, launch);
criterion_main!(benches);
