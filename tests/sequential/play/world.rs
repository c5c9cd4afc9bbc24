//! What a tenant should answer: a plain sequential model of it. It has one store, no phases, no threads and no caches.
//!
//! An operation that ended with an error whose outcome is unknown leaves several worlds behind it: it did nothing, it did what was
//! asked, or it will have when the engine is opened again. Each later answer throws out those that it contradicts; an answer
//! that contradicts all of them is a finding.

use std::collections::{BTreeMap, BTreeSet};

use cutover::{
    ConflictPolicy, Defined, Ended, Ending, Error, ErrorKind, InstanceId, Launched, Result, Retention,
    ReusePolicy, StoreId, Token,
};

use super::ops::{self, Launching};

/// The worlds that an answer leaves, or why it contradicts this one.
pub type Left = std::result::Result<Vec<World>, String>;

/// What the harness knows about the moment of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    /// The engine's time.
    pub now_ms: u64,
    /// Monotonic time.
    pub mono_ms: u64,
    /// A call of a store failed during the operation, so that it may have failed too.
    pub struck: bool,
    /// A store that it may write to takes no writes.
    pub broken: bool,
}

impl At {
    pub fn excused(&self) -> bool {
        self.struck || self.broken
    }
}

#[derive(Debug, Clone)]
pub struct World {
    pub retention: [Retention; 2],
    definitions: BTreeMap<u8, Defining>,
    /// The last instance that held each key.
    pub(super) keys: BTreeMap<u8, usize>,
    requests: BTreeMap<u8, Request>,
    pub instances: Vec<One>,
    /// Launches that may happen when the engine is opened again.
    pending: Vec<(Launching, u64, usize)>,
    pub(super) doubtful: BTreeSet<Doubt>,
    /// Since the engine was opened the outcome of a launch has been unknown: a list may show it, though it never happened.
    pub(super) ghosts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    Key(u8),
    Request(u8),
    Definition(u8),
}

#[derive(Debug, Clone, PartialEq)]
struct Defining {
    body: u8,
    created_ms: u64,
}

#[derive(Debug, Clone)]
struct Request {
    launching: Launching,
    answer: Answered,
    until_ms: u64,
}

/// An answer, with places in [`World::instances`] instead of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Started(usize),
    Existing(usize),
    Conflict(usize),
    Rejected(usize, Ending),
}

#[derive(Debug, Clone)]
pub struct One {
    /// None if its launch was not answered and it has not been seen.
    pub id: Option<InstanceId>,
    pub launching: Launching,
    pub launched_ms: u64,
    pub start_ms: u64,
    pub ended: Option<End>,
    pub cancel_requested: bool,
    pub open_steps: u32,
    pub steps: BTreeMap<String, Step>,
    /// An operation on it had an unknown outcome.
    pub doubtful: bool,
    /// It has been collected for sure.
    pub gone: bool,
}

#[derive(Debug, Clone)]
pub struct End {
    pub ending: Ending,
    pub at_ms: u64,
    pub collect_ms: u64,
    pub free_ms: u64,
    pub reason: String,
    pub output: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub state: StepState,
    pub queue: String,
    pub input: Vec<u8>,
    /// What was saved of it.
    pub saved: Vec<u8>,
    pub attempts: u32,
    pub max_attempts: u32,
    /// Failures that count.
    pub failed: u32,
    /// Leases that ran out since the engine was opened or it was decided about last: they count too.
    pub lost: u32,
    /// Why it failed the last time.
    pub why: &'static str,
    /// From when on its time counts.
    pub counted_ms: u64,
    pub lease: Option<Lease>,
    /// It was met in its queue while its instance was to stop, and is not offered again.
    pub hidden: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    Waiting(u32),
    Ready(u64),
    Completed,
    Failed,
    NeedsDecision(u64),
}

#[derive(Debug, Clone, Copy)]
pub struct Lease {
    pub token: Token,
    pub length_ms: u64,
    pub until_ms: u64,
}

