//! Damage to the files of the stores under an engine: a block of one of RocksDB's tables, of which not even the keys can be read, and the
//! logs, of which a driver alone cannot tell damage from a power cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover::formats::Family;
use cutover::{Engine, ErrorKind, MigrationOptions, Phase, Retention, StoreSpec, TenantOptions};

use crate::tap::{LONG, keyed, started};

const COUNT: u32 = 400;

fn name(number: u32) -> String {
    format!("flow-{number:04}")
}

/// What nobody can compress, so that it takes several blocks.
fn body(number: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number.into());
    (0..1_000).map(|_| random.u8(..)).collect()
}

#[test]
fn a_damaged_block_of_a_table_is_set_aside_and_the_rest_is_moved() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = home.path().join("data");
    let open = || Engine::builder(&data).open().unwrap();
    let engine = open();
    let hour = Retention { instance_ms: 3_600_000, key_ms: 0, request_ms: 0 };
    let options = TenantOptions::new(StoreSpec::driver("rocksdb")).retention(hour);
    let tenant = engine.create_tenant("acme", options).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    for number in 0..COUNT {
        tenant.define(&name(number), 1, "bytes", &body(number)).unwrap();
    }
    drop(tenant);
    engine.close(LONG).unwrap();
    // Opening writes what is in the log to tables.
    open().close(LONG).unwrap();
    let tables = fs::read_dir(data.join("stores/rocksdb")).unwrap().map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let largest: PathBuf = tables.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    assert!(bytes.len() > 300_000, "the definitions are in it");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();

    let engine = open();
    let tenant = engine.tenant("acme").unwrap();
    let migration = tenant.migration();
    let (mut whole, mut refused) = (0_u64, Vec::new());
    for number in 0..COUNT {
        match tenant.definition(&name(number), 1) {
            Ok(found) => {
                assert_eq!(found.unwrap().body, body(number));
                whole += 1;
            }
            Err(err) => {
                let said = err.to_string();
                assert_eq!(err.kind(), ErrorKind::Corrupt, "{said}");
                assert!(
                    ["store 1 (rocksdb)", "definitions", &name(number)]
                        .iter()
                        .all(|part| said.contains(part)),
                    "{said}"
                );
                refused.push(number);
            }
        }
    }
    assert!(!refused.is_empty() && refused.len() < 20, "{refused:?}");
    migration.start(StoreSpec::driver("sled"), MigrationOptions::default()).unwrap();
    let until = std::time::Instant::now() + LONG;
    while !migration.progress().waiting_for.contains("cannot be read") {
        assert!(std::time::Instant::now() < until, "{:?}", migration.progress());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(migration.progress().copy.copied, whole + 1, "all others, and `work`");
    let entries = migration.quarantine().unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].family == Family::Definitions && entries[0].to.is_some(), "{entries:?}");
    assert_eq!(migration.retry().unwrap().left, 1);
    started(tenant.launch(&keyed("meanwhile")).unwrap());
    migration.drop_quarantined(&entries[0], "the disk has worn out there").unwrap();
    assert!(migration.wait_for(Phase::PostMigration, LONG).unwrap(), "{:?}", migration.progress());
    let live = tenant.instance_by_key("scope", b"meanwhile").unwrap().unwrap().id;
    tenant.end(live, cutover::Ending::Completed, b"", "").unwrap();
    // Damage in other places would not be waited for so long as an ended instance is.
    while !migration.progress().waiting_for.contains(&live.to_string()) {
        assert!(std::time::Instant::now() < until, "{:?}", migration.progress());
        std::thread::sleep(Duration::from_millis(5));
    }
    for number in 0..COUNT {
        let found = tenant.definition(&name(number), 1).unwrap().map(|found| found.body);
        let expected = (!refused.contains(&number)).then(|| body(number));
        assert_eq!(found, expected, "{number}");
    }
    drop((migration, tenant));
    engine.close(LONG).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// What was closed in order was durable, all of it: damage to the log, or its end cut off, does not take launches silently.
