//! The golden bytes of version 1: every record type, kind of key and type of slot, as `fixtures/v1` has them in hex with a
//! comment for each field, and a line of the journal. They were not written by this crate's encoder.
//!
//! A file there never changes once a version has been released; see `FORMAT.md`. A missing one is written (without
//! comments) by `CUTOVER_WRITE_FIXTURES=1 cargo test -p cutover-formats --test golden`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cutover_formats::access::{Access, AccessLine, AccessRecord, HandoverPhase, InWave};
use cutover_formats::codec::{self, RecordType, SLOT_FRAME};
use cutover_formats::meta::{EndedMigration, JournalLine, Outcome, TenantRecord};
use cutover_formats::record::{ClosedRecord, Ending, KeyEnd, KeyRecord};
use cutover_formats::{
    Family, Layout as _, Phase, Role, StoreStatus, Strategy, TenantId, V1, journal, marker,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const JOURNAL: &str = "journal-line";
const SEALED: &str = "journal-line-sealed";
const OF_ACCESS: &str = "journal-line-access";
const MARKERS: [&str; 2] = ["marker", "marker-copy"];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(format!("{name}.hex"))
}

/// The bytes of a fixture, which must be these.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    if !path(name).exists() && std::env::var_os("CUTOVER_WRITE_FIXTURES").is_some() {
        let rows: Vec<String> = written.chunks(16).map(hex).collect();
        fs::write(path(name), format!("# {name}\n{}\n", rows.join("\n"))).unwrap();
    }
    let text = fs::read_to_string(path(name)).unwrap_or_else(|err| panic!("{name}: {err}"));
    let digits = text.lines().flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace());
    let golden: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    assert_eq!(hex(written), hex(&golden), "{name} is written otherwise than its fixture says");
    golden
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn keys() {
    for (name, id) in values::keys() {
        let mut key = Vec::new();
        V1.key(TenantId(7), &id, &mut key);
        let golden = golden(name, &key);
        assert_eq!(V1.read_key(id.family(), &golden), Ok((TenantId(7), id)), "{name}");
    }
}

#[test]
fn records() {
    for (name, id, record) in values::records() {
        let mut value = Vec::new();
        V1.value(&record, &mut value).unwrap();
        let golden = golden(name, &value);
        assert_eq!(V1.read_value(&id, &golden), Ok(record), "{name}");
    }
}

fn slot<T>(name: &str, kind: RecordType, counter: u64, value: T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let golden = golden(name, &codec::seal_slot(kind, counter, &value).unwrap());
    assert_eq!(codec::open_slot(kind, &golden), Ok((counter, value)), "{name}");
}

#[test]
fn slots() {
    slot("slot-tenant-stable", RecordType::Tenant, 1, values::stable_tenant());
    slot("slot-tenant-migrating", RecordType::Tenant, 12, values::migrating_tenant());
    slot("slot-catalog", RecordType::Catalog, 8, values::catalog());
    slot("slot-engine", RecordType::Engine, 33, values::engine());
    slot("slot-access", RecordType::Access, 6, values::access());
    slot("slot-store", RecordType::Store, 4, ClosedRecord { count: 4 });
}

#[test]
fn lines_of_the_journal() {
    let path = path(JOURNAL).with_extension("jsonl");
    let text = fs::read_to_string(path).unwrap();
    let line: JournalLine = values::journal_line();
    assert_eq!(journal::encode(&line).unwrap() + "\n", text);
    assert_eq!(journal::decode(text.trim_end().as_bytes()), Ok(line.clone()));
    // What a later version adds is passed over; what is missing or makes no sense is not made up.
    let more = text.replacen('{', "{\"since\":[{}],", 1);
    assert_eq!(journal::decode(more.as_bytes()), Ok(line));
    for broken in [text.replace("seq", "sex"), text.replace("rolling", "strolling"), text.replace('}', "")] {
        assert!(journal::decode(broken.as_bytes()).is_err(), "{broken}");
    }
}

