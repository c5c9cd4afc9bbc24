//! A line of a journal as text: one JSON object without line breaks, for people and programs.
//!
//! Fields that a reader does not know are passed over, so that later versions can add some.
//!
//! A line in the file is *sealed*: behind its fields stands their checksum and then, in hex, the slot that holds the tenant's record after
//! the change, with a checksum of its own. So damage to either part is seen, the record gives back fields that are damaged, and the last
//! line gives back a record whose two slots are. A line without a seal is one of an earlier version.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, RecordType};
use crate::error::{FormatError, Result};
use crate::meta::{JournalLine, Phase, TenantRecord};

const WHAT: &str = "a line of the journal";
/// What every line begins with. Inside a JSON text a quote has a backslash before it, so this and those below stand nowhere else.
const START: &[u8] = b"{\"seq\":";
const CRC: &[u8] = b",\"crc\":\"";
const RECORD: &[u8] = b",\"record\":\"";
/// The same for a record that is lost, too.
const NAMED: &[u8] = b",\"record\":";

/// A kind of line: that of a tenant's status, or that of its access. Each has a journal of its own.
pub trait Line: Clone + PartialEq + Sized {
    /// What is sealed with it.
    type Record: DeserializeOwned;

    /// The type of that record.
    const KIND: RecordType;

    /// The line that a record names.
    fn of(record: Self::Record) -> Self;

    /// Its number.
    fn seq(&self) -> u64;

    /// Its fields, the number first, as a JSON object without line breaks.
    ///
    /// # Errors
    /// None that is known: texts and numbers always have a form in JSON.
    fn text(&self) -> Result<String>;

    /// Reads its fields.
    ///
    /// # Errors
    /// If it is not a JSON object with these fields.
    fn read(text: &[u8]) -> Result<Self>;
}

impl Line for JournalLine {
    type Record = TenantRecord;

    const KIND: RecordType = RecordType::Tenant;

    fn of(record: TenantRecord) -> Self {
        record.journal
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn text(&self) -> Result<String> {
        encode(self)
    }

    fn read(text: &[u8]) -> Result<Self> {
        decode(text)
    }
}

/// A sealed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<L = JournalLine> {
    /// What it says.
    pub line: L,
    /// The slot of the record after the change, as [`codec::seal_slot`] gives it, if it stands there whole.
    pub record: Option<Vec<u8>>,
    /// Not all of it was as it was written; what is here is.
    pub damaged: bool,
}

/// What stands behind the fields.
#[derive(Deserialize)]
struct Seal<'l> {
    #[serde(borrow)]
    crc: Option<Cow<'l, str>>,
}

/// The fields as they are written, in this order.
#[derive(Serialize, Deserialize)]
struct Text<'l> {
    seq: u64,
    epoch: u64,
    at_ms: u64,
    who: Cow<'l, str>,
    from: Cow<'l, str>,
    to: Cow<'l, str>,
    why: Cow<'l, str>,
}

/// The line, without the line break that ends it in the file.
///
/// # Errors
/// None that is known: texts and numbers always have a form in JSON.
pub fn encode(line: &JournalLine) -> Result<String> {
    let text = Text {
        seq: line.seq,
        epoch: line.epoch,
        at_ms: line.at_ms,
        who: line.who.as_str().into(),
        from: line.from.name().into(),
        to: line.to.name().into(),
        why: line.why.as_str().into(),
    };
    serde_json::to_string(&text).map_err(|_| FormatError::Malformed { what: WHAT })
}

/// Reads a line, without the line break that ends it in the file.
///
/// # Errors
/// If it is not a JSON object with these fields, or names a phase that there is not.
pub fn decode(line: &[u8]) -> Result<JournalLine> {
    let malformed = FormatError::Malformed { what: WHAT };
    let text: Text<'_> = serde_json::from_slice(line).map_err(|_| malformed.clone())?;
    let phase = |name: &str| Phase::from_name(name).ok_or_else(|| malformed.clone());
    Ok(JournalLine {
        epoch: text.epoch,
        seq: text.seq,
        at_ms: text.at_ms,
        from: phase(&text.from)?,
        to: phase(&text.to)?,
        who: text.who.into_owned(),
        why: text.why.into_owned(),
    })
}

