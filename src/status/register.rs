//! The status register of one tenant: the status as one consistent value, read in under a nanosecond.
//!
//! Invariant (I7): it is never ahead of the durable record and its epoch never goes back. The caller persists
//! before it publishes; the epoch is checked here.

use std::fmt;

use cutover_formats::{Phase, Role, Status, StoreId, StoreStatus, Strategy};

use super::seqlock::{Seq, SeqLock};

/// Words that a status takes: the epoch, the two store ids, everything else.
const WORDS: usize = 3;

/// Holds what was last published.
pub struct Register(SeqLock<WORDS>);

impl Register {
    /// A register that holds `status`, which is durable.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self(SeqLock::new(pack(status)))
    }

    /// Publishes a status that has been made durable. To publish the present one again changes nothing.
    ///
    /// Transitions of a tenant exclude each other by the transition mutex; a second one here, held for a few
    /// stores, makes sure that breaking that rule cannot tear what readers see.
    ///
    /// # Panics
    /// If the epoch is not higher than that of the present status, or no store takes launches: bugs of the
    /// caller, that would break the promises. The register is as it was before, then.
    pub fn publish(&self, status: Status) {
        self.0.update(|words| {
            let now = unpack(words);
            assert!(
                status.epoch > now.epoch || status == now,
                "the epoch may not go back: published is {}, and now {}",
                now.epoch,
                status.epoch
            );
            assert!(
                status.status_of(status.home()) == StoreStatus::Open && status.store(status.home()).is_some(),
                "a status must have a store that takes launches: {status:?}"
            );
            pack(status)
        });
    }

    /// The status, and a name for this reading of it. An operation that will act on it holds a pin from before
    /// this call.
    #[must_use]
    pub fn read(&self) -> (Seq, Status) {
        let (seq, words) = self.0.read();
        (seq, unpack(words))
    }

    /// Whether the status is still the one that was read as `seq`: the re-check of an operation under its lock,
    /// before its first durable write. One relaxed load, which is enough, because it is asked to keep two promises:
    ///
    /// - *Commits under one lock are in the order of their epochs.* If somebody committed under this lock by a
    ///   later status, they had read the later sequence before they unlocked, and our locking came after that:
    ///   by coherence our load sees the later sequence, whatever its ordering. It cannot move up before the
    ///   locking (an acquire), and the commit depends on its result.
    /// - *No commit by an old status after the wait for it.* This is the pin's work. Its fence stands before this
    ///   load as it stands before [`read`](Self::read), and pairs with the fence of the wait: either this
    ///   load sees what was published, or the wait sees the pin.
    ///
    /// A load that is late in seeing a publication is thus the same as one made before it. With no lock and no
    /// pin held the answer says nothing.
    #[must_use]
    pub fn unchanged(&self, seq: Seq) -> bool {
        self.0.unchanged(seq)
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Register").field(&self.read().1).finish()
    }
}

// The third word, from the lowest bit: phase (3 bits), strategy (2, one value so far), primary is the target,
// there is a target, initial is closed, target is closed.
const STRATEGY: u32 = 3;
const PRIMARY_IS_TARGET: u64 = 1 << 5;
const HAS_TARGET: u64 = 1 << 6;
const INITIAL_CLOSED: u64 = 1 << 7;
const TARGET_CLOSED: u64 = 1 << 8;

fn pack(status: Status) -> [u64; WORDS] {
    let Status { epoch, phase, strategy, primary, initial, target, initial_status, target_status } = status;
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    let strategy = match strategy {
        Strategy::Drain => 0u64,
    };
    let stores = u64::from(initial.0) | u64::from(target.map_or(0, |store| store.0)) << 32;
    let rest = phase as u64
        | strategy << STRATEGY
        | flag(primary == Role::Target, PRIMARY_IS_TARGET)
        | flag(target.is_some(), HAS_TARGET)
        | flag(initial_status == StoreStatus::Closed, INITIAL_CLOSED)
        | flag(target_status == StoreStatus::Closed, TARGET_CLOSED);
    [epoch, stores, rest]
}

