//! Pins and waits as the engine uses them: a slot for each thread, found without a lock, with a name.
//!
//! The algorithm, and why no pin is missed, is in `slots.rs`. This file adds
//!
//! - **whose slot**: a thread keeps the slots that it has taken in a thread-local list, one for each engine and one
//!   more for each pin inside a pin. To pin is then to look there and to write the slot: no lock, no other
//!   thread's cache line. When the thread ends its slots go back to their engines for the next thread;
//! - **who and since when**: operation and time, as one word beside the pin's own;
//! - **the wait**: polled by a driver that has other things to do, or blocking with a deadline.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use cutover_formats::TenantId;

use super::slots::{Padded, Slots, State, Strong};
use super::sync::{spin_loop, yield_now};
use crate::sync::{Instant, ProcessMutex, thread, thread_local};

/// The pins of one engine, over all its tenants.
pub struct Pins {
    slots: Arc<Slots>,
    /// Times of pins count from here.
    started: Instant,
}

impl Default for Pins {
    fn default() -> Self {
        Self::new()
    }
}

impl Pins {
    /// No pins yet.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: Arc::new(Slots::new()), started: Instant::now() }
    }

    /// Pins the tenant's status for this thread until the guard is dropped: whoever publishes a new one and then waits
    /// waits for this. Take it before reading the status, and keep it until after the commit. `operation` is what
    /// people are told when it takes long: a few words, such as `"launch"`.
    ///
    /// A pin inside a pin is a pin of its own.
    #[must_use = "the pin is gone as soon as it is dropped"]
    pub fn pin(&self, tenant: TenantId, operation: &'static str) -> Pin<'_> {
        let claim = self.claim();
        claim.pinned.set(Some(tenant));
        claim.slot.pin(tenant.0, Details::now(self.started, operation).pack());
        Pin { claim, pins: PhantomData }
    }

    /// Begins to wait for every pin of the tenant that was taken before; those taken from now on see what this
    /// thread has published. Other tenants' pins do not count.
    ///
    /// # Panics
    /// If this thread holds a pin of the tenant itself: it would wait for ever, which is a bug of the caller.
    #[must_use = "to begin to wait is not to wait"]
    pub fn begin_wait(&self, tenant: TenantId) -> Wait {
        let on = self.slots.pinned(tenant.0);
        refuse_own(&on);
        Wait { on, started: self.started }
    }

    /// A slot of this thread that is not pinned.
    fn claim(&self) -> Rc<Claim> {
        let claim = || Rc::new(Claim::new(&self.slots));
        let found = MINE.try_with(|mine| {
            let mut mine = mine.borrow_mut();
            if let Some(free) = mine.iter().find(|claim| claim.is_free_of(&self.slots)) {
                return Rc::clone(free);
            }
            // The first pin of this thread here, or a nested one: rare, so there is time to forget engines that
            // are gone.
            mine.retain(|claim| claim.slots.strong_count() > 0);
            let new = claim();
            mine.push(Rc::clone(&new));
            new
        });
        // Only a thread that is ending has no list any more; its slot goes back right after this pin.
        found.unwrap_or_else(|_| claim())
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pins").finish_non_exhaustive()
    }
}

thread_local! {
    /// The slots of this thread, in all engines.
    static MINE: RefCell<Vec<Rc<Claim>>> = const { RefCell::new(Vec::new()) };
}

/// A slot that this thread has taken. It goes back when the thread's list and the last pin let go of it.
struct Claim {
    slots: Weak<Slots>,
    slot: Padded<Strong>,
    pinned: Cell<Option<TenantId>>,
}

impl Claim {
    fn new(slots: &Arc<Slots>) -> Self {
        let thread = thread::current();
        let name = thread.name().map_or_else(|| format!("{:?}", thread.id()).into(), Arc::from);
        Self { slots: Arc::downgrade(slots), slot: slots.take(name), pinned: Cell::new(None) }
    }

    fn is_free_of(&self, slots: &Arc<Slots>) -> bool {
        // While we hold the `Weak` its address is not given to another engine.
        self.pinned.get().is_none() && ptr::eq(self.slots.as_ptr(), Arc::as_ptr(slots))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.upgrade() {
            slots.give_back(Arc::clone(&self.slot));
        }
    }
}

/// The witness that whoever publishes a new status of the tenant waits for us. Dropping it unpins, also in a panic.
///
/// It stays in its thread: the slot is the thread's own.
#[must_use = "the pin is gone as soon as it is dropped"]
pub struct Pin<'p> {
    claim: Rc<Claim>,
    pins: PhantomData<&'p Pins>,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.claim.slot.unpin();
        self.claim.pinned.set(None);
    }
}

impl fmt::Debug for Pin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pin").field(&self.claim.pinned.get()).finish()
    }
}

/// Who holds a pin that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Name of the thread.
    pub thread: String,
    /// What it is doing.
    pub operation: &'static str,
    /// When it pinned, to the millisecond.
    pub since: Instant,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} ({}, for {:.1?})", self.thread, self.operation, self.since.elapsed())
    }
}

