//! The ledger: what was acknowledged, kept apart from the engine, and the check of the engine against it.
//!
//! It knows nothing of stores or phases. It is told what was tried and what was answered, and at the end it asks for
//! every instance by id and by key. All of it is pure, so that tests can show it failing.

use std::collections::{BTreeMap, HashMap};

use cutover_formats::{InstanceId, Phase, StoreId};
use serde::{Deserialize, Serialize};

use crate::entry::{Answer, Entry, Scope, Try};

/// Sentences about problems that are kept; all are counted.
const KEPT_PROBLEMS: usize = 20;

/// Counts of launches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Launches {
    /// Launches called, not counting repeats after a kill.
    pub attempted: u64,
    /// Answered with a new instance.
    pub started: u64,
    /// Answered with the holder of the key.
    pub conflicts: u64,
    /// Answered, whatever the answer, where a conflict was the only right one.
    pub expected_conflicts: u64,
    /// Answered with an error or with anything else that is not one of the two.
    pub failed: u64,
    /// Called again with the same request id after a kill.
    pub relaunched: u64,
    /// Drawn to repeat a live key.
    pub repeats_drawn: u64,
    /// Of these, those for which a live key was at hand.
    pub repeats_tried: u64,
}

/// Counts of instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Instances {
    /// Completed, each counted once.
    pub completed: u64,
    /// Ended in another way, or not at all.
    pub failed: u64,
    /// Times that a key had two live instances, or an instance completed twice.
    pub duplicates: u64,
    /// Acknowledged and then not found by id or by key, or found with other contents.
    pub lost: u64,
    /// Reported as collected after their end.
    pub collected: u64,
    /// Live when the first cutover was over.
    pub live_at_cutover: u64,
}

/// Counts of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Steps {
    /// Results acknowledged.
    pub completed: u64,
    /// Results refused because of an old lease.
    pub refused_stale: u64,
    /// Times that a worker froze past its lease and tried to go on.
    pub stalled: u64,
    /// Steps whose result was acknowledged more than once.
    pub repeated: u64,
    /// Steps of completed instances that never had a result acknowledged. Unknown after a kill.
    pub skipped: u64,
}

/// Running counts of the instances in one store. One that is moved is counted where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Acknowledged.
    pub started: u64,
    /// Over, each counted once.
    pub ended: u64,
    /// Of these, reported as collected.
    pub collected: u64,
}

/// An instance that was acknowledged.
#[derive(Debug, Clone)]
struct Life {
    what: Try,
    instance: InstanceId,
    acked: u64,
}

/// What became of an instance.
#[derive(Debug, Clone, Default)]
struct Fate {
    ends: u32,
    completed: bool,
    /// When the call that ended it was made; unknown after a kill.
    end_began: Option<u64>,
    ended: Option<u64>,
    collected: bool,
    done: Done,
    acked: bool,
    /// Where it was moved to.
    moved_to: Option<StoreId>,
}

impl Fate {
    fn is_over(&self) -> bool {
        self.ends > 0 || self.collected
    }

    fn store(&self, instance: InstanceId) -> StoreId {
        self.moved_to.unwrap_or_else(|| instance.store())
    }
}

/// The tasks of an instance that were done, as bits.
#[derive(Debug, Clone, Default)]
struct Done(Vec<u64>);

impl Done {
    /// Says whether it was not done before.
    fn add(&mut self, task: u32) -> bool {
        let (word, bit) = (task as usize / 64, 1 << (task % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let Some(word) = self.0.get_mut(word) else { return true };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// A workflow as the ledger needs to know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'w> {
    /// Its name.
    pub name: &'w str,
    /// How many tasks it has.
    pub tasks: u64,
}

/// What the engine says about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its id.
    pub instance: InstanceId,
    /// Name of its definition.
    pub definition: String,
    /// Its scope and key.
    pub key: Option<(String, Vec<u8>)>,
    /// Whether it has ended as completed.
    pub completed: bool,
}

/// Answers the ledger's questions.
pub(crate) trait Lookup {
    /// The instance with this id.
    fn by_id(&mut self, id: InstanceId) -> Result<Option<Seen>, String>;
    /// The live or latest instance of this key.
    fn by_key(&mut self, scope: Scope, key: &str) -> Result<Option<Seen>, String>;
    /// Instances that GC has begun to remove since the ledger was last told. A key leaves its scope by time, before GC comes to it: it is
    /// given time to come to this one.
    fn collected_meanwhile(&mut self, wanted: InstanceId) -> Vec<InstanceId>;
}

/// The ledger.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: BTreeMap<u64, Try>,
    lives: Vec<Life>,
    fates: HashMap<InstanceId, Fate>,
    cutover_at: Option<u64>,
    killed: bool,
    next_launch: u64,
    launches: Launches,
    steps: Steps,
    tallies: BTreeMap<StoreId, Tally>,
    definitions: u64,
    wrong: Instances,
    problems: Vec<String>,
    problem_count: u64,
}

/// What a process that replaces a killed one must know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resume {
    /// Launches that were tried and never answered.
    pub open: Vec<Try>,
    /// Instances that were started and are not known to have ended: launch, and id as text.
    pub live: Vec<(Try, String)>,
    /// Instances started so far.
    pub started: u64,
    /// The number of the next launch.
    pub next_launch: u64,
    /// The number of the next definition.
    pub next_definition: u64,
}

