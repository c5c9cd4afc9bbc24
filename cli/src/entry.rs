//! What a run says about itself while it works: one entry for each thing tried, answered, ended or collected.
//!
//! The same entries go to the ledger of the same process, or as lines of JSON through a pipe to the ledger of the process
//! that does the killing. Times are microseconds of the run's [`Clock`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cutover_formats::{InstanceId, Phase};
use serde::{Deserialize, Serialize};

/// The scope of the keys of a launch. The two differ in how long the engine keeps what has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Scope {
    /// Kept for moments, so that a store can drain: launches that may be in a store that is going to be left.
    Swept,
    /// Kept until after the end of the run, to be looked up when it is held against the ledger.
    Kept,
}

impl Scope {
    /// Its name in the engine.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Swept => "swept",
            Self::Kept => "kept",
        }
    }
}

/// A launch, as it is known before the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Try {
    /// Counts the launches of a run; the request id is made from it.
    pub launch: u64,
    /// Scope of its key.
    pub scope: Scope,
    /// Its key.
    pub key: String,
    /// Which workflow, as a place in the collection.
    pub workflow: usize,
    /// It is to live until after the next cutover.
    pub long: bool,
    /// Cutovers that were over when it was tried.
    pub cutovers: usize,
    /// It was drawn to repeat a live key.
    pub repeat: bool,
    /// The instance that the answer must name as the holder of the key; none if it must be started.
    #[serde(with = "optional_id")]
    pub conflict: Option<InstanceId>,
}

/// What a launch was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Started as this instance.
    Started(#[serde(with = "id")] InstanceId),
    /// The key is held by this instance.
    Conflict(#[serde(with = "id")] InstanceId),
    /// Anything else, an error above all.
    Failed(String),
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// The engine is open and its definitions are there; the load starts.
    Began {
        /// When.
        at: u64,
    },
    /// Launchers are at work from now on.
    Up {
        /// When.
        at: u64,
    },
    /// No launcher is at work from now on.
    Down {
        /// When.
        at: u64,
    },
    /// A launch is about to be called.
    Try {
        /// The launch.
        what: Try,
        /// When.
        at: u64,
    },
    /// A launch returned.
    Ack {
        /// Which.
        launch: u64,
        /// What it was answered.
        answer: Answer,
        /// When.
        at: u64,
        /// How long it took, in microseconds.
        took: u64,
        /// It was called again with the same request id after the process was killed before it returned.
        again: bool,
    },
    /// A step was completed.
    Step {
        /// Of which instance.
        #[serde(with = "id")]
        instance: InstanceId,
        /// Which task of its workflow.
        task: u32,
    },
    /// A worker froze past its lease and then tried to go on.
    Stalled {
        /// What of it was not refused.
        passed: Vec<String>,
    },
    /// The tenant was given to another runner.
    HandedOver {
        /// How long requests could have had to wait, in microseconds.
        paused: u64,
        /// Requests that waited.
        queued: u64,
        /// Requests that were refused.
        refused: u64,
        /// Why it was not, if it was not.
        undone: Option<String>,
    },
    /// An instance was moved out of the store that is left.
    Moved {
        /// Which.
        #[serde(with = "id")]
        instance: InstanceId,
        /// Number of the store that it is in now.
        to: u32,
        /// For how long it was locked, in microseconds.
        pause: u64,
    },
    /// A result was refused because its lease was not the current one any more.
    Stale,
    /// An instance ended.
    Ended {
        /// Which.
        #[serde(with = "id")]
        instance: InstanceId,
        /// Whether it completed, and not in another way.
        completed: bool,
        /// When the call that ended it was made. None when it was found ended after the process was killed.
        began: Option<u64>,
        /// When that returned.
        at: u64,
    },
    /// GC is about to remove an instance.
    Collecting {
        /// Which.
        #[serde(with = "id")]
        instance: InstanceId,
        /// When.
        at: u64,
    },
    /// A definition of the load was acknowledged.
    Defined {
        /// Its number.
        number: u64,
    },
    /// The tenant is in a phase.
    Phase {
        /// Which.
        phase: Phase,
        /// Since when.
        at: u64,
    },
    /// A wait for all pins taken before a change of status is over.
    Waited {
        /// The phase that was entered.
        phase: Phase,
        /// How long it took, in microseconds.
        took: u64,
    },
    /// The replicator has copied this many definitions in all.
    Copied {
        /// How many.
        definitions: u64,
        /// Of how many that there were when it began.
        of: u64,
    },
    /// The engine has found every definition in both stores, byte for byte.
    Verified {
        /// How many.
        definitions: u64,
    },
    /// Something stands in the move's way, and the engine tries again.
    Obstacle(String),
    /// Something is wrong that no other entry says.
    Problem(String),
}

/// Takes entries. Quick, because the engine waits for some of them.
pub(crate) trait Sink: Send + Sync {
    /// Takes one.
    fn put(&self, entry: Entry);
}

/// Time since the start of a run, the same in every process of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    offset: u64,
    /// When the run started, in microseconds since 1970.
    pub origin: u64,
}

