//! The ring of generations: which of them are remembered, and how many ids each may take.
//!
//! Time is cut in slices of `window / 64`. A generation belongs to one slice; when it has taken `limit / 64` ids the
//! slice gets another one. Generations are numbered upwards without end; entries carry the number modulo 2¹⁴. A
//! generation is retired whole, `window` after the end of its slice, or earlier when a limit is reached: then it is on
//! the list of early ones, and every shard counts what it forgets of them.
//!
//! In processing time the front (which slice is new) and the back (which is old) are both the clock. In event time the
//! front is the highest time seen and the back is the low watermark, `lateness` behind it.
//!
//! Two atomics answer the common question "has anything changed?" without the lock:
//! - `era`: newest generation and the number of remembered ones, in one word. Written under the lock, released; read by
//!   every question under its shard's lock, acquired. It only moves forward.
//! - `calm_from`, `calm_until`: the times between which nothing changes; in event time `calm_until` is the event time
//!   from which on something is forgotten. Written under the lock after `era`, `calm_until` last, both released; read
//!   before a question, `calm_until` first and acquired, so who sees the new times also sees the new era.

use std::collections::VecDeque;
use std::ops::Range;

use super::line::TAG_RANGE;
use super::segment::Era;
use crate::sync::{AtomicI64, AtomicU64, Mutex, MutexGuard, Ordering};

/// What was set for the window, already checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Nanoseconds an id is remembered; [`i64::MAX`] for ever.
    pub(crate) window: i64,
    /// Nanoseconds that an event may be behind the highest time seen; `None` in processing time.
    pub(crate) lateness: Option<i64>,
    /// Nanoseconds that an event time may be ahead of the clock.
    pub(crate) max_future: i64,
    /// Most ids at any time.
    pub(crate) max_ids: u64,
    /// Most ids in one generation.
    pub(crate) generation_ids: u64,
    /// Whether the oldest generation makes room when a limit is reached.
    pub(crate) evict: bool,
}

/// An event time, and what it means in generations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    /// Nanoseconds since the epoch.
    pub(super) time: i64,
    /// The generation that a new entry belongs to.
    pub(super) generation: u64,
    /// An entry of these generations makes the event a duplicate.
    pub(super) window: Range64,
}

/// An inclusive range of generations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range64 {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Range64 {
    #[inline]
    pub(super) fn contains(self, generation: u64) -> bool {
        self.first <= generation && generation <= self.last
    }
}

/// What an event time comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// A time that can be judged.
    At(Moment),
    /// A time too far ahead of the clock to be believed, judged as the highest time seen.
    Future(Moment),
    /// A time before the low watermark.
    Late,
    /// A time whose generations were forgotten before their window ended, because a limit was reached.
    Evicted,
}

/// How a generation came to be forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// Its window had ended.
    InTime,
    /// A limit was reached.
    Early,
}

/// The ring. See the module.
#[derive(Debug)]
pub(super) struct Generations {
    limits: Limits,
    slice: i64,
    /// Remembered generations from which on none is closed by its number of ids.
    closed_by_count_max: u64,
    era: AtomicU64,
    calm_from: AtomicI64,
    calm_until: AtomicI64,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    /// By number modulo the length, a power of two.
    generations: Box<[Generation]>,
    newest: u64,
    horizon: u64,
    /// The highest time that moved the front; nothing has happened yet while `None`.
    front: Option<i64>,
    /// Ids taken in remembered generations.
    taken: u64,
    /// Ids reserved and not yet resolved; they belong to no generation.
    pending: u64,
    /// Generations retired before their window ended, ascending.
    early: VecDeque<Range<u64>>,
    held: bool,
    clock_held: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Generation {
    slice: i64,
    taken: u64,
}

impl Generations {
    pub(super) fn new(limits: Limits) -> Self {
        let slice = slice_nanos(limits.window);
        let length = Self::ring_length(&limits);
        debug_assert!(length as u64 + CLEAN_AFTER < TAG_RANGE, "tags could not be told");
        let ring = Ring {
            generations: vec![Generation::default(); length].into_boxed_slice(),
            newest: FIRST,
            horizon: FIRST,
            front: None,
            taken: 0,
            pending: 0,
            early: VecDeque::new(),
            held: false,
            clock_held: 0,
        };
        Self {
            limits,
            slice,
            closed_by_count_max: length as u64 - Self::slices(&limits),
            era: AtomicU64::new(pack(FIRST, FIRST)),
            calm_from: AtomicI64::new(0),
            calm_until: AtomicI64::new(i64::MIN),
            ring: Mutex::new(ring),
        }
    }