#[test]
fn sealed_lines_of_the_journal() {
    let text = fs::read_to_string(path(SEALED).with_extension("jsonl")).unwrap();
    let text = text.trim_end();
    let tenant = values::migrating_tenant();
    let record = codec::seal_slot(RecordType::Tenant, 12, &tenant).unwrap();
    assert_eq!(journal::seal(&tenant.journal, Some(&record)).unwrap(), text);
    let entry = journal::open(text.as_bytes()).unwrap();
    assert_eq!((&entry.line, &entry.record, entry.damaged), (&tenant.journal, &Some(record.clone()), false));
    // For whoever knows nothing of seals it is a line with more fields.
    assert_eq!(journal::decode(text.as_bytes()), Ok(entry.line));
    let later = text.replacen(",\"crc\"", ",\"more\":1,\"crc\"", 1);
    assert!(
        journal::open(later.as_bytes()).unwrap().damaged,
        "the checksum is over all that comes before it"
    );
    // The record of one line behind another, each whole.
    let other = values::journal_line();
    let entry = journal::open(journal::seal(&other, Some(&record)).unwrap().as_bytes()).unwrap();
    assert_eq!((entry.line, entry.record, entry.damaged), (other, None, true));
}

#[test]
fn sealed_lines_of_the_journal_of_access() {
    let text = fs::read_to_string(path(OF_ACCESS).with_extension("jsonl")).unwrap();
    let text = text.trim_end();
    let access = values::access();
    let record = codec::seal_slot(RecordType::Access, 6, &access).unwrap();
    assert_eq!(journal::seal(&access.journal, Some(&record)).unwrap(), text);
    let entry = journal::open_as::<AccessLine>(text.as_bytes()).unwrap();
    assert_eq!((&entry.line, &entry.record, entry.damaged), (&access.journal, &Some(record), false));
    // Damage to its fields is made good from its record; a line of the other kind is none.
    let damaged = text.replacen("\"driver\"", "\"drover\"", 1);
    let entry = journal::open_as::<AccessLine>(damaged.as_bytes()).unwrap();
    assert_eq!((entry.line, entry.damaged), (access.journal, true));
    assert!(journal::open(text.as_bytes()).is_err());
}

#[test]
fn markers() {
    let [text, copy] = MARKERS.map(|name| fs::read(path(name).with_extension("txt")).unwrap());
    assert_eq!(marker::text(1).as_bytes(), text);
    assert_eq!(marker::copy(1).as_bytes(), copy);
    assert_eq!((marker::read_text(&text), marker::read_copy(&copy)), (Some(1), Some(1)));
    for at in 0..copy.len() {
        let mut flipped = copy.clone();
        flipped[at] ^= 1;
        assert_eq!((marker::read_copy(&flipped), marker::read_copy(&copy[..at])), (None, None), "{at}");
    }
}

