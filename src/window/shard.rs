//! One lock's share of the set: what a question does while it holds the lock.
//!
//! A shard never goes back in time: under its lock it reads the generations afresh, and they only move forward, so a
//! thread that was held up between reading the clock and asking finds the shard's time, not its own.
//!
//! Lock order: shard, then generations or memory; neither of these two ever takes another lock.

use std::ops::Range;
use std::sync::{Arc, TryLockError};

use crossbeam::utils::CachePadded;

use crate::event::Fingerprint;
use crate::sync::{AtomicBool, Mutex, MutexGuard};

use super::changes::Changes;
use super::directory::{Root, SegmentRef, Slot, Versioned, root_of, roots_of_shard};
use super::generations::{CLEAN_AFTER, Generations, Taken};
use super::line::{State, Stored};
use super::memory::Memory;
use super::probe::{Common, Kernel};
use super::segment::{Era, Segment};

/// What the shards of a set have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) generations: Generations,
    pub(super) memory: Mutex<Memory>,
    pub(super) shape: Shape,
    /// Whether a repeat makes its ID count from now on.
    pub(super) extend: bool,
    /// How a line is asked.
    pub(super) kernel: Kernel,
    /// Whether changes are gathered for a log.
    pub(super) gathers: bool,
    /// Whether any shard has gathered changes: see [`super::changes`].
    pub(super) has_changes: AtomicBool,
}

/// How the set is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Log2 of the number of shards.
    pub(crate) shard_bits: u32,
    /// Roots of the shard that has the fewest.
    pub(crate) roots: usize,
    /// Log2 of the lines in the largest segment.
    pub(crate) class_max: u32,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    /// Read without the lock.
    pub(super) roots: Box<[Root]>,
    pub(super) version: Versioned,
    /// Apart from what is read without it.
    core: CachePadded<Mutex<Core>>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct Core {
    /// As far as this shard has come.
    pub(super) era: Era,
    /// What is the same for all that is observed in this era.
    pub(super) seen: Common,
    /// Ids seen, by generation modulo the length of the ring.
    pub(super) counts: Box<[u32]>,
    /// Room taken ahead in the newest generation; unused without limits.
    pub(super) allowance: Taken,
    /// How often each [`Answer`] was given.
    pub(super) answers: [u64; Answer::COUNT],
    /// Ids reserved and not yet resolved.
    pub(super) pending: u64,
    pub(super) evicted_early: u64,
    /// Entries moved because a segment grew, was split, or was gathered.
    pub(super) moved: u64,
    /// Ids forgotten since the last sweep.
    pub(super) forgotten: u64,
    /// How many these were when it was last looked up how full the shard is.
    pub(super) looked_at: u64,
    /// Gathered for a log and not taken yet.
    pub(super) changes: Changes,
    /// Every directory there was: readers without the lock may still look at old ones. Not boxed, as the roots point into
    /// them, and a box that moves would claim them for itself.
    pub(super) directories: Vec<Arc<[Slot]>>,
}

/// What happened in a shard, in ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) live: u64,
    pub(crate) pending: u64,
    pub(crate) first_seen: u64,
    pub(crate) duplicates: u64,
    pub(crate) in_flight: u64,
    pub(crate) reappeared: u64,
    pub(crate) late: u64,
    pub(crate) full: u64,
    pub(crate) evicted_early: u64,
    pub(crate) moved: u64,
}

/// What a question wants when the ID is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// To mark it seen at once.
    Observe,
    /// The same, and to gather it for a log.
    Gather,
    /// To reserve it.
    Reserve,
    /// To mark it seen at once, as it was before, or to have it count from now on if it is known: nothing is gathered.
    Restore,
}

impl Answer {
    pub(super) const COUNT: usize = Self::Full as usize + 1;

    /// Whether the question could not be answered.
    #[inline]
    pub(crate) fn is_unjudged(self) -> bool {
        matches!(self, Self::Late | Self::Full | Self::Unlogged)
    }

    /// Whether the ID is new, and was recorded.
    #[inline]
    pub(crate) fn is_first(self) -> bool {
        matches!(self, Self::New | Self::Reappeared)
    }
}

