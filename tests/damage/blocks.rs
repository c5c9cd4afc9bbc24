//! A block of one of RocksDB's tables is damaged: not even the keys in it can be read.

use std::fs;
use std::path::PathBuf;
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
    migration.start(StoreSpec::driver("sled"), MigrationOptions::default().hold_complete(true)).unwrap();
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
    for number in 0..COUNT {
        let found = tenant.definition(&name(number), 1).unwrap().map(|found| found.body);
        let expected = (!refused.contains(&number)).then(|| body(number));
        assert_eq!(found, expected, "{number}");
    }
    drop((migration, tenant));
    engine.close(LONG).unwrap();
}
