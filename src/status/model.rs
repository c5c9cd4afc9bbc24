//! The model: every interleaving, and every value that a weak memory may show, for small cases of the two cores.
//! Run by `cargo xtask test`, or alone by
//! `RUSTFLAGS="--cfg loom" cargo test --no-default-features --lib model`.
//!
//! Each promise is checked twice: with the orderings of production it holds, and with any one of them weakened
//! the model finds the case that breaks it. The second half says that the model can fail, and that no ordering is there
//! for nothing.
//!
//! Both sides run in threads of their own. With the reader on the model's main thread two of the four mutants of
//! the seqlock pass unnoticed.

use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use super::seqlock::{self, SeqLock};
use super::slots::{self, Slots};
use super::sync::{AtomicU64, Mutex, Ordering};

/// The orderings of one core with some of its constants replaced: `mutant!(seqlock: Name { CONST = weaker })`.
macro_rules! mutant {
    ($core:ident: $name:ident { $($weak:ident: $type:ty = $value:expr),* ; $($strong:ident: $strong_type:ty),* }) => {
        struct $name;
        impl $core::Orders for $name {
            $(const $weak: $type = $value;)*
            $(const $strong: $strong_type = <$core::Strong as $core::Orders>::$strong;)*
        }
    };
}

fn check(preemptions: Option<usize>, case: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(case);
}

fn join_all<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

mod launch;

mod seqlock_model {
    use super::*;

    /// A reader beside a writer sees both words of one value.
    fn reads_are_whole<O: seqlock::Orders + 'static>() {
        check(None, || {
            let lock = Arc::new(SeqLock::<2, O>::new([0, 0]));
            let (writing, reading) = (Arc::clone(&lock), lock);
            let writer = thread::spawn(move || writing.update(|[a, b]| [a + 1, b + 1]));
            let reader = thread::spawn(move || {
                if let Some((_, [a, b])) = reading.try_read() {
                    assert_eq!(a, b, "torn");
                }
            });
            writer.join().unwrap();
            reader.join().unwrap();
        });
    }

    #[test]
    fn strong() {
        reads_are_whole::<seqlock::Strong>();
    }

    /// Two writers, one after the other, and a reader that never goes back.
    #[test]
    fn two_writers_and_a_reader() {
        check(Some(2), || {
            let lock = Arc::new(SeqLock::<2>::new([0, 0]));
            let writers = [1, 2].map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || lock.update(|[a, b]| [a + 1, b + 1]))
            });
            let reading = Arc::clone(&lock);
            let reader = thread::spawn(move || {
                let reads = [reading.try_read(), reading.try_read()];
                let values = reads.into_iter().flatten().map(|(_, [a, b])| {
                    assert_eq!(a, b, "torn");
                    a
                });
                assert!(values.is_sorted(), "went back");
            });
            join_all(writers);
            reader.join().unwrap();
            assert_eq!(lock.try_read().map(|(_, words)| words), Some([2, 2]));
        });
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
        reads_are_whole::<NoFenceAfterOdd>();
    }

    #[test]
    #[should_panic(expected = "torn")]
    fn with_a_relaxed_even() {
        reads_are_whole::<RelaxedEven>();
    }

    #[test]
    #[should_panic(expected = "torn")]
    fn with_a_relaxed_first_look() {
        reads_are_whole::<RelaxedFirstLook>();
    }

    #[test]
    #[should_panic(expected = "torn")]
    fn without_the_fence_before_the_second_look() {
        reads_are_whole::<NoFenceBeforeSecondLook>();
    }

    /// Two launches of one key and a change of status: what they commit under the key's lock is in the order of the
    /// epochs that they read, if they check again under it.
    fn commits_are_in_order(recheck: bool) {
        check(Some(3), move || {
            let status = Arc::new(SeqLock::<1>::new([1]));
            let key = Arc::new(Mutex::new(Vec::new()));
            let launchers = [1, 2].map(|_| {
                let (status, key) = (Arc::clone(&status), Arc::clone(&key));
                thread::spawn(move || {
                    let Some((seq, [epoch])) = status.try_read() else { return };
                    let mut commits = key.lock().unwrap();
                    if !recheck || status.unchanged(seq) {
                        commits.push(epoch);
                    }
                })
            });
            let publisher = thread::spawn(move || status.update(|[epoch]| [epoch + 1]));
            publisher.join().unwrap();
            join_all(launchers);
            assert!(key.lock().unwrap().is_sorted(), "out of order");
        });
    }

    #[test]
    fn one_relaxed_load_keeps_the_commits_of_a_key_in_order() {
        commits_are_in_order(true);
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn without_it_they_are_not() {
        commits_are_in_order(false);
    }
}

mod pins_model {
    use super::*;