/// The number of every choice: the fixtures hold some of them, a change of order would move them all.
#[test]
fn numbers_of_choices() {
    assert_eq!(Family::ALL.map(|family| family as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
    let endings = [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::Terminated];
    for (number, ending) in (0..).zip(endings) {
        let ended = Some(KeyEnd { ending, out_of_scope_ms: 0 });
        let record = KeyRecord { instance: values::ID, epoch: 1, ended, revision: 1 };
        let mut value = Vec::new();
        codec::encode(RecordType::Key, &record, &mut value).unwrap();
        // Frame, instance, epoch, one byte for "some".
        assert_eq!(choice(&value, codec::FRAME + 16 + 8 + 1), number);
    }
    // A tenant without a name: number, length of the name, one byte for `deleting`, epoch.
    const PHASE: usize = 4 + 8 + 1 + 8;
    let written = |change: &dyn Fn(&mut TenantRecord), at: usize| {
        let mut tenant = TenantRecord { name: String::new(), ..values::stable_tenant() };
        change(&mut tenant);
        choice(&codec::seal_slot(RecordType::Tenant, 1, &tenant).unwrap(), SLOT_FRAME + at)
    };
    for (number, phase) in (0..).zip(Phase::ALL) {
        assert_eq!(written(&|tenant| tenant.status.phase = phase, PHASE), number);
    }
    assert_eq!(written(&|tenant| tenant.status.strategy = Strategy::Drain, PHASE + 4), 0);
    for (number, role) in (0..).zip([Role::Initial, Role::Target]) {
        assert_eq!(written(&|tenant| tenant.status.primary = role, PHASE + 8), number);
    }
    for (number, status) in (0..).zip([StoreStatus::Open, StoreStatus::Closed]) {
        assert_eq!(written(&|tenant| tenant.status.initial_status = status, PHASE + 17), number);
    }
    for (number, outcome) in (0..).zip([Outcome::Completed, Outcome::Cancelled, Outcome::RolledBack]) {
        // The two statuses, when it was entered, no migration; then the length of the list, the number of the only one in it, and no run.
        let ended = |tenant: &mut TenantRecord| {
            tenant.ended = vec![EndedMigration { id: 1, run: None, outcome, at_ms: 1 }];
        };
        assert_eq!(written(&ended, PHASE + 17 + 8 + 8 + 1 + 8 + 8 + 1), number);
    }
}

#[test]
fn numbers_of_choices_of_access() {
    let accesses = [Access::Primary, Access::Standby, Access::Deactivated, Access::Terminated];
    let written = |change: &dyn Fn(&mut AccessRecord), at: usize| {
        let mut record = values::access();
        record.seats.truncate(1);
        change(&mut record);
        choice(&codec::seal_slot(RecordType::Access, 1, &record).unwrap(), SLOT_FRAME + at)
    };
    // Tenant, epoch, one seat with a name of four bytes.
    const ACCESS: usize = 4 + 8 + 8 + 8 + 4;
    for (number, access) in (0..).zip(accesses) {
        assert_eq!(written(&|record| record.seats[0].access = access, ACCESS), number);
    }
    // Access, epoch and time of the seat; "some", number, "some", and names of four and three bytes.
    const PHASE: usize = ACCESS + 4 + 8 + 8 + 1 + 8 + 1 + 8 + 4 + 8 + 3;
    let phases = [HandoverPhase::Prepare, HandoverPhase::Flip, HandoverPhase::Cleanup, HandoverPhase::Back];
    for (number, phase) in (0..).zip(phases) {
        let set = |record: &mut AccessRecord| record.handover.as_mut().unwrap().phase = phase;
        assert_eq!(written(&set, PHASE), number);
    }
    // No time to flip, the patience, no earlier seats, when it began, "some".
    const WAVE: usize = PHASE + 4 + 1 + 8 + 8 + 8 + 1;
    for (number, wave) in (0..).zip([InWave::Silent, InWave::Serves]) {
        let set = |record: &mut AccessRecord| {
            let handover = record.handover.as_mut().unwrap();
            (handover.flip_at_ms, handover.earlier, handover.wave) = (None, Vec::new(), Some(wave));
        };
        assert_eq!(written(&set, WAVE), number);
    }
}

fn choice(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn instance_ids_in_text() {
    assert_eq!(values::ID.to_string(), "00000066GC8M3CFENWVVR14D2PY");
    assert_eq!("00000066GC8M3CFENWVVR14D2PY".parse(), Ok(values::ID));
}

/// A fixture that no test reads would be a promise that nobody keeps.
#[test]
fn every_fixture_is_read() {
    let found: BTreeSet<String> = fs::read_dir(path("x").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let slots = [
        "slot-tenant-stable",
        "slot-tenant-migrating",
        "slot-catalog",
        "slot-engine",
        "slot-store",
        "slot-access",
    ];
    let known = values::keys().into_iter().map(|(name, _)| name);
    let known = known
        .chain(values::records().into_iter().map(|(name, ..)| name))
        .chain(slots)
        .chain([JOURNAL, SEALED, OF_ACCESS])
        .chain(MARKERS);
    assert_eq!(found, known.map(str::to_owned).collect());
}
