//! An engine on the memory store, held against a plain sequential model of what it promises: any operations, moves, collections,
//! restarts, crashes and faults, one after the other in one thread.
//!
//! The tests call it with random bytes, the fuzz target `engine` with bytes that it chooses. `CUTOVER_TRACE=1` prints every operation and
//! its answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    reason = "part of a test, shared between a test and a fuzz target"
)]

mod deciding;
mod disks;
mod look;
pub mod ops;
mod run;
mod steer;
mod work;
mod world;

use ops::{Op, Setup};

/// What a run has seen, so that a test can say that it was worth something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Operations that were done.
    pub operations: u64,
    /// Instances that were launched.
    pub launched: u64,
    /// Changes of a status.
    pub moves: u64,
    /// Instances that were moved.
    pub relocated: u64,
    /// Calls of a store that failed.
    pub faults: u64,
    /// Times that the engine was opened.
    pub openings: u64,
    /// Decisions that were made.
    pub decided: u64,
    /// Operations after which several worlds were possible.
    pub in_doubt: u64,
}

/// Reads any bytes as a run and does it.
///
/// # Panics
/// If an answer contradicts the model.
pub fn play_bytes(bytes: &[u8]) -> Seen {
    let (setup, ops) = ops::decode(bytes);
    play(setup, &ops)
}

/// Does one operation after the other on a new engine, and at last winds everything down: what lives is ended, collected, and every
/// migration has to come to its end.
///
/// # Panics
/// If an answer contradicts the model.
pub fn play(setup: Setup, ops: &[Op]) -> Seen {
    let mut run = run::Run::new(setup);
    for op in ops {
        run.perform(op);
    }
    run.wind_down()
}
