//! Errors of building, opening and using a [`Deduplicator`](super::Deduplicator).

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::event::Unjudged;
use crate::log::{self, AppendError, DirectoryError, Poisoned};
use crate::state::Use;

/// Any error of a [`Deduplicator`](super::Deduplicator), for `?`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is refused; nothing was made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The state cannot be opened; no byte that was read has changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot take something.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A question has no answer; nothing was recorded.
    #[error(transparent)]
    Unjudged(#[from] Unjudged),
}

impl Error {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Build(error) => error.code(),
            Self::Open(error) => error.code(),
            Self::Log(error) => error.code(),
            Self::Unjudged(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Build(_) => false,
            Self::Open(error) => error.is_retryable(),
            Self::Log(error) => error.is_retryable(),
            Self::Unjudged(error) => error.is_retryable(),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The window is shorter than can be kept.
    #[error("the window of {0:?} is shorter than the smallest, 1 s")]
    WindowTooShort(Duration),
    /// The lateness is longer than can be kept.
    #[error("the lateness of {lateness:?} is more than {windows} times the window of {window:?}")]
    LatenessTooLong {
        /// As set.
        lateness: Duration,
        /// As set.
        window: Duration,
        /// The most windows.
        windows: u32,
    },
    /// A limit of no ids at all.
    #[error("a limit of 0 ids leaves room for none: leave it out for no limit")]
    NoIds,
    /// The limit on memory is too small for what is asked.
    #[error("{bytes} bytes of memory are too few for a set with room for {expected_ids} ids at first: allow more")]
    MemoryTooSmall {
        /// The limit.
        bytes: usize,
        /// As set.
        expected_ids: usize,
    },
    /// The limit on disk is too small for a state to go on under it.
    #[error("{bytes} bytes on disk are too few for a state: allow at least {bytes_min}")]
    DiskTooSmall {
        /// The limit.
        bytes: u64,
        /// The smallest that is allowed.
        bytes_min: u64,
    },
    /// No secret could be made.
    #[error("no random secret could be read from the operating system")]
    Secret(#[source] std::io::Error),
}

impl BuildError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::WindowTooShort(_) => "window_too_short",
            Self::LatenessTooLong { .. } => "lateness_too_long",
            Self::NoIds => "no_ids",
            Self::MemoryTooSmall { .. } => "memory_too_small",
            Self::DiskTooSmall { .. } => "disk_too_small",
            Self::Secret(_) => "secret",
        }
    }
}

/// Why a state was not opened. No byte that was read has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open, and had all the time that was given.
    #[error("{place} is in use by {holder}: stop that, or wait longer with a lock timeout")]
    Locked {
        /// The directory.
        place: String,
        /// Who has it, in words, as far as that can be told: `process 4711 (dedupd)`, or `another process`.
        holder: String,
    },
    /// Bytes that were on disk are bad or gone.
    #[error("{message}")]
    Corrupt {
        /// What is bad, where, and what to do.
        message: String,
    },
    /// The secret is gone, or is none. No repair helps.
    #[error("{message}")]
    NoSecret {
        /// What is wrong with which file, and what to do.
        message: String,
    },
    /// The secret in the directory is not the one of the log beside it.
    #[error("{message}")]
    OtherSecret {
        /// Which file that is, and what to do.
        message: String,
    },
    /// The state belongs to another configuration.
    #[error(
        "{place} belongs to a state of another configuration: what differs is {differs}; use the one that the state was made \
         with, or another directory"
    )]
    OtherState {
        /// The file.
        place: String,
        /// What is not as it was.
        differs: &'static str,
    },
    /// The state was written by a newer version.
    #[error("{message}")]
    Newer {
        /// What is newer, and where.
        message: String,
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
    /// The threads that keep the log cannot be started.
    #[error("cannot start the threads that keep the log")]
    Thread(#[source] io::Error),
}

impl OpenError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "state_locked",
            Self::Corrupt { .. } | Self::NoSecret { .. } => "state_corrupt",
            Self::OtherState { .. } | Self::OtherSecret { .. } => "state_of_other_configuration",
            Self::Newer { .. } => "state_newer",
            Self::Io { .. } => "state_io",
            Self::Thread(_) => "state_thread",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Io { source, .. } => log::is_of_room(source),
            _ => false,
        }
    }

    pub(super) fn disk(path: &Path, source: io::Error) -> Self {
        Self::Io { act: "open", place: path.display().to_string(), source }
    }

    /// The log's own words; `difference` says what differs from the configuration in a header.
    pub(super) fn log(
        error: log::OpenError,
        difference: impl FnOnce(&[u8; log::IDENTITY_BYTES]) -> &'static str,
    ) -> Self {
        match error {
            log::OpenError::Io { act, place, source } => Self::Io { act, place, source },
            log::OpenError::OtherState { place, found } => Self::OtherState { place, differs: difference(&found) },
            error @ (log::OpenError::Newer { .. } | log::OpenError::Records { .. }) => {
                Self::Newer { message: error.to_string() }
            }
            error => Self::Corrupt { message: error.to_string() },
        }
    }
}

impl From<DirectoryError> for OpenError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::InUse(path) => {
                Self::Locked { place: path.display().to_string(), holder: Use::of(&path).to_string() }
            }
            DirectoryError::Io { act, path, source } => Self::Io { act, place: path.display().to_string(), source },
            error @ (DirectoryError::NoSecret(_) | DirectoryError::BadSecret(_)) => {
                Self::NoSecret { message: error.to_string() }
            }
        }
    }
}

/// Why the log cannot take something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A write or a sync has failed, so what is on disk is not known. Nothing succeeds any more until the state is opened
    /// again.
    #[error("{message}")]
    Poisoned {
        /// What failed, and where.
        message: String,
    },
    /// There is no room for more, or for another segment. Nothing was appended; the same call may succeed later.
    #[error("there is no room for {place}")]
    NoRoom {
        /// The file that was to be made, or written.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another segment cannot be prepared, and that is no matter of room. Nothing was appended.
    #[error("no new segment can be prepared in {place}")]
    Io {
        /// The file that was to be made.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// More than one frame can hold. Nothing was appended.
    #[error("a commit of {bytes} bytes is over the limit of {bytes_max}: commit fewer ids at a time")]
    TooLarge {
        /// The size of the frame.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl LogError {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Poisoned { .. } => "log_poisoned",
            Self::NoRoom { .. } => "log_no_room",
            Self::Io { .. } => "log_io",
            Self::TooLarge { .. } => "log_too_large",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
    }
}

impl From<AppendError> for LogError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Poisoned(poisoned) => poisoned.into(),
            AppendError::NoSegment { place, source } if log::is_of_room(&source) => Self::NoRoom { place, source },
            AppendError::NoRoom { place, source } => Self::NoRoom { place, source },
            AppendError::NoSegment { place, source } => Self::Io { place, source },
            AppendError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
        }
    }
}

impl From<Poisoned> for LogError {
    fn from(poisoned: Poisoned) -> Self {
        Self::Poisoned { message: poisoned.to_string() }
    }
}
