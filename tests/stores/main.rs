//! The drivers, held against the contract of `Store`: in one process, and against kills, full files and strace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

mod child;
mod contract;
mod crash;
mod damage;
mod flips;
#[cfg(feature = "sled")]
mod sled;
#[cfg(all(target_os = "linux", any(feature = "rocksdb", feature = "sled")))]
mod syncs;

use std::sync::Arc;

use cutover::store::{Driver, Store};
use tempfile::TempDir;

/// A directory on the disk that the build is on: `/tmp` may be memory, which knows no syncs.
fn dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The drivers that keep files, those that were built.
fn drivers() -> Vec<Arc<dyn Driver>> {
    vec![
        #[cfg(feature = "rocksdb")]
        rocksdb(),
        #[cfg(feature = "sled")]
        Arc::new(cutover::store::sled::SledDriver::default()),
    ]
}

#[cfg(feature = "rocksdb")]
fn rocksdb() -> Arc<dyn Driver> {
    use cutover::store::rocksdb::{RocksDbDriver, RocksDbOptions};
    let mut options = RocksDbOptions::default();
    options.statistics = true;
    Arc::new(RocksDbDriver::new(options))
}

fn driver(name: &str) -> Arc<dyn Driver> {
    drivers().into_iter().find(|driver| driver.name() == name).unwrap()
}

fn count(store: &dyn Store, family: cutover_formats::Family) -> usize {
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.scan(family, b"", b"", &mut visit).unwrap();
    count
}

/// Waits until a database that was used without the driver is free: sled's threads hold its lock for a moment longer.
#[cfg(feature = "sled")]
fn wait_until_free(path: &std::path::Path) {
    let file = std::fs::File::open(path.join("db")).unwrap();
    file.lock().unwrap();
}
