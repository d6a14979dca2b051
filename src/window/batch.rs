//! Many questions at once: their cache misses overlap, and each shard is locked once for all that concern it.
//!
//! Questions are worked off in blocks. A block is hashed, each home line is prefetched through the directory as it
//! happens to be (a wrong guess costs time, never an answer), and it is sorted by shard, which keeps the order of questions
//! about one ID. Then each shard is held once. While one block is asked the next one is prepared in small portions, so
//! that the processor computes while lines arrive, and lines arrive while it computes.

use std::ops::Range;

use super::directory::Slot;
use super::generations::Moment;
use super::line::Stored;
use super::shard::{Act, Answer, Held, Shard};
use super::{Set, When, prefetch};
use crate::event::Fingerprint;
use crate::time::Timestamp;

/// Questions in a block: two blocks of lines stay in the first- or second-level cache.
const BLOCK: usize = 512;

/// The times of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Times<'a> {
    /// Processing time: one for all.
    Now(i64),
    /// One for each, and the present.
    Each { times: &'a [Timestamp], clock: i64 },
}

/// A block of questions, in the order in which it is worked off: by shard, and within a shard as asked.
struct Block<'a> {
    fingerprints: Vec<Fingerprint>,
    questions: Vec<Question<'a>>,
    /// Indexes of the questions.
    sorted: [u16; BLOCK],
    /// Where each shard's questions end in `sorted`; before sorting, how many there are.
    ends: Vec<u16>,
}

/// A question whose line is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) fingerprint: Fingerprint,
    /// Where its segment is named, as it was before the lock was taken.
    pub(super) slot: &'a Slot,
    shard: u16,
}

/// The questions of a block that concern one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    block: &'a [Question<'a>],
    sorted: &'a [u16],
    /// The index of the block's first question.
    start: usize,
}

impl<'a> Run<'a> {
    /// Each with its index.
    #[inline]
    pub(super) fn questions(self) -> impl Iterator<Item = (usize, &'a Question<'a>)> {
        self.sorted.iter().map(move |index| (self.start + usize::from(*index), &self.block[usize::from(*index)]))
    }
}