    /// How many generations are told apart: those of a whole window and the lateness by time, and twice 64 more for
    /// generations closed by their number of ids.
    pub(super) fn ring_length(limits: &Limits) -> usize {
        (Self::slices(limits) as usize + 128).next_power_of_two()
    }

    /// The most generations that time alone makes at once.
    fn slices(limits: &Limits) -> u64 {
        let span = limits.window.saturating_add(limits.lateness.unwrap_or(0));
        (span / slice_nanos(limits.window)).unsigned_abs() + 3
    }

    /// Bytes of the ring.
    pub(super) fn bytes(limits: &Limits) -> usize {
        Self::ring_length(limits) * size_of::<Generation>()
    }

    /// Moves the charge of one id from the newest generation to the one that it belongs to.
    pub(super) fn recharge(&self, from: u64, to: u64) {
        let mut ring = self.lock();
        if from >= ring.horizon && to >= ring.horizon {
            let (from, to) = (ring.index(from), ring.index(to));
            ring.generations[from].taken = ring.generations[from].taken.saturating_sub(1);
            ring.generations[to].taken += 1;
        }
    }

    /// The longest lateness that a ring can be made for, in windows.
    pub(super) const LATENESS_WINDOWS_MAX: i64 = 100;

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The length of a generation, in nanoseconds.
    pub(super) fn slack(&self) -> i64 {
        self.slice
    }

    /// The generations that count now. Read it under the shard's lock, so that no shard goes back in time.
    #[inline]
    pub(super) fn era(&self) -> Era {
        unpack(self.era.load(Ordering::Acquire))
    }

    /// Processing time: takes notice of the clock.
    #[inline]
    pub(super) fn observe_clock(&self, now: i64) {
        let until = self.calm_until.load(Ordering::Acquire);
        let from = self.calm_from.load(Ordering::Relaxed);
        if (now < from) | (now >= until) {
            self.turn(now);
        }
    }

    #[cold]
    fn turn(&self, now: i64) {
        let mut ring = self.lock();
        let reached = ring.current().slice.saturating_mul(self.slice);
        ring.note_clock(now.saturating_add(CLOCK_TOLERANCE_NANOS) < reached);
        self.advance(&mut ring, now, now);
        self.publish(&ring);
    }

    /// When the newest generation of `era` began.
    #[inline]
    pub(super) fn start_of_newest(&self, era: Era) -> i64 {
        let from = self.calm_from.load(Ordering::Acquire);
        // Who sees a later start also sees the later era.
        if self.era() == era { from } else { self.start_of(era.newest) }
    }

    #[cold]
    fn start_of(&self, generation: u64) -> i64 {
        let ring = self.lock();
        ring.generations[ring.index(generation.max(ring.horizon))].slice.saturating_mul(self.slice)
    }

    /// How far time has come: the highest that was seen, if any.
    pub(super) fn front(&self) -> Option<i64> {
        self.lock().front
    }

    /// Everything that was recorded at an earlier time than this is forgotten.
    pub(super) fn remembers_from(&self) -> i64 {
        let ring = self.lock();
        if ring.front.is_none() { i64::MIN } else { ring.oldest().slice.saturating_mul(self.slice) }
    }

    /// Moves time to `front`, as far as it was before a restart.
    pub(super) fn restore_front(&self, front: i64) {
        let mut ring = self.lock();
        let back = front.saturating_sub(self.limits.lateness.unwrap_or(0));
        if ring.front.is_none() {
            // What is restored may be as old as anything that is remembered.
            ring.label_all(self.slice_of(back.saturating_sub(self.limits.window)));
            ring.front = Some(front);
        }
        self.advance(&mut ring, front, back);
        self.publish(&ring);
    }

