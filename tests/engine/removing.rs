//! Stores that nobody uses any more: their removal is cut short, and what comes to lie in their place.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::store::rocksdb::RocksDbDriver;
use cutover::store::sled::SledDriver;
use cutover::store::{Driver, Store};
use cutover::{Engine, Error, ErrorKind, MigrationOptions, StoreSpec};

use crate::common::{DROP, LONG, settle, tenant};

/// A driver whose removals come no further than the file without which a store is none.
struct CutShort(Arc<dyn Driver>, &'static str);

impl Driver for CutShort {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn open(&self, path: &Path) -> cutover::Result<Arc<dyn Store>> {
        self.0.open(path)
    }

    fn destroy(&self, path: &Path) -> cutover::Result<()> {
        drop(std::fs::remove_file(path.join(self.1)));
        Err(Error::new(ErrorKind::Io, "cut short"))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }
}

/// The next engine removes the rest, and the place may be used again.
#[test]
fn a_removal_that_was_cut_short_is_finished_by_the_next_engine() {
    let rocksdb: Arc<dyn Driver> = Arc::new(RocksDbDriver::default());
    let sled: Arc<dyn Driver> = Arc::new(SledDriver::default());
    for (driver, first, other) in [(rocksdb, "CURRENT", "sled"), (sled, "db", "rocksdb")] {
        let home = tempfile::tempdir().unwrap();
        let (data, name) = (home.path().join("data"), driver.name().to_owned());
        let engine = Engine::builder(&data).driver(Arc::new(CutShort(driver, first))).open().unwrap();
        let before = tenant(&engine, StoreSpec::driver(&name), DROP);
        let left = engine.store_path(before.status().initial).unwrap();
        before.migration().start(StoreSpec::driver(other), MigrationOptions::default()).unwrap();
        let until = Instant::now() + LONG;
        while left.join(first).exists() {
            assert!(Instant::now() < until, "{:?}", before.migration().progress());
            std::thread::sleep(Duration::from_millis(1));
        }
        engine.close(LONG).unwrap();
        assert!(left.exists(), "cut short");
        drop(before);

        let engine = Engine::builder(&data).open().unwrap();
        let after = engine.tenant("acme").unwrap();
        settle(&after);
        assert!(!left.exists(), "{left:?} has files of a store that nobody uses");
        after.migration().start(StoreSpec::driver(&name), MigrationOptions::default()).unwrap();
        settle(&after);
        assert_eq!(engine.store_path(after.status().initial).unwrap(), left);
    }
}

/// What lies where a store was is somebody else's, also if it is a database of the same kind.
#[test]
fn what_has_come_to_lie_where_a_store_was_stays() {
    let home = tempfile::tempdir().unwrap();
    let (data, place) = (home.path().join("data"), home.path().join("place"));
    let engine = Engine::builder(&data).open().unwrap();
    let before = tenant(&engine, StoreSpec::driver("rocksdb").path(&place), DROP);
    before.migration().start(StoreSpec::driver("sled"), MigrationOptions::default()).unwrap();
    settle(&before);
    assert!(!place.exists());
    engine.close(LONG).unwrap();
    drop(before);
    drop(RocksDbDriver::default().open(&place).unwrap());
    drop(Engine::builder(&data).open().unwrap());
    assert!(RocksDbDriver::default().exists(&place), "removed at an opening");
}
