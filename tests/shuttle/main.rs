//! The whole engine on the memory store, under a scheduler that decides at every lock, atomic and condition who runs next.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --no-default-features --test shuttle -- --nocapture
//! ```
//!
//! `CUTOVER_SCHEDULES=10000` runs so many schedules of each scenario, half of them by a random walk and half by PCT. `CUTOVER_SEED` repeats
//! the schedules of a run. A schedule that fails is written to a file, and `CUTOVER_REPLAY=FILE` with the name of the
//! scenario runs it again, step by step the same.

#![cfg(shuttle)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

#[path = "../linear/checker.rs"]
mod checker;
mod defining;
mod handing;
#[path = "../linear/history.rs"]
mod history;
mod launching;
#[path = "../linear/load.rs"]
mod load;
mod pairs;
mod schedules;
mod settling;
#[path = "../linear/spec.rs"]
mod spec;
mod stores;
mod world;
