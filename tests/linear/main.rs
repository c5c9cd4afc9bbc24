//! Histories of real runs, key by key, against one store (I10): eight threads on a few keys while the tenant moves, goes back, and
//! the engine is closed, killed and opened again.
//!
//! The quick form runs with the other tests. `CUTOVER_LINEAR_SECONDS=600 cargo test --workspace --test linear -- --nocapture` runs longer; `CUTOVER_SEED`
//! repeats the choices of a run, though not what the machine made of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

mod checker;
mod checking;
mod history;
mod load;
mod runs;
mod spec;
