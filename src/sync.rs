//! What threads meet in: locks, conditions, atomics, threads, and the clock they sleep by.
//!
//! Nobody else in the library names these (`tests/tidy.rs`). A build with `--cfg shuttle` gets shuttle's in their place, under
//! a scheduler that decides at every one of them who runs next; the scenarios are in `tests/shuttle`. Every other build names the real
//! ones here and pays nothing for it.
//!
//! Values that are only shared ([`Arc`](std::sync::Arc)) or only say how long ([`Duration`](std::time::Duration)) schedule nothing and are named
//! where they are used.

#[cfg(shuttle)]
mod shuttled;

#[cfg(shuttle)]
pub(crate) use shuttled::*;

#[cfg(not(shuttle))]
pub(crate) use real::*;

pub(crate) use crossbeam::utils::CachePadded;
/// For what belongs to the process and outlives every schedule: a constant in the long run, whoever writes it first. Never held while
/// anything else here is waited for.
pub(crate) use std::sync::Mutex as ProcessMutex;
/// Filled in by whoever comes first, without waiting for anybody else here.
pub(crate) use std::sync::OnceLock;

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::hash::RandomState;
    // Loom's take their place in the status, where alone they are used.
    #[cfg(not(loom))]
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic;
    /// For the status, which loom and Miri run too: loom has a model of this one, and Miri sees into it.
    #[cfg(not(loom))]
    pub(crate) use std::sync::{Mutex as StdMutex, MutexGuard as StdMutexGuard};
    pub(crate) use std::thread;
    pub(crate) use std::thread_local;
    pub(crate) use std::time::Instant;

    pub(crate) use crossbeam::channel;
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

    /// A number that nobody can tell beforehand.
    pub(crate) fn random() -> u64 {
        fastrand::u64(..)
    }
}
