//! The keeper: opens stores that have failed again while the engine runs, and bounds what power loss may take at
//! [`Buffered`](crate::Durability::Buffered). One step for all stores; a thread of the engine calls it.
//!
//! Invariant: after a failed write a handle is never written to again, and nothing is acknowledged before the store was closed, opened and
//! read, whichever driver it is. The way of a store whose write has failed:
//!
//! 1. *failed*: writes are refused, reads go on. The driver is asked, with longer and longer pauses, whether it is worth a try: whether the
//!    disk has room and takes writes;
//! 2. *withdrawn*: something that refuses everything takes its place in the catalog and in its tenants. Operations that have the old
//!    handle end, and then it is closed;
//! 3. *opened*: the catalog has a new handle. Each tenant finishes what opening finishes and takes it into use
//!    (`tenant/mended.rs`). One that cannot keeps what refuses everything, and tries again.
//!
//! Whatever fails on the way begins again from where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::StoreId;

use crate::error::Error;
use crate::event::Event;
use crate::shared::{Durability, Shared};
use crate::store::space::Space;
use crate::tenant::Inner;

/// How soon a store is tried again after the first failure; twice as long each time,
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// and at most this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often it is looked whether everybody has let go of a failed handle.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long written rows stay without a sync at `Buffered`, at most, beside the time that the syncs themselves take.
const BUFFERED_FOR: Duration = Duration::from_secs(1);

/// What is under way for each store.
#[derive(Default)]
pub(crate) struct Keeper {
    mending: HashMap<StoreId, Mending>,
    /// Pauses of tenants that could not take a store into use.
    tenants: Pause,
    /// When stores are synced next.
    sync: Duration,
}

/// A store that has failed.
struct Mending {
    since: Duration,
    pause: Pause,
    /// Withdrawn and not closed yet.
    failed: Option<Arc<Space>>,
    error: String,
}

#[derive(Default)]
struct Pause {
    until: Duration,
    length: Duration,
}

impl Pause {
    /// From now on, which may be seconds after the step began.
    fn lengthen(&mut self, shared: &Shared) -> Duration {
        self.length = (self.length * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.until = shared.clock.monotonic() + self.length;
        self.length
    }
}

impl Keeper {
    /// Does what can be done now and says when to come again.
    pub(crate) fn step(&mut self, shared: &Shared, tenants: &[Arc<Inner>]) -> Option<Duration> {
        let now = shared.clock.monotonic();
        let spaces = shared.catalog.spaces();
        spaces.iter().for_each(|space| space.sync_if_suspect());
        for space in spaces.iter().filter(|space| space.failure().is_some()) {
            self.mending.entry(space.id).or_insert_with(|| Mending::begin(shared, space, now));
        }
        // One that nobody uses any more was removed.
        self.mending
            .retain(|id, mending| mending.failed.is_some() || spaces.iter().any(|space| space.id == *id));
        drop(spaces);
        let mut ids: Vec<StoreId> = self.mending.keys().copied().collect();
        ids.sort_unstable();
        let mut next = None;
        for id in ids {
            let Some(mending) = self.mending.get_mut(&id) else { continue };
            match mending.step(shared, tenants, id, now) {
                Some(pause) => next = sooner(next, pause),
                None => drop(self.mending.remove(&id)),
            }
        }
        if let Some(pause) = self.take_into_use(shared, tenants, now) {
            next = sooner(next, pause);
        }
        if shared.durability == Durability::Buffered {
            next = sooner(next, self.sync(shared, now));
        }
        next
    }

    /// Lets go of everything: the engine is being closed.
    pub(crate) fn close(&mut self) {
        self.mending.clear();
    }

    /// Gives tenants the handles that they lack.
    fn take_into_use(&mut self, shared: &Shared, tenants: &[Arc<Inner>], now: Duration) -> Option<Duration> {
        if now < self.tenants.until {
            return Some(self.tenants.until - now);
        }
        let mut error: Option<Error> = None;
        for space in shared.catalog.spaces().iter().filter(|space| space.failure().is_none()) {
            for tenant in tenants.iter().filter(|tenant| tenant.lacks(space)) {
                if let Err(err) = tenant.take_into_use(space) {
                    shared.emit(|| Event::StoreFailed { store: space.id, error: err.to_string() });
                    error = Some(err);
                }
            }
        }
        for tenant in tenants {
            error = error.or(tenant.settle_doubts().err());
        }
        if error.is_none() {
            self.tenants = Pause::default();
            return None;
        }
        Some(self.tenants.lengthen(shared))
    }

    /// Syncs what was written to each store since the last time, if it is time. Says when it is next.
    fn sync(&mut self, shared: &Shared, now: Duration) -> Duration {
        if now < self.sync {
            return self.sync - now;
        }
        self.sync = now + BUFFERED_FOR;
        for space in shared.catalog.spaces().iter().filter(|space| space.failure().is_none()) {
            // A failure is remembered by the store, and mended.
            drop(space.sync_if_written());
        }
        BUFFERED_FOR
    }
}

impl Mending {
    fn begin(shared: &Shared, space: &Space, now: Duration) -> Self {
        let error = space.failure().map(|failure| failure.why().to_owned()).unwrap_or_default();
        shared.emit(|| Event::StoreFailed { store: space.id, error: error.clone() });
        Self { since: now, pause: Pause::default(), failed: None, error }
    }

    /// Goes as far as it can. `None` when the store is open again.
    fn step(
        &mut self,
        shared: &Shared,
        tenants: &[Arc<Inner>],
        id: StoreId,
        now: Duration,
    ) -> Option<Duration> {
        if now < self.pause.until {
            return Some(self.pause.until - now);
        }
        match self.try_step(shared, tenants, id) {
            Ok(Some(pause)) => Some(pause),
            Ok(None) => {
                let took = now.saturating_sub(self.since);
                shared.emit(|| Event::StoreMended { store: id, took });
                None
            }
            Err(err) => {
                let error = err.to_string();
                if self.error != error {
                    self.error.clone_from(&error);
                    shared.emit(|| Event::StoreFailed { store: id, error });
                }
                Some(self.pause.lengthen(shared))
            }
        }
    }

    fn try_step(
        &mut self,
        shared: &Shared,
        tenants: &[Arc<Inner>],
        id: StoreId,
    ) -> Result<Option<Duration>, Error> {
        let catalog = &shared.catalog;
        if self.failed.is_none() {
            self.failed = catalog.take_failed(id)?;
        }
        if let Some(failed) = self.failed.take() {
            // In every step: a tenant that is just being made may have taken the failed handle.
            if let Some(closed) = catalog.current(id) {
                tenants.iter().for_each(|tenant| tenant.withdraw_space(&closed));
            }
            match Arc::try_unwrap(failed) {
                // Closes it.
                Ok(failed) => drop(failed),
                Err(used) => {
                    self.failed = Some(used);
                    return Ok(Some(PATIENCE));
                }
            }
        }
        catalog.reopen(id).map(|_| None)
    }
}

fn sooner(next: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(next.map_or(other, |next| next.min(other)))
}
