//! The log against a disk that forgets and fails.
//!
//! One question everywhere: is what the next process replays a prefix of what was appended, with everything in it
//! that was answered as durable, and nothing that was not appended? A [`World`] keeps the books and asks it.

mod damage;
mod disk;
mod exhaustive;
mod fault;
mod fixture;
mod group_commit;
mod random;
mod repairs;
mod room;
mod rules;
mod surveys;
mod watch;

use std::sync::Arc;

use super::storage::simulated::Simulated;
use super::*;
use crate::event::Fingerprint;

/// A batch as it was appended or replayed: its time, which is unique, and its ids.
type Entry = (i64, Vec<Fingerprint>);

/// Small segments: a page of header and one of frames.
fn tiny() -> Config {
    let (segment_bytes_min, segment_bytes_max, touch_ahead_bytes) = (8_192, 16_384, 4_096);
    let watch_every = Duration::ZERO;
    Config { segment_bytes_min, segment_bytes_max, touch_ahead_bytes, watch_every, ..Config::new([7; 32]) }
}

/// Ids that no other time has.
fn entry(time: i64, count: u16) -> Entry {
    let base = u128::from(time.cast_unsigned()) << 64;
    (time, (0..u128::from(count)).map(|id| Fingerprint::from_u128(base | id)).collect())
}

fn append(log: &Log, entry: &Entry) -> Result<Position, AppendError> {
    let mut batch = Batch::new();
    batch.push_ids(Kind::Seen, entry.1.iter().copied());
    log.append(Timestamp::from_nanos(entry.0), &batch)
}

fn open(storage: impl Storage + 'static, config: Config) -> Result<(Log, Opening, Vec<Entry>), OpenError> {
    let mut entries = Vec::new();
    let (log, opening) = Log::open(Arc::new(storage), config, |replayed| {
        let ids: Vec<_> = replayed.records.flat_map(|record| record.ids()).collect();
        if !ids.is_empty() {
            entries.push((replayed.time.as_nanos(), ids));
        }
    })?;
    Ok((log, opening, entries))
}

/// What was told, and so what must be found.
#[derive(Debug, Clone, Default)]
struct World {
    /// Everything appended, also what was not answered.
    history: Vec<Entry>,
    /// How many of them were answered.
    answered: usize,
    /// How many of them were answered as durable.
    durable: usize,
    /// Segments older than this may be gone.
    retired_before: i64,
}

/// What the state outlived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Died {
    Killed,
    PowerCut,
}

impl World {
    /// Whether `entries` may be what the next process finds; the number of entries of the history up to their end.
    fn judge(&self, entries: &[Entry], died: Died) -> Result<usize, String> {
        let must = if died == Died::Killed { self.answered } else { self.durable };
        let Some(first) = entries.first() else {
            let all_aged_out = self.history[..must].iter().all(|entry| entry.0 < self.retired_before);
            return if all_aged_out { Ok(must) } else { Err(format!("nothing is left of {must} that were promised")) };
        };
        let start = self.history.iter().position(|entry| entry.0 == first.0).ok_or("starts with a strange entry")?;
        let end = start + entries.len();
        if self.history.get(start..end) != Some(entries) {
            return Err(format!("entries {start}..{end} are not what was appended"));
        }
        if start > 0 && self.history[start - 1].0 >= self.retired_before {
            return Err(format!("the first {start} are gone and not that old"));
        }
        if end < must {
            return Err(format!("{end} are left of {must} that were promised"));
        }
        Ok(end)
    }

    /// The world of the next process, which found the history up to `end`. What it found is on disk.
    fn reborn(&self, end: usize) -> Self {
        let history = self.history[..end].to_vec();
        Self { history, answered: end, durable: end, retired_before: self.retired_before }
    }

    fn append(&mut self, log: &Log, entry: Entry) -> Result<Position, AppendError> {
        let result = append(log, &entry);
        match &result {
            Ok(_) => {
                self.history.push(entry);
                self.answered = self.history.len();
            }
            // It was cut short inside: it may be there or not, and nothing may follow.
            Err(AppendError::Poisoned(_)) => self.history.push(entry),
            Err(_) => {}
        }
        result
    }

    fn sync(&mut self, log: &Log) -> Result<(), Poisoned> {
        let result = log.sync();
        if result.is_ok() {
            self.durable = self.answered;
        }
        result
    }

    fn retire(&mut self, log: &Log, before: i64) -> Result<usize, RetireError> {
        self.retired_before = self.retired_before.max(before);
        log.retire(Timestamp::from_nanos(before))
    }

    fn close(&mut self, log: Log) -> Result<(), Poisoned> {
        let result = log.close();
        if result.is_ok() {
            self.durable = self.answered;
        }
        result
    }
}

/// Numbers that a seed fixes (xorshift64*, Vigna 2016).
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
