//! What a state belongs to: 32 bytes in the header of each segment, compared at open.
//!
//! ```text
//! offset  size
//!      0     1  hash: 1 = SipHash-1-3-128, 2 = XXH3-128
//!      1     1  1 = events bring their own times, 0 = the clock's count
//!      2     1  1 = each event has a digest of its payload beside its ID, 0 = it has none
//!      3     5  zero
//!      8     8  digest of the id paths: XXH3-64 of their text
//!     16     8  digest of what payload digests leave out: XXH3-64 of its text; zero where there are none
//!     24     8  check value of the secret: the first half of the fingerprint of "dedupd/check" in the scope "dedupd/check"
//! ```

use std::io;
use std::path::Path;

use crate::event::{Hasher, IdHash, Secret};
use crate::log::{IDENTITY_BYTES, RESTORE_SECRET, SECRET_NAME, Storage, Survey, read_secret};

use super::reader::Reader;
use super::{Problem, StateError};

/// Whether the secret is the one that the ids of the log were made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretFile {
    /// It is.
    Right,
    /// It is another one.
    Other,
    /// There is none.
    Missing,
    /// It has not the size of a secret.
    Bad,
    /// No segment tells.
    Unknown,
}

/// The configuration that the fingerprints of a log depend on, and the meaning of its times: those of events and those of
/// the clock cannot be compared, so replayed for the other they would make new events duplicates, or forget old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(pub(super) [u8; IDENTITY_BYTES]);

impl Identity {
    /// `digests` is what payload digests leave out, where there are any.
    pub(crate) fn new(hash: IdHash, id_paths: &str, event_time: bool, digests: Option<&str>, secret: &Secret) -> Self {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[0] = match hash {
            IdHash::SipHash13 => 1,
            IdHash::Xxh3 => 2,
        };
        bytes[1] = u8::from(event_time);
        if let Some(left_out) = digests {
            bytes[2] = 1;
            bytes[16..24].copy_from_slice(&Self::left_out(left_out));
        }
        bytes[8..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(id_paths.as_bytes()).to_le_bytes());
        bytes[24..].copy_from_slice(&check_value(secret));
        Self(bytes)
    }

    /// The digest of what payload digests leave out.
    pub(super) fn left_out(text: &str) -> [u8; 8] {
        xxhash_rust::xxh3::xxh3_64(text.as_bytes()).to_le_bytes()
    }

    pub(crate) fn bytes(self) -> [u8; IDENTITY_BYTES] {
        self.0
    }

    /// What differs from `found`, in words.
    pub(crate) fn difference(self, found: &[u8; IDENTITY_BYTES]) -> &'static str {
        let found = Self(*found);
        if self.secret_check() != found.secret_check() {
            "the secret"
        } else if self.hash() != found.hash() {
            "the hash"
        } else if self.id_paths_digest() != found.id_paths_digest() {
            "the id paths"
        } else if self.is_in_event_time() != found.is_in_event_time() {
            "whether events bring their own times"
        } else if self.has_digests() != found.has_digests() {
            "whether payloads are compared"
        } else if self.left_out_digest() != found.left_out_digest() {
            "what is left out when payloads are compared"
        } else {
            "the configuration"
        }
    }

    /// The same with the payload digests of `found`, or without any if that has none.
    #[must_use]
    pub(crate) fn with_digests_of(mut self, found: &Self) -> Self {
        self.0[2] = found.0[2];
        self.0[16..24].copy_from_slice(&found.0[16..24]);
        self
    }

    /// The same with the payload digests that the segments in `storage` were written with.
    #[must_use]
    pub(crate) fn with_digests_found_in(self, storage: &dyn Storage) -> Self {
        let headers = |survey: Survey| survey.segments.into_values().find_map(|segment| segment.header);
        let found = Survey::of_headers(storage).ok().and_then(headers);
        found.map_or(self, |header| self.with_digests_of(&Self(header.identity)))
    }

    /// Whether no segment in `storage` was written with this secret.
    pub(crate) fn is_of_no_segment(self, storage: &dyn Storage) -> bool {
        let headers = |survey: Survey| survey.segments.into_values().filter_map(|segment| segment.header);
        let others = |survey| headers(survey).all(|header| Self(header.identity).secret_check() != self.secret_check());
        Survey::of_headers(storage).is_ok_and(others)
    }

    pub(super) fn hash(&self) -> Option<IdHash> {
        match self.0[0] {
            1 => Some(IdHash::SipHash13),
            2 => Some(IdHash::Xxh3),
            _ => None,
        }
    }

    pub(super) fn is_in_event_time(&self) -> bool {
        self.0[1] == 1
    }

    pub(super) fn has_digests(&self) -> bool {
        self.0[2] == 1
    }

    pub(super) fn left_out_digest(&self) -> [u8; 8] {
        self.part(16)
    }

    pub(super) fn id_paths_digest(&self) -> [u8; 8] {
        self.part(8)
    }

    pub(super) fn secret_check(&self) -> [u8; 8] {
        self.part(24)
    }

    fn part(&self, at: usize) -> [u8; 8] {
        self.0[at..].first_chunk().copied().unwrap_or_default()
    }
}

