//! What a set has to say about itself.

use crate::window::Set;

/// A count of what happened, and what there is now. In ids, but for bytes. Where payloads are compared, their digests are
/// counted like ids: an event is two questions, and two ids that are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Ids remembered now: seen within the window, or within the slack behind it.
    pub live_ids: u64,
    /// Ids reserved and not yet resolved.
    pub pending_ids: u64,
    /// Bytes of memory held, everything included.
    pub memory_bytes: u64,
    /// Bytes that the state takes on disk, with what was prepared and what was moved aside; 0 in memory.
    pub disk_bytes: u64,
    /// Questions answered with first-seen, without the bypassed ones.
    pub first_seen: u64,
    /// Of these, ids that were known before and whose window had ended. A lower bound: most are cleaned away by then.
    pub reappeared: u64,
    /// Questions answered with duplicate because the ID was seen within the window.
    pub duplicates: u64,
    /// Questions about an ID that was reserved.
    pub in_flight: u64,
    /// Events whose ID was known and whose payload was not: see [`OnConflict`](crate::OnConflict).
    pub conflicts: u64,
    /// Questions not judged because the event was late.
    pub late: u64,
    /// Questions not judged because the set was full.
    pub full: u64,
    /// Events whose time was further ahead of the clock than allowed. They are judged, and move no time.
    pub future: u64,
    /// Broken promise: ids forgotten before their window ended, because a limit was reached.
    pub evicted_early: u64,
    /// Broken promise: times the clock was found to have gone back, and time was held until it caught up.
    pub clock_held: u64,
    /// Broken promise: questions that could not be judged and were answered with first-seen all the same.
    pub bypassed: u64,
    /// Broken promise: records that are missing in the log, because it failed and questions were answered all the same. Those
    /// that only wait for room are counted until it takes them.
    pub unlogged: u64,
    /// Entries moved when segments grew, were split or were gathered: the work that growing and shrinking cost.
    pub moved: u64,
}

impl Stats {
    pub(super) fn new(set: &Set, bypassed: u64) -> Self {
        let tally = set.tally();
        Self {
            live_ids: tally.live,
            pending_ids: tally.pending,
            memory_bytes: set.bytes() as u64,
            disk_bytes: 0,
            first_seen: tally.first_seen,
            reappeared: tally.reappeared,
            duplicates: tally.duplicates,
            in_flight: tally.in_flight,
            conflicts: 0,
            late: tally.late,
            full: tally.full,
            future: set.future(),
            evicted_early: tally.evicted_early,
            clock_held: set.clock_held(),
            bypassed,
            unlogged: 0,
            moved: tally.moved,
        }
    }
}