/// How the ledger was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Counts of launches.
    pub launches: Launches,
    /// Counts of instances.
    pub instances: Instances,
    /// Counts of steps.
    pub steps: Steps,
    /// The first problems, in words.
    pub problems: Vec<String>,
    /// How many there were.
    pub problem_count: u64,
}

impl Verdict {
    /// Whether every promise was kept.
    pub(crate) fn is_good(&self) -> bool {
        let (launches, instances) = (&self.launches, &self.instances);
        self.problem_count == 0
            && launches.failed == 0
            && launches.conflicts == launches.expected_conflicts
            && (instances.failed, instances.duplicates, instances.lost) == (0, 0, 0)
    }
}

impl Ledger {
    /// Takes an entry.
    pub(crate) fn note(&mut self, entry: &Entry) {
        match entry {
            Entry::Try { what, .. } => self.tried(what),
            Entry::Ack { launch, answer, at, again, .. } => self.answered(*launch, answer, *at, *again),
            Entry::Step { instance, task } => self.step(*instance, *task),
            Entry::Stalled { passed } => self.stalled(passed),
            Entry::Moved { instance, to, .. } => self.moved(*instance, StoreId(*to)),
            Entry::Stale => self.steps.refused_stale += 1,
            Entry::Ended { instance, completed, began, at } => self.ended(*instance, *completed, *began, *at),
            Entry::Collecting { instance, .. } => self.collecting(*instance),
            Entry::Defined { number } => self.definitions = self.definitions.max(number + 1),
            Entry::Phase { phase: Phase::PostMigration | Phase::PostRollback, at } => {
                self.cutover_at.get_or_insert(*at);
            }
            Entry::Problem(text) => self.problem(text.clone()),
            _ => {}
        }
    }

    /// The process was killed: from now on an end may have happened without an acknowledgement.
    pub(crate) fn killed(&mut self) {
        self.killed = true;
    }

    /// Definitions of the load that were acknowledged.
    pub(crate) fn definitions(&self) -> u64 {
        self.definitions
    }

    /// Counts of launches so far.
    pub(crate) fn launches(&self) -> Launches {
        self.launches
    }

    /// Instances so far by the store that they are in, in the order in which the stores were made.
    pub(crate) fn tallies(&self) -> Vec<Tally> {
        self.tallies.values().copied().collect()
    }

    /// What the next process must know.
    pub(crate) fn resume(&self) -> Resume {
        let live = self.lives.iter().filter(|life| !self.has_ended(life));
        Resume {
            open: self.open.values().cloned().collect(),
            live: live.map(|life| (life.what.clone(), life.instance.to_string())).collect(),
            started: self.launches.started,
            next_launch: self.next_launch,
            next_definition: self.definitions,
        }
    }

    fn has_ended(&self, life: &Life) -> bool {
        self.fates.get(&life.instance).is_some_and(Fate::is_over)
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < KEPT_PROBLEMS {
            self.problems.push(text);
        }
    }

    fn tried(&mut self, what: &Try) {
        self.launches.attempted += 1;
        self.launches.repeats_drawn += u64::from(what.repeat);
        self.launches.repeats_tried += u64::from(what.conflict.is_some());
        self.next_launch = self.next_launch.max(what.launch + 1);
        self.open.insert(what.launch, what.clone());
    }

    fn answered(&mut self, launch: u64, answer: &Answer, at: u64, again: bool) {
        self.launches.relaunched += u64::from(again);
        let Some(what) = self.open.remove(&launch) else {
            return self.problem(format!("launch {launch} was answered without having been tried"));
        };
        let expected = what.conflict;
        self.launches.expected_conflicts += u64::from(expected.is_some());
        match answer {
            Answer::Started(instance) => {
                self.launches.started += 1;
                let fate = self.fates.entry(*instance).or_default();
                fate.acked = true;
                self.tallies.entry(fate.store(*instance)).or_default().started += 1;
                if let Some(holder) = expected {
                    self.problem(format!(
                        "key {}: {instance} was started beside the live {holder}",
                        what.key
                    ));
                }
                self.lives.push(Life { what, instance: *instance, acked: at });
            }
            Answer::Conflict(instance) => {
                self.launches.conflicts += 1;
                if expected != Some(*instance) {
                    let holder = expected.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
                    self.wrong.duplicates += 1;
                    self.problem(format!(
                        "key {} is held by {holder}, and the answer was {instance}",
                        what.key
                    ));
                }
            }
            Answer::Failed(text) => {
                self.launches.failed += 1;
                self.problem(format!("launch {launch} of key {} failed: {text}", what.key));
            }
        }
    }

