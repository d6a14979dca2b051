//! What the threads of a run tell each other apart from chunks: stop, reopen, why it failed, how it stands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;

use super::age::Ages;
use super::books::Books;
use super::commit::Alarm;
use super::latency::Latencies;
use crate::exit::Failure;

/// Shared by the workers, the signal thread and the reporter.
#[derive(Debug)]
pub struct Control {
    /// Read no more, and wait for no room. Written by the signal thread, by a signal during the start, and by a worker that
    /// failed; read by the reader and by whoever waits; orders nothing else.
    stop: Arc<AtomicBool>,
    /// Reopen the outputs. Written by the signal thread, taken by the writer. With fences, so that it is not
    /// overlooked by both: who asks finds the writer free, or whoever has it finds this when they leave it.
    reopen: AtomicBool,
    /// Gets the reader out of its wait.
    waker: Waker,
    /// The first failure; the later ones are its consequences.
    failure: Mutex<Option<Failure>>,
    books: Mutex<Books>,
    pub ages: Mutex<Ages>,
    pub latencies: Mutex<Latencies>,
    pub follows: Follows,
    /// Rings when what is out is to be committed.
    pub alarm: Alarm,
}

/// What happened to files that are followed. Written by the reader, read by whoever reports; relaxed, as they order
/// nothing.
#[derive(Debug, Default)]
pub struct Follows {
    replaced: AtomicU64,
    truncated: AtomicU64,
}

impl Follows {
    pub fn count_replaced(&self) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_truncated(&self) {
        self.truncated.fetch_add(1, Ordering::Relaxed);
    }

    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    pub fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }
}

impl Control {
    pub fn new(waker: Waker, ages: Ages, stop: Arc<AtomicBool>) -> Self {
        Self {
            stop,
            reopen: AtomicBool::new(false),
            waker,
            failure: Mutex::default(),
            books: Mutex::default(),
            ages: Mutex::new(ages),
            latencies: Mutex::new(Latencies::new()),
            follows: Follows::default(),
            alarm: Alarm::default(),
        }
    }

    /// Asks the reader to stop, also when it waits.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // When it fails, the reader finds out at its next read.
        let _ = self.waker.wake();
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn ask_to_reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether somebody asked; to be asked after the writer was left.
    pub fn wants_reopen(&self) -> bool {
        fence(Ordering::SeqCst);
        self.reopen.load(Ordering::Relaxed)
    }

    pub fn take_reopen(&self) -> bool {
        self.reopen.load(Ordering::Relaxed) && self.reopen.swap(false, Ordering::Relaxed)
    }

    pub fn fail(&self, failure: Failure) {
        lock(&self.failure).get_or_insert(failure);
    }

    pub fn take_failure(&self) -> Option<Failure> {
        lock(&self.failure).take()
    }

    /// Shows how the books stand after a chunk.
    pub fn publish(&self, books: &Books) {
        lock(&self.books).clone_from(books);
    }

    pub fn books(&self) -> Books {
        lock(&self.books).clone()
    }
}

/// Locks, also after a panic: what these locks hold is whole at all times.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
