//! Single questions on their way to the log: gathered by the shards, appended together.

use crate::log::{AppendError, Batch, Kind, Log};
use crate::time::Timestamp;
use crate::window::Changes;

/// What was taken from the shards and is not appended yet. What cannot be appended stays here, and nothing is lost as
/// long as the process lives.
#[derive(Default)]
pub(super) struct Gathering {
    pub(super) changes: Changes,
    batch: Batch,
}

/// What becomes of the times of gathered ids.
#[derive(Clone, Copy)]
pub(super) enum Stamp {
    /// Event time: each keeps its own, in a frame of this time.
    Own(i64),
    /// Processing time: they are the starts of generations of `slice`; the time of the frame is the present, or the end of
    /// that generation if it is over.
    Generation { now: i64, slice: i64 },
}

impl Stamp {
    /// The time of the frame that an id of `time` goes into.
    fn frame(self, time: i64) -> i64 {
        match self {
            Self::Own(frame) => frame,
            Self::Generation { now, slice } => now.clamp(time, time.saturating_add(slice - 1)),
        }
    }
}

impl Gathering {
    /// Appends what was taken from the shards; what was appended is not there any more, also after an error.
    ///
    /// In processing time all ids of one generation make a frame; they are put in order first.
    pub(super) fn append(&mut self, log: &Log, stamp: Stamp) -> Result<(), AppendError> {
        let Self { changes, batch } = self;
        for (kind, kind_at, ids) in
            [(Kind::Seen, Kind::SeenAt, &mut changes.seen), (Kind::Refresh, Kind::RefreshAt, &mut changes.refreshed)]
        {
            if matches!(stamp, Stamp::Generation { .. }) {
                ids.sort_by_key(|(_, time)| *time);
            }
            while !ids.is_empty() {
                let time = stamp.frame(ids[0].1);
                let same = ids.iter().take(FRAME_IDS).take_while(|id| stamp.frame(id.1) == time).count();
                batch.clear();
                match stamp {
                    Stamp::Own(_) => {
                        batch.push_ids_at(kind_at, ids[..same].iter().map(|id| (id.0, Timestamp::from_nanos(id.1))));
                    }
                    Stamp::Generation { .. } => batch.push_ids(kind, ids[..same].iter().map(|id| id.0)),
                }
                log.append(Timestamp::from_nanos(time), batch)?;
                ids.drain(..same);
            }
        }
        Ok(())
    }

    /// The latest time of any of them.
    pub(super) fn latest(&self) -> i64 {
        let all = self.changes.seen.iter().chain(&self.changes.refreshed);
        all.map(|(_, time)| *time).max().unwrap_or(i64::MIN)
    }

    pub(super) fn len(&self) -> usize {
        self.changes.seen.len() + self.changes.refreshed.len()
    }
}

/// Ids in one frame, at most.
const FRAME_IDS: usize = 8_192;
