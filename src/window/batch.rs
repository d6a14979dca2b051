//! Many questions at once: their cache misses overlap, and each shard is locked once for all that concern it.
//!
//! A block of questions is cut to what the first-level cache can hold while the lines arrive. It is sorted by shard, which
//! keeps the order of questions about one ID, and then each shard is held once. Before that the home line of every
//! question is prefetched through the directory as it happens to be: wrong guesses cost time, never an answer.

use super::generations::Moment;
use super::line::Stored;
use super::shard::{Act, Answer, Held};
use super::{Set, When, prefetch};
use crate::event::Fingerprint;
use crate::time::Timestamp;

/// Questions in a block.
pub(crate) const BLOCK: usize = 512;

/// The times of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times<'a> {
    /// Processing time: one for all.
    Now(i64),
    /// One for each, and the present.
    Each { times: &'a [Timestamp], clock: i64 },
}

/// The order in which a block is worked off: by shard, and within a shard as asked.
struct Order {
    shards: [u16; BLOCK],
    sorted: [u16; BLOCK],
}

impl Set {
    /// Answers for `fingerprints` in order, handing each answer to `answer` with its index.
    pub(crate) fn ask_batch(
        &self,
        fingerprints: &[Fingerprint],
        times: Times<'_>,
        act: Act,
        mut answer: impl FnMut(usize, Answer),
    ) {
        match times {
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                for (number, block) in fingerprints.chunks(BLOCK).enumerate() {
                    self.each_held(block, |held, index| {
                        answer(number * BLOCK + index, held.ask(block[index], None, act));
                    });
                }
            }
            Times::Each { times, clock } if self.common.generations.limits().lateness.is_some() => {
                self.ask_events(fingerprints, times, clock, act, answer);
            }
            Times::Each { times, .. } => {
                for (index, (fingerprint, time)) in fingerprints.iter().zip(times).enumerate() {
                    answer(index, self.ask(*fingerprint, When::Now(time.as_nanos()), act));
                }
            }
        }
    }

    /// Event time: a block ends before an event that makes the set forget, as the ones before it may still ask for what
    /// is forgotten then.
    fn ask_events(
        &self,
        fingerprints: &[Fingerprint],
        times: &[Timestamp],
        clock: i64,
        act: Act,
        mut answer: impl FnMut(usize, Answer),
    ) {
        let mut start = 0;
        let mut moments: Vec<Option<Moment>> = Vec::with_capacity(BLOCK.min(times.len()));
        while start < fingerprints.len() {
            moments.clear();
            for time in times[start..].iter().take(BLOCK).map(|time| time.as_nanos()) {
                if !moments.is_empty() && self.common.generations.event_moves_horizon(time) {
                    break;
                }
                moments.push(self.notice_event(time, clock));
            }
            let block = &fingerprints[start..start + moments.len()];
            self.each_held(block, |held, index| {
                let given = match moments[index] {
                    Some(moment) => held.ask(block[index], Some(moment), act),
                    None => Answer::Late,
                };
                answer(start + index, given);
            });
            start += moments.len();
        }
    }

    /// Marks reserved fingerprints as seen.
    pub(crate) fn commit_batch(&self, fingerprints: &[Fingerprint], times: Times<'_>) {
        match times {
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                for block in fingerprints.chunks(BLOCK) {
                    self.each_held(block, |held, index| {
                        held.commit(block[index], None);
                    });
                }
            }
            Times::Each { times, clock } => {
                let is_event = self.common.generations.limits().lateness.is_some();
                for (fingerprint, time) in fingerprints.iter().zip(times) {
                    let time = time.as_nanos();
                    let when = if is_event { When::Event { time, clock } } else { When::Now(clock) };
                    self.commit(*fingerprint, when);
                }
            }
        }
    }

    /// Calls `act` for each of a block's fingerprints, holding its shard.
    #[inline]
    fn each_held(&self, block: &[Fingerprint], mut act: impl FnMut(&mut Held<'_>, usize)) {
        let mut order = Order { shards: [0; BLOCK], sorted: [0; BLOCK] };
        let order = order.sort(self, block);
        for run in order.chunk_by(|left, right| left.0 == right.0) {
            let mut held = self.shards[usize::from(run[0].0)].hold(&self.common);
            for (_, index) in run {
                act(&mut held, usize::from(*index));
            }
        }
    }
}

impl Order {
    fn sort(&mut self, set: &Set, block: &[Fingerprint]) -> Vec<(u16, u16)> {
        let _ = (&self.shards, &self.sorted);
        let mut out: Vec<(u16, u16)> = Vec::with_capacity(block.len());
        for (index, fingerprint) in block.iter().enumerate() {
            let shard = set.shard_of(*fingerprint);
            let stored = Stored::of(*fingerprint);
            let slot = set.shards[shard].root(*fingerprint, set.common.shape.shard_bits).slot(stored);
            prefetch(slot.segment().home(stored));
            out.push((shard as u16, index as u16));
        }
        out.sort_unstable();
        out
    }
}
