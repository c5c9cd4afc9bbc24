//! The status of a tenant in memory: what it is now, and whether everybody who acted on the last one has
//! finished.
//!
//! Two questions, two mechanisms:
//!
//! - [`Register`] answers *what is the status now*, as one consistent value: a seqlock over atomic words
//!   (`seqlock.rs`), a cache of the durable record and never ahead of it.
//! - [`Pins`] answer *who may still act on an older one*: every operation that depends on the status holds a
//!   [`Pin`] from before it reads until after it commits, and a transition that all must see publishes and
//!   then waits until every pin taken before is gone (`slots.rs`).
//!
//! A transition is therefore always: persist, publish, wait, act. An operation is always: pin, read, lock, check
//! that the status is [unchanged](Register::unchanged), commit, unlock, unpin.
//!
//! Both cores are generic over the orderings that they use. Production has the one instance `Strong`; the
//! model (`model.rs`, run by loom) also makes one with each ordering weakened and shows that it fails.

mod pins;
mod register;
mod seqlock;
mod slots;
mod sync;

#[cfg(test)]
#[cfg(loom)]
mod model;

pub use pins::{Holder, Pin, Pins, Wait, Waiting};
pub use register::Register;
pub use seqlock::Seq;
