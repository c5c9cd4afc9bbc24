//! Rows in words: one line for a key, one for each field of a record. Long bytes are cut, with their length said.

use cutover_formats::record::{
    Answer, Assignment, InstanceRecord, KeyRecord, NoteRecord, QuarantineRecord, RequestRecord, RetryRecord,
    StepRecord, StepState, Token,
};
use cutover_formats::{Expiring, InstanceId, NoteId, Record, RowId};

use super::utc;

/// Bytes of a key or value that are shown in hex.
const HEX: usize = 64;
/// Characters of a text, or bytes of what is none, that are shown.
const SHOWN: usize = 120;

/// A field of a record.
pub(super) struct Field {
    /// Its name.
    pub(super) name: &'static str,
    /// Its value, in words.
    pub(super) text: String,
    /// A payload: not a place to look for names.
    pub(super) payload: bool,
}

fn field(name: &'static str, text: impl Into<String>) -> Field {
    Field { name, text: text.into(), payload: false }
}

fn payload(name: &'static str, bytes: &[u8]) -> Field {
    Field { name, text: sized(bytes), payload: true }
}

/// What a key means.
pub(super) fn key(id: &RowId<'_>) -> String {
    match id {
        RowId::Definition { name, version } => format!("definition {name:?}, version {version}"),
        RowId::Key { scope, key } => format!("key {} in scope {scope:?}", bytes(key)),
        RowId::Request { id } => format!("request {}", bytes(id)),
        RowId::Instance { id } => format!("instance {}", instance(*id)),
        RowId::Input { id } => format!("input of instance {id}"),
        RowId::Output { id } => format!("output of instance {id}"),
        RowId::Step { instance, step } => format!("step {step:?} of instance {instance}"),
        RowId::Ready { queue, at_ms, instance, step } => {
            format!("step {step:?} of instance {instance}, ready in queue {queue:?} from {} on", utc(*at_ms))
        }
        RowId::Expiry { at_ms, what } => format!("at {}: {}", utc(*at_ms), expiring(what)),
        RowId::Note(note) => match note {
            NoteId::Gap { name, version } => format!("gap: definition {name:?}, version {version}"),
            NoteId::Replace { old } => format!("intent to replace instance {old}"),
            NoteId::CopyPosition { migration } => format!("copy position of migration {migration}"),
            NoteId::Closed => "how often the store was closed in order".to_owned(),
            NoteId::Move { instance } => format!("instance {instance} on its way to the other store"),
            NoteId::Quarantine { family, key } => {
                format!("set aside: cannot be read: family {}, key {}", family.name(), cut_hex(key))
            }
        },
    }
}

fn expiring(what: &Expiring<'_>) -> String {
    match what {
        Expiring::Instance(id) => format!("instance {id} may be collected"),
        Expiring::Key { scope, key } => format!("key {} leaves scope {scope:?}", bytes(key)),
        Expiring::Request { id } => format!("request {} is forgotten", bytes(id)),
    }
}

fn instance(id: InstanceId) -> String {
    format!("{id}, born in {} at {}", id.store(), utc(id.millis()))
}

/// What a record says.
pub(super) fn fields(record: &Record) -> Vec<Field> {
    match record {
        Record::Definition(it) => vec![
            payload("body", &it.body),
            field("content_type", format!("{:?}", it.content_type)),
            field("digest", hex(&it.digest)),
            field("created", utc(it.created_ms)),
        ],
        Record::Key(it) => of_key(it),
        Record::Request(it) => of_request(it),
        Record::Instance(it) => of_instance(it),
        Record::Payload(it) => vec![payload("bytes", &it.bytes)],
        Record::Step(it) => of_step(it),
        Record::Marker(_) => Vec::new(),
        Record::Note(it) => of_note(it),
        Record::Quarantine(it) => of_quarantine(it),
        Record::Closed(it) => vec![field("count", it.count.to_string())],
    }
}

fn of_key(it: &KeyRecord) -> Vec<Field> {
    let ended = it.ended.map_or_else(
        || "no, it lives".to_owned(),
        |end| format!("{:?}, in scope until {}", end.ending, utc(end.out_of_scope_ms)),
    );
    vec![
        field("instance", it.instance.to_string()),
        field("epoch", it.epoch.to_string()),
        field("ended", ended),
        field("revision", it.revision.to_string()),
    ]
}

fn of_request(it: &RequestRecord) -> Vec<Field> {
    let answer = match it.answer {
        Answer::Started(id) => format!("started {id}"),
        Answer::Existing(id) => format!("existing {id}"),
        Answer::Conflict(id) => format!("conflict with {id}"),
        Answer::Rejected(id, ending) => format!("rejected: {id} ended before ({ending:?})"),
    };
    vec![field("digest", hex(&it.digest)), field("answer", answer), field("until", utc(it.until_ms))]
}