/// What a launch should come to.
enum Due {
    Known(Answered),
    OtherContents,
    Undefined,
    Start,
    Replace(usize),
}

pub const REPLACED: &str = "replaced by a later launch of its key";

impl World {
    pub fn new(retention: [Retention; 2]) -> Self {
        Self {
            retention,
            definitions: BTreeMap::new(),
            keys: BTreeMap::new(),
            requests: BTreeMap::new(),
            instances: Vec::new(),
            pending: Vec::new(),
            doubtful: BTreeSet::new(),
            ghosts: false,
        }
    }

    /// The retention of what has this key. Odd keys are in the scope that has its own.
    fn retention_of(&self, key: Option<u8>) -> Retention {
        self.retention[usize::from(key.is_some_and(|key| key % 2 == 1))]
    }

    /// The place of an id. One that was never seen belongs to the only unseen instance, if `fits` says that it can.
    pub fn place(&mut self, id: InstanceId, fits: impl Fn(&One) -> bool) -> Option<usize> {
        if let Some(at) = self.instances.iter().position(|one| one.id == Some(id)) {
            return Some(at);
        }
        let at = self.instances.iter().position(|one| one.id.is_none() && fits(one))?;
        self.instances[at].id = Some(id);
        Some(at)
    }

    pub(super) fn is(&mut self, at: usize, id: InstanceId) -> bool {
        let taken = self.instances.iter().any(|one| one.id == Some(id));
        let one = &mut self.instances[at];
        if one.id.is_none() && !taken {
            one.id = Some(id);
        }
        one.id == Some(id)
    }

    // Definitions.

    pub fn define(mut self, which: u8, body: u8, got: &Result<Defined>, at: &At) -> Left {
        let there = self.definitions.get(&which).map(|defining| defining.body);
        let doubt = Doubt::Definition(which);
        match (got, there) {
            (Ok(Defined::Created), None) => {
                self.definitions.insert(which, Defining { body, created_ms: at.now_ms });
                Ok(vec![self])
            }
            (Ok(Defined::Unchanged), Some(other)) if other == body => Ok(vec![self]),
            (Err(err), Some(other)) if err.kind() == ErrorKind::AlreadyExists && other != body => {
                Ok(vec![self])
            }
            (Err(err), _) if of_the_world(err) && (at.excused() || self.doubtful.contains(&doubt)) => {
                let mut created = self.clone();
                if err.kind() == ErrorKind::Indeterminate {
                    self.doubtful.insert(doubt);
                    created.doubtful.insert(doubt);
                }
                created.definitions.entry(which).or_insert(Defining { body, created_ms: at.now_ms });
                Ok(if there.is_some() { vec![self] } else { vec![self, created] })
            }
            _ => Err(format!("define gave {got:?}, and there is {there:?}")),
        }
    }

    pub fn definition(self, which: u8, got: &Result<Option<(Vec<u8>, u64)>>, at: &At) -> Left {
        let due = self.definitions.get(&which).map(|known| (ops::body(which, known.body), known.created_ms));
        let doubtful = self.doubtful.contains(&Doubt::Definition(which));
        match got {
            Ok(got) if *got == due => Ok(vec![self]),
            Err(err) if of_the_world(err) && (at.excused() || doubtful) => Ok(vec![self]),
            _ => Err(format!("the definition is {got:?} and not {due:?}")),
        }
    }

    // Launches.

    fn due(&self, launching: &Launching, now_ms: u64) -> Due {
        if let Some(request) = launching.request.and_then(|request| self.requests.get(&request))
            && now_ms < request.until_ms
        {
            return if request.launching == *launching {
                Due::Known(request.answer)
            } else {
                Due::OtherContents
            };
        }
        let holder = launching.key.and_then(|key| self.keys.get(&key).copied());
        let start = match holder.map(|at| (at, &self.instances[at].ended)) {
            None => Due::Start,
            Some((at, None)) => match launching.conflict {
                ConflictPolicy::Fail => return Due::Known(Answered::Conflict(at)),
                ConflictPolicy::UseExisting => return Due::Known(Answered::Existing(at)),
                ConflictPolicy::TerminateExisting => Due::Replace(at),
            },
            Some((_, Some(end))) if end.free_ms <= now_ms => Due::Start,
            Some((at, Some(end))) => match launching.reuse {
                ReusePolicy::AllowDuplicate => Due::Start,
                ReusePolicy::AllowDuplicateFailedOnly if end.ending != Ending::Completed => Due::Start,
                _ => return Due::Known(Answered::Rejected(at, end.ending)),
            },
        };
        if self.definitions.contains_key(&launching.definition) { start } else { Due::Undefined }
    }

