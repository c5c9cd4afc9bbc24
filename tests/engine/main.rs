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
mod copying;
mod crowded;
mod deciding;
mod disks;
mod doubtful;
mod extremes;
mod flipping;
#[cfg(all(target_os = "linux", feature = "rocksdb", feature = "sled"))]
mod full;
mod hammer;
mod handing;
mod hanging;
#[cfg(target_os = "linux")]
mod hostile;
mod instances;
mod interrupted;
mod launching;
mod layouts;
#[cfg(unix)]
mod limits;
mod mending;
mod migrating;
#[cfg(target_os = "linux")]
#[cfg_attr(
    not(all(feature = "rocksdb", feature = "sled")),
    expect(dead_code, reason = "`full` fills disks, which needs real stores")
)]
mod mounts;
mod moving;
#[cfg(all(target_os = "linux", feature = "sled"))]
mod overload;
mod panicking;
mod phases;
#[cfg(feature = "proxy")]
mod proxied;
mod refusals;
#[cfg(all(feature = "rocksdb", feature = "sled"))]
mod removing;
mod requests;
mod restarting;
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the formats")]
#[path = "../../storage-formats/tests/common/mod.rs"]
mod rows;
mod runners;
mod runs_once;
mod saving;
mod secrets;
mod services;
mod steps;
mod swept;
mod tenants;
mod waves;
mod zombies;
