//! One sync for many commits.
//!
//! A sync costs as much for one commit as for a hundred, so callers share it. The way, with everything under one
//! mutex that is never held during the work itself:
//!
//! 1. A caller applies its batch and takes the next ticket. So whoever reads the newest ticket knows that all the
//!    batches up to it have been applied.
//! 2. If a sync that began after its ticket has ended, it is *covered* and returns.
//! 3. Otherwise, if nobody is syncing, it becomes the leader: notes the newest ticket, syncs, publishes the note as
//!    covered, wakes everybody. If somebody is, it waits and goes back to 2.
//!
//! A leader that sees others between their arrival and their ticket waits for them, no longer than the last sync
//! took: the next sync would have to come for them anyhow. A caller that is alone sees nobody and waits for nothing.
//!
//! Invariant: after an error nothing is ever acknowledged again. The error of a commit or sync poisons the group.
//! Those who have applied but are not covered get an error as well, because a failed `fsync` may have dropped their
//! pages and a second one would report success.

use std::time::Duration;

use super::{Stats, Write};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// What a sync has to make durable against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A kill of the process.
    Buffered,
    /// Power loss.
    Synced,
}

/// Shares syncs between concurrent commits and remembers the first failure.
///
/// For drivers whose library does not do it itself.
#[derive(Debug, Default)]
pub struct GroupSync {
    /// Durable commits that have begun. Only a hint for the leader: it is not read for correctness.
    arrived: AtomicU64,
    state: Mutex<State>,
    /// Signalled when a sync has ended, well or not.
    ended: Condvar,
    /// Signalled when all those that the leader waits for have taken their tickets.
    gathered: Condvar,
    poison: Poison,
}

#[derive(Debug, Default)]
struct State {
    /// The newest ticket. Behind `arrived` by those who are still applying.
    applied: u64,
    /// The ticket up to which commits survive a kill. Never behind `synced`.
    buffered: u64,
    /// The ticket up to which commits survive power loss.
    synced: u64,
    /// Whether there is a leader.
    busy: bool,
    /// The ticket that a leader waits to see before it begins; 0 if none does.
    gather: u64,
    /// How long the last sync took, per level; a leader waits no longer than this for others.
    took: [Duration; 2],
    syncs: u64,
}

impl State {
    fn covered(&self, level: Level) -> u64 {
        match level {
            Level::Buffered => self.buffered,
            Level::Synced => self.synced,
        }
    }

    fn took(&mut self, level: Level) -> &mut Duration {
        let [buffered, synced] = &mut self.took;
        match level {
            Level::Buffered => buffered,
            Level::Synced => synced,
        }
    }
}

impl GroupSync {
    /// A group in which nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `apply`, and then makes it as durable as `write` says: by `sync`, or by the sync of another caller.
    ///
    /// `sync` makes durable what was applied before it was called.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the group is poisoned, and then `apply` was not called. What `apply` or `sync`
    /// returned, or [`ErrorKind::Io`] if the failure was another caller's: the outcome is unknown then, and the
    /// group poisoned.
    pub fn commit(
        &self,
        write: Write,
        apply: impl FnOnce() -> Result<()>,
        sync: impl FnOnce(Level) -> Result<()>,
    ) -> Result<()> {
        self.poison.check()?;
        let level = match write {
            Write::Relaxed => return self.apply(apply),
            Write::Buffered => Level::Buffered,
            Write::Synced => Level::Synced,
        };
        self.arrived.fetch_add(1, Ordering::Relaxed);
        self.apply(apply)?;
        let mut state = self.state.lock();
        state.applied += 1;
        let ticket = state.applied;
        if state.gather == ticket {
            self.gathered.notify_one();
        }
        loop {
            if state.covered(level) >= ticket {
                return Ok(());
            }
            self.poison.check_applied()?;
            if !state.busy {
                return self.lead(state, level, sync);
            }
            self.ended.wait(&mut state);
        }
    }