/// What a look at a wait finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Every pin is gone, and what was done under them has happened before now.
    Done,
    /// These are not gone. Empty if the last of them went during the look: look again.
    On(Vec<Holder>),
}

/// A wait for all pins that a tenant had at one moment. Dropping it is giving up.
#[must_use = "to begin to wait is not to wait"]
pub struct Wait {
    on: Vec<(Padded<Strong>, State)>,
    started: Instant,
}

/// How often a blocking wait looks in a row before it lets others run: a commit in memory takes about as long.
const SPINS: u32 = 100;
/// How often it then only gives up its time slice.
const YIELDS: u32 = 20;
/// How long it then sleeps: first this, twice as long each time,
const SHORTEST_NAP: Duration = Duration::from_micros(50);
/// and at most this: about a sync to disk, which is what holders wait for.
const LONGEST_NAP: Duration = Duration::from_millis(1);

impl Wait {
    /// Looks, and never blocks.
    pub fn poll(&mut self) -> Waiting {
        if self.is_over() { Waiting::Done } else { Waiting::On(self.holders()) }
    }

    /// Blocks until every pin is gone.
    ///
    /// # Errors
    /// If some are still held after `deadline`, says who holds them. Then the wait can go on.
    ///
    /// # Panics
    /// If one of them is this thread's own.
    pub fn wait(&mut self, deadline: Duration) -> Result<(), Vec<Holder>> {
        let begun = Instant::now();
        let mut looks = 0;
        let mut nap = SHORTEST_NAP;
        while !self.is_over() {
            looks += 1;
            if looks <= SPINS {
                spin_loop();
                continue;
            }
            refuse_own(&self.on);
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let holders = self.holders();
                return if holders.is_empty() { Ok(()) } else { Err(holders) };
            }
            if looks <= SPINS + YIELDS {
                yield_now();
            } else {
                thread::sleep(nap.min(left));
                nap = (nap * 2).min(LONGEST_NAP);
            }
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        self.on.retain(|(slot, state)| slot.is_still(*state));
        self.on.is_empty()
    }

    fn holders(&self) -> Vec<Holder> {
        let held = self.on.iter().filter_map(|(slot, state)| slot.details(*state));
        held.map(|(details, thread)| {
            let Details { operation, since_ms } = Details::unpack(details);
            Holder {
                thread: thread.to_string(),
                operation: name_of(operation),
                since: self.started + Duration::from_millis(since_ms),
            }
        })
        .collect()
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("on", &self.holders()).finish()
    }
}

/// A thread that waits for its own pin waits for ever.
fn refuse_own(on: &[(Padded<Strong>, State)]) {
    let own = |claim: &Rc<Claim>| {
        claim.pinned.get().filter(|_| on.iter().any(|(slot, _)| Arc::ptr_eq(slot, &claim.slot)))
    };
    // Nothing is found in a thread that is ending: then it has no list any more.
    let found = MINE.try_with(|mine| mine.borrow().iter().find_map(own)).ok().flatten();
    if let Some(tenant) = found {
        panic!("this thread waits for the pins of {tenant} while it holds one itself");
    }
}

/// What people want to know about a pin, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Details {
    /// Number of the operation's name.
    operation: u16,
    /// Milliseconds since the engine started: 48 bits, nine thousand years.
    since_ms: u64,
}

impl Details {
    fn now(started: Instant, operation: &'static str) -> Self {
        Self { operation: number_of(operation), since_ms: started.elapsed().as_millis() as u64 }
    }

    const fn pack(self) -> u64 {
        self.since_ms << 16 | self.operation as u64
    }

    const fn unpack(word: u64) -> Self {
        Self { operation: word as u16, since_ms: word >> 16 }
    }
}

/// Names of operations by number, for the process: safe code cannot keep a string in an atomic word.
static NAMES: ProcessMutex<Vec<&'static str>> = ProcessMutex::new(Vec::new());
/// The number of every name beyond the first 4,096. There are some twenty; this bounds a mistake.
const OTHER: u16 = 4096;

thread_local! {
    /// Numbers that this thread has used, so that it need not lock for them again.
    static NUMBERS: RefCell<Vec<(&'static str, u16)>> = const { RefCell::new(Vec::new()) };
}

fn number_of(name: &'static str) -> u16 {
    let known = NUMBERS.try_with(|numbers| {
        let mut numbers = numbers.borrow_mut();
        // By address: the same name at two addresses is merely looked up twice.
        if let Some((_, number)) = numbers.iter().find(|(known, _)| ptr::eq(*known, name)) {
            return *number;
        }
        let number = look_up(name);
        if number != OTHER {
            numbers.push((name, number));
        }
        number
    });
    known.unwrap_or_else(|_| look_up(name))
}

fn look_up(name: &'static str) -> u16 {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let at = names.iter().position(|known| *known == name).unwrap_or(names.len());
    if at >= usize::from(OTHER) {
        return OTHER;
    }
    if at == names.len() {
        names.push(name);
    }
    at as u16
}

fn name_of(number: u16) -> &'static str {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.get(usize::from(number)).copied().unwrap_or("another operation")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
