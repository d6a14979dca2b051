//! What goes wrong with a log: at open, at an append, at a sync, when segments age out.

use std::io;

/// Why a log was not opened. No byte that was read has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// The file system refuses something.
    #[error("cannot {act} {place}")]
    Io {
        act: &'static str,
        place: String,
        #[source]
        source: io::Error,
    },
    /// Bytes that were on disk are bad or gone.
    #[error(
        "{place} is corrupt at byte {offset}: frame {sequence} belongs there and was on disk, as all up to {synced}; \
         nothing was changed: restore the file, or repair the state"
    )]
    Corrupt { place: String, offset: u64, sequence: u64, synced: u64 },
    /// The first page of a segment, which was synced before it had a name, is bad.
    #[error(
        "{place} is corrupt: its first page does not check; nothing was changed: restore the file, or repair the state"
    )]
    Header { place: String },
    /// The lowest segment does not start with the frame that it must have.
    #[error(
        "{place} is corrupt at byte {offset}: its first frame is bad; nothing was changed: restore the file, or \
         repair the state"
    )]
    FirstFrame { place: String, offset: u64 },
    /// A repair was cut short.
    #[error("{place} tells of a repair that was not finished: repair the state again")]
    Unrepaired { place: String },
    /// The state belongs to another configuration.
    #[error("{place} belongs to a state of another configuration: hash, id paths, scope or secret differ")]
    OtherState { place: String, found: [u8; super::IDENTITY_BYTES] },
    /// The state was written by a newer version.
    #[error(
        "{place} has format version {version}, or flags, that this version does not know: open it with a newer one"
    )]
    Newer { place: String, version: u32 },
    /// A frame that checks holds records that this version does not know.
    #[error("{place} holds records at byte {offset} that this version does not know: open it with a newer one")]
    Records { place: String, offset: u64 },
}

impl OpenError {
    /// The stable name of this error, for tests.
    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "log_io",
            Self::Corrupt { .. } | Self::Header { .. } | Self::FirstFrame { .. } | Self::Unrepaired { .. } => {
                "log_corrupt"
            }
            Self::OtherState { .. } => "log_other_state",
            Self::Newer { .. } | Self::Records { .. } => "log_newer",
        }
    }

    /// Whether bytes that were on disk are bad.
    pub(crate) fn is_corruption(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Header { .. } | Self::FirstFrame { .. } | Self::Unrepaired { .. } => true,
            Self::Io { .. } | Self::OtherState { .. } | Self::Newer { .. } | Self::Records { .. } => false,
        }
    }

    /// The file with the bad bytes and where in it they begin.
    pub(crate) fn spot(&self) -> Option<(&str, u64)> {
        match self {
            Self::Corrupt { place, offset, .. }
            | Self::FirstFrame { place, offset }
            | Self::Records { place, offset } => Some((place, *offset)),
            Self::Header { place } | Self::Unrepaired { place } => Some((place, 0)),
            Self::Io { .. } | Self::OtherState { .. } | Self::Newer { .. } => None,
        }
    }
}

/// Why a batch was not appended. The log is as before, unless it is poisoned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AppendError {
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// There is no room for another segment, on disk or within the limit. The same append may succeed later.
    #[error("no new segment can be prepared as {place}: make room for it")]
    NoSegment {
        place: String,
        #[source]
        source: io::Error,
    },
    /// There is no room for the batch in a segment that was prepared, on a file system that copies on write. The same append
    /// may succeed later.
    #[error("there is no room for a batch in {place}: make room for it")]
    NoRoom {
        place: String,
        #[source]
        source: io::Error,
    },
    /// The batch is larger than any frame may be.
    #[error("a batch of {bytes} bytes is over the limit of {bytes_max}: append it in parts")]
    TooLarge { bytes: usize, bytes_max: usize },
}

impl AppendError {
    /// The stable name of this error, for tests.
    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Poisoned(_) => "log_poisoned",
            Self::NoSegment { .. } => "log_no_segment",
            Self::NoRoom { .. } => "log_no_room",
            Self::TooLarge { .. } => "log_too_large",
        }
    }

    /// Whether the same call may succeed later.
    #[cfg(test)]
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::NoSegment { .. } | Self::NoRoom { .. })
    }
}

/// Why segments that have aged out were not dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RetireError {
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The file system refuses it. The same call may succeed later.
    #[error("cannot remove {place}")]
    Remove {
        place: String,
        #[source]
        source: io::Error,
    },
}

/// A write or a sync failed, so what is on disk is not known: nothing succeeds any more until the log is opened again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log is poisoned, open it again to see what is on disk: {why}")]
pub(crate) struct Poisoned {
    pub(crate) why: String,
}
