//! What can be wrong with a state, and with looking at it.

use std::io;
use std::path::Path;

use crate::log::{DirectoryError, OpenError};

use super::Use;

/// Why a state could not be looked at, or repaired. No byte of its log has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// There is no state: no directory, or one with neither a log nor what belongs to one.
    #[error("{place} is not a state directory: {why}")]
    Absent {
        /// The directory.
        place: String,
        /// What it is.
        why: &'static str,
    },
    /// Another process has it open, and had all the time that was given.
    #[error("{place} is in use by {holder}: stop that, or wait longer with a lock timeout")]
    Locked {
        /// The directory.
        place: String,
        /// Who has it, in words, as far as that can be told: `process 4711 (dedupd)`, or `another process`.
        holder: String,
    },
    /// The file system refuses something.
    #[error("cannot {act} {place}")]
    Io {
        /// What was to be done.
        act: &'static str,
        /// With what.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The state itself is not as it must be.
    #[error(transparent)]
    Problem(#[from] Problem),
}

/// What is wrong with a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{message}")]
pub struct Problem {
    /// The stable name: `state_corrupt`, `state_newer` or `state_of_other_configuration`.
    pub code: &'static str,
    /// The file with it, by its name in the directory.
    pub file: Option<String>,
    /// Where in the file it begins.
    pub offset: Option<u64>,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl StateError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "state_absent",
            Self::Locked { .. } => "state_locked",
            Self::Io { .. } => "state_io",
            Self::Problem(problem) => problem.code,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }

    pub(super) fn io(act: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { act, place: path.display().to_string(), source }
    }
}

impl Problem {
    pub(super) fn corrupt(path: &Path, message: String) -> Self {
        Self { code: CORRUPT, file: file_name(path), offset: None, message }
    }

    pub(super) fn of_other_configuration(path: &Path, message: String) -> Self {
        Self { code: OTHER, file: file_name(path), offset: None, message }
    }
}

impl From<OpenError> for StateError {
    fn from(error: OpenError) -> Self {
        let message = error.to_string();
        let (code, place) = match error {
            OpenError::Io { act, place, source } => return Self::Io { act, place, source },
            OpenError::OtherState { ref place, .. } => (OTHER, Some(place)),
            OpenError::Newer { ref place, .. } => (NEWER, Some(place)),
            OpenError::Records { .. } => (NEWER, None),
            _ => (CORRUPT, None),
        };
        let spot = error.spot();
        let file =
            place.map(String::as_str).or(spot.map(|(place, _)| place)).and_then(|place| file_name(Path::new(place)));
        Self::Problem(Problem { code, file, offset: spot.map(|(_, offset)| offset), message })
    }
}

impl From<DirectoryError> for StateError {
    fn from(error: DirectoryError) -> Self {
        let message = error.to_string();
        match error {
            DirectoryError::InUse(path) => {
                Self::Locked { place: path.display().to_string(), holder: Use::of(&path).to_string() }
            }
            DirectoryError::Io { act, path, source } => Self::io(act, &path, source),
            DirectoryError::NoSecret(path) | DirectoryError::BadSecret(path) => Problem::corrupt(&path, message).into(),
        }
    }
}

pub(super) fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

const CORRUPT: &str = "state_corrupt";
const NEWER: &str = "state_newer";
const OTHER: &str = "state_of_other_configuration";
