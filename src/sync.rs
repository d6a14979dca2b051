//! The one door to atomics and locks that a model explores: `std`, or `loom` when built with `--cfg loom`.
//!
//! What two threads touch in the set and in the queue is imported from here, so that a model runs the code that ships and
//! not a copy of it.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
