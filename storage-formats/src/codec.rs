//! Records to bytes and back. The only file that knows bincode.
//!
//! A value in a store stands in a frame of ten bytes: type, version, length, CRC32C. A slot of the
//! engine's metadata stands alone in a file, so its frame has a magic number and a counter too. All numbers are little
//! endian. `FORMAT.md` has the byte tables.
//!
//! The body is bincode in its legacy configuration: fixed-width integers, lengths as `u64`. What a length makes a reader
//! set aside is bounded by [`limits::MAX_RECORD`] and by sixteen times the bytes at hand (at least 4 KiB), whichever is
//! less; for a list whose elements are not bytes, by the mebibyte that serde never exceeds before it has read them.

use bincode::config;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{FormatError, Result};
use crate::limits;

/// Bytes of the frame around a value.
pub const FRAME: usize = 10;
/// Bytes of the frame around a slot.
pub const SLOT_FRAME: usize = 28;
/// The first bytes of every slot.
pub const SLOT_MAGIC: [u8; 8] = *b"CUTOVER\0";

/// What a frame says its body is. On disk; never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the record of the same name")]
pub enum RecordType {
    Definition = 1,
    Key = 2,
    Request = 3,
    Instance = 4,
    Payload = 5,
    Step = 6,
    Marker = 7,
    Note = 8,
    Quarantine = 9,
    Closed = 10,
    Tenant = 65,
    Catalog = 66,
    Engine = 67,
    Store = 68,
    Access = 69,
}

impl RecordType {
    /// The version that this program writes, and the newest one that it reads.
    #[must_use]
    pub const fn version(self) -> u8 {
        1
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Definition => "a definition record",
            Self::Key => "a key record",
            Self::Request => "a request record",
            Self::Instance => "an instance record",
            Self::Payload => "a payload record",
            Self::Step => "a step record",
            Self::Marker => "a marker record",
            Self::Note => "a note record",
            Self::Quarantine => "a quarantine record",
            Self::Closed => "a record of closes",
            Self::Tenant => "a tenant record",
            Self::Catalog => "the catalog record",
            Self::Engine => "the engine record",
            Self::Store => "a store record",
            Self::Access => "an access record",
        }
    }
}

/// Appends `value` in its frame to `out`.
///
/// # Errors
/// If the body would be larger than [`limits::MAX_RECORD`].
pub fn encode<T: Serialize>(kind: RecordType, value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&[kind as u8, kind.version(), 0, 0, 0, 0, 0, 0, 0, 0]);
    write_body(kind, value, out)?;
    let Some((head, body)) = out.get_mut(start..).and_then(|frame| frame.split_at_mut_checked(FRAME)) else {
        return Err(FormatError::Truncated { what: kind.what() });
    };
    let len = (body.len() as u32).to_le_bytes();
    let crc = checksum(&[&[kind as u8, kind.version()], &len, body]);
    head.iter_mut().skip(2).zip(len.into_iter().chain(crc.to_le_bytes())).for_each(|(to, from)| *to = from);
    Ok(())
}

/// Reads the value of one frame that fills `bytes`.
///
/// # Errors
/// If the bytes are too few, too many, not those that were written, of another type or of a newer version.
pub fn decode<T: DeserializeOwned>(kind: RecordType, bytes: &[u8]) -> Result<T> {
    let what = kind.what();
    let (&[found, version, l0, l1, l2, l3, c0, c1, c2, c3], body) =
        bytes.split_first_chunk::<FRAME>().ok_or(FormatError::Truncated { what })?;
    let len = [l0, l1, l2, l3];
    check_length(what, body, u32::from_le_bytes(len))?;
    if checksum(&[&[found, version], &len, body]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(FormatError::Checksum { what });
    }
    check_kind(kind, found, version)?;
    read_body(kind, body)
}

