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
    /// Definitions of a thread of an earlier session that are there now.
    Defined {
        /// The thread, as in the names of the definitions: `seed.session.thread`.
        by: String,
        /// They have the numbers from 0 up to this one, which is not there.
        count: u64,
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
        /// Its number among the definitions of the thread.
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
    /// A line that [`read`] could not understand; no load prints it.
    #[serde(skip)]
    Unreadable {
        /// Why, in a sentence.
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
    /// Sessions that this directory had before.
    pub sessions: u64,
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
            Self::Opened(_)
            | Self::Found { .. }
            | Self::Defined { .. }
            | Self::Phase { .. }
            | Self::Unreadable { .. } => None,
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

/// Reads the lines of a file. A last line that was cut off is not one. Neither is what does not even name an
/// acknowledgement: the error says in which line. A line that does, and cannot be understood, is kept as [`Ack::Unreadable`].
///
/// # Errors
/// A sentence about the first line that is none.
pub fn read(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (number, piece) in text.split_inclusive('\n').enumerate() {
        let value: serde_json::Value = match serde_json::from_str(piece) {
            Ok(value) => value,
            Err(_) if !piece.ends_with('\n') => break,
            Err(err) => return Err(format!("line {} is no JSON: {err}", number + 1)),
        };
        if value.get("ack").is_none_or(|ack| !ack.is_string()) {
            return Err(format!("line {} is no acknowledgement: it has no `ack`", number + 1));
        }
        let line = Line::deserialize(&value).unwrap_or_else(|err| {
            let ack = Ack::Unreadable { what: format!("cannot be understood: {err}: {}", piece.trim_end()) };
            Line { ack, before: number as u64, at_ms: 0 }
        });
        lines.push(line);
    }
    match lines.first() {
        Some(Line { ack: Ack::Opened(opened), .. }) if opened.format != FORMAT => {
            Err(format!("the lines have format {}, and this program reads {FORMAT}", opened.format))
        }
        None | Some(Line { ack: Ack::Opened(_), .. }) => Ok(lines),
        Some(_) => Err("the first line is not about the opening".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover::StoreId;

    fn opened() -> Line {
        let opened = Opened {
            format: FORMAT,
            session: 7,
            seed: u64::MAX,
            durability: Durability::Buffered,
            tenant: "load".into(),
            from: "rocksdb".into(),
            to: "sled".into(),
            sessions: 2,
            threads: 4,
            keys: 8,
            instance_ms: 1,
            key_ms: 2,
            request_ms: 3,
        };
        Line { ack: Ack::Opened(opened), before: 0, at_ms: 1 }
    }

    fn all() -> Vec<Line> {
        let instance = InstanceId::new(StoreId(1), 2, 3);
        let (thread, n, key) = (1, 2, Some("own.1.2".to_owned()));
        let (ending, ended) = (Some(Ending::Failed), None);
        let acks = [
            Ack::Found { thread, instance, key: None },
            Ack::Defined { by: "1.2.3".into(), count: 3 },
            Ack::Phase {
                epoch: 3,
                phase: Phase::PreRollback,
                home: "sled".into(),
                other: Some("rocksdb".into()),
            },
            Ack::Launch {
                thread,
                n,
                number: 1,
                key: key.clone(),
                answer: Answer::Rejected,
                instance,
                ending,
            },
            Ack::Launch { thread, n, number: 2, key: None, answer: Answer::Started, instance, ending: None },
            Ack::Define { thread, n, number: 2, created: true, stores: vec![1, 2] },
            Ack::Step {
                thread,
                n,
                instance,
                step: "a".into(),
                attempt: 1,
                report: Report::Retry,
                done: true,
                ended,
            },
            Ack::Idle { thread, n },
            Ack::End { thread, n, instance, how: How::Cancel, answer: EndAnswer::Before, ending },
            Ack::Query { thread, n, instance: None, key, saw: Saw::Nothing, ending: None },
            Ack::Query { thread, n, instance: Some(instance), key: None, saw: Saw::Ended, ending },
            Ack::Failed {
                thread,
                n,
                task: Some(Task { instance, step: "a".into() }),
                refused: false,
                error: "x".into(),
            },
            Ack::Wrong { thread, n, what: "x".into() },
        ];
        let lines = acks.into_iter().enumerate().map(|(at, ack)| Line { ack, before: at as u64, at_ms: 5 });
        std::iter::once(opened()).chain(lines).collect()
    }

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn lines_read_back_and_begin_with_what_they_are() {
        let text = text(&all());
        assert!(text.lines().all(|line| line.starts_with("{\"ack\":\"")), "{text}");
        assert_eq!(read(&text), Ok(all()));
    }

    #[test]
    fn a_line_that_was_cut_off_is_not_one() {
        let text = text(&all());
        let last = text.lines().last().unwrap().len() + 1;
        for cut in 1..=last {
            let read = read(&text[..text.len() - cut]).unwrap();
            // Without its end the line is whole.
            assert_eq!(read.len(), all().len() - usize::from(cut > 1), "{cut}");
        }
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_acknowledgement_is_named() {
        let good = text(&[opened()]);
        assert!(read(&format!("{good}hello\n")).unwrap_err().starts_with("line 2 is no JSON"));
        assert!(read(&format!("{good}{{}}\n")).unwrap_err().starts_with("line 2 is no acknowledgement"));
        assert!(read("{\"ack\":\"idle\",\"thread\":0,\"n\":0,\"before\":0,\"at_ms\":0}\n").is_err());
        let typo = "{\"ack\":\"end\",\"thread\":0,\"n\":0,\"instance\":\"00\",\"before\":1,\"at_ms\":0}\n";
        let read = read(&format!("{good}{typo}")).unwrap();
        assert!(
            matches!(&read[1].ack, Ack::Unreadable { what } if what.contains("is no instance id")),
            "{read:?}"
        );
    }
}
