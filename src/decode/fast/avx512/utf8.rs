//! Whether bytes beyond ASCII are UTF-8.
//!
//! Three tables of what can be wrong with a pair of bytes, by half bytes, and two subtractions for what must follow a lead
//! byte (Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte", 2021). Where in a group it is wrong is
//! not told.

use std::arch::x86_64::*;

use super::classes::Group;
use super::lanes::LANES;

/// What the groups so far leave to the next one.
pub(super) struct Utf8 {
    /// The last 64 bytes.
    before: __m512i,
}

impl Utf8 {
    /// Before the first byte of a line.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Self {
        Self { before: _mm512_setzero_si512() }
    }

    /// Whether something is wrong in `group` or between it and the one before it. `has_high`: it has bytes beyond ASCII.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn is_wrong(&mut self, group: &Group, has_high: bool) -> bool {
        // A lead byte of the longest kind stands three bytes before the last one that it asks for.
        let may_go_on = _mm512_movepi8_mask(self.before) >> 61 != 0;
        if !has_high && !may_go_on {
            return false;
        }
        self.judge(group)
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn judge(&mut self, group: &Group) -> bool {
        let (first_high, first_low, second_high) = (table(&FIRST_HIGH), table(&FIRST_LOW), table(&SECOND_HIGH));
        let low_half = _mm512_set1_epi8(0x0F);
        let high_half = |bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low_half);
        let mut wrong = _mm512_setzero_si512();
        for row in 0..LANES {
            // SAFETY: the 64 bytes are in the group, and the load needs no alignment.
            let bytes = unsafe { _mm512_loadu_si512(group.as_ptr().add(row * 64).cast()) };
            let behind = _mm512_alignr_epi32::<12>(bytes, self.before);
            let one_before = _mm512_alignr_epi8::<15>(bytes, behind);
            let two_before = _mm512_alignr_epi8::<14>(bytes, behind);
            let three_before = _mm512_alignr_epi8::<13>(bytes, behind);
            let pair = _mm512_and_si512(
                _mm512_and_si512(
                    _mm512_shuffle_epi8(first_high, high_half(one_before)),
                    _mm512_shuffle_epi8(first_low, _mm512_and_si512(one_before, low_half)),
                ),
                _mm512_shuffle_epi8(second_high, high_half(bytes)),
            );
            // The top bit stays where a lead byte of three or four asks for a third byte, and one of four for a fourth.
            let third = _mm512_subs_epu8(two_before, _mm512_set1_epi8(0xE0_u8.wrapping_sub(0x80) as i8));
            let fourth = _mm512_subs_epu8(three_before, _mm512_set1_epi8(0xF0_u8.wrapping_sub(0x80) as i8));
            let asked = _mm512_and_si512(_mm512_or_si512(third, fourth), _mm512_set1_epi8(i8::MIN));
            wrong = _mm512_or_si512(wrong, _mm512_xor_si512(asked, pair));
            self.before = bytes;
        }
        _mm512_test_epi8_mask(wrong, wrong) != 0
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn table(entries: &[u8; 16]) -> __m512i {
    // SAFETY: 16 bytes, and the load needs no alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(entries.as_ptr().cast()) })
}

// What can be wrong with a pair; it is when all three tables say so.

/// A lead byte without a continuation.
const TOO_SHORT: u8 = 1 << 0;
/// A continuation without a lead byte.
const TOO_LONG: u8 = 1 << 1;
const OVERLONG_3: u8 = 1 << 2;
const TOO_LARGE: u8 = 1 << 3;
const SURROGATE: u8 = 1 << 4;
const OVERLONG_2: u8 = 1 << 5;
/// Beyond the last plane, or four bytes for what takes three: told apart by what stands before.
const TOO_LARGE_OR_OVERLONG_4: u8 = 1 << 6;
/// Right only as the third or fourth byte, so where one is asked for.
const TWO_CONTINUATIONS: u8 = 1 << 7;
const ANY_FIRST: u8 = TOO_SHORT | TOO_LONG | TWO_CONTINUATIONS;

/// By the high half of the first byte.
static FIRST_HIGH: [u8; 16] = {
    let mut table = [TOO_LONG; 16];
    (table[0x8], table[0x9]) = (TWO_CONTINUATIONS, TWO_CONTINUATIONS);
    (table[0xA], table[0xB]) = (TWO_CONTINUATIONS, TWO_CONTINUATIONS);
    table[0xC] = TOO_SHORT | OVERLONG_2;
    table[0xD] = TOO_SHORT;
    table[0xE] = TOO_SHORT | OVERLONG_3 | SURROGATE;
    table[0xF] = TOO_SHORT | TOO_LARGE | TOO_LARGE_OR_OVERLONG_4;
    table
};

/// By the low half of the first byte.
static FIRST_LOW: [u8; 16] = {
    let mut table = [ANY_FIRST | TOO_LARGE | TOO_LARGE_OR_OVERLONG_4; 16];
    table[0x0] = ANY_FIRST | OVERLONG_2 | OVERLONG_3 | TOO_LARGE_OR_OVERLONG_4;
    table[0x1] = ANY_FIRST | OVERLONG_2;
    (table[0x2], table[0x3]) = (ANY_FIRST, ANY_FIRST);
    table[0x4] = ANY_FIRST | TOO_LARGE;
    table[0xD] |= SURROGATE;
    table
};

/// By the high half of the second byte.
static SECOND_HIGH: [u8; 16] = {
    let mut table = [TOO_SHORT; 16];
    let any = TOO_LONG | OVERLONG_2 | TWO_CONTINUATIONS;
    table[0x8] = any | OVERLONG_3 | TOO_LARGE_OR_OVERLONG_4;
    table[0x9] = any | OVERLONG_3 | TOO_LARGE;
    (table[0xA], table[0xB]) = (any | SURROGATE | TOO_LARGE, any | SURROGATE | TOO_LARGE);
    table
};

#[cfg(test)]
mod tests {
    use super::super::Avx512;
    use super::*;

    #[test]
    fn groups_are_judged_as_the_standard_library_judges_them_together() {
        let Some(_) = Avx512::detect() else { return };
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut wrong_ones = 0;
        for round in 0..20_000 {
            let mut text = String::new();
            while text.len() < 3 * LANES * 64 - 8 {
                text.push(
                    ['a', 'é', '\u{7ff}', '\u{800}', '日', '\u{d7ff}', '\u{e000}', '\u{ffff}', '🚀', '\u{10ffff}']
                        [next(10)],
                );
                if next(8) == 0 {
                    text.push_str(&"b".repeat(next(200).min(3 * LANES * 64 - 8 - text.len().min(3 * LANES * 64 - 8))));
                }
            }
            let mut bytes = text.into_bytes();
            bytes.resize(3 * LANES * 64, b' ');
            if round % 2 == 0 {
                let at = next(bytes.len() - 1);
                bytes[at] = next(256) as u8;
            }
            // SAFETY: the processor has these features.
            let wrong = unsafe {
                let mut utf8 = Utf8::new();
                bytes
                    .as_chunks::<{ LANES * 64 }>()
                    .0
                    .iter()
                    .fold(false, |wrong, group| wrong | utf8.is_wrong(group, !group.is_ascii()))
            };
            assert_eq!(wrong, std::str::from_utf8(&bytes).is_err());
            wrong_ones += u32::from(wrong);
        }
        assert!(wrong_ones > 1000);
    }
}
