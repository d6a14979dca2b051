//! One cache line of the set: five entries of 85 fingerprint bits, and what each of them is.
//!
//! ```text
//! byte  0        20        40        60     64
//!       | a: 5×u32 | b: 5×u32 | c: 5×u32 | head |
//!
//! a     fingerprint bits 0..32, compared first
//! b     fingerprint bits 32..64
//! c     bits 0..16: fingerprint bits 64..80; bits 16..30: tag (the generation modulo 2¹⁴); bits 30..32: state
//! head  bits 5i..5i+5: fingerprint bits 80..85 of entry i; bits 25..32: overflow marks
//! ```
//!
//! The fields lie in columns so that one vector compare asks all entries at once. An overflow mark says that an entry
//! whose home is this line stands in its other line. There are seven, and a fingerprint has one of them, so most searches
//! for an ID that is not there end here even when the line has overflowed. A mark is never cleared in place: a deletion
//! cannot know whether it removed the last entry that needs it. Rebuilding the segment clears them.

use crate::event::Fingerprint;

/// Entries in one line.
pub(super) const ENTRIES: usize = 5;

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line {
    a: [u32; ENTRIES],
    b: [u32; ENTRIES],
    c: [u32; ENTRIES],
    head: u32,
}

const _: () = assert!(size_of::<Line>() == 64);

/// What is stored of a fingerprint: its low 85 bits, cut as the line keeps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) a: u32,
    pub(super) b: u32,
    /// Fingerprint bits 64..85.
    pub(super) c: u32,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum State {
    /// No entry.
    Free = 0,
    /// Reserved and not yet resolved. Neither expires nor is evicted.
    Pending = 1,
    /// Seen for good.
    Seen = 2,
}

/// State and generation tag of one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark(u32);

impl Mark {
    pub(super) fn new(state: State, generation: u64) -> Self {
        Self((state as u32) << TAG_BITS | (generation as u32 & TAG_MASK))
    }

    pub(super) fn is_free(self) -> bool {
        self.0 >> TAG_BITS == State::Free as u32
    }

    pub(super) fn is_pending(self) -> bool {
        self.0 >> TAG_BITS == State::Pending as u32
    }

    #[inline]
    pub(super) fn is_seen(self) -> bool {
        self.0 >> TAG_BITS == State::Seen as u32
    }

    /// The tag at the top of a word, and nothing below it.
    #[inline]
    pub(super) fn tag_on_top(self) -> u32 {
        self.0 << (32 - TAG_BITS)
    }

    /// How many generations before `generation` this entry was made. Right as long as it is less than [`TAG_RANGE`],
    /// which cleaning sees to.
    pub(super) fn age(self, generation: u64) -> u64 {
        u64::from((generation as u32).wrapping_sub(self.0) & TAG_MASK)
    }

    /// The generation this entry was made in, told at `generation` or less than [`TAG_RANGE`] generations later.
    pub(super) fn generation(self, generation: u64) -> u64 {
        generation.saturating_sub(self.age(generation))
    }
}

/// One entry, lifted out of its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) stored: Stored,
    pub(super) mark: Mark,
}

impl Stored {
    #[inline]
    pub(super) fn of(fingerprint: Fingerprint) -> Self {
        let (high, low) = (fingerprint.high(), fingerprint.low());
        Self { a: low as u32, b: (low >> 32) as u32, c: high as u32 & STORED_HIGH_MASK }
    }

    /// The home line among `1 << class` lines.
    #[inline]
    pub(super) fn home(self, class: u32) -> usize {
        self.home_shifted(32 - class)
    }

    /// The home line among `1 << (32 - shift)` lines. Bits of `shift` above the lowest five do not count.
    #[inline]
    pub(super) fn home_shifted(self, shift: u32) -> usize {
        self.b.wrapping_shr(shift) as usize
    }

    /// The other line: never the home line.
    #[inline]
    pub(super) fn other(self, class: u32) -> usize {
        let distance = (self.b << 12).wrapping_shr(32 - class) | 1;
        self.home(class) ^ distance as usize
    }

    /// Its overflow mark.
    #[inline]
    pub(super) fn overflow_mark(self) -> u32 {
        OVERFLOW_FIRST << ((u64::from(self.a) * OVERFLOW_MARKS) >> 32)
    }

