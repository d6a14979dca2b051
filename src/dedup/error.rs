//! Errors of building and using a [`Deduplicator`](super::Deduplicator).

use std::time::Duration;

use crate::event::Unjudged;

/// Any error of a [`Deduplicator`](super::Deduplicator), for `?`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is refused; nothing was made.
    #[error(transparent)]
    Build(#[from] BuildError),
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
            Self::Unjudged(error) => error.code(),
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Build(_) => false,
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
            Self::Secret(_) => "secret",
        }
    }
}
