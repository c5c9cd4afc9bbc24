//! A seqlock without `unsafe`: N words that are read as one value, without a write by the reader.
//!
//! The sequence is even while the words stand still and odd while a writer changes them. A reader takes
//! the sequence, the words, and the sequence again; if both are equal and even, no writer was at work in
//! between and the words belong together. The words are atomics, because plain reads raced by a writer are
//! undefined behaviour even if they are thrown away afterwards.
//!
//! Why four orderings are needed, with W the writer and R the reader:
//!
//! | in W | in R | pair up so that |
//! |---|---|---|
//! | `fence(Release)` after odd | `fence(Acquire)` before the second look | if R saw a word of this write, its second look sees odd or later |
//! | even, `Release` | first look, `Acquire` | if R's first look saw this even, R sees all words of this write |
//!
//! The first pair keeps words of a *later* write out, the second one keeps words of an *earlier* write out.
//! Everything else is `Relaxed`. Writers exclude each other by a mutex, which also makes the words that the next
//! writer starts from those that the last one wrote.

use std::marker::PhantomData;

use super::sync::{AtomicU64, Mutex, Ordering, fence, lock, spin_loop, yield_now};

/// Names one written value: two reads with the same `Seq` saw the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seq(u64);

/// The orderings that the model weakens one by one; see the table above.
pub(super) trait Orders {
    const AFTER_ODD: bool;
    const EVEN: Ordering;
    const FIRST_LOOK: Ordering;
    const BEFORE_SECOND_LOOK: bool;
}

/// The orderings of production.
pub(super) struct Strong;

impl Orders for Strong {
    const AFTER_ODD: bool = true;
    const EVEN: Ordering = Ordering::Release;
    const FIRST_LOOK: Ordering = Ordering::Acquire;
    const BEFORE_SECOND_LOOK: bool = true;
}

/// How often a reader that meets a writer looks again before it gives up its time slice to it.
const SPINS: u32 = 64;

pub(super) struct SeqLock<const N: usize, O = Strong> {
    seq: AtomicU64,
    words: [AtomicU64; N],
    writer: Mutex<()>,
    orders: PhantomData<O>,
}

impl<const N: usize, O: Orders> SeqLock<N, O> {
    pub(super) fn new(words: [u64; N]) -> Self {
        Self {
            seq: AtomicU64::new(0),
            words: words.map(AtomicU64::new),
            writer: Mutex::new(()),
            orders: PhantomData,
        }
    }

    /// Replaces the words by what `next` makes of them. If `next` panics nothing has changed.
    pub(super) fn update(&self, next: impl FnOnce([u64; N]) -> [u64; N]) {
        let _writer = lock(&self.writer);
        // Relaxed: whoever wrote these held the mutex before us.
        let seq = self.seq.load(Ordering::Relaxed);
        let words = next(self.words.each_ref().map(|word| word.load(Ordering::Relaxed)));
        self.seq.store(seq + 1, Ordering::Relaxed);
        if O::AFTER_ODD {
            // Pairs with the fence in `try_read`: a reader that saw one of the words below sees odd, or later.
            fence(Ordering::Release);
        }
        for (to, from) in self.words.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        // Pairs with the first look in `try_read`: a reader that saw this even sees the words above.
        self.seq.store(seq + 2, O::EVEN);
    }

    /// The words, unless a writer is changing them now.
    pub(super) fn try_read(&self) -> Option<(Seq, [u64; N])> {
        // Pairs with the last store in `update`.
        let first = self.seq.load(O::FIRST_LOOK);
        let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
        if O::BEFORE_SECOND_LOOK {
            // Pairs with the fence in `update`.
            fence(Ordering::Acquire);
        }
        let second = self.seq.load(Ordering::Relaxed);
        (first == second && first.is_multiple_of(2)).then_some((Seq(first), words))
    }

    /// The words. Waits for a writer that is changing them now: a few stores, no I/O.
    pub(super) fn read(&self) -> (Seq, [u64; N]) {
        let mut tries = 0;
        loop {
            if let Some(read) = self.try_read() {
                return read;
            }
            tries += 1;
            if tries < SPINS { spin_loop() } else { yield_now() }
        }
    }

    /// One relaxed load; see [`Register::unchanged`](super::Register::unchanged) for why that is enough.
    pub(super) fn unchanged(&self, seq: Seq) -> bool {
        self.seq.load(Ordering::Relaxed) == seq.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
