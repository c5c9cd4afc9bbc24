//! Lengths that lie. Whatever a record claims, reading it sets aside no more than a small multiple of the bytes at
//! hand; counted by an allocator that counts.

// Miri has an allocator of its own.
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, reason = "a test")]

use allocation_counter::measure;
use cutover_formats::codec::{self, RecordType};
use cutover_formats::meta::TenantRecord;
use cutover_formats::record::{DefinitionRecord, InstanceRecord, NoteRecord, PayloadRecord, StepRecord};
use serde::de::DeserializeOwned;

/// What serde may set aside for a list before it has read the first element.
const LIST: u64 = 1 << 20;

fn frame(kind: RecordType, body: &[u8]) -> Vec<u8> {
    let mut covered = vec![kind as u8, 1];
    covered.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&covered), body);
    [&covered, &crc.to_le_bytes()[..], body].concat()
}

/// Reads the frame; the error and the most bytes that were set aside at one time.
fn refused<T: DeserializeOwned + std::fmt::Debug>(kind: RecordType, body: &[u8]) -> u64 {
    let value = frame(kind, body);
    let mut read = None;
    let counted = measure(|| read = Some(codec::decode::<T>(kind, &value)));
    assert!(read.take().unwrap().is_err(), "a length that lies was believed");
    counted.bytes_max
}

const LIES: [u64; 6] = [1 << 12, 1 << 20, 1 << 24, 1 << 40, i64::MAX as u64, u64::MAX];

/// A body of zeros except for one length.
fn body(len: usize, at: usize, lie: u64) -> Vec<u8> {
    let mut body = vec![0; len];
    body.splice(at..at + 8, lie.to_le_bytes());
    body
}

#[test]
fn the_length_of_a_text_or_of_bytes() {
    for lie in LIES {
        for len in [8, 60, 0x100, 0x1000, 0x1_0000] {
            let limit = 16 * len.max(0x100) as u64;
            // All of these start with a text or with bytes.
            let lies = body(len, 0, lie.max(len as u64 + 1));
            assert!(refused::<PayloadRecord>(RecordType::Payload, &lies) <= limit, "{lie} in {len}");
            assert!(refused::<DefinitionRecord>(RecordType::Definition, &lies) <= limit, "{lie} in {len}");
            assert!(refused::<InstanceRecord>(RecordType::Instance, &lies) <= limit, "{lie} in {len}");
        }
        // The name of a tenant stands behind its number.
        let lies = body(200, 4, lie);
        let slot = sealed(&lies);
        let counted =
            measure(|| assert!(codec::open_slot::<TenantRecord>(RecordType::Tenant, &slot).is_err()));
        assert!(counted.bytes_max <= 16 * 0x100, "{lie}: {}", counted.bytes_max);
    }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut head = codec::SLOT_MAGIC.to_vec();
    head.extend_from_slice(&[RecordType::Tenant as u8, 1, 0, 0]);
    head.extend_from_slice(&1u64.to_le_bytes());
    head.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body);
    [&head, &crc.to_le_bytes()[..], body].concat()
}

#[test]
fn the_length_of_a_list() {
    for lie in LIES {
        // A step: state `Completed`, four empty texts, how it is tried again, from where on that counts, then the length of its history.
        let mut step = body(100, 4 + 32 + 28 + 12, lie);
        step[0] = 2;
        assert!(refused::<StepRecord>(RecordType::Step, &step) <= LIST + 0x1000, "{lie}");
        // An intent: kind, instance, store, time, an empty reason, then the length of its rows.
        let mut note = body(100, 4 + 16 + 4 + 8 + 8, lie);
        note[0] = 1;
        assert!(refused::<NoteRecord>(RecordType::Note, &note) <= LIST + 0x1000, "{lie}");
        // The same with one row whose key lies: a list within a list.
        let mut note = body(100, 4 + 16 + 4 + 8 + 8 + 8 + 1, lie);
        note[0] = 1;
        note[40] = 1;
        assert!(refused::<NoteRecord>(RecordType::Note, &note) <= LIST + 0x1000, "{lie}");
    }
}

/// The allocator of this test counts, or the tests above would pass whatever happens.
#[test]
fn the_counter_counts() {
    let counted = measure(|| drop(std::hint::black_box(vec![1u8; 1 << 20])));
    assert_eq!(counted.bytes_max, 1 << 20);
}
