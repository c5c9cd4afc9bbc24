//! The records: what a value in a store says.
//!
//! Records are plain data. Those that change carry a revision, which rises by one with each write.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;
use crate::id::{InstanceId, StoreId};
use crate::limits;

/// A definition: created once, never updated or deleted while its tenant exists.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionRecord {
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Their content type, as the definer gave it.
    pub content_type: String,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
    /// When it was created, in milliseconds since 1970. A copy keeps it.
    pub created_ms: u64,
}

impl fmt::Debug for DefinitionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefinitionRecord")
            .field("body", &Hidden(&self.body))
            .field("content_type", &self.content_type)
            .field("digest", &self.digest)
            .field("created_ms", &self.created_ms)
            .finish()
    }
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ending {
    /// All its work is done.
    Completed,
    /// A step failed for good, or its runner said so.
    Failed,
    /// It was asked to stop and did.
    Cancelled,
    /// It was stopped without being asked.
    Terminated,
}

/// Who holds or held a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The instance.
    pub instance: InstanceId,
    /// Epoch of the launch. Of two ended records in two stores the later epoch is the true one.
    pub epoch: u64,
    /// `None` while the instance lives.
    pub ended: Option<KeyEnd>,
    /// Counts the writes.
    pub revision: u64,
}

/// What an ended key remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEnd {
    /// How the instance ended.
    pub ending: Ending,
    /// From when on the key is as if it had never been, in milliseconds since 1970.
    pub out_of_scope_ms: u64,
}

/// What a request id was answered. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// SHA-256 of what was asked for: the same id with other contents is an error.
    pub digest: [u8; 32],
    /// The answer.
    pub answer: Answer,
    /// From when on it is forgotten, in milliseconds since 1970.
    pub until_ms: u64,
}

/// The answer to a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The instance was started.
    Started(InstanceId),
    /// The key was live; the instance that holds it was handed back on request.
    Existing(InstanceId),
    /// The key was live.
    Conflict(InstanceId),
    /// The key had ended and may not be used again yet.
    Rejected(InstanceId, Ending),
}

/// The head of an instance. Input and output are rows of their own, so that a change of state does not
/// write them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Name of its definition.
    pub definition: String,
    /// Version of its definition.
    pub version: u32,
    /// Scope and key, if it has one.
    pub key: Option<(String, Vec<u8>)>,
    /// Epoch of the launch.
    pub epoch: u64,
    /// `None` while it lives.
    pub ended: Option<InstanceEnd>,
    /// Cancellation was asked for; its workers are told.
    pub cancel_requested: bool,
    /// Steps created and not yet ended.
    pub open_steps: u32,
    /// When it was launched, in milliseconds since 1970.
    pub launched_ms: u64,
    /// When its first steps become ready, in milliseconds since 1970.
    pub start_ms: u64,
    /// Counts the writes.
    pub revision: u64,
}

/// How and when an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEnd {
    /// How.
    pub ending: Ending,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it may be collected, in milliseconds since 1970.
    pub collect_ms: u64,
    /// Why, in words; empty for `Completed`.
    pub reason: String,
}

/// Input or output of an instance.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadRecord {
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for PayloadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadRecord").field("bytes", &Hidden(&self.bytes)).finish()
    }
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StepState {
    /// Not all of its parents are done.
    Waiting {
        /// How many are not.
        parents: u32,
    },
    /// A worker may take it from this time on, in milliseconds since 1970.
    Ready {
        /// When.
        at_ms: u64,
    },
    /// Done.
    Completed,
    /// Failed for good.
    Failed,
    /// It was tried as often, or for as long, as it may be, and waits for somebody who says whether it is tried again.
    NeedsDecision {
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
}

/// How a step that failed is tried again, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRecord {
    /// The pause after the first failure, in milliseconds; twice as long after each further one.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub most_ms: u64,
    /// Most attempts, counted from [`StepRecord::counted_from`] on.
    pub attempts: u32,
    /// No attempt begins later than so many milliseconds after [`StepRecord::counted_ms`].
    pub within_ms: u64,
}

