//! [`Intake`]: a fixed pool of boxes that many producers fill for one consumer.
//!
//! ```text
//!            free (queue) ──▶ a producer's hand ⇄ its tray ──▶ full (queue) ──▶ consumer ──▶ free
//!                                                   └──────────(stolen)──────────▲
//! ```
//!
//! Ownership is the protocol: a box is in exactly one place, and whoever holds it owns it. The pool is the bound: a producer
//! that finds `free` empty waits. A producer keeps the box that it is filling in a [`Tray`] of its own, which costs it two
//! swaps; a consumer without work takes boxes out of the trays half full, so a lone event waits for no other, and while the
//! consumer is busy boxes fill up. Nobody needs a timer.
//!
//! *Order.* Boxes of one producer reach the consumer in the order in which they were opened. A box stolen from a tray may be
//! newer than one of the same producer that lies in `full`; so after the trays `full` is emptied, and all is put in order by the
//! producer's own count.
//!
//! *End.* [`Intake::close`] has producers refused from then on, and the consumer collects the pool: when it holds every box,
//! empty, no producer holds any, nor can one get hold of one. Until then what was put in is handed out. No memory order
//! between the closing and the last act of a producer has to be argued: the boxes are counted.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::bounded::Bounded;
use super::large::Large;
use super::parking::Parking;
use super::tray::Tray;
use super::wait::WaitStrategy;
use crate::sync::{AtomicU32, AtomicUsize, Mutex, MutexGuard, Ordering};

#[cfg(all(test, loom))]
#[path = "intake_models.rs"]
mod models;
#[cfg(all(test, not(loom)))]
#[path = "intake_tests.rs"]
mod tests;

/// The shared part: producers hold [`Feeder`]s, the consumer holds the [`Outlet`].
pub(crate) struct Intake<T> {
    free: Bounded<Box<Parcel<T>>>,
    full: Bounded<Box<Parcel<T>>>,
    parcels: usize,
    trays: Mutex<Vec<Arc<Tray<Parcel<T>>>>>,
    /// How often `trays` has changed. Written under its lock (release), read by the consumer (acquire).
    trays_version: AtomicUsize,
    /// [`OPEN`], [`CLOSED`] or [`BROKEN`]; only ever grows. Written by anyone (release), read by producers (acquire).
    phase: AtomicU32,
    wait: WaitStrategy,
    /// The consumer sleeps here.
    work: Parking,
    /// Producers sleep here.
    room: Parking,
    large: Large,
}

/// A box of the pool.
#[derive(Debug)]
pub(crate) struct Parcel<T> {
    pub(crate) item: T,
    /// Which tray it was filled in.
    feeder: usize,
    /// Which it is of that tray's.
    number: u64,
    /// Bytes that come back with it.
    large: usize,
}

impl<T> Parcel<T> {
    /// One that is of no pool.
    pub(crate) fn new(item: T) -> Self {
        Self { item, feeder: 0, number: 0, large: 0 }
    }
}

/// Why something was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// There is no room now.
    Full,
    /// Nothing is taken any more.
    Closed,
    /// Nothing is taken any more because the consumer is broken.
    Broken,
}

impl<T> Intake<T> {
    /// A pool of `items`, at least one, and its consuming end. Of what is large at most `large_bytes_max` bytes are in it, or
    /// one alone.
    pub(crate) fn new(
        items: impl IntoIterator<Item = T>,
        large_bytes_max: usize,
        wait: WaitStrategy,
    ) -> (Arc<Self>, Outlet<T>) {
        let items: Vec<_> = items.into_iter().map(|item| Box::new(Parcel::new(item))).collect();
        let parcels = items.len();
        let (free, full) = (Bounded::new(parcels.max(1)), Bounded::new(parcels.max(1)));
        for item in items {
            let _ = free.push(item);
        }
        let intake = Arc::new(Self {
            free,
            full,
            parcels,
            trays: Mutex::new(Vec::new()),
            trays_version: AtomicUsize::new(0),
            phase: AtomicU32::new(OPEN),
            wait,
            work: Parking::new(),
            room: Parking::new(),
            large: Large::new(large_bytes_max),
        });
        let outlet = Outlet {
            intake: Arc::clone(&intake),
            trays: Vec::new(),
            trays_version: 0,
            collected: Vec::new(),
            written_off: 0,
            is_busy: false,
        };
        (intake, outlet)
    }