    pub fn launch(mut self, launching: &Launching, got: &Result<Launched>, at: &At) -> Left {
        let due = self.due(launching, at.now_ms);
        let answer = match got {
            Ok(answer) => *answer,
            Err(err) => return self.launch_failed(launching, &due, err, at),
        };
        match (due, answer) {
            (Due::Start, Launched::Started(id)) => {
                self.start(launching, Some(id), at.now_ms);
            }
            (Due::Replace(old), Launched::Started(id)) => {
                self.end(old, Ending::Terminated, REPLACED, &[], at.now_ms);
                self.start(launching, Some(id), at.now_ms);
            }
            (Due::Known(known), answer) => {
                let same = match (known, answer) {
                    (Answered::Started(place), Launched::Started(id))
                    | (Answered::Existing(place), Launched::Existing(id))
                    | (Answered::Conflict(place), Launched::Conflict { instance: id }) => self.is(place, id),
                    (Answered::Rejected(place, how), Launched::Rejected { instance, ending }) => {
                        how == ending && self.is(place, instance)
                    }
                    _ => false,
                };
                if !same {
                    return Err(format!("the launch was answered {answer:?} and not {known:?}"));
                }
                self.remember(launching, known, at.now_ms);
            }
            (_, answer) => return Err(format!("the launch was answered {answer:?}")),
        }
        Ok(vec![self])
    }

    fn launch_failed(mut self, launching: &Launching, due: &Due, err: &Error, at: &At) -> Left {
        match (err.kind(), due) {
            (ErrorKind::AlreadyExists, Due::OtherContents) | (ErrorKind::NotFound, Due::Undefined) => {
                return Ok(vec![self]);
            }
            _ => {}
        }
        let doubts = self.doubts(launching);
        if !of_the_world(err) || !(at.excused() || doubts) {
            return Err(format!("the launch failed: {err:?}"));
        }
        if err.kind() != ErrorKind::Indeterminate || (doubts && !at.struck) {
            return Ok(vec![self]);
        }
        let marks = [
            launching.key.map(Doubt::Key),
            launching.request.map(Doubt::Request),
            // Whether it is there may be what failed.
            self.doubtful.get(&Doubt::Definition(launching.definition)).copied(),
        ];
        self.doubtful.extend(marks.into_iter().flatten());
        self.ghosts = true;
        if let Due::Replace(old) = due {
            self.instances[*old].doubtful = true;
        }
        let (mut worlds, mut happened) = (vec![self.clone()], self);
        match due {
            Due::Start => {
                let new = happened.start(launching, None, at.now_ms);
                happened.instances[new].doubtful = true;
            }
            Due::Replace(old) => {
                let mut later = happened.clone();
                later.pending.push((*launching, at.now_ms, *old));
                worlds.push(later);
                happened.end(*old, Ending::Terminated, REPLACED, &[], at.now_ms);
                let new = happened.start(launching, None, at.now_ms);
                happened.instances[new].doubtful = true;
            }
            Due::Known(answer) => happened.remember(launching, *answer, at.now_ms),
            Due::OtherContents | Due::Undefined => return Ok(worlds),
        }
        worlds.push(happened);
        Ok(worlds)
    }

