//! Time as the engine sees it.
//!
//! Deadlines that are stored (retention, delayed starts) are milliseconds since 1970 on the *engine's* clock: wall time
//! when the engine opened, never below a durable high-water mark, plus monotonic time since. So a jump of the wall
//! clock under a running engine moves nothing, and one between two runs cannot take time back. Leases live in memory only
//! and run on monotonic time.
//!
//! The mark lies ahead of every time that was handed out: time that comes to it waits until it was raised. So an engine that
//! was not closed in order starts at most [`AHEAD`] after the last time that it told, or at wall time if that is later; what is kept for a while
//! may go that much early then. An order to close leaves the mark at the last time told.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Instant, Mutex};

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

/// How far ahead of the time handed out its durable mark is set, in milliseconds.
pub(crate) const AHEAD: u64 = 2_000;
/// The mark is raised in the background when less than this is left, in milliseconds: the thread that does it comes by every second.
const SOON: u64 = 1_500;

/// Who makes the high-water mark durable.
pub(crate) trait Mark: Send + Sync {
    /// Makes durable that time may come to `ms`. Says whether it did; if not, the earlier mark holds.
    fn raise(&self, ms: u64) -> bool;
}

/// The engine's clock; see the module.
pub(crate) struct EngineClock {
    source: Arc<dyn Clock>,
    /// Engine time less monotonic time.
    offset_ms: u64,
    /// The durable mark: every time handed out is below it, or at it while it cannot be raised.
    mark_ms: AtomicU64,
    mark: Arc<dyn Mark>,
    /// Whether time was handed out since the mark was raised last: nobody needs one that is ahead of an engine at rest.
    used: AtomicBool,
    raising: Mutex<()>,
}

impl EngineClock {
    /// When an engine starts whose last mark was `high_water_ms`.
    pub(crate) fn start_ms(source: &dyn Clock, high_water_ms: u64) -> u64 {
        source.wall_ms().max(high_water_ms)
    }

    /// A clock that stands at `start_ms`. `mark` has made durable that it may come to [`AHEAD`] after that.
    pub(crate) fn open(source: Arc<dyn Clock>, start_ms: u64, mark: Arc<dyn Mark>) -> Self {
        let offset_ms = start_ms.saturating_sub(millis(source.monotonic()));
        let mark_ms = AtomicU64::new(start_ms.saturating_add(AHEAD));
        Self { source, offset_ms, mark_ms, mark, used: AtomicBool::new(false), raising: Mutex::new(()) }
    }

    /// Milliseconds since 1970; never goes back, also not over a crash. Stands still while the mark cannot be raised.
    pub(crate) fn now_ms(&self) -> u64 {
        let now_ms = self.peek_ms();
        // Only the first one after the mark was raised writes.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        // Pairs with the store in `raise`: who sees a mark sees that it is durable.
        if now_ms < self.mark_ms.load(Ordering::Acquire) {
            return now_ms;
        }
        let _raising = self.raising.lock();
        now_ms.min(self.raise(now_ms, 1))
    }

    /// The same for whoever only wants to know whether to look: nothing durable may come of it.
    pub(crate) fn peek_ms(&self) -> u64 {
        self.offset_ms.saturating_add(millis(self.source.monotonic()))
    }

    /// Raises the mark before somebody has to wait for it, if time is in use and has nearly come to it.
    pub(crate) fn keep_ahead(&self) {
        let now_ms = self.peek_ms();
        let near = |mark_ms: u64| mark_ms.saturating_sub(now_ms) < SOON;
        if !self.used.load(Ordering::Relaxed) || !near(self.mark_ms.load(Ordering::Acquire)) {
            return;
        }
        let _raising = self.raising.lock();
        self.used.store(false, Ordering::Relaxed);
        self.raise(now_ms, SOON);
    }

    /// For leases.
    pub(crate) fn monotonic(&self) -> Duration {
        self.source.monotonic()
    }

    /// Makes sure, under the lock, that the mark lies at least `room` milliseconds behind `now_ms`, and returns it.
    fn raise(&self, now_ms: u64, room: u64) -> u64 {
        let mark_ms = self.mark_ms.load(Ordering::Acquire);
        if now_ms.saturating_add(room) <= mark_ms {
            return mark_ms;
        }
        let higher = now_ms.saturating_add(AHEAD);
        if !self.mark.raise(higher) {
            return mark_ms;
        }
        self.mark_ms.store(higher, Ordering::Release);
        higher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes the marks; refuses while it is told to.
    #[derive(Default)]
    struct Noted {
        marks: Mutex<Vec<u64>>,
        refuses: AtomicBool,
    }

    impl Mark for Noted {
        fn raise(&self, ms: u64) -> bool {
            let refuses = self.refuses.load(Ordering::SeqCst);
            if !refuses {
                self.marks.lock().push(ms);
            }
            !refuses
        }
    }

    fn clock(wall_ms: u64, high_water_ms: u64) -> (Arc<ManualClock>, Arc<Noted>, EngineClock) {
        let (source, noted) = (Arc::new(ManualClock::at(wall_ms)), Arc::new(Noted::default()));
        let start = EngineClock::start_ms(&*source, high_water_ms);
        let clock = EngineClock::open(source.clone(), start, noted.clone());
        (source, noted, clock)
    }

    #[test]
    fn engine_time_follows_monotonic_time_and_never_starts_below_the_mark() {
        let (source, _, clock) = clock(1_000, 5_000);
        assert_eq!(clock.now_ms(), 5_000);
        source.advance(Duration::from_millis(250));
        source.set_wall(9_000_000);
        assert_eq!(clock.now_ms(), 5_250);
        source.set_wall(1);
        assert_eq!(clock.now_ms(), 5_250);
    }

    #[test]
    fn every_time_handed_out_is_below_a_durable_mark() {
        let (source, noted, clock) = clock(10_000, 0);
        let mut mark = 10_000 + AHEAD;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            source.advance(Duration::from_millis(random.u64(0..900)));
            if random.u8(..4) == 0 {
                clock.keep_ahead();
            }
            let now = clock.now_ms();
            mark = noted.marks.lock().last().copied().unwrap_or(mark);
            assert!(now < mark && mark <= now + AHEAD, "{now} {mark}");
        }
        source.advance(Duration::from_secs(36_000));
        let now = clock.now_ms();
        assert_eq!(noted.marks.lock().last(), Some(&(now + AHEAD)));
    }

    #[test]
    fn time_stands_still_while_the_mark_cannot_be_raised() {
        let (source, noted, clock) = clock(10_000, 0);
        noted.refuses.store(true, Ordering::SeqCst);
        source.advance(Duration::from_secs(60));
        assert_eq!(clock.now_ms(), 10_000 + AHEAD);
        source.advance(Duration::from_secs(60));
        clock.keep_ahead();
        assert_eq!(clock.now_ms(), 10_000 + AHEAD);
        noted.refuses.store(false, Ordering::SeqCst);
        assert_eq!(clock.now_ms(), 130_000);
    }

    #[test]
    fn nothing_is_written_for_an_engine_at_rest() {
        let (source, noted, clock) = clock(10_000, 0);
        for _ in 0..100 {
            source.advance(Duration::from_secs(1));
            clock.keep_ahead();
            assert!(clock.peek_ms() >= 10_000);
        }
        assert!(noted.marks.lock().is_empty());
        assert_eq!(clock.now_ms(), 110_000);
        assert_eq!(noted.marks.lock().len(), 1);
    }
}
