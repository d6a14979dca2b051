//! The question to one line or two: is the ID there, and if not, is there room?
//!
//! Nearly every question ends here, so there are two ways to ask. The portable one is the definition. The vector one looks
//! at all words of a line at once; where the first entry that may be the ID's is not, or is not simply seen, it asks the
//! definition. Both are compared on random lines below.

use super::line::{Entry, Line, Mark, State, Stored, TAG_BITS, TAG_MASK};
use super::segment::{Both, Era, Quick};
use crate::event::Fingerprint;

/// What does not change while a shard is held and nothing unusual happens.
///
/// Tags are compared at the top of their words: what is below them is only ever taken from ones. The sign is turned over, as
/// vectors are compared signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    /// The newest generation, so.
    newest: i32,
    /// The age of the oldest generation that is remembered, so.
    age_max: i32,
    /// The greatest age at which a repeat changes nothing, so: zero where it makes its ID count from now on.
    quiet_max: i32,
    /// How a new entry is marked.
    mark: Mark,
}

/// What became of a question to its home line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It was nowhere, and is here now.
    New,
    /// It is here, and nothing is to be done.
    Seen,
    /// Nothing was done: this line has no room for it, or does not know whether it stands in its other line.
    Elsewhere,
    /// Nothing was done: it takes a closer look.
    Unusual,
}

/// A way to ask lines.
pub(super) trait Probe: Copy {
    /// What `line` knows of `stored`: `None` when it is not there, else whether it is seen and nothing is to be done.
    fn find(self, line: &Line, stored: Stored, common: &Common) -> Option<bool>;

    /// The first slot of `line` that is free or expired.
    fn room(self, line: &Line, common: &Common) -> Option<usize>;

    /// Asks `line`, the home of `fingerprint`, and records what is new where this line alone can tell.
    #[inline(always)]
    fn ask(self, line: &mut Line, fingerprint: Fingerprint, common: &Common) -> Found {
        let stored = Stored::of(fingerprint);
        if let Some(is_seen) = self.find(line, stored, common) {
            return if is_seen { Found::Seen } else { Found::Unusual };
        }
        match self.room(line, common) {
            Some(slot) if !line.overflowed(stored) => {
                line.put(slot, common.entry(stored));
                Found::New
            }
            _ => Found::Elsewhere,
        }
    }

    /// Asks both lines of an ID, and records what is new where there is room.
    #[inline(always)]
    fn ask_both(self, lines: Both<'_>, stored: Stored, common: &Common) -> Quick {
        let Both { home, other } = lines;
        let known = |is_seen| if is_seen { Quick::Seen } else { Quick::Unusual };
        if let Some(is_seen) = self.find(home, stored, common) {
            return known(is_seen);
        }
        if home.overflowed(stored)
            && let Some(is_seen) = self.find(other, stored, common)
        {
            return known(is_seen);
        }
        if let Some(slot) = self.room(home, common) {
            home.put(slot, common.entry(stored));
            return Quick::New;
        }
        let Some(slot) = self.room(other, common) else { return Quick::Full };
        other.put(slot, common.entry(stored));
        home.set_overflowed(stored);
        Quick::New
    }
}

/// The ways there are on this processor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    Portable(Portable),
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    Avx2(Avx2),
}

impl Kernel {
    /// The fastest one that this processor can.
    pub(super) fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
        if let Some(avx2) = Avx2::detect() {
            return Self::Avx2(avx2);
        }
        Self::Portable(Portable)
    }
}

impl Common {
    /// For entries of `state`; `extend`: whether a repeat makes its ID count from now on.
    #[inline]
    pub(super) fn new(era: Era, state: State, extend: bool) -> Self {
        let aligned = |age: u32| (age << (32 - TAG_BITS) | BELOW_TAG).cast_signed() ^ i32::MIN;
        let age_max = (era.newest - era.horizon).min(u64::from(TAG_MASK)) as u32;
        Self {
            newest: aligned(era.newest as u32),
            age_max: aligned(age_max),
            quiet_max: aligned(if extend { 0 } else { age_max }),
            mark: Mark::new(state, era.newest),
        }
    }

    #[inline]
    pub(super) fn entry(&self, stored: Stored) -> Entry {
        Entry { stored, mark: self.mark }
    }

    /// Whether a repeat of an entry so marked is seen, and changes nothing.
    #[inline]
    pub(super) fn is_quiet(&self, mark: Mark) -> bool {
        let age = self.newest.wrapping_sub(mark.tag_on_top().cast_signed());
        mark.is_seen() & (age <= self.quiet_max)
    }

