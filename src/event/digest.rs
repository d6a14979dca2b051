//! [`Digest`]: the keyed hash that stands for an ID and a payload together.
//!
//! It is an entry in the same set as the fingerprints, so it is made like one: 128 bits that nobody without the secret can
//! steer. The payload is hashed by XXH3, which reads it at the speed of memory, under a secret of its own: who does not
//! know it cannot make two payloads look the same, but for the public pairs of 32 to 240 bytes that collide for one secret
//! in 2²⁷. What comes out is tied to the ID by SipHash, so one payload under two ids is two digests, and so is one under
//! two scopes.
//!
//! The derivation is a disk format; `golden_digests` in the tests below pins it:
//!
//! ```text
//! digest key   = SipHash-2-4-128(key = secret[0..16], "dedupd/digest" 00 secret[16..32])
//! XXH3 secret  = 12 blocks: SipHash-2-4-128(key = digest key, "dedupd/xxh3" 00 block number as u32 LE)
//! payload hash = XXH3-128 of the payload with that 192-byte secret
//! digest       = SipHash-1-3-128(key = digest key, fingerprint as u128 LE, payload hash as u128 LE)
//! ```

use std::fmt;

use siphasher::sip128::SipHasher13;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::fingerprint::{XXH3_SECRET_BYTES, digest_key, xxh3_secret};
use super::{Fingerprint, Secret};

/// The keyed 128-bit hash of an ID and a payload: what tells a repeat from a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Fingerprint);

impl Digest {
    /// The fingerprint that stands for it in the set, and in the records of a state.
    #[must_use]
    pub const fn as_fingerprint(self) -> Fingerprint {
        self.0
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Makes the digests under one secret, of all scopes.
pub(crate) struct Digester {
    digests: SipHasher13,
    payloads: Box<[u8; XXH3_SECRET_BYTES]>,
}

impl Digester {
    pub(crate) fn new(secret: &Secret) -> Self {
        let key = digest_key(secret);
        Self { digests: SipHasher13::new_with_key(&key), payloads: xxh3_secret(&key) }
    }

    #[inline]
    pub(crate) fn digest(&self, id: Fingerprint, payload: &[u8]) -> Digest {
        let payload = xxh3_128_with_secret(payload, &self.payloads[..]);
        let mut both = [0; 32];
        both[..16].copy_from_slice(&id.as_u128().to_le_bytes());
        both[16..].copy_from_slice(&payload.to_le_bytes());
        Digest(Fingerprint::from_u128(self.digests.hash(&both).as_u128()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Hasher, IdHash};

    fn secret() -> Secret {
        Secret::from(std::array::from_fn(|index| index as u8))
    }

    #[test]
    fn golden_digests() {
        let digester = Digester::new(&secret());
        let id = Hasher::new(IdHash::SipHash13, &secret(), b"").fingerprint(b"\"evt_1");
        let long = [7; 1_000];
        let found = [(id, &b""[..]), (id, b"{}"), (id, &long), (Fingerprint::from_u128(1), b"{}")];
        let found = found.map(|(id, payload)| digester.digest(id, payload).to_string());
        let golden = [
            "bede45ae918292fa68a41f87d65f11b8",
            "ab6d791c51a5ae1b0937c5824fbad545",
            "712a872b048153323150a1171aa9b594",
            "548fab7c371c224697d05d7125fd0101",
        ];
        assert_eq!(found, golden);
    }

    #[test]
    fn a_digest_is_of_its_id_its_payload_and_its_secret() {
        let (id, other) = (Fingerprint::from_u128(1), Fingerprint::from_u128(2));
        let digester = Digester::new(&secret());
        assert_eq!(digester.digest(id, b"x"), Digester::new(&secret()).digest(id, b"x"));
        assert_ne!(digester.digest(id, b"x"), digester.digest(id, b"y"));
        assert_ne!(digester.digest(id, b"x"), digester.digest(other, b"x"));
        assert_ne!(digester.digest(id, b"x"), Digester::new(&Secret::from([9; 32])).digest(id, b"x"));
    }

    #[test]
    fn no_scope_leads_to_a_digest() {
        let digest = Digester::new(&secret()).digest(Fingerprint::from_u128(1), b"x").as_fingerprint();
        let payload = xxh3_128_with_secret(b"x", &xxh3_secret(&digest_key(&secret()))[..]);
        let id = [1_u128.to_le_bytes(), payload.to_le_bytes()].concat();
        for scope in [&b""[..], b"digest", b"dedupd/digest", b"dedupd/digest\0"] {
            assert_ne!(Hasher::new(IdHash::SipHash13, &secret(), scope).fingerprint(&id), digest);
        }
    }
}
