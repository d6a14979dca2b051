//! 512 bits, as eight lanes of 64: the bytes of a group, one bit each, the first byte lowest.
//!
//! What a word does with its carry flag is done here with a mask of eight bits, one per lane.

use std::arch::x86_64::*;

pub(super) const LANES: usize = 8;

/// The bits of `now`, each moved to the next byte; `before` is what `now` was a group ago.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi2")]
pub(super) fn behind(now: __m512i, before: __m512i) -> __m512i {
    _mm512_shldi_epi64::<1>(now, _mm512_alignr_epi64::<7>(now, before))
}

/// The sum; `carry`, 0 or 1, goes in and comes out.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(a: __m512i, b: __m512i, carry: &mut u32) -> __m512i {
    let ones = _mm512_set1_epi64(-1);
    let sum = _mm512_add_epi64(a, b);
    let over = u32::from(_mm512_cmplt_epu64_mask(sum, a));
    let full = u32::from(_mm512_cmpeq_epi64_mask(sum, ones));
    _mm512_mask_sub_epi64(sum, carried(over, full, carry), sum, ones)
}

/// The lanes that something is carried into, when each lane in `leaving` carries into the next, and each in `full` hands on
/// what comes in; `carry`, 0 or 1, goes in and comes out.
#[inline(always)]
pub(super) fn carried(leaving: u32, full: u32, carry: &mut u32) -> u8 {
    // This is how carries run through a number, so let them.
    let into = ((leaving << 1 | *carry) + full) ^ full;
    *carry = into >> LANES & 1;
    into as u8
}

/// Bit `n` of the result is the parity of the bits of `bits` up to and with `n`, and of `carry`, 0 or 1.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,vpclmulqdq")]
pub(super) fn prefix_xor(bits: __m512i, carry: &mut u32) -> __m512i {
    let ones = _mm512_set1_epi64(-1);
    let even = _mm512_clmulepi64_epi128::<0x00>(bits, ones);
    let odd = _mm512_clmulepi64_epi128::<0x01>(bits, ones);
    let each = _mm512_unpacklo_epi64(even, odd);
    let mut lanes = u32::from(_mm512_movepi64_mask(each));
    lanes ^= lanes << 1;
    lanes ^= lanes << 2;
    lanes ^= lanes << 4;
    let flipped = lanes << 1 ^ carry.wrapping_neg();
    *carry = flipped >> LANES & 1;
    _mm512_mask_xor_epi64(each, flipped as u8, each, ones)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn or(a: __m512i, b: __m512i) -> __m512i {
    _mm512_or_si512(a, b)
}

/// The lanes that have a bit.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes_with(bits: __m512i) -> u8 {
    _mm512_test_epi64_mask(bits, bits)
}

/// The bits in the lanes that are not among `lanes`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn without_lanes(bits: __m512i, lanes: u8) -> __m512i {
    _mm512_maskz_mov_epi64(!lanes, bits)
}

/// The place of the lowest bit, [`NONE`] without one.
#[inline]
#[target_feature(enable = "avx512f,bmi1")]
pub(super) fn lowest(bits: __m512i) -> usize {
    let lanes = lanes_with(bits);
    if lanes == 0 {
        return NONE;
    }
    let lane = lanes.trailing_zeros() as usize;
    lane * 64 + words(bits)[lane].trailing_zeros() as usize
}

/// The lanes, one by one.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words(bits: __m512i) -> [u64; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 64 bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), bits) }
    words
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn wide(words: [u64; LANES]) -> __m512i {
    // SAFETY: 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Behind every place of a group.
pub(super) const NONE: usize = LANES * 64;

#[cfg(test)]
mod tests {
    use super::super::super::block::{Classify, Plain};
    use super::super::Avx512;
    use super::*;

    #[test]
    fn lanes_carry_as_one_long_number_does() {
        let Some(_) = Avx512::detect() else { return };
        let mut random = 1_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Full and empty lanes are what carries run through.
            [0, u64::MAX, 1, 1 << 63, random][(random >> 60) as usize % 5]
        };
        for _ in 0..2000 {
            let (a, b): ([u64; LANES], [u64; LANES]) =
                (std::array::from_fn(|_| next()), std::array::from_fn(|_| next()));
            let first = (next() & 1) as u32;
            let (mut sum_carry, mut xor_carry) = (first, first);
            // SAFETY: the processor has these features.
            let [sum, parity, moved] = unsafe {
                let sum = add(wide(a), wide(b), &mut sum_carry);
                let parity = prefix_xor(wide(a), &mut xor_carry);
                [words(sum), words(parity), words(behind(wide(a), wide(b)))]
            };
            let (mut carry, mut odd, mut last) = (u128::from(first), u64::from(first).wrapping_neg(), b[LANES - 1]);
            for lane in 0..LANES {
                let expected = u128::from(a[lane]) + u128::from(b[lane]) + carry;
                assert_eq!(sum[lane], expected as u64);
                assert_eq!(parity[lane], Plain.prefix_xor(a[lane]) ^ odd);
                assert_eq!(moved[lane], a[lane] << 1 | last >> 63);
                carry = expected >> 64;
                odd = ((parity[lane] as i64) >> 63) as u64;
                last = a[lane];
            }
            assert_eq!((u128::from(sum_carry), u64::from(xor_carry)), (carry, odd & 1));
        }
    }
}
