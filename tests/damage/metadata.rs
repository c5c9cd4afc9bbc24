//! Every byte of every metadata file: flipped, and cut off there.

use std::collections::BTreeMap;

use cutover::{Engine, ErrorKind, JournalLine, MigrationOptions, Phase, Status};

use crate::tap::{DROP, Home, KEEP, keyed, memory, started, tenant, work_off};

/// What an engine says that depends on its metadata.
#[derive(Debug, Clone, PartialEq)]
struct View {
    tenants: Vec<String>,
    status: Status,
    journal: Vec<JournalLine>,
    drivers: Vec<Option<String>>,
    live: bool,
}

fn view(engine: &Engine) -> View {
    let tenant = engine.tenant("acme").unwrap();
    let status = tenant.status();
    View {
        tenants: engine.tenants(),
        status,
        journal: tenant.migration().journal().unwrap(),
        drivers: [Some(status.initial), status.target]
            .into_iter()
            .flatten()
            .map(|store| engine.store_driver(store))
            .collect(),
        live: tenant.instance_by_key("scope", b"k").unwrap().is_some_and(|found| found.ending().is_none()),
    }
}

/// A directory in the middle of a migration, closed; its files, and what an engine says of it.
fn closed() -> (Home, BTreeMap<String, Vec<u8>>, View) {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", KEEP);
    started(tenant.launch(&keyed("k")).unwrap());
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_complete(true)).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::PostMigration);
    let view = view(&engine);
    drop((tenant, engine));
    let files = home.files();
    (home, files, view)
}

const SLOTS: [&str; 8] = [
    "meta/engine.a",
    "meta/engine.b",
    "meta/catalog.a",
    "meta/catalog.b",
    "meta/store-1.a",
    "meta/store-1.b",
    "meta/tenant-0.a",
    "meta/tenant-0.b",
];
const MARKERS: [&str; 2] = ["CUTOVER", "meta/marker"];
const JOURNAL: &str = "meta/tenant-0.jsonl";

/// Opens the directory and holds it against the view. What was damaged is whole afterwards.
fn opens_as(home: &Home, files: &BTreeMap<String, Vec<u8>>, damaged: &str, expected: &View, what: &str) {
    let engine = home.builder().open().unwrap_or_else(|err| panic!("{what}: {err}"));
    assert_eq!(view(&engine), *expected, "{what}");
    let now = home.files();
    if damaged.starts_with("meta/engine") {
        assert_eq!(now["meta/engine.a"], now["meta/engine.b"], "{what}: not mended");
    } else if damaged == JOURNAL {
        // The copy of a record in an older line is not needed and not made up again.
        drop(engine);
        assert_eq!(view(&home.open()), *expected, "{what}");
        assert_eq!(now[damaged], home.files()[damaged], "{what}: mended once");
    } else {
        assert!(now[damaged] == files[damaged], "{what}: not mended");
    }
}

/// Damages a file in every way that `at` names, and opens the directory each time.
fn sweep(name: &str, places: impl Iterator<Item = usize>) -> usize {
    let (home, files, expected) = closed();
    let whole = &files[name];
    let mut openings = 0;
    for at in places.take_while(|at| *at < whole.len()) {
        for flip in [Some(1_u8), Some(0xFF), None] {
            home.restore(&files);
            let (bytes, what) = match flip {
                Some(flip) => {
                    let mut bytes = whole.clone();
                    bytes[at] ^= flip;
                    (bytes, format!("{name}: byte {at} flipped by {flip:#x}"))
                }
                None => (whole[..at].to_vec(), format!("{name}: cut off at {at}")),
            };
            if name == JOURNAL && flip.is_none() && at < whole.len() - 20 {
                // What a cut takes from a journal is lost, but for the last line, and the loss is said; see below.
                continue;
            }
            home.write(name, &bytes);
            opens_as(&home, &files, name, &expected, &what);
            openings += 1;
        }
    }
    openings
}

#[test]
fn every_byte_of_every_slot_and_marker_flipped_or_cut_off() {
    let openings: usize = SLOTS.into_iter().chain(MARKERS).map(|name| sweep(name, 0..)).sum();
    eprintln!("{openings} openings");
    assert!(openings > 2_500);
}

/// The journal itself is swept completely beside its code; here every so many bytes, or all of them if asked.
#[test]
fn bytes_of_the_journal_flipped() {
    let all = std::env::var_os("CUTOVER_DAMAGE_ALL").is_some();
    let openings = sweep(JOURNAL, (0..).step_by(if all { 1 } else { 29 }));
    eprintln!("{openings} openings");
    assert!(openings > 100);
}

