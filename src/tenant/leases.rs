//! Leases: who holds a step, until when.
//!
//! They are in memory only. After a restart all are void and tokens go on rising, so a claim and a heartbeat need no write;
//! only a result does.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use cutover_formats::InstanceId;
use cutover_formats::record::Token;

use super::queue::Entry;
use crate::sync::Mutex;

/// A lease that is held.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) token: Token,
    pub(crate) worker: String,
    pub(crate) length: Duration,
    /// Valid before this moment, not at it.
    pub(crate) expires: Duration,
    /// When it was given, in milliseconds since 1970.
    pub(crate) from_ms: u64,
    pub(crate) cancel_requested: bool,
    /// To put the step back into its queue when the lease runs out.
    pub(crate) entry: Entry,
}

type StepKey = (InstanceId, String);

#[derive(Default)]
struct Table {
    held: HashMap<StepKey, Lease>,
    by_expiry: BTreeSet<(Duration, StepKey)>,
}

/// All leases of a tenant.
#[derive(Default)]
pub(crate) struct Leases(Mutex<Table>);

impl Leases {
    /// Gives a lease. The step is in no queue and held by nobody.
    pub(crate) fn give(&self, lease: Lease) {
        let mut table = self.0.lock();
        let key = (lease.entry.instance, lease.entry.step.clone());
        table.by_expiry.insert((lease.expires, key.clone()));
        table.held.insert(key, lease);
    }

    /// The lease on a step if this token is the current one and it has not run out.
    pub(crate) fn current(
        &self,
        instance: InstanceId,
        step: &str,
        token: Token,
        now: Duration,
    ) -> Option<Lease> {
        let table = self.0.lock();
        let lease = table.held.get(&(instance, step.to_owned()))?;
        (lease.token == token && now < lease.expires).then(|| lease.clone())
    }

    /// Renews a lease that is current. Says whether its instance was asked to stop; `None` if it is not current.
    pub(crate) fn renew(
        &self,
        instance: InstanceId,
        step: &str,
        token: Token,
        now: Duration,
    ) -> Option<bool> {
        let mut guard = self.0.lock();
        let table = &mut *guard;
        let key = (instance, step.to_owned());
        let lease = table.held.get_mut(&key).filter(|lease| lease.token == token && now < lease.expires)?;
        table.by_expiry.remove(&(lease.expires, key.clone()));
        lease.expires = now.saturating_add(lease.length);
        table.by_expiry.insert((lease.expires, key));
        Some(lease.cancel_requested)
    }

    /// The step is settled: its lease is over.
    pub(crate) fn end(&self, instance: InstanceId, step: &str) {
        let mut table = self.0.lock();
        table.remove(&(instance, step.to_owned()));
    }

    /// Whether anybody holds the step.
    pub(crate) fn is_held(&self, instance: InstanceId, step: &str) -> bool {
        self.0.lock().held.contains_key(&(instance, step.to_owned()))
    }

    /// How many of an instance's steps somebody holds.
    pub(crate) fn holders(&self, instance: InstanceId) -> usize {
        self.0.lock().held.keys().filter(|(held, _)| *held == instance).count()
    }

    /// Tells the workers of an instance to stop, at their next heartbeat. Says how many there are.
    pub(crate) fn ask_to_stop(&self, instance: InstanceId) -> usize {
        let mut table = self.0.lock();
        let asked = table.held.iter_mut().filter(|((held, _), _)| *held == instance);
        asked.map(|(_, lease)| lease.cancel_requested = true).count()
    }

    /// Takes out the leases that have run out by `now`, and says when the next one will.
    pub(crate) fn take_expired(&self, now: Duration) -> (Vec<Entry>, Option<Duration>) {
        let mut guard = self.0.lock();
        let mut expired = Vec::new();
        loop {
            let Some((at, key)) = guard.by_expiry.first().cloned() else { return (expired, None) };
            if now < at {
                return (expired, Some(at));
            }
            expired.extend(guard.remove(&key).map(|lease| lease.entry));
        }
    }

    /// Drops all leases of an instance that has ended.
    pub(crate) fn end_instance(&self, instance: InstanceId) {
        let mut table = self.0.lock();
        let keys: Vec<StepKey> = table.held.keys().filter(|(held, _)| *held == instance).cloned().collect();
        for key in keys {
            table.remove(&key);
        }
    }
}

impl Table {
    fn remove(&mut self, key: &StepKey) -> Option<Lease> {
        let lease = self.held.remove(key)?;
        self.by_expiry.remove(&(lease.expires, key.clone()));
        Some(lease)
    }
}
