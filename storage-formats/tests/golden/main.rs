//! The golden bytes of version 1: every record type, kind of key and type of slot, as `fixtures/v1` has them in hex with a
//! comment for each field. They were not written by this crate's encoder.
//!
//! A file there never changes once a version has been released; see `FORMAT.md`. A missing one is written (without
//! comments) by `CUTOVER_WRITE_FIXTURES=1 cargo test -p cutover-formats --test golden`.

#![expect(clippy::unwrap_used, reason = "a test")]

mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cutover_formats::codec::{self, RecordType};
use cutover_formats::{Layout as _, TenantId, V1};
use serde::Serialize;
use serde::de::DeserializeOwned;

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
    let slots = ["slot-tenant-stable", "slot-tenant-migrating", "slot-catalog", "slot-engine"];
    let known = values::keys().into_iter().map(|(name, _)| name);
    let known = known.chain(values::records().into_iter().map(|(name, ..)| name)).chain(slots);
    assert_eq!(found, known.map(str::to_owned).collect());
}
