//! Who waits for the end of an instance.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// One condition for all instances of a tenant: an end wakes everybody, who then looks for himself.
#[derive(Default)]
pub(crate) struct Waiters {
    ends: Mutex<u64>,
    changed: Condvar,
}

impl Waiters {
    /// How many ends there have been. Read before looking at an instance.
    pub(crate) fn seen(&self) -> u64 {
        *self.ends.lock()
    }

    /// An instance has ended, durably.
    pub(crate) fn ended(&self) {
        *self.ends.lock() += 1;
        self.changed.notify_all();
    }

    pub(crate) fn wake_all(&self) {
        self.ended();
    }

    /// Sleeps until there were more ends than `seen`, or until the limit has passed.
    pub(crate) fn sleep(&self, seen: u64, limit: Duration) {
        let mut ends = self.ends.lock();
        if *ends == seen {
            self.changed.wait_for(&mut ends, limit);
        }
    }
}
