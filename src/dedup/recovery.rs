//! [`Recovery`]: what opening a state found; [`RecoveryProgress`]: how far it has come.

use std::time::Duration;

use crate::state::Repair;
use crate::time::Timestamp;

/// What [`Builder::open`](super::Builder::open) found in the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Ids that are known after it: seen within the window or the slack behind it, not forgotten, and with room. In event
    /// time each sight of an ID counts that has a window of its own: an ID that came again after its window has several.
    pub ids: u64,
    /// Records of ids that were replayed for that: an ID that was seen and refreshed has two, one that was forgotten its
    /// own, and what is older than the window none.
    pub records: u64,
    /// Frames that were replayed.
    pub frames: u64,
    /// The latest engine time in the state.
    pub newest: Option<Timestamp>,
    /// What stood behind the last whole frame: half-written, or lost in a power cut. None of it was known to be on disk.
    pub loss: Option<Loss>,
    /// Ids that the limits of this set have no room for: their repeats may be first-seen.
    pub full: u64,
    /// How far the clock is behind the state: time holds until it has caught up.
    pub clock_behind: Duration,
    /// From when on the window holds, when it was longer than what the state remembers: before, an ID may be forgotten
    /// early. `None` when it holds now.
    pub holds_from: Option<Timestamp>,
    /// What was repaired, with [`OnCorrupt::Salvage`](super::OnCorrupt::Salvage).
    pub repair: Option<Repair>,
}

/// How far [`Builder::open`](super::Builder::open) has come in reading a state: see
/// [`Builder::on_recovery`](super::Builder::on_recovery).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// Bytes of the log that were read.
    pub bytes: u64,
    /// Bytes that the log has, unused space at the end of a segment included: 0 for a state that is new.
    pub bytes_total: u64,
    /// Records of ids that were read and are not older than the window, as [`Recovery::records`] counts them: an ID that
    /// was seen and refreshed counts twice.
    pub ids: u64,
}

/// What a state lost: normal after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The file with the gap.
    pub place: String,
    /// Where in it the gap starts.
    pub offset: u64,
    /// Bytes behind it that are not zero, to the last one.
    pub bytes: u64,
    /// Whole frames behind it: none after `kill -9`.
    pub frames: u64,
}
