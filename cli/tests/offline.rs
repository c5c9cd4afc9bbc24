//! `status` and `inspect` on real directories, through the binary: what they say, what they refuse, and that they change nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::offline::Directory;
use cutover::store::rocksdb::RocksDbDriver;
use cutover::store::sled::SledDriver;
use cutover::store::{Batch, Driver, Write};
use cutover::{
    Engine, ErrorKind, InstanceId, Launch, Launched, MigrationOptions, NewStep, Phase, StoreSpec, Tenant,
    TenantOptions,
};
use cutover_formats::Family;
use serde_json::Value;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);
const DRIVERS: [&str; 2] = ["rocksdb", "sled"];
/// Longer than a row of sled.
const BODY: usize = 10_000;

/// What a command came to.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn good(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// One sentence on stderr, nothing else, and the code for bad input.
    fn refused(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (2, ""), "{}", self.err);
        assert!(
            self.err.starts_with("cutover: ") && self.err.trim_end().lines().count() == 1,
            "{}",
            self.err
        );
        self.err
    }
}

fn cutover(words: &[&str], data: &Path) -> Said {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(words).arg("--data").arg(data).env("TMPDIR", temporary.path());
    let done = command.output().unwrap();
    let left = fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left, 0, "something is left in the temporary directory");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
}

fn json(data: &Path) -> Value {
    serde_json::from_str(&cutover(&["status", "--json", "--journal"], data).good()).unwrap()
}

/// Every file below a directory with its bytes, and every directory.
fn contents(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_dir() {
            found.extend(contents(&entry));
            found.insert(entry, None);
        } else {
            found.insert(entry.clone(), Some(fs::read(&entry).unwrap()));
        }
    }
    found
}

/// Runs it and holds the directory against what it was before, byte for byte.
fn unchanged<T>(data: &Path, look: impl FnOnce() -> T) -> T {
    let before = contents(data);
    let seen = look();
    let after = contents(data);
    let names = |all: &BTreeMap<PathBuf, Option<Vec<u8>>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (path, bytes) in before {
        assert!(after[&path] == bytes, "{} has changed", path.display());
    }
    seen
}

