//! Blocks by AVX2: two registers of 32 bytes.
//!
//! Invariants:
//! 1. An [`Avx2`] is only made by [`Avx2::detect`], so where one exists the processor has every feature that this file
//!    enables or uses.

use std::arch::x86_64::*;

use super::Scan;
use super::block::{Block, Chunk, Classify};
use super::walk::{self, Stop};
use crate::decode::judge::Judge;
use crate::decode::record::Record;
use crate::decode::search::NameEnds;

/// The proof that this processor can run what is here.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct Avx2(());

impl Avx2 {
    pub(in crate::decode) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        found.then_some(Self(()))
    }
}

impl Scan for Avx2 {
    fn scan(&self, judge: &mut Judge, bytes: &[u8], from: usize, visit: &mut impl FnMut(Record<'_>)) -> Stop {
        // SAFETY: the processor has these features (invariant 1).
        unsafe { scan(*self, judge, bytes, from, visit) }
    }
}

/// The same code as everywhere, compiled for these features.
#[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
fn scan(avx2: Avx2, judge: &mut Judge, bytes: &[u8], from: usize, visit: &mut impl FnMut(Record<'_>)) -> Stop {
    walk::scan(avx2, judge, bytes, from, visit)
}

impl Classify for Avx2 {
    // Always inlined into the function above; called from anywhere else, the intrinsics would be calls.
    #[inline(always)]
    fn classify(self, chunk: &Chunk, ends: NameEnds) -> Block {
        // SAFETY: the processor has AVX2 (invariant 1); all loads are unaligned ones and inside the 65 bytes.
        unsafe {
            let low = _mm256_loadu_si256(chunk.as_ptr().add(1).cast());
            let high = _mm256_loadu_si256(chunk.as_ptr().add(33).cast());
            let is = |byte: u8| Both(low, high).equals(byte);
            let lower =
                Both(_mm256_or_si256(low, _mm256_set1_epi8(0x20)), _mm256_or_si256(high, _mm256_set1_epi8(0x20)));
            let name_end = match ends.before {
                Some(before) => {
                    let shifted = Both(
                        _mm256_loadu_si256(chunk.as_ptr().cast()),
                        _mm256_loadu_si256(chunk.as_ptr().add(32).cast()),
                    );
                    Both(low, high).equals_behind(ends.bytes[0], shifted, before)
                }
                None => {
                    let any = u64::from(ends.count == 0).wrapping_neg();
                    is(ends.bytes[0]) | is(ends.bytes[1]) | is(ends.bytes[2]) | is(ends.bytes[3]) | any
                }
            };
            let both = Both(low, high);
            let mut block = Block {
                quote: is(b'"'),
                newline: is(b'\n'),
                comma: is(b','),
                colon: is(b':'),
                open: lower.equals(b'{'),
                close: lower.equals(b'}'),
                space: Both(spaces(low), spaces(high)).high_bits(),
                digit: Both(digits(low), digits(high)).high_bits(),
                zero: is(b'0'),
                name_end,
                backslash: 0,
                control: 0,
                high: 0,
            };
            block.control = block.newline;
            // Most blocks have none of these three, and one question tells.
            let rare = _mm256_or_si256(rare(low), rare(high));
            if _mm256_testz_si256(rare, rare) == 0 {
                block.backslash = is(b'\\');
                block.control = Both(controls(low), controls(high)).high_bits();
                block.high = both.high_bits();
            }
            block
        }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: the processor has PCLMULQDQ (invariant 1).
        unsafe {
            let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1));
            _mm_cvtsi128_si64(product) as u64
        }
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], at: usize) {
        // SAFETY: a prefetch reads nothing that the program can see, and an address without memory behind it is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) }
    }
}

/// 64 bytes.
#[derive(Clone, Copy)]
struct Both(__m256i, __m256i);

impl Both {
    #[inline(always)]
    fn equals(self, byte: u8) -> u64 {
        // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
        unsafe {
            let wanted = _mm256_set1_epi8(byte as i8);
            Self(_mm256_cmpeq_epi8(self.0, wanted), _mm256_cmpeq_epi8(self.1, wanted)).high_bits()
        }
    }

    /// Where `byte` stands, and `before` in `shifted`.
    #[inline(always)]
    fn equals_behind(self, byte: u8, shifted: Self, before: u8) -> u64 {
        // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
        unsafe {
            let (byte, before) = (_mm256_set1_epi8(byte as i8), _mm256_set1_epi8(before as i8));
            let low = _mm256_and_si256(_mm256_cmpeq_epi8(self.0, byte), _mm256_cmpeq_epi8(shifted.0, before));
            let high = _mm256_and_si256(_mm256_cmpeq_epi8(self.1, byte), _mm256_cmpeq_epi8(shifted.1, before));
            Self(low, high).high_bits()
        }
    }

    #[inline(always)]
    fn high_bits(self) -> u64 {
        // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
        unsafe { u64::from(_mm256_movemask_epi8(self.0) as u32) | u64::from(_mm256_movemask_epi8(self.1) as u32) << 32 }
    }
}

/// 0xFF where a space, tab or carriage return stands.
///
/// The low four bits of a byte choose an entry; only these three entries are equal to a byte that can choose them.
#[inline(always)]
fn spaces(bytes: __m256i) -> __m256i {
    // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0x09, 0, 0, 0, 0x0D, 0, 0));
        _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, bytes), bytes)
    }
}

/// 0xFF where a byte is a backslash, beyond ASCII, or a control character but a newline.
#[inline(always)]
fn rare(bytes: __m256i) -> __m256i {
    // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
    unsafe {
        // As signed numbers, bytes beyond ASCII are below all others.
        let low_or_high = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), bytes);
        let newline = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\n' as i8));
        let backslash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\\' as i8));
        _mm256_or_si256(_mm256_andnot_si256(newline, low_or_high), backslash)
    }
}

/// 0xFF where a byte is below 0x20.
#[inline(always)]
fn controls(bytes: __m256i) -> __m256i {
    // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
    unsafe { _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1F)), bytes) }
}

/// 0xFF where a digit stands.
#[inline(always)]
fn digits(bytes: __m256i) -> __m256i {
    // SAFETY: only reached from `Avx2`'s methods, so the processor has AVX2 (invariant 1).
    unsafe {
        let value = _mm256_sub_epi8(bytes, _mm256_set1_epi8(b'0' as i8));
        _mm256_cmpeq_epi8(_mm256_min_epu8(value, _mm256_set1_epi8(9)), value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::Plain;
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_told_as_the_plain_code_tells_it() {
        let Some(avx2) = Avx2::detect() else { return };
        let one = NameEnds { bytes: [b'd'; 4], count: 1, before: Some(b'a') };
        let any = NameEnds { bytes: [b'd'; 4], count: 0, before: None };
        let four = NameEnds { bytes: [b'd', b'"', b't', 0xA9], count: 4, before: None };
        for byte in 0..=255 {
            for at in 0..65 {
                for filler in [b' ', b'a', b'd', 0xFF] {
                    let mut chunk = [filler; 65];
                    chunk[at] = byte;
                    for ends in [one, four, any] {
                        assert_eq!(avx2.classify(&chunk, ends), Plain.classify(&chunk, ends), "{byte} at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn parity_is_the_parity_that_counting_gives() {
        let Some(avx2) = Avx2::detect() else { return };
        let mut bits = 1_u64;
        for _ in 0..1000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            assert_eq!(avx2.prefix_xor(bits), Plain.prefix_xor(bits));
        }
    }
}
