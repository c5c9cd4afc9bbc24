//! The engine as its users see it. On the memory store where the store does not matter, on all of them where it does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

#[cfg(all(feature = "rocksdb", feature = "sled"))]
mod aborting;
#[cfg(all(feature = "rocksdb", feature = "sled"))]
mod child;
mod common;
mod doubtful;
mod extremes;
mod hammer;
mod instances;
mod launching;
mod layouts;
mod migrating;
mod panicking;
mod phases;
mod refusals;
#[cfg(all(feature = "rocksdb", feature = "sled"))]
mod removing;
mod requests;
mod restarting;
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the formats")]
#[path = "../../storage-formats/tests/common/mod.rs"]
mod rows;
mod steps;
mod swept;
mod tenants;