    /// Whether an earlier operation on what it names had an unknown outcome.
    fn doubts(&self, launching: &Launching) -> bool {
        let names = [
            launching.key.map(Doubt::Key),
            launching.request.map(Doubt::Request),
            Some(Doubt::Definition(launching.definition)),
        ];
        names.into_iter().flatten().any(|name| self.doubtful.contains(&name))
    }

    fn start(&mut self, launching: &Launching, id: Option<InstanceId>, now_ms: u64) -> usize {
        let start_ms = now_ms + launching.delay;
        let shapes = ops::first_steps(launching.shape);
        let steps = shapes.iter().map(|shape| {
            let state = match shape.parents {
                0 => StepState::Ready(start_ms),
                parents => StepState::Waiting(parents),
            };
            (shape.name.to_owned(), Step::new(shape, state))
        });
        let one = One {
            id,
            launching: *launching,
            launched_ms: now_ms,
            start_ms,
            ended: None,
            cancel_requested: false,
            open_steps: shapes.len() as u32,
            steps: steps.collect(),
            doubtful: false,
            gone: false,
        };
        let place = self.instances.len();
        self.instances.push(one);
        if let Some(key) = launching.key {
            self.keys.insert(key, place);
        }
        self.remember(launching, Answered::Started(place), now_ms);
        place
    }

    /// What a request is answered is repeated from now on. It keeps the time of the first answer.
    fn remember(&mut self, launching: &Launching, answer: Answered, now_ms: u64) {
        let Some(request) = launching.request else { return };
        if self.requests.get(&request).is_some_and(|known| now_ms < known.until_ms) {
            return;
        }
        let until_ms = now_ms.saturating_add(self.retention_of(launching.key).request_ms);
        self.requests.insert(request, Request { launching: *launching, answer, until_ms });
    }

    // Ends.

    /// `what` happens to a live instance, which an operation named.
    pub fn act(
        mut self,
        place: Option<usize>,
        got: &Result<Ended>,
        at: &At,
        what: impl Fn(&mut Self, usize) -> Ended,
    ) -> Left {
        let Some(place) = place else { return self.unknown(got, at) };
        let one = &self.instances[place];
        let (expired, doubtful, key) = (one.expired(at.now_ms), one.doubtful, one.launching.key);
        match (got, one.ended.as_ref().map(|end| end.ending)) {
            (Err(err), _) if err.kind() == ErrorKind::NotFound && expired => Ok(vec![self]),
            (Ok(Ended::Before(how)), Some(ending)) if *how == ending && !self.instances[place].gone => {
                Ok(vec![self])
            }
            (Ok(answer), None) => {
                let due = what(&mut self, place);
                if *answer != due {
                    return Err(format!("it was answered {answer:?} and not {due:?}"));
                }
                Ok(vec![self])
            }
            (Err(err), None) if of_the_world(err) && (at.excused() || doubtful) => {
                if err.kind() != ErrorKind::Indeterminate || (doubtful && !at.struck) {
                    return Ok(vec![self]);
                }
                self.doubt(place, key);
                let mut happened = self.clone();
                what(&mut happened, place);
                Ok(vec![self, happened])
            }
            (Err(err), Some(_)) if of_the_world(err) && (at.excused() || doubtful) => Ok(vec![self]),
            (_, ended) => Err(format!("it was answered {got:?}, and it had ended {ended:?}")),
        }
    }

    pub(super) fn unknown<T: std::fmt::Debug>(self, got: &Result<T>, at: &At) -> Left {
        match got {
            Err(err) if of_the_world(err) && (at.excused() || self.ghosts) => Ok(vec![self]),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(vec![self]),
            _ => Err(format!("what does not exist was answered {got:?}")),
        }
    }

    pub fn doubt(&mut self, place: usize, key: Option<u8>) {
        self.instances[place].doubtful = true;
        self.doubtful.extend(key.map(Doubt::Key));
    }

