//! Who may work: sessions of workers, and the leases under which they hold steps.
//!
//! A session is valid as long as its worker is heard of. It holds each step under a lease of its own; with the first of them that runs out
//! the whole session has run out: its worker may be anything by now, so everything that it held goes to others, and nothing that it
//! does is taken before it registers anew. A session that holds nothing runs out in the same way.
//!
//! All of it is in memory only. After a restart every lease is void and tokens go on rising, so a claim, a heartbeat and the end of a lease need no
//! write; only a result does. How often a step's leases have run out is counted from then on. Time is monotonic, passed in, and counted from when something reaches the engine.
//!
//! While a flip keeps everybody waiting nobody can be heard of, so for leases that time does not pass: they end later by as much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use cutover_formats::InstanceId;
use cutover_formats::record::Token;

use super::queue::Entry;
#[cfg(feature = "proxy")]
use crate::service::proxy::Shut;
use crate::sync::{Mutex, MutexGuard};
pub(crate) use unheard::Lost;
use unheard::Unheard;

/// A registration of a worker. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(u64);

/// A lease that is held.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) token: Token,
    pub(crate) session: SessionId,
    pub(crate) worker: String,
    pub(crate) length: Duration,
    /// Valid before this moment, not at it. Counts from when it is given.
    pub(crate) expires: Duration,
    /// When it was given, in milliseconds since 1970.
    pub(crate) from_ms: u64,
    pub(crate) cancel_requested: bool,
    /// Scope and key of the instance, if it has one: it never changes.
    pub(crate) key: Option<(String, Vec<u8>)>,
    /// How often a lease on the step had run out before.
    pub(crate) lost: u32,
    /// To put the step back into its queue when the lease is over.
    pub(crate) entry: Entry,
}

/// What a worker asks for when it registers.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) worker: String,
    /// Most steps at a time.
    pub(crate) limit: usize,
    /// Whether it acts on a status that it was told, so that a phase has to wait until it was told the new one.
    pub(crate) keeps_status: bool,
    /// How long it is valid while it holds nothing.
    pub(crate) length: Duration,
    /// Number of the runner that it works for; 0 for none.
    pub(crate) runner: u32,
}

/// Why a worker is refused. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The session's lease has run out. It can do nothing until it registers anew.
    LeaseExpired,
    /// It does not hold the step, or not with this token.
    NotHeld,
    /// A heartbeat of this number, or of a later one, was here before.
    OldSequence {
        /// The latest one that was.
        seen: u64,
    },
    /// It holds as many steps as it may.
    AtLimit,
    /// The step is settled already.
    Settled,
    /// The instance has ended.
    Ended,
    /// The instance went to another store, and the lease was revoked: the step is ready again there.
    Moved,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseExpired => {
                f.write_str("the lease of the worker has run out, so it has to register anew")
            }
            Self::NotHeld => f.write_str("the worker does not hold the step, or not with this token"),
            Self::OldSequence { seen } => write!(f, "the heartbeat comes after its successor, number {seen}"),
            Self::AtLimit => f.write_str("the worker holds as many steps as it may"),
            Self::Settled => f.write_str("the step is settled already"),
            Self::Ended => f.write_str("the instance has ended"),
            Self::Moved => {
                f.write_str("the instance went to another store, and the lease on its step was revoked")
            }
        }
    }
}

/// What a heartbeat says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The step that the worker works on, and its token; `None` if it has none.
    pub(crate) step: Option<(InstanceId, String, Token)>,
    /// Rises with each heartbeat of a session.
    pub(crate) sequence: u64,
    /// The newest epoch of the tenant that the worker knows of.
    pub(crate) epoch: u64,
}

impl Heartbeat {
    /// The same from a worker that has seen the status up to this epoch only.
    #[must_use]
    pub fn seen(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }
}

type StepKey = (InstanceId, String);

/// Most revoked leases of a session that are remembered: those that were revoked last.
const REVOKED: usize = 1024;

struct Session {
    terms: Terms,
    /// When it runs out, if it has not: the first end of a lease that it holds, or its own if it holds none.
    expires: Option<Duration>,
    /// The same while it holds nothing.
    idle_until: Duration,
    holds: BTreeSet<StepKey>,
    /// Of leases that were revoked, so that its worker is told why.
    revoked: BTreeSet<Token>,
    sequence: u64,
    epoch: u64,
}

