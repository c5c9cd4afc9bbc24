//! How often workers are to be heard of, and how long their leases last without that.

use std::collections::HashMap;
use std::time::Duration;

/// How often a worker is to be heard of, and for how long it may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeats {
    /// How often it should send one.
    pub every: Duration,
    /// How many of them may be missing: its lease lasts this many intervals.
    pub intervals: u32,
}

impl Default for Heartbeats {
    /// Every two seconds, and three intervals.
    fn default() -> Self {
        Self { every: Duration::from_secs(2), intervals: 3 }
    }
}

impl Heartbeats {
    /// Three of them in a lease of this length.
    #[must_use]
    pub fn of_lease(length: Duration) -> Self {
        Self { every: length / 3, intervals: 3 }
    }

    /// How long a lease lasts from the last heartbeat on.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.every.saturating_mul(self.intervals)
    }
}

/// How often workers are to be heard of: of the engine, and of queues that say otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseTimes {
    pub(crate) engine: Heartbeats,
    pub(crate) queues: HashMap<String, Heartbeats>,
}

impl LeaseTimes {
    pub(crate) fn of(&self, queue: &str) -> Heartbeats {
        self.queues.get(queue).copied().unwrap_or(self.engine)
    }
}
