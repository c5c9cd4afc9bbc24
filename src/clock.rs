//! Time as the engine sees it.
//!
//! Deadlines that are stored (retention, delayed starts) are milliseconds since 1970 on the *engine's* clock: wall time
//! when the engine opened, never below a durable high-water mark, plus monotonic time since. So a jump of the wall
//! clock under a running engine moves nothing, and one between two runs cannot take time back. Leases live in memory only
//! and run on monotonic time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sync::Instant;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Where time comes from. Passed in, so that tests can drive it.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since 1970. Asked once, when the engine opens.
    fn wall_ms(&self) -> u64;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// When `timeout` is over. What nobody lives to see is cut to a century, so that any duration may be asked for.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(Duration::from_secs(100 * 365 * 86_400))
}

/// A duration in milliseconds; one that no record can hold is cut to the longest that it can.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock at this wall time, in milliseconds since 1970.
    #[must_use]
    pub const fn at(wall_ms: u64) -> Self {
        Self { wall_ms: AtomicU64::new(wall_ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        self.wall_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// The engine's clock; see the module.
pub(crate) struct EngineClock {
    source: Arc<dyn Clock>,
    /// Engine time less monotonic time.
    offset_ms: u64,
}

impl EngineClock {
    pub(crate) fn open(source: Arc<dyn Clock>, high_water_ms: u64) -> Self {
        let start = source.wall_ms().max(high_water_ms);
        let offset_ms = start.saturating_sub(source.monotonic().as_millis() as u64);
        Self { source, offset_ms }
    }

    /// Milliseconds since 1970; never goes back.
    pub(crate) fn now_ms(&self) -> u64 {
        self.offset_ms + self.source.monotonic().as_millis() as u64
    }

    /// For leases.
    pub(crate) fn monotonic(&self) -> Duration {
        self.source.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_time_follows_monotonic_time_and_never_starts_below_the_mark() {
        let source = Arc::new(ManualClock::at(1_000));
        let clock = EngineClock::open(source.clone(), 5_000);
        assert_eq!(clock.now_ms(), 5_000);
        source.advance(Duration::from_millis(250));
        source.set_wall(9_000_000);
        assert_eq!(clock.now_ms(), 5_250);
        source.set_wall(1);
        assert_eq!(clock.now_ms(), 5_250);
    }
}
