//! Launch: create an instance, with its key if it has one, in one atomic commit.
//!
//! The logic does not know the phase. It reads as the design's flow chart: pin and read the status; lock the key; home is the primary
//! if that is open, else the other store; a key that is live in either store is a conflict; build one batch; re-check that the
//! status is still the one that was read; commit; unlock.
//!
//! Why it is exact (I1): the key lock is held from the check to the end of the commit, so a second launch of the same key, even one
//! that is routed to the other store right after a close, waits for the first and then sees it. Why "closed" means closed
//! (I3): the pin is held until the commit has ended, and whoever closes waits for it.

use cutover_formats::record::{
    Answer, Ending, InstanceRecord, KeyRecord, PayloadRecord, RequestRecord, RetryRecord, StepRecord,
    StepState,
};
use cutover_formats::{Expiring, InstanceId, Record, RowId, StoreId};
use sha2::{Digest as _, Sha256};

use super::queue::{Entry, put_step};
use super::seats::Caller;
use super::types::{ConflictPolicy, Launch, Launched, NewStep, ReusePolicy};
use super::{Inner, Operation, Tenant};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Thread;
use crate::store::space::Changes;
use crate::sync;

impl Tenant {
    /// Starts an instance, or says which one holds the key. It does not wait for a migration and does not fail because of one.
    ///
    /// When it returns [`Launched::Started`] the launch is durable as the engine was opened, and found by id and by key.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) without the definition; [`AlreadyExists`](ErrorKind::AlreadyExists) if the request id was used
    /// with other contents; [`Indeterminate`](ErrorKind::Indeterminate) if the store failed during the commit: a repeat with the same
    /// request id settles whether it happened.
    pub fn launch(&self, launch: &Launch) -> Result<Launched> {
        launch.check()?;
        let digest = launch.request_id.as_ref().map(|_| digest(launch));
        loop {
            if let Some(answer) = self.0.try_launch(&self.1, launch, digest)? {
                return Ok(answer.into());
            }
            if launch.abort_on_change {
                let message = "the status changed between reading it and committing the launch";
                return Err(Error::new(ErrorKind::StatusChanged, message));
            }
        }
    }

    /// Starts several, in order. Each is atomic by itself and answered by itself; it ends with the first error. The launches after that one did
    /// not happen; its own did not either, unless the error is [`Indeterminate`](ErrorKind::Indeterminate).
    ///
    /// # Errors
    /// As [`launch`](Self::launch), beside the answers that came before it.
    pub fn launch_batch(&self, launches: &[Launch]) -> (Vec<Launched>, Result<()>) {
        let mut answers = Vec::with_capacity(launches.len());
        for launch in launches {
            match self.launch(launch) {
                Ok(answer) => answers.push(answer),
                Err(err) => return (answers, Err(err)),
            }
        }
        (answers, Ok(()))
    }
}

/// What is known about a launch's key, from both stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyState {
    /// Never used, or out of scope.
    Free,
    /// A live instance holds it.
    Live(InstanceId),
    /// Ended and still in scope.
    Ended(InstanceId, Ending),
}

/// What a launch is to do.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Start,
    Answer(Answer),
    /// End this one and start a new one.
    Replace(InstanceId),
}

/// The policies, and nothing else.
fn decide(key: KeyState, conflict: ConflictPolicy, reuse: ReusePolicy) -> Decision {
    match (key, conflict, reuse) {
        (KeyState::Free, ..) | (KeyState::Ended(..), _, ReusePolicy::AllowDuplicate) => Decision::Start,
        (KeyState::Live(id), ConflictPolicy::Fail, _) => Decision::Answer(Answer::Conflict(id)),
        (KeyState::Live(id), ConflictPolicy::UseExisting, _) => Decision::Answer(Answer::Existing(id)),
        (KeyState::Live(id), ConflictPolicy::TerminateExisting, _) => Decision::Replace(id),
        (KeyState::Ended(_, ending), _, ReusePolicy::AllowDuplicateFailedOnly)
            if ending != Ending::Completed =>
        {
            Decision::Start
        }
        (KeyState::Ended(id, ending), ..) => Decision::Answer(Answer::Rejected(id, ending)),
    }
}