    /// Another producer's end.
    pub(crate) fn feeder(self: &Arc<Self>) -> Feeder<T> {
        let tray = Arc::new(Tray::new());
        let mut trays = self.trays();
        trays.push(Arc::clone(&tray));
        let version = self.trays_version.load(Ordering::Relaxed) + 1;
        self.trays_version.store(version, Ordering::Release);
        drop(trays);
        // A consumer that sleeps does not watch this tray.
        self.wake_consumer();
        Feeder { intake: Arc::clone(self), tray, id: version, next_number: 0 }
    }

    /// Refuses producers from now on; the consumer finishes what was taken.
    pub(crate) fn close(&self) {
        self.end(CLOSED);
    }

    /// The same, because the consumer cannot go on.
    pub(crate) fn break_off(&self) {
        self.end(BROKEN);
    }

    /// Wakes the consumer for something that it looks at besides its queue.
    pub(crate) fn wake_consumer(&self) {
        if self.work.anyone() {
            self.work.wake_all();
        }
    }

    /// Whether a producer is refused, and why.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self.phase.load(Ordering::Acquire) {
            OPEN => None,
            CLOSED => Some(Refusal::Closed),
            _ => Some(Refusal::Broken),
        }
    }

    /// Ready when there is room, or when there will never be any.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let has_room = || !self.free.is_empty() && self.large.has_room() || self.refusal().is_some();
        if has_room() {
            return Poll::Ready(());
        }
        self.room.register(context.waker().clone());
        if has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes out what the consumer will not: it does not come back.
    pub(crate) fn take_down(&self) -> Vec<Box<Parcel<T>>> {
        let trays = self.trays();
        let mut parcels: Vec<_> = trays.iter().filter_map(|tray| tray.steal()).collect();
        drop(trays);
        while let Some(parcel) = self.full.pop() {
            parcels.push(parcel);
        }
        parcels
    }

    fn end(&self, phase: u32) {
        // A broken one stays so.
        let _ = self.phase.compare_exchange(OPEN, phase, Ordering::AcqRel, Ordering::Relaxed);
        if phase == BROKEN {
            self.phase.store(BROKEN, Ordering::Release);
        }
        if self.work.anyone() {
            self.work.wake_all();
        }
        for room in [&self.room, &self.large.room] {
            if room.anyone() {
                room.wake_all();
            }
        }
    }

    fn free_parcel(&self, waits: bool) -> Result<Box<Parcel<T>>, Refusal> {
        match self.try_parcel() {
            Some(result) => result,
            None if waits => self.wait_for(&self.room, || self.try_parcel()),
            None => Err(Refusal::Full),
        }
    }

    /// Takes bytes for something large; they come back with its box.
    fn take_large(&self, bytes: usize, waits: bool) -> Result<(), Refusal> {
        let turn = if waits { Some(self.large.turn()) } else { self.large.try_turn() };
        let Some(turn) = turn else {
            self.large.refuse(bytes);
            return self.refusal().map_or(Err(Refusal::Full), Err);
        };
        let take = || match self.refusal() {
            Some(refusal) => Some(Err(refusal)),
            None => turn.try_take(bytes).then_some(Ok(())),
        };
        if let Some(result) = take() {
            return result;
        }
        // What it has may be waiting for a commit that is not due yet.
        self.wake_consumer();
        if waits { self.wait_for(&self.large.room, take) } else { Err(Refusal::Full) }
    }

    /// Whether somebody was refused bytes for something large, and nobody was given any since.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.large.is_wanted()
    }

    fn give_back_large(&self, bytes: usize) {
        self.large.give_back(bytes);
        // A task may wait for that.
        if self.room.anyone() {
            self.room.wake_all();
        }
    }

    /// Waits until `look` finds something.
    fn wait_for<R>(&self, room: &Parking, look: impl Fn() -> Option<R>) -> R {
        loop {
            if let Some(result) = self.wait.look(&look) {
                return result;
            }
            if self.wait == WaitStrategy::Park {
                let ticket = room.ticket();
                if let Some(result) = look() {
                    room.cancel(ticket);
                    return result;
                }
                room.wait(ticket);
            }
        }
    }

    /// `None` when there is no free one now.
    fn try_parcel(&self) -> Option<Result<Box<Parcel<T>>, Refusal>> {
        let parcel = self.free.pop();
        match (parcel, self.refusal()) {
            (Some(parcel), None) => Some(Ok(parcel)),
            (parcel, Some(refusal)) => {
                parcel.into_iter().for_each(|parcel| self.give_back(parcel));
                Some(Err(refusal))
            }
            (None, None) => None,
        }
    }

    fn give_back(&self, parcel: Box<Parcel<T>>) {
        let refused = self.free.push(parcel);
        debug_assert!(refused.is_ok(), "a parcel too many");
        if self.room.anyone() {
            self.room.wake_one();
        }
        // It may be the last that the consumer waits for.
        if self.refusal().is_some() {
            self.wake_consumer();
        }
    }

    fn pass_on(&self, parcel: Box<Parcel<T>>) {
        let refused = self.full.push(parcel);
        debug_assert!(refused.is_ok(), "a parcel too many");
    }

    fn trays(&self) -> MutexGuard<'_, Vec<Arc<Tray<Parcel<T>>>>> {
        self.trays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Intake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("parcels", &self.parcels).field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// A producer's end: one thread's at a time.
