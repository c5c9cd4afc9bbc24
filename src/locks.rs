//! The striped locks, and the one order in which they are taken.
//!
//! Order: pin, key, request, instance, definition. Two of a kind are taken only through [`Stripes::lock_all`], which sorts. A
//! stripe is a hash of what it guards, so two keys may share one: that costs a wait, never correctness.
//! The order is checked at run time wherever debug assertions are on. Each tenant has locks of its own: a stripe that is held while a store
//! hangs must not hold up a tenant in another store.

use std::hash::{BuildHasher as _, Hash};

use crate::sync::{Mutex, MutexGuard, OnceLock, RandomState};

/// Enough that 64 threads on different keys seldom meet (a pair in 30 at 1,024 stripes meets once).
const STRIPES: usize = 1024;

/// All striped locks of a tenant.
pub(crate) struct Locks {
    /// By (tenant, scope, key).
    pub(crate) keys: Stripes,
    /// By (tenant, request id).
    pub(crate) requests: Stripes,
    /// By (tenant, instance).
    pub(crate) instances: Stripes,
    /// By (tenant, name, version).
    pub(crate) definitions: Stripes,
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            keys: Stripes::new(1),
            requests: Stripes::new(2),
            instances: Stripes::new(3),
            definitions: Stripes::new(4),
        }
    }
}

/// One kind of lock.
pub(crate) struct Stripes {
    rank: u8,
    hasher: RandomState,
    /// Made when the first one is locked: a tenant that does nothing costs nothing.
    stripes: OnceLock<Box<[Stripe]>>,
}

/// Eight to a cache line: alone on one each, they would cost every tenant half a megabyte.
#[derive(Default)]
#[repr(align(8))]
struct Stripe(Mutex<()>);

/// Locks that are held; let go of together.
pub(crate) struct Held<'l> {
    _guards: Vec<MutexGuard<'l, ()>>,
    _rank: order::Rank,
}

/// One lock that is held.
pub(crate) struct HeldOne<'l> {
    _guard: MutexGuard<'l, ()>,
    _rank: order::Rank,
}

impl Stripes {
    fn new(rank: u8) -> Self {
        Self { rank, hasher: RandomState::default(), stripes: OnceLock::new() }
    }

    fn stripes(&self) -> &[Stripe] {
        self.stripes.get_or_init(|| (0..STRIPES).map(|_| Stripe::default()).collect())
    }

    pub(crate) fn lock(&self, what: impl Hash) -> Option<HeldOne<'_>> {
        let rank = order::enter(self.rank);
        let guard = self.stripes().get(self.stripe(&what))?.0.lock();
        Some(HeldOne { _guard: guard, _rank: rank })
    }

    /// Locks all of them, in the order of their stripes, each stripe once.
    pub(crate) fn lock_all<T: Hash>(&self, what: impl IntoIterator<Item = T>) -> Held<'_> {
        let rank = order::enter(self.rank);
        let mut wanted: Vec<usize> = what.into_iter().map(|one| self.stripe(&one)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let stripes = self.stripes();
        let guards = wanted.into_iter().filter_map(|at| Some(stripes.get(at)?.0.lock())).collect();
        Held { _guards: guards, _rank: rank }
    }

    fn stripe(&self, what: &impl Hash) -> usize {
        self.hasher.hash_one(what) as usize % STRIPES
    }
}

/// The check of the order: each thread knows which ranks it holds.
mod order {
    use std::cell::Cell;
    use std::marker::PhantomData;

    use crate::sync::thread_local;

    thread_local! {
        static HELD: Cell<u8> = const { Cell::new(0) };
    }

    /// A rank that is held by this thread.
    pub(super) struct Rank {
        bit: u8,
        _not_send: PhantomData<*const ()>,
    }

    pub(super) fn enter(rank: u8) -> Rank {
        let bit = 1 << rank;
        if cfg!(debug_assertions) {
            HELD.with(|held| {
                debug_assert!(held.get() < bit, "lock of rank {rank} taken while holding {:#b}", held.get());
                held.set(held.get() | bit);
            });
        }
        Rank { bit, _not_send: PhantomData }
    }

    impl Drop for Rank {
        fn drop(&mut self) {
            if cfg!(debug_assertions) {
                HELD.with(|held| held.set(held.get() & !self.bit));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_a_kind_lock_each_stripe_once_and_in_one_order() {
        let locks = Locks::default();
        let held = locks.instances.lock_all((0..5_000).chain(0..5_000));
        assert!(held._guards.len() <= STRIPES, "{}", held._guards.len());
        drop(held);
        std::thread::scope(|scope| {
            for forward in [true, false] {
                let locks = &locks;
                scope.spawn(move || {
                    for round in 0..2_000_u32 {
                        let pair = if forward { [round, round + 1] } else { [round + 1, round] };
                        drop(locks.keys.lock_all(pair));
                    }
                });
            }
        });
    }

    #[test]
    #[should_panic(expected = "lock of rank 1 taken while holding")]
    #[cfg(debug_assertions)]
    fn the_wrong_order_is_a_bug_that_shows() {
        let locks = Locks::default();
        let _instance = locks.instances.lock(1);
        let _key = locks.keys.lock(1);
    }
}