    fn step(&mut self, instance: InstanceId, task: u32) {
        self.steps.completed += 1;
        if !self.fates.entry(instance).or_default().done.add(task) {
            self.steps.repeated += 1;
            self.problem(format!("task {task} of instance {instance} took effect twice"));
        }
    }

    fn stalled(&mut self, passed: &[String]) {
        self.steps.stalled += 1;
        for what in passed {
            self.problem(format!("a worker whose lease had run out was not refused {what}"));
        }
    }

    fn moved(&mut self, instance: InstanceId, to: StoreId) {
        let fate = self.fates.entry(instance).or_default();
        let (from, started, ended) = (fate.store(instance), u64::from(fate.acked), u64::from(fate.is_over()));
        fate.moved_to = Some(to);
        let left = self.tallies.entry(from).or_default();
        left.started = left.started.saturating_sub(started);
        left.ended = left.ended.saturating_sub(ended);
        let here = self.tallies.entry(to).or_default();
        here.started += started;
        here.ended += ended;
    }

    fn ended(&mut self, instance: InstanceId, completed: bool, began: Option<u64>, at: u64) {
        let fate = self.fates.entry(instance).or_default();
        if !fate.is_over() {
            self.tallies.entry(fate.store(instance)).or_default().ended += 1;
        }
        fate.ends += 1;
        fate.completed = completed;
        fate.end_began = began;
        fate.ended = Some(at);
        if fate.ends > 1 {
            self.wrong.duplicates += 1;
            self.problem(format!("instance {instance} ended twice"));
        }
    }

    fn collecting(&mut self, instance: InstanceId) {
        let killed = self.killed;
        let fate = self.fates.entry(instance).or_default();
        if !fate.collected {
            let tally = self.tallies.entry(fate.store(instance)).or_default();
            tally.collected += 1;
            tally.ended += u64::from(fate.ends == 0);
        }
        fate.collected = true;
        // The end is told before the row can expire, unless the process that would have told was killed.
        if fate.ends == 0 && !killed {
            self.wrong.lost += 1;
            self.problem(format!("instance {instance} was collected before it ended"));
        }
    }

