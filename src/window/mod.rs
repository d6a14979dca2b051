//! The set: fingerprints seen within the window, in shards, segments and lines.
//!
//! A question is one hash, one lock and one cache line. What that takes, from the outside in:
//!
//! - [`hash_ring`]: 1,024 slots of the fingerprint space; the top bits of a fingerprint are its slot and its shard.
//! - [`shard`]: one lock and its own time. While it is held: [`ask`] answers, [`resolve`] commits and forgets, [`room`]
//!   counts.
//! - [`directory`]: from a fingerprint to its segment.
//! - [`segment`], [`mod@line`]: where an entry stands and what it is made of.
//! - [`growth`]: segments grow, split, are cleaned and shrink, one at a time.
//! - [`generations`]: what is remembered, by time and by limits.
//! - [`memory`]: arenas that are given back whole.
//! - [`batch`], [`block`]: many questions at once, so that their cache misses overlap; [`places`]: where the new ones stand.
//! - [`changes`]: what a log is to be told, and how a set is filled from one.
//!
//! # How sure an answer is
//! Of the 128 bits of a fingerprint 85 are stored and compared, and which of about 2,900 roots it has is implied by where
//! it stands, so two ids are mixed up with a chance of 2⁻⁸⁵ / 2,900 < 10⁻²⁹: with `n` live ids a new one is wrongly called a
//! duplicate with a chance of `n` times that. It is below 10⁻²⁰ up to a thousand million live ids. (Sets limited to few ids
//! or little memory have fewer roots, and fewer ids to be mixed up with.)
//!
//! # What it does not do
//! It keeps no ids, no order and no exact times, reads no clock, and knows nothing of events or of a log's bytes.

mod ask;
mod batch;
mod block;
mod changes;
mod directory;
mod generations;
mod growth;
mod hash_ring;
mod housekeeping;
mod line;
mod memory;
#[cfg(all(loom, test))]
mod models;
mod places;
mod probe;
mod resolve;
mod room;
mod segment;
mod shard;

use crate::event::Fingerprint;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};

use directory::{SegmentRef, Slot, Version};
use generations::{Generations, Moment, Resolved};
use line::{Line, Stored};
use memory::Memory;
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use probe::{Avx2, with_avx2};
use probe::{Found, Kernel, Portable, Probe};
use shard::{Core, Held, Shard, Shared};

pub(crate) use batch::Times;
pub(crate) use changes::Changes;
pub(crate) use generations::Limits;
pub use hash_ring::HashRing;
pub(crate) use places::Places;
pub(crate) use shard::{Act, Answer, Shape, Tally};

/// The longest lateness, in windows.
pub(crate) const LATENESS_WINDOWS_MAX: i64 = Generations::LATENESS_WINDOWS_MAX;

/// What a set is made from, already checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    pub(crate) extend: bool,
    /// Whether changes are gathered for a log.
    pub(crate) gathers: bool,
    pub(crate) expected_ids: u64,
    pub(crate) memory_bytes_max: usize,
    pub(crate) shape: Shape,
}

/// The time of a question.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// Processing time: the present.
    Now(i64),
    /// Event time, and the present.
    Event { time: i64, clock: i64 },
}

/// The set.
#[derive(Debug)]
pub(crate) struct Set {
    shards: Box<[Shard]>,
    common: Shared,
    /// Events whose time was too far ahead. Written by any question, read by statistics; relaxed, as it orders nothing.
    future: AtomicU64,
    /// Events refused because of their time, and ids that were forgotten before they were committed; as `future`.
    late: AtomicU64,
    full: AtomicU64,
    evicted_early: AtomicU64,
    cursor: Mutex<housekeeping::Cursor>,
}

/// Where the home line of a fingerprint was found, without the lock, and in what.
#[derive(Debug, Clone, Copy)]
struct LookedUp<'a> {
    shard: &'a Shard,
    version: Version,
    slot: &'a Slot,
    segment: SegmentRef,
    /// Nonsense when the segment has no lines.
    line: *mut Line,
}