fn of_instance(it: &InstanceRecord) -> Vec<Field> {
    let ended = it.ended.as_ref().map_or_else(
        || "no, it lives".to_owned(),
        |end| {
            let (at, collect) = (utc(end.at_ms), utc(end.collect_ms));
            format!("{:?} at {at}, kept until {collect}, reason {:?}", end.ending, end.reason)
        },
    );
    let key = it
        .key
        .as_ref()
        .map_or_else(|| "none".to_owned(), |(scope, key)| format!("{} in scope {scope:?}", bytes(key)));
    vec![
        field("definition", format!("{:?}, version {}", it.definition, it.version)),
        field("key", key),
        field("epoch", it.epoch.to_string()),
        field("ended", ended),
        field("cancel_requested", it.cancel_requested.to_string()),
        field("open_steps", it.open_steps.to_string()),
        field("launched", utc(it.launched_ms)),
        field("start", utc(it.start_ms)),
        field("revision", it.revision.to_string()),
    ]
}

fn of_step(it: &StepRecord) -> Vec<Field> {
    let state = match it.state {
        StepState::Waiting { parents } => format!("waits for {parents} parents"),
        StepState::Ready { at_ms } => format!("ready from {} on", utc(at_ms)),
        StepState::Completed => "completed".to_owned(),
        StepState::Failed => "failed".to_owned(),
        StepState::NeedsDecision { since_ms } => format!("waits for a decision since {}", utc(since_ms)),
    };
    let mut found = vec![
        field("state", state),
        field("queue", format!("{:?}", it.queue)),
        payload("input", &it.input),
        payload("saved", &it.saved),
        payload("result", &it.result),
        field("retry", of_retry(&it.retry)),
        field("attempts", it.attempts.to_string()),
        field("counted", format!("after {} attempts, since {}", it.counted_from, utc(it.counted_ms))),
    ];
    found.extend(it.history.iter().map(|assignment| field("assignment", of_assignment(assignment))));
    found.push(field("revision", it.revision.to_string()));
    found
}

fn of_retry(it: &RetryRecord) -> String {
    let RetryRecord { first_ms, most_ms, attempts, within_ms } = it;
    let within = match *within_ms {
        u64::MAX => String::new(),
        within_ms => format!(" within {within_ms} ms"),
    };
    format!("{attempts} attempts{within}, pauses of {first_ms} to {most_ms} ms")
}

fn of_assignment(it: &Assignment) -> String {
    let Token { incarnation, counter } = it.token;
    let failure = it.failure.as_ref().map_or_else(String::new, |why| format!(", failed: {why:?}"));
    let (from, until) = (utc(it.from_ms), utc(it.until_ms));
    format!("{:?}, token {incarnation}/{counter}, {from} to {until}{failure}", it.worker)
}

fn of_note(it: &NoteRecord) -> Vec<Field> {
    match it {
        NoteRecord::Gap => Vec::new(),
        NoteRecord::Replace { old, old_store, at_ms, reason, rows } => vec![
            field("old", format!("{old} in {old_store}")),
            field("at", utc(*at_ms)),
            field("reason", format!("{reason:?}")),
            field("rows", rows.len().to_string()),
        ],
        NoteRecord::CopyPosition { name, version, copied, bytes } => vec![
            field("last", format!("{name:?}, version {version}")),
            field("copied", copied.to_string()),
            field("bytes", bytes.to_string()),
        ],
        NoteRecord::Move { to, at_ms } => vec![field("to", to.to_string()), field("at", utc(*at_ms))],
    }
}

fn of_quarantine(it: &QuarantineRecord) -> Vec<Field> {
    let to = if it.to.is_empty() { "one row".to_owned() } else { format!("up to key {}", cut_hex(&it.to)) };
    vec![
        field("extent", to),
        field("reason", format!("{:?}", it.reason)),
        field("found", utc(it.at_ms)),
        field("dropped", it.dropped.to_string()),
    ]
}

/// Bytes in hex, cut.
pub(super) fn cut_hex(bytes: &[u8]) -> String {
    match bytes.get(..HEX) {
        Some(start) if bytes.len() > HEX => format!("{}... ({} bytes)", hex(start), bytes.len()),
        _ => format!("{} ({} bytes)", hex(bytes), bytes.len()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as text if they are text, else in hex, cut.
fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().count() <= SHOWN => format!("{text:?}"),
        Ok(text) => format!("{:?}...", text.chars().take(SHOWN).collect::<String>()),
        Err(_) => match bytes.get(..SHOWN / 2) {
            Some(start) if bytes.len() > SHOWN / 2 => format!("0x{}...", hex(start)),
            _ => format!("0x{}", hex(bytes)),
        },
    }
}

/// The same with the length.
fn sized(payload: &[u8]) -> String {
    if payload.is_empty() {
        "empty".to_owned()
    } else {
        format!("{} ({} bytes)", bytes(payload), payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bytes_are_cut_and_their_length_said() {
        assert_eq!(sized(b""), "empty");
        assert_eq!(sized(b"a\"\n"), r#""a\"\n" (3 bytes)"#);
        assert_eq!(sized(&[0xFF, 0]), "0xff00 (2 bytes)");
        let long = "ü".repeat(200);
        assert_eq!(sized(long.as_bytes()), format!("\"{}\"... (400 bytes)", "ü".repeat(120)));
        assert_eq!(sized(&[0xFF; 61]), format!("0x{}... (61 bytes)", "ff".repeat(60)));
        assert_eq!(cut_hex(&[1; 64]), format!("{} (64 bytes)", "01".repeat(64)));
        assert_eq!(cut_hex(&[1; 65]), format!("{}... (65 bytes)", "01".repeat(64)));
    }
}