    /// Holds the engine against the ledger.
    pub(crate) fn audit(mut self, workflows: &[Known<'_>], lookup: &mut dyn Lookup) -> Verdict {
        for launch in std::mem::take(&mut self.open).into_keys() {
            self.launches.failed += 1;
            self.problem(format!("launch {launch} was tried and never answered"));
        }
        self.check_overlaps();
        let lives = std::mem::take(&mut self.lives);
        let latest = latest_of_each_key(&lives);
        for life in &lives {
            let latest = latest.get(&key_of(life)) == Some(&life.instance);
            let Some(workflow) = workflows.get(life.what.workflow) else { continue };
            self.check_life(life, *workflow, latest, lookup);
        }
        self.check_strangers(&lives);
        let mut instances = self.wrong;
        instances.collected = self.fates.values().filter(|fate| fate.collected).count() as u64;
        if let Some(cutover) = self.cutover_at {
            instances.live_at_cutover =
                lives.iter().filter(|life| self.was_live(life, cutover)).count() as u64;
        }
        Verdict {
            launches: self.launches,
            instances,
            steps: self.steps,
            problems: self.problems,
            problem_count: self.problem_count,
        }
    }

    fn was_live(&self, life: &Life, at: u64) -> bool {
        let ended = self.fates.get(&life.instance).and_then(|fate| fate.ended);
        life.acked <= at && ended.is_none_or(|ended| ended > at)
    }

    /// An instance lives for certain from its acknowledgement to the call that ended it. Two instances of one key never do so
    /// at the same time.
    fn check_overlaps(&mut self) {
        let spans = self.lives.iter().map(|life| {
            let end = match self.fates.get(&life.instance) {
                Some(Fate { ends: 0, collected: false, .. }) | None => u64::MAX,
                // Ended at a time that nobody knows: no moment of it is certain.
                Some(fate) => fate.end_began.unwrap_or(0),
            };
            (key_of(life), life.acked, end, life.instance)
        });
        for (first, second) in overlaps(spans.collect()) {
            self.wrong.duplicates += 1;
            self.problem(format!("the instances {first} and {second} of one key were live at the same time"));
        }
    }

    fn check_life(&mut self, life: &Life, workflow: Known<'_>, latest: bool, lookup: &mut dyn Lookup) {
        let fate = self.fates.get(&life.instance).cloned().unwrap_or_default();
        let mut completed = fate.completed;
        match self.find(life, latest, lookup) {
            Ok(Some(seen)) if seen.definition != workflow.name => {
                self.wrong.lost += 1;
                self.problem(format!(
                    "instance {} is found with the definition {}",
                    life.instance, seen.definition
                ));
            }
            Ok(Some(seen)) => completed = seen.completed && (fate.ends > 0 || self.killed),
            // Only an instance that has ended is collected; `collecting` has seen to that.
            Ok(None) => completed |= self.killed && fate.ends == 0,
            Err(text) => {
                self.wrong.lost += 1;
                self.problem(text);
            }
        }
        let skipped = workflow.tasks.saturating_sub(fate.done.count());
        // The result of a step may have been committed without anybody being told, if the process was killed.
        if completed && skipped > 0 && !self.killed {
            self.steps.skipped += skipped;
            self.problem(format!("instance {} completed without {skipped} of its steps", life.instance));
        }
        if completed {
            self.wrong.completed += 1;
        } else {
            self.wrong.failed += 1;
            self.problem(format!("instance {} of key {} never completed", life.instance, life.what.key));
        }
    }

    /// The instance as the engine sees it, or `None` if it was collected.
    fn find(&mut self, life: &Life, latest: bool, lookup: &mut dyn Lookup) -> Result<Option<Seen>, String> {
        let Some(seen) = lookup.by_id(life.instance)? else {
            return self.must_be_collected(life, "by id", lookup).map(|()| None);
        };
        let key = (life.what.scope.name().to_owned(), life.what.key.clone().into_bytes());
        if seen.instance != life.instance || seen.key.as_ref() != Some(&key) {
            return Err(format!("instance {} is found with another id or key", life.instance));
        }
        if latest {
            match lookup.by_key(life.what.scope, &life.what.key)? {
                Some(found) if found.instance == life.instance => {}
                Some(found) => {
                    let (key, other) = (&life.what.key, found.instance);
                    return Err(format!("key {key} leads to {other} instead of {}", life.instance));
                }
                None => return self.must_be_collected(life, "by key", lookup).map(|()| None),
            }
        }
        Ok(Some(seen))
    }

    fn must_be_collected(&mut self, life: &Life, how: &str, lookup: &mut dyn Lookup) -> Result<(), String> {
        let is_collected =
            |ledger: &Self| ledger.fates.get(&life.instance).is_some_and(|fate| fate.collected);
        if !is_collected(self) {
            for instance in lookup.collected_meanwhile(life.instance) {
                self.collecting(instance);
            }
        }
        if is_collected(self) {
            return Ok(());
        }
        Err(format!("instance {} of key {} is not found {how}", life.instance, life.what.key))
    }

    /// Nothing ended or was collected that was never acknowledged.
    fn check_strangers(&mut self, lives: &[Life]) {
        let known: std::collections::HashSet<InstanceId> = lives.iter().map(|life| life.instance).collect();
        let strangers: Vec<InstanceId> =
            self.fates.keys().filter(|id| !known.contains(id)).copied().collect();
        for id in strangers {
            self.wrong.duplicates += 1;
            self.problem(format!("instance {id} ended or was collected, and no launch was answered with it"));
        }
    }
}

type Key = (Scope, String);

fn key_of(life: &Life) -> Key {
    (life.what.scope, life.what.key.clone())
}

fn latest_of_each_key(lives: &[Life]) -> HashMap<Key, InstanceId> {
    let mut latest: HashMap<Key, (u64, InstanceId)> = HashMap::new();
    for life in lives {
        let slot = latest.entry(key_of(life)).or_insert((life.what.launch, life.instance));
        if life.what.launch > slot.0 {
            *slot = (life.what.launch, life.instance);
        }
    }
    latest.into_iter().map(|(key, (_, instance))| (key, instance)).collect()
}

/// Pairs of spans of one key that share more than a moment. Spans that end before they start are empty.
fn overlaps(mut spans: Vec<(Key, u64, u64, InstanceId)>) -> Vec<(InstanceId, InstanceId)> {
    spans.retain(|(_, from, to, _)| from < to);
    spans.sort_unstable();
    let mut found = Vec::new();
    let mut open: Option<(Key, u64, InstanceId)> = None;
    for (key, from, to, id) in spans {
        match &mut open {
            Some((same, until, holder)) if *same == key => {
                if from < *until {
                    found.push((*holder, id));
                }
                if to > *until {
                    (*until, *holder) = (to, id);
                }
            }
            _ => open = Some((key, to, id)),
        }
    }
    found
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