pub(crate) struct Feeder<T> {
    intake: Arc<Intake<T>>,
    tray: Arc<Tray<Parcel<T>>>,
    id: usize,
    next_number: u64,
}

impl<T> Feeder<T> {
    /// Has `put` put something into the box at hand. When `put` says that it does not fit, the box is passed on and the next
    /// one is opened; an empty one takes anything.
    ///
    /// Waits for room when `waits`.
    pub(crate) fn feed(&mut self, waits: bool, put: impl FnMut(&mut T) -> bool) -> Result<(), Refusal> {
        match self.intake.refusal() {
            Some(refusal) => Err(refusal),
            None => self.feed_open(0, waits, put),
        }
    }

    /// [`Feeder::feed`] with one thing of so many bytes, which come back with its box.
    pub(crate) fn feed_large(
        &mut self,
        bytes: usize,
        waits: bool,
        put: impl FnMut(&mut T) -> bool,
    ) -> Result<(), Refusal> {
        self.intake.take_large(bytes, waits)?;
        self.feed_open(bytes, waits, put).inspect_err(|_| self.intake.give_back_large(bytes))
    }

    #[inline]
    fn feed_open(&mut self, large: usize, waits: bool, mut put: impl FnMut(&mut T) -> bool) -> Result<(), Refusal> {
        let mut taken = self.tray.take();
        loop {
            if let Some(mut parcel) = taken.item.take() {
                if put(&mut parcel.item) {
                    parcel.large += large;
                    taken.item = Some(parcel);
                    break;
                }
                self.intake.pass_on(parcel);
            }
            let next = match self.intake.free_parcel(false) {
                Err(Refusal::Full) if waits => {
                    // What was passed on must be seen before this thread sleeps.
                    self.put_back(None, taken.is_watched);
                    let waited = self.intake.free_parcel(true);
                    taken = self.tray.take();
                    waited
                }
                next => next,
            };
            match next {
                Ok(parcel) => taken.item = Some(self.number(parcel)),
                Err(refusal) => {
                    self.put_back(None, taken.is_watched);
                    return Err(refusal);
                }
            }
        }
        self.put_back(taken.item, taken.is_watched);
        Ok(())
    }

    /// Nothing is taken any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.intake.refusal().is_some()
    }

    fn number(&mut self, mut parcel: Box<Parcel<T>>) -> Box<Parcel<T>> {
        (parcel.feeder, parcel.number) = (self.id, self.next_number);
        self.next_number += 1;
        parcel
    }

    fn put_back(&self, parcel: Option<Box<Parcel<T>>>, is_watched: bool) {
        if self.tray.put(parcel) || is_watched {
            self.intake.wake_consumer();
        }
    }
}

/// What is in the tray is passed on.
impl<T> Drop for Feeder<T> {
    fn drop(&mut self) {
        let taken = self.tray.take();
        taken.item.into_iter().for_each(|parcel| self.intake.pass_on(parcel));
        self.put_back(None, true);
        let mut trays = self.intake.trays();
        trays.retain(|tray| !Arc::ptr_eq(tray, &self.tray));
        let version = self.intake.trays_version.load(Ordering::Relaxed) + 1;
        self.intake.trays_version.store(version, Ordering::Release);
    }
}

