//! What is known of a tenant from what was acknowledged: pure, and nothing here asks the engine.

use std::collections::{BTreeMap, BTreeSet};

use cutover::{ConflictPolicy, Ending, InstanceId, Launched, Phase, StoreId};

use crate::script::{Action, Run};

/// How long ended instances and keys are kept, in milliseconds. Requests are kept for longer than any script takes.
pub(crate) const KEPT_MS: u64 = 4_000;
/// When something ended of which it is not known when.
pub(crate) const LONG_AGO: u64 = 0;
/// How far the engine's clock may be ahead after a crash.
const AHEAD_MS: u64 = 2_000;

/// What was acknowledged of one tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    /// It was made, or was about to be removed.
    pub(crate) exists: bool,
    pub(crate) definitions: BTreeSet<u32>,
    pub(crate) runs: BTreeMap<u32, Known>,
    /// The run that has or had a key last.
    pub(crate) keys: BTreeMap<&'static str, u32>,
    pub(crate) answers: BTreeMap<u32, (Run, Launched)>,
    /// How many runs were started, lost ones among them.
    started: usize,
    /// The last status that was published.
    pub(crate) seen: Option<(u64, Phase)>,
}

/// A run that was started.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) run: Run,
    pub(crate) id: InstanceId,
    /// How it ended, and when.
    pub(crate) ended: Option<(Ending, u64)>,
    /// Steps that are complete.
    pub(crate) done: u32,
    /// Runs that were started later have a higher one.
    pub(crate) order: usize,
}

/// Something that was made durable in stores, in the order of the acknowledgements.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) tenant: &'static str,
    /// The call of the script.
    pub(crate) at: usize,
    pub(crate) what: Done,
    /// In one store, or the same in both.
    pub(crate) stores: Vec<StoreId>,
    /// It was made a second time, because the first was in doubt or lost; it may have been there before.
    pub(crate) again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Done {
    Defined(u32),
    Answered(u32),
    Ended(u32, Ending),
    /// The run that this one replaced.
    Replaced(u32),
    /// A run and one of its steps.
    Stepped(u32, u32),
}

impl Done {
    /// The run that something was done to.
    pub(crate) fn run(self) -> Option<u32> {
        match self {
            Self::Ended(number, _) | Self::Stepped(number, _) => Some(number),
            _ => None,
        }
    }
}

impl Known {
    /// Whether it may have been collected.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.ended.is_some_and(|(_, at_ms)| at_ms + KEPT_MS <= now_ms + AHEAD_MS)
    }
}

impl Book {
    /// A run is lost. Its key is free, or has the holder that it had.
    pub(crate) fn lose(&mut self, number: u32) {
        self.answers.remove(&number);
        let Some(Known { run: Run { key: Some(key), .. }, .. }) = self.runs.remove(&number) else { return };
        let last =
            self.runs.values().filter(|known| known.run.key == Some(key)).max_by_key(|known| known.order);
        match last.map(|known| known.run.number) {
            Some(number) => self.keys.insert(key, number),
            None => self.keys.remove(key),
        };
    }

    /// The live run that has the key.
    pub(crate) fn holder(&self, key: Option<&'static str>) -> Option<&Known> {
        let known = &self.runs[self.keys.get(key?)?];
        known.ended.is_none().then_some(known)
    }

    pub(crate) fn live(&self, number: u32) -> Option<&Known> {
        self.runs.get(&number).filter(|known| known.ended.is_none())
    }

    /// A launch was answered: the answer has to be the one that a single store would give; one that is repeated may have been answered
    /// before. Returns the run that it replaced.
    pub(crate) fn launched(&mut self, run: Run, answer: Launched, again: bool, now_ms: u64) -> Option<u32> {
        let holder = self.holder(run.key).map(|known| (known.run.number, known.id));
        let mut replaced = None;
        match (answer, holder, run.policy) {
            (Launched::Started(_), None, _) => {}
            (Launched::Started(_), Some((old, _)), ConflictPolicy::TerminateExisting) => {
                // What is done again may have happened before.
                self.end(old, Ending::Terminated, if again { LONG_AGO } else { now_ms });
                replaced = Some(old);
            }
            (Launched::Conflict { instance }, Some((_, id)), ConflictPolicy::Fail) if !again => {
                assert_eq!(instance, id, "{run:?} is in conflict with another run");
            }
            (Launched::Conflict { instance }, ..) if again => {
                let held = self.runs.values().any(|known| known.run.key == run.key && known.id == instance);
                assert!(held, "{run:?} is in conflict with {instance}");
            }
            wrong => panic!("{run:?}: {wrong:?}"),
        }
        self.answers.insert(run.number, (run, answer));
        if let Launched::Started(id) = answer {
            if let Some(key) = run.key {
                self.keys.insert(key, run.number);
            }
            let order = self.started;
            self.started += 1;
            let known = Known { run, id, ended: None, done: 0, order };
            assert!(self.runs.insert(run.number, known).is_none(), "{run:?} was started twice");
        }
        replaced
    }

    pub(crate) fn end(&mut self, number: u32, ending: Ending, now_ms: u64) {
        let known = self.runs.get_mut(&number).unwrap();
        assert_eq!(known.ended, None, "run {number} ended twice");
        known.ended = Some((ending, now_ms));
    }

    /// A step is complete; with the last one the run is.
    pub(crate) fn stepped(&mut self, number: u32, now_ms: u64) {
        let known = self.runs.get_mut(&number).unwrap();
        known.done += 1;
        if known.done == known.run.steps {
            self.end(number, Ending::Completed, now_ms);
        }
    }

    /// One of these calls has ended it, as it was seen if it is still there.
    pub(crate) fn ended_by(&mut self, number: u32, seen: Option<Ending>, doubts: &[Action]) {
        let ends = self.may_have_ended(&self.runs[&number], doubts);
        match seen.or(ends.first().copied()) {
            Some(Ending::Completed) if doubts.contains(&Action::Work(number)) => {
                self.stepped(number, LONG_AGO)
            }
            Some(ending) => self.end(number, ending, LONG_AGO),
            None => {}
        }
    }

    /// How a run may be found besides as it is known, if these calls are in doubt.
    pub(crate) fn may_have_ended(&self, known: &Known, doubts: &[Action]) -> Vec<Ending> {
        let number = known.run.number;
        let ending = |doubt: &Action| match doubt {
            Action::End(other) if *other == number => Some(Ending::Completed),
            Action::Terminate(other) if *other == number => Some(Ending::Terminated),
            Action::Work(other) if *other == number && known.done + 1 == known.run.steps => {
                Some(Ending::Completed)
            }
            Action::Launch(run)
                if run.policy == ConflictPolicy::TerminateExisting
                    && self.holder(run.key).is_some_and(|holder| holder.run.number == number) =>
            {
                Some(Ending::Terminated)
            }
            _ => None,
        };
        doubts.iter().filter_map(ending).collect()
    }
}
