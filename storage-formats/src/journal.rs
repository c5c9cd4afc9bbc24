//! A line of a tenant's journal as text: one JSON object without line breaks, for people and programs.
//!
//! Fields that a reader does not know are passed over, so that later versions can add some.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{FormatError, Result};
use crate::meta::{JournalLine, Phase};

const WHAT: &str = "a line of the journal";

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
