//! The way from a fingerprint to its segment: shard, root, directory slot.
//!
//! Each shard has a number of roots of its own, and each root is an extendible hash directory (Fagin, Nievergelt,
//! Pippenger, Strong, 1979) over segments. All segments have the same largest size, so equal shards would all fill and
//! split at the same moment, and memory per id would swing between one and two times its least. The numbers of roots are
//! therefore spread evenly in their logarithm over one doubling: at any time some shards are just before a split and
//! others just after, and the memory per id is the same at every size.
//!
//! Roots and slots are read without the lock to look up the line of a coming question. Such a reader may see an old
//! directory: that is memory still, as directories live as long as the set. What it learns is used to prefetch, and, when
//! the shard's [`Version`] is under the lock what it was before, to ask.

use crate::event::Fingerprint;
use crate::sync::{AtomicU64, Ordering};

use super::generations::CLEAN_AFTER;
use super::line::{Line, PATH_BITS, Stored};

/// One root: where its directory is, and how many bits of path it tells apart.
#[derive(Debug)]
pub(super) struct Root {
    /// Address of the first slot, from bit 16 on; below it how far a path is shifted to be the number of its slot. Written
    /// under the shard's lock, released; read without it, acquired.
    packed: AtomicU64,
}

/// One directory entry. Several slots may name one segment; they are equal then.
#[derive(Debug)]
#[repr(C, align(16))]
pub(super) struct Slot {
    /// A [`SegmentRef`]. Written under the shard's lock; read without it, relaxed, as the [`Version`] orders it.
    segment: AtomicU64,
    /// The generation in which the segment was last cleaned. As `segment`.
    cleaned: AtomicU64,
}

/// Which chunk of memory a segment stands in, and how many bits of path all its entries share.
///
/// Laid out so that a line is found in few instructions: address of the first line, from bit 16 on; depth, from bit 8 on;
/// and how far the bits of an entry are shifted to be the number of its home line, or [`EMPTY`], or [`MOVED`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentRef(u64);

impl Root {
    pub(super) fn new(slots: &[Slot]) -> Self {
        Self { packed: AtomicU64::new(Self::pack(slots)) }
    }

    /// Puts in a directory of twice the slots. The old one must stay where it is as long as the set lives: readers may
    /// still hold slots of it, and find them marked as moved.
    pub(super) fn replace(&self, slots: &[Slot]) {
        let old = self.slots();
        self.packed.store(Self::pack(slots), Ordering::Release);
        for slot in old {
            slot.segment.store(SegmentRef::MOVED.0, Ordering::Relaxed);
        }
    }

    fn pack(slots: &[Slot]) -> u64 {
        debug_assert!(slots.len().is_power_of_two());
        let (address, depth) = (slots.as_ptr().expose_provenance() as u64, slots.len().trailing_zeros());
        assert!(address >> (64 - ADDRESS_SHIFT) == 0, "addresses of programs have 48 bits at most");
        address << ADDRESS_SHIFT | u64::from(PATH_BITS - depth)
    }

    /// The slots.
    #[inline]
    pub(super) fn slots(&self) -> &[Slot] {
        let packed = self.packed.load(Ordering::Acquire);
        let depth = PATH_BITS - (packed & SHIFT_MASK) as u32;
        // SAFETY: `packed` was made from a slice of `1 << depth` slots that lives as long as the set, which outlives
        // `self`. Slots are atomics, so sharing them is sound.
        unsafe { std::slice::from_raw_parts(Self::first(packed), 1 << depth) }
    }

    /// The slot of `stored`.
    #[inline]
    pub(super) fn slot(&self, stored: Stored) -> &Slot {
        let packed = self.packed.load(Ordering::Acquire);
        // SAFETY: as above; a path that was shifted so is less than `1 << depth`.
        unsafe { &*Self::first(packed).add(stored.path_shifted(packed as u32)) }
    }

    #[inline]
    fn first(packed: u64) -> *const Slot {
        std::ptr::with_exposed_provenance((packed >> ADDRESS_SHIFT) as usize)
    }
}

/// How often a shard's directories have changed which lines they name, or when these were cleaned.
///
/// Whoever reads it, then looks up lines without the shard's lock, and finds it unchanged under the lock, has looked up what is
/// named now: a change is stored before it is counted, so who sees the count sees the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Version(u64);

/// A [`Version`] that is kept. Written under the shard's lock, released; read without it, acquired.
#[derive(Debug, Default)]
pub(super) struct Versioned(AtomicU64);

impl Versioned {
    #[inline]
    pub(super) fn get(&self) -> Version {
        Version(self.0.load(Ordering::Acquire))
    }

