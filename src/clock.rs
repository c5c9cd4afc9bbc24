//! Time as the engine sees it.
//!
//! Deadlines that are stored (retention, delayed starts) are milliseconds since 1970 on the *engine's* clock: wall time
//! when the engine opened, never below a durable high-water mark, plus monotonic time since. So a jump of the wall
//! clock under a running engine moves nothing, and one between two runs cannot take time back. Leases live in memory only
//! and run on monotonic time. What somebody elsewhere compares with a clock of their own, the end of a lease under a signature, is told by wall
//! time as it is at that moment: theirs follows the same one, and nothing of it is kept.
//!
//! No time is handed out beyond the mark: time that has come to it waits until it was raised. So an engine that was not closed in order starts
//! at the mark, at most [`AHEAD`] after the last time that it told, or at wall time if that is later; what is kept for a while may
//! go that much early then. Its time stands there until as much has passed, so that not even many such ends in a row take it further. A
//! close in order leaves the mark at the last time told.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Instant, Mutex};

/// Where time comes from. Passed in, so that tests can drive it.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since 1970; may be set back and forth. Asked when the engine opens, and for each call to a service.
    fn wall_ms(&self) -> u64;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// Both, of one moment; if that cannot be, wall time is the earlier one.
    fn moment(&self) -> (u64, Duration) {
        (self.wall_ms(), self.monotonic())
    }
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
pub struct ManualClock(Mutex<(u64, Duration)>);

impl ManualClock {
    /// A clock at this wall time, in milliseconds since 1970.
    #[must_use]
    pub fn at(wall_ms: u64) -> Self {
        Self(Mutex::new((wall_ms, Duration::ZERO)))
    }

    /// Time passes, on both clocks at once.
    pub fn advance(&self, by: Duration) {
        let (wall_ms, monotonic) = &mut *self.0.lock();
        *wall_ms = wall_ms.saturating_add(millis(by));
        *monotonic += by;
    }

    /// Somebody sets the wall clock.
    pub fn set_wall(&self, wall_ms: u64) {
        self.0.lock().0 = wall_ms;
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.moment().0
    }

    fn monotonic(&self) -> Duration {
        self.moment().1
    }

    fn moment(&self) -> (u64, Duration) {
        *self.0.lock()
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

/// Where time goes on when an engine opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// The time that runs on,
    running_ms: u64,
    /// which was reached at this monotonic time: writing the mark may take a while.
    at: Duration,
    /// Below this none is handed out.
    least_ms: u64,
}

impl Start {
    /// After an engine whose last durable mark this was.
    pub(crate) fn after(source: &dyn Clock, mark_ms: u64) -> Self {
        let (wall_ms, at) = source.moment();
        // The mark was set at most so far ahead of the time that ran then.
        Self { running_ms: wall_ms.max(mark_ms.saturating_sub(AHEAD)), at, least_ms: mark_ms }
    }

    /// The mark that has to be durable before the first time is handed out.
    pub(crate) fn mark_ms(self) -> u64 {
        self.running_ms.saturating_add(AHEAD)
    }
}

/// The engine's clock; see the module.
pub(crate) struct EngineClock {
    source: Arc<dyn Clock>,
    /// The time that runs less monotonic time.
    offset_ms: u64,
    least_ms: u64,
    /// The durable mark: no time that is handed out is beyond it.
    mark_ms: AtomicU64,
    mark: Arc<dyn Mark>,
    /// Whether time was handed out since the mark was raised last: nobody needs one that is ahead of an engine at rest.
    used: AtomicBool,
    raising: Mutex<()>,
}

impl EngineClock {
    /// A clock that goes on at `start`, whose mark `mark` has made durable.
    pub(crate) fn open(source: Arc<dyn Clock>, start: Start, mark: Arc<dyn Mark>) -> Self {
        let offset_ms = start.running_ms.saturating_sub(millis(start.at));
        Self {
            source,
            offset_ms,
            least_ms: start.least_ms,
            mark_ms: AtomicU64::new(start.mark_ms()),
            mark,
            used: AtomicBool::new(false),
            raising: Mutex::new(()),
        }
    }

