//! Who is let in: requests of clients always, those of a runner while it is the tenant's primary, and nobody while a flip is on.
//!
//! One word says it all: which runner acts, whether a flip is on, whether the tenant was deleted. An operation pins, then looks at the word,
//! once. So the pins are the barrier of a flip: it changes the word and waits for every pin that was taken before, as a close does.
//! Either the operation sees the new word or the wait sees its pin (`status/slots.rs` says why).
//!
//! While a flip is on requests wait: up to so many, for up to so long. They hold no pin meanwhile. The engine's own work (collecting, copying,
//! mending) acts for no runner and never waits here; it is waited for like everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use cutover_formats::access::{Access, AccessRecord, Seat};

use super::{Inner, Tenant};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Thread;
use crate::status::Pin;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Instant, Mutex};

const DELETED: u64 = 1;
const FLIPPING: u64 = 2;
/// Where the number of the runner that acts begins.
const RUNNER: u32 = 32;

/// A runner in this process.
#[derive(Debug)]
pub(crate) struct RunnerId {
    /// Its number in this process, from 1 on.
    pub(crate) number: u32,
    /// Its identity, also after a restart.
    pub(crate) name: String,
}

/// For whom an operation is made: a client, or a runner.
#[derive(Clone, Default)]
pub(crate) struct Caller(Option<Arc<RunnerId>>);

impl Caller {
    pub(crate) fn runner(runner: Arc<RunnerId>) -> Self {
        Self(Some(runner))
    }

    /// The runner's number; 0 for a client.
    pub(crate) fn number(&self) -> u32 {
        self.0.as_ref().map_or(0, |runner| runner.number)
    }

    /// The runner; none for a client.
    pub(crate) fn as_runner(&self) -> Option<&RunnerId> {
        self.0.as_deref()
    }
}

/// Who is let in at the moment.
#[derive(Default)]
pub(crate) struct Seats {
    /// Number of the runner that acts, and flags. Written under the lock below.
    word: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    deleted: bool,
    flipping: bool,
    /// As in the durable record, never ahead of it.
    seats: Vec<Seat>,
    /// The runners that are attached in this process: number, and how often.
    present: BTreeMap<String, (u32, usize)>,
    waiting: usize,
    /// Requests that waited, and that were refused, since the flip began.
    queued: u64,
    refused: u64,
    /// A runner whose request is to bring the tenant to it, where that was switched on.
    wanted: Option<String>,
}

/// What became of the requests that came during a flip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) queued: u64,
    pub(crate) refused: u64,
}

impl State {
    fn acts(&self) -> u32 {
        let primary = self.seats.iter().find(|seat| seat.access == Access::Primary);
        primary.and_then(|seat| self.present.get(&seat.runner)).map_or(0, |(number, _)| *number)
    }
}

impl Seats {
    pub(crate) fn of_record(record: Option<&AccessRecord>) -> Self {
        let seats = Self::default();
        seats.show(record);
        seats
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let made = change(&mut state);
        let flags = if state.deleted { DELETED } else { 0 } | if state.flipping { FLIPPING } else { 0 };
        // Release: whoever is let in by it sees what was done before. That no pin is missed is the fences' work.
        self.word.store(u64::from(state.acts()) << RUNNER | flags, Ordering::Release);
        drop(state);
        self.changed.notify_all();
        made
    }

    /// Takes what the durable record says.
    pub(crate) fn show(&self, record: Option<&AccessRecord>) {
        self.change(|state| state.seats = record.map(|record| record.seats.clone()).unwrap_or_default());
    }

    pub(crate) fn mark_deleted(&self) {
        self.change(|state| state.deleted = true);
    }

    #[cfg(feature = "proxy")]
    pub(crate) fn is_deleted(&self) -> bool {
        self.word.load(Ordering::Acquire) & DELETED != 0
    }

    /// A flip begins: requests wait from now on.
    pub(crate) fn hold(&self) {
        self.change(|state| (state.flipping, state.queued, state.refused) = (true, 0, 0));
    }

    /// It is over, and the durable record says how.
    pub(crate) fn let_go(&self, record: Option<&AccessRecord>) -> Queued {
        self.change(|state| {
            state.seats = record.map(|record| record.seats.clone()).unwrap_or_default();
            (state.flipping, state.wanted) = (false, None);
            Queued { queued: state.queued, refused: state.refused }
        })
    }

    /// A runner is there. Whether it may act is for the record to say.
    pub(crate) fn attach(&self, runner: &RunnerId) {
        self.change(|state| {
            state.present.entry(runner.name.clone()).or_insert((runner.number, 0)).1 += 1;
        });
    }

    /// It is gone. Says whether that was the last of its attachments.
    pub(crate) fn detach(&self, runner: &RunnerId) -> bool {
        self.change(|state| {
            let Some((_, count)) = state.present.get_mut(&runner.name) else { return false };
            *count = count.saturating_sub(1);
            let gone = *count == 0;
            if gone {
                state.present.remove(&runner.name);
            }
            gone
        })
    }

    /// The number of a runner that is attached.
    pub(crate) fn number_of(&self, runner: &str) -> Option<u32> {
        self.state.lock().present.get(runner).map(|(number, _)| *number)
    }

