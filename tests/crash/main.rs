//! Every crash point, and every I/O error, of scripted migrations.
//!
//! A [script](script) is a list of calls that one thread makes on an engine without threads of its own, whose stores and files are in
//! memory behind [`cutover::fault`]. So it takes the same durable steps in every run, and they can be counted and swept: a run for
//! each step that crashes there, before it, after it and, where a file is written, in the middle of it. What is found after
//! that is held against the [books](books), which know what was acknowledged and what is in doubt; then the script goes on to its end,
//! and is held against them again. And with a second crash inside the recovery and after it.
//!
//! - `cargo test --workspace --test crash` sweeps all single crashes and all I/O errors, and a sample of the second crashes.
//! - `CUTOVER_SWEEP=recovery` makes every second crash inside a recovery, and one in 50 of those after it; `CUTOVER_SWEEP=full` makes all of
//!   them, and all ways in which two stores lose a tail each.
//! - `CUTOVER_ABORTS=500` aborts so many real processes from RocksDB to sled and as many back; `CUTOVER_SEED` repeats a sample.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

#[cfg(all(feature = "rocksdb", feature = "sled"))]
mod aborting;
mod books;
mod check;
mod errors;
mod losses;
mod machine;
mod rows;
mod script;
mod scripts;
mod sweep;
mod world;