    /// Milliseconds since 1970; never goes back, also not over a crash. Stands still while the mark cannot be raised.
    pub(crate) fn now_ms(&self) -> u64 {
        let now_ms = self.peek_ms();
        // Only the first one after the mark was raised writes.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        // Pairs with the store in `raise`: who sees a mark sees that it is durable.
        if now_ms <= self.mark_ms.load(Ordering::Acquire) {
            return now_ms;
        }
        let _raising = self.raising.lock();
        now_ms.min(self.raise(now_ms, 0))
    }

    /// The same for whoever only wants to know whether to look: nothing durable may come of it.
    pub(crate) fn peek_ms(&self) -> u64 {
        self.running_ms().max(self.least_ms)
    }

    /// The time that runs, also while the least that is handed out is later. The mark is set ahead of this one.
    fn running_ms(&self) -> u64 {
        self.offset_ms.saturating_add(millis(self.source.monotonic()))
    }

    /// Raises the mark before somebody has to wait for it, if time is in use and has nearly come to it.
    pub(crate) fn keep_ahead(&self) {
        let now_ms = self.running_ms();
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

    /// Wall time in milliseconds since 1970, for clocks elsewhere, and monotonic time at the same moment or just after it.
    pub(crate) fn wall(&self) -> (u64, Duration) {
        self.source.moment()
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

    fn clock(wall_ms: u64, closed_ms: u64) -> (Arc<ManualClock>, Arc<Noted>, EngineClock) {
        let (source, noted) = (Arc::new(ManualClock::at(wall_ms)), Arc::new(Noted::default()));
        let start = Start::after(&*source, closed_ms);
        let clock = EngineClock::open(source.clone(), start, noted.clone());
        (source, noted, clock)
    }

    #[test]
    fn many_ends_in_a_row_take_time_no_further_than_one() {
        let (source, mut mark_ms, mut last_ms) = (Arc::new(ManualClock::at(1_000_000)), 0, 0);
        for round in 0..100 {
            let start = Start::after(&*source, mark_ms);
            let noted = Arc::new(Noted::default());
            let clock = EngineClock::open(source.clone(), start, noted.clone());
            for _ in 0..4 {
                let now_ms = clock.now_ms();
                assert!(last_ms <= now_ms && now_ms <= source.wall_ms() + AHEAD, "{last_ms} {now_ms}");
                last_ms = now_ms;
                clock.keep_ahead();
                source.advance(Duration::from_millis(3));
            }
            // Every third one is closed in order.
            let mark = noted.marks.lock().last().copied().unwrap_or(start.mark_ms());
            mark_ms = if round % 3 == 0 { clock.now_ms() } else { mark };
        }
        assert!(mark_ms <= source.wall_ms() + AHEAD);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_takes_no_time_back() {
        let start = Start::after(&ManualClock::at(5), 1_000_000);
        assert_eq!((start.running_ms, start.least_ms), (1_000_000 - AHEAD, 1_000_000));
        assert_eq!(Start::after(&ManualClock::at(2_000_000), 1_000_000).running_ms, 2_000_000);
    }

    #[test]
    fn time_passes_while_the_first_mark_is_written() {
        let source = Arc::new(ManualClock::at(1_000_000));
        let start = Start::after(&*source, 0);
        source.advance(Duration::from_millis(700));
        let clock = EngineClock::open(source.clone(), start, Arc::new(Noted::default()));
        assert_eq!(clock.now_ms(), 1_000_700);
    }

    #[test]
    fn engine_time_follows_monotonic_time_and_never_starts_below_the_mark() {
        let (source, _, clock) = clock(1_000, 5_000);
        assert_eq!(clock.now_ms(), 5_000);
        source.advance(Duration::from_millis(AHEAD));
        assert_eq!(clock.now_ms(), 5_000);
        source.advance(Duration::from_millis(250));
        source.set_wall(9_000_000);
        assert_eq!(clock.now_ms(), 5_250);
        source.set_wall(1);
        assert_eq!(clock.now_ms(), 5_250);
    }

    #[test]
    fn no_time_handed_out_is_beyond_a_durable_mark() {
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
            assert!(now <= mark && mark <= now + AHEAD, "{now} {mark}");
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