    /// The slots of `line` that are free or expired, as a bit set.
    #[inline]
    pub(super) fn room(&self, line: &Line) -> u32 {
        let unaligned = |age: i32| (age ^ i32::MIN).cast_unsigned() >> (32 - TAG_BITS);
        line.room(u64::from(unaligned(self.newest)), u64::from(unaligned(self.age_max)))
    }
}

/// The bits below a tag that stands at the top of its word.
const BELOW_TAG: u32 = (1 << (32 - TAG_BITS)) - 1;

impl Portable {
    /// [`Probe::find`] where it is rarely asked.
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[cold]
    #[inline(never)]
    fn find_closely(self, line: &Line, stored: Stored, common: &Common) -> Option<bool> {
        self.find(line, stored, common)
    }
}

/// Any processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Probe for Portable {
    #[inline(always)]
    fn find(self, line: &Line, stored: Stored, common: &Common) -> Option<bool> {
        line.slot_of(stored).map(|slot| common.is_quiet(line.mark(slot)))
    }

    #[inline(always)]
    fn room(self, line: &Line, common: &Common) -> Option<usize> {
        let room = common.room(line);
        (room != 0).then(|| room.trailing_zeros() as usize)
    }
}

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
pub(super) use avx2::{Avx2, with_avx2};

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
mod avx2 {
    use core::arch::x86_64::*;

    use super::{Common, Portable, Probe};
    use crate::window::line::{ENTRIES, Line, Stored, TAG_BITS};

    /// A processor with AVX2, BMI1 and BMI2. A value of this type proves that this is one.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::window) struct Avx2(());

    impl Avx2 {
        pub(in crate::window) fn detect() -> Option<Self> {
            let found = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2");
            found.then_some(Self(()))
        }
    }

    impl Probe for Avx2 {
        #[inline(always)]
        fn find(self, line: &Line, stored: Stored, common: &Common) -> Option<bool> {
            // SAFETY: `self` proves that the processor has the features.
            let candidates = unsafe { candidates(line, stored) };
            if candidates == 0 {
                return None;
            }
            let slot = candidates.trailing_zeros() as usize % ENTRIES;
            if line.agrees(slot, stored) & common.is_quiet(line.mark(slot)) {
                return Some(true);
            }
            Portable.find_closely(line, stored, common)
        }

        #[inline(always)]
        fn room(self, line: &Line, common: &Common) -> Option<usize> {
            // SAFETY: as above.
            let room = unsafe { room(line, common) };
            (room != 0).then(|| room.trailing_zeros() as usize - 2)
        }
    }

    /// Runs `act` compiled for this processor, as far as it is inlined.
    #[inline]
    pub(in crate::window) fn with_avx2<R>(_: Avx2, act: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,bmi1,bmi2")]
        fn enabled<R>(act: impl FnOnce() -> R) -> R {
            act()
        }
        // SAFETY: the first argument proves that the processor has the features.
        unsafe { enabled(act) }
    }

    /// The slots whose first 32 bits are those of `stored`, as a bit set: one of them, nearly always, when it is there.
    ///
    /// Always inlined, as a call would cost a good part of the question; so the features are those of its callers.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn candidates(line: &Line, stored: Stored) -> u32 {
        // SAFETY: the caller promises the feature; a line is 64 bytes, aligned to as many.
        unsafe {
            let words = _mm256_load_si256((&raw const *line).cast());
            let equal = _mm256_cmpeq_epi32(words, _mm256_set1_epi32(stored.a.cast_signed()));
            _mm256_movemask_ps(_mm256_castsi256_ps(equal)).cast_unsigned() & SLOTS
        }
    }

    /// The slots that are free or expired, as a bit set from bit 2 on.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn room(line: &Line, common: &Common) -> u32 {
        // SAFETY: the caller promises the feature; the second half of a line is 32 bytes, aligned to as many.
        unsafe {
            // Two words of `b`, the five of `c`, the head.
            let words = _mm256_load_si256((&raw const *line).cast::<__m256i>().add(1));
            let age = _mm256_sub_epi32(_mm256_set1_epi32(common.newest), _mm256_slli_epi32::<2>(words));
            let old = _mm256_cmpgt_epi32(age, _mm256_set1_epi32(common.age_max));
            // The sign says seen, the bit below it pending.
            let taken = _mm256_or_si256(_mm256_andnot_si256(old, words), _mm256_slli_epi32::<1>(words));
            let taken = _mm256_movemask_ps(_mm256_castsi256_ps(taken)).cast_unsigned();
            taken & SLOTS << 2 ^ SLOTS << 2
        }
    }

    const SLOTS: u32 = (1 << ENTRIES) - 1;
    const _: () = assert!(ENTRIES == 5 && TAG_BITS == 14);
}

