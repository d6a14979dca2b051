//! What comes out: one [`Record`] per line.

use std::fmt;

use crate::event::Reason;
use crate::time::Timestamp;

/// One line and what it says. Borrowed from the buffer it was read from, or from the decoder until the next line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The line with its terminator, byte for byte.
    pub line: &'a [u8],
    /// Where the line starts in the decoded bytes.
    pub start: usize,
    /// Its ID, or why it has none.
    pub content: Content<'a>,
    /// Its event time. `None` when no time is asked for, and for lines that are blank or not JSON.
    pub time: Option<Result<Timestamp, BadTime>>,
}

/// What a line says about its event's ID.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// Only spaces, tabs and carriage returns: not an event.
    Blank,
    /// The canonical bytes that name the event.
    Id(&'a [u8]),
    /// The event cannot be named.
    Bad(Bad),
}

/// Why a line has no ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The class, as reports count it.
    pub reason: BadReason,
    /// The byte of the line that shows it, counted from 0; the line's length when it ends too early, 0 when what is
    /// missing has no place.
    pub offset: usize,
    /// One clause for a human.
    pub what: &'static str,
}

/// The classes of lines without an ID.
///
/// Complete on purpose: each maps to a [`Reason`], and the filter has a policy for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BadReason {
    /// The line is not JSON, or the value on the path cannot be an ID: an object, an array, a lone surrogate.
    Malformed,
    /// Nothing is on the path, or `null`, or an empty string.
    MissingId,
    /// The ID is longer than 1 KiB.
    TooLong,
    /// A member on the path occurs twice in its object.
    AmbiguousId,
}

impl From<BadReason> for Reason {
    fn from(reason: BadReason) -> Self {
        match reason {
            BadReason::Malformed => Self::Malformed,
            BadReason::MissingId => Self::MissingId,
            BadReason::TooLong => Self::TooLong,
            BadReason::AmbiguousId => Self::AmbiguousId,
        }
    }
}

/// Why a line has no event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTime {
    /// Nothing is on the path, or `null`, or an empty string.
    Missing,
    /// What is there is not a time in the unit that was asked for.
    Unreadable {
        /// The byte of the line where the value starts.
        offset: usize,
        /// One clause for a human.
        what: &'static str,
    },
    /// A member on the path occurs twice in its object.
    Ambiguous {
        /// The byte of the line where the second value starts.
        offset: usize,
    },
}

/// Shows sizes, never data.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("line_bytes", &self.line.len())
            .field("start", &self.start)
            .field("content", &self.content)
            .field("time", &self.time)
            .finish()
    }
}

/// Shows sizes, never data.
impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("Blank"),
            Self::Id(id) => write!(f, "Id({} bytes)", id.len()),
            Self::Bad(bad) => f.debug_tuple("Bad").field(bad).finish(),
        }
    }
}

impl Bad {
    pub(super) fn malformed(offset: usize, what: &'static str) -> Self {
        Self { reason: BadReason::Malformed, offset, what }
    }
}
