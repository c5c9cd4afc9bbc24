//! The core of the pins: slots that say who is at work for which tenant, and a scan that finds them all.
//!
//! Each thread owns a slot. To pin, it stores *odd generation, tenant* there, to unpin the next even generation.
//! A wait remembers each slot that was pinned for its tenant, with the generation, and is over when
//! every one of these has moved on. It does not matter whether the owner has pinned again since: that pin began
//! after the publication and sees it.
//!
//! The wait must find every pin whose holder may have read the old status. Holder H and waiter W:
//!
//! | H | W |
//! |---|---|
//! | store the slot | store (publish) the status |
//! | `fence(SeqCst)` | `fence(SeqCst)` |
//! | load the status | load the slot |
//!
//! Of two SeqCst fences one is first. If H's is, W's load sees the slot pinned and W waits. If W's is, H's load sees
//! the new status. Without either fence both loads may see the old values, on x86 too: a store
//! may be delayed past a later load.
//!
//! When a wait is over, everything its holders did before they unpinned has happened before what the waiter
//! does next: each unpin is a release store, each look at a slot an acquire load.
//!
//! Tenant and generation share one word, so no look can take the tenant of one pin for that of another. The
//! generation wraps after 2³² changes; a wait that looks away for exactly so many takes a later pin for the
//! one it waits for and looks once more than needed.

use std::marker::PhantomData;
use std::sync::Arc;

use super::sync::{AtomicU64, Mutex, Ordering, fence, lock};
use crate::sync::CachePadded;

/// The orderings that the model weakens one by one; see the module's header.
pub(super) trait Orders {
    const PIN_FENCE: bool;
    const WAIT_FENCE: bool;
    const UNPIN: Ordering;
    const LOOK: Ordering;
}

/// The orderings of production.
pub(super) struct Strong;

impl Orders for Strong {
    const PIN_FENCE: bool = true;
    const WAIT_FENCE: bool = true;
    const UNPIN: Ordering = Ordering::Release;
    const LOOK: Ordering = Ordering::Acquire;
}

/// What a slot says at one moment: the tenant in the high half, the generation in the low one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    fn pinned_for(self, tenant: u32) -> bool {
        !self.0.is_multiple_of(2) && self.0 >> 32 == u64::from(tenant)
    }

    /// One generation on. Odd becomes even and the other way round, also where the half word wraps.
    fn next(self, tenant: u32) -> Self {
        Self(u64::from(tenant) << 32 | u64::from((self.0 as u32).wrapping_add(1)))
    }
}

/// One thread's slot.
pub(super) struct Slot<O = Strong> {
    /// Written only by the owner.
    state: AtomicU64,
    /// What people want to know about the pin, in bits that only `pins.rs` understands. Written only by the owner.
    details: AtomicU64,
    /// The owner's name, written when the slot changes hands.
    owner: Mutex<Arc<str>>,
    orders: PhantomData<O>,
}

impl<O: Orders> Slot<O> {
    fn new(owner: Arc<str>) -> Self {
        Self {
            state: AtomicU64::new(0),
            details: AtomicU64::new(0),
            owner: Mutex::new(owner),
            orders: PhantomData,
        }
    }

    /// Pins. Only the owner calls this, and only while the slot is not pinned.
    pub(super) fn pin(&self, tenant: u32, details: u64) {
        // Relaxed: only the owner writes, and an owner before us gave the slot back through a mutex.
        let state = State(self.state.load(Ordering::Relaxed));
        debug_assert!(state.0.is_multiple_of(2), "a pinned slot was pinned again");
        // Release, pairs with the acquire load in `details`.
        self.details.store(details, Ordering::Release);
        // Release, pairs with the looks: whoever sees the pin sees its details.
        self.state.store(state.next(tenant).0, Ordering::Release);
        if O::PIN_FENCE {
            // Pairs with the fence in `Slots::pinned`; see the module's header.
            fence(Ordering::SeqCst);
        }
    }

    /// Unpins. Only the owner calls this, after it has pinned.
    pub(super) fn unpin(&self) {
        let state = State(self.state.load(Ordering::Relaxed));
        // Pairs with the looks: a waiter that sees it sees everything that was done under the pin.
        self.state.store(state.next((state.0 >> 32) as u32).0, O::UNPIN);
    }

    /// Whether the slot is still as it was seen.
    pub(super) fn is_still(&self, seen: State) -> bool {
        self.look() == seen
    }

    /// The details of the pin that was seen, and who holds it, unless it is gone.
    pub(super) fn details(&self, seen: State) -> Option<(u64, Arc<str>)> {
        // Acquire, pairs with the release store in `pin`: if these details are of a later pin, then the unpin
        // before it has happened before the look below, which therefore does not see the old state.
        let details = self.details.load(Ordering::Acquire);
        let owner = Arc::clone(&lock(&self.owner));
        self.is_still(seen).then_some((details, owner))
    }

    fn look(&self) -> State {
        // Pairs with the stores in `pin` (for the details) and in `unpin` (for what was done under the pin).
        State(self.state.load(O::LOOK))
    }
}

/// A slot alone on its cache line, so that nobody's pins slow down anybody else's.
pub(super) type Padded<O> = Arc<CachePadded<Slot<O>>>;

/// All slots of one engine: as many as there were ever threads at a time, plus one for each nested pin.
pub(super) struct Slots<O = Strong>(Mutex<Lists<O>>);

struct Lists<O> {
    all: Vec<Padded<O>>,
    free: Vec<Padded<O>>,
}

impl<O: Orders> Slots<O> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Lists { all: Vec::new(), free: Vec::new() }))
    }

    /// A slot that nobody owns. The mutex also covers the case that a wait misses the new slot: it locked before,
    /// so what it had published has happened before whatever the new owner reads.
    pub(super) fn take(&self, owner: Arc<str>) -> Padded<O> {
        let mut lists = lock(&self.0);
        if let Some(slot) = lists.free.pop() {
            *lock(&slot.owner) = owner;
            return slot;
        }
        let slot = Arc::new(CachePadded::new(Slot::new(owner)));
        lists.all.push(Arc::clone(&slot));
        slot
    }

    /// Takes a slot back, not pinned, from its owner.
    pub(super) fn give_back(&self, slot: Padded<O>) {
        lock(&self.0).free.push(slot);
    }

    /// Every pin of the tenant that may have been taken before what this thread published last, and perhaps some
    /// that were taken after it.
    pub(super) fn pinned(&self, tenant: u32) -> Vec<(Padded<O>, State)> {
        if O::WAIT_FENCE {
            // Pairs with the fence in `Slot::pin`; see the module's header.
            fence(Ordering::SeqCst);
        }
        let lists = lock(&self.0);
        let looked = lists.all.iter().map(|slot| (slot, slot.look()));
        looked
            .filter(|(_, state)| state.pinned_for(tenant))
            .map(|(slot, state)| (Arc::clone(slot), state))
            .collect()
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).all.len()
    }
}