/// No memory for what was asked for.
#[derive(Debug)]
pub(crate) struct TooLittleMemory;

impl Set {
    pub(crate) fn new(config: &Config) -> Result<Self, TooLittleMemory> {
        let ring_length = Generations::ring_length(&config.limits);
        let generations = Generations::new(config.limits);
        let (era, shape) = (generations.era(), config.shape);
        let count = 1_usize << shape.shard_bits;
        let shards: Box<[Shard]> =
            (0..count).map(|number| Shard::new(number, &shape, era, config.extend, ring_length)).collect();
        let tables = shards.iter().map(Shard::bytes).sum::<usize>();
        let overhead = size_of::<Self>() + Generations::bytes(&config.limits) + tables;
        let roots_count = shards.iter().map(|shard| shard.roots.len()).sum();
        let memory = Memory::new(config.memory_bytes_max, overhead, roots_count).ok_or(TooLittleMemory)?;
        let kernel = probe::Kernel::detect();
        let common = Shared {
            generations,
            memory: Mutex::new(memory),
            shape,
            extend: config.extend,
            kernel,
            gathers: config.gathers,
            has_changes: AtomicBool::new(false),
        };
        let set = Self {
            shards,
            common,
            future: AtomicU64::new(0),
            late: AtomicU64::new(0),
            full: AtomicU64::new(0),
            evicted_early: AtomicU64::new(0),
            cursor: Mutex::new(housekeeping::Cursor::default()),
        };
        set.presize(config.expected_ids)?;
        Ok(set)
    }