/// The line with its seal, without the line break that ends it in the file. `record` is the slot of the record.
///
/// # Errors
/// As [`encode`].
pub fn seal<L: Line>(line: &L, record: Option<&[u8]>) -> Result<String> {
    let mut text = line.text()?;
    let crc = codec::checksum(&[text.as_bytes()]);
    // The brace that ends it.
    text.pop();
    text.push_str(&format!(",\"crc\":\"{crc:08x}\""));
    match record {
        Some(record) => {
            text.push_str(",\"record\":\"");
            record.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
            text.push_str("\"}");
        }
        None => text.push_str(",\"record\":null}"),
    }
    Ok(text)
}

/// Reads a sealed line, or one of an earlier version.
///
/// # Errors
/// If it is neither, or damaged so that not even its record gives it back.
pub fn open(text: &[u8]) -> Result<Entry> {
    open_as(text)
}

/// The same for lines of any kind.
///
/// # Errors
/// As [`open`].
pub fn open_as<L: Line>(text: &[u8]) -> Result<Entry<L>> {
    let said = cut(text, RECORD);
    let record = said.and_then(|(_, hex)| sealed_record::<L>(hex));
    let line = match cut(text, CRC) {
        Some((head, crc)) => sealed_line(head, crc),
        // A line of an earlier version has nothing behind its fields.
        None => L::read(text).ok(),
    };
    // Later versions may add fields, so a line need not be in the form in which it is written here.
    let form: Option<Seal<'_>> = serde_json::from_slice(text).ok();
    let in_form = form.is_some_and(|seal| match seal.crc {
        Some(_) => has(text, CRC) && has(text, NAMED),
        None => said.is_none(),
    });
    let whole = in_form && line.is_some() && said.is_some() == record.is_some();
    let (line, record) = match (line, record) {
        (Some(line), Some((_, of_record))) if of_record != line => (line, None),
        (Some(line), record) => (line, record.map(|(slot, _)| slot)),
        (None, Some((slot, of_record))) => (of_record, Some(slot)),
        (None, None) => return Err(FormatError::Checksum { what: WHAT }),
    };
    Ok(Entry { damaged: !whole || (said.is_some() && record.is_none()), line, record })
}

/// The lines of a file, without their line breaks. What follows a line whose break is damaged is found too.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').flat_map(starts).filter(|line| !line.is_empty())
}

/// Cuts before each place where a line begins.
fn starts(text: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) =
        (1..rest.len()).find(|at| rest.get(*at..).is_some_and(|rest| rest.starts_with(START)))
        && let Some((part, next)) = rest.split_at_checked(at)
    {
        parts.push(part);
        rest = next;
    }
    parts.push(rest);
    parts
}

fn has(text: &[u8], mark: &[u8]) -> bool {
    cut(text, mark).is_some()
}

/// What stands before and behind a mark.
fn cut<'t>(text: &'t [u8], mark: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some((text.get(..at)?, text.get(at + mark.len()..)?))
}

fn sealed_line<L: Line>(head: &[u8], crc: &[u8]) -> Option<L> {
    let text = [head, b"}"].concat();
    let said = unhex(crc.get(..8)?)?;
    if said == codec::checksum(&[&text]).to_be_bytes() { L::read(&text).ok() } else { None }
}

/// The slot that stands here in hex, and the line that it names.
fn sealed_record<L: Line>(hex: &[u8]) -> Option<(Vec<u8>, L)> {
    let slot = unhex(hex.split(|byte| *byte == b'"').next()?)?;
    let (_, record) = codec::open_slot::<L::Record>(L::KIND, &slot).ok()?;
    Some((slot, L::of(record)))
}

/// Bytes from hex, as it is written here: in small letters.
fn unhex(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = hex.chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}