impl Act {
    pub(super) fn state(self) -> State {
        match self {
            Self::Observe | Self::Gather | Self::Restore => State::Seen,
            Self::Reserve => State::Pending,
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// First seen: nothing was known of the ID.
    New,
    /// First seen: the ID was known, and its window has ended.
    Reappeared,
    /// Duplicate.
    Seen,
    /// Reserved and not resolved.
    InFlight,
    /// The event's time is before the low watermark.
    Late,
    /// No room, and nothing to evict.
    Full,
    /// The log cannot take it. Given by who keeps one, never by the set.
    Unlogged,
}

impl Shard {
    pub(super) fn new(number: usize, shape: &Shape, era: Era, extend: bool, ring_length: usize) -> Self {
        let count = roots_of_shard(number, 1 << shape.shard_bits, shape.roots);
        let slots: Arc<[Slot]> = (0..count).map(|_| Slot::new(SegmentRef::empty(0), era.newest)).collect();
        let roots = slots.chunks(1).map(Root::new).collect();
        let core = Core {
            era,
            seen: Common::new(era, State::Seen, extend),
            counts: vec![0; ring_length].into_boxed_slice(),
            allowance: Taken { generation: era.newest, ids: 0 },
            answers: [0; Answer::COUNT],
            pending: 0,
            evicted_early: 0,
            moved: 0,
            looked_at: 0,
            forgotten: 0,
            changes: Changes::default(),
            directories: vec![slots],
        };
        Self { roots, version: Versioned::default(), core: CachePadded::new(Mutex::new(core)) }
    }

    /// Bytes of the shard that are there from the start.
    pub(super) fn bytes(&self) -> usize {
        let core = self.lock();
        let directories = core.directories.iter().map(|slots| size_of_val(&**slots)).sum::<usize>();
        size_of::<Self>() + size_of_val(&*self.roots) + size_of_val(&*core.counts) + directories
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lock, if nobody has it.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Core>> {
        match self.core.try_lock() {
            Ok(core) => Some(core),
            Err(TryLockError::Poisoned(core)) => Some(core.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Where the segment of `fingerprint` is named; without the lock, as far as that can be told.
    #[inline]
    pub(super) fn slot(&self, fingerprint: Fingerprint, shard_bits: u32) -> &Slot {
        self.roots[root_of(fingerprint, shard_bits, self.roots.len())].slot(Stored::of(fingerprint))
    }
}

/// A shard whose lock is held.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) shard: &'a Shard,
    pub(super) core: MutexGuard<'a, Core>,
    pub(super) common: &'a Shared,
}

impl Held<'_> {
    /// What happened in this shard.
    pub(super) fn tally(&self) -> Tally {
        let core = &*self.core;
        let given = |answer: Answer| core.answers[answer as usize];
        Tally {
            live: core.counts.iter().copied().map(u64::from).sum(),
            pending: core.pending,
            first_seen: given(Answer::New) + given(Answer::Reappeared),
            duplicates: given(Answer::Seen),
            in_flight: given(Answer::InFlight),
            reappeared: given(Answer::Reappeared),
            late: given(Answer::Late),
            full: given(Answer::Full),
            evicted_early: core.evicted_early,
            moved: core.moved,
        }
    }

    /// Forgets what was retired since the shard was last held.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        let era = self.common.generations.era();
        if era != self.core.era {
            self.enter(era);
        }
    }

    #[cold]
    pub(super) fn enter(&mut self, era: Era) {
        let before = self.core.era;
        let gone = before.horizon..era.horizon.min(before.newest + 1).max(before.horizon);
        if !gone.is_empty() {
            for early in self.common.generations.early_among(gone.clone()) {
                self.core.evicted_early += self.forget_counts(early);
            }
            self.forget_counts(gone);
        }
        if self.core.allowance.generation != era.newest {
            self.return_allowance(era.newest);
        }
        self.core.era = era;
        self.core.seen = Common::new(era, State::Seen, self.common.extend);
    }

    pub(super) fn forget_counts(&mut self, generations: Range<u64>) -> u64 {
        let mask = self.core.counts.len() as u64 - 1;
        let ids = generations.map(|g| u64::from(std::mem::take(&mut self.core.counts[(g & mask) as usize]))).sum();
        self.core.forgotten += ids;
        ids
    }

    #[inline]
    pub(super) fn root(&self, fingerprint: Fingerprint) -> usize {
        root_of(fingerprint, self.common.shape.shard_bits, self.shard.roots.len())
    }

    #[inline]
    pub(super) fn slot(&self, fingerprint: Fingerprint) -> &Slot {
        self.shard.slot(fingerprint, self.common.shape.shard_bits)
    }

    /// The segment of `stored`, clean enough that every tag in it can be told. `None` while it has no memory.
    pub(super) fn segment(&mut self, root: usize, stored: Stored) -> Option<Segment<'_>> {
        let segment = self.segment_named(root, stored);
        segment.has_lines().then(|| self.open(segment))
    }

    /// Names the segment of `stored`, clean enough that every tag in it can be told.
    #[inline]
    pub(super) fn segment_named(&mut self, root: usize, stored: Stored) -> SegmentRef {
        let slot = self.shard.roots[root].slot(stored);
        let (segment, cleaned) = (slot.segment(), slot.cleaned());
        if segment.has_lines() && self.core.era.newest - cleaned > CLEAN_AFTER {
            self.clean(root, segment, cleaned, stored.c);
        }
        segment
    }

    /// The lines of `segment`, which must be one that a slot of this shard names now.
    #[inline]
    pub(super) fn open(&mut self, segment: SegmentRef) -> Segment<'_> {
        self.core.open(segment)
    }
}

impl Core {
    /// The lines of `segment`, which must be one that a slot of this shard names now.
    #[inline]
    pub(super) fn open(&mut self, segment: SegmentRef) -> Segment<'_> {
        // SAFETY: the slot names a chunk of `1 << class` lines that `Memory` handed out and that is released only after
        // no slot names it (invariants 1 and 2 of `memory`). All access to a shard's chunks goes through its lock, which
        // whoever has `self` holds, and the borrow of `self` keeps a second `Segment` from being opened meanwhile.
        Segment::new(unsafe { std::slice::from_raw_parts_mut(segment.lines(), 1 << segment.class()) })
    }

    /// The lines of two different segments.
    pub(super) fn open_both(&mut self, one: SegmentRef, other: SegmentRef) -> (Segment<'_>, Segment<'_>) {
        assert_ne!(one.lines(), other.lines(), "two segments never share lines");
        // SAFETY: as for `open`, where the second one may be a chunk that no slot names yet and nobody else knows; chunks
        // do not overlap.
        let second = Segment::new(unsafe { std::slice::from_raw_parts_mut(other.lines(), 1 << other.class()) });
        // SAFETY: as above.
        let first = Segment::new(unsafe { std::slice::from_raw_parts_mut(one.lines(), 1 << one.class()) });
        (first, second)
    }
}