    fn presize(&self, ids: u64) -> Result<(), TooLittleMemory> {
        if ids == 0 {
            return Ok(());
        }
        for shard in &self.shards {
            let roots = shard.roots.len();
            let each = ids as f64 / self.shards.len() as f64 / roots as f64;
            for root in 0..roots {
                self.hold(shard).presize(root, each).map_err(|memory::NoMemory| TooLittleMemory)?;
            }
        }
        self.common.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).forget_demand();
        Ok(())
    }

    /// Nanoseconds for which an id is remembered.
    pub(crate) fn window(&self) -> i64 {
        self.common.generations.limits().window
    }

    /// The most time beyond the window that an id may be remembered, in nanoseconds.
    pub(crate) fn slack(&self) -> i64 {
        self.common.generations.slack()
    }

    /// Answers for one fingerprint.
    pub(crate) fn ask(&self, fingerprint: Fingerprint, when: When, act: Act) -> Answer {
        match when {
            When::Now(now) => self.ask_now(|| fingerprint, || now, act),
            When::Event { time, clock } => self.ask_event(fingerprint, time, clock, act).0,
        }
    }

    /// Event time: the same, with the time that a new one was recorded at: see [`Set::ask_events`].
    pub(crate) fn ask_event(&self, fingerprint: Fingerprint, time: i64, clock: i64, act: Act) -> (Answer, i64) {
        match self.notice_event(time, clock) {
            Ok(moment) => (self.hold_for(fingerprint).ask_event(fingerprint, moment, act), moment.time),
            Err(answer) => (answer, i64::MIN),
        }
    }

    /// Processing time: answers for one fingerprint. The time is asked for while its line is on its way.
    ///
    /// A processor fetches the lines of several questions at a time, as far ahead as it can look, which is not far: about one
    /// question. So a question is one function, the quick hash and all; what need not be known to find the line is done while it is
    /// on its way; and what is rare is done elsewhere.
    #[inline]
    pub(crate) fn ask_now(
        &self,
        fingerprint: impl FnOnce() -> Fingerprint,
        now: impl FnOnce() -> i64,
        act: Act,
    ) -> Answer {
        match self.common.kernel {
            Kernel::Portable(probe) => self.ask_portably(probe, fingerprint, now, act),
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Kernel::Avx2(probe) if act == Act::Observe => {
                // SAFETY: `probe` proves that the processor has the features.
                unsafe { self.observe_with_avx2(probe, fingerprint, now) }
            }
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Kernel::Avx2(probe) => with_avx2(probe, move || self.ask_one(probe, fingerprint(), now, act)),
        }
    }

    #[inline(never)]
    fn ask_portably(
        &self,
        probe: Portable,
        fingerprint: impl FnOnce() -> Fingerprint,
        now: impl FnOnce() -> i64,
        act: Act,
    ) -> Answer {
        self.ask_one(probe, fingerprint(), now, act)
    }

    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn observe_with_avx2(
        &self,
        probe: Avx2,
        fingerprint: impl FnOnce() -> Fingerprint,
        now: impl FnOnce() -> i64,
    ) -> Answer {
        self.ask_one(probe, fingerprint(), now, Act::Observe)
    }

    #[inline(always)]
    fn ask_one<P: Probe>(&self, probe: P, fingerprint: Fingerprint, now: impl FnOnce() -> i64, act: Act) -> Answer {
        let found = self.look_up(fingerprint);
        prefetch(found.line);
        self.common.generations.observe_clock(now());
        self.ask_at(probe, found, fingerprint, act)
    }

    /// Finds the home line of `fingerprint` without the lock.
    #[inline(always)]
    fn look_up(&self, fingerprint: Fingerprint) -> LookedUp<'_> {
        let shard = self.shard_for(fingerprint);
        let version = shard.version.get();
        let slot = shard.slot(fingerprint, self.common.shape.shard_bits);
        let segment = slot.segment();
        LookedUp { shard, version, slot, segment, line: segment.home(Stored::of(fingerprint)) }
    }

    /// Processing time: answers for one fingerprint that was looked up.
    #[inline(always)]
    fn ask_at<P: Probe>(&self, probe: P, found: LookedUp<'_>, fingerprint: Fingerprint, act: Act) -> Answer {
        let newest = self.common.generations.era().newest;
        if !found.slot.is_at_hand(found.segment, newest) {
            return self.ask_slowly(fingerprint, act);
        }
        let Some(mut core) = found.shard.try_lock() else { return self.ask_slowly(fingerprint, act) };
        // SAFETY: it is this shard's core, and the segment is at hand.
        match unsafe { core.ask(probe, &self.common, found, newest, fingerprint, act) } {
            Found::New => {
                if act == Act::Gather {
                    core.gather(&self.common, fingerprint, None);
                }
                Answer::New
            }
            Found::Seen => Answer::Seen,
            left => self.ask_closely(found.shard, core, fingerprint, act, left),
        }
    }

    /// The same where its home line alone does not answer, or is not known.
    #[inline(never)]
    fn ask_closely<'a>(
        &'a self,
        shard: &'a Shard,
        core: MutexGuard<'a, Core>,
        fingerprint: Fingerprint,
        act: Act,
        found: Found,
    ) -> Answer {
        let mut held = self.held(shard, core);
        let answer = held.ask_closely(fingerprint, act, found);
        if act == Act::Gather && answer.is_first() {
            held.core.gather(&self.common, fingerprint, None);
        }
        answer
    }

    /// The same where somebody else holds the shard, or its segment has no lines or must be cleaned first.
    #[cold]
    #[inline(never)]
    fn ask_slowly(&self, fingerprint: Fingerprint, act: Act) -> Answer {
        let shard = self.shard_for(fingerprint);
        self.ask_closely(shard, shard.lock(), fingerprint, act, Found::Elsewhere)
    }

    /// What [`Set::ask`] would find, without recording anything.
    pub(crate) fn peek(&self, fingerprint: Fingerprint, when: When) -> Answer {
        let moment = match when {
            When::Now(now) => {
                self.common.generations.observe_clock(now);
                None
            }
            When::Event { time, .. } => Some(self.common.generations.peek_event(time)),
        };
        self.hold_for(fingerprint).peek(fingerprint, moment)
    }

    /// Whether a fingerprint is seen, pending or not.
    pub(crate) fn is_seen(&self, fingerprint: Fingerprint, when: When) -> bool {
        let window = match when {
            When::Now(_) => None,
            When::Event { time, .. } => Some(self.common.generations.peek_event(time).window),
        };
        self.hold_for(fingerprint).is_seen(fingerprint, window)
    }

    /// Reserves a fingerprint also when it is seen, so that its commit starts its window again; in event time at the time of
    /// its event, which was noticed before.
    pub(crate) fn reserve_anew(&self, fingerprint: Fingerprint, when: When) -> Answer {
        let moment = match when {
            When::Now(_) => None,
            When::Event { time, .. } => Some(self.common.generations.peek_event(time)),
        };
        self.hold_for(fingerprint).reserve_anew(fingerprint, moment)
    }

    /// Takes it back that the events of these times were counted, as far as they are too far ahead of `clock`.
    pub(crate) fn uncount_future(&self, times: impl Iterator<Item = i64>, clock: i64) {
        let latest = clock.saturating_add(self.common.generations.limits().max_future);
        self.future.fetch_sub(times.filter(|time| *time > latest).count() as u64, Ordering::Relaxed);
    }

    /// Marks a reserved fingerprint as seen; in event time, at the time of its event. False when it is not reserved.
    pub(crate) fn commit(&self, fingerprint: Fingerprint, when: When) -> bool {
        match when {
            When::Now(now) => {
                self.common.generations.observe_clock(now);
                self.hold_for(fingerprint).commit(fingerprint, None)
            }
            When::Event { time, .. } => match self.common.generations.generation_at(time) {
                Ok(generation) => self.hold_for(fingerprint).commit(fingerprint, Some(generation)),
                // It was reserved for so long that its time is forgotten: committing and forgetting come to one.
                Err(forgotten) => {
                    let is_early = forgotten == generations::Forgotten::Early;
                    self.evicted_early.fetch_add(u64::from(is_early), Ordering::Relaxed);
                    self.release(fingerprint)
                }
            },
        }
    }

    /// Whether what happened at this time is forgotten by now.
    pub(crate) fn is_forgotten(&self, when: When) -> bool {
        match when {
            When::Now(_) => false,
            When::Event { time, .. } => self.common.generations.generation_at(time).is_err(),
        }
    }

    /// Makes a reserved fingerprint unknown again. False when it is not reserved.
    pub(crate) fn release(&self, fingerprint: Fingerprint) -> bool {
        self.hold_for(fingerprint).release(fingerprint)
    }

    /// Makes a seen fingerprint unknown again. False when it is not known, or only reserved.
    pub(crate) fn forget(&self, fingerprint: Fingerprint) -> bool {
        self.hold_for(fingerprint).forget(fingerprint)
    }

    /// Event time: makes a fingerprint unknown again as far as it was seen at `time`.
    pub(crate) fn forget_at(&self, fingerprint: Fingerprint, time: i64) {
        let generations = self.common.generations.generations_of(time);
        self.hold_for(fingerprint).forget_at(fingerprint, generations);
    }

    /// What happened so far, brought to the present.
    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally {
            late: self.late.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Relaxed),
            evicted_early: self.evicted_early.load(Ordering::Relaxed),
            ..Tally::default()
        };
        for shard in &self.shards {
            sum.add(&self.hold(shard).tally());
        }
        sum
    }

    /// Events whose time was too far ahead to be believed.
    pub(crate) fn future(&self) -> u64 {
        self.future.load(Ordering::Relaxed)
    }

    /// How often the clock was found behind the time that had been reached.
    pub(crate) fn clock_held(&self) -> u64 {
        self.common.generations.clock_held()
    }

    /// Bytes of memory held, everything included.
    pub(crate) fn bytes(&self) -> usize {
        self.common.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).bytes()
    }

    /// Takes notice of an event's time. `Err`: it cannot be judged.
    fn notice_event(&self, time: i64, clock: i64) -> Result<Moment, Answer> {
        match self.common.generations.observe_event(time, clock) {
            Resolved::At(moment) => Ok(moment),
            Resolved::Future(moment) => {
                self.future.fetch_add(1, Ordering::Relaxed);
                Ok(moment)
            }
            Resolved::Late => {
                self.late.fetch_add(1, Ordering::Relaxed);
                Err(Answer::Late)
            }
            Resolved::Evicted => {
                self.full.fetch_add(1, Ordering::Relaxed);
                Err(Answer::Full)
            }
        }
    }

    /// Locks the shard of `fingerprint` and brings it to the present.
    #[inline]
    fn hold_for(&self, fingerprint: Fingerprint) -> Held<'_> {
        self.hold(self.shard_for(fingerprint))
    }

    /// Locks a shard and brings it to the present.
    #[inline]
    fn hold<'a>(&'a self, shard: &'a Shard) -> Held<'a> {
        self.held(shard, shard.lock())
    }

    #[inline]
    fn held<'a>(&'a self, shard: &'a Shard, core: MutexGuard<'a, Core>) -> Held<'a> {
        let mut held = Held { shard, core, common: &self.common };
        held.catch_up();
        held
    }

    #[inline]
    fn shard_for(&self, fingerprint: Fingerprint) -> &Shard {
        &self.shards[self.shard_of(fingerprint)]
    }

    #[inline]
    pub(crate) fn shard_of(&self, fingerprint: Fingerprint) -> usize {
        shard_of(fingerprint, self.common.shape.shard_bits)
    }
}

