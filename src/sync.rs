//! The one door to atomics, locks and threads that a model explores: `std`, or `loom` when built with `--cfg loom`.
//!
//! What two threads touch in the set, in the queue, in the log and between these is imported from here, so that a model runs the code that ships and
//! not a copy of it.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(loom)]
pub(crate) use loom::thread;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(shuttle)]
pub(crate) use shuttle::thread;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, RwLock,
    atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::thread;

/// For what is too large for loom, and is run whole under shuttle.
pub(crate) mod whole {
    #[cfg(shuttle)]
    pub(crate) use shuttle::{
        sync::{
            Condvar, Mutex, MutexGuard,
            atomic::{AtomicBool, Ordering},
        },
        thread::{self, JoinHandle},
    };
    #[cfg(not(shuttle))]
    pub(crate) use std::{
        sync::{
            Condvar, Mutex, MutexGuard,
            atomic::{AtomicBool, Ordering},
        },
        thread::{self, JoinHandle},
    };

    /// Whether joining it takes no time. Shuttle cannot tell, and has no time.
    pub(crate) fn is_finished(thread: &JoinHandle<()>) -> bool {
        #[cfg(shuttle)]
        let is_finished = std::mem::size_of_val(thread) > 0;
        #[cfg(not(shuttle))]
        let is_finished = thread.is_finished();
        is_finished
    }
}