#[derive(Default)]
struct Table {
    sessions: BTreeMap<SessionId, Session>,
    last: u64,
    held: HashMap<StepKey, Lease>,
    by_expiry: BTreeSet<(Duration, SessionId)>,
    /// What sessions that have run out had held, until somebody puts it back.
    released: Vec<Entry>,
    /// Since when everybody is kept waiting, if they are.
    stopped: Option<Duration>,
    /// How often leases of steps have run out.
    unheard: Unheard,
    /// The ports of steps that are held.
    #[cfg(feature = "proxy")]
    ports: HashMap<StepKey, Shut>,
}

/// All sessions of a tenant.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Table>);

impl Sessions {
    /// The table at a moment, and the time that leases go by then: whoever has run out by it has.
    fn at(&self, now: Duration) -> (MutexGuard<'_, Table>, Duration) {
        let mut table = self.0.lock();
        let now = table.stopped.map_or(now, |since| now.min(since));
        while let Some((at, id)) = table.by_expiry.first().copied()
            && at <= now
        {
            table.run_out(id);
        }
        (table, now)
    }

    /// Everybody is kept waiting from now on: no lease runs out before [`go_on`](Self::go_on).
    pub(crate) fn stop(&self, now: Duration) {
        let (mut table, now) = self.at(now);
        table.stopped.get_or_insert(now);
    }