impl Inner {
    /// One try; `None` if the status changed before the commit.
    fn try_launch(
        &self,
        caller: &Caller,
        launch: &Launch,
        digest: Option<[u8; 32]>,
    ) -> Result<Option<Answer>> {
        let op = self.admit(caller, "launch")?;
        let _key = launch.key.as_ref().and_then(|key| self.locks.keys.lock((self.id, key)));
        let _request = launch.request_id.as_ref().and_then(|id| self.locks.requests.lock((self.id, id)));
        if let Some(answer) = self.answered(&op, launch, digest)? {
            return Ok(Some(answer));
        }
        let key = match &launch.key {
            Some((scope, key)) => self.key_state(&op, scope, key)?,
            None => KeyState::Free,
        };
        let decision = decide(key, launch.conflict, launch.reuse);
        if let Decision::Answer(answer) = decision {
            return self.record_answer(&op, launch, digest, answer);
        }
        if !self.is_defined(&op, &launch.definition, launch.version)? {
            let message =
                format!("there is no definition {:?} version {}", launch.definition, launch.version);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let mut new = New::build(self, &op, launch, digest);
        let replaced = match decision {
            Decision::Replace(old) => Some(old),
            _ => None,
        };
        // The new instance is locked until it is durable, so that nobody acts on it before.
        let held = self
            .locks
            .instances
            .lock_all([Some(new.id), replaced].into_iter().flatten().map(|id| (self.id, id)));
        if !self.register.unchanged(op.seq) {
            return Ok(None);
        }
        match replaced {
            Some(old) => self.replace(&op, old, &mut new)?,
            None => self.commit(&op.home, &new.changes)?,
        }
        drop(held);
        self.announce(new.entries, new.deadline);
        Ok(Some(Answer::Started(new.id)))
    }

    /// What this request id was answered before, in either store.
    fn answered(
        &self,
        op: &Operation<'_>,
        launch: &Launch,
        digest: Option<[u8; 32]>,
    ) -> Result<Option<Answer>> {
        let Some(id) = &launch.request_id else { return Ok(None) };
        let now_ms = self.shared.now_ms();
        let row = RowId::Request { id: id.as_slice().into() };
        self.doubts.check(&row)?;
        for space in op.home_first() {
            let found = space.request(self.id, &row)?;
            let Some(request) = found.filter(|request| now_ms < request.until_ms) else { continue };
            if Some(request.digest) != digest {
                let message = "the request id was used before, with other contents";
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            return Ok(Some(request.answer));
        }
        Ok(None)
    }

    /// Who holds or held the key, in both stores: a live instance if there is one, else the later epoch decides. Under the key lock.
    pub(super) fn key_state(&self, op: &Operation<'_>, scope: &str, key: &[u8]) -> Result<KeyState> {
        let record = self.key_record(op, scope, key)?;
        Ok(match record {
            None => KeyState::Free,
            Some(KeyRecord { instance, ended: None, .. }) => KeyState::Live(instance),
            Some(KeyRecord { instance, ended: Some(end), .. }) => KeyState::Ended(instance, end.ending),
        })
    }

    /// The record behind [`key_state`](Self::key_state). Whether an ended one is in scope is judged by time.
    pub(super) fn key_record(
        &self,
        op: &Operation<'_>,
        scope: &str,
        key: &[u8],
    ) -> Result<Option<KeyRecord>> {
        let id = RowId::Key { scope: scope.into(), key: key.into() };
        self.doubts.check(&id)?;
        let now_ms = self.shared.now_ms();
        let mut best: Option<KeyRecord> = None;
        for space in op.home_first() {
            let record = match space.key(self.id, &id) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(err) => {
                    // Nothing points at it until its instance ends, so who meets it says so.
                    if err.kind() == ErrorKind::Corrupt {
                        self.set_aside(space, &space.damage_of(self.id, &id, &err))?;
                    }
                    return Err(err);
                }
            };
            if record.ended.is_some_and(|end| end.out_of_scope_ms <= now_ms) {
                continue;
            }
            if best.as_ref().is_none_or(|other| rank(other) < rank(&record)) {
                best = Some(record);
            }
        }
        Ok(best)
    }

    /// Makes an answer that started nothing repeatable, if the request asks for that.
    fn record_answer(
        &self,
        op: &Operation<'_>,
        launch: &Launch,
        digest: Option<[u8; 32]>,
        answer: Answer,
    ) -> Result<Option<Answer>> {
        // Also where nothing is written: before the switch only home was asked, and since then the key may have a holder in the target.
        if !self.register.unchanged(op.seq) {
            return Ok(None);
        }
        let mut changes = Changes::default();
        let deadline = self.add_request(&mut changes, launch, digest, answer);
        if changes.is_empty() {
            return Ok(Some(answer));
        }
        self.commit(&op.home, &changes)?;
        self.announce(Vec::new(), deadline);
        Ok(Some(answer))
    }

    fn add_request(
        &self,
        changes: &mut Changes,
        launch: &Launch,
        digest: Option<[u8; 32]>,
        answer: Answer,
    ) -> Option<u64> {
        let (Some(id), Some(digest)) = (&launch.request_id, digest) else { return None };
        let scope = launch.key.as_ref().map(|(scope, _)| scope.as_str());
        let until_ms = self.shared.now_ms().saturating_add(self.retention.read().of(scope).request_ms);
        let record = RequestRecord { digest, answer, until_ms };
        changes.put(RowId::Request { id: id.clone().into() }, Record::Request(record));
        changes.mark(RowId::Expiry { at_ms: until_ms, what: Expiring::Request { id: id.clone().into() } });
        Some(until_ms)
    }

    /// After a commit: steps may be taken, deadlines kept.
    pub(super) fn announce(&self, entries: Vec<Entry>, deadline: Option<u64>) {
        for entry in entries {
            self.queue.offer(entry);
        }
        if let Some(at_ms) = deadline {
            self.expires_at(at_ms);
            if at_ms <= self.shared.now_ms() {
                self.shared.wake(Thread::Collector);
            }
        }
    }
}

/// Of two records of a key, in two stores, the higher one is true.
pub(super) fn rank(record: &KeyRecord) -> (bool, u64) {
    (record.ended.is_none(), record.epoch)
}

/// A launch as rows.
pub(super) struct New {
    pub(super) id: InstanceId,
    pub(super) changes: Changes,
    pub(super) entries: Vec<Entry>,
    deadline: Option<u64>,
}

impl New {
    fn build(tenant: &Inner, op: &Operation<'_>, launch: &Launch, digest: Option<[u8; 32]>) -> Self {
        let now_ms = tenant.shared.now_ms();
        let start_ms = now_ms.saturating_add(clock::millis(launch.start_in));
        let id = InstanceId::new(op.home.id, now_ms, sync::random());
        let mut changes = Changes::default();
        let mut entries = Vec::new();
        if let Some((scope, key)) = &launch.key {
            let record = KeyRecord { instance: id, epoch: op.status.epoch, ended: None, revision: 1 };
            changes.put(
                RowId::Key { scope: scope.clone().into(), key: key.clone().into() },
                Record::Key(record),
            );
        }
        let deadline = tenant.add_request(&mut changes, launch, digest, Answer::Started(id));
        let record = InstanceRecord {
            definition: launch.definition.clone(),
            version: launch.version,
            key: launch.key.clone(),
            epoch: op.status.epoch,
            ended: None,
            cancel_requested: false,
            open_steps: launch.steps.len() as u32,
            launched_ms: now_ms,
            start_ms,
            revision: 1,
        };
        changes.put(RowId::Instance { id }, Record::Instance(record));
        if !launch.input.is_empty() {
            let record = PayloadRecord { bytes: launch.input.clone() };
            changes.put(RowId::Input { id }, Record::Payload(record));
        }
        for step in &launch.steps {
            let state = match step.parents {
                0 => StepState::Ready { at_ms: start_ms },
                parents => StepState::Waiting { parents },
            };
            entries.extend(add_step(&mut changes, op.home.id, id, step, state));
        }
        Self { id, changes, entries, deadline }
    }
}

/// Adds a new step, and its row of the ready queue if it is ready.
pub(super) fn add_step(
    changes: &mut Changes,
    store: StoreId,
    instance: InstanceId,
    step: &NewStep,
    state: StepState,
) -> Option<Entry> {
    let record = StepRecord {
        state,
        queue: step.queue.clone(),
        input: step.input.clone(),
        saved: Vec::new(),
        result: Vec::new(),
        retry: step.retry.record(),
        attempts: 0,
        counted_from: 0,
        counted_ms: ready_ms(state),
        history: Vec::new(),
        revision: 1,
    };
    put_step(changes, store, instance, &step.name, None, record)
}

/// From when on a step that was not ready before may be tried: from then on its time counts.
pub(super) fn ready_ms(state: StepState) -> u64 {
    match state {
        StepState::Ready { at_ms } => at_ms,
        _ => 0,
    }
}

/// What a request id stands for. Each part is preceded by its length, so that no two requests look alike.
fn digest(launch: &Launch) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(launch.definition.as_bytes());
    part(&launch.version.to_le_bytes());
    let (scope, key) = launch.key.as_ref().map_or((&[][..], &[][..]), |(scope, key)| (scope.as_bytes(), key));
    part(scope);
    part(key);
    part(&launch.input);
    part(&launch.start_in.as_millis().to_le_bytes());
    part(&[launch.conflict as u8, launch.reuse as u8]);
    for step in &launch.steps {
        part(step.name.as_bytes());
        part(step.queue.as_bytes());
        part(&step.input);
        let RetryRecord { first_ms, most_ms, attempts, within_ms } = step.retry.record();
        part(&[step.parents.to_le_bytes(), attempts.to_le_bytes()].concat());
        part(&[first_ms.to_le_bytes(), most_ms.to_le_bytes(), within_ms.to_le_bytes()].concat());
    }
    hash.finalize().into()
}
