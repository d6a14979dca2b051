//! The positions that a log keeps, each with the time of the frame that it stands in.
//!
//! A segment that ages out takes its positions with it, so whoever keeps the log appends those again first. They are bounded in
//! number and size: of more than that the ones that were recorded longest ago are forgotten. Under a limit on disk all that
//! are kept fit into what the log reserves for them, so they never keep it full.

use std::collections::BTreeMap;

use crate::log::{AppendError, Batch, Kind};

use super::super::Progress;

/// Positions of sources and sinks.
#[derive(Debug)]
pub(super) struct Kept {
    progress: Progress,
    times: BTreeMap<(bool, Box<[u8]>), Place>,
    /// Of all names and positions.
    bytes: usize,
    bytes_max: usize,
    /// How many positions were recorded.
    recorded: u64,
}

/// Where a position stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    time: i64,
    /// How many were recorded before it. One that is only appended again keeps this.
    order: u64,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self::within(BYTES_MAX)
    }
}

impl Kept {
    /// None yet; and never more than `bytes_max`, or than are kept without a limit.
    pub(super) fn within(bytes_max: usize) -> Self {
        let (progress, times) = (Progress::default(), BTreeMap::new());
        Self { progress, times, bytes: 0, bytes_max: bytes_max.min(BYTES_MAX), recorded: 0 }
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether all of `progress` is kept once it is recorded. Without a limit on disk it is the caller's to know.
    pub(super) fn check(&self, progress: &Progress) -> Result<(), AppendError> {
        let all = progress.sources().chain(progress.sinks());
        let (bytes, bytes_max) = (all.map(|(name, position)| name.len() + position.len()).sum(), self.bytes_max);
        if bytes_max < BYTES_MAX && bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    /// Takes a position as it was replayed.
    pub(super) fn restore(&mut self, kind: Kind, name: &[u8], position: &[u8], time: i64) {
        let is_source = kind == Kind::Source;
        let known = if is_source { self.progress.source(name) } else { self.progress.sink(name) };
        let is_same = known == Some(position);
        if is_source {
            self.progress.set_source(name, position);
        } else {
            self.progress.set_sink(name, position);
        }
        let (bytes, order) = (name.len() + position.len(), self.recorded);
        self.recorded += 1;
        let place = self.times.entry((is_source, name.into())).or_insert(Place { time, order, bytes: 0 });
        self.bytes = self.bytes + bytes - place.bytes;
        *place = Place { time, order: if is_same { place.order } else { order }, bytes };
        while self.times.len() > NAMES_MAX || self.bytes > self.bytes_max && self.times.len() > 1 {
            let Some((oldest, place)) = self.times.iter().min_by_key(|(_, place)| place.order) else { return };
            let (oldest, bytes) = (oldest.clone(), place.bytes);
            self.times.remove(&oldest);
            self.bytes -= bytes;
            self.progress.remove(oldest.0, &oldest.1);
        }
    }

    /// Takes what was appended at `time`.
    pub(super) fn record(&mut self, progress: &Progress, time: i64) {
        progress.sources().for_each(|(name, position)| self.restore(Kind::Source, name, position, time));
        progress.sinks().for_each(|(name, position)| self.restore(Kind::Sink, name, position, time));
    }

    /// Those that stand in frames older than `time`.
    pub(super) fn older_than(&self, time: i64) -> Progress {
        let mut older = Progress::new();
        for ((is_source, name), _) in self.times.iter().filter(|(_, place)| place.time < time) {
            match is_source {
                true => self.progress.source(name).into_iter().for_each(|position| older.set_source(name, position)),
                false => self.progress.sink(name).into_iter().for_each(|position| older.set_sink(name, position)),
            }
        }
        older
    }
}

/// Adds `progress` to a batch.
pub(super) fn push(batch: &mut Batch, progress: &Progress) {
    progress.sources().for_each(|(name, position)| batch.push_named(Kind::Source, name, position));
    progress.sinks().for_each(|(name, position)| batch.push_named(Kind::Sink, name, position));
}

const NAMES_MAX: usize = 4_096;
/// So that all of them fit into one frame.
const BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_names_the_oldest_is_forgotten() {
        let mut kept = Kept::default();
        for n in 0..=NAMES_MAX {
            kept.restore(Kind::Source, &n.to_le_bytes(), b"1", n as i64);
        }
        assert_eq!(kept.progress().sources().count(), NAMES_MAX);
        assert_eq!(kept.progress().source(0_usize.to_le_bytes()), None);
        assert!(kept.progress().source(1_usize.to_le_bytes()).is_some());
    }

    /// Whatever its name: what was recorded in the same instant is told apart by order, and what is appended again for its
    /// segment's sake is no younger for that.
    #[test]
    fn the_one_recorded_last_is_kept() {
        let mut kept = Kept::default();
        for n in (0..NAMES_MAX).rev() {
            kept.restore(Kind::Source, &n.to_be_bytes(), b"1", 7);
        }
        let first = NAMES_MAX - 1;
        kept.restore(Kind::Source, &first.to_be_bytes(), b"1", 8);
        kept.restore(Kind::Source, b"", b"1", 8);
        assert_eq!(kept.progress().source(b""), Some(&b"1"[..]));
        assert_eq!(kept.progress().source(first.to_be_bytes()), None);
        assert_eq!(kept.progress().sources().count(), NAMES_MAX);
    }

    #[test]
    fn what_stands_in_older_frames_is_told() {
        let mut kept = Kept::default();
        kept.restore(Kind::Source, b"a", b"1", 10);
        kept.restore(Kind::Sink, b"a", b"2", 20);
        let older = kept.older_than(20);
        assert_eq!((older.source("a"), older.sink("a")), (Some(&b"1"[..]), None));
    }
}