/// The bytes of a slot file: magic, type, version, two zero bytes, counter, length, CRC32C, body.
///
/// # Errors
/// If the body would be larger than [`limits::MAX_RECORD`].
pub fn seal_slot<T: Serialize>(kind: RecordType, counter: u64, value: &T) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    write_body(kind, value, &mut body)?;
    let mut out = Vec::with_capacity(SLOT_FRAME + body.len());
    out.extend_from_slice(&SLOT_MAGIC);
    out.extend_from_slice(&[kind as u8, kind.version(), 0, 0]);
    out.extend_from_slice(&counter.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = checksum(&[&out, &body]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Reads a slot file: its counter and its value.
///
/// # Errors
/// As [`decode`].
pub fn open_slot<T: DeserializeOwned>(kind: RecordType, bytes: &[u8]) -> Result<(u64, T)> {
    let what = kind.what();
    let (head, rest) = bytes.split_first_chunk::<24>().ok_or(FormatError::Truncated { what })?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or(FormatError::Truncated { what })?;
    let &[m0, m1, m2, m3, m4, m5, m6, m7, found, version, z0, z1, ref numbers @ ..] = head;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != SLOT_MAGIC {
        return Err(FormatError::Malformed { what });
    }
    let &[n0, n1, n2, n3, n4, n5, n6, n7, l0, l1, l2, l3] = numbers;
    check_length(what, body, u32::from_le_bytes([l0, l1, l2, l3]))?;
    if checksum(&[head, body]) != u32::from_le_bytes(*crc) {
        return Err(FormatError::Checksum { what });
    }
    check_kind(kind, found, version)?;
    if (z0, z1) != (0, 0) {
        return Err(FormatError::Malformed { what });
    }
    Ok((u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]), read_body(kind, body)?))
}

fn check_length(what: &'static str, body: &[u8], said: u32) -> Result<()> {
    match (said as usize).cmp(&body.len()) {
        std::cmp::Ordering::Less => Err(FormatError::TrailingBytes { what }),
        std::cmp::Ordering::Greater => Err(FormatError::Truncated { what }),
        std::cmp::Ordering::Equal => limits::check_size(what, body.len(), limits::MAX_RECORD),
    }
}

fn check_kind(kind: RecordType, found: u8, version: u8) -> Result<()> {
    if found != kind as u8 {
        return Err(FormatError::WrongType { expected: kind as u8, found });
    }
    if version > kind.version() {
        return Err(FormatError::Newer { what: kind.what(), version });
    }
    if version == 0 {
        return Err(FormatError::Malformed { what: kind.what() });
    }
    Ok(())
}

pub(crate) fn checksum(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

fn write_body<T: Serialize>(kind: RecordType, value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    // Writing to memory cannot fail, and our records have no maps or floats that bincode would refuse.
    bincode::serde::encode_into_std_write(value, out, config::legacy())
        .map_err(|_| FormatError::Malformed { what: kind.what() })?;
    limits::check_size(kind.what(), out.len() - start, limits::MAX_RECORD)
}

fn read_body<T: DeserializeOwned>(kind: RecordType, body: &[u8]) -> Result<T> {
    // bincode takes its limit as a type. It allocates by the lengths it reads, up to the limit and not up to the
    // bytes at hand; so the limit follows the size of the body.
    let config = config::legacy();
    let read = match body.len() {
        0..=0x100 => bincode::serde::decode_from_slice(body, config.with_limit::<0x1000>()),
        0x101..=0x1000 => bincode::serde::decode_from_slice(body, config.with_limit::<0x1_0000>()),
        0x1001..=0x1_0000 => bincode::serde::decode_from_slice(body, config.with_limit::<0x10_0000>()),
        0x1_0001..=0x10_0000 => bincode::serde::decode_from_slice(body, config.with_limit::<0x100_0000>()),
        _ => bincode::serde::decode_from_slice(body, config.with_limit::<{ limits::MAX_RECORD }>()),
    };
    let (value, consumed) = read.map_err(|_| FormatError::Malformed { what: kind.what() })?;
    if consumed != body.len() {
        return Err(FormatError::TrailingBytes { what: kind.what() });
    }
    Ok(value)
}
