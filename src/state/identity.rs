//! What a state belongs to, as each segment's header has it.

use std::io;

use crate::event::{Hasher, IdHash};
use crate::log::{IDENTITY_BYTES, SECRET_NAME, read_secret};

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

/// The identity of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity(pub(super) [u8; IDENTITY_BYTES]);

impl Identity {
    pub(super) fn hash(&self) -> Option<IdHash> {
        match self.0[0] {
            1 => Some(IdHash::SipHash13),
            2 => Some(IdHash::Xxh3),
            _ => None,
        }
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
        let check = Hasher::new(IdHash::SipHash13, &secret, CHECK).fingerprint(CHECK).high().to_le_bytes();
        Ok(match identity {
            None => Self::Unknown,
            Some(identity) if identity.secret_check() == check => Self::Right,
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
                format!("{place} is gone, and without it the log beside it says nothing: restore it"),
            )),
            Self::Bad => Some(Problem::corrupt(
                &path,
                format!("{place} is not a secret: it must be a file of 32 bytes; restore it"),
            )),
            Self::Other => Some(Problem::of_other_configuration(
                &path,
                format!("{place} is not the secret that the log beside it was written with: restore that one"),
            )),
        }
    }
}

/// As the one who opens a state has it checked.
const CHECK: &[u8] = b"dedupd/check";
