//! Frames and slots that are not as they were written: every cut, every flipped bit, and the faults that a checksum does
//! not find, each with the error that names it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[expect(dead_code, unreachable_pub, reason = "shared with other tests and with the fuzz targets")]
mod common;

use common::{Rows, Source};
use cutover_formats::codec::{self, FRAME, RecordType, SLOT_FRAME};
use cutover_formats::meta::{EngineRecord, TenantRecord};
use cutover_formats::record::{Marker, PayloadRecord};
use cutover_formats::{FormatError, Layout as _, RowId, V1, limits};

struct Random(fastrand::Rng);

impl Source for Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    fn number(&mut self) -> u64 {
        self.0.u64(..)
    }
}

fn random(seed: u64) -> Rows<Random> {
    Rows(Random(fastrand::Rng::with_seed(seed)))
}

const SEEDS: u64 = if cfg!(miri) { 2 } else { 100 };

/// Values in their frames, with the rows that they stand in, and slots.
fn values() -> impl Iterator<Item = (RowId<'static>, Vec<u8>)> {
    (0..SEEDS).map(|seed| {
        let (id, record) = random(seed).row();
        let mut value = Vec::new();
        V1.value(&record, &mut value).unwrap();
        (id, value)
    })
}

fn slots() -> impl Iterator<Item = Vec<u8>> {
    (0..SEEDS / 2).map(|seed| codec::seal_slot(RecordType::Tenant, seed, &random(seed).tenant()).unwrap())
}

fn open(slot: &[u8]) -> Result<(u64, TenantRecord), FormatError> {
    codec::open_slot(RecordType::Tenant, slot)
}