#[test]
fn a_journal_that_is_cut_off_keeps_its_last_line_and_says_which_are_lost() {
    let (home, files, expected) = closed();
    let whole = &files[JOURNAL];
    let all = expected.journal.len();
    for at in (0..whole.len()).step_by(97) {
        home.restore(&files);
        home.write(JOURNAL, &whole[..at]);
        let engine = home.open();
        let journal = engine.tenant("acme").unwrap().migration().journal().unwrap();
        let last = expected.journal.last().unwrap();
        let of_before: Vec<&JournalLine> = journal.iter().filter(|line| line.seq <= last.seq).collect();
        assert!(of_before.iter().all(|line| expected.journal.contains(line)), "cut off at {at}");
        assert_eq!(of_before.last(), Some(&last), "cut off at {at}");
        let said = journal.last().filter(|line| line.who == "recovery");
        let lost = all - of_before.len();
        assert_eq!(
            said.is_some_and(|line| line.why.contains("lost")),
            lost > 0,
            "cut off at {at}: {journal:?}"
        );
        drop(engine);
        // It is said once.
        let again = home.open().tenant("acme").unwrap().migration().journal().unwrap();
        assert_eq!(again, journal);
    }
}

/// Damages all of these files and opens the directory: one error that names one of them, and nothing is changed.
fn refused(damaged: &[&str], kind: ErrorKind) {
    let (home, mut files, _) = closed();
    for name in damaged {
        let bytes = files.get_mut(*name).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        bytes.truncate(bytes.len() - 1);
    }
    // One of another record is damaged too: it is not mended before everything was read.
    if !damaged.contains(&"meta/engine.a") {
        files.get_mut("meta/engine.a").unwrap()[3] ^= 1;
    }
    home.restore(&files);
    let err = home.builder().open().err().unwrap_or_else(|| panic!("{damaged:?}: it was opened"));
    assert_eq!(err.kind(), kind, "{err}");
    assert!(damaged.iter().any(|name| err.to_string().contains(name)), "{damaged:?}: {err}");
    assert!(home.files() == files, "{damaged:?}: something was changed");
}

#[test]
fn both_copies_damaged_is_one_error_that_names_them_and_changes_nothing() {
    refused(&["meta/engine.a", "meta/engine.b"], ErrorKind::Corrupt);
    refused(&["meta/catalog.a", "meta/catalog.b"], ErrorKind::Corrupt);
    refused(&["meta/tenant-0.a", "meta/tenant-0.b", JOURNAL], ErrorKind::Corrupt);
    refused(&["CUTOVER", "meta/marker"], ErrorKind::Foreign);
}

#[test]
fn a_tenant_without_a_readable_slot_is_restored_from_its_journal() {
    let (home, files, expected) = closed();
    let [a, b] = ["meta/tenant-0.a", "meta/tenant-0.b"];
    for at in (0..files[a].len()).step_by(7).map(Some).chain([None]) {
        home.restore(&files);
        for name in [a, b] {
            match at {
                Some(at) => {
                    let mut bytes = files[name].clone();
                    bytes[at] ^= 0x10;
                    home.write(name, &bytes);
                }
                None => std::fs::remove_file(home.data().join(name)).unwrap(),
            }
        }
        let engine = home.open();
        let mut now = view(&engine);
        let said = now.journal.pop().unwrap();
        assert!(said.who == "recovery" && said.why.contains("restored from the journal"), "{said:?}");
        assert_eq!(now, expected, "{at:?}");
        drop(engine);
        assert_eq!(home.files()[a], home.files()[b]);
        let engine = home.open();
        let tenant = engine.tenant("acme").unwrap();
        tenant.migration().reverse().unwrap();
        work_off(&engine);
        assert_eq!(tenant.status().phase, Phase::PostRollback, "it goes on");
        drop((tenant, engine));
        // The stores have moved on with it; the next round begins anew.
        if at.is_some_and(|at| at > 40) {
            break;
        }
    }
}

/// A crash between the line of the journal and the slots: the record decides, and the line is gone.
#[test]
fn a_line_whose_record_never_came_to_be_is_not_believed() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", DROP);
    let before = home.files();
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    let after = home.files();
    drop((tenant, engine));
    let mut torn = before.clone();
    torn.insert(JOURNAL.into(), after[JOURNAL].clone());
    // The catalog is ahead of the record, as a crash there leaves it.
    for name in ["meta/catalog.a", "meta/catalog.b"] {
        torn.insert(name.into(), after[name].clone());
    }
    home.restore(&torn);
    let engine = home.open();
    let tenant = engine.tenant("acme").unwrap();
    assert_eq!(tenant.status().phase, Phase::Stable);
    assert!(tenant.migration().journal().unwrap().iter().all(|line| line.to == Phase::Stable));
    tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
    work_off(&engine);
    assert_eq!(tenant.status().phase, Phase::Stable);
    let journal = tenant.migration().journal().unwrap();
    assert!(journal.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "{journal:?}");
}
