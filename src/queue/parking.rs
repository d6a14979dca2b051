//! Where threads without work sleep: an event count.
//!
//! A thread that found no work takes a ticket, looks once more, and only then sleeps. Whoever made work first changes
//! the shared state, then asks whether anybody holds a ticket. A fence on both sides makes one of the two see the other:
//! either the sleeper's second look finds the work, or the waker finds the sleeper. The lock is taken only to sleep and
//! to wake, never while there is work.

use std::sync::PoisonError;
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, fence};

#[derive(Debug)]
pub(super) struct Parking {
    /// Threads that hold a ticket. Written by them, read by wakers; ordered by the fences in `ticket` and `anyone`.
    waiting: CachePadded<AtomicUsize>,
    sleepers: Mutex<Sleepers>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Sleepers {
    /// How many times somebody was woken.
    wakes: u64,
    /// Tasks that wait as threads do; each holds a ticket.
    tasks: Vec<Waker>,
}

/// The right to sleep until the next wake after it was drawn.
#[must_use = "a ticket is used to wait or is given back"]
pub(super) struct Ticket {
    wakes: u64,
}

impl Parking {
    pub(super) fn new() -> Self {
        let sleepers = Mutex::new(Sleepers::default());
        Self { waiting: CachePadded::new(AtomicUsize::new(0)), sleepers, woken: Condvar::new() }
    }

    /// Announces the wish to sleep. Look for work once more before [`Parking::wait`].
    pub(super) fn ticket(&self) -> Ticket {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let wakes = self.sleepers().wakes;
        fence(Ordering::SeqCst);
        Ticket { wakes }
    }

    /// Gives the ticket back unused.
    pub(super) fn cancel(&self, _ticket: Ticket) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sleeps until the first wake after the ticket was drawn.
    pub(super) fn wait(&self, ticket: Ticket) {
        let mut sleepers = self.sleepers();
        while sleepers.wakes == ticket.wakes {
            sleepers = self.woken.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
        drop(sleepers);
        self.cancel(ticket);
    }

    /// Sleeps until the first wake after the ticket was drawn, at most for `limit`.
    pub(super) fn wait_for(&self, ticket: Ticket, limit: Duration) {
        let end = Instant::now() + limit;
        let mut sleepers = self.sleepers();
        while sleepers.wakes == ticket.wakes {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            sleepers = self.woken.wait_timeout(sleepers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(sleepers);
        self.cancel(ticket);
    }

    /// Has a task woken as a thread would be: by the next wake, once. Look for work once more after it.
    pub(super) fn register(&self, task: Waker) {
        let mut sleepers = self.sleepers();
        if !sleepers.tasks.iter().any(|other| other.will_wake(&task)) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            sleepers.tasks.push(task);
        }
        drop(sleepers);
        fence(Ordering::SeqCst);
    }

    /// Whether anybody sleeps or is about to. What the caller changed before this is seen by whoever it does not see.
    pub(super) fn anyone(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Wakes a thread, and all tasks.
    pub(super) fn wake_one(&self) {
        let tasks = self.next_wake();
        self.woken.notify_one();
        self.wake_tasks(tasks);
    }

    pub(super) fn wake_all(&self) {
        let tasks = self.next_wake();
        self.woken.notify_all();
        self.wake_tasks(tasks);
    }

    fn next_wake(&self) -> Vec<Waker> {
        let mut sleepers = self.sleepers();
        sleepers.wakes += 1;
        std::mem::take(&mut sleepers.tasks)
    }

    /// With no lock held: a waker is the caller's code.
    fn wake_tasks(&self, tasks: Vec<Waker>) {
        self.waiting.fetch_sub(tasks.len(), Ordering::Relaxed);
        tasks.into_iter().for_each(Waker::wake);
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