    /// Event time: takes notice of an event's time, and tells its generations.
    pub(super) fn observe_event(&self, time: i64, clock: i64) -> Resolved {
        let lateness = self.limits.lateness.unwrap_or(0);
        let mut ring = self.lock();
        let is_future = time > clock.saturating_add(self.limits.max_future);
        let Some(front) = ring.front.or((!is_future).then_some(time)) else {
            // Nothing has told the time yet, and this event cannot: it is judged among its like.
            let newest = ring.newest;
            let moment =
                Moment { time: clock, generation: newest, window: Range64 { first: ring.horizon, last: newest } };
            return Resolved::Future(moment);
        };
        if is_future {
            return Resolved::Future(self.moment_of(&ring, front));
        }
        if time < front.saturating_sub(lateness) {
            return Resolved::Late;
        }
        self.advance(&mut ring, time, time.saturating_sub(lateness));
        self.publish(&ring);
        if self.slice_of(time) < ring.oldest().slice {
            return Resolved::Evicted;
        }
        Resolved::At(self.moment_of(&ring, time))
    }

    /// Whether an event of `time` would make the set forget a generation.
    pub(super) fn event_moves_horizon(&self, time: i64) -> bool {
        time >= self.calm_until.load(Ordering::Acquire)
    }

    /// Whether any of `generations`, all retired, was retired because its window had ended.
    pub(super) fn has_ended_among(&self, generations: Range<u64>) -> bool {
        let early: u64 = self.early_among(generations.clone()).iter().map(|early| early.end - early.start).sum();
        early < generations.end - generations.start
    }

    /// The generations of an event time, without taking notice of it.
    pub(super) fn peek_event(&self, time: i64) -> Moment {
        self.moment_of(&self.lock(), time)
    }

    /// The newest generation of an event time. `Err`: it is forgotten by now, and whether that was before its window ended.
    pub(super) fn generation_at(&self, time: i64) -> Result<u64, Forgotten> {
        let ring = self.lock();
        let slice = self.slice_of(time);
        if slice >= ring.oldest().slice {
            return Ok(self.moment_of(&ring, time).generation);
        }
        let back = ring.front.unwrap_or(time).saturating_sub(self.limits.lateness.unwrap_or(0));
        Err(if self.is_over(slice, back) { Forgotten::InTime } else { Forgotten::Early })
    }

    /// The generations that are remembered of the slice that `time` lies in: several, where a limit has closed some early.
    pub(super) fn generations_of(&self, time: i64) -> Range<u64> {
        let (ring, slice) = (self.lock(), self.slice_of(time));
        ring.first_where(|other| other >= slice)..ring.first_where(|other| other > slice)
    }

    fn moment_of(&self, ring: &Ring, time: i64) -> Moment {
        let first = ring.first_where(|slice| self.end_of(slice) > time.saturating_sub(self.limits.window));
        let beyond =
            ring.first_where(|slice| slice.saturating_mul(self.slice) >= time.saturating_add(self.limits.window));
        let after = ring.first_where(|slice| slice > self.slice_of(time));
        Moment {
            time,
            generation: after.saturating_sub(1).max(ring.horizon),
            window: Range64 { first, last: beyond.saturating_sub(1) },
        }
    }

    /// Moves the newest generation to the slice of `front`, and retires those whose window ended before `back`.
    fn advance(&self, ring: &mut Ring, front: i64, back: i64) {
        if ring.front.is_none() {
            ring.label_all(self.slice_of(back));
        }
        ring.front = ring.front.max(Some(front));
        self.retire_over(ring, back);
        self.open_slices(ring, self.slice_of(front), self.slice_of(back.saturating_sub(self.limits.window)));
        self.retire_over(ring, back);
    }

    fn retire_over(&self, ring: &mut Ring, back: i64) {
        while ring.horizon < ring.newest && self.is_over(ring.oldest().slice, back) {
            ring.retire();
        }
    }

