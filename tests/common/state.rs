//! What the tests of a state share: an hour's window on a manual clock, ids by number, and a disk limit that is reached.

use std::time::Duration;

use dedupd::{Builder, Deduplicator, Durability, ManualClock, Unjudged};

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn builder(clock: &ManualClock) -> Builder {
    Deduplicator::builder().window(HOUR).clock(clock.clone()).durability(Durability::Process)
}

pub fn ids(range: std::ops::Range<u32>) -> Vec<[u8; 4]> {
    range.map(u32::to_le_bytes).collect()
}

/// Asks about new ids until the log takes no more, in large batches, and then in small ones; returns how many it took.
pub fn fill_up(dedup: &Deduplicator) -> u32 {
    let (mut known, mut verdicts) = (0, Vec::new());
    for count in [1_000, 1] {
        for _ in 0..2_000 {
            dedup.try_observe_batch(&ids(known..known + count), &mut verdicts);
            if verdicts.contains(&Err(Unjudged::LogFailed)) {
                break;
            }
            known += count;
        }
    }
    known
}