/// All of these stand in the text.
fn all_in(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

struct Data {
    home: TempDir,
    instance: InstanceId,
}

impl Data {
    fn path(&self) -> PathBuf {
        self.home.path().join("data")
    }
}

fn fill(tenant: &Tenant) -> InstanceId {
    tenant.define("greet", 1, "text/plain", &[b'b'; BODY]).unwrap();
    let launch = Launch::new("greet", 1).key("orders", "order-17").request_id("req-1").input(*b"hello");
    match tenant.launch(&launch.step(NewStep::new("pack").queue("parcels"))).unwrap() {
        Launched::Started(id) => id,
        other => panic!("{other:?}"),
    }
}

/// The tenant `acme` with a definition and an instance, and an empty tenant, closed in order.
fn closed(driver: &str) -> Data {
    let home = tempfile::tempdir().unwrap();
    let engine = Engine::builder(home.path().join("data")).open().unwrap();
    let tenant = engine.create_tenant("acme", TenantOptions::new(StoreSpec::driver(driver))).unwrap();
    engine.create_tenant("idle", TenantOptions::new(StoreSpec::driver(driver))).unwrap();
    let instance = fill(&tenant);
    drop(tenant);
    engine.close(LONG).unwrap();
    Data { home, instance }
}

/// `acme` alone, in the middle of a migration to the other driver.
fn in_phase(driver: &str, phase: Phase) -> Data {
    let home = tempfile::tempdir().unwrap();
    let engine = Engine::builder(home.path().join("data")).open().unwrap();
    let tenant = engine.create_tenant("acme", TenantOptions::new(StoreSpec::driver(driver))).unwrap();
    let instance = fill(&tenant);
    let to = StoreSpec::driver(DRIVERS.into_iter().find(|other| *other != driver).unwrap());
    let held = MigrationOptions::default().hold_switch(true).hold_complete(true);
    tenant.migration().start(to, held).unwrap();
    if phase == Phase::PostMigration {
        let until = Instant::now() + LONG;
        while tenant.migration().switch().is_err() {
            assert!(Instant::now() < until, "{:?}", tenant.migration().progress());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(tenant.migration().wait_for(phase, LONG).unwrap());
    }
    drop(tenant);
    engine.close(LONG).unwrap();
    Data { home, instance }
}

#[test]
fn status_says_what_is_there_and_changes_nothing() {
    for driver in DRIVERS {
        let data = closed(driver);
        let text = unchanged(&data.path(), || cutover(&["status"], &data.path()).good());
        let expected = [
            "cutover data directory, format version 1",
            "opened 1 times (the engine's incarnation); the last time it was closed in order",
            &format!("store 1 ({driver}, layout v1): in use, "),
            &format!("path     stores/{driver}"),
            "tenants  \"acme\", \"idle\"",
            "\"acme\" (tenant 0)",
            "phase    stable, since 20",
            "epoch    1",
            "primary  initial",
            &format!("initial  store 1 ({driver}): open, launches go there"),
            "legal    start",
        ];
        all_in(&text, &expected);
        assert!(!text.contains("journal"));
        let status = unchanged(&data.path(), || json(&data.path()));
        assert_eq!(status["schema"], "cutover.status/1");
        assert_eq!((&status["clean"], &status["incarnation"]), (&true.into(), &1.into()));
        assert!(status["stores"][0]["bytes"].as_u64().unwrap() > 0);
        assert_eq!(status["tenants"][0]["journal"][0]["why"], "created");
        assert_eq!(status["tenants"][1]["name"], "idle");
        assert_eq!(status["damaged"], Value::Array(Vec::new()));
    }
}

#[test]
fn status_in_the_middle_of_a_migration_says_what_is_in_the_way_and_what_is_legal() {
    let data = in_phase("rocksdb", Phase::PreMigration);
    let tenant = unchanged(&data.path(), || json(&data.path()))["tenants"][0].clone();
    assert_eq!((&tenant["phase"], &tenant["legal"][0]), (&"pre_migration".into(), &"switch".into()));
    all_in(&tenant["waits_for"].to_string(), &["held before the switch", "definitions are to be copied"]);

    let data = in_phase("sled", Phase::PostMigration);
    let status = unchanged(&data.path(), || json(&data.path()));
    let tenant = &status["tenants"][0];
    assert_eq!((&tenant["phase"], &tenant["primary"]), (&"post_migration".into(), &"target".into()));
    assert_eq!(tenant["initial"].to_string(), r#"{"status":"closed","store":1}"#);
    assert_eq!(tenant["target"].to_string(), r#"{"status":"open","store":2}"#);
    assert_eq!((&tenant["launches_go_to"], &tenant["epoch"]), (&2.into(), &4.into()));
    assert_eq!(tenant["legal"].to_string(), r#"["complete","reverse"]"#);
    all_in(&tenant["waits_for"].to_string(), &["store 1 has to drain", "held before it completes"]);
    let to: Vec<&str> =
        tenant["journal"].as_array().unwrap().iter().map(|line| line["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["stable", "pre_migration", "migration", "post_migration"]);
    let text = cutover(&["status", "--journal"], &data.path()).good();
    let line = "epoch 3  pre_migration -> migration  operator: asked for";
    all_in(&text, &["initial  store 1 (sled): closed", line]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let source = entry.unwrap().path();
        let target = to.join(source.file_name().unwrap());
        if source.is_dir() { copy(&source, &target) } else { fs::copy(&source, &target).map(drop).unwrap() }
    }
}

/// While an engine has a directory open, its files are those that a kill at this moment would leave.
#[test]
fn a_directory_in_use_is_refused_and_one_that_a_kill_has_left_is_shown() {
    for driver in DRIVERS {
        let home = tempfile::tempdir().unwrap();
        let (data, killed) = (home.path().join("data"), home.path().join("killed"));
        let engine = Engine::builder(&data).background(false).open().unwrap();
        let tenant = engine.create_tenant("acme", TenantOptions::new(StoreSpec::driver(driver))).unwrap();
        let instance = fill(&tenant);
        for command in ["status", "inspect"] {
            let sentence = cutover(&[command], &data).refused();
            assert_eq!(sentence, format!("cutover: another engine has {} open\n", data.display()));
        }
        copy(&data, &killed);
        let text = unchanged(&killed, || cutover(&["status"], &killed).good());
        assert!(text.contains("it was not closed in order"), "{text}");
        let rows = unchanged(&killed, || cutover(&["inspect", "--family", "instances"], &killed).good());
        assert!(rows.contains(&format!("instance {instance}, born in store 1")), "{rows}");
        drop(tenant);
        engine.close(LONG).unwrap();
    }
}

#[test]
fn lookers_do_not_keep_each_other_out_but_they_keep_engines_out() {
    let data = closed("rocksdb");
    let looking = Directory::open(data.path()).unwrap();
    cutover(&["status"], &data.path()).good();
    assert_eq!(Engine::builder(data.path()).open().err().unwrap().kind(), ErrorKind::Locked);
    drop(looking);
    Engine::builder(data.path()).open().unwrap().close(LONG).unwrap();
}

/// CRC32C bit by bit: of a few bytes, in a test.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Makes a slot of the metadata one that a newer version wrote: whole, with its checksum right.
fn make_newer(slot: &Path) {
    let mut bytes = fs::read(slot).unwrap();
    bytes[9] = 2;
    let crc = crc32c(&[&bytes[..24], &bytes[28..]].concat());
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    fs::write(slot, bytes).unwrap();
}

#[test]
fn a_directory_that_is_not_ours_or_newer_is_refused_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("foreign")).unwrap();
    fs::write(at("foreign").join("thesis.txt"), "x").unwrap();
    fs::write(at("file"), "x").unwrap();
    for (name, text) in [
        ("torn", b"cutover data dir".to_vec()),
        ("binary", vec![0xFF; 9]),
        ("newer", b"cutover data directory, version 2\n".to_vec()),
        ("far", b"cutover data directory, version 99999999999\n".to_vec()),
    ] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("CUTOVER"), text).unwrap();
    }
    for (name, sentence) in [
        ("nowhere", "there is no directory "),
        ("empty", "is not a cutover data directory: it has no CUTOVER file"),
        ("foreign", "is not a cutover data directory: it has \"thesis.txt\" and no CUTOVER file"),
        ("file", "is not a directory"),
        ("torn", "/CUTOVER does not say what it should"),
        ("binary", "/CUTOVER does not say what it should"),
        ("newer", "was written by a newer version: its format is 2, this program reads 1"),
        ("far", "was written by a newer version: its format is 99999999999, this program reads 1"),
    ] {
        for command in ["status", "inspect"] {
            let said = unchanged(home.path(), || cutover(&[command], &at(name)).refused());
            all_in(&said, &[sentence, &at(name).display().to_string()]);
        }
    }
}

#[test]
fn metadata_of_a_newer_version_is_refused_with_the_file_and_left_as_it_is() {
    for stem in ["engine", "catalog", "tenant-0"] {
        let data = closed("rocksdb");
        let slot = data.path().join("meta").join(format!("{stem}.b"));
        // One of the two is enough: a newer program that was killed between them.
        make_newer(&slot);
        let said = unchanged(&data.path(), || cutover(&["status"], &data.path()).refused());
        all_in(&said, &[&slot.display().to_string(), "format version 2"]);
        let newer = fs::read(&slot).unwrap();
        let err = Engine::builder(data.path()).open().err().unwrap();
        assert_eq!((err.kind(), fs::read(&slot).unwrap()), (ErrorKind::Foreign, newer), "{err}");
    }
}

#[test]
fn damaged_metadata_is_named_and_does_not_hide_the_rest() {
    let data = closed("rocksdb");
    let meta = data.path().join("meta");
    fs::write(meta.join("tenant-1.a"), "nonsense").unwrap();
    let text = unchanged(&data.path(), || cutover(&["status"], &data.path()).good());
    assert!(text.contains("\"idle\""), "one slot is enough, and is not mended: {text}");
    fs::write(meta.join("tenant-1.b"), "nonsense").unwrap();
    let text = unchanged(&data.path(), || cutover(&["status"], &data.path()).good());
    assert!(text.contains("\"idle\""), "the journal has the record too: {text}");
    fs::write(meta.join("tenant-1.jsonl"), "nonsense").unwrap();
    let said = unchanged(&data.path(), || cutover(&["status"], &data.path()));
    assert_eq!(said.code, 1);
    assert!(said.out.contains("\"acme\"") && said.err.contains("tenant-1.a"), "{}{}", said.out, said.err);
    fs::write(meta.join("catalog.a"), "nonsense").unwrap();
    fs::write(meta.join("catalog.b"), "nonsense").unwrap();
    let said = unchanged(&data.path(), || cutover(&["status"], &data.path()));
    assert!(
        said.code == 1 && said.err.contains("catalog.a") && said.err.lines().count() == 1,
        "{}",
        said.err
    );
}

#[test]
fn inspect_shows_every_family_decoded_and_changes_nothing() {
    for driver in DRIVERS {
        let data = closed(driver);
        let text = unchanged(&data.path(), || cutover(&["inspect"], &data.path()).good());
        let id = data.instance;
        let expected = [
            &format!("store 1 ({driver}) at stores/{driver}"),
            "definitions, tenant 0 \"acme\": definition \"greet\", version 1",
            &format!("body          \"{}\"... ({BODY} bytes)", "b".repeat(120)),
            "content_type  \"text/plain\"",
            "keys, tenant 0 \"acme\": key \"order-17\" in scope \"orders\"",
            "ended     no, it lives",
            "requests, tenant 0 \"acme\": request \"req-1\"",
            &format!("answer  started {id}"),
            &format!("instances, tenant 0 \"acme\": instance {id}, born in store 1 at 20"),
            &format!("instances, tenant 0 \"acme\": input of instance {id}"),
            "bytes  \"hello\" (5 bytes)",
            &format!("steps, tenant 0 \"acme\": step \"pack\" of instance {id}"),
            "queue     \"parcels\"",
            &format!(
                "ready, tenant 0 \"acme\": step \"pack\" of instance {id}, ready in queue \"parcels\" from"
            ),
            "expiry, tenant 0 \"acme\": at 20",
            // The key of the definition: tenant 0, the name escaped, its version.
            "key     0000000067726565740001",
        ];
        all_in(&text, &expected);
        assert_eq!(text.contains("this is a copy"), driver == "sled", "{text}");
        assert!(!text.contains("not decoded") && text.lines().all(|line| line.len() < 260));
    }
}

#[test]
fn inspect_narrows_down() {
    let data = in_phase("rocksdb", Phase::PostMigration);
    let look = |words: &[&str]| {
        let words: Vec<&str> = ["inspect"].iter().chain(words).copied().collect();
        unchanged(&data.path(), || cutover(&words, &data.path()).good())
    };
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("    key ")).count();
    let both = look(&["--family", "definitions"]);
    assert!(
        both.contains("store 1 (rocksdb)") && both.contains("store 2 (sled)") && rows(&both) == 2,
        "{both}"
    );
    let one = look(&["--store", "2", "--family", "definitions"]);
    assert!(!one.contains("rocksdb") && one.ends_with("\n1 rows\n"), "{one}");
    let found = look(&["--find", "ORDER-17"]);
    assert_eq!(rows(&found), 2, "the key, and the instance that has it: {found}");
    let of_instance = look(&["--find", &data.instance.to_string(), "--family", "steps"]);
    assert_eq!(rows(&of_instance), 1, "{of_instance}");
    assert_eq!(rows(&look(&["--find", "bbbb"])), 0, "payloads are not searched");
    let limited = look(&["--limit", "3"]);
    assert!(rows(&limited) == 3 && limited.contains("there are more rows than --limit 3"), "{limited}");
    // Each store has a row of its own, which is nobody's.
    assert_eq!(rows(&look(&["--tenant", "acme"])) + 2, rows(&look(&[])));
    let two = closed("rocksdb");
    assert!(cutover(&["inspect", "--tenant", "idle"], &two.path()).good().ends_with("\n0 rows\n"));
}

#[test]
fn bad_arguments_name_the_culprit_and_what_there_is() {
    let data = closed("rocksdb");
    for (words, sentence) in [
        (["--family", "rows"], "there is no family \"rows\"; the families are definitions, keys, requests, "),
        (["--tenant", "acne"], "there is no tenant \"acne\"; the tenants are \"acme\", \"idle\""),
        (["--store", "7"], "there is no store 7; the stores are 1 (rocksdb)"),
    ] {
        let look = || cutover(&["inspect", words[0], words[1]], &data.path()).refused();
        all_in(&unchanged(&data.path(), look), &[sentence]);
    }
    let wrong = cutover(&["inspect", "--store", "one"], &data.path());
    assert_eq!(wrong.code, 2);
    all_in(&wrong.err, &["--store", "'one'"]);
}

#[test]
fn a_retired_store_is_named_as_such() {
    let data = in_phase("rocksdb", Phase::PreMigration);
    let engine = Engine::builder(data.path()).open().unwrap();
    let tenant = engine.tenant("acme").unwrap();
    tenant.migration().cancel().unwrap();
    assert!(tenant.migration().wait_settled(LONG).unwrap());
    drop(tenant);
    engine.close(LONG).unwrap();
    let status = json(&data.path());
    let retired = &status["stores"][1];
    assert_eq!((&retired["state"], &retired["bytes"]), (&"retired".into(), &Value::Null));
    assert_eq!(status["tenants"][0]["last"]["outcome"], "cancelled");
    let said = cutover(&["inspect", "--store", "2"], &data.path()).refused();
    all_in(&said, &["store 2 is retired: its rows are gone; the stores are 1 (rocksdb)"]);
}

#[test]
fn rows_that_do_not_decode_are_shown_and_do_not_stop_the_listing() {
    for name in DRIVERS {
        let data = closed(name);
        let driver: Arc<dyn Driver> =
            if name == "sled" { Arc::new(SledDriver::default()) } else { Arc::new(RocksDbDriver::default()) };
        let store = driver.open(&data.path().join("stores").join(name)).unwrap();
        let mut batch = Batch::new();
        // Before and behind the definition that is there: a key that means nothing, and a value that does not.
        batch.put(Family::Definitions, &[0, 0], b"junk");
        batch.put(Family::Definitions, b"\0\0\0\0zoo\0\x01\0\0\0\x01", b"no record");
        store.commit(&batch, Write::Synced).unwrap();
        drop(store);
        let look = || cutover(&["inspect", "--family", "definitions"], &data.path()).good();
        let text = unchanged(&data.path(), look);
        let expected = [
            "definitions: does not decode: ",
            "key     0000 (2 bytes)",
            "record  6a756e6b (4 bytes)",
            "definition \"greet\", version 1",
            "definition \"zoo\", version 1",
            "    does not decode: a definition record",
            "3 rows, 2 of them not decoded",
        ];
        all_in(&text, &expected);
    }
}

/// A definition whose row nobody can read: an engine that moves its tenant sets it aside, and that is shown.
#[test]
fn what_was_set_aside_is_shown() {
    let data = closed("rocksdb");
    let store = RocksDbDriver::default().open(&data.path().join("stores/rocksdb")).unwrap();
    let mut batch = Batch::new();
    batch.put(Family::Definitions, b"\0\0\0\0zoo\0\x01\0\0\0\x01", b"no record");
    store.commit(&batch, Write::Synced).unwrap();
    drop(store);
    let look = |words: &[&str]| unchanged(&data.path(), || cutover(words, &data.path()).good());
    assert!(!look(&["status", "--quarantine"]).contains("aside"), "nobody has read it yet");
    let engine = Engine::builder(data.path()).open().unwrap();
    let tenant = engine.tenant("acme").unwrap();
    tenant.migration().start(StoreSpec::driver("sled"), MigrationOptions::default()).unwrap();
    let until = Instant::now() + LONG;
    while tenant.migration().progress().quarantined == 0 {
        assert!(Instant::now() < until, "{:?}", tenant.migration().progress());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(tenant);
    engine.close(LONG).unwrap();
    let what = "definition \"zoo\" version 1, in store 1 (rocksdb), family definitions";
    all_in(&look(&["status", "--quarantine"]), &["aside    ", what, "a definition record"]);
    let status: Value = serde_json::from_str(&look(&["status", "--quarantine", "--json"])).unwrap();
    let entries = &status["tenants"][0]["quarantine"];
    assert_eq!((&entries[0]["what"], entries.as_array().unwrap().len()), (&what.into(), 1));
    assert_eq!(status["tenants"][1]["quarantine"], Value::Array(Vec::new()));
    all_in(
        &look(&["inspect", "--family", "notes"]),
        &["set aside: cannot be read: family definitions", "reason"],
    );
}

#[test]
fn a_store_that_is_missing_or_broken_does_not_hide_the_others() {
    for driver in DRIVERS {
        let data = in_phase(driver, Phase::PostMigration);
        let store = data.path().join("stores").join(driver);
        let look = || cutover(&["inspect", "--family", "definitions"], &data.path());
        if driver == "rocksdb" {
            let files = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
            let manifests = files.filter(|path| path.to_string_lossy().contains("MANIFEST-"));
            manifests.for_each(|path| fs::write(path, "nonsense").unwrap());
            let said = unchanged(&data.path(), look);
            assert_eq!(said.code, 1, "{}", said.out);
            all_in(&said.err, &["opening store 1 (rocksdb)"]);
            all_in(&said.out, &["\"greet\""]);
        }
        cutover(&["status"], &data.path()).good();
        fs::remove_dir_all(&store).unwrap();
        let said = unchanged(&data.path(), look);
        assert_eq!(said.code, 1, "{}", said.out);
        all_in(&said.err, &["store 1 is not there"]);
        all_in(&said.out, &["\"greet\""]);
        assert_eq!(json(&data.path())["stores"][0]["state"], "missing");
    }
}

#[test]
fn a_store_that_is_opened_to_be_read_refuses_writes_and_one_that_is_not_there_is_not_made() {
    let data = closed("rocksdb");
    let (stores, driver) = (data.path().join("stores"), RocksDbDriver::default());
    unchanged(&data.path(), || {
        let store = driver.open_read_only(&stores.join("rocksdb")).unwrap().unwrap();
        let mut batch = Batch::new();
        batch.put(Family::Notes, b"k", b"v");
        assert_eq!(store.commit(&batch, Write::Relaxed).unwrap_err().kind(), ErrorKind::Unavailable);
        let everything = store.remove_range(Family::Definitions, b"", b"");
        assert_eq!(everything.unwrap_err().kind(), ErrorKind::Unavailable);
        drop(store);
        assert!(driver.open_read_only(&stores.join("nowhere")).is_err());
        assert!(SledDriver::default().open_read_only(&stores.join("nowhere")).unwrap().is_none());
    });
}

#[test]
fn whoever_stops_reading_is_no_error() {
    let data = closed("rocksdb");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(["inspect", "--data"]).arg(data.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap()), (Some(0), String::new()));
}
