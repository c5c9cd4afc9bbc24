//! What only sled needs: chunks that come and go with their values, and pages that stay in its log.

use std::fs;
use std::path::Path;

use cutover::store::sled::SledDriver;
use cutover::store::{Batch, Driver, Store, Write};
use cutover_formats::Family;

use crate::child::long_key;
use crate::{dir, wait_until_free};

/// What is in the closed database, seen without the driver: rows and chunks.
fn raw(path: &Path) -> (usize, usize) {
    let db = ::sled::Config::new().path(path).segment_size(2 << 20).open().unwrap();
    let chunks = db.scan_prefix([0xFF]).count();
    // Without the row that names the format.
    let rows = db.len() - chunks - 1;
    drop(db);
    wait_until_free(path);
    (rows, chunks)
}

fn put(store: &dyn Store, key: &str, len: usize) {
    let mut batch = Batch::new();
    batch.put(Family::Instances, key.as_bytes(), &vec![7; len]);
    store.commit(&batch, Write::Relaxed).unwrap();
}

#[test]
fn chunks_go_with_their_value() {
    let dir = dir();
    let driver = SledDriver::default();
    let store = driver.open(dir.path()).unwrap();
    let close = |store: std::sync::Arc<dyn Store>| {
        drop(store);
        let found = raw(dir.path());
        (found, driver.open(dir.path()).unwrap())
    };
    put(&*store, "a", 4096);
    put(&*store, "b", 4097);
    put(&*store, "c", 100_000);
    let (found, store) = close(store);
    assert_eq!(found, (3, 2 + 25));

    // Smaller, larger, away; after opening again, so that the driver has to find out that there are chunks.
    put(&*store, "a", 9000);
    put(&*store, "b", 10);
    put(&*store, "c", 8192);
    let (found, store) = close(store);
    assert_eq!(found, (3, 3 + 2));

    let mut batch = Batch::new();
    batch.put(Family::Instances, b"d", &[1; 50_000]);
    batch.put(Family::Instances, b"d", &[2; 5_000]);
    batch.put(Family::Instances, b"e", &[1; 50_000]);
    batch.delete(Family::Instances, b"e");
    batch.delete(Family::Instances, b"a");
    store.commit(&batch, Write::Relaxed).unwrap();
    let (found, store) = close(store);
    assert_eq!(found, (3, 2 + 2));

    store.remove_range(Family::Instances, b"c", b"d").unwrap();
    let (found, store) = close(store);
    assert_eq!(found, (2, 2));
    store.remove_range(Family::Instances, b"", b"").unwrap();
    let (found, _store) = close(store);
    assert_eq!(found, (0, 0));
}

#[test]
fn pages_of_the_longest_keys_that_the_engine_makes_stay_in_the_log() {
    let dir = dir();
    let store = SledDriver::default().open(dir.path()).unwrap();
    // More than fills one inner page, with leaves as large as they get.
    let numbers: Vec<_> = (0..4000).collect();
    for numbers in numbers.chunks(100) {
        let mut batch = Batch::new();
        for number in numbers {
            batch.put(Family::Keys, &long_key(2000, *number), &[1; 4096]);
        }
        store.commit(&batch, Write::Buffered).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0);
    }
}

#[test]
fn what_is_not_flushed_is_bounded() {
    let dir = dir();
    let store = SledDriver::default().open(dir.path()).unwrap();
    for _ in 0..5000 {
        put(&*store, "key", 10);
    }
    let by_number = store.stats().syncs;
    assert_eq!(by_number, 5000 / 1024);
    for _ in 0..5 {
        put(&*store, "key", 5 << 20);
    }
    assert!(store.stats().syncs >= by_number + 5, "{:?}", store.stats());
}
