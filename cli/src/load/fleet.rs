//! The instances that the load has launched and that have not ended.
//!
//! A launcher that is going to repeat the key of one *holds* it first: from then on its last task is held back until the
//! answer is there. So what the answer must be is known before the call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cutover_formats::InstanceId;
use fastrand::Rng;
use parking_lot::{Condvar, Mutex};

use crate::entry::{Scope, Try};

/// Keys of ended instances that are remembered for being used again.
const REMEMBERED_KEYS: usize = 10_000;
/// Instances looked at before giving up on finding one to hold.
const LOOKS: usize = 16;

/// One launched instance.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its launch.
    pub what: Try,
    gate: Mutex<Gate>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    instance: Option<InstanceId>,
    holds: u32,
    closing: bool,
}

impl Member {
    /// Waits until nobody holds it and lets nobody hold it from then on: its last task may be completed.
    pub(crate) fn close(&self) {
        let mut gate = self.gate.lock();
        gate.closing = true;
        while gate.holds > 0 {
            self.free.wait(&mut gate);
        }
    }

    fn hold(&self) -> Option<InstanceId> {
        let mut gate = self.gate.lock();
        let instance = gate.instance.filter(|_| !gate.closing)?;
        gate.holds += 1;
        Some(instance)
    }

    fn is_closing(&self) -> bool {
        self.gate.lock().closing
    }
}

/// A hold on a live instance. It cannot end while this exists.
#[derive(Debug)]
pub(crate) struct Held {
    /// The member held.
    pub member: Arc<Member>,
    /// Its instance.
    pub instance: InstanceId,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut gate = self.member.gate.lock();
        gate.holds -= 1;
        if gate.holds == 0 {
            self.member.free.notify_all();
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: Mutex<HashMap<String, Arc<Member>>>,
    /// Those that may be held. Closed ones are taken out when they are met.
    pool: Mutex<Vec<Arc<Member>>>,
    ended: Mutex<Vec<(Scope, String)>>,
    open_tasks: AtomicU64,
}

impl Fleet {
    /// Adds an instance that is about to be launched: a worker may meet it before its launcher is told.
    pub(crate) fn add(&self, what: Try, tasks: u64) -> Arc<Member> {
        let member = Arc::new(Member { what, gate: Mutex::new(Gate::default()), free: Condvar::new() });
        self.open_tasks.fetch_add(tasks, Ordering::Relaxed);
        self.members.lock().insert(member.what.key.clone(), Arc::clone(&member));
        member
    }

    /// Its launch was answered: it may be held.
    pub(crate) fn started(&self, member: &Arc<Member>, instance: InstanceId) {
        let mut gate = member.gate.lock();
        gate.instance = Some(instance);
        if !gate.closing {
            drop(gate);
            self.pool.lock().push(Arc::clone(member));
        }
    }

    /// It ended, or was never launched.
    pub(crate) fn remove(&self, member: &Member) {
        let mut members = self.members.lock();
        if members.get(&member.what.key).is_some_and(|found| found.what.launch == member.what.launch) {
            members.remove(&member.what.key);
        }
    }

    /// A task of any of them is done, or will not be.
    pub(crate) fn done(&self, tasks: u64) {
        self.open_tasks.fetch_sub(tasks, Ordering::Relaxed);
    }

    /// Tasks that are not done.
    pub(crate) fn open_tasks(&self) -> u64 {
        self.open_tasks.load(Ordering::Relaxed)
    }

    /// The instance that has this key.
    pub(crate) fn of_key(&self, key: &[u8]) -> Option<Arc<Member>> {
        let key = std::str::from_utf8(key).ok()?;
        self.members.lock().get(key).cloned()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.lock().len()
    }

    /// The keys of a few, for a sentence.
    pub(crate) fn some(&self) -> Vec<String> {
        self.members.lock().keys().take(5).cloned().collect()
    }

