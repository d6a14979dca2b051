//! SipHash-1-3-128 of four ids at a time.
//!
//! One SipHash is a chain of additions and rotations in which each waits for the one before; four of them side by side
//! fill the lanes of a vector. `siphasher` is the definition, and does whatever does not come in fours of one length.

use core::arch::x86_64::*;

/// A processor with AVX2. A value of this type proves that this is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// The hashes of four ids of one length under `key`; the shortest length counts.
#[inline]
pub(super) fn hash_four(_: Avx2, key: [u64; 2], ids: [&[u8]; 4]) -> [u128; 4] {
    // SAFETY: the first argument proves that the processor has AVX2.
    unsafe { four(key, ids) }
}

/// The four words of a state, four states side by side.
#[derive(Clone, Copy)]
struct States([__m256i; 4]);

#[target_feature(enable = "avx2")]
fn four(key: [u64; 2], ids: [&[u8]; 4]) -> [u128; 4] {
    let length = ids.map(<[u8]>::len).into_iter().fold(usize::MAX, usize::min);
    let mut states = States::new(key);
    let mut done = 0;
    while done + 8 <= length {
        states.add(words(ids.map(|id| word(&id[done..done + 8]))));
        done += 8;
    }
    let end = (length as u64) << 56;
    states.add(words(ids.map(|id| word(&id[done..length]) | end)));
    let low = states.finish(2, 0xEE);
    let high = states.finish(1, 0xDD);
    let halves = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
    let (low, high) = (lanes(low), lanes(high));
    std::array::from_fn(|lane| halves(low[lane], high[lane]))
}

/// Up to eight bytes, little-endian, filled up with zeroes.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    match <[u8; 8]>::try_from(bytes) {
        Ok(bytes) => u64::from_le_bytes(bytes),
        Err(_) => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn words(words: [u64; 4]) -> __m256i {
    let [a, b, c, d] = words.map(u64::cast_signed);
    _mm256_setr_epi64x(a, b, c, d)
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes(words: __m256i) -> [u64; 4] {
    let mut lanes = [0; 4];
    // SAFETY: four words of 64 bits are 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), words) };
    lanes
}

impl States {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new([k0, k1]: [u64; 2]) -> Self {
        let v = [
            k0 ^ 0x736F_6D65_7073_6575,
            k1 ^ 0x646F_7261_6E64_6F6D ^ 0xEE,
            k0 ^ 0x6C79_6765_6E65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self([words([v[0]; 4]), words([v[1]; 4]), words([v[2]; 4]), words([v[3]; 4])])
    }

    /// Takes in one word of each message: one round.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, words: __m256i) {
        self.0[3] = _mm256_xor_si256(self.0[3], words);
        self.round();
        self.0[0] = _mm256_xor_si256(self.0[0], words);
    }

    /// Three rounds, and the next 64 bits of the hash.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn finish(&mut self, word: usize, flip: u64) -> __m256i {
        self.0[word] = _mm256_xor_si256(self.0[word], words([flip; 4]));
        for _ in 0..3 {
            self.round();
        }
        let [v0, v1, v2, v3] = self.0;
        _mm256_xor_si256(_mm256_xor_si256(v0, v1), _mm256_xor_si256(v2, v3))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = _mm256_add_epi64(v0, v1);
        v2 = _mm256_add_epi64(v2, v3);
        v1 = _mm256_xor_si256(rotate::<13, 51>(v1), v0);
        v3 = _mm256_xor_si256(rotate::<16, 48>(v3), v2);
        v0 = halves_swapped(v0);
        v2 = _mm256_add_epi64(v2, v1);
        v0 = _mm256_add_epi64(v0, v3);
        v1 = _mm256_xor_si256(rotate::<17, 47>(v1), v2);
        v3 = _mm256_xor_si256(rotate::<21, 43>(v3), v0);
        v2 = halves_swapped(v2);
        self.0 = [v0, v1, v2, v3];
    }
}

/// Rotated left by `L`; `R` is 64 less that.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const L: i32, const R: i32>(words: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi64::<L>(words), _mm256_srli_epi64::<R>(words))
}

/// Rotated by 32.
#[inline]
#[target_feature(enable = "avx2")]
fn halves_swapped(words: __m256i) -> __m256i {
    _mm256_shuffle_epi32::<0b10_11_00_01>(words)
}

#[cfg(test)]
mod tests {
    use siphasher::sip128::SipHasher13;

    use super::*;

    #[test]
    fn four_at_a_time_are_what_siphasher_says() {
        let Some(avx2) = Avx2::detect() else { return };
        let bytes: Vec<u8> = (0..400_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let key = [0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908];
        let hasher = SipHasher13::new_with_keys(key[0], key[1]);
        for length in 0..=300 {
            let ids: [&[u8]; 4] = std::array::from_fn(|lane| &bytes[lane * 31..][..length]);
            assert_eq!(hash_four(avx2, key, ids), ids.map(|id| hasher.hash(id).as_u128()), "{length} bytes");
        }
    }
}