    /// Whether the window of everything in `slice` has ended at `back`.
    fn is_over(&self, slice: i64, back: i64) -> bool {
        self.end_of(slice).checked_add(self.limits.window).is_some_and(|end| end <= back)
    }

    /// Opens a generation for each slice up to `slice`, but for those before `needed`: they are over already. Their
    /// numbers are left out, not used again.
    fn open_slices(&self, ring: &mut Ring, slice: i64, needed: i64) {
        let current = ring.current().slice;
        let first = needed.min(slice);
        if first > current + 1 {
            ring.skip((first - current).unsigned_abs(), first);
        }
        for slice in ring.current().slice + 1..=slice {
            ring.open(slice);
        }
    }

    fn publish(&self, ring: &Ring) {
        self.era.store(pack(ring.newest, ring.horizon), Ordering::Release);
        let newest = ring.generations[ring.index(ring.newest)].slice;
        let retires = self.end_of(ring.oldest().slice).saturating_add(self.limits.window);
        let until = match self.limits.lateness {
            Some(lateness) => retires.saturating_add(lateness),
            None => retires.min(self.end_of(newest)),
        };
        self.calm_from.store(newest.saturating_mul(self.slice), Ordering::Release);
        self.calm_until.store(until, Ordering::Release);
    }

    /// Takes room for up to `wanted` ids in the newest generation. `None`: the limit is reached, and nothing may be or
    /// can be evicted.
    pub(super) fn take(&self, wanted: u64) -> Option<Taken> {
        let mut ring = self.lock();
        loop {
            // Places that are given back leave generations emptier than they were when they closed. Those that are needed
            // for time to go on are never used up by that: rather does the newest grow beyond its size.
            let may_close = ring.newest - ring.horizon + 1 < self.closed_by_count_max;
            if may_close && ring.current().taken >= self.limits.generation_ids {
                let slice = ring.current().slice;
                ring.open(slice);
                self.publish(&ring);
            }
            let room = self.limits.max_ids.saturating_sub(ring.taken + ring.pending);
            let most = if may_close { self.limits.generation_ids - ring.current().taken } else { u64::MAX };
            let ids = wanted.min(most).min(room);
            if ids > 0 {
                ring.current().taken += ids;
                ring.taken += ids;
                return Some(Taken { generation: ring.newest, ids });
            }
            if !self.limits.evict || !ring.retire_early() {
                return None;
            }
            self.publish(&ring);
        }
    }

    /// Gives back room that was taken in `generation` and is not used, or not any more.
    pub(super) fn give_back(&self, taken: Taken) {
        let mut ring = self.lock();
        if taken.generation >= ring.horizon {
            let index = ring.index(taken.generation);
            let ids = taken.ids.min(ring.generations[index].taken);
            ring.generations[index].taken -= ids;
            ring.taken = ring.taken.saturating_sub(ids);
        }
    }

    /// Takes room for one reserved id. False: as for [`Generations::take`].
    pub(super) fn take_pending(&self) -> bool {
        let mut ring = self.lock();
        while ring.taken + ring.pending >= self.limits.max_ids {
            if !self.limits.evict || !ring.retire_early() {
                return false;
            }
            self.publish(&ring);
        }
        ring.pending += 1;
        true
    }

    /// Gives back the room of one reserved id.
    pub(super) fn give_back_pending(&self) {
        let mut ring = self.lock();
        ring.pending = ring.pending.saturating_sub(1);
    }

    /// Retires the oldest generation before its time. False when only the newest is left, and it is empty.
    pub(super) fn retire_early(&self) -> bool {
        let mut ring = self.lock();
        let retired = ring.retire_early();
        self.publish(&ring);
        retired
    }

    /// Which of `generations`, ascending and retired, were retired early.
    pub(super) fn early_among(&self, generations: Range<u64>) -> Vec<Range<u64>> {
        let ring = self.lock();
        let from = ring.early.partition_point(|early| early.end <= generations.start);
        let overlapping = ring.early.range(from..).take_while(|early| early.start < generations.end);
        overlapping.map(|early| early.start.max(generations.start)..early.end.min(generations.end)).collect()
    }

