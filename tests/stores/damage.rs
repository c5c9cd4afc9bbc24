//! Directories that are not what a driver expects: other people's, half made, damaged.

use std::fs;
use std::path::Path;

use cutover::ErrorKind;
use cutover::store::{Batch, Driver, Write};
use cutover_formats::Family;

use crate::child::value;
use crate::{count, dir, drivers};

fn fill(driver: &dyn Driver, path: &Path, rows: u64) {
    let store = driver.open(path).unwrap();
    for number in 0..rows {
        let mut batch = Batch::new();
        batch.put(Family::Instances, &number.to_be_bytes(), &value(number));
        store.commit(&batch, Write::Relaxed).unwrap();
    }
    store.sync().unwrap();
}

fn refusal(driver: &dyn Driver, path: &Path) -> ErrorKind {
    driver.open(path).err().expect("it was opened").kind()
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    for driver in drivers() {
        let dir = dir();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        assert_eq!(refusal(&*driver, dir.path()), ErrorKind::Foreign, "{}", driver.name());
        assert!(!driver.exists(dir.path()));
        driver.destroy(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("letter.txt")).unwrap(), "dear");
        for other in drivers().into_iter().filter(|other| other.name() != driver.name()) {
            let path = dir.path().join("store");
            fill(&*other, &path, 3);
            assert_eq!(refusal(&*driver, &path), ErrorKind::Foreign, "{} in {}", driver.name(), other.name());
            assert_eq!(count(&*other.open(&path).unwrap(), Family::Instances), 3);
            other.destroy(&path).unwrap();
        }
    }
}

#[test]
fn destroying_an_open_store_is_refused() {
    for driver in drivers() {
        let dir = dir();
        let path = dir.path().join("store");
        let store = driver.open(&path).unwrap();
        assert_eq!(driver.destroy(&path).unwrap_err().kind(), ErrorKind::Locked, "{}", driver.name());
        drop(store);
        driver.destroy(&path).unwrap();
    }
}

#[cfg(feature = "rocksdb")]
mod rocksdb {
    use super::*;

    #[test]
    fn another_programs_database_is_refused() {
        let dir = dir();
        let mut options = ::rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        drop(::rocksdb::DB::open_cf(&options, dir.path(), ["users"]).unwrap());
        assert_eq!(refusal(&*crate::rocksdb(), dir.path()), ErrorKind::Foreign);
    }

    #[test]
    fn damaged_files_are_corrupt() {
        for (start, damage) in [("CURRENT", &b"MANIFEST"[..]), ("MANIFEST-", &[7; 100])] {
            let dir = dir();
            let driver = crate::rocksdb();
            fill(&*driver, dir.path(), 10);
            for entry in fs::read_dir(dir.path()).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name().to_string_lossy().starts_with(start) {
                    fs::write(entry.path(), damage).unwrap();
                }
            }
            assert_eq!(refusal(&*driver, dir.path()), ErrorKind::Corrupt, "{start}");
        }
    }

    #[test]
    fn a_creation_that_was_cut_short_is_repeated() {
        let dir = dir();
        let driver = crate::rocksdb();
        fill(&*driver, dir.path(), 10);
        fs::remove_file(dir.path().join("CURRENT")).unwrap();
        assert!(!driver.exists(dir.path()));
        driver.destroy(dir.path()).unwrap();
        assert!(!dir.path().exists());
        driver.open(dir.path()).unwrap();
    }
}

#[cfg(feature = "sled")]
mod sled {
    use cutover::store::sled::SledDriver;

    use crate::wait_until_free;

    use super::*;

    fn snapshot(path: &Path) -> std::path::PathBuf {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        names.into_iter().find(|path| path.to_string_lossy().contains("/snap.")).unwrap()
    }

    /// A store that has a snapshot: sled makes one when it opens.
    fn filled(path: &Path) -> SledDriver {
        let driver = SledDriver::default();
        fill(&driver, path, 200);
        driver.open(path).unwrap();
        driver
    }

    #[test]
    fn a_torn_snapshot_does_not_keep_it_from_opening() {
        let dir = dir();
        let driver = filled(dir.path());
        fs::write(dir.path().join("snap.7FFFFFFFFFFFFFFF.generating"), "torn").unwrap();
        assert_eq!(count(&*driver.open(dir.path()).unwrap(), Family::Instances), 200);
    }

    #[test]
    fn a_snapshot_without_its_data_is_left_over() {
        let dir = dir();
        let driver = filled(dir.path());
        fs::remove_file(dir.path().join("db")).unwrap();
        assert!(!driver.exists(dir.path()));
        assert_eq!(count(&*driver.open(dir.path()).unwrap(), Family::Instances), 0);
    }

    #[test]
    fn damaged_files_are_corrupt() {
        let dir = dir();
        let driver = filled(dir.path());
        fs::write(snapshot(dir.path()), [7; 100]).unwrap();
        assert_eq!(refusal(&driver, dir.path()), ErrorKind::Corrupt);
        fs::write(dir.path().join("conf"), "segment").unwrap();
        assert_eq!(refusal(&driver, dir.path()), ErrorKind::Corrupt);
    }

    #[test]
    fn another_programs_database_is_refused() {
        let (first, second) = (dir(), dir());
        ::sled::open(first.path()).unwrap().insert("a", "b").unwrap();
        wait_until_free(first.path());
        // Its segments have another size.
        assert_eq!(refusal(&SledDriver::default(), first.path()), ErrorKind::Foreign);
        let same = ::sled::Config::new().path(second.path()).segment_size(2 << 20);
        same.open().unwrap().insert("a", "b").unwrap();
        drop(same);
        wait_until_free(second.path());
        assert_eq!(refusal(&SledDriver::default(), second.path()), ErrorKind::Foreign);
    }

    /// Any answer but a panic, a hang or a row that was never written.
    #[test]
    fn damaged_bytes_give_an_error_or_the_rows_that_were_written() {
        let dir = dir();
        let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
        let driver = filled(&whole);
        let (mut refused, mut opened) = (0, 0);
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..40 {
            fs::create_dir_all(damaged.join("blobs")).unwrap();
            for file in ["conf", "db", snapshot(&whole).file_name().unwrap().to_str().unwrap()] {
                fs::copy(whole.join(file), damaged.join(file)).unwrap();
            }
            let mut bytes = fs::read(damaged.join("db")).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            let place = random.usize(..used);
            if round > 0 {
                bytes[place] ^= 1 << random.u8(..8);
            }
            fs::write(damaged.join("db"), bytes).unwrap();
            let mut rows = 0;
            let mut visit = |key: &[u8], found: &[u8]| {
                rows += 1;
                assert!(found == value(u64::from_be_bytes(key.try_into().unwrap())), "a row was made up");
                std::ops::ControlFlow::Continue(())
            };
            let scanned =
                driver.open(&damaged).and_then(|store| store.scan(Family::Instances, b"", b"", &mut visit));
            match scanned {
                Ok(()) if round == 0 => assert_eq!(rows, 200),
                Ok(()) => opened += 1,
                Err(err) if round == 0 => panic!("the copy is not damaged: {err}"),
                Err(err) => {
                    assert_eq!(err.kind(), ErrorKind::Corrupt, "{err}");
                    refused += 1;
                }
            }
            fs::remove_dir_all(&damaged).unwrap();
        }
        assert_eq!(opened + refused, 39);
        eprintln!("{refused} refused, {opened} opened");
    }
}
