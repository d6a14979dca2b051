//! Fingerprints: the keyed hash that stands for an event ID everywhere below the API.
//!
//! The set never sees an ID. It sees 128 bits that nobody without the secret can steer, so they also choose the shard,
//! the segment and the line. The default is SipHash-1-3 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast
//! short-input PRF", 2012): a pseudo-random function, so IDs from strangers cannot be crafted to collide. XXH3 is about
//! three times as fast and not such a function: it is for IDs of trusted origin.
//!
//! A scope is folded in by deriving a key of its own from the secret, so a scoped question costs what an unscoped one
//! does. The derivation is a disk format; `golden_fingerprints` in the tests below pins it:
//!
//! ```text
//! scope key    = SipHash-2-4-128(key = secret[0..16], "dedupd/scope" 00 secret[16..32] scope)
//! SipHash13    = SipHash-1-3-128(key = scope key, id)
//! XXH3 secret  = 12 blocks: SipHash-2-4-128(key = scope key, "dedupd/xxh3" 00 block number as u32 LE)
//! Xxh3         = XXH3-128 of id with that 192-byte secret
//! ```
//!
//! Payload digests have a key of their own beside those of all scopes: see [`digest`](super::digest).

use std::fmt;
use std::hash::Hasher as _;

#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::siphash;
use siphasher::sip128::{Hasher128, SipHasher13, SipHasher24};
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// The keyed 128-bit hash of a scope and an event ID.
///
/// Fingerprints of one secret, hash and scope are equal for equal IDs; for different IDs they are equal with a chance of
/// 2⁻¹²⁸.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint with these 128 bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The slot of the fingerprint space, of 1,024: see [`HashRing`](crate::HashRing).
    #[inline]
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 >> (128 - Self::SLOT_BITS)) as usize
    }

    /// Log2 of the number of slots.
    pub(crate) const SLOT_BITS: u32 = 10;

    pub(crate) const fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }

    pub(crate) const fn low(self) -> u64 {
        self.0 as u64
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:032x})", self.0)
    }
}

/// The hash that turns an ID into its [`Fingerprint`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum IdHash {
    /// SipHash-1-3 with 128 bits of output, 14 ns for a short ID: nobody without the secret can make IDs collide.
    #[default]
    SipHash13,
    /// XXH3 with 128 bits under a random secret, 5 ns for a short ID: for IDs of trusted origin. Pairs of 32 to 240 bytes
    /// that collide for one secret in 2²⁷ are public.
    Xxh3,
}

impl IdHash {
    /// The stable name, as flags and state carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SipHash13 => "siphash13",
            Self::Xxh3 => "xxh3",
        }
    }
}

/// The random bytes that key the fingerprints. Who knows them can craft IDs that collide.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret from the operating system's random source.
    ///
    /// # Errors
    /// When the source cannot be read, which only happens in a sandbox that forbids it.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
        Ok(Self(bytes))
    }

    /// The 32 bytes, for whoever must store them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Shows nothing.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Makes the fingerprints of one scope.
#[derive(Clone)]
pub(crate) enum Hasher {
    SipHash13(SipHash),
    Xxh3(Xxh3),
}

/// SipHash-1-3-128 under a scope's key.
#[derive(Clone)]
pub(crate) struct SipHash {
    one: SipHasher13,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    four: Option<(siphash::Avx2, [u64; 2])>,
}

/// XXH3-128 under a scope's secret.
#[derive(Clone)]
pub(crate) struct Xxh3(Box<[u8; XXH3_SECRET_BYTES]>);

impl Hasher {
    pub(crate) fn new(hash: IdHash, secret: &Secret, scope: &[u8]) -> Self {
        let key = scope_key(secret, scope);
        match hash {
            IdHash::SipHash13 => Self::SipHash13(SipHash::new(&key)),
            IdHash::Xxh3 => Self::Xxh3(Xxh3(xxh3_secret(&key))),
        }
    }

