//! Damage and time: bytes that are not those that were written, and clocks that jump.
//!
//! Nearly everything here runs on the memory store, whose rows a [`tap::Tap`] can damage under a running engine; the files of the stores
//! that keep some are damaged in `tests/stores`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

#[cfg(all(feature = "rocksdb", feature = "sled"))]
mod blocks;
mod clocks;
#[cfg(target_os = "linux")]
mod faketime;
mod metadata;
mod quarantine;
mod rows;
mod tap;
