//! Launches and a close together, as the engine makes them: pin, read, lock the key, look into both stores, check again, commit; publish, wait,
//! look what has landed.
//!
//! The rows are relaxed atomics: nothing but what is modelled here may order them.

use super::*;

const TENANT: u32 = 1;

/// What an engine could leave out.
#[derive(Debug, Clone, Copy)]
struct Rules {
    pin: bool,
    lock: bool,
    look_in_the_other: bool,
    check_again: bool,
    wait: bool,
}

const ALL: Rules = Rules { pin: true, lock: true, look_in_the_other: true, check_again: true, wait: true };

/// What a launch does about a key that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnConflict {
    Fail,
    Replace,
}

struct World<S, P> {
    /// The epoch, and the store where launches go: in epoch n, store n modulo 2.
    status: SeqLock<2, S>,
    slots: Slots<P>,
    key: Mutex<()>,
    /// The epoch of the launch that holds the key in each store; 0 if none does.
    live: [AtomicU64; 2],
    /// Launches in each store.
    landed: [AtomicU64; 2],
    /// The epoch of the key's last launch.
    last: AtomicU64,
}

impl<S: seqlock::Orders + 'static, P: slots::Orders + 'static> World<S, P> {
    fn new() -> Arc<Self> {
        let zeros = || [AtomicU64::new(0), AtomicU64::new(0)];
        Arc::new(Self {
            status: SeqLock::new([1, 1]),
            slots: Slots::new(),
            key: Mutex::new(()),
            live: zeros(),
            landed: zeros(),
            last: AtomicU64::new(0),
        })
    }

    /// Tries again if the status has changed, and gives up if it meets the writer: each is over after two tries, as there is one close.
    fn launch(&self, slot: &slots::Padded<P>, on_conflict: OnConflict, rules: Rules) {
        for _ in 0..2 {
            if rules.pin {
                slot.pin(TENANT, 0);
            }
            let done = self.try_launch(on_conflict, rules);
            if rules.pin {
                slot.unpin();
            }
            if done {
                return;
            }
        }
    }