    /// Counts a change that was stored.
    pub(super) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Slot {
    pub(super) fn new(segment: SegmentRef, cleaned: u64) -> Self {
        Self { segment: AtomicU64::new(segment.0), cleaned: AtomicU64::new(cleaned) }
    }

    #[inline]
    pub(super) fn segment(&self) -> SegmentRef {
        SegmentRef(self.segment.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn cleaned(&self) -> u64 {
        self.cleaned.load(Ordering::Relaxed)
    }

    /// Whether `segment`, which this slot names, has lines that can be asked in generation `newest` without being cleaned first.
    #[inline]
    pub(super) fn is_at_hand(&self, segment: SegmentRef, newest: u64) -> bool {
        segment.has_lines() & (newest.wrapping_sub(self.cleaned()) <= CLEAN_AFTER)
    }

    pub(super) fn set(&self, segment: SegmentRef, cleaned: u64) {
        self.segment.store(segment.0, Ordering::Relaxed);
        self.cleaned.store(cleaned, Ordering::Relaxed);
    }
}

impl SegmentRef {
    /// This slot belongs to a directory that is not used any more.
    const MOVED: Self = Self(MOVED);

    /// No memory yet, for ids that share `depth` bits of path.
    pub(super) fn empty(depth: u32) -> Self {
        Self(u64::from(depth) << DEPTH_SHIFT | EMPTY)
    }

    /// The chunk of `1 << class` lines at `lines`.
    pub(super) fn new(lines: std::ptr::NonNull<Line>, class: u32, depth: u32) -> Self {
        let address = lines.as_ptr().expose_provenance() as u64;
        debug_assert!(0 < class && class < 32);
        assert!(address >> (64 - ADDRESS_SHIFT) == 0, "addresses of programs have 48 bits at most");
        Self(address << ADDRESS_SHIFT | u64::from(depth) << DEPTH_SHIFT | u64::from(32 - class))
    }

    /// The same lines for ids that share one more bit of path.
    pub(super) fn deeper(self) -> Self {
        Self(self.0 + (1 << DEPTH_SHIFT))
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 & LOW_8 == EMPTY
    }

    /// Whether there are lines behind it: neither empty nor moved.
    #[inline]
    pub(super) fn has_lines(self) -> bool {
        self.0 & EMPTY == 0
    }

    /// Log2 of the number of lines; 0 when there are none.
    #[inline]
    pub(super) fn class(self) -> u32 {
        32_u32.saturating_sub((self.0 & LOW_8) as u32)
    }

    #[inline]
    pub(super) fn depth(self) -> u32 {
        (self.0 >> DEPTH_SHIFT & LOW_8) as u32
    }

    /// The first line.
    #[inline]
    pub(super) fn lines(self) -> *mut Line {
        std::ptr::with_exposed_provenance_mut((self.0 >> ADDRESS_SHIFT) as usize)
    }

    /// The other line of `stored`, for prefetching; nonsense when there are no lines.
    #[inline]
    pub(super) fn other(self, stored: Stored) -> *const Line {
        self.lines().wrapping_add(stored.other(self.class()))
    }

    /// The home line of `stored`; nonsense when there are no lines.
    #[inline]
    pub(super) fn home(self, stored: Stored) -> *mut Line {
        self.lines().wrapping_add(stored.home_shifted(self.0 as u32))
    }
}

/// The root of `fingerprint` among `roots` of its shard, where `shard_bits` top bits chose the shard.
#[inline]
pub(super) fn root_of(fingerprint: Fingerprint, shard_bits: u32, roots: usize) -> usize {
    let next_16 = (fingerprint.high() << shard_bits) >> 48;
    (next_16 as usize * roots) >> 16
}

/// How many roots each of `shards` shards has: from `base` to twice that, spread evenly in the logarithm. Neighbours get
/// far apart values.
pub(super) fn roots_of_shard(shard: usize, shards: usize, base: usize) -> usize {
    let bits = shards.trailing_zeros();
    let mixed = if bits == 0 { 0 } else { shard.reverse_bits() >> (usize::BITS - bits) };
    let exponent = mixed as f64 / shards as f64;
    (base as f64 * exponent.exp2()).round() as usize
}

/// The first path of those that begin with the same `depth` bits as `path` (of [`PATH_BITS`] bits), and the first behind
/// them.
pub(super) fn span(path: u32, depth: u32) -> (u32, u32) {
    let width = 1 << (PATH_BITS - depth);
    let first = path & !(width - 1);
    (first, first + width)
}

/// Addresses of programs have 48 bits at most, so they can be shifted by so many.
const ADDRESS_SHIFT: u32 = 16;
const SHIFT_MASK: u64 = 31;
const DEPTH_SHIFT: u32 = 8;
const LOW_8: u64 = 0xFF;
/// A shift that no segment with lines has; so every one without has this bit.
const EMPTY: u64 = 32;
const MOVED: u64 = EMPTY | 1;
