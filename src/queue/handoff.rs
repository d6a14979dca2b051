//! [`Handoff`]: who does what next.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crossbeam::utils::CachePadded;

use super::bounded::Bounded;
use super::parking::Parking;
use super::ring::Ring;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(all(test, loom))]
#[path = "models.rs"]
mod models;
#[cfg(all(test, not(loom)))]
#[path = "tests.rs"]
mod tests;

/// Hands a fixed set of reusable items through three stages: fill, transform, emit.
///
/// Filling and emitting are each done by one thread at a time; transforming by as many as there are. Items are emitted
/// in the order in which they were submitted. Threads run the same loop: ask [`Handoff::next`] for work, do it, end the
/// guard, ask again. A thread that stops asking before it was told [`Work::Done`] must call [`Handoff::close`]: other
/// threads may sleep and count on it.
///
/// Not for passing values between two threads; a channel does that with less. This is for a pool whose threads share
/// all stages.
///
/// # Cost
///
/// A few atomic operations per item and stage. No allocation after [`Handoff::new`]. A lock is taken only by a thread
/// that found no work, and to wake it.
///
/// # Example
///
/// ```
/// use dedupd::queue::{Handoff, Work};
///
/// let handoff = Handoff::new((0..4).map(|_| 0_u64));
/// let (mut next, mut sum) = (1..=10, 0);
/// loop {
///     match handoff.next() {
///         Work::Fill(mut item) => match next.next() {
///             Some(n) => { *item = n; item.submit() }
///             None => item.finish(),
///         },
///         Work::Transform(mut item) => { *item *= 2; item.complete() }
///         Work::Emit(item) => sum += *item,
///         Work::Done => break,
///     }
/// }
/// assert_eq!(sum, 110);
/// ```
pub struct Handoff<T: Send> {
    /// Items that nobody uses.
    free: Bounded<Box<T>>,
    /// Submitted items and their numbers.
    raw: Bounded<(u64, Box<T>)>,
    /// Transformed items, waiting for their turn.
    ready: Ring<T>,
    filling: Role,
    emitting: Role,
    /// Items submitted so far. Written by the holder of `filling` (release), read by all (acquire).
    submitted: CachePadded<AtomicU64>,
    /// Items emitted so far, and so the number of the next. Written by the holder of `emitting` (release), read by all
    /// (acquire).
    emitted: CachePadded<AtomicU64>,
    /// [`OPEN`], [`FINISHED`] or [`CLOSED`]; only ever grows. Written by anyone (release), read by all (acquire).
    phase: AtomicU32,
    parking: Parking,
}