#[test]
fn a_damaged_log_of_a_store_that_was_closed_in_order_is_seen() {
    const LAUNCHES: usize = 60;
    const PLACES: usize = 10;
    for (driver, log) in [("rocksdb", "log"), ("sled", "db")] {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (whole, damaged) = (home.path().join("whole"), home.path().join("damaged"));
        let engine = Engine::builder(&whole).open().unwrap();
        let options = TenantOptions::new(StoreSpec::driver(driver));
        let tenant = engine.create_tenant("acme", options).unwrap();
        tenant.define("work", 1, "text/plain", b"do it").unwrap();
        for number in 0..LAUNCHES {
            started(tenant.launch(&keyed(&number.to_string()).input(body(1))).unwrap());
        }
        drop(tenant);
        engine.close(LONG).unwrap();
        let name = format!("stores/{driver}");
        let logs = fs::read_dir(whole.join(&name)).unwrap().map(|entry| entry.unwrap().path());
        let is_log = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name == log) || path.extension().is_some_and(|end| end == log)
        };
        let log = logs.filter(is_log).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let bytes = fs::read(&log).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let (mut refused, mut lost) = (0, 0);
        for place in (0..PLACES).map(|at| used * (2 * at + 1) / (2 * PLACES)) {
            for cut in [false, true] {
                copy(&whole, &damaged);
                let mut bytes = bytes.clone();
                if cut {
                    bytes[place..].fill(0);
                } else {
                    bytes[place] ^= 0x10;
                }
                fs::write(damaged.join(&name).join(log.file_name().unwrap()), bytes).unwrap();
                match Engine::builder(&damaged).open() {
                    Ok(engine) => {
                        let tenant = engine.tenant("acme").unwrap();
                        for number in 0..LAUNCHES {
                            let found =
                                tenant.instance_by_key("scope", number.to_string().as_bytes()).unwrap();
                            assert!(
                                found.is_some(),
                                "{driver}, byte {place}, cut {cut}: launch {number} has vanished"
                            );
                        }
                        drop(tenant);
                        engine.close(LONG).unwrap();
                    }
                    Err(err) => {
                        assert_eq!(err.kind(), ErrorKind::Corrupt, "{err}");
                        assert!(err.to_string().contains("store 1"), "{err}");
                        refused += 1;
                        lost += u32::from(err.to_string().contains("has lost what was durable"));
                    }
                }
                fs::remove_dir_all(&damaged).unwrap();
            }
        }
        eprintln!("{driver}: {refused} of {} refused, {lost} because something was lost", 2 * PLACES);
        assert!(lost > 0);
    }
}

/// Whoever wants to take a store as it is can.
#[test]
fn a_store_from_an_older_copy_is_refused_until_somebody_takes_it() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (data, older) = (home.path().join("data"), home.path().join("older"));
    let open = || Engine::builder(&data).open();
    let engine = open().unwrap();
    let tenant = engine.create_tenant("acme", TenantOptions::new(StoreSpec::driver("sled"))).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    drop(tenant);
    engine.close(LONG).unwrap();
    let store = data.join("stores/sled");
    copy(&store, &older);
    let engine = open().unwrap();
    started(engine.tenant("acme").unwrap().launch(&keyed("k")).unwrap());
    engine.close(LONG).unwrap();
    fs::remove_dir_all(&store).unwrap();
    copy(&older, &store);
    let err = open().err().unwrap();
    assert_eq!(err.kind(), ErrorKind::Corrupt);
    assert!(err.to_string().contains("meta/store-1.a"), "{err}");
    for slot in ["a", "b"] {
        fs::remove_file(data.join(format!("meta/store-1.{slot}"))).unwrap();
    }
    let engine = open().unwrap();
    assert!(engine.tenant("acme").unwrap().instance_by_key("scope", b"k").unwrap().is_none());
    engine.close(LONG).unwrap();
}