/// A fencing token: a lease given later has a higher one, also across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token {
    /// How often the engine's directory had been opened.
    pub incarnation: u64,
    /// Counter within that.
    pub counter: u64,
}

/// One settled assignment of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The worker's name.
    pub worker: String,
    /// Its token.
    pub token: Token,
    /// When it was given, in milliseconds since 1970.
    pub from_ms: u64,
    /// When its result was committed, in milliseconds since 1970.
    pub until_ms: u64,
    /// Why it failed; `None` if it did not.
    pub failure: Option<String>,
}

impl Assignment {
    /// The failure of an assignment that was revoked because its instance went to another store.
    pub const MOVED: &str = "the instance was moved";
    /// The failure of an assignment whose lease ran out.
    pub const UNHEARD: &str = "its worker was not heard of";

    /// Whether it was one of the attempts that a step has: how it ended was up to its worker.
    #[must_use]
    pub fn is_attempt(&self) -> bool {
        self.failure.as_deref() != Some(Self::MOVED)
    }
}

/// A step. A lease is not written: it is void after a restart, and tokens go on rising.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Where it is.
    pub state: StepState,
    /// The queue that it waits in.
    pub queue: String,
    /// What its worker is given.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// What a worker has saved of its work on it, for the next one; empty once it is completed.
    #[serde(with = "serde_bytes")]
    pub saved: Vec<u8>,
    /// What its worker gave back.
    #[serde(with = "serde_bytes")]
    pub result: Vec<u8>,
    /// How it is tried again.
    pub retry: RetryRecord,
    /// How often it was tried, as far as anything was written of it.
    pub attempts: u32,
    /// How many of these attempts there had been when they began to count.
    pub counted_from: u32,
    /// When time began to count, in milliseconds since 1970: when it was ready for the first time, or when it was decided to try it again. 0 while
    /// it waits for its parents.
    pub counted_ms: u64,
    /// The newest of its settled assignments, oldest first: as many as [`MAX_HISTORY`](limits::MAX_HISTORY).
    pub history: Vec<Assignment>,
    /// Counts the writes.
    pub revision: u64,
}

impl StepRecord {
    /// How often it was tried since attempts are [counted](Self::counted_from).
    #[must_use]
    pub fn attempts_counted(&self) -> u32 {
        self.attempts.saturating_sub(self.counted_from)
    }

    /// Adds an assignment that is settled, in the place of the oldest one if there is no room: a step that fails for ever is as large as any other.
    pub fn note(&mut self, assignment: Assignment) {
        self.attempts = self.attempts.saturating_add(u32::from(assignment.is_attempt()));
        self.history.push(assignment);
        let over = self.history.len().saturating_sub(limits::MAX_HISTORY);
        self.history.drain(..over);
    }
}

impl fmt::Debug for StepRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepRecord")
            .field("state", &self.state)
            .field("queue", &self.queue)
            .field("input", &Hidden(&self.input))
            .field("saved", &Hidden(&self.saved))
            .field("result", &Hidden(&self.result))
            .field("retry", &self.retry)
            .field("attempts", &self.attempts)
            .field("counted_from", &self.counted_from)
            .field("counted_ms", &self.counted_ms)
            .field("history", &self.history)
            .field("revision", &self.revision)
            .finish()
    }
}

/// A row whose key says it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {}