/// The next thing to do.
///
/// Complete on purpose: a worker's loop has an arm for each.
#[derive(Debug)]
#[must_use = "work that is not done closes the hand-off"]
pub enum Work<'h, T: Send> {
    /// An item to emit; the next in order. The only one of its kind at a time.
    Emit(Emit<'h, T>),
    /// An item to work on.
    Transform(Transform<'h, T>),
    /// An item to fill. The only one of its kind at a time.
    Fill(Fill<'h, T>),
    /// All that was submitted before [`Fill::finish`] is emitted, or the hand-off was closed.
    Done,
}

impl<T: Send> Handoff<T> {
    /// A hand-off of these items; their number is the limit on what is under way. Without items it is done at once.
    pub fn new(items: impl IntoIterator<Item = T>) -> Self {
        let items: Vec<Box<T>> = items.into_iter().map(Box::new).collect();
        let capacity = items.len().max(1);
        let phase = if items.is_empty() { FINISHED } else { OPEN };
        let free = Bounded::new(capacity);
        for item in items {
            let _ = free.push(item);
        }
        Self {
            free,
            raw: Bounded::new(capacity),
            ready: Ring::new(capacity),
            filling: Role::default(),
            emitting: Role::default(),
            submitted: CachePadded::new(AtomicU64::new(0)),
            emitted: CachePadded::new(AtomicU64::new(0)),
            phase: AtomicU32::new(phase),
            parking: Parking::new(),
        }
    }

    /// The most downstream work there is. Sleeps until there is some.
    pub fn next(&self) -> Work<'_, T> {
        loop {
            if let Some(work) = self.claim() {
                return work;
            }
            let ticket = self.parking.ticket();
            if let Some(work) = self.claim() {
                self.parking.cancel(ticket);
                return work;
            }
            self.parking.wait(ticket);
        }
    }

    /// Tells every thread that it is done, whatever is still under way.
    pub fn close(&self) {
        self.phase.store(CLOSED, Ordering::Release);
        if self.parking.anyone() {
            self.parking.wake_all();
        }
    }

    /// Whether [`Handoff::close`] was called, or a guard was lost to a panic.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase.load(Ordering::Acquire) == CLOSED
    }

    /// Takes work, and sees to it that somebody takes what is left. This is the only place that wakes: all that a guard
    /// makes possible is found by the thread that ended it, when it asks for its next work.
    fn claim(&self) -> Option<Work<'_, T>> {
        let work = self.claim_quietly()?;
        if self.parking.anyone() {
            match work {
                Work::Done => self.parking.wake_all(),
                _ if self.has_work() => self.parking.wake_one(),
                _ => {}
            }
        }
        Some(work)
    }

    fn claim_quietly(&self) -> Option<Work<'_, T>> {
        if self.is_done() {
            return Some(Work::Done);
        }
        if let Some(emit) = self.claim_emit() {
            return Some(Work::Emit(emit));
        }
        if let Some((number, item)) = self.raw.pop() {
            return Some(Work::Transform(Transform { handoff: self, number, item: Some(item) }));
        }
        self.claim_fill().map(Work::Fill)
    }

    fn claim_emit(&self) -> Option<Emit<'_, T>> {
        if !self.has_emit() || !self.emitting.take() {
            return None;
        }
        // Asked again now that nobody else emits: whoever closed it while emitting left the role after that, so the item
        // after the one that was given up on is not emitted.
        let item = if self.is_closed() { None } else { self.ready.take(self.emitted.load(Ordering::Acquire)) };
        if item.is_none() {
            self.emitting.leave();
        }
        item.map(|item| Emit { handoff: self, item: Some(item) })
    }

    fn claim_fill(&self) -> Option<Fill<'_, T>> {
        if !self.has_fill() || !self.filling.take() {
            return None;
        }
        let item = if self.is_open() { self.free.pop() } else { None };
        if item.is_none() {
            self.filling.leave();
        }
        item.map(|item| Fill { handoff: self, item: Some(item) })
    }

    fn has_work(&self) -> bool {
        self.is_done() || self.has_emit() || !self.raw.is_empty() || self.has_fill()
    }

    fn has_emit(&self) -> bool {
        self.emitting.is_free() && self.ready.has(self.emitted.load(Ordering::Acquire))
    }

    fn has_fill(&self) -> bool {
        self.is_open() && self.filling.is_free() && !self.free.is_empty()
    }

    fn is_open(&self) -> bool {
        self.phase.load(Ordering::Acquire) == OPEN
    }

    fn is_done(&self) -> bool {
        match self.phase.load(Ordering::Acquire) {
            OPEN => false,
            FINISHED => self.emitted.load(Ordering::Acquire) == self.submitted.load(Ordering::Acquire),
            _ => true,
        }
    }

    /// Puts an item back. There is room: the pool was made for all items.
    fn recycle(&self, item: Option<Box<T>>) {
        if let Some(item) = item {
            let refused = self.free.push(item);
            debug_assert!(refused.is_ok(), "an item too many");
        }
    }

    fn close_if_panicking(&self) {
        if std::thread::panicking() {
            self.close();
        }
    }
}

impl<T: Send> fmt::Debug for Handoff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff").field("ready", &self.ready).finish_non_exhaustive()
    }
}

/// The role of filling items, with one to fill. Dropping it puts the item back, as if nothing had come.
#[must_use = "dropping it puts the item back"]
pub struct Fill<'h, T: Send> {
    handoff: &'h Handoff<T>,
    item: Option<Box<T>>,
}

