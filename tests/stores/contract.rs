//! The contract suite on every driver.

use std::time::Duration;

use cutover::store::contract::{Report, check};
use cutover::store::memory::MemoryDriver;
use cutover::store::{Driver, Stats};

use crate::dir;

fn keeps_the_contract(driver: &dyn Driver) -> Report {
    let dir = dir();
    let report = check(driver, dir.path()).unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.passed.len() + report.skipped.len(), 16);
    for (rule, why) in &report.skipped {
        eprintln!("{}: skipped \"{rule}\": {why}", report.driver);
    }
    if let Some(Stats { commits, syncs }) = report.shared {
        eprintln!("{}: {commits} commits of 64 threads took {syncs} syncs", report.driver);
        assert!(syncs * 4 <= commits);
    }
    report
}

#[test]
fn memory() {
    let report = keeps_the_contract(&MemoryDriver::new().with_sync_time(Duration::from_millis(1)));
    assert!(report.shared.is_some());
    assert_eq!(report.skipped.len(), 0);
}

#[test]
fn memory_without_a_sync_time_has_nothing_to_share() {
    let report = keeps_the_contract(&MemoryDriver::new());
    assert!(report.shared.is_none());
    assert_eq!(report.skipped.len(), 1);
}

/// Where the disk syncs in less than 100 us there is nothing to share, and the suite says so.
#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb() {
    let report = keeps_the_contract(&*crate::rocksdb());
    assert!(report.skipped.iter().all(|(_, why)| why.contains("too little to share")));
}

#[cfg(feature = "sled")]
#[test]
fn sled() {
    let report = keeps_the_contract(&cutover::store::sled::SledDriver::default());
    assert!(report.skipped.iter().all(|(_, why)| why.contains("too little to share")));
}

mod that_is_broken {
    //! The suite can fail: drivers with one defect each.

    use std::path::Path;
    use std::sync::Arc;

    use cutover::store::{Batch, Change, Store, Visit, Write};
    use cutover_formats::Family;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Defect {
        LosesDeletes,
        FirstWins,
        IgnoresUpperBound,
        GoesOnAfterBreak,
        CutsLargeValues,
        ForgetsAFamily,
        SyncsAlone,
    }

    struct Broken(MemoryDriver, Defect);

    struct BrokenStore(Arc<dyn Store>, Defect, parking_lot::Mutex<Stats>);

    impl Driver for Broken {
        fn name(&self) -> &str {
            "broken"
        }
        fn open(&self, path: &Path) -> cutover::Result<Arc<dyn Store>> {
            Ok(Arc::new(BrokenStore(self.0.open(path)?, self.1, Default::default())))
        }
        fn destroy(&self, path: &Path) -> cutover::Result<()> {
            self.0.destroy(path)
        }
        fn exists(&self, path: &Path) -> bool {
            self.0.exists(path)
        }
    }

    impl Store for BrokenStore {
        fn get(&self, family: Family, key: &[u8]) -> cutover::Result<Option<Vec<u8>>> {
            self.0.get(family, key)
        }
        fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: Visit<'_>) -> cutover::Result<()> {
            match self.1 {
                Defect::IgnoresUpperBound => self.0.scan(family, from, b"", visit),
                Defect::GoesOnAfterBreak => self.0.scan(family, from, to, &mut |key, value| {
                    let _ = visit(key, value);
                    std::ops::ControlFlow::Continue(())
                }),
                _ => self.0.scan(family, from, to, visit),
            }
        }
        fn commit(&self, batch: &Batch, write: Write) -> cutover::Result<()> {
            let mut done = Batch::new();
            let mut seen = Vec::new();
            for change in batch.changes() {
                let (Change::Put(family, key, _) | Change::Delete(family, key)) = change;
                let again = seen.contains(&(family, key));
                seen.push((family, key));
                match change {
                    _ if self.1 == Defect::FirstWins && again => {}
                    _ if self.1 == Defect::ForgetsAFamily && family == Family::Expiry => {}
                    Change::Delete(..) if self.1 == Defect::LosesDeletes => {}
                    Change::Delete(..) => done.delete(family, key),
                    Change::Put(_, _, value) if self.1 == Defect::CutsLargeValues => {
                        done.put(family, key, &value[..value.len().min(1 << 20)]);
                    }
                    Change::Put(_, _, value) => done.put(family, key, value),
                }
            }
            if self.1 == Defect::SyncsAlone && write == Write::Synced {
                let mut stats = self.2.lock();
                std::thread::sleep(Duration::from_micros(200));
                stats.commits += 1;
                stats.syncs += 1;
            }
            self.0.commit(&done, Write::Relaxed)
        }
        fn remove_range(&self, family: Family, from: &[u8], to: &[u8]) -> cutover::Result<()> {
            self.0.remove_range(family, from, to)
        }
        fn stats(&self) -> Stats {
            *self.2.lock()
        }
    }

    #[test]
    fn is_found_out() {
        for (defect, rule) in [
            (Defect::LosesDeletes, "a batch is applied over all families"),
            (Defect::FirstWins, "later changes win"),
            (Defect::IgnoresUpperBound, "a scan keeps its bounds and ends at a break"),
            (Defect::GoesOnAfterBreak, "a scan keeps its bounds and ends at a break"),
            (Defect::CutsLargeValues, "values of every size are kept"),
            (Defect::ForgetsAFamily, "a batch is applied over all families"),
            (Defect::SyncsAlone, "commits at once share their syncs"),
        ] {
            let violation = check(&Broken(MemoryDriver::new(), defect), Path::new("x")).unwrap_err();
            assert_eq!((violation.rule, &*violation.driver), (rule, "broken"), "{defect:?}: {violation}");
        }
    }
}