/// A note of the engine beside a tenant's rows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteRecord {
    /// This definition is here and perhaps not in the other store.
    Gap,
    /// A `TerminateExisting` over two stores: end the old instance there, then apply these rows here.
    Replace {
        /// The instance to end.
        old: InstanceId,
        /// The store that it is in.
        old_store: StoreId,
        /// When it ends, in milliseconds since 1970.
        at_ms: u64,
        /// Why it ends.
        reason: String,
        /// What is launched instead, in the bytes of this store's layout: family, key, value.
        rows: Vec<(u8, Vec<u8>, Vec<u8>)>,
    },
    /// How far a copy of definitions into this store has come. Belongs to one migration.
    CopyPosition {
        /// The definition copied last.
        name: String,
        /// Its version.
        version: u32,
        /// Definitions copied so far.
        copied: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// An instance of this store is on its way to the other one: it is there once its head is there, and else still here.
    Move {
        /// The store that it goes to.
        to: StoreId,
        /// When it set out, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// A row, or some that follow each other, that cannot be read. The key is in the note's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// The first key that can be read again, in the bytes of this store's layout, if not even the keys in between can be. Empty for the
    /// one row.
    #[serde(with = "serde_bytes")]
    pub to: Vec<u8>,
    /// What was wrong with it, in words.
    pub reason: String,
    /// When it was found, in milliseconds since 1970.
    pub at_ms: u64,
    /// Somebody has given it up, and it is left behind by the migration under way: rows of which not even the keys can be read cannot be
    /// removed one by one.
    pub dropped: bool,
}

impl fmt::Debug for NoteRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap => f.write_str("Gap"),
            Self::Replace { old, old_store, at_ms, reason, rows } => f
                .debug_struct("Replace")
                .field("old", old)
                .field("old_store", old_store)
                .field("at_ms", at_ms)
                .field("reason", reason)
                .field("rows", &rows.len())
                .finish(),
            Self::CopyPosition { name, version, copied, bytes } => f
                .debug_struct("CopyPosition")
                .field("name", name)
                .field("version", version)
                .field("copied", copied)
                .field("bytes", bytes)
                .finish(),
            Self::Move { to, at_ms } => f.debug_struct("Move").field("to", to).field("at_ms", at_ms).finish(),
        }
    }
}

/// How often a store was closed in order: in the store, and beside it in the metadata. A store that says less has lost what it had made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClosedRecord {
    /// How often.
    pub count: u64,
}

/// Any record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// In `definitions`.
    Definition(DefinitionRecord),
    /// In `keys`.
    Key(KeyRecord),
    /// In `requests`.
    Request(RequestRecord),
    /// In `instances`.
    Instance(InstanceRecord),
    /// In `instances`, beside the head.
    Payload(PayloadRecord),
    /// In `steps`.
    Step(StepRecord),
    /// In `ready` and `expiry`.
    Marker(Marker),
    /// In `notes`.
    Note(NoteRecord),
    /// In `notes`, too.
    Quarantine(QuarantineRecord),
    /// In `notes`, too.
    Closed(ClosedRecord),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_the_newest_assignments_and_attempts_are_counted_on() {
        let retry = RetryRecord { first_ms: 1, most_ms: 1, attempts: 1, within_ms: 1 };
        let mut step = StepRecord {
            state: StepState::Failed,
            queue: String::new(),
            input: Vec::new(),
            saved: Vec::new(),
            result: Vec::new(),
            retry,
            attempts: 0,
            counted_from: 0,
            counted_ms: 0,
            history: Vec::new(),
            revision: 1,
        };
        let most = limits::MAX_HISTORY as u64;
        for counter in 0..most + 5 {
            let failure = Some(if counter < 3 { Assignment::MOVED } else { Assignment::UNHEARD }.to_owned());
            let token = Token { incarnation: 1, counter };
            step.note(Assignment { worker: "w".to_owned(), token, from_ms: 0, until_ms: 0, failure });
        }
        let kept: Vec<u64> = step.history.iter().map(|one| one.token.counter).collect();
        assert_eq!(kept, (5..most + 5).collect::<Vec<_>>());
        assert_eq!(u64::from(step.attempts), most + 2, "what was moved is no attempt");
        step.counted_from = step.attempts - 1;
        assert_eq!(step.attempts_counted(), 1);
    }
}