    /// Durable commits that have returned or are waiting, and syncs that served them.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats { commits: state.applied, syncs: state.syncs }
    }

    /// The state of failure, for operations beside commits.
    #[must_use]
    pub fn poison(&self) -> &Poison {
        &self.poison
    }

    fn apply(&self, apply: impl FnOnce() -> Result<()>) -> Result<()> {
        // A panic in `apply` leaves the outcome as unknown as an error does.
        let guard = PoisonOnDrop(self);
        let result = apply();
        std::mem::forget(guard);
        if let Err(err) = &result {
            self.fail(err);
        }
        result
    }

    fn lead(
        &self,
        mut state: MutexGuard<'_, State>,
        level: Level,
        sync: impl FnOnce(Level) -> Result<()>,
    ) -> Result<()> {
        state.busy = true;
        let leader = Leader(self);
        self.wait_for_arrived(&mut state, level);
        let upto = state.applied;
        drop(state);
        // Those who failed to apply while we waited may have left the store such that a sync means nothing.
        self.poison.check_applied()?;
        let guard = PoisonOnDrop(self);
        let begun = Instant::now();
        let result = sync(level);
        let took = begun.elapsed();
        std::mem::forget(guard);
        match &result {
            Ok(()) => {
                let mut state = self.state.lock();
                state.syncs += 1;
                *state.took(level) = took;
                state.buffered = state.buffered.max(upto);
                if level == Level::Synced {
                    state.synced = state.synced.max(upto);
                }
            }
            Err(err) => self.poison.set(err),
        }
        drop(leader);
        result
    }

    fn wait_for_arrived(&self, state: &mut MutexGuard<'_, State>, level: Level) {
        let arrived = self.arrived.load(Ordering::Relaxed);
        if arrived <= state.applied {
            return;
        }
        let deadline = Instant::now() + *state.took(level);
        state.gather = arrived;
        while state.applied < arrived && !self.poison.is_set() {
            if self.gathered.wait_until(state, deadline).timed_out() {
                break;
            }
        }
        state.gather = 0;
    }

    fn fail(&self, err: &Error) {
        self.poison.set(err);
        self.wake_all();
    }

    fn wake_all(&self) {
        // Under the mutex, so that nobody is between having looked and having gone to sleep.
        let _state = self.state.lock();
        self.ended.notify_all();
        self.gathered.notify_all();
    }
}

/// Ends the leadership, also when the sync panics.
struct Leader<'g>(&'g GroupSync);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy = false;
        self.0.ended.notify_all();
    }
}

/// Poisons the group unless it is forgotten: a panic went through.
struct PoisonOnDrop<'g>(&'g GroupSync);

impl Drop for PoisonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fail(&Error::new(ErrorKind::Panicked, "the store panicked while writing"));
    }
}

/// Whether a store has failed: set once, never taken back.
#[derive(Debug, Default)]
pub struct Poison {
    /// Set after `why`, so that who sees it finds the reason.
    set: AtomicBool,
    why: Mutex<Option<String>>,
}

impl Poison {
    /// Notes a failure. The first one stays.
    pub fn set(&self, err: &Error) {
        self.why.lock().get_or_insert_with(|| err.to_string());
        // Pairs with the load in `is_set`.
        self.set.store(true, Ordering::Release);
    }