fn unpack([epoch, stores, rest]: [u64; WORDS]) -> Status {
    let set = |bit: u64| rest & bit != 0;
    let status = |closed: u64| if set(closed) { StoreStatus::Closed } else { StoreStatus::Open };
    Status {
        epoch,
        phase: match rest & 7 {
            0 => Phase::Stable,
            1 => Phase::PreMigration,
            2 => Phase::Migration,
            3 => Phase::PostMigration,
            4 => Phase::PreRollback,
            5 => Phase::RollingBack,
            6 => Phase::PostRollback,
            _ => unreachable!("only `pack` writes these words, and they are read whole"),
        },
        strategy: Strategy::Drain,
        primary: if set(PRIMARY_IS_TARGET) { Role::Target } else { Role::Initial },
        initial: StoreId(stores as u32),
        target: set(HAS_TARGET).then_some(StoreId((stores >> 32) as u32)),
        initial_status: status(INITIAL_CLOSED),
        target_status: status(TARGET_CLOSED),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const INITIAL: StoreId = StoreId(1);
    const STATUSES: [StoreStatus; 2] = [StoreStatus::Open, StoreStatus::Closed];

    /// Every combination of the small fields with some of the large ones.
    fn all() -> Vec<Status> {
        let mut all = Vec::new();
        let numbers =
            [(0, 0, None), (1, 1, Some(0)), (u64::MAX, u32::MAX, Some(u32::MAX)), (1 << 40, 7, None)];
        for phase in Phase::ALL {
            for primary in [Role::Initial, Role::Target] {
                for initial_status in STATUSES {
                    for target_status in STATUSES {
                        all.extend(numbers.map(|(epoch, initial, target)| Status {
                            epoch,
                            phase,
                            strategy: Strategy::Drain,
                            primary,
                            initial: StoreId(initial),
                            target: target.map(StoreId),
                            initial_status,
                            target_status,
                        }));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_status_comes_back_whole_and_no_two_are_packed_alike() {
        let mut seen = HashSet::new();
        for status in all() {
            assert_eq!(unpack(pack(status)), status);
            assert!(seen.insert(pack(status)), "{status:?} is packed like another one");
        }
        assert_eq!(seen.len(), 7 * 2 * 2 * 2 * 4);
    }

    #[test]
    fn a_reading_is_unchanged_until_the_next_is_published() {
        let register = Register::new(Status::stable(5, INITIAL));
        let (seq, status) = register.read();
        assert_eq!(status, Status::stable(5, INITIAL));
        assert!(register.unchanged(seq));
        register.publish(Status::stable(6, INITIAL));
        assert!(!register.unchanged(seq));
        assert_eq!(register.read().1.epoch, 6);
        assert!(register.unchanged(register.read().0));
    }

    fn panic_of(publish: impl FnOnce()) -> String {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(publish)).unwrap_err();
        caught.downcast_ref::<String>().unwrap().clone()
    }

    #[test]
    fn an_epoch_that_goes_back_is_refused_and_changes_nothing() {
        let register = Register::new(Status::stable(5, INITIAL));
        register.publish(Status::stable(5, INITIAL));
        for status in [Status::stable(4, INITIAL), Status::stable(5, StoreId(2))] {
            let said = panic_of(|| register.publish(status));
            assert!(said.contains("the epoch may not go back"), "{said}");
        }
        assert_eq!(register.read().1, Status::stable(5, INITIAL));
        register.publish(Status::stable(6, INITIAL));
        assert_eq!(register.read().1.epoch, 6);
    }

    #[test]
    fn a_status_without_a_store_that_takes_launches_is_refused() {
        let register = Register::new(Status::stable(1, INITIAL));
        let both_closed = Status { initial_status: StoreStatus::Closed, ..Status::stable(2, INITIAL) };
        let no_target = Status { target_status: StoreStatus::Open, ..both_closed };
        for status in [both_closed, no_target] {
            let said = panic_of(|| register.publish(status));
            assert!(said.contains("a store that takes launches"), "{said}");
        }
        assert_eq!(register.read().1, Status::stable(1, INITIAL));
    }

    #[test]
    fn readers_beside_a_writer_see_only_what_was_published_and_never_go_back() {
        let rounds = if cfg!(miri) { 100 } else { 20_000 };
        // The parts of each status follow from its epoch, so a mixture of two would show.
        let made = |epoch: u64| Status {
            phase: Phase::ALL[epoch as usize % 7],
            target: Some(StoreId(epoch as u32 * 3)),
            target_status: StoreStatus::Open,
            ..Status::stable(epoch, StoreId(epoch as u32 * 2))
        };
        let register = Register::new(made(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let (_, status) = register.read();
                        assert_eq!(status, made(status.epoch));
                        assert!(status.epoch >= last);
                        last = status.epoch;
                    }
                });
            }
            scope.spawn(|| {
                (1..=rounds).for_each(|epoch| register.publish(made(epoch)));
                done.store(true, Ordering::Relaxed);
            });
        });
        assert_eq!(register.read().1, made(rounds));
    }
}