    /// The path from the root to the segment, without its last `shift` bits. Bits of `shift` above the lowest five do not
    /// count.
    #[inline]
    pub(super) fn path_shifted(self, shift: u32) -> usize {
        self.c.wrapping_shr(shift) as usize
    }
}

impl Line {
    pub(super) const EMPTY: Self = Self { a: [0; ENTRIES], b: [0; ENTRIES], c: [0; ENTRIES], head: 0 };

    /// The entries whose first 32 bits are those of `stored`, as a bit set. Expired and free ones are among them.
    #[inline]
    fn candidates(&self, stored: Stored) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use core::arch::x86_64::{
                _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_load_si128, _mm_movemask_ps, _mm_set1_epi32,
            };
            // SAFETY: SSE2 is part of x86-64; `a` is the first field of a type aligned to 64 bytes, and 16 of its bytes
            // are read.
            let four = unsafe {
                let a = _mm_load_si128(self.a.as_ptr().cast());
                let equal = _mm_cmpeq_epi32(a, _mm_set1_epi32(stored.a.cast_signed()));
                _mm_movemask_ps(_mm_castsi128_ps(equal)).cast_unsigned()
            };
            four | u32::from(self.a[4] == stored.a) << 4
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            (0..ENTRIES).fold(0, |set, slot| set | u32::from(self.a[slot] == stored.a) << slot)
        }
    }

    /// The first slot that holds `stored`, whatever its age.
    #[inline]
    pub(super) fn slot_of(&self, stored: Stored) -> Option<usize> {
        let mut candidates = self.candidates(stored);
        while candidates != 0 {
            let slot = candidates.trailing_zeros() as usize;
            if self.holds(slot, stored) {
                return Some(slot);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// The slots that hold `stored`, whatever their age.
    #[inline]
    pub(super) fn matches(&self, stored: Stored) -> impl Iterator<Item = usize> {
        let mut candidates = self.candidates(stored);
        std::iter::from_fn(move || {
            while candidates != 0 {
                let slot = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                if self.holds(slot, stored) {
                    return Some(slot);
                }
            }
            None
        })
    }

    #[inline]
    pub(super) fn holds(&self, slot: usize, stored: Stored) -> bool {
        self.agrees(slot, stored) && !self.mark(slot).is_free()
    }

    /// Whether what stands in `slot` is `stored`, as far as its first 32 bits and a free slot do not tell.
    #[inline]
    pub(super) fn agrees(&self, slot: usize, stored: Stored) -> bool {
        self.b[slot] == stored.b && self.high(slot) == stored.c
    }

    #[inline]
    fn high(&self, slot: usize) -> u32 {
        (self.c[slot] & LOW_16) | (self.head >> (HEAD_BITS * slot as u32) & HEAD_MASK) << 16
    }

    #[inline]
    pub(super) fn mark(&self, slot: usize) -> Mark {
        Mark(self.c[slot] >> 16)
    }

    #[inline]
    pub(super) fn set_mark(&mut self, slot: usize, mark: Mark) {
        self.c[slot] = self.c[slot] & LOW_16 | mark.0 << 16;
    }

    pub(super) fn entry(&self, slot: usize) -> Entry {
        Entry { stored: Stored { a: self.a[slot], b: self.b[slot], c: self.high(slot) }, mark: self.mark(slot) }
    }

    #[inline]
    pub(super) fn put(&mut self, slot: usize, entry: Entry) {
        let shift = HEAD_BITS * slot as u32;
        self.a[slot] = entry.stored.a;
        self.b[slot] = entry.stored.b;
        self.c[slot] = entry.stored.c & LOW_16 | entry.mark.0 << 16;
        self.head = self.head & !(HEAD_MASK << shift) | (entry.stored.c >> 16) << shift;
    }

    /// The slots that are free, or whose entry is seen and older than `age_max` generations at `generation`, as a bit set.
    /// Without branches: how full a line is cannot be predicted.
    #[inline]
    pub(super) fn room(&self, generation: u64, age_max: u64) -> u32 {
        let (now, age_max) = (generation as u32, age_max.min(u64::from(TAG_MASK)) as u32);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use core::arch::x86_64::{
                _mm_and_si128, _mm_andnot_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_cmpgt_epi32, _mm_loadu_si128,
                _mm_movemask_ps, _mm_or_si128, _mm_set1_epi32, _mm_setzero_si128, _mm_srli_epi32, _mm_sub_epi32,
            };
            // SAFETY: SSE2 is part of x86-64, and 16 bytes of `c` are read, which has 20.
            let four = unsafe {
                let c = _mm_loadu_si128(self.c.as_ptr().cast());
                let state = _mm_srli_epi32::<30>(c);
                let is_free = _mm_cmpeq_epi32(state, _mm_setzero_si128());
                let is_pending = _mm_cmpeq_epi32(state, _mm_set1_epi32(1));
                let since = _mm_sub_epi32(_mm_set1_epi32(now.cast_signed()), _mm_srli_epi32::<16>(c));
                let age = _mm_and_si128(since, _mm_set1_epi32(TAG_MASK.cast_signed()));
                let is_old = _mm_cmpgt_epi32(age, _mm_set1_epi32(age_max.cast_signed()));
                let room = _mm_or_si128(is_free, _mm_andnot_si128(is_pending, is_old));
                _mm_movemask_ps(_mm_castsi128_ps(room)).cast_unsigned()
            };
            four | self.is_room(4, now, age_max) << 4
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            (0..ENTRIES).fold(0, |room, slot| room | self.is_room(slot, now, age_max) << slot)
        }
    }

    #[inline]
    fn is_room(&self, slot: usize, now: u32, age_max: u32) -> u32 {
        let mark = self.c[slot] >> 16;
        let is_free = mark >> TAG_BITS == State::Free as u32;
        let is_pending = mark >> TAG_BITS == State::Pending as u32;
        let is_old = now.wrapping_sub(mark) & TAG_MASK > age_max;
        u32::from(is_free | (is_old & !is_pending))
    }

    /// The slots whose entry has `bit` of the path, as a bit set; of free ones it says anything.
    #[inline]
    pub(super) fn on_path(&self, bit: u32) -> u32 {
        (0..ENTRIES).fold(0, |set, slot| set | u32::from(self.high(slot) & bit != 0) << slot)
    }

    /// The slots that are not free, as a bit set.
    #[inline]
    pub(super) fn taken(&self) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use core::arch::x86_64::{
                _mm_castsi128_ps, _mm_loadu_si128, _mm_movemask_ps, _mm_or_si128, _mm_slli_epi32,
            };
            // SAFETY: SSE2 is part of x86-64, and 16 bytes of `c` are read, which has 20.
            let four = unsafe {
                let c = _mm_loadu_si128(self.c.as_ptr().cast());
                _mm_movemask_ps(_mm_castsi128_ps(_mm_or_si128(c, _mm_slli_epi32::<1>(c)))).cast_unsigned()
            };
            four | u32::from(!self.mark(4).is_free()) << 4
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            (0..ENTRIES).fold(0, |set, slot| set | u32::from(!self.mark(slot).is_free()) << slot)
        }
    }

    /// Makes all slots free but those in the bit set `kept`.
    #[inline]
    pub(super) fn keep(&mut self, kept: u32) {
        for slot in 0..ENTRIES {
            self.c[slot] &= 0_u32.wrapping_sub(kept >> slot & 1);
        }
    }

    /// The entries that do not stand in their home, when this is line `here` of `1 << class`.
    #[inline]
    pub(super) fn away(&self, here: usize, class: u32) -> impl Iterator<Item = Stored> {
        let mut away = self.taken() & !self.at_home(here, class);
        std::iter::from_fn(move || {
            let slot = away.trailing_zeros() as usize;
            away &= away.wrapping_sub(1);
            (slot < ENTRIES).then(|| self.entry(slot).stored)
        })
    }

    /// The slots whose entries have their home in line `here` of `1 << class`, as a bit set.
    #[inline]
    fn at_home(&self, here: usize, class: u32) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use core::arch::x86_64::{
                _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_movemask_ps, _mm_set1_epi32,
                _mm_srl_epi32,
            };
            // SAFETY: SSE2 is part of x86-64, and 16 bytes of `b` are read, which has 20.
            let four = unsafe {
                let b = _mm_loadu_si128(self.b.as_ptr().cast());
                let homes = _mm_srl_epi32(b, _mm_cvtsi32_si128((32 - class).cast_signed()));
                let equal = _mm_cmpeq_epi32(homes, _mm_set1_epi32(here as i32));
                _mm_movemask_ps(_mm_castsi128_ps(equal)).cast_unsigned()
            };
            four | u32::from((self.b[4] >> (32 - class)) as usize == here) << 4
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            (0..ENTRIES).fold(0, |set, slot| set | u32::from((self.b[slot] >> (32 - class)) as usize == here) << slot)
        }
    }

    /// Has these overflow marks and no others.
    #[inline]
    pub(super) fn set_overflows(&mut self, marks: u32) {
        self.head = self.head & (OVERFLOW_FIRST - 1) | marks;
    }

    /// Makes `slot` free.
    pub(super) fn free(&mut self, slot: usize) {
        self.c[slot] = 0;
    }

    /// Whether `stored`, whose home this is, may stand in its other line.
    #[inline]
    pub(super) fn overflowed(&self, stored: Stored) -> bool {
        self.head & stored.overflow_mark() != 0
    }

    /// Notes that `stored`, whose home this is, stands in its other line.
    #[inline]
    pub(super) fn set_overflowed(&mut self, stored: Stored) {
        self.head |= stored.overflow_mark();
    }
}