    /// How often the clock was found behind the time that had been reached.
    pub(super) fn clock_held(&self) -> u64 {
        self.lock().clock_held
    }

    fn slice_of(&self, time: i64) -> i64 {
        time.div_euclid(self.slice)
    }

    fn end_of(&self, slice: i64) -> i64 {
        slice.saturating_add(1).saturating_mul(self.slice)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Room for ids in one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) generation: u64,
    pub(super) ids: u64,
}

impl Ring {
    fn index(&self, generation: u64) -> usize {
        generation as usize & (self.generations.len() - 1)
    }

    fn current(&mut self) -> &mut Generation {
        let index = self.index(self.newest);
        &mut self.generations[index]
    }

    /// Puts all generations in `slice`: what came before the time was known.
    fn label_all(&mut self, slice: i64) {
        for generation in self.horizon..=self.newest {
            let index = self.index(generation);
            self.generations[index].slice = slice;
        }
    }

    fn oldest(&self) -> Generation {
        self.generations[self.index(self.horizon)]
    }

    /// Opens the next generation, in `slice`. The ring being full, the oldest leaves early.
    fn open(&mut self, slice: i64) {
        if self.newest - self.horizon + 1 >= self.generations.len() as u64 {
            self.retire_early();
        }
        self.newest += 1;
        *self.current() = Generation { slice, taken: 0 };
    }

    /// Counts `generations` that nobody saw, after which the newest is in `slice` and all others are retired.
    fn skip(&mut self, generations: u64, slice: i64) {
        self.newest += generations;
        self.horizon = self.newest;
        self.taken = 0;
        *self.current() = Generation { slice, taken: 0 };
    }

    fn retire(&mut self) {
        self.taken = self.taken.saturating_sub(self.oldest().taken);
        self.horizon += 1;
    }

    fn retire_early(&mut self) -> bool {
        if self.horizon == self.newest {
            if self.oldest().taken == 0 {
                return false;
            }
            let slice = self.oldest().slice;
            self.newest += 1;
            *self.current() = Generation { slice, taken: 0 };
        }
        match self.early.back_mut() {
            Some(last) if last.end == self.horizon => last.end += 1,
            _ => self.early.push_back(self.horizon..self.horizon + 1),
        }
        if self.early.len() > EARLY_RANGES_MAX {
            self.early.pop_front();
        }
        self.retire();
        true
    }

    /// The first remembered generation whose slice `is_after`, or the one after the newest.
    fn first_where(&self, is_after: impl Fn(i64) -> bool) -> u64 {
        let (mut low, mut high) = (self.horizon, self.newest + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_after(self.generations[self.index(middle)].slice) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    fn note_clock(&mut self, behind: bool) {
        let behind = behind && self.front.is_some();
        if behind && !self.held {
            self.clock_held += 1;
        }
        self.held = behind;
    }
}

/// The length of a generation: a 64th of the window, rounded up.
pub(super) fn slice_nanos(window: i64) -> i64 {
    window / 64 + i64::from(window % 64 != 0)
}

fn pack(newest: u64, horizon: u64) -> u64 {
    newest << SPAN_BITS | (newest - horizon)
}

fn unpack(era: u64) -> Era {
    let newest = era >> SPAN_BITS;
    Era { newest, horizon: newest - (era & ((1 << SPAN_BITS) - 1)) }
}

/// Numbers start here, so that no subtraction goes below zero.
const FIRST: u64 = 1 << 20;
const SPAN_BITS: u32 = 16;
/// A thread may be interrupted between reading the clock and asking; only a clock further behind than this is held.
const CLOCK_TOLERANCE_NANOS: i64 = 1_000_000_000;
/// Ranges of early generations kept for shards that have not counted them yet. A shard that nobody asked while this many
/// ranges came and went, each with a timely retirement between, counts less than it forgot.
const EARLY_RANGES_MAX: usize = 4096;
/// A segment is cleaned when it is asked and was not for this many generations. More often would move entries for
/// nothing, less often leaves overflow marks of ids long gone. Tags can be told for as long as this, a whole ring and
/// some more stay below their range.
pub(super) const CLEAN_AFTER: u64 = 224;