    const TENANT: u32 = 1;
    const OPEN: u64 = 0;
    const CLOSED: u64 = 1;

    struct World<O> {
        status: SeqLock<1>,
        slots: Slots<O>,
        /// Launches in the store. All relaxed: only the pins may order them.
        landed: AtomicU64,
    }

    impl<O: slots::Orders + 'static> World<O> {
        fn new() -> Arc<Self> {
            Arc::new(Self { status: SeqLock::new([OPEN]), slots: Slots::new(), landed: AtomicU64::new(0) })
        }

        /// A launch: pin, read, check again, commit, unpin.
        fn launch(&self, slot: &slots::Padded<O>) {
            slot.pin(TENANT, 0);
            if let Some((seq, [OPEN])) = self.status.try_read()
                && self.status.unchanged(seq)
            {
                self.landed.fetch_add(1, Ordering::Relaxed);
            }
            slot.unpin();
        }

        /// The close: publish, wait, and then say what has landed.
        fn close(&self) -> u64 {
            self.status.update(|_| [CLOSED]);
            for (slot, state) in self.slots.pinned(TENANT) {
                while slot.is_still(state) {
                    thread::yield_now();
                }
            }
            self.landed.load(Ordering::Relaxed)
        }
    }

    /// A launch beside a close. The slot is taken before, so that no mutex orders them.
    fn nothing_lands_after_the_wait<O: slots::Orders + 'static>() {
        check(None, || {
            let world = World::<O>::new();
            let slot = world.slots.take("launcher".into());
            let (launching, closing) = (Arc::clone(&world), Arc::clone(&world));
            let launcher = thread::spawn(move || launching.launch(&slot));
            let closer = thread::spawn(move || closing.close());
            let seen = closer.join().unwrap();
            launcher.join().unwrap();
            assert_eq!(seen, world.landed.load(Ordering::Relaxed), "landed after the wait");
        });
    }

    #[test]
    fn strong() {
        nothing_lands_after_the_wait::<slots::Strong>();
    }

    /// The close may come while a thread takes its slot, pins once and again, and gives it back.
    #[test]
    fn slots_are_taken_and_given_back_meanwhile() {
        check(Some(4), || {
            let world = World::<slots::Strong>::new();
            let (launching, closing) = (Arc::clone(&world), Arc::clone(&world));
            let launcher = thread::spawn(move || {
                let slot = launching.slots.take("launcher".into());
                launching.launch(&slot);
                launching.launch(&slot);
                launching.slots.give_back(slot);
            });
            let closer = thread::spawn(move || closing.close());
            let seen = closer.join().unwrap();
            launcher.join().unwrap();
            assert_eq!(seen, world.landed.load(Ordering::Relaxed), "landed after the wait");
        });
    }

    /// Two threads, one after the other in the same slot or each in its own.
    #[test]
    fn two_launchers_and_a_close() {
        check(Some(3), || {
            let world = World::<slots::Strong>::new();
            let launchers = ["one", "two"].map(|name| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let slot = world.slots.take(name.into());
                    world.launch(&slot);
                    world.slots.give_back(slot);
                })
            });
            let closing = Arc::clone(&world);
            let closer = thread::spawn(move || closing.close());
            let seen = closer.join().unwrap();
            join_all(launchers);
            assert_eq!(seen, world.landed.load(Ordering::Relaxed), "landed after the wait");
        });
    }

    /// What is told of a pin is of that pin, and not of the owner's next one.
    #[test]
    fn details_are_those_of_the_pin_that_was_seen() {
        check(Some(3), || {
            let slots = Arc::new(Slots::<slots::Strong>::new());
            let slot = slots.take("launcher".into());
            let launcher = thread::spawn(move || {
                for tenant in [1, 2] {
                    slot.pin(tenant, u64::from(tenant) * 10);
                    slot.unpin();
                }
            });
            let waiter = thread::spawn(move || {
                for (slot, state) in slots.pinned(1) {
                    if let Some((details, _)) = slot.details(state) {
                        assert_eq!(details, 10, "told of another pin");
                    }
                }
            });
            launcher.join().unwrap();
            waiter.join().unwrap();
        });
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
        nothing_lands_after_the_wait::<NoPinFence>();
    }

    #[test]
    #[should_panic(expected = "landed after the wait")]
    fn without_the_fence_of_the_wait() {
        nothing_lands_after_the_wait::<NoWaitFence>();
    }

    #[test]
    #[should_panic(expected = "landed after the wait")]
    fn with_a_relaxed_unpin() {
        nothing_lands_after_the_wait::<RelaxedUnpin>();
    }

    #[test]
    #[should_panic(expected = "landed after the wait")]
    fn with_a_relaxed_look() {
        nothing_lands_after_the_wait::<RelaxedLook>();
    }
}
