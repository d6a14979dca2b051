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

impl Gathering {
    /// Appends what was taken from the shards.
    ///
    /// In processing time the times are the starts of generations, so all ids of one time make a frame of that time; they
    /// are put in order first. In event time each id keeps its own.
    pub(super) fn append(&mut self, log: &Log, event_time: Option<i64>) -> Result<(), AppendError> {
        let Self { changes, batch } = self;
        for (kind, kind_at, ids) in
            [(Kind::Seen, Kind::SeenAt, &mut changes.seen), (Kind::Refresh, Kind::RefreshAt, &mut changes.refreshed)]
        {
            if event_time.is_none() {
                ids.sort_by_key(|(_, time)| *time);
            }
            while !ids.is_empty() {
                let time = event_time.unwrap_or(ids[0].1);
                let same = ids.iter().take(FRAME_IDS).take_while(|id| event_time.is_some() || id.1 == time).count();
                batch.clear();
                match event_time {
                    Some(_) => {
                        batch.push_ids_at(kind_at, ids[..same].iter().map(|id| (id.0, Timestamp::from_nanos(id.1))));
                    }
                    None => batch.push_ids(kind, ids[..same].iter().map(|id| id.0)),
                }
                log.append(Timestamp::from_nanos(time), batch)?;
                ids.drain(..same);
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.changes.seen.len() + self.changes.refreshed.len()
    }
}

/// Ids in one frame, at most.
const FRAME_IDS: usize = 8_192;
