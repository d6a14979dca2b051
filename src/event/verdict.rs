//! Answers: verdicts, what stands in the way of one, and the stable names of the reasons.

use std::fmt;

/// Whether an event is the first of its ID within the window.
///
/// Complete on purpose: a question that was answered has one of these two answers, and callers match on them without a
/// wildcard. What could not be judged is an [`Unjudged`] error of the `try_` methods.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "the verdict says whether to process the event"]
pub enum Verdict {
    /// No live entry for the ID was found: process the event.
    FirstSeen,
    /// The ID was seen within the window: drop the event.
    Duplicate,
}

/// The answer for one ID of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "the verdict says whether to process the event"]
#[non_exhaustive]
pub enum ReserveVerdict {
    /// The ID is now reserved for this reservation: deliver the event, then commit.
    FirstSeen,
    /// The ID was seen within the window: drop the event.
    Duplicate,
    /// The ID is reserved and not yet resolved, by an earlier event of this batch or by another reservation. Once that is
    /// resolved ask again; in processing time, or less than a window away from an event that was committed, it is a duplicate.
    InFlight,
    /// The ID is known, and its event came with another payload: see [`OnConflict`](crate::OnConflict). Where conflicts are
    /// let through this one's digest is now reserved: deliver or divert the event, then commit.
    Conflict {
        /// The ID is reserved and not yet resolved, as for [`InFlight`](Self::InFlight); else it was seen.
        in_flight: bool,
    },
    /// The ID could not be judged; nothing was recorded.
    Unjudged(Unjudged),
}

/// Why a question has no answer. Nothing was recorded; the event must not be dropped on this account.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unjudged {
    /// The event's time is before the low watermark.
    #[error("the event is late: its time is before the low watermark")]
    Late,
    /// The limit on ids or memory is reached and ids may not be evicted.
    #[error("the set is full: raise its limit, or let it evict the oldest ids")]
    Full,
    /// The log failed, so nothing can be recorded.
    #[error("the log has failed: reopen the state after the cause is mended")]
    LogFailed,
    /// The deduplicator is closed.
    #[error("the deduplicator is closed")]
    Closed,
}

impl Unjudged {
    /// The stable name of this error.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Full => "full",
            Self::LogFailed => "log_failed",
            Self::Closed => "closed",
        }
    }

    /// Whether the same question may be answered later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Full)
    }
}

/// Why an event got its verdict, as a stable string.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The ID was not known.
    New,
    /// The ID was known, and its window has ended.
    Reappeared,
    /// The ID was seen within the window.
    Seen,
    /// The ID is reserved and not yet resolved.
    InFlight,
    /// The same ID came with another payload.
    Conflict,
    /// The event's time is before the low watermark.
    Late,
    /// The event's time is further ahead of the clock than allowed.
    Future,
    /// The event has no ID.
    MissingId,
    /// The record cannot be read.
    Malformed,
    /// The record or its ID is longer than allowed.
    TooLong,
    /// The record has more than one ID.
    AmbiguousId,
    /// The set is full.
    Full,
    /// The log has failed.
    LogFailed,
}

impl Reason {
    /// The stable name, as it stands in reports and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Reappeared => "reappeared",
            Self::Seen => "seen",
            Self::InFlight => "in_flight",
            Self::Conflict => "conflict",
            Self::Late => "late",
            Self::Future => "future",
            Self::MissingId => "missing_id",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::AmbiguousId => "ambiguous_id",
            Self::Full => "full",
            Self::LogFailed => "log_failed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