    /// Holds one of them, if there is one.
    pub(crate) fn hold(&self, rng: &mut Rng) -> Option<Held> {
        let mut pool = self.pool.lock();
        for _ in 0..LOOKS {
            if pool.is_empty() {
                return None;
            }
            let place = rng.usize(..pool.len());
            let member = Arc::clone(pool.get(place)?);
            match member.hold() {
                Some(instance) => return Some(Held { member, instance }),
                None => drop(pool.swap_remove(place)),
            }
        }
        None
    }

    /// Remembers the key of an ended instance, to be used again.
    pub(crate) fn remember(&self, scope: Scope, key: String) {
        let mut ended = self.ended.lock();
        if ended.len() < REMEMBERED_KEYS {
            ended.push((scope, key));
        }
    }

    /// The key of an ended instance in this scope.
    pub(crate) fn ended_key(&self, scope: Scope, rng: &mut Rng) -> Option<String> {
        let mut ended = self.ended.lock();
        if ended.is_empty() {
            return None;
        }
        let place = rng.usize(..ended.len());
        let (of, key) = ended.swap_remove(place);
        // Keys of a scope that is not used any more are forgotten as they come up.
        (of == scope).then_some(key)
    }

    /// Forgets closed members in the pool, so that it does not grow with the run.
    pub(crate) fn tidy(&self) {
        self.pool.lock().retain(|member| !member.is_closing());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_formats::StoreId;
    use std::time::Duration;

    fn launch(number: u64) -> Try {
        Try {
            launch: number,
            scope: Scope::Swept,
            key: format!("k{number}"),
            workflow: 0,
            long: false,
            cutovers: 0,
            repeat: false,
            conflict: None,
        }
    }

    fn id(number: u64) -> InstanceId {
        InstanceId::new(StoreId(1), 1, number)
    }

    #[test]
    fn only_what_was_started_and_is_not_closing_is_held() {
        let (fleet, mut rng) = (Fleet::default(), Rng::with_seed(1));
        let member = fleet.add(launch(1), 5);
        assert!(fleet.hold(&mut rng).is_none(), "not answered yet");
        fleet.started(&member, id(1));
        assert_eq!(fleet.hold(&mut rng).map(|held| held.instance), Some(id(1)));
        member.close();
        assert!(fleet.hold(&mut rng).is_none(), "closing");
    }

    #[test]
    fn closing_waits_for_the_hold() {
        let (fleet, mut rng) = (Fleet::default(), Rng::with_seed(1));
        let member = fleet.add(launch(1), 5);
        fleet.started(&member, id(1));
        let held = fleet.hold(&mut rng).unwrap();
        let (told, closed) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            member.close();
            told.send(()).unwrap();
        });
        assert!(closed.recv_timeout(Duration::from_millis(50)).is_err(), "closed while held");
        drop(held);
        closed.recv_timeout(Duration::from_secs(10)).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_key_used_again_is_not_removed_with_its_first_instance() {
        let fleet = Fleet::default();
        let first = fleet.add(launch(1), 1);
        let second = fleet.add(Try { launch: 2, ..launch(1) }, 1);
        fleet.remove(&first);
        assert_eq!(fleet.of_key(b"k1").map(|found| found.what.launch), Some(2));
        fleet.remove(&second);
        assert_eq!(fleet.len(), 0);
    }

    #[test]
    fn a_key_is_used_again_in_its_scope_only() {
        let (fleet, mut rng) = (Fleet::default(), Rng::with_seed(1));
        fleet.remember(Scope::Swept, "a".to_owned());
        assert_eq!(fleet.ended_key(Scope::Kept, &mut rng), None);
        fleet.remember(Scope::Kept, "b".to_owned());
        assert_eq!(fleet.ended_key(Scope::Kept, &mut rng), Some("b".to_owned()));
        assert_eq!(fleet.ended_key(Scope::Kept, &mut rng), None);
    }
}