/// Bits of a generation tag.
pub(super) const TAG_BITS: u32 = 14;
/// Generations after which a tag repeats.
pub(super) const TAG_RANGE: u64 = 1 << TAG_BITS;
pub(super) const TAG_MASK: u32 = (1 << TAG_BITS) - 1;
const LOW_16: u32 = 0xFFFF;
/// Fingerprint bits of one entry that stand in the head.
const HEAD_BITS: u32 = 5;
const HEAD_MASK: u32 = (1 << HEAD_BITS) - 1;
/// The lowest overflow mark, above the bits of five entries.
const OVERFLOW_FIRST: u32 = 1 << 25;
const OVERFLOW_MARKS: u64 = 7;
/// Stored bits above the low 64; also the longest path from a root to a segment.
pub(super) const PATH_BITS: u32 = 21;
const STORED_HIGH_MASK: u32 = (1 << PATH_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(n: u128) -> Stored {
        Stored::of(Fingerprint::from_u128(n))
    }

    #[test]
    fn every_stored_bit_is_compared() {
        let base = 0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128;
        let mut line = Line::EMPTY;
        for slot in 0..ENTRIES {
            line.put(slot, Entry { stored: stored(base + slot as u128), mark: Mark::new(State::Seen, 7) });
        }
        for slot in 0..ENTRIES {
            let held = base + slot as u128;
            assert_eq!(line.matches(stored(held)).collect::<Vec<_>>(), [slot]);
            for bit in 3..85 {
                assert_eq!(line.matches(stored(held ^ 1 << bit)).count(), 0, "bit {bit} of entry {slot}");
            }
            for bit in 85..128 {
                assert_eq!(line.matches(stored(held ^ 1 << bit)).count(), 1, "bit {bit} is implied by the place");
            }
        }
    }

    #[test]
    fn an_entry_comes_out_as_it_went_in() {
        let mut line = Line::EMPTY;
        line.set_overflowed(stored(77));
        for slot in 0..ENTRIES {
            let stored = stored(u128::MAX / (slot as u128 + 1));
            let mark = Mark::new(State::Pending, 16_383 - slot as u64);
            line.put(slot, Entry { stored, mark });
            let entry = line.entry(slot);
            assert_eq!((entry.stored, entry.mark), (stored, mark));
        }
        assert!(line.overflowed(stored(77)));
        assert_eq!((0..7_u128).filter(|n| line.overflowed(stored(n * 613_566_757))).count(), 1);
    }

    #[test]
    fn a_freed_entry_is_not_found() {
        let mut line = Line::EMPTY;
        assert_eq!(line.matches(stored(0)).count(), 0, "an empty line holds no zero");
        line.put(2, Entry { stored: stored(9), mark: Mark::new(State::Seen, 1) });
        line.free(2);
        assert_eq!(line.matches(stored(9)).count(), 0);
    }

    #[test]
    fn the_two_lines_of_an_id_differ() {
        for n in 0..10_000_u128 {
            let stored = stored(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
            for class in 1..=10 {
                let (home, other) = (stored.home(class), stored.other(class));
                assert!(home != other && home < 1 << class && other < 1 << class);
            }
        }
    }

    #[test]
    fn an_age_is_right_up_to_the_tag_range() {
        for age in [0, 1, 63, 64, TAG_RANGE - 1] {
            let born = 1_000_000;
            assert_eq!(Mark::new(State::Seen, born).age(born + age), age);
            assert_eq!(Mark::new(State::Seen, born).generation(born + age), born);
        }
    }
}
