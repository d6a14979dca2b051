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
    /// Address of the first slot, below bit 48; depth above. Written under the shard's lock, released; read without it,
    /// acquired.
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
        slots.as_ptr().expose_provenance() as u64 | u64::from(slots.len().trailing_zeros()) << ADDRESS_BITS
    }

    /// The slots.
    #[inline]
    pub(super) fn slots(&self) -> &[Slot] {
        let (first, depth) = self.unpack();
        // SAFETY: `packed` was made from a slice of `1 << depth` slots that lives as long as the set, which outlives
        // `self`. Slots are atomics, so sharing them is sound.
        unsafe { std::slice::from_raw_parts(first, 1 << depth) }
    }

    /// The slot of `stored`.
    #[inline]
    pub(super) fn slot(&self, stored: Stored) -> &Slot {
        let (first, depth) = self.unpack();
        // SAFETY: as above; a path of `depth` bits is less than `1 << depth`.
        unsafe { &*first.add(stored.path(depth)) }
    }

    #[inline]
    fn unpack(&self) -> (*const Slot, u32) {
        let packed = self.packed.load(Ordering::Acquire);
        (std::ptr::with_exposed_provenance((packed & ADDRESS_MASK) as usize), (packed >> ADDRESS_BITS) as u32)
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

    /// The home line of `stored`, when it has one and that can be asked in generation `newest` without being cleaned first;
    /// else null.
    #[inline]
    pub(super) fn line_at_hand(&self, stored: Stored, newest: u64) -> *mut Line {
        let segment = self.segment();
        let is_at_hand = segment.has_lines() & (newest.wrapping_sub(self.cleaned()) <= CLEAN_AFTER);
        if is_at_hand { segment.home(stored) } else { std::ptr::null_mut() }
    }

    pub(super) fn set(&self, segment: SegmentRef, cleaned: u64) {
        self.segment.store(segment.0, Ordering::Relaxed);
        self.cleaned.store(cleaned, Ordering::Relaxed);
    }
}

impl SegmentRef {
    /// This slot belongs to a directory that is not used any more.
    const MOVED: Self = Self(CLASS_MASK);

    /// No memory yet, for ids that share `depth` bits of path.
    pub(super) fn empty(depth: u32) -> Self {
        Self(u64::from(depth) << ADDRESS_BITS)
    }

    /// The chunk of `1 << class` lines at `lines`.
    pub(super) fn new(lines: std::ptr::NonNull<Line>, class: u32, depth: u32) -> Self {
        let address = lines.as_ptr().expose_provenance() as u64;
        debug_assert!(address & !(ADDRESS_MASK & !CLASS_MASK) == 0 && u64::from(class) <= CLASS_MASK);
        Self(address | u64::from(class) | u64::from(depth) << ADDRESS_BITS)
    }

    /// The same lines for ids that share one more bit of path.
    pub(super) fn deeper(self) -> Self {
        Self(self.0 + (1 << ADDRESS_BITS))
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.class() == 0
    }

    /// Whether there are lines behind it: neither empty nor moved.
    #[inline]
    pub(super) fn has_lines(self) -> bool {
        self.class().wrapping_sub(1) < CLASS_MASK as u32 - 1
    }

    #[inline]
    pub(super) fn class(self) -> u32 {
        (self.0 & CLASS_MASK) as u32
    }

    #[inline]
    pub(super) fn depth(self) -> u32 {
        (self.0 >> ADDRESS_BITS) as u32
    }

    /// The first line.
    #[inline]
    pub(super) fn lines(self) -> *mut Line {
        std::ptr::with_exposed_provenance_mut((self.0 & ADDRESS_MASK & !CLASS_MASK) as usize)
    }

    /// The other line of `stored`, for prefetching; nonsense when there are no lines.
    #[inline]
    pub(super) fn other(self, stored: Stored) -> *const Line {
        self.lines().wrapping_add(stored.other(self.class()))
    }

    /// The home line of `stored`, for prefetching; nonsense when there are no lines.
    #[inline]
    pub(super) fn home(self, stored: Stored) -> *mut Line {
        self.lines().wrapping_add(stored.home(self.class()))
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

pub(super) const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
/// A chunk is aligned to 128 bytes at least, so its low bits are free.
const CLASS_MASK: u64 = 0xF;