    pub fn end(&mut self, place: usize, ending: Ending, reason: &str, output: &[u8], now_ms: u64) {
        let retention = self.retention_of(self.instances[place].launching.key);
        let one = &mut self.instances[place];
        // Of a redone replacement the old one may have ended by itself.
        if one.ended.is_some() {
            return;
        }
        one.ended = Some(End {
            ending,
            at_ms: now_ms,
            collect_ms: now_ms.saturating_add(retention.instance_ms),
            free_ms: now_ms.saturating_add(retention.key_ms),
            reason: reason.to_owned(),
            output: output.to_vec(),
        });
        one.steps.values_mut().for_each(|step| step.lease = None);
    }

    pub fn cancel(&mut self, place: usize, reason: &str, now_ms: u64) -> Ended {
        if self.instances[place].held() == 0 {
            self.end(place, Ending::Cancelled, reason, &[], now_ms);
            return Ended::Now;
        }
        self.instances[place].cancel_requested = true;
        Ended::Asked
    }

    pub fn in_doubt(&self) -> bool {
        self.ghosts
            || !self.doubtful.is_empty()
            || !self.pending.is_empty()
            || self.instances.iter().any(|one| one.doubtful || one.id.is_none())
    }

    // Restarts and collection.

    /// The engine was opened again: what was in doubt is one or the other, what was to come has come, all leases are void.
    pub fn reopen(mut self, lost_relaxed: bool, now_ms: u64) -> Self {
        self.doubtful.clear();
        self.ghosts = false;
        self.finish(now_ms);
        for one in &mut self.instances {
            one.doubtful = false;
            one.gone &= !lost_relaxed;
            for step in one.steps.values_mut() {
                (step.lease, step.hidden, step.lost) = (None, false, 0);
            }
        }
        self
    }

    /// An instance has set out for another store, which takes its steps from their workers; once it is there they are all offered again.
    pub fn moved(&mut self, id: InstanceId, there: bool) {
        let Some(place) = self.instances.iter().position(|one| one.id == Some(id)) else { return };
        for step in self.instances[place].steps.values_mut() {
            step.lease = None;
            step.hidden &= !there;
        }
    }

    /// It has set out and not arrived, because a store failed.
    pub fn lost_on_the_way(&mut self, id: InstanceId) {
        if let Some(place) = self.instances.iter().position(|one| one.id == Some(id)) {
            self.doubt(place, self.instances[place].launching.key);
        }
    }

    /// A store was opened again while the engine runs. What was to come may have come with it, and what was passed over in its queues
    /// is offered again. Leases stay, and so may what is in doubt, for as long as another store has failed.
    pub fn mended(mut self, store: StoreId, now_ms: u64) -> Vec<Self> {
        let there = |one: &One| one.id.is_none_or(|id| id.store() == store);
        for one in self.instances.iter_mut().filter(|one| there(one)) {
            one.steps.values_mut().for_each(|step| step.hidden = false);
        }
        let mut worlds = vec![self.clone()];
        if !self.pending.is_empty() {
            self.finish(now_ms);
            worlds.push(self);
        }
        worlds
    }

    fn finish(&mut self, now_ms: u64) {
        for (launching, at_ms, old) in std::mem::take(&mut self.pending) {
            self.end(old, Ending::Terminated, REPLACED, &[], now_ms);
            let new = self.start(&launching, None, at_ms);
            self.instances[new].doubtful = true;
        }
    }

    /// Everything that was due has been collected.
    pub fn collected(&mut self, now_ms: u64) {
        for one in &mut self.instances {
            one.gone |= one.expired(now_ms);
        }
    }
}

/// An error that may come from a store that has failed, now or earlier.
pub fn of_the_world(err: &Error) -> bool {
    matches!(err.kind(), ErrorKind::Io | ErrorKind::Unavailable | ErrorKind::Indeterminate)
}

impl One {
    /// Whether it may have been collected.
    pub fn expired(&self, now_ms: u64) -> bool {
        self.ended.as_ref().is_some_and(|end| end.collect_ms <= now_ms)
    }

    /// How many of its steps somebody holds, or held until nobody looked any more.
    pub fn held(&self) -> usize {
        self.steps.values().filter(|step| step.lease.is_some()).count()
    }
}
