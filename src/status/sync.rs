//! What the cores of this module are built from: the crate's primitives, or loom's when the model runs.

#[cfg(loom)]
pub(super) use loom::{
    hint::spin_loop,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering, fence},
    },
    thread::yield_now,
};

#[cfg(not(loom))]
pub(super) use crate::sync::{
    StdMutex as Mutex, StdMutexGuard as MutexGuard,
    atomic::{AtomicU64, Ordering, fence},
    spin_loop,
    thread::yield_now,
};

use std::sync::PoisonError;

/// Locks, also after a panic of another holder: what these mutexes guard is whole between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
