//! The lines that a load prints, one for each acknowledgement. `ACKS.md` describes them for readers of the file.

use cutover::{Durability, Ending, InstanceId, Phase};
use serde::{Deserialize, Serialize};

/// The version of the lines.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was acknowledged.
    #[serde(flatten)]
    pub ack: Ack,
    /// How many lines had been printed when the operation began: all of these were acknowledged before it.
    pub before: u64,
    /// When the line was printed, by the wall clock, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What was acknowledged. Operations of threads carry `thread` and `n`, from 0 on without gaps in each thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ack", rename_all = "snake_case")]
pub enum Ack {
    /// The engine is open. The first line.
    Opened(Opened),
    /// Launched by an earlier session and alive now. Belongs to a thread, which will end it.
    Found {
        /// The thread.
        thread: u32,
        /// The instance.
        #[serde(with = "text")]
        instance: InstanceId,
        /// Its key, if it has one.
        key: Option<String>,
    },
    /// Definitions of an earlier session that are there.
    Defined {
        /// Who defined them, without the last part, which is their number.
        by: String,
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// The tenant is in this phase.
    Phase {
        /// Number of the status.
        epoch: u64,
        /// The phase.
        #[serde(with = "phase")]
        phase: Phase,
        /// Driver of the store that launches go to.
        home: String,
        /// Driver of the other store, while there are two.
        other: Option<String>,
    },
    /// A launch was answered.
    Launch {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// The operation that launched this first; `n` itself, unless it is a repeat with the same request id.
        number: u64,
        /// The key, if it has one.
        key: Option<String>,
        /// The answer.
        answer: Answer,
        /// The instance that was started, or that holds or held the key.
        #[serde(with = "text")]
        instance: InstanceId,
        /// How the instance ended that keeps the key from being used again.
        #[serde(default, with = "ending", skip_serializing_if = "Option::is_none")]
        ending: Option<Ending>,
    },
    /// A definition is there.
    Define {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// The operation that defined this first; `n` itself, unless it is a repeat.
        number: u64,
        /// Whether it is new.
        created: bool,
        /// The stores that have it, by their numbers; empty if the status changed meanwhile.
        stores: Vec<u32>,
    },
    /// A worker's report was answered.
    Step {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// The instance.
        #[serde(with = "text")]
        instance: InstanceId,
        /// The step.
        step: String,
        /// Which attempt it was, from 1 on.
        attempt: u32,
        /// What was reported.
        report: Report,
        /// Whether it is committed; it came too late if not, and changed nothing.
        done: bool,
        /// How the instance ended with it, if it did.
        #[serde(default, with = "ending", skip_serializing_if = "Option::is_none")]
        ended: Option<Ending>,
    },
    /// No step was ready. Nothing was promised.
    Idle {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
    },
    /// The end of an instance was answered.
    End {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// The instance.
        #[serde(with = "text")]
        instance: InstanceId,
        /// What was asked for.
        how: How,
        /// The answer.
        answer: EndAnswer,
        /// How it had ended before.
        #[serde(default, with = "ending", skip_serializing_if = "Option::is_none")]
        ending: Option<Ending>,
    },
    /// A question was answered.
    Query {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// The instance asked for, or the one that was found by its key.
        #[serde(default, with = "some_text", skip_serializing_if = "Option::is_none")]
        instance: Option<InstanceId>,
        /// The key asked for, unless it was asked by id.
        key: Option<String>,
        /// What was seen.
        saw: Saw,
        /// How it had ended.
        #[serde(default, with = "ending", skip_serializing_if = "Option::is_none")]
        ending: Option<Ending>,
    },
    /// An operation failed.
    Failed {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// The instance and step that a worker was about to report, if it was one.
        task: Option<Task>,
        /// Whether it certainly changed nothing; else it may have happened or not.
        refused: bool,
        /// The error.
        error: String,
    },
    /// The load saw what must not be.
    Wrong {
        /// The thread.
        thread: u32,
        /// Its operation.
        n: u64,
        /// What, in a sentence.
        what: String,
    },
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Version of the lines: 1.
    pub format: u32,
    /// The session, a random number.
    pub session: u64,
    /// The seed.
    pub seed: u64,
    /// The durability level.
    #[serde(with = "durability")]
    pub durability: Durability,
    /// Name of the tenant.
    pub tenant: String,
    /// Driver of the store to start in.
    pub from: String,
    /// Driver of the store to move to.
    pub to: String,
    /// Threads that work.
    pub threads: u32,
    /// Keys that all threads share.
    pub keys: u32,
    /// Milliseconds that an ended instance is kept.
    pub instance_ms: u64,
    /// Milliseconds that an ended key is kept.
    pub key_ms: u64,
    /// Milliseconds that a request id is answered the same.
    pub request_ms: u64,
}

/// The answer to a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A new instance.
    Started,
    /// The live holder of the key, as asked for.
    Existing,
    /// A live instance holds the key.
    Conflict,
    /// An ended instance keeps the key from being used again.
    Rejected,
}