impl Set {
    /// Answers `questions` questions in order, handing each answer to `answer` with its index. `fingerprint` tells the
    /// fingerprint of a question; it is called once for each, in order, and ahead of the answers.
    pub(crate) fn ask_batch(
        &self,
        questions: usize,
        mut fingerprint: impl FnMut(usize) -> Fingerprint,
        times: Times<'_>,
        act: Act,
        mut answer: impl FnMut(usize, Answer),
    ) {
        match times {
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                self.each_held(questions, fingerprint, |held, run| held.ask_run(run, act, &mut answer));
            }
            Times::Each { times, clock } if self.common.generations.limits().lateness.is_some() => {
                self.ask_events(questions, fingerprint, times, clock, act, answer);
            }
            Times::Each { times, .. } => {
                for (index, time) in times.iter().enumerate().take(questions) {
                    answer(index, self.ask(fingerprint(index), When::Now(time.as_nanos()), act));
                }
            }
        }
    }

    /// Event time: a portion ends before an event that makes the set forget, as the ones before it may still ask for what
    /// is forgotten then.
    fn ask_events(
        &self,
        questions: usize,
        mut fingerprint: impl FnMut(usize) -> Fingerprint,
        times: &[Timestamp],
        clock: i64,
        act: Act,
        mut answer: impl FnMut(usize, Answer),
    ) {
        let times = &times[..questions.min(times.len())];
        let mut start = 0;
        let mut moments: Vec<Result<Moment, Answer>> = Vec::with_capacity(BLOCK.min(times.len()));
        while start < times.len() {
            moments.clear();
            for time in times[start..].iter().take(BLOCK).map(|time| time.as_nanos()) {
                if !moments.is_empty() && self.common.generations.event_moves_horizon(time) {
                    break;
                }
                moments.push(self.notice_event(time, clock));
            }
            self.each_held(
                moments.len(),
                |index| fingerprint(start + index),
                |held, run| {
                    for (index, question) in run.questions() {
                        let given = moments[index].map(|moment| held.ask_event(question.fingerprint, moment, act));
                        answer(start + index, given.unwrap_or_else(|unjudged| unjudged));
                    }
                },
            );
            start += moments.len();
        }
    }

    /// Marks reserved fingerprints as seen.
    pub(crate) fn commit_batch(&self, fingerprints: &[Fingerprint], times: Times<'_>) {
        match times {
            Times::Now(now) => {
                self.common.generations.observe_clock(now);
                self.each_held(
                    fingerprints.len(),
                    |index| fingerprints[index],
                    |held, run| {
                        run.questions().for_each(|(_, question)| held.commit_at(question.slot, question.fingerprint));
                    },
                );
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

    /// Calls `act` for each fingerprint, holding its shard.
    #[inline]
    fn each_held(
        &self,
        questions: usize,
        mut fingerprint: impl FnMut(usize) -> Fingerprint,
        mut act: impl FnMut(&mut Held<'_>, Run<'_>),
    ) {
        let shards = self.shards.len();
        let (mut block, mut next) = (&mut Block::new(shards, questions), &mut Block::new(shards, questions));
        let mut prepared = questions.min(BLOCK);
        block.prepare(self, 0..prepared, &mut fingerprint);
        let mut start = 0;
        while !block.questions.is_empty() {
            let coming = questions.min(prepared + BLOCK);
            next.prepare(self, prepared..coming, &mut fingerprint);
            prepared = coming;
            block.sort();
            let mut done = 0;
            for (shard, end) in self.shards.iter().zip(&block.ends) {
                let sorted = &block.sorted[done..usize::from(*end)];
                if !sorted.is_empty() {
                    done = usize::from(*end);
                    act(&mut shard.hold(&self.common), Run { block: &block.questions, sorted, start });
                }
            }
            start += block.questions.len();
            std::mem::swap(&mut block, &mut next);
        }
    }
}

impl<'a> Block<'a> {
    fn new(shards: usize, questions: usize) -> Self {
        let most = questions.min(BLOCK);
        let (fingerprints, questions) = (Vec::with_capacity(most), Vec::with_capacity(most));
        Self { fingerprints, questions, sorted: [0; BLOCK], ends: vec![0; shards] }
    }

    /// Takes the questions of `range`, and asks for their lines. In two passes: short ones overlap better, as the
    /// processor looks ahead over more questions while it waits for directories.
    #[inline]
    fn prepare(&mut self, set: &'a Set, range: Range<usize>, fingerprint: &mut impl FnMut(usize) -> Fingerprint) {
        self.fingerprints.clear();
        self.fingerprints.extend(range.map(fingerprint));
        self.ends.fill(0);
        self.questions.clear();
        let (shard_bits, ends) = (set.common.shape.shard_bits, &mut self.ends[..]);
        self.questions.extend(self.fingerprints.iter().map(|fingerprint| {
            let number = set.shard_of(*fingerprint);
            let shard = &set.shards[number];
            ends[number] += 1;
            let slot = prefetch_home(shard, shard_bits, *fingerprint);
            Question { fingerprint: *fingerprint, slot, shard: number as u16 }
        }));
    }

    /// Counting sort, stable.
    #[inline]
    fn sort(&mut self) {
        let mut start = 0;
        for end in &mut self.ends {
            start += std::mem::replace(end, start);
        }
        for (index, question) in (0_u16..).zip(&self.questions) {
            let end = &mut self.ends[usize::from(question.shard)];
            self.sorted[usize::from(*end) % BLOCK] = index;
            *end += 1;
        }
    }
}

/// Asks for the home line of a coming question, without the lock, and says where its segment is named.
#[inline]
pub(super) fn prefetch_home(shard: &Shard, shard_bits: u32, fingerprint: Fingerprint) -> &Slot {
    let stored = Stored::of(fingerprint);
    let slot = shard.root(fingerprint, shard_bits).slot(stored);
    prefetch(slot.segment().home(stored));
    slot
}