impl<T: Send> Fill<'_, T> {
    /// Passes the item on, next in order.
    pub fn submit(mut self) {
        let Some(item) = self.item.take() else { return };
        let number = self.handoff.submitted.load(Ordering::Relaxed);
        self.handoff.submitted.store(number + 1, Ordering::Release);
        let refused = self.handoff.raw.push((number, item));
        debug_assert!(refused.is_ok(), "an item too many");
    }

    /// Says that nothing more will come. The item at hand is not passed on.
    pub fn finish(self) {
        // Before the role is left, so whoever takes it next sees it.
        let _ = self.handoff.phase.compare_exchange(OPEN, FINISHED, Ordering::Release, Ordering::Relaxed);
    }
}

impl<T: Send> Drop for Fill<'_, T> {
    fn drop(&mut self) {
        self.handoff.close_if_panicking();
        self.handoff.recycle(self.item.take());
        self.handoff.filling.leave();
    }
}

/// An item to work on. Dropping it without [`Transform::complete`] closes the hand-off, because order could not be kept.
#[must_use = "dropping it closes the hand-off"]
pub struct Transform<'h, T: Send> {
    handoff: &'h Handoff<T>,
    number: u64,
    item: Option<Box<T>>,
}

impl<T: Send> Transform<'_, T> {
    /// Lines the item up to be emitted.
    pub fn complete(mut self) {
        if let Some(item) = self.item.take() {
            self.handoff.ready.put(self.number, item);
        }
    }
}

impl<T: Send> Drop for Transform<'_, T> {
    fn drop(&mut self) {
        if self.item.is_some() {
            self.handoff.close();
        }
    }
}

/// The next item in order. Dropping it makes it free to be filled again.
#[must_use = "dropping it makes it free to be filled again"]
pub struct Emit<'h, T: Send> {
    handoff: &'h Handoff<T>,
    item: Option<Box<T>>,
}

impl<T: Send> Drop for Emit<'_, T> {
    fn drop(&mut self) {
        // Before the role is left, so whoever takes it next sees it.
        self.handoff.close_if_panicking();
        let emitted = self.handoff.emitted.load(Ordering::Relaxed);
        self.handoff.emitted.store(emitted + 1, Ordering::Release);
        self.handoff.recycle(self.item.take());
        self.handoff.emitting.leave();
    }
}

/// Something that one thread does at a time.
#[derive(Debug, Default)]
struct Role {
    /// Written by the thread that takes it (acquire) and leaves it (release), which hands over all that was done in it.
    taken: CachePadded<AtomicBool>,
}

impl Role {
    fn take(&self) -> bool {
        self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn leave(&self) {
        self.taken.store(false, Ordering::Release);
    }

    fn is_free(&self) -> bool {
        !self.taken.load(Ordering::Relaxed)
    }
}

/// Both ends of a guard that lends its item.
macro_rules! lends_its_item {
    ($guard:ident) => {
        impl<T: Send> Deref for $guard<'_, T> {
            type Target = T;

            #[allow(clippy::expect_used, reason = "the item is taken only by methods that consume the guard")]
            fn deref(&self) -> &T {
                self.item.as_ref().expect("a guard holds its item")
            }
        }

        impl<T: Send> DerefMut for $guard<'_, T> {
            #[allow(clippy::expect_used, reason = "the item is taken only by methods that consume the guard")]
            fn deref_mut(&mut self) -> &mut T {
                self.item.as_mut().expect("a guard holds its item")
            }
        }

        impl<T: Send> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($guard)).finish_non_exhaustive()
            }
        }
    };
}

lends_its_item!(Fill);
lends_its_item!(Transform);
lends_its_item!(Emit);

/// Items may be filled.
const OPEN: u32 = 0;
/// No more will be filled; what is under way is emitted.
const FINISHED: u32 = 1;
/// Nothing more is done.
const CLOSED: u32 = 2;