impl SecretFile {
    /// Compares the secret in the directory with what the segments say.
    pub(super) fn of(reader: &Reader, identity: Option<&Identity>) -> Result<Self, StateError> {
        let path = reader.path.join(SECRET_NAME);
        let secret = match read_secret(&path) {
            Ok(Some(secret)) => secret,
            Ok(None) => return Ok(Self::Bad),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Missing),
            Err(source) => return Err(StateError::io("read", &path, source)),
        };
        Ok(match identity {
            None => Self::Unknown,
            Some(identity) if identity.secret_check() == check_value(&secret) => Self::Right,
            Some(_) => Self::Other,
        })
    }

    /// What is wrong with the secret of a log.
    pub(super) fn problem(self, reader: &Reader) -> Option<Problem> {
        let path = reader.path.join(SECRET_NAME);
        let place = path.display();
        match self {
            Self::Right | Self::Unknown => None,
            Self::Missing => Some(Problem::corrupt(
                &path,
                format!("{place} is gone, the secret of the log beside it: {RESTORE_SECRET}"),
            )),
            Self::Bad => Some(Problem::corrupt(
                &path,
                format!("{place} is not a secret, which is a file of 32 bytes: {RESTORE_SECRET}"),
            )),
            Self::Other => Some(Problem::of_other_configuration(&path, not_the_secret(&path))),
        }
    }
}

/// The secret at `path` is another one than the log's.
pub(crate) fn not_the_secret(path: &Path) -> String {
    format!("{} is not the secret that the log beside it was written with: {RESTORE_SECRET}", path.display())
}

fn check_value(secret: &Secret) -> [u8; 8] {
    Hasher::new(IdHash::SipHash13, secret, CHECK).fingerprint(CHECK).high().to_le_bytes()
}

const CHECK: &[u8] = b"dedupd/check";

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(left_out: Option<&str>) -> [u8; IDENTITY_BYTES] {
        Identity::new(IdHash::SipHash13, "id", false, left_out, &Secret::from([7; 32])).bytes()
    }

    #[test]
    fn payload_digests_have_their_place_and_nothing_else_moves() {
        let without = identity(None);
        assert_eq!((without[2], &without[16..24]), (0, &[0; 8][..]), "as before there were any");
        for left_out in ["", "attempt"] {
            let with = identity(Some(left_out));
            assert_eq!((with[2], &with[16..24]), (1, &Identity::left_out(left_out)[..]));
            assert_eq!(Identity(with).with_digests_of(&Identity(without)).bytes(), without);
            assert_eq!(Identity(without).with_digests_of(&Identity(with)).bytes(), with);
        }
        let difference = |one: [u8; IDENTITY_BYTES], other| Identity(one).difference(&other);
        assert_eq!(difference(without, identity(Some(""))), "whether payloads are compared");
        let left_out = "what is left out when payloads are compared";
        assert_eq!(difference(identity(Some("a")), identity(Some(""))), left_out);
    }
}
