//! Shuttle's primitives, with the interfaces of the real ones.
//!
//! Time does not pass by itself: it goes on by as much as somebody sleeps or waits in vain. So a schedule that is replayed sees the same
//! times, and a wait with a limit may end at its limit however soon the others would have come, as on a machine that is busy.

use std::cell::Cell;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::{Add, Deref, DerefMut, Sub};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use shuttle::hint::spin_loop;
use shuttle::rand::{Rng as _, thread_rng};
pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::sync::{Mutex as StdMutex, MutexGuard as StdMutexGuard};
use shuttle::thread::yield_now;
pub(crate) use shuttle::thread_local;

/// Which key meets which stripe is the same in every run, so that a schedule can be replayed.
pub(crate) type RandomState = BuildHasherDefault<DefaultHasher>;

/// A number that the schedule decides, and its replay again.
pub(crate) fn random() -> u64 {
    thread_rng().r#gen()
}

/// Threads, with a sleep that lets time pass.
pub(crate) mod thread {
    use std::time::Duration;

    pub(crate) use shuttle::thread::{Builder, JoinHandle, current, scope, yield_now};

    pub(crate) fn sleep(time: Duration) {
        super::pass(time);
        yield_now();
    }
}

/// The engine has no threads of its own under shuttle (`Builder::background(false)`): these channels are never used.
pub(crate) mod channel {
    pub(crate) use crossbeam::channel::{Receiver, Sender, bounded};
}

std::thread_local! {
    /// All threads of a schedule are one thread of the machine.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn pass(time: Duration) {
    NOW.set(NOW.get().saturating_add(time));
}

/// A moment of the time that sleepers make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// Now.
    pub fn now() -> Self {
        Self(NOW.get())
    }

    /// The time since then.
    pub fn elapsed(&self) -> Duration {
        NOW.get().saturating_sub(self.0)
    }

    /// The time from `earlier` to this moment.
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }
}

/// Shuttle's mutex with the interface of parking_lot's.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(StdMutex<T>);

/// Empty only inside a wait.
pub(crate) struct MutexGuard<'m, T> {
    mutex: &'m Mutex<T>,
    held: Option<StdMutexGuard<'m, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(StdMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.take()) }
    }

    pub(crate) fn try_lock_until(&self, until: Instant) -> Option<MutexGuard<'_, T>> {
        for _ in 0..=thread_rng().gen_range(0..LOOKS) {
            if let Ok(held) = self.0.try_lock() {
                return Some(MutexGuard { mutex: self, held: Some(held) });
            }
            yield_now();
        }
        pass(until.saturating_duration_since(Instant::now()));
        None
    }

    pub(crate) fn try_lock_for(&self, limit: Duration) -> Option<MutexGuard<'_, T>> {
        self.try_lock_until(Instant::now() + limit)
    }

    fn take(&self) -> StdMutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> MutexGuard<'_, T> {
    /// Lets go of the lock while `call` runs.
    pub(crate) fn unlocked<U>(guard: &mut Self, call: impl FnOnce() -> U) -> U {
        guard.held = None;
        let result = call();
        guard.held = Some(guard.mutex.take());
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_deref().unwrap_or_else(|| unreachable!("the guard is in a wait"))
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().unwrap_or_else(|| unreachable!("the guard is in a wait"))
    }
}

/// Shuttle's lock for many readers with the interface of parking_lot's.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most times that a wait with a limit lets others run before its time is over.
const LOOKS: u32 = 8;

/// Shuttle's condition with the interface of parking_lot's. Shuttle's own waits with a limit wait for ever, so those here let others run a
/// few times, as many as the schedule says, and are over then.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    condition: shuttle::sync::Condvar,
    /// Signals so far, for who waits with a limit. Each of them takes every signal that comes while it waits for its own. Not shuttle's:
    /// looking at it is no place where another thread could come in.
    signals: AtomicU64,
}

/// Whether a wait ended at its limit.
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let wait = |held| self.condition.wait(held).unwrap_or_else(PoisonError::into_inner);
        guard.held = guard.held.take().map(wait);
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Duration) -> WaitTimeoutResult {
        let seen = self.signals.load(Ordering::SeqCst);
        for _ in 0..=thread_rng().gen_range(0..LOOKS) {
            guard.held = None;
            yield_now();
            guard.held = Some(guard.mutex.take());
            if self.signals.load(Ordering::SeqCst) != seen {
                return WaitTimeoutResult(false);
            }
        }
        pass(limit);
        WaitTimeoutResult(true)
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) -> WaitTimeoutResult {
        self.wait_for(guard, until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn notify_one(&self) {
        self.signals.fetch_add(1, Ordering::SeqCst);
        self.condition.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.signals.fetch_add(1, Ordering::SeqCst);
        self.condition.notify_all();
    }
}