#[test]
fn every_cut_is_an_error() {
    for (id, value) in values() {
        V1.read_value(&id, &value).unwrap();
        for len in 0..value.len() {
            let read = V1.read_value(&id, &value[..len]);
            assert!(matches!(read, Err(FormatError::Truncated { .. })), "{len} bytes: {read:?}");
        }
    }
    for slot in slots() {
        open(&slot).unwrap();
        for len in 0..slot.len() {
            assert!(matches!(open(&slot[..len]), Err(FormatError::Truncated { .. })), "{len} bytes");
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    for (id, mut value) in values() {
        for bit in 0..value.len() * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            let read = V1.read_value(&id, &value);
            assert!(read.is_err(), "bit {bit} of {id:?} read as {read:?}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
    }
    for mut slot in slots() {
        for bit in 0..slot.len() * 8 {
            slot[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&slot).is_err(), "bit {bit}");
            slot[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn bytes_left_over_are_an_error() {
    for (id, mut value) in values() {
        value.push(0);
        assert!(matches!(V1.read_value(&id, &value), Err(FormatError::TrailingBytes { .. })));
    }
    for mut slot in slots() {
        slot.push(0);
        assert!(matches!(open(&slot), Err(FormatError::TrailingBytes { .. })));
    }
}

/// A frame with a right checksum around any body.
fn frame(kind: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let mut covered = vec![kind, version];
    covered.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&covered), body);
    [&covered, &crc.to_le_bytes()[..], body].concat()
}

fn sealed(kind: u8, version: u8, reserved: u8, body: &[u8]) -> Vec<u8> {
    let mut head = codec::SLOT_MAGIC.to_vec();
    head.extend_from_slice(&[kind, version, reserved, 0]);
    head.extend_from_slice(&9u64.to_le_bytes());
    head.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body);
    [&head, &crc.to_le_bytes()[..], body].concat()
}

const PAYLOAD: u8 = RecordType::Payload as u8;
const ENGINE: u8 = RecordType::Engine as u8;

#[test]
fn a_right_checksum_does_not_excuse_the_rest() {
    let payload = |frame: &[u8]| codec::decode::<PayloadRecord>(RecordType::Payload, frame);
    let what = "a payload record";
    let body = [2, 0, 0, 0, 0, 0, 0, 0, b'h', b'i'];
    assert_eq!(payload(&frame(PAYLOAD, 1, &body)), Ok(PayloadRecord { bytes: b"hi".to_vec() }));
    assert_eq!(payload(&frame(PAYLOAD, 2, &body)), Err(FormatError::Newer { what, version: 2 }));
    assert_eq!(payload(&frame(PAYLOAD, 0, &body)), Err(FormatError::Malformed { what }));
    assert_eq!(payload(&frame(2, 1, &body)), Err(FormatError::WrongType { expected: PAYLOAD, found: 2 }));
    assert_eq!(payload(&frame(PAYLOAD, 1, &body[..9])), Err(FormatError::Malformed { what }));
    let longer = [&body[..], &[0]].concat();
    assert_eq!(payload(&frame(PAYLOAD, 1, &longer)), Err(FormatError::TrailingBytes { what }));
    assert_eq!(codec::decode(RecordType::Marker, &frame(7, 1, &[])), Ok(Marker {}));
}

#[test]
fn a_slot_with_a_right_checksum_is_held_to_the_rest_too() {
    let engine = |slot: &[u8]| codec::open_slot::<EngineRecord>(RecordType::Engine, slot);
    let what = "the engine record";
    let mut body = [0; 17];
    body[0] = 3;
    let record = EngineRecord { incarnation: 3, clock_ms: 0, clean: false };
    assert_eq!(engine(&sealed(ENGINE, 1, 0, &body)), Ok((9, record)));
    assert_eq!(engine(&sealed(ENGINE, 2, 0, &body)), Err(FormatError::Newer { what, version: 2 }));
    assert_eq!(engine(&sealed(ENGINE, 1, 1, &body)), Err(FormatError::Malformed { what }));
    assert_eq!(engine(&sealed(65, 1, 0, &body)), Err(FormatError::WrongType { expected: ENGINE, found: 65 }));
    // `clean` is neither yes nor no.
    body[16] = 2;
    assert_eq!(engine(&sealed(ENGINE, 1, 0, &body)), Err(FormatError::Malformed { what }));
    let mut foreign = sealed(ENGINE, 1, 0, &body);
    foreign[..8].copy_from_slice(b"SQLite f");
    assert_eq!(engine(&foreign), Err(FormatError::Malformed { what }));
}

#[test]
#[cfg_attr(miri, ignore = "16 MiB byte by byte take Miri minutes")]
fn the_largest_record_fits_and_one_byte_more_does_not() {
    let room = limits::MAX_RECORD - 8;
    let mut value = Vec::new();
    let largest = PayloadRecord { bytes: vec![7; room] };
    codec::encode(RecordType::Payload, &largest, &mut value).unwrap();
    assert_eq!(value.len(), FRAME + limits::MAX_RECORD);
    assert_eq!(codec::decode(RecordType::Payload, &value), Ok(largest));
    let larger = PayloadRecord { bytes: vec![7; room + 1] };
    let too_long = FormatError::TooLong {
        what: "a payload record",
        len: limits::MAX_RECORD as u64 + 1,
        max: limits::MAX_RECORD as u64,
    };
    assert_eq!(codec::encode(RecordType::Payload, &larger, &mut Vec::new()), Err(too_long.clone()));
    assert_eq!(codec::seal_slot(RecordType::Payload, 1, &larger), Err(too_long.clone()));
    // Nobody's encoder wrote this one.
    let body = [&(room as u64 + 1).to_le_bytes()[..], &vec![7; room + 1]].concat();
    let read = codec::decode::<PayloadRecord>(RecordType::Payload, &frame(PAYLOAD, 1, &body));
    assert_eq!(read, Err(too_long));
}

/// The class of a limit must leave room for every body in it, also at its edges.
#[test]
#[cfg_attr(miri, ignore = "megabytes byte by byte take Miri minutes")]
fn bodies_at_the_edges_of_the_limits_are_read() {
    for edge in [0x100, 0x1000, 0x1_0000, 0x10_0000] {
        for len in edge - 9..edge + 2 {
            let record = PayloadRecord { bytes: vec![1; len - 8] };
            let mut value = Vec::new();
            codec::encode(RecordType::Payload, &record, &mut value).unwrap();
            assert_eq!(value.len(), FRAME + len);
            assert_eq!(codec::decode(RecordType::Payload, &value).as_ref(), Ok(&record));
        }
    }
    assert_eq!(SLOT_FRAME, sealed(ENGINE, 1, 0, &[]).len());
}