    /// Nobody is kept waiting any more. Whoever is still there has as much time left as there was before.
    pub(crate) fn go_on(&self, now: Duration) {
        let mut guard = self.0.lock();
        let table = &mut *guard;
        let Some(since) = table.stopped.take() else { return };
        let waited = now.saturating_sub(since);
        for lease in table.held.values_mut() {
            lease.expires = lease.expires.saturating_add(waited);
        }
        for session in table.sessions.values_mut() {
            session.idle_until = session.idle_until.saturating_add(waited);
        }
        let ids: Vec<SessionId> = table.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| table.reschedule(id));
    }

    /// A worker registers. It knows the status of this epoch.
    pub(crate) fn open(&self, terms: Terms, epoch: u64, now: Duration) -> SessionId {
        let (mut table, now) = self.at(now);
        table.last += 1;
        let id = SessionId(table.last);
        let idle_until = now.saturating_add(terms.length);
        let (holds, revoked) = (BTreeSet::new(), BTreeSet::new());
        let session = Session { terms, expires: None, idle_until, holds, revoked, sequence: 0, epoch };
        table.sessions.insert(id, session);
        table.schedule(id, Some(idle_until));
        id
    }

    /// A worker is gone. What it held is released.
    pub(crate) fn close(&self, id: SessionId, now: Duration) {
        let (mut table, _) = self.at(now);
        table.release(id);
        table.sessions.remove(&id);
    }

    /// All workers of a runner are gone. What they held is released; says how many steps that is.
    pub(crate) fn close_of(&self, runner: u32) -> usize {
        let mut table = self.0.lock();
        let of_runner = table.sessions.iter().filter(|(_, session)| session.terms.runner == runner);
        let ids: Vec<SessionId> = of_runner.map(|(id, _)| *id).collect();
        let before = table.released.len();
        for id in ids {
            table.release(id);
            table.sessions.remove(&id);
        }
        table.released.len() - before
    }

    /// Whether a worker may take one more step. It is heard of by that.
    pub(crate) fn may_claim(&self, id: SessionId, now: Duration) -> Result<(), Refusal> {
        let (mut table, now) = self.at(now);
        table.with_room(id)?;
        table.heard_of(id, now);
        Ok(())
    }

    /// Gives a lease, if its worker may still have it: it may be claiming several at a time. The step is in no queue and held by nobody.
    pub(crate) fn give(&self, lease: Lease, now: Duration) -> Result<(), Refusal> {
        let (mut table, now) = self.at(now);
        let id = lease.session;
        let key = (lease.entry.instance, lease.entry.step.clone());
        table.with_room(id)?.holds.insert(key.clone());
        let expires = now.saturating_add(lease.length);
        table.held.insert(key, Lease { expires, ..lease });
        table.heard_of(id, now);
        Ok(())
    }

    /// The lease of a worker on a step, if it has it with this token and nothing of it has run out.
    pub(crate) fn current(
        &self,
        id: SessionId,
        step: (InstanceId, &str, Token),
        now: Duration,
    ) -> Result<Lease, Refusal> {
        let (mut table, _) = self.at(now);
        table.valid(id)?;
        table.lease(id, step).map(|lease| lease.clone())
    }

    /// The same, and when that lease runs out unless something is renewed: with the first lease of its session.
    pub(crate) fn until(
        &self,
        id: SessionId,
        step: (InstanceId, &str, Token),
        now: Duration,
    ) -> Result<Duration, Refusal> {
        let (mut table, at) = self.at(now);
        let expires = table.valid(id)?.expires;
        table.lease(id, step)?;
        expires.map(|expires| later(expires, at, now)).ok_or(Refusal::LeaseExpired)
    }

    /// Ties a port to a lease: it is closed when the lease is over. Says whether it could be: a step has one port at a time.
    #[cfg(feature = "proxy")]
    pub(crate) fn attach(
        &self,
        id: SessionId,
        step: (InstanceId, &str, Token),
        port: Shut,
        now: Duration,
    ) -> Result<bool, Refusal> {
        let (mut table, _) = self.at(now);
        table.valid(id)?;
        table.lease(id, step)?;
        let key = (step.0, step.1.to_owned());
        if table.ports.get(&key).is_some_and(|port| !port.is_over()) {
            return Ok(false);
        }
        table.ports.insert(key, port);
        Ok(true)
    }

    /// Takes a heartbeat: renews what it names. Says whether the instance was asked to stop.
    pub(crate) fn beat(&self, id: SessionId, beat: &Heartbeat, now: Duration) -> Result<bool, Refusal> {
        let (mut guard, now) = self.at(now);
        let table = &mut *guard;
        let session = table.valid(id)?;
        if beat.sequence <= session.sequence {
            return Err(Refusal::OldSequence { seen: session.sequence });
        }
        let mut asked = false;
        match &beat.step {
            Some((instance, step, token)) => {
                let lease = table.lease(id, (*instance, step, *token))?;
                lease.expires = now.saturating_add(lease.length);
                asked = lease.cancel_requested;
            }
            // Who works on a step has to say so.
            None if !session.holds.is_empty() => return Err(Refusal::NotHeld),
            None => {}
        }
        if let Some(session) = table.sessions.get_mut(&id) {
            session.sequence = beat.sequence;
            session.epoch = session.epoch.max(beat.epoch);
        }
        table.heard_of(id, now);
        Ok(asked)
    }

    /// The step is settled: its lease is over. Its worker is heard of if it was the one who settled it.
    pub(crate) fn end(&self, instance: InstanceId, step: &str, now: Duration) {
        let (mut table, now) = self.at(now);
        if let Some(lease) = table.remove(&(instance, step.to_owned())) {
            table.heard_of(lease.session, now);
        }
    }

    /// Whether anybody holds the step.
    pub(crate) fn is_held(&self, instance: InstanceId, step: &str, now: Duration) -> bool {
        self.at(now).0.held.contains_key(&(instance, step.to_owned()))
    }

    /// How often leases of the step have run out, if they have, and which one did last.
    pub(crate) fn lost(&self, instance: InstanceId, step: &str, now: Duration) -> Option<Lost> {
        self.at(now).0.unheard.of(&(instance, step.to_owned())).cloned()
    }

    /// That leases of the step have run out does not count any more.
    pub(crate) fn forget_lost(&self, instance: InstanceId, step: &str) {
        self.0.lock().unheard.forget(&(instance, step.to_owned()));
    }

    /// How many of an instance's steps somebody holds.
    pub(crate) fn holders(&self, instance: InstanceId, now: Duration) -> usize {
        self.at(now).0.held.keys().filter(|(held, _)| *held == instance).count()
    }

    /// Tells the workers of an instance to stop, at their next heartbeat. Says how many there are.
    pub(crate) fn ask_to_stop(&self, instance: InstanceId, now: Duration) -> usize {
        let (mut table, _) = self.at(now);
        let asked = table.held.iter_mut().filter(|((held, _), _)| *held == instance);
        asked.map(|(_, lease)| lease.cancel_requested = true).count()
    }

    /// Takes what was held by sessions that have run out by `now` or were closed, and says when the next one will.
    pub(crate) fn take_released(&self, now: Duration) -> (Vec<Entry>, Option<Duration>) {
        let (mut table, at) = self.at(now);
        let next = table.by_expiry.first().map(|(ends, _)| later(*ends, at, now));
        (std::mem::take(&mut table.released), next)
    }

    /// Drops all leases of an instance that has ended.
    pub(crate) fn end_instance(&self, instance: InstanceId) {
        let mut table = self.0.lock();
        let keys: Vec<StepKey> = table.held.keys().filter(|(held, _)| *held == instance).cloned().collect();
        for key in keys {
            table.remove(&key);
        }
        table.unheard.forget_instance(instance);
    }

    /// Revokes all leases of an instance that goes to another store, and returns them. Their workers are told at their next heartbeat or
    /// report; what else they hold stays theirs.
    pub(crate) fn revoke(&self, instance: InstanceId, now: Duration) -> Vec<Lease> {
        let (mut table, _) = self.at(now);
        let keys: Vec<StepKey> = table.held.keys().filter(|(held, _)| *held == instance).cloned().collect();
        let mut leases = Vec::new();
        for key in keys {
            let Some(lease) = table.remove(&key) else { continue };
            if let Some(session) = table.sessions.get_mut(&lease.session) {
                session.revoked.insert(lease.token);
                if session.revoked.len() > REVOKED {
                    session.revoked.pop_first();
                }
            }
            leases.push(lease);
        }
        leases
    }

    /// The workers that act on a status which they were told and have not seen this epoch. One whose lease has run out can do nothing with
    /// what it knows, and is not waited for.
    pub(crate) fn behind(&self, epoch: u64, now: Duration) -> Vec<String> {
        let (table, _) = self.at(now);
        let valid = table.sessions.values().filter(|session| session.expires.is_some());
        valid
            .filter(|session| session.terms.keeps_status && session.epoch < epoch)
            .map(|session| session.terms.worker.clone())
            .collect()
    }
}

