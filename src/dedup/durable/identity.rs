//! What a state belongs to: 32 bytes in the header of each segment, compared at open.
//!
//! ```text
//! offset  size
//!      0     1  hash: 1 = SipHash-1-3-128, 2 = XXH3-128
//!      1     7  zero
//!      8     8  digest of the id paths: XXH3-64 of their text
//!     16     8  zero
//!     24     8  check value of the secret: the first half of the fingerprint of "dedupd/check" in the scope "dedupd/check"
//! ```

use crate::event::{Hasher, IdHash, Secret};
use crate::log::IDENTITY_BYTES;

/// The configuration that fingerprints depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity([u8; IDENTITY_BYTES]);

impl Identity {
    pub(super) fn new(hash: IdHash, id_paths: &str, secret: &Secret) -> Self {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[0] = match hash {
            IdHash::SipHash13 => 1,
            IdHash::Xxh3 => 2,
        };
        bytes[8..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(id_paths.as_bytes()).to_le_bytes());
        let check = Hasher::new(IdHash::SipHash13, secret, CHECK).fingerprint(CHECK);
        bytes[24..].copy_from_slice(&check.high().to_le_bytes());
        Self(bytes)
    }

    pub(super) fn bytes(self) -> [u8; IDENTITY_BYTES] {
        self.0
    }

    /// What differs from `found`, in words.
    pub(super) fn difference(self, found: &[u8; IDENTITY_BYTES]) -> &'static str {
        if self.0[24..] != found[24..] {
            "the secret"
        } else if self.0[0] != found[0] {
            "the hash"
        } else if self.0[8..16] != found[8..16] {
            "the id paths"
        } else {
            "the configuration"
        }
    }
}

const CHECK: &[u8] = b"dedupd/check";
