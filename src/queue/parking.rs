//! Where threads without work sleep: an event count.
//!
//! A thread that found no work takes a ticket, looks once more, and only then sleeps. Whoever made work first changes
//! the shared state, then asks whether anybody holds a ticket. A fence on both sides makes one of the two see the other:
//! either the sleeper's second look finds the work, or the waker finds the sleeper. The lock is taken only to sleep and
//! to wake, never while there is work.

use std::sync::PoisonError;

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, fence};

#[derive(Debug)]
pub(super) struct Parking {
    /// Threads that hold a ticket. Written by them, read by wakers; ordered by the fences in `ticket` and `anyone`.
    waiting: CachePadded<AtomicUsize>,
    /// How many times somebody was woken.
    wakes: Mutex<u64>,
    woken: Condvar,
}

/// The right to sleep until the next wake after it was drawn.
#[must_use = "a ticket is used to wait or is given back"]
pub(super) struct Ticket {
    wakes: u64,
}

impl Parking {
    pub(super) fn new() -> Self {
        Self { waiting: CachePadded::new(AtomicUsize::new(0)), wakes: Mutex::new(0), woken: Condvar::new() }
    }

    /// Announces the wish to sleep. Look for work once more before [`Parking::wait`].
    pub(super) fn ticket(&self) -> Ticket {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let wakes = *self.wakes();
        fence(Ordering::SeqCst);
        Ticket { wakes }
    }

    /// Gives the ticket back unused.
    pub(super) fn cancel(&self, _ticket: Ticket) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sleeps until the first wake after the ticket was drawn.
    pub(super) fn wait(&self, ticket: Ticket) {
        let mut wakes = self.wakes();
        while *wakes == ticket.wakes {
            wakes = self.woken.wait(wakes).unwrap_or_else(PoisonError::into_inner);
        }
        drop(wakes);
        self.cancel(ticket);
    }

    /// Whether anybody sleeps or is about to. What the caller changed before this is seen by whoever it does not see.
    pub(super) fn anyone(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn wake_one(&self) {
        *self.wakes() += 1;
        self.woken.notify_one();
    }

    pub(super) fn wake_all(&self) {
        *self.wakes() += 1;
        self.woken.notify_all();
    }

    fn wakes(&self) -> MutexGuard<'_, u64> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