    /// Whether this runner acts now.
    pub(crate) fn acts(&self, runner: &RunnerId) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & (DELETED | FLIPPING) == 0 && word >> RUNNER == u64::from(runner.number)
    }

    /// Sleeps until this runner acts or until the deadline. Says whether it does.
    pub(crate) fn wait_to_act(&self, runner: &RunnerId, deadline: Instant, open: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        while !self.acts(runner) && open() && Instant::now() < deadline {
            self.changed.wait_until(&mut state, deadline);
        }
        self.acts(runner)
    }

    /// The runner whose request is to bring the tenant to it.
    pub(crate) fn wanted(&self) -> Option<String> {
        self.state.lock().wanted.clone()
    }

    /// It is not to be, for now.
    pub(crate) fn unwant(&self) {
        self.change(|state| state.wanted = None);
    }

    pub(crate) fn wake_all(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

impl Tenant {
    /// Refuses a runner that does not act for the tenant, after the flip that may be on. A client is none, and waits for nothing here.
    pub(crate) fn check_access(&self) -> Result<()> {
        match self.1.as_runner() {
            Some(_) => self.0.pin_for(Some(&self.1), "look who acts").map(drop),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Pins for whoever is let in; none is the engine itself. Others wait for the end of a flip, or are refused.
    pub(super) fn pin_for(&self, caller: Option<&Caller>, what: &'static str) -> Result<Pin<'_>> {
        let mut until = None;
        loop {
            // Whoever flips waits for the pins, so there is none when somebody waits here.
            if let Some(pin) = self.pin_at_once(caller, what)? {
                return Ok(pin);
            }
            if let Some(caller) = caller {
                let wait = self.shared.flips.wait;
                self.wait_to_be_let_in(caller, *until.get_or_insert_with(|| clock::deadline(wait)))?;
            }
        }
    }

    /// The same for whoever may not wait; `None` for one that is not let in at this moment.
    pub(super) fn pin_at_once(&self, caller: Option<&Caller>, what: &'static str) -> Result<Option<Pin<'_>>> {
        let pin = self.shared.pins.pin(self.id, what);
        let word = self.seats.word.load(Ordering::Acquire);
        if word & DELETED != 0 {
            let message = format!("the tenant {:?} was deleted", self.name);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let Some(caller) = caller else { return Ok(Some(pin)) };
        let flips = word & FLIPPING != 0;
        let acts = caller.0.as_ref().is_none_or(|runner| word >> RUNNER == u64::from(runner.number));
        Ok((!flips && acts).then_some(pin))
    }

    /// Returns when it is worth to look again.
    fn wait_to_be_let_in(&self, caller: &Caller, until: Instant) -> Result<()> {
        let mut state = self.seats.state.lock();
        let mut asked = false;
        loop {
            self.shared.check()?;
            if state.deleted {
                return Ok(());
            }
            if let (false, Some(runner)) = (state.flipping, &caller.0)
                && state.acts() != runner.number
            {
                let refusal = refusal(&self.name, &state, &runner.name);
                let may_ask = self.shared.flips.on_foreign_request
                    && refusal.kind() == ErrorKind::NotPrimary
                    && state.present.contains_key(&runner.name)
                    && state.wanted.as_ref().is_none_or(|wanted| *wanted == runner.name);
                if !may_ask || (asked && state.wanted.is_none()) {
                    return Err(refusal);
                }
                if !asked {
                    asked = true;
                    state.wanted = Some(runner.name.clone());
                    self.shared.wake(Thread::Flipper);
                }
            } else if !state.flipping {
                return Ok(());
            }
            if state.waiting >= self.shared.flips.queue {
                state.refused += 1;
                let message = format!(
                    "{} requests wait already for the hand-over of the tenant {:?}",
                    state.waiting, self.name
                );
                return Err(Error::new(ErrorKind::AtLimit, message));
            }
            state.waiting += 1;
            state.queued += 1;
            let over = self.sleep_through(&mut state, until);
            state.waiting -= 1;
            if over {
                state.refused += 1;
                let message =
                    format!("the hand-over of the tenant {:?} took longer than a request waits", self.name);
                return Err(Error::new(ErrorKind::TimedOut, message));
            }
        }
    }

    /// Sleeps while nothing changes. Says whether the time is over.
    fn sleep_through(&self, state: &mut crate::sync::MutexGuard<'_, State>, until: Instant) -> bool {
        let before = (state.flipping, state.acts(), state.wanted.clone());
        loop {
            if self.shared.is_closed() || state.deleted {
                return false;
            }
            if (state.flipping, state.acts(), state.wanted.clone()) != before {
                return false;
            }
            if self.seats.changed.wait_until(state, until).timed_out() {
                return true;
            }
        }
    }
}

/// Why this runner is not let in, with the name of the one that is.
pub(crate) fn refusal_of(tenant: &str, record: Option<&AccessRecord>, runner: &str) -> Error {
    let seats = record.map(|record| record.seats.clone()).unwrap_or_default();
    refusal(tenant, &State { seats, ..State::default() }, runner)
}

fn refusal(tenant: &str, state: &State, runner: &str) -> Error {
    let mine = state.seats.iter().find(|seat| seat.runner == runner).map(|seat| seat.access);
    let primary = state.seats.iter().find(|seat| seat.access == Access::Primary);
    let primary = match primary {
        Some(seat) if seat.runner == runner => "it has to attach first".to_owned(),
        Some(seat) => format!("its primary is {:?}", seat.runner),
        None => "it has no primary".to_owned(),
    };
    let (kind, what) = match mine {
        Some(Access::Deactivated) => (ErrorKind::Deactivated, "was deactivated for"),
        Some(Access::Terminated) => (ErrorKind::Deactivated, "was terminated for"),
        Some(Access::Standby) => (ErrorKind::NotPrimary, "is on standby for"),
        Some(Access::Primary) => (ErrorKind::NotPrimary, "is not attached to"),
        None => (ErrorKind::NotPrimary, "has no access to"),
    };
    Error::new(kind, format!("the runner {runner:?} {what} the tenant {tenant:?}: {primary}"))
}