    /// Whether there has been a failure.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// For a write that has not begun.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] after a failure.
    pub fn check(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the store takes no writes until it is opened again, after: {}", self.why()),
        ))
    }

    /// For a write that was applied but is not durable.
    fn check_applied(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("whether the commit is durable is unknown, because another failed: {}", self.why()),
        ))
    }

    fn why(&self) -> String {
        self.why.lock().clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn broken() -> Error {
        Error::new(ErrorKind::Io, "no space")
    }

    #[test]
    fn a_single_caller_syncs_once_per_commit() {
        let group = GroupSync::new();
        for _ in 0..3 {
            group.commit(Write::Synced, || Ok(()), |_| Ok(())).unwrap();
        }
        group.commit(Write::Relaxed, || Ok(()), |_| Err(broken())).unwrap();
        assert_eq!(group.stats(), Stats { commits: 3, syncs: 3 });
    }

    #[test]
    fn who_applies_during_a_sync_is_not_covered_by_it() {
        let group = GroupSync::new();
        let (in_sync, second_applied) = (Barrier::new(2), Barrier::new(2));
        let syncs = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                group
                    .commit(
                        Write::Synced,
                        || Ok(()),
                        |_| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            in_sync.wait();
                            second_applied.wait();
                            Ok(())
                        },
                    )
                    .unwrap();
            });
            in_sync.wait();
            let apply = || {
                second_applied.wait();
                Ok(())
            };
            group
                .commit(Write::Synced, apply, |_| {
                    syncs.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
                .unwrap();
        });
        assert_eq!(syncs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn who_waits_during_a_sync_shares_the_next() {
        let group = GroupSync::new();
        let in_sync = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                group
                    .commit(
                        Write::Synced,
                        || Ok(()),
                        |_| {
                            in_sync.wait();
                            // Goes on when all eight have their tickets.
                            while group.stats().commits < 9 {
                                std::thread::yield_now();
                            }
                            Ok(())
                        },
                    )
                    .unwrap();
            });
            in_sync.wait();
            for _ in 0..8 {
                scope.spawn(|| group.commit(Write::Synced, || Ok(()), |_| Ok(())).unwrap());
            }
        });
        assert_eq!(group.stats(), Stats { commits: 9, syncs: 2 });
    }

    #[test]
    fn a_leader_takes_along_who_is_still_applying() {
        let group = GroupSync::new();
        // As after a slow sync, so that the leader is patient.
        *group.state.lock().took(Level::Synced) = Duration::from_secs(600);
        let arrived = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let apply = || {
                    arrived.wait();
                    while group.state.lock().gather == 0 {
                        std::thread::yield_now();
                    }
                    Ok(())
                };
                group.commit(Write::Synced, apply, |_| Ok(())).unwrap();
            });
            arrived.wait();
            group.commit(Write::Synced, || Ok(()), |_| Ok(())).unwrap();
        });
        assert_eq!(group.stats(), Stats { commits: 2, syncs: 1 });
    }

    #[test]
    fn a_leader_does_not_wait_longer_than_a_sync_takes() {
        let group = GroupSync::new();
        let (arrived, led) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let apply = || {
                    arrived.wait();
                    led.wait();
                    Ok(())
                };
                group.commit(Write::Synced, apply, |_| Ok(())).unwrap();
            });
            arrived.wait();
            group.commit(Write::Synced, || Ok(()), |_| Ok(())).unwrap();
            led.wait();
        });
        assert_eq!(group.stats(), Stats { commits: 2, syncs: 2 });
    }

    #[test]
    fn a_sync_covers_buffered_but_a_flush_does_not_cover_synced() {
        for (leader, follower, syncs) in
            [(Write::Synced, Write::Buffered, 2), (Write::Buffered, Write::Synced, 2)]
        {
            let group = GroupSync::new();
            group.commit(leader, || Ok(()), |_| Ok(())).unwrap();
            let mut level = None;
            group
                .commit(
                    follower,
                    || Ok(()),
                    |asked| {
                        level = Some(asked);
                        Ok(())
                    },
                )
                .unwrap();
            assert_eq!(level.is_some_and(|l| l == Level::Synced), follower == Write::Synced);
            assert_eq!(group.stats().syncs, syncs);
        }
        let mut state = State { applied: 2, buffered: 2, synced: 1, ..State::default() };
        assert_eq!((state.covered(Level::Buffered), state.covered(Level::Synced)), (2, 1));
        *state.took(Level::Synced) = Duration::from_secs(1);
        assert_eq!(state.took, [Duration::ZERO, Duration::from_secs(1)]);
    }

    #[test]
    fn a_failed_sync_fails_its_waiters_and_refuses_what_comes_later() {
        let group = GroupSync::new();
        let in_sync = Barrier::new(2);
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                group.commit(
                    Write::Synced,
                    || Ok(()),
                    |_| {
                        in_sync.wait();
                        while group.stats().commits < 5 {
                            std::thread::yield_now();
                        }
                        Err(broken())
                    },
                )
            });
            in_sync.wait();
            let waiters: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| group.commit(Write::Buffered, || Ok(()), |_| Ok(()))))
                .collect();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
            }
            assert_eq!(leader.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
        for write in [Write::Relaxed, Write::Buffered, Write::Synced] {
            let late = group.commit(write, || panic!("must not be applied"), |_| Ok(()));
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }

    #[test]
    fn a_failed_or_panicking_apply_poisons() {
        let group = GroupSync::new();
        assert_eq!(
            group.commit(Write::Relaxed, || Err(broken()), |_| Ok(())).unwrap_err().kind(),
            ErrorKind::Io
        );
        assert!(group.poison().is_set());

        let group = GroupSync::new();
        let panicking =
            std::panic::AssertUnwindSafe(|| group.commit(Write::Synced, || Ok(()), |_| panic!("on purpose")));
        assert!(std::panic::catch_unwind(panicking).is_err());
        let late = group.commit(Write::Synced, || Ok(()), |_| Ok(()));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