    fn try_launch(&self, on_conflict: OnConflict, rules: Rules) -> bool {
        let Some((seq, [epoch, store])) = self.status.try_read() else { return true };
        assert_eq!(epoch % 2, store, "torn");
        let (home, other) = (store as usize, 1 - store as usize);
        let _key = rules.lock.then(|| self.key.lock().unwrap());
        let looked_at = if rules.look_in_the_other { vec![other, home] } else { vec![home] };
        let held: Vec<usize> =
            looked_at.into_iter().filter(|at| self.live[*at].load(Ordering::Relaxed) != 0).collect();
        if !held.is_empty() && on_conflict == OnConflict::Fail {
            return true;
        }
        if rules.check_again && !self.status.unchanged(seq) {
            return false;
        }
        held.into_iter().for_each(|at| self.live[at].store(0, Ordering::Relaxed));
        let before = self.last.load(Ordering::Relaxed);
        assert!(before <= epoch, "out of order");
        self.last.store(epoch, Ordering::Relaxed);
        self.live[home].store(epoch, Ordering::Relaxed);
        self.landed[home].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Publishes the next epoch, in which launches go to the other store, waits, and says what has landed in the one that is closed.
    fn close(&self, rules: Rules) -> u64 {
        self.status.update(|[epoch, store]| [epoch + 1, 1 - store]);
        for (slot, state) in self.slots.pinned(TENANT) {
            while rules.wait && slot.is_still(state) {
                thread::yield_now();
            }
        }
        self.landed[1].load(Ordering::Relaxed)
    }

    fn check(&self, seen: u64) {
        assert_eq!(seen, self.landed[1].load(Ordering::Relaxed), "landed after the wait");
        let live = self.live.iter().filter(|live| live.load(Ordering::Relaxed) != 0).count();
        assert!(live <= 1, "live twice");
    }
}

/// One launch beside a close. The slot is taken before, so that no mutex orders them.
fn one_launch<S: seqlock::Orders + 'static, P: slots::Orders + 'static>(rules: Rules) {
    check(Some(3), move || {
        let world = World::<S, P>::new();
        let slot = world.slots.take("launcher".into());
        let (launching, closing) = (Arc::clone(&world), Arc::clone(&world));
        let launcher = thread::spawn(move || launching.launch(&slot, OnConflict::Fail, rules));
        let closer = thread::spawn(move || closing.close(rules));
        let seen = closer.join().unwrap();
        launcher.join().unwrap();
        world.check(seen);
    });
}

/// Two launches of one key beside a close.
fn two_launches(on_conflict: OnConflict, rules: Rules) {
    check(Some(2), move || {
        let world = World::<seqlock::Strong, slots::Strong>::new();
        let launchers = ["one", "two"].map(|name| {
            let (world, slot) = (Arc::clone(&world), world.slots.take(name.into()));
            thread::spawn(move || world.launch(&slot, on_conflict, rules))
        });
        let closing = Arc::clone(&world);
        let closer = thread::spawn(move || closing.close(rules));
        let seen = closer.join().unwrap();
        join_all(launchers);
        world.check(seen);
        if on_conflict == OnConflict::Fail {
            let landed: u64 = world.landed.iter().map(|landed| landed.load(Ordering::Relaxed)).sum();
            assert!(landed <= 1, "live twice");
        }
    });
}

#[test]
fn one_launch_and_a_close() {
    one_launch::<seqlock::Strong, slots::Strong>(ALL);
}

#[test]
fn two_launches_of_one_key_and_a_close() {
    two_launches(OnConflict::Fail, ALL);
}

#[test]
fn two_replacements_of_one_key_and_a_close() {
    two_launches(OnConflict::Replace, ALL);
}

#[test]
#[should_panic(expected = "landed after the wait")]
fn without_the_wait() {
    one_launch::<seqlock::Strong, slots::Strong>(Rules { wait: false, ..ALL });
}

#[test]
#[should_panic(expected = "landed after the wait")]
fn without_the_pin() {
    one_launch::<seqlock::Strong, slots::Strong>(Rules { pin: false, ..ALL });
}

#[test]
#[should_panic(expected = "live twice")]
fn without_the_look_into_the_other_store() {
    two_launches(OnConflict::Fail, Rules { look_in_the_other: false, ..ALL });
}

#[test]
#[should_panic(expected = "live twice")]
fn without_the_lock_of_the_key() {
    two_launches(OnConflict::Fail, Rules { lock: false, ..ALL });
}

#[test]
#[should_panic(expected = "out of order")]
fn without_the_second_check() {
    two_launches(OnConflict::Replace, Rules { check_again: false, ..ALL });
}

mutant!(seqlock: NoFenceAfterOdd {
    AFTER_ODD: bool = false;
    EVEN: Ordering, FIRST_LOOK: Ordering, BEFORE_SECOND_LOOK: bool
});
mutant!(seqlock: RelaxedEven {
    EVEN: Ordering = Ordering::Relaxed;
    AFTER_ODD: bool, FIRST_LOOK: Ordering, BEFORE_SECOND_LOOK: bool
});
mutant!(seqlock: RelaxedFirstLook {
    FIRST_LOOK: Ordering = Ordering::Relaxed;
    AFTER_ODD: bool, EVEN: Ordering, BEFORE_SECOND_LOOK: bool
});
mutant!(seqlock: NoFenceBeforeSecondLook {
    BEFORE_SECOND_LOOK: bool = false;
    AFTER_ODD: bool, EVEN: Ordering, FIRST_LOOK: Ordering
});

#[test]
#[should_panic(expected = "torn")]
fn without_the_fence_after_odd() {
    one_launch::<NoFenceAfterOdd, slots::Strong>(ALL);
}

#[test]
#[should_panic(expected = "torn")]
fn with_a_relaxed_even() {
    one_launch::<RelaxedEven, slots::Strong>(ALL);
}

#[test]
#[should_panic(expected = "torn")]
fn with_a_relaxed_first_look() {
    one_launch::<RelaxedFirstLook, slots::Strong>(ALL);
}

#[test]
#[should_panic(expected = "torn")]
fn without_the_fence_before_the_second_look() {
    one_launch::<NoFenceBeforeSecondLook, slots::Strong>(ALL);
}

mutant!(slots: NoPinFence {
    PIN_FENCE: bool = false;
    WAIT_FENCE: bool, UNPIN: Ordering, LOOK: Ordering
});
mutant!(slots: NoWaitFence {
    WAIT_FENCE: bool = false;
    PIN_FENCE: bool, UNPIN: Ordering, LOOK: Ordering
});
mutant!(slots: RelaxedUnpin {
    UNPIN: Ordering = Ordering::Relaxed;
    PIN_FENCE: bool, WAIT_FENCE: bool, LOOK: Ordering
});
mutant!(slots: RelaxedLook {
    LOOK: Ordering = Ordering::Relaxed;
    PIN_FENCE: bool, WAIT_FENCE: bool, UNPIN: Ordering
});

#[test]
#[should_panic(expected = "landed after the wait")]
fn without_the_fence_of_the_pin() {
    one_launch::<seqlock::Strong, NoPinFence>(ALL);
}

#[test]
#[should_panic(expected = "landed after the wait")]
fn without_the_fence_of_the_wait() {
    one_launch::<seqlock::Strong, NoWaitFence>(ALL);
}

#[test]
#[should_panic(expected = "landed after the wait")]
fn with_a_relaxed_unpin() {
    one_launch::<seqlock::Strong, RelaxedUnpin>(ALL);
}

#[test]
#[should_panic(expected = "landed after the wait")]
fn with_a_relaxed_look() {
    one_launch::<seqlock::Strong, RelaxedLook>(ALL);
}