/// The end of a lease as clocks show it, if leases are at `at` when it is `now`.
fn later(ends: Duration, at: Duration, now: Duration) -> Duration {
    ends.saturating_add(now.saturating_sub(at))
}

impl Table {
    /// The session, if it has not run out.
    fn valid(&mut self, id: SessionId) -> Result<&mut Session, Refusal> {
        let session = self.sessions.get_mut(&id).filter(|session| session.expires.is_some());
        session.ok_or(Refusal::LeaseExpired)
    }

    /// The same, if it may hold one more step.
    fn with_room(&mut self, id: SessionId) -> Result<&mut Session, Refusal> {
        let session = self.valid(id)?;
        if session.holds.len() >= session.terms.limit {
            return Err(Refusal::AtLimit);
        }
        Ok(session)
    }

    fn lease(
        &mut self,
        id: SessionId,
        (instance, step, token): (InstanceId, &str, Token),
    ) -> Result<&mut Lease, Refusal> {
        let revoked = self.sessions.get(&id).is_some_and(|session| session.revoked.contains(&token));
        let why = if revoked { Refusal::Moved } else { Refusal::NotHeld };
        let lease = self.held.get_mut(&(instance, step.to_owned()));
        lease.filter(|lease| lease.session == id && lease.token == token).ok_or(why)
    }

    /// Nothing is heard of its worker any more: with the first of its leases all of them have run out.
    fn run_out(&mut self, id: SessionId) {
        for lease in self.release(id) {
            self.unheard.note(lease);
        }
    }

    /// It cannot do anything any more, and what it held is released. Returns the leases that it had.
    fn release(&mut self, id: SessionId) -> Vec<Lease> {
        self.schedule(id, None);
        let holds = self.sessions.get_mut(&id).map(|session| std::mem::take(&mut session.holds));
        let leases: Vec<Lease> = holds.iter().flatten().filter_map(|key| self.end_lease(key)).collect();
        self.released.extend(leases.iter().map(|lease| lease.entry.clone()));
        leases
    }

    /// From here on nobody acts under it.
    fn end_lease(&mut self, key: &StepKey) -> Option<Lease> {
        #[cfg(feature = "proxy")]
        if let Some(port) = self.ports.remove(key) {
            port.close();
        }
        self.held.remove(key)
    }

    /// The worker did something that only a live one does. What it holds is renewed by heartbeats only.
    fn heard_of(&mut self, id: SessionId, now: Duration) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.idle_until = now.saturating_add(session.terms.length);
            self.reschedule(id);
        }
    }

    fn remove(&mut self, key: &StepKey) -> Option<Lease> {
        let lease = self.end_lease(key)?;
        if let Some(session) = self.sessions.get_mut(&lease.session) {
            session.holds.remove(key);
            session.idle_until = session.idle_until.max(lease.expires);
            self.reschedule(lease.session);
        }
        Some(lease)
    }

    /// One that has run out stays so.
    fn reschedule(&mut self, id: SessionId) {
        let valid = self.sessions.get(&id).filter(|session| session.expires.is_some());
        let Some(session) = valid else { return };
        let ends = session.holds.iter().filter_map(|key| self.held.get(key)).map(|lease| lease.expires);
        let expires = ends.min().unwrap_or(session.idle_until);
        self.schedule(id, Some(expires));
    }

    fn schedule(&mut self, id: SessionId, expires: Option<Duration>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let before = std::mem::replace(&mut session.expires, expires);
        if let Some(at) = before {
            self.by_expiry.remove(&(at, id));
        }
        if let Some(at) = expires {
            self.by_expiry.insert((at, id));
        }
    }
}

mod unheard;

#[cfg(test)]
mod tests;