impl<T> fmt::Debug for Feeder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeder").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The consumer's end.
pub(crate) struct Outlet<T> {
    intake: Arc<Intake<T>>,
    /// As they were when `trays_version` was read.
    trays: Vec<Arc<Tray<Parcel<T>>>>,
    trays_version: usize,
    /// Boxes that nobody gets any more.
    collected: Vec<Box<Parcel<T>>>,
    /// Boxes that are gone.
    written_off: usize,
    /// Something came at the last look, and it has not slept since.
    is_busy: bool,
}

impl<T> Outlet<T> {
    /// Appends all that has come to `parcels`, in order for each producer.
    ///
    /// Trays are looked into each time: what lies in one would wait for ever beside a producer that keeps `full` filled.
    pub(crate) fn gather(&mut self, parcels: &mut Vec<Box<Parcel<T>>>) {
        let before = parcels.len();
        self.refresh_trays();
        if self.is_busy {
            self.let_fill();
        }
        parcels.extend(self.trays.iter().filter_map(|tray| tray.steal()));
        // At most as many as there are boxes: none is given back meanwhile.
        while let Some(parcel) = self.intake.full.pop() {
            parcels.push(parcel);
        }
        self.is_busy = parcels.len() > before;
        parcels[before..].sort_by_key(|parcel| (parcel.feeder, parcel.number));
    }

    /// Who is a little faster than the producers would take boxes of a few things, and cost them more than it gains: gives
    /// them a few microseconds, unless there is a full box.
    fn let_fill(&self) {
        if cfg!(any(loom, shuttle)) || self.intake.wait != WaitStrategy::Park {
            return;
        }
        for _ in 0..FILL_LOOKS {
            if !self.intake.full.is_empty() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Puts an emptied box back into the pool.
    pub(crate) fn give_back(&mut self, mut parcel: Box<Parcel<T>>) {
        if parcel.large > 0 {
            self.intake.give_back_large(std::mem::take(&mut parcel.large));
        }
        if self.intake.refusal().is_some() {
            self.collected.push(parcel);
        } else {
            self.intake.give_back(parcel);
        }
    }

    /// Sleeps until there may be something to do: a box that came, if those are `wanted`, [`Intake::wake_consumer`], or the end
    /// of `limit`. Returns at once when `has_work`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>, wanted: bool, mut has_work: impl FnMut() -> bool) {
        let wait = self.intake.wait;
        let has_any = |outlet: &Self, has_work: &mut dyn FnMut() -> bool| wanted && outlet.has_come() || has_work();
        if wait.look(|| has_any(self, &mut has_work).then_some(())).is_some() || wait != WaitStrategy::Park {
            return;
        }
        let intake = Arc::clone(&self.intake);
        let ticket = intake.work.ticket();
        self.refresh_trays();
        let is_watching = !wanted || self.trays.iter().all(|tray| tray.watch());
        if !is_watching || has_any(self, &mut has_work) {
            return intake.work.cancel(ticket);
        }
        self.is_busy = false;
        match limit {
            Some(limit) => intake.work.wait_for(ticket, limit),
            None => intake.work.wait(ticket),
        }
    }

    /// Takes the pool out of circulation once the intake is closed. True when all boxes are here: nothing comes any more.
    pub(crate) fn collect(&mut self) -> bool {
        if self.intake.refusal().is_none() {
            return false;
        }
        while let Some(parcel) = self.intake.free.pop() {
            self.collected.push(parcel);
        }
        self.collected.len() + self.written_off == self.intake.parcels
    }

    /// Producers are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.intake.refusal().is_some()
    }

    /// So many boxes will never come back.
    pub(crate) fn write_off(&mut self, boxes: usize) {
        self.written_off += boxes;
    }

    /// Whether a box has come, or the intake was closed and boxes can be collected.
    fn has_come(&self) -> bool {
        let intake = &self.intake;
        !intake.full.is_empty()
            || self.trays.iter().any(|tray| tray.has_item())
            || self.trays_version != intake.trays_version.load(Ordering::Acquire)
            || intake.refusal().is_some() && !intake.free.is_empty()
    }

    fn refresh_trays(&mut self) {
        if self.trays_version != self.intake.trays_version.load(Ordering::Acquire) {
            let trays = self.intake.trays();
            self.trays.clone_from(&trays);
            self.trays_version = self.intake.trays_version.load(Ordering::Relaxed);
        }
    }
}

impl<T> fmt::Debug for Outlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("trays", &self.trays.len()).finish_non_exhaustive()
    }
}

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const BROKEN: u32 = 2;
/// About 6 µs.
const FILL_LOOKS: u32 = if cfg!(miri) { 1 } else { 200 };