/// The shard of `fingerprint` among `1 << shard_bits`.
#[inline]
fn shard_of(fingerprint: Fingerprint, shard_bits: u32) -> usize {
    (fingerprint.high() >> 1 >> (63 - shard_bits)) as usize
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.live += other.live;
        self.pending += other.pending;
        self.first_seen += other.first_seen;
        self.duplicates += other.duplicates;
        self.in_flight += other.in_flight;
        self.reappeared += other.reappeared;
        self.late += other.late;
        self.full += other.full;
        self.evicted_early += other.evicted_early;
        self.moved += other.moved;
    }
}

impl Shape {
    /// The shape with these numbers, or the nearest one that there is.
    pub(crate) fn new(shard_bits: u32, roots: usize, class_max: u32) -> Self {
        let class_max = class_max.clamp(memory::CLASS_MIN, memory::CLASS_MAX);
        Self { shard_bits: shard_bits.min(SHARD_BITS_MAX), roots: roots.max(1), class_max }
    }

    /// The shape for `cores` processors and limits on ids and bytes.
    pub(crate) fn choose(cores: usize, ids_max: u64, bytes_max: usize) -> Self {
        let mut roots_bits = ROOTS_BITS;
        while roots_bits > ROOTS_BITS_MIN
            && (ids_max >> (roots_bits + 1) == 0 || (bytes_max / ROOT_SHARE_OF_MEMORY) >> roots_bits == 0)
        {
            roots_bits -= 1;
        }
        let wanted = (cores * SHARDS_PER_CORE).next_power_of_two().trailing_zeros();
        let shard_bits = wanted.min(SHARD_BITS_MAX).min(roots_bits - ROOTS_BITS_MIN);
        Self { shard_bits, roots: 1 << (roots_bits - shard_bits), class_max: memory::CLASS_MAX }
    }
}

/// Asks for a cache line just ahead of its use. Any address will do, also one that is not mapped.
#[inline]
pub(crate) fn prefetch<T>(line: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: a prefetch reads nothing that the program can observe and faults at no address; SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    let _ = line;
}

/// Asks for a cache line some hundred others ahead of its use: into the second-level cache, which can wait for more lines
/// at a time than the first.
#[inline]
fn prefetch_far<T>(line: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: as for `prefetch`.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(line.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    let _ = line;
}

/// Log2 of the roots of a set without limits, to within a factor of two.
const ROOTS_BITS: u32 = 11;
const ROOTS_BITS_MIN: u32 = 3;
/// Bytes of limit that one root wants: its share of the fixed cost stays small then.
const ROOT_SHARE_OF_MEMORY: usize = 32 << 10;
const SHARDS_PER_CORE: usize = 16;
const SHARD_BITS_MAX: u32 = 9;
