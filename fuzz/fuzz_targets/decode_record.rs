//! Any bytes as everything that stands in a value, a slot file or a line of the journal: an error, or a value that is
//! written in the same bytes again (a journal line: with the same meaning).
//!
//! Each input is read as it is, and, because hardly any guess at a checksum is right, also as a type and a body around which
//! this program puts a frame that is right.

#![no_main]

use std::alloc::System;
use std::fmt::Debug;

use cap::Cap;
use cutover_formats::access::{AccessLine, AccessRecord};
use cutover_formats::codec::{self, RecordType, SLOT_MAGIC};
use cutover_formats::journal::Line;
use cutover_formats::meta::{CatalogRecord, EngineRecord, JournalLine, TenantRecord};
use cutover_formats::record::ClosedRecord;
use cutover_formats::{Expiring, Family, InstanceId, Layout as _, NoteId, RowId, V1, journal};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first allocation beyond it fails, and with it the target.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 64 << 20);

fuzz_target!(|data: &[u8]| {
    values(data);
    slots(data);
    line(data);
    sealed(data);
    if let Some((kind, body)) = data.split_first() {
        values(&frame(*kind, body));
        slots(&slot_frame(*kind, body));
    }
});

/// One row of each kind that a value can stand in.
fn rows() -> [RowId<'static>; 13] {
    let id = InstanceId(1);
    [
        RowId::Definition { name: "d".into(), version: 1 },
        RowId::Key { scope: "s".into(), key: b"k".into() },
        RowId::Request { id: b"r".into() },
        RowId::Instance { id },
        RowId::Input { id },
        RowId::Output { id },
        RowId::Step { instance: id, step: "s".into() },
        RowId::Ready { queue: "q".into(), at_ms: 1, instance: id, step: "s".into() },
        RowId::Expiry { at_ms: 1, what: Expiring::Instance(id) },
        RowId::Note(NoteId::Replace { old: id }),
        RowId::Note(NoteId::Closed),
        RowId::Note(NoteId::Move { instance: id }),
        RowId::Note(NoteId::Quarantine { family: Family::Keys, key: b"k".into() }),
    ]
}

fn values(data: &[u8]) {
    for id in rows() {
        if let Ok(record) = V1.read_value(&id, data) {
            let mut again = Vec::new();
            V1.value(&record, &mut again).expect("what was read can be written");
            assert_eq!(again, data, "{record:?}");
        }
    }
}

fn slots(data: &[u8]) {
    slot::<TenantRecord>(RecordType::Tenant, data);
    slot::<CatalogRecord>(RecordType::Catalog, data);
    slot::<EngineRecord>(RecordType::Engine, data);
    slot::<ClosedRecord>(RecordType::Store, data);
    slot::<AccessRecord>(RecordType::Access, data);
}

fn slot<T: Serialize + DeserializeOwned + Debug>(kind: RecordType, data: &[u8]) {
    if let Ok((counter, record)) = codec::open_slot::<T>(kind, data) {
        let again = codec::seal_slot(kind, counter, &record).expect("what was read can be written");
        assert_eq!(again, data, "{record:?}");
    }
}

fn line(data: &[u8]) {
    if let Ok(line) = journal::decode(data) {
        let again = journal::encode(&line).expect("what was read can be written");
        assert!(!again.contains('\n'), "a line is one line");
        assert_eq!(journal::decode(again.as_bytes()), Ok(line));
    }
}

/// A line with a seal: what was read is sealed and read again as it was, and any bytes are lines of some kind.
fn sealed(data: &[u8]) {
    sealed_as::<JournalLine>(data);
    sealed_as::<AccessLine>(data);
}

fn sealed_as<L: Line + Debug>(data: &[u8]) {
    if let Ok(entry) = journal::open_as::<L>(data) {
        let again =
            journal::seal(&entry.line, entry.record.as_deref()).expect("what was read can be written");
        let read = journal::open_as::<L>(again.as_bytes()).expect("what was written can be read");
        assert_eq!((&read.line, &read.record, read.damaged), (&entry.line, &entry.record, false));
    }
    for line in journal::lines(data) {
        drop(journal::open_as::<L>(line));
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 1];
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    seal(frame, body)
}

fn slot_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = SLOT_MAGIC.to_vec();
    frame.extend_from_slice(&[kind, 1, 0, 0]);
    frame.extend_from_slice(&9_u64.to_le_bytes());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    seal(frame, body)
}

fn seal(mut frame: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), body);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}