/// What a worker reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The step's result.
    Completed,
    /// A failure, to be tried again.
    Retry,
    /// A failure for good.
    Failed,
}

/// How an instance is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Completed.
    End,
    /// Cancelled.
    Cancel,
    /// Terminated.
    Terminate,
}

/// The answer to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndAnswer {
    /// It has ended now.
    Now,
    /// Its workers have been told to stop.
    Asked,
    /// It had ended before.
    Before,
    /// It is not there: it had ended and was collected.
    Gone,
}

/// What a question showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saw {
    /// A live instance.
    Live,
    /// An ended one.
    Ended,
    /// None.
    Nothing,
}

/// What a worker had in its hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The instance.
    #[serde(with = "text")]
    pub instance: InstanceId,
    /// The step.
    pub step: String,
}

impl Ack {
    /// The thread and the number of its operation.
    #[must_use]
    pub const fn operation(&self) -> Option<(u32, u64)> {
        match self {
            Self::Launch { thread, n, .. }
            | Self::Define { thread, n, .. }
            | Self::Step { thread, n, .. }
            | Self::Idle { thread, n }
            | Self::End { thread, n, .. }
            | Self::Query { thread, n, .. }
            | Self::Failed { thread, n, .. }
            | Self::Wrong { thread, n, .. } => Some((*thread, *n)),
            Self::Opened(_) | Self::Found { .. } | Self::Defined { .. } | Self::Phase { .. } => None,
        }
    }
}

/// An instance id as its text.
mod text {
    use super::InstanceId;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(id: &InstanceId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<InstanceId, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|err| de::Error::custom(format!("{text:?} is no instance id: {err}")))
    }
}

mod some_text {
    use super::InstanceId;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &Option<InstanceId>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => super::text::serialize(id, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<InstanceId>, D::Error> {
        super::text::deserialize(from).map(Some)
    }
}

/// Writes and reads a value by its name.
macro_rules! by_name {
    ($module:ident, $type:ty, $what:literal, { $($name:literal => $value:expr,)* }) => {
        mod $module {
            use super::*;
            use serde::{Deserializer, Serializer, de};

            pub(super) fn name(value: $type) -> &'static str {
                [$(($name, $value)),*].into_iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
            }

            pub(super) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(name(*value))
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let text = String::deserialize(from)?;
                let found = [$(($name, $value)),*].into_iter().find(|(name, _)| *name == text);
                found.map(|(_, value)| value).ok_or_else(|| de::Error::custom(format!(concat!("{:?} is no ", $what), text)))
            }
        }
    };
}

by_name!(durability, Durability, "durability level", {
    "synced" => Durability::Synced,
    "buffered" => Durability::Buffered,
});

by_name!(ending, Option<Ending>, "way to end", {
    "completed" => Some(Ending::Completed),
    "failed" => Some(Ending::Failed),
    "cancelled" => Some(Ending::Cancelled),
    "terminated" => Some(Ending::Terminated),
});

by_name!(phase, Phase, "phase", {
    "stable" => Phase::Stable,
    "pre_migration" => Phase::PreMigration,
    "migration" => Phase::Migration,
    "post_migration" => Phase::PostMigration,
    "pre_rollback" => Phase::PreRollback,
    "rolling_back" => Phase::RollingBack,
    "post_rollback" => Phase::PostRollback,
});