    #[inline]
    pub(crate) fn fingerprint(&self, id: &[u8]) -> Fingerprint {
        match self {
            Self::SipHash13(hasher) => hasher.fingerprint(id),
            Self::Xxh3(hasher) => hasher.fingerprint(id),
        }
    }

    /// Appends the fingerprints of `ids`.
    pub(crate) fn fingerprints<I: AsRef<[u8]>>(&self, ids: &[I], fingerprints: &mut Vec<Fingerprint>) {
        match self {
            Self::SipHash13(hasher) => hasher.fingerprints(ids, fingerprints),
            Self::Xxh3(hasher) => hasher.fingerprints(ids, fingerprints),
        }
    }
}

impl SipHash {
    fn new(key: &[u8; 16]) -> Self {
        let one = SipHasher13::new_with_key(key);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let (k0, k1) = one.keys();
            Self { one, four: siphash::Avx2::detect().map(|avx2| (avx2, [k0, k1])) }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        Self { one }
    }

    /// Never inlined: it is long, and whoever hashes one ID by either hash is then short enough to be.
    #[inline(never)]
    pub(crate) fn fingerprint(&self, id: &[u8]) -> Fingerprint {
        Fingerprint(self.one.hash(id).as_u128())
    }

    /// Appends the fingerprints of `ids`, which are quicker when they are of one length.
    pub(crate) fn fingerprints<I: AsRef<[u8]>>(&self, ids: &[I], fingerprints: &mut Vec<Fingerprint>) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if let Some((avx2, key)) = self.four {
            let (fours, rest) = ids.as_chunks::<4>();
            for ids in fours {
                let ids = ids.each_ref().map(AsRef::as_ref);
                if ids.iter().all(|id| id.len() == ids[0].len()) {
                    fingerprints.extend(siphash::hash_four(avx2, key, ids).map(Fingerprint));
                } else {
                    fingerprints.extend(ids.map(|id| self.fingerprint(id)));
                }
            }
            fingerprints.extend(rest.iter().map(|id| self.fingerprint(id.as_ref())));
            return;
        }
        fingerprints.extend(ids.iter().map(|id| self.fingerprint(id.as_ref())));
    }
}

impl Xxh3 {
    #[inline]
    pub(crate) fn fingerprint(&self, id: &[u8]) -> Fingerprint {
        Fingerprint(xxh3_128_with_secret(id, &self.0[..]))
    }

    /// Appends the fingerprints of `ids`.
    #[inline]
    pub(crate) fn fingerprints<I: AsRef<[u8]>>(&self, ids: &[I], fingerprints: &mut Vec<Fingerprint>) {
        fingerprints.extend(ids.iter().map(|id| self.fingerprint(id.as_ref())));
    }
}

fn scope_key(secret: &Secret, scope: &[u8]) -> [u8; 16] {
    let (key, salt) = secret.0.split_at(16);
    prf(key, &[b"dedupd/scope\0", salt, scope])
}

/// The key of payload digests. Its text starts unlike that of every scope, so no scope has it.
pub(super) fn digest_key(secret: &Secret) -> [u8; 16] {
    let (key, salt) = secret.0.split_at(16);
    prf(key, &[b"dedupd/digest\0", salt])
}

/// The 192 bytes that key XXH3, from a key of 128 bits.
pub(super) fn xxh3_secret(key: &[u8; 16]) -> Box<[u8; XXH3_SECRET_BYTES]> {
    let mut secret = Box::new([0; XXH3_SECRET_BYTES]);
    for (number, block) in (0_u32..).zip(secret.chunks_exact_mut(16)) {
        block.copy_from_slice(&prf(key, &[b"dedupd/xxh3\0", &number.to_le_bytes()]));
    }
    secret
}

fn prf(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed.copy_from_slice(key);
    let mut hasher = SipHasher24::new_with_key(&fixed);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish128().as_bytes()
}

/// The length of XXH3's default secret; anything above 136 bytes serves.
pub(super) const XXH3_SECRET_BYTES: usize = 192;