impl Clock {
    /// Starts a run.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), offset: 0, origin: wall() }
    }

    /// Joins a run that another process started. Wall time is read once, here.
    pub(crate) fn join(origin: u64) -> Self {
        Self { started: Instant::now(), offset: wall().saturating_sub(origin), origin }
    }

    /// Microseconds since the start of the run.
    pub(crate) fn now(&self) -> u64 {
        self.offset + crate::plan::micros(self.started.elapsed())
    }

    /// Sleeps until then; returns at once if it has passed.
    pub(crate) fn sleep_until(&self, at: u64) {
        std::thread::sleep(Duration::from_micros(at.saturating_sub(self.now())));
    }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, crate::plan::micros)
}

/// Instance ids as text: JSON has no numbers of 128 bits.
mod id {
    use cutover_formats::InstanceId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &InstanceId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<InstanceId, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The same, where there may be none.
mod optional_id {
    use cutover_formats::InstanceId;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(id: &Option<InstanceId>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.collect_str(id),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<InstanceId>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_formats::StoreId;

    #[test]
    fn entries_go_through_a_pipe_unchanged() {
        let instance = InstanceId::new(StoreId(3), 1_790_000_000_000, 77);
        let what = Try {
            launch: 9,
            scope: Scope::Kept,
            key: "k9".to_owned(),
            workflow: 2,
            long: true,
            cutovers: 1,
            repeat: true,
            conflict: Some(instance),
        };
        for entry in [
            Entry::Began { at: 1 },
            Entry::Try { what: Try { conflict: None, ..what.clone() }, at: 3 },
            Entry::Try { what, at: 2 },
            Entry::Ack { launch: 9, answer: Answer::Conflict(instance), at: 4, took: 5, again: true },
            Entry::Ack { launch: 9, answer: Answer::Failed("\"\n".to_owned()), at: 4, took: 5, again: false },
            Entry::Step { instance, task: 3 },
            Entry::Stalled { passed: vec!["its result".to_owned()] },
            Entry::Moved { instance, to: 2, pause: 900 },
            Entry::HandedOver { paused: 1, queued: 2, refused: 0, undone: None },
            Entry::Ended { instance, completed: true, began: None, at: 7 },
            Entry::Phase { phase: Phase::PostRollback, at: 8 },
        ] {
            let line = serde_json::to_string(&entry).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry, "{line}");
        }
    }

    #[test]
    fn a_clock_that_joins_goes_on_where_the_run_is() {
        let first = Clock::start();
        std::thread::sleep(Duration::from_millis(20));
        let second = Clock::join(first.origin);
        assert!(second.now().abs_diff(first.now()) < 15_000);
    }
}