#[cfg(all(test, target_arch = "x86_64", not(any(miri, loom))))]
mod tests {
    use super::super::line;
    use super::*;

    /// SplitMix64 (Steele, Lea, Flood, 2014).
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let n = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ n >> 31
    }

    fn fingerprint(id: u64) -> Fingerprint {
        let mut state = id;
        Fingerprint::from_u128(u128::from(random(&mut state)) << 64 | u128::from(random(&mut state)))
    }

    /// A line of any content, with few ids, at `newest`.
    fn random_line(state: &mut u64, newest: u64) -> Line {
        let mut line = Line::EMPTY;
        for slot in 0..line::ENTRIES {
            let kind = [State::Free, State::Pending, State::Seen, State::Seen][random(state) as usize % 4];
            if kind == State::Free && random(state).is_multiple_of(2) {
                continue;
            }
            let id = (random(state) % 4) * line::ENTRIES as u64 + slot as u64;
            let born = newest.saturating_sub([0, 1, 63, 64, 65, 8_999, 9_001][random(state) as usize % 7]);
            line.put(slot, Entry { stored: Stored::of(fingerprint(id)), mark: Mark::new(kind, born) });
            if kind == State::Free {
                line.free(slot);
            }
        }
        if random(state).is_multiple_of(4) {
            line.set_overflowed(Stored::of(fingerprint(random(state) % 20)));
        }
        line
    }

    /// What is asked for is often there, in any state.
    #[test]
    fn the_vector_form_does_what_the_portable_one_does() {
        let Some(avx2) = Avx2::detect() else { return };
        let mut state = 7;
        let (mut seen, mut seen_of_both) = ([0; 4], [0; 4]);
        for _ in 0..200_000 {
            let newest = random(&mut state) % 40_000;
            let horizon = newest.saturating_sub([0, 1, 63, 64, 9_000][random(&mut state) as usize % 5]);
            let act = [State::Seen, State::Pending][random(&mut state) as usize % 2];
            let common = Common::new(Era { newest, horizon }, act, random(&mut state).is_multiple_of(2));
            let asked = fingerprint(random(&mut state) % 24);
            let lines = [0; 2].map(|_| random_line(&mut state, newest));

            let (mut one, mut other) = (lines[0], lines[0]);
            let (found, expected) = (avx2.ask(&mut one, asked, &common), Portable.ask(&mut other, asked, &common));
            assert_eq!(found, expected, "{lines:?} {asked} {common:?}");
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            seen[found as usize] += 1;

            let (mut one, mut other) = (lines, lines);
            fn both([home, other]: [&mut Line; 2]) -> Both<'_> {
                Both { home, other }
            }
            let found = avx2.ask_both(both(one.each_mut()), Stored::of(asked), &common);
            let expected = Portable.ask_both(both(other.each_mut()), Stored::of(asked), &common);
            assert_eq!(found, expected, "{lines:?} {asked} {common:?}");
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            seen_of_both[found as usize] += 1;
        }
        assert!(seen.iter().chain(&seen_of_both).all(|count| *count > 500), "{seen:?} {seen_of_both:?}");
    }

    #[test]
    fn a_repeat_is_quiet_when_nothing_is_to_be_done_for_it() {
        for newest in [0, 1, 64, 16_383, 16_384, 16_400, 1 << 40] {
            for (span, extend) in [0, 1, 63, 64, 9_000, 16_383].into_iter().flat_map(|n| [(n, false), (n, true)]) {
                let common = Common::new(Era { newest, horizon: newest.saturating_sub(span) }, State::Seen, extend);
                for age in [0, 1, 62, 63, 64, 65, 8_999, 9_000, 9_001, 16_383].into_iter().filter(|age| *age <= newest)
                {
                    let is_known = age <= span.min(newest);
                    let seen = common.is_quiet(Mark::new(State::Seen, newest - age));
                    assert_eq!(seen, is_known && !(extend && age > 0), "{age} at {newest}, {span}, {extend}");
                    assert!(!common.is_quiet(Mark::new(State::Pending, newest - age)));
                    assert!(!common.is_quiet(Mark::new(State::Free, newest - age)));
                }
            }
        }
    }
}
